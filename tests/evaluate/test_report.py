"""A report: the table, JSON that reads back, plots and sheets, written whole or not at all."""

import json
from dataclasses import replace

import pytest
from PIL import Image
from torch.nn import functional as F

from sfumato.errors import OutputError
from sfumato.evaluate.candidates import Candidate, SamplingSettings
from sfumato.evaluate.report import (
    HEADINGS,
    EvaluationReport,
    _curves,
    _levels,
    _sheet,
    cells,
    markdown,
    write,
)
from sfumato.evaluate.run import BenchmarkPlan, Metrics, ResultRow, evaluate, prepare
from sfumato.evaluate.scorer import Retrieval

CHOICE = SamplingSettings(4, 2.0, 32, "ddim", "trailing")


@pytest.fixture(scope="module")
def report(icon_data, tmp_path_factory):
    """Two models, one twice as good, at two scales of guidance."""
    cache = tmp_path_factory.mktemp("cache")
    plan = BenchmarkPlan(count=10, things=1, varied=2, seeds=2)
    benchmark = prepare(icon_data, plan, 32, cache, lambda x: F.adaptive_avg_pool2d(x, 4).flatten(1), None)

    def candidate(name, shade):
        def draw(asked, settings):
            for one in asked:
                place = one.seed % 10
                picture = benchmark.real.pictures([place])[0] * shade / settings.guidance
                yield one, ((picture + 1) * 127.5).byte().permute(1, 2, 0).numpy()

        return Candidate(name, {"fingerprint": name}, draw, {"full": lambda x: x * shade})

    choices = [replace(CHOICE, guidance=2.0), replace(CHOICE, guidance=1.0)]
    results = [
        evaluate(candidate(name, shade), choices, benchmark)
        for name, shade in (("good", 0.9), ("some/bad", 0.4))
    ]
    return EvaluationReport(benchmark, tuple(results))


def test_a_line_of_the_table_has_every_figure_and_leaves_out_what_is_not_known():
    metrics = Metrics(
        1000, 12.345, (0.0012, 0.0003), Retrieval(0.25, 0.5, 7.0, 1000), 0.75, 0.5, 1.234, {"red": {"red": 1}}
    )
    assert cells(ResultRow("mine", CHOICE, metrics)) == (
        "mine", "ddim", "4", "2", "12.35", "1.20 ± 0.30", "25.0%", "50.0%", "7", "75.0%", "0.50", "1.23",
    )  # fmt: skip
    assert cells(ResultRow("real", None, Metrics(8))) == ("real", *[""] * (len(HEADINGS) - 1))
    assert cells(ResultRow("real", None, Metrics(8, kernel=(0.002, 0.0))))[5] == "2.00"


def test_the_tables_are_markdown_with_a_line_for_every_row(report):
    lines = markdown(report).splitlines()
    assert lines[0] == "10 pictures of held-out concepts, 32 pixels a side; seed 0."
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + len(report.rows) + 2 + 2
    assert len({line.count("|") for line in table}) == 2
    assert "top-1" not in table[0], "there was no scorer"
    assert sum("some/bad" in line for line in table) == 4


def test_the_report_folder_holds_everything_and_json_reads_back(report, tmp_path):
    write(report, tmp_path / "out")
    told = json.loads((tmp_path / "out" / "report.json").read_text())
    assert told == json.loads(json.dumps(report.to_dict()))
    assert [model["name"] for model in told["models"]] == ["good", "some/bad"]
    assert told["models"][0]["fingerprint"] == "good"
    assert told["models"][0]["rows"][1]["settings"]["guidance"] == 2.0
    assert told["models"][0]["fidelity"]["full"]["psnr"] > told["models"][1]["fidelity"]["full"]["psnr"]
    assert len(told["prompts"]) == told["plan"]["count"] == 10
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"report.md", "distance-guidance.png", "kernel-guidance.png", "diversity-guidance.png"} <= names
    assert {"sheet-1-good.webp", "sheet-2-some-bad.webp"} <= names
    assert "distance-steps.png" not in names
    written = (tmp_path / "out" / "report.md").read_text()
    assert all(f"({name})" in written for name in names if name.endswith((".png", ".webp")))


def test_a_sheet_has_eight_pictures_in_a_row_with_their_prompts(report, tmp_path):
    write(report, tmp_path / "out")
    with Image.open(tmp_path / "out" / "sheet-1-good.webp") as sheet:
        assert sheet.size == (8 * 192, 2 * (192 + 32))
        strip = sheet.convert("L").crop((0, 192, 192, 224))
    assert min(strip.getdata()) < 100


@pytest.mark.parametrize(
    "prompt", ["WWW " * 20, "a woman standing: medium-dark skin tone, twemoji", "x", "WW" * 99]
)
def test_words_on_a_sheet_stay_under_their_picture(tmp_path, prompt):
    Image.new("RGB", (8, 8)).save(tmp_path / "picture.png")
    _sheet([(prompt, tmp_path / "picture.png"), (" ", tmp_path / "picture.png")], tmp_path / "sheet.webp")
    with Image.open(tmp_path / "sheet.webp") as sheet:
        told, beside = (sheet.convert("L").crop((left, 200, left + 192, 224)) for left in (0, 192))
    assert min(told.getdata()) < 100
    assert min(beside.getdata()) > 200


def test_curves_stand_beside_as_many_real_pictures_only(report):
    levels = _levels(report, lambda metrics: metrics.frechet)
    assert set(levels) == {"real, other concepts", "real, decoded by good", "real, decoded by some/bad"}
    curves = _curves(report, lambda metrics: metrics.frechet, "guidance", "steps")
    assert list(curves) == ["good, ddim, steps 4", "some/bad, ddim, steps 4"]
    assert [along for along, _ in curves["good, ddim, steps 4"]] == [1, 2]


def test_an_older_report_is_replaced_and_nothing_else_is(report, tmp_path):
    write(report, tmp_path / "out")
    (tmp_path / "out" / "old.txt").write_text("")
    write(report, tmp_path / "out")
    assert not (tmp_path / "out" / "old.txt").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("")
    with pytest.raises(OutputError, match=r"holds no report.json"):
        write(report, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]
