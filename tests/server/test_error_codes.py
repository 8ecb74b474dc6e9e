import ast
import io
import json
import re
import struct
from pathlib import Path

import PIL.Image
import pytest

from sfumato import expansion, folders, pictures, weights
from sfumato.errors import NumericsError, SfumatoError
from sfumato.inputs import bytes_only
from sfumato.prompt.language import parse
from sfumato.request import Request
from sfumato.server import error_codes, workers
from sfumato.server.admission import admitted
from sfumato.server.error_codes import coded
from sfumato.server.errors import error_body
from sfumato.server.jobs import Event
from sfumato.server.limits import Limits
from sfumato.server.settings import ServerSettings
from sfumato.server.store import NewJob, Store

PACKAGE = Path(error_codes.__file__).parents[1]
SETTINGS = ServerSettings(max_pictures=4, max_pixels=512 * 512, max_frames=8, max_steps=50)
TEXTS = Path(__file__).parents[2] / "web" / "src" / "lib" / "texts" / "errors.ts"


def read(prompt):
    (first, *_) = expansion.expand(Request(prompt=prompt, seed=1))
    parse(first.request.prompt, "sfumato")


def asked(**fields):
    admitted({"prompt": "a cat", **fields}, SETTINGS)


def opened(content):
    with pictures.opened_content(io.BytesIO(content), "image") as picture:
        picture.load()


def file(kind, size=(8, 8), **options):
    buffer = io.BytesIO()
    PIL.Image.new("L", size).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("provoke", "code", "values"),
    [
        (lambda: read("a (cat"), "bracket_not_closed", {"sign": "(", "place": "3"}),
        (lambda: read("a cat)"), "bracket_closes_nothing", {"sign": ")", "place": "6"}),
        (lambda: read("a (cat]"), "bracket_closes_other", {"sign": "]", "other": "(", "place": "3"}),
        (lambda: read("a {b|c"), "brace_not_closed", {"place": "3"}),
        (lambda: read("a {b}}"), "brace_closes_nothing", {"place": "6"}),
        (lambda: read("(a:200)"), "weight_out_of_range", {"weight": "200", "least": "-10", "most": "10"}),
        (lambda: read("a AND"), "and_without_part", {}),
        (
            lambda: parse("a" * 100_001, "sfumato"),
            "prompt_too_long",
            {"characters": "100001", "most": "100000"},
        ),
        (lambda: read("__nothing__"), "unknown_wildcard", {"name": "nothing"}),
        (lambda: read_styled("nothing"), "unknown_style", {"name": "nothing"}),
        (lambda: folders.pick("adapters", "ink"), "unknown_adapter", {"name": "ink"}),
        (lambda: folders.pick("motion", "mm", names_only=True), "unknown_motion_adapter", {"name": "mm"}),
        (lambda: asked(model="dreamy"), "unknown_model", {"name": "dreamy"}),
        (lambda: asked(count=5), "too_many_pictures", {"count": "5", "most": "4"}),
        (
            lambda: asked(width=1024, height=512),
            "too_many_pixels",
            {"width": "1024", "height": "512", "most": "262144"},
        ),
        (lambda: asked(frames=9), "too_many_frames", {"count": "9", "most": "8"}),
        (lambda: asked(steps=51), "too_many_steps", {"count": "51", "most": "50"}),
        (lambda: opened(b"words"), "picture_not_read", {"kinds": pictures.READABLE}),
        (
            lambda: opened(file("PNG", (5000, 5000))),
            "picture_too_large",
            {"width": "5000", "height": "5000", "most": str(pictures.MAX_PIXELS)},
        ),
        (
            lambda: opened(file("GIF", save_all=True, append_images=[PIL.Image.new("L", (8, 8), 255)])),
            "picture_moves",
            {},
        ),
        (lambda: opened(file("PNG", (64, 64))[:60]), "picture_damaged", {}),
    ],
)
def test_what_people_meet_has_a_code_and_its_values(provoke, code, values):
    with pytest.raises(SfumatoError) as error:
        provoke()
    assert coded(str(error.value)) == (code, values)


def read_styled(name):
    next(expansion.expand(Request(prompt="a", seed=1, style=name)))


