import json

from sfumato import checkpoint, weights


def test_the_embedded_model_is_described_from_its_headers(monkeypatch):
    def fail(*arguments, **options):
        raise AssertionError("weights were read")

    monkeypatch.setattr(weights, "_read_tensor", fail)
    report = checkpoint.inspect("embedded")
    assert not report.problems
    assert report.kind == "latent-diffusion"
    assert [part.name for part in report.components] == ["unet", "vae", "text_encoder", "tiny_vae"]
    assert 21_000_000 < report.parameters < 22_000_000
    assert report.value("prediction") == "v"
    assert report.value("native size") == "256 × 256"
    assert "zero terminal signal" in next(i.reason for i in report.inferences if i.what == "path")


def test_every_inference_has_a_value_and_a_reason(saved):
    for family in ("sd1", "sd2", "sdxl", "refiner", "inpaint", "instruct", "lcm"):
        report = checkpoint.inspect(saved(family))
        assert not report.problems
        assert all(found.value and found.reason for found in report.inferences)
        told = {found.what for found in report.inferences}
        assert {"kind", "task", "prediction", "path", "native size", "latent scale", "defaults"} <= told


def test_a_report_is_text_and_json_that_say_the_same(saved):
    report = checkpoint.inspect(saved("sdxl"))
    lines, content = "\n".join(report.lines()), json.loads(json.dumps(report.to_dict()))
    assert content["kind"] == "sdxl"
    for part in content["components"]:
        assert part["name"] in lines
        assert part["files"][0] in lines
    for found in content["inferences"]:
        assert f"{found['what']}: {found['value']} ({found['reason']})" in lines
    assert content["fingerprint"] in lines


def test_problems_stand_in_the_text(folder):
    (folder / "vae" / "config.json").unlink()
    assert any(line.startswith("problem: ") for line in checkpoint.inspect(folder).lines())
