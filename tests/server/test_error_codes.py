import io
import re
from pathlib import Path

import PIL.Image
import pytest

from sfumato import expansion, folders, pictures
from sfumato.errors import NumericsError, SfumatoError
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