def test_limits_of_the_queue_and_the_hour_have_codes(tmp_path):
    store = Store(tmp_path)
    job = NewJob({"model": "embedded"}, 1)

    def refused(limits):
        with pytest.raises(SfumatoError) as error:
            store.submit(job, owner="local", limits=limits)
        return coded(str(error.value))

    try:
        store.submit(job, owner="local", limits=Limits(1))
        assert refused(Limits(1)) == ("queue_full", {"waiting": "1", "most": "1"})
        assert refused(Limits(9, pictures_per_hour=1)) == ("hourly_limit", {"count": "1", "most": "1"})
    finally:
        store.close()


def test_a_job_that_failed_tells_its_code():
    event = Event(kind="state", job="j", error=f"{workers.CRASHED} 3 times")
    assert event.model_dump(exclude_none=True)["error_code"] == "process_ended"
    assert Event(kind="state", job="j", error="something else").error_code is None
    assert "error_code" not in Event(kind="state", job="j").model_dump(exclude_none=True)
    assert coded(str(NumericsError("the network's answer is not finite at step 3"))).code == "not_finite"


def test_an_answer_has_the_code_beside_its_sentence():
    body = error_body(400, "frames is 90: at most 64 here")["error"]
    assert (body["code"], body["values"]) == ("too_many_frames", {"count": "90", "most": "64"})
    assert error_body(400, "something else")["error"]["code"] is None


def test_the_page_has_words_for_every_code_that_name_only_its_values():
    found = dict(re.findall(r'"error\.(\w+)": \{(.*?)\n? *\},\n', TEXTS.read_text("utf-8"), re.DOTALL))
    known = {code: set(re.compile(each).groupindex) for code, each in error_codes.SENTENCES.items()}
    assert found.keys() == known.keys()
    for code, texts in found.items():
        assert set(re.findall(r"\{(\w+)\}", texts)) <= known[code] | {"seconds", "time"}, code


def weights_file(folder, kind):
    """A file of weights, damaged in one way or another."""
    header = json.dumps({"a.b": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    whole = struct.pack("<Q", len(header)) + header + struct.pack("<4f", 0, 0, 0, float("nan"))
    contents = {
        "text": b"this is no file of weights",
        "empty": b"",
        "cut": whole[:-1],
        "long": whole + b"0",
        "pickle": b"PK\x03\x04" + bytes(60),
        "dtype": whole.replace(b"F32", b"F99"),
        "json": whole.replace(b'{"a.b"', b"{'a.b\""),
        "nan": whole,
    }
    path = folder / f"{kind}.safetensors"
    path.write_bytes(contents[kind])
    return path


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("text", "file_not_safetensors"),
        ("empty", "file_cut_off"),
        ("cut", "file_cut_off"),
        ("long", "file_cut_off"),
        ("pickle", "file_pickled"),
        ("dtype", "file_header_damaged"),
        ("json", "file_header_damaged"),
        ("nan", "file_not_finite"),
    ],
)
def test_a_damaged_file_of_weights_is_named_by_what_is_wrong_with_it(tmp_path, kind, code):
    with pytest.raises(SfumatoError) as caught:
        weights.read(weights_file(tmp_path, kind))
    assert coded(str(caught.value)) == (code, {"name": f"{kind}.safetensors"})


@pytest.mark.parametrize(
    ("sentence", "code", "values"),
    [
        ("/c/x/config.json: a UNet is no control; ControlNetModel is", "file_no_control", {"name": "x"}),
        ("/c/x.safetensors is no control; a control is a ControlNet", "file_no_control", None),
        ("/m/x.safetensors is no motion adapter; a motion adapter is AnimateDiff's", "file_no_motion", None),
        ("/a/x is a LoRA: put it into the adapters folder (/a)", "file_of_other_folder", None),
        ("/c/x/config.json is not valid JSON: Expecting", "file_not_json", {"name": "x"}),
        ("/c/x/config.json: unknown key 'foo'; known: a", "file_unsupported", {"name": "x"}),
        ("/c/x: 'conv_in.weight' and 337 more are missing; 'a' is unknown", "file_incomplete", None),
        ("/m/x is incomplete: the folder unet/ is missing", "file_no_model", {"name": "x"}),
        ("/a/x: 2 of 3 keys do not fit this model: 'a'", "adapter_misfit", None),
        ("the embedding 'x' is 99 wide, made for SD", "embedding_misfit", {"name": "x"}),
        ("something new about /a/x.safetensors, which has", "file_unusable", None),
    ],
)
def test_what_is_wrong_with_a_file_of_another_kind_has_a_code(sentence, code, values):
    found = coded(sentence)
    assert found is not None
    assert found[0] == code
    assert values in (None, found[1])


