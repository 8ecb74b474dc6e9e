"""Latent consistency models in the layout they are published in draw here what they draw in diffusers."""

import json
import shutil

import diffusers
import numpy as np
import pytest
import single_files
import torch
from checkpoint_families import autoencoder, pipeline, text_encoder, tokenizer, unet

import sfumato
from sfumato import checkpoint
from sfumato.checkpoint.families import Defaults
from sfumato.checkpoint.infer import TrainedRange
from sfumato.errors import CheckpointError, SfumatoWarning

PROMPT = "a red apple"
SIZE = {"width": 24, "height": 16}
TOLD = 256
XL = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 68,
    "use_linear_projection": True,
}


def published(kind):
    """A pipeline as `LCM_Dreamshaper_v7` is one, or the same of SDXL."""
    torch.manual_seed(5)
    parts = {
        "vae": autoencoder(),
        "scheduler": diffusers.LCMScheduler(original_inference_steps=50),
        "tokenizer": tokenizer(),
    }
    if kind == "sdxl":
        return diffusers.StableDiffusionXLPipeline(
            unet=unet(time_cond_proj_dim=TOLD, **XL),
            text_encoder=text_encoder(8),
            text_encoder_2=text_encoder(16, projection=True, act="gelu"),
            tokenizer_2=tokenizer(pad_token="!"),
            add_watermarker=False,
            **parts,
        )
    return diffusers.LatentConsistencyModelPipeline(
        unet=unet(time_cond_proj_dim=TOLD),
        text_encoder=text_encoder(24),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        **parts,
    )


def theirs(pipe, steps=4, guidance=8.5, **call):
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(3)
    call |= {"num_inference_steps": steps, "guidance_scale": guidance, **SIZE}
    return 255 * pipe(PROMPT, generator=generator, output_type="np", **call).images[0]


def ours(studio, **fields):
    return studio.generate(PROMPT, seed=3, **{**SIZE, **fields}).pixels


def assert_alike(own, other):
    assert np.abs(own - other).max() <= 1
    assert other.std() > 10


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Each kind's pipeline, its folder and a studio of it, made once."""
    made = {}

    def get(kind):
        if kind not in made:
            pipe, folder = published(kind), tmp_path_factory.mktemp("published") / kind
            pipe.save_pretrained(folder)
            made[kind] = pipe, folder, sfumato.load(folder, device="cpu", dtype="float32")
        return made[kind]

    return get


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
@pytest.mark.parametrize("guidance", [1.0, 8.0, 13.0])
@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_a_published_model_draws_the_same(kind, guidance, steps, models):
    pipe, _, studio = models(kind)
    assert_alike(ours(studio, steps=steps, guidance=guidance), theirs(pipe, steps, guidance))


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_how_to_draw_is_worked_out_from_the_files(kind, models):
    pipe, folder, studio = models(kind)
    assert studio.model.info.distilled == "lcm"
    assert checkpoint.inspect(folder).value("learned") == "1 to 8 steps, guidance 1 to 14"
    assert studio.model.defaults == Defaults(sampler="lcm", steps=4, guidance=8.5, spacing="lcm")
    assert studio.model.info.trained_range == TrainedRange(steps=(1, 8), guidance=(1.0, 14.0))
    plain = theirs(pipe)
    assert_alike(ours(studio), plain)
    assert np.abs(theirs(pipe, guidance=1.0) - plain).max() > 1


def test_the_pipelines_own_defaults_are_the_same(models):
    pipe, _, studio = models("sd1")
    own = pipe(PROMPT, generator=torch.Generator().manual_seed(3), output_type="np", **SIZE).images[0]
    assert_alike(ours(studio), 255 * own)


@pytest.mark.parametrize("sampler", ["lcm", "LCM", "consistency", "tcd"])
def test_its_own_sampler_and_its_like_are_drawn_with_without_a_word(sampler, models, recwarn):
    ours(models("sd1")[2], sampler=sampler)
    assert not [warning for warning in recwarn if warning.category is SfumatoWarning]


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(steps=30, guidance=7.5), r"steps 30 is not what .* learned \(1 to 8\): .* try 4"),
        (dict(steps=4, guidance=20), r"guidance 20 is not what .* learned \(1 to 14\): .* try 8.5"),
        (dict(negative="blurred"), "is told the guidance and reads no negative prompt"),
        (dict(sampler="dpmpp-2m"), "sampler 'dpmpp-2m' is not for what .* has learned: .* try 'lcm'"),
    ],
)
def test_what_a_published_model_has_not_learned_is_warned_of(kind, fields, message, models):
    with pytest.warns(SfumatoWarning, match=message):
        ours(models(kind)[2], **fields)


