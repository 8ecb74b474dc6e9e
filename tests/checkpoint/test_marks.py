"""Marks of what a network predicts and of zero terminal SNR, and what a user says against them."""

import json

import numpy as np
import pytest
import torch
from single_files import write

import sfumato
from sfumato import checkpoint
from sfumato.errors import CheckpointError, SfumatoWarning, UsageError

MARKS = {name: torch.empty(0) for name in ("v_pred", "ztsnr")}
ZERO_SNR = {"ztsnr": MARKS["ztsnr"]}


@pytest.fixture
def marked(published, tmp_path):
    """A single file of an SDXL with these tensors and header entries besides."""

    def make(marks, **metadata):
        path = tmp_path / "model.safetensors"
        write(published("sdxl")[1] | marks, path, **metadata)
        return path

    return make


def ends_in_pure_noise(model):
    return model.path().level(999).a == 0


def test_a_zero_snr_mark_without_a_prediction_is_refused_with_mark_and_switches_named(marked):
    path = marked(ZERO_SNR)
    with pytest.raises(CheckpointError, match="marked by a tensor 'ztsnr'") as caught:
        checkpoint.load(path)
    assert "--prediction v" in str(caught.value)
    assert "--no-zero-terminal-snr" in str(caught.value)
    assert str(caught.value) in checkpoint.inspect(path).problems
    told = checkpoint.inspect(marked(ZERO_SNR, **{"modelspec.prediction_type": "epsilon"})).problems
    assert "the header says so (modelspec: epsilon)" in told[0]


@pytest.mark.parametrize(
    ("marks", "asked", "prediction", "pure"),
    [
        (MARKS, {}, "v", True),
        (MARKS, {"prediction": "epsilon"}, "epsilon", False),
        (MARKS, {"zero_terminal_snr": False}, "v", False),
        (ZERO_SNR, {"prediction": "v"}, "v", True),
        (ZERO_SNR, {"prediction": "x0"}, "x0", True),
        (ZERO_SNR, {"prediction": "epsilon"}, "epsilon", False),
        (ZERO_SNR, {"zero_terminal_snr": False}, "epsilon", False),
        ({}, {"zero_terminal_snr": True, "prediction": "v"}, "v", True),
        ({}, {"prediction": "v"}, "v", False),
        ({}, {"zero_terminal_snr": True}, "epsilon", True),
    ],
)
def test_what_is_asked_for_outdoes_every_mark(marks, asked, prediction, pure, marked):
    path = marked(marks)
    model = checkpoint.load(path, **asked)
    assert (model.prediction, ends_in_pure_noise(model)) == (prediction, pure)
    if asked:
        others = [{}] if marks != ZERO_SNR else [{"prediction": "flow"}]
        assert model.fingerprint not in {checkpoint.load(path, **other).fingerprint for other in others}


def test_a_prediction_that_is_asked_for_decides_the_size_as_well(published, tmp_path):
    write(published("sd2-v")[1], tmp_path / "model.safetensors")
    v, epsilon = (checkpoint.load(tmp_path / "model.safetensors", prediction=p) for p in ("v", "epsilon"))
    assert v.native_size > epsilon.native_size


def test_marks_that_contradict_each_other_are_warned_of(marked):
    path = marked(MARKS, **{"modelspec.prediction_type": "epsilon"})
    with pytest.warns(SfumatoWarning, match="a tensor 'v_pred', and its header says epsilon"):
        assert checkpoint.load(path).prediction == "v"


def test_a_folder_that_ends_in_pure_noise_and_predicts_noise_is_drawn_where_that_can_be(folder):
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "rescale_betas_zero_snr": True}))
    studio = sfumato.load(folder, device="cpu", dtype="float32")
    with pytest.raises(UsageError, match=r"predicts epsilon.*\(rescale_betas_zero_snr\): --prediction v"):
        studio.generate("a", steps=2, seed=1)
    assert studio.generate("a", steps=2, seed=1, spacing="leading").pixels.std() > 0
    switched = sfumato.load(folder, device="cpu", dtype="float32", zero_terminal_snr=False)
    image = switched.generate("a", steps=2, seed=1)
    assert image.request.zero_terminal_snr is False
    assert np.isfinite(image.pixels).all()


def test_what_was_asked_for_goes_into_what_is_converted(marked, tmp_path):
    checkpoint.convert(marked({}), tmp_path / "folder", prediction="v", zero_terminal_snr=True)
    model = checkpoint.load(tmp_path / "folder")
    assert (model.prediction, ends_in_pure_noise(model)) == ("v", True)