MET = (
    *("request.py", "expansion.py", "inputs.py", "pictures.py", "element.py", "control.py", "folders.py"),
    *("few_steps.py", "decoders.py", "prompt", "series/grid.py", "studio", "edit", "train/teach.py"),
    *(
        "server/admission.py",
        "server/submitting.py",
        "server/teaching.py",
        "server/grids.py",
        "server/worker",
    ),
    *("server/questions.py", "server/security.py", "server/store/store.py", "server/store/quota.py"),
    *(
        "server/routes/jobs.py",
        "server/routes/grids.py",
        "server/routes/pictures.py",
        "server/routes/page.py",
    ),
    *("server/routes/teachings.py", "server/routes/library.py", "server/routes/reading.py"),
)
"""Whose sentences a person may meet on the page."""
UNMET = {
    "prompt/tokenizer.py": "of a model's files",
    "prompt/wildcards.py: a key in line": "inside another sentence",
    "studio/drawing.py: cannot use": "of the library",
    "studio/drawing.py: a picture that is drawn in passes": "of the library",
    "studio/drawing.py: a trainable studio": "of the library",
    "studio/drawing.py: the model cannot be read again": "of the library",
    "studio/drawing.py: this studio is closed": "of the library",
    "studio/shaping.py": "of shapes, which the page has not",
    "studio/texturing.py": "of shapes, which the page has not",
    "studio/shape_models.py": "of shapes, which the page has not",
    "train/teach.py: 7 must be called": "of the command",
    "train/teach.py: will not replace": "of the command",
    "train/teach.py: no pictures are given": "of the library",
    "train/teach.py: two pictures": "of folders",
    "train/teach.py: there is no picture": "of folders",
    "train/teach.py: 7 is": "of folders",
    "train/teach.py: cannot copy": "of folders",
    "folders.py: unknown kind of file": "of the library",
}
"""Sentences of these places that no person meets there, by their beginnings, and why."""
WORDLESS = re.compile(r"[\W\d_]*")


def sentence(node):
    """What an error says, with 7 for all that is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(sentence, node.values))
    if isinstance(node, ast.FormattedValue):
        filled = ast.unparse(node.value)
        if "where" in filled:
            return "character 7"
        if filled.startswith("here("):
            return "character 7, before x"
        return "'7'" if node.conversion == ord("r") or filled.startswith("shown(") else "7"
    if isinstance(node, ast.BinOp):
        return sentence(node.left) + sentence(node.right)
    return sentence(node.body) if isinstance(node, ast.IfExp) else ""


def raised():
    """The errors that are raised where people meet them: `module: sentence`, of what kind."""
    for place in MET:
        path = PACKAGE / place
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                    kind = ast.unparse(node.exc.func)
                    first = 1 if kind in ("HTTPException", "_RefusedError") else 0
                    text = "" if kind in ("AttributeError", "TypeError") else sentence(node.exc.args[first])
                    if not WORDLESS.fullmatch(text):
                        yield f"{file.relative_to(PACKAGE).as_posix()}: {text}", kind


def test_every_sentence_that_a_person_may_meet_on_the_page_has_a_code():
    without = set()
    for said, kind in raised():
        text = said.partition(": ")[2]
        # pydantic names the field before what a validator says
        if coded(text) is None and (kind != "ValueError" or coded(f"seed is 7: {text}") is None):
            without.add(said)
    unmet = {each for each in without if each.startswith(tuple(UNMET))}
    assert without - unmet == VARIABLE
    assert [each for each in UNMET if not any(said.startswith(each) for said in unmet)] == []


VARIABLE = {
    "pictures.py: 7 has 7×7 pixels; 7",
    "pictures.py: 7 7; only single pictures are read",
    "prompt/template_tree.py: character 7: 7; as text it is \\_\\_7\\_\\_",
}
"""Whose words are filled in: these are provoked above."""


def fields_refused():
    """Values that `Request` refuses, of every kind of refusal."""
    wrong = ("x" * 200, -1, 10**9, 0.5, [], {}, None, "", True, [1, 2, 3], {"a": 1}, [{}])
    for name in Request.model_fields:
        for value in wrong:
            try:
                Request.build(**{"prompt": "a", name: value})
            except SfumatoError as error:
                yield str(error)


def test_every_refusal_of_a_field_has_a_code():
    with bytes_only():
        assert {each for each in fields_refused() if coded(each) is None} == set()