def test_the_times_and_the_boundary_are_those_of_the_models_own_schedule(models, tmp_path):
    _, folder, _ = models("sd1")
    other = shutil.copytree(folder, tmp_path / "other")
    file = other / "scheduler" / "scheduler_config.json"
    changed = {"original_inference_steps": 30, "timestep_scaling": 0.001}
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))
    pipe = diffusers.LatentConsistencyModelPipeline.from_pretrained(
        other, safety_checker=None, requires_safety_checker=False
    )
    studio = sfumato.load(other, device="cpu", dtype="float32")
    for steps in (3, 8):
        drawn = theirs(pipe, steps, original_inference_steps=30)
        assert_alike(ours(studio, steps=steps), drawn)
        assert np.abs(theirs(pipe, steps, original_inference_steps=50) - drawn).max() > 2
    assert np.abs(theirs(models("sd1")[0], 8) - theirs(pipe, 8)).max() > 2


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("original_inference_steps", 0, "original_inference_steps is 0: must be at least 1"),
        ("timestep_scaling", 0.0, "timestep_scaling is 0.0: must be greater than 0"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(key, value, message, models, tmp_path):
    other = shutil.copytree(models("sd1")[1], tmp_path / "other")
    file = other / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(other)


def test_a_model_that_learned_one_guidance_is_drawn_with_guidance_one(tmp_path):
    """A model with an LCM-LoRA folded in: the scheduler says what it is, the UNet is told nothing."""
    pipe = pipeline("sd1")
    pipe.scheduler = diffusers.LCMScheduler.from_config(pipe.scheduler.config)
    pipe.save_pretrained(tmp_path / "folded")
    studio = sfumato.load(tmp_path / "folded", device="cpu", dtype="float32")
    assert studio.model.defaults == Defaults(sampler="lcm", steps=4, guidance=1.0, spacing="lcm")
    assert studio.model.info.trained_range == TrainedRange(steps=(1, 8), guidance=(1.0, 2.0))
    assert_alike(ours(studio), theirs(pipe, guidance=1.0))
    assert_alike(ours(studio, guidance=1.5), theirs(pipe, guidance=1.5))
    checkpoint.save(studio.model, tmp_path / "saved")
    again = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "saved")
    assert_alike(theirs(again, guidance=1.0), theirs(pipe, guidance=1.0))


def test_saving_a_published_model_keeps_its_pipeline(models, tmp_path):
    pipe, folder, _ = models("sd1")
    checkpoint.save(checkpoint.load(folder), tmp_path / "saved")
    again = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "saved")
    assert type(again) is type(pipe)
    assert_alike(theirs(again), theirs(pipe))


@pytest.mark.filterwarnings("ignore::sfumato.errors.SfumatoWarning")
def test_a_unet_that_is_published_alone_draws_with_a_base_model(tmp_path):
    """As `lcm-sdxl` is: a folder with one network, in the place of that of the model it was made from."""
    base = single_files.pipeline("sdxl", tmp_path)
    base.save_pretrained(tmp_path / "base")
    same = {key: value for key, value in base.unet.config.items() if not key.startswith("_")}
    net = diffusers.UNet2DConditionModel(**{**same, "time_cond_proj_dim": TOLD})
    net.load_state_dict(base.unet.state_dict(), strict=False)
    net.save_pretrained(tmp_path / "alone")
    with pytest.raises(CheckpointError, match=r"load the \.safetensors file, with a base model for the rest"):
        checkpoint.load(tmp_path / "alone", base=tmp_path / "base")
    file = tmp_path / "alone" / "diffusion_pytorch_model.safetensors"
    studio = sfumato.load(file, base=tmp_path / "base", device="cpu", dtype="float32")
    assert studio.model.defaults == Defaults(sampler="lcm", steps=4, guidance=8.5, spacing="lcm")
    pipe = diffusers.StableDiffusionXLPipeline.from_pretrained(tmp_path / "base", unet=net.eval())
    pipe.scheduler = diffusers.LCMScheduler.from_config(pipe.scheduler.config)
    assert_alike(ours(studio, guidance=8), theirs(pipe, guidance=8.0))
