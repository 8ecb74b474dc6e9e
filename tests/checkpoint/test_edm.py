"""Models with an EDM schedule (Playground v2.5, CosXL): read and drawn as diffusers draws them."""

import diffusers
import numpy as np
import pytest
import torch
from checkpoint_families import give_scheduler, pipeline
from single_files import autoencoder, write

import sfumato
from sfumato import checkpoint
from sfumato.errors import CheckpointError, UsageError

pytestmark = pytest.mark.filterwarnings("ignore::sfumato.errors.SfumatoWarning")

MEAN, STD = (-1.6574, 1.886, -1.383, 2.5155), (8.4927, 5.9022, 6.5498, 5.2299)
COSXL = {"sigma_data": 1.0, "sigma_max": 120.0, "prediction_type": "v_prediction"}
SIZE = {"width": 24, "height": 16}


@pytest.fixture(scope="module")
def pipe():
    """A small SDXL whose latents are normalised by channel, as Playground v2.5's are."""
    made = pipeline("sdxl")
    made.vae.register_to_config(scaling_factor=0.5, latents_mean=[*MEAN], latents_std=[*STD])
    made.set_progress_bar_config(disable=True)
    return made


@pytest.mark.parametrize(
    ("scheduler", "config", "sampler"),
    [
        ("EDMDPMSolverMultistepScheduler", {}, "dpmpp-2m"),
        (
            "EDMDPMSolverMultistepScheduler",
            {"sigma_data": 0.7, "prediction_type": "v_prediction"},
            "dpmpp-2m",
        ),
        ("EDMEulerScheduler", {}, "euler"),
        ("EDMEulerScheduler", {"sigma_schedule": "exponential", "sigma_min": 0.01}, "euler"),
        ("EDMEulerScheduler", COSXL, "euler"),
    ],
)
def test_a_drawing_by_an_edm_schedule_equals_diffusers(scheduler, config, sampler, pipe, tmp_path):
    pipe.scheduler = getattr(diffusers, scheduler)(**config)
    pipe.save_pretrained(tmp_path)
    theirs = pipe(
        "a red apple", num_inference_steps=6, guidance_scale=3.0, output_type="np",
        generator=torch.Generator().manual_seed(5), **SIZE,
    ).images[0]  # fmt: skip
    studio = sfumato.load(tmp_path, device="cpu", dtype="float32")
    drawn = studio.generate("a red apple", steps=6, guidance=3.0, seed=5, sampler=sampler, **SIZE).pixels
    assert np.abs(drawn - 255 * theirs).max() <= 0.6
    assert theirs.std() > 0.1
    assert studio.model.defaults.spacing == config.get("sigma_schedule", "karras")


def test_the_report_says_what_is_preconditioned_and_along_which_path(pipe, tmp_path):
    pipe.scheduler = diffusers.EDMEulerScheduler(**COSXL)
    pipe.save_pretrained(tmp_path)
    report = checkpoint.inspect(tmp_path)
    assert not report.problems
    assert report.value("prediction") == "edm-v:1"
    assert report.value("path") == "variance exploding, σ 0.002 to 120"
    assert report.value("latent scale") == "× 0.5, normalised by latents_mean and latents_std"


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"sigma_data": 0}, "sigma_data is 0: must be greater than 0"),
        ({"sigma_min": 90.0}, "sigma_min = 90.0 must be above 0 and below sigma_max"),
        ({"prediction_type": "sample"}, "prediction_type = 'sample' is none of an EDM schedule"),
        ({"sigma_schedule": "cosine"}, "sigma_schedule is 'cosine': not supported"),
    ],
)
def test_an_edm_schedule_that_makes_no_sense_is_refused(config, told, folder):
    give_scheduler(folder, {"_class_name": "EDMEulerScheduler", **config})
    with pytest.raises(CheckpointError, match=told):
        checkpoint.load(folder)


def test_what_is_no_part_of_an_edm_schedule_cannot_be_asked_for(folder):
    give_scheduler(folder, {"_class_name": "EDMEulerScheduler"})
    assert checkpoint.load(folder, prediction="v").prediction == "edm-v"
    with pytest.raises(UsageError, match="'sample' is none of an EDM schedule"):
        checkpoint.load(folder, prediction="x0")
    with pytest.raises(UsageError, match="zero_terminal_snr is about betas"):
        checkpoint.load(folder, zero_terminal_snr=True)


def test_a_single_file_is_known_by_the_marks_of_playground_and_of_cosxl(published, tmp_path):
    _, tensors = published("sdxl")
    statistics = {
        "edm_mean": torch.tensor(MEAN).view(1, 4, 1, 1),
        "edm_std": torch.tensor(STD).view(1, 4, 1, 1),
    }
    write(tensors | statistics, tmp_path / "playground.safetensors")
    model = checkpoint.load(tmp_path / "playground.safetensors")
    assert (model.prediction, model.vae.config.scaling_factor) == ("edm", 0.5)
    assert model.vae.config.latents_mean == pytest.approx(MEAN)
    assert model.vae.config.latents_std == pytest.approx(STD)
    assert (model.path().level(1).s, model.path().level(0).s) == pytest.approx((80, 0.002))
    ends = {"edm_vpred.sigma_max": torch.tensor(120.0), "edm_vpred.sigma_min": torch.tensor(0.002)}
    write(tensors | ends, tmp_path / "cosxl.safetensors")
    model = checkpoint.load(tmp_path / "cosxl.safetensors")
    assert (model.prediction, model.path().level(1).s) == ("edm-v:1", pytest.approx(120))


@pytest.mark.parametrize("config", [{}, COSXL], ids=["playground", "cosxl"])
def test_a_folder_goes_into_a_file_and_back(config, pipe, tmp_path):
    pipe.scheduler = diffusers.EDMEulerScheduler(**config)
    pipe.save_pretrained(tmp_path / "model")
    checkpoint.convert(tmp_path / "model", tmp_path / "model.safetensors")
    checkpoint.convert(tmp_path / "model.safetensors", tmp_path / "again")
    models = [checkpoint.load(tmp_path / name) for name in ("model", "model.safetensors", "again")]
    assert len({(each.prediction, each.path().level(1).s, each.vae.config) for each in models}) == 1
    again = diffusers.StableDiffusionXLPipeline.from_pretrained(tmp_path / "again")
    assert again.scheduler.config.sigma_data == pipe.scheduler.config.sigma_data


def test_a_vae_from_a_file_keeps_the_models_statistics(published, tmp_path):
    marks = {"edm_mean": torch.tensor(MEAN), "edm_std": torch.tensor(STD)}
    write(published("sdxl")[1] | marks, tmp_path / "playground.safetensors")
    write(autoencoder().state_dict(), tmp_path / "vae.safetensors")
    config = checkpoint.load(tmp_path / "playground.safetensors", vae=tmp_path / "vae.safetensors").vae.config
    assert config.scaling_factor == 0.5
    assert config.latents_mean == pytest.approx(MEAN)
