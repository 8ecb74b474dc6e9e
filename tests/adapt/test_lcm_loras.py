"""LCM-LoRAs in the layout they are published in: the same drawings as in diffusers, and advice on the way."""

import json
import sys
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from adapter_files import CONVOLUTIONS, TARGETS, TEXT, kohya

sys.path.append(str(Path(__file__).parents[1] / "checkpoint"))

from checkpoint_families import pipeline

import sfumato
from sfumato import weights
from sfumato.adapt.sampling_hints import header
from sfumato.errors import CheckpointError, SfumatoWarning

LAYERS = (*TARGETS, *CONVOLUTIONS, "time_emb_proj")
PROMPT = "a red apple"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Of a family: its pipeline with two LoRAs, a studio of its folder, and the files "lcm" and "style"."""
    made = {}

    def get(family):
        if family not in made:
            folder = tmp_path_factory.mktemp(family)
            pipe = pipeline(family)
            pipe.set_progress_bar_config(disable=True)
            pipe.save_pretrained(folder / "model")
            nets = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
            if family == "sdxl":
                nets["text_encoder_2"] = pipe.text_encoder_2
            kohya(folder / "lcm.safetensors", {"unet": pipe.unet}, LAYERS, rank=4, alpha=8.0)
            kohya(folder / "style.safetensors", nets, ("to_q", "to_k", *TEXT), seed=1)
            pipe.scheduler = diffusers.LCMScheduler.from_config(pipe.scheduler.config)
            for name in ("lcm", "style"):
                pipe.load_lora_weights(folder / f"{name}.safetensors", adapter_name=name)
            studio = sfumato.load(folder / "model", device="cpu", dtype="float32")
            for name in ("lcm", "style"):
                studio.load_adapter(folder / f"{name}.safetensors")
            made[family] = pipe, studio, folder
        return made[family]

    return get


def theirs(pipe, steps, guidance, negative, **loras):
    pipe.set_adapters(list(loras), list(loras.values()))
    return 255 * pipe(
        PROMPT, negative_prompt=negative or None, num_inference_steps=steps, guidance_scale=guidance,
        width=24, height=16, generator=torch.Generator().manual_seed(3), output_type="np",
    ).images[0]  # fmt: skip


def ours(studio, prompt, **fields):
    fields = {"steps": 4, "guidance": 1.0, "sampler": "lcm", **fields}
    return studio.generate(prompt, width=24, height=16, seed=3, **fields)


@pytest.mark.parametrize("steps", [1, 4, 8])
@pytest.mark.parametrize(("guidance", "negative"), [(1.0, ""), (1.5, ""), (2.0, "blurred")])
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_published_lora_draws_the_same(family, guidance, negative, steps, models):
    pipe, studio, _ = models(family)
    drawn = ours(studio, f"{PROMPT} <lora:lcm>", steps=steps, guidance=guidance, negative=negative).pixels
    peers = theirs(pipe, steps, guidance, negative, lcm=1.0)
    assert np.abs(drawn - peers).max() <= 1
    assert np.abs(peers - ours(studio, PROMPT, steps=steps, guidance=guidance).pixels).max() > 10


@pytest.mark.parametrize("guidance", [1.0, 1.5])
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_style_goes_with_it(family, guidance, models):
    pipe, studio, _ = models(family)
    drawn = ours(studio, f"{PROMPT} <lora:lcm:0.9> <lora:style:0.8>", guidance=guidance).pixels
    peers = theirs(pipe, 4, guidance, "", lcm=0.9, style=0.8)
    assert np.abs(drawn - peers).max() <= 1
    assert np.abs(peers - theirs(pipe, 4, guidance, "", lcm=0.9)).max() > 10


def advice(studio, name, recwarn, weight=1, **fields):
    """What is said of few steps when the LoRA `name` is drawn with."""
    recwarn.clear()
    image = ours(studio, f"{PROMPT} <lora:{name}:{weight}>", **fields)
    said = [str(warning.message) for warning in recwarn if warning.category is SfumatoWarning]
    assert set(said) <= set(image.record.notes)
    return [message for message in said if "few steps" in message]


AS_EVER = {"steps": 20, "guidance": 7.5, "sampler": "dpmpp-2m"}


def test_drawing_as_ever_with_an_lcm_lora_is_advised_against(models, recwarn):
    _, studio, _ = models("sd1")
    only = "the LoRA 'lcm' is for few steps: it draws well only with"
    assert advice(studio, "lcm", recwarn, **AS_EVER) == [
        f"{only} sampler 'lcm', 1 to 8 steps, guidance 1 to 2"
    ]
    assert advice(studio, "lcm", recwarn, guidance=4) == [f"{only} guidance 1 to 2"]
    assert advice(studio, "lcm", recwarn) == []
    assert advice(studio, "lcm", recwarn, weight=0, **AS_EVER) == []
    assert advice(studio, "style", recwarn, **AS_EVER) == []


@pytest.mark.parametrize(
    ("place", "few"),
    [
        ("lcm-lora-sdv1-5/pytorch_lora_weights.safetensors", True),
        ("SDXL_LCM_LoRA.safetensors", True),
        ("lcm-experiments/style.safetensors", False),
        ("calcmap.safetensors", False),
    ],
)
def test_a_file_without_a_word_on_it_goes_by_its_name(place, few, models, tmp_path, recwarn):
    _, studio, folder = models("sd1")
    file = tmp_path / place
    file.parent.mkdir(exist_ok=True)
    file.write_bytes((folder / "lcm.safetensors").read_bytes())
    studio.load_adapter(file, "it")
    assert bool(advice(studio, "it", recwarn, **AS_EVER)) is few


def stating(folder, path, text):
    """The LCM-LoRA with `text` about itself in its header, under another name."""
    source = folder / "lcm.safetensors"
    weights.write(path, weights.read(source), {"sfumato.json": text})
    return path


def test_a_lora_that_was_learned_here_says_itself_how_to_draw_with_it(models, tmp_path, recwarn):
    _, studio, folder = models("sd1")
    told = header({"sampler": "lcm", "steps": 4, "steps_range": [2, 6], "guidance_range": [1.0, 1.0]})
    studio.load_adapter(stating(folder, tmp_path / "quick.safetensors", told["sfumato.json"]))
    assert advice(studio, "quick", recwarn, steps=8, guidance=2) == [
        "the LoRA 'quick' is for few steps: it draws well only with 2 to 6 steps, guidance 1"
    ]
    assert advice(studio, "quick", recwarn, steps=2) == []


def test_an_adapter_that_is_not_loaded_yet_is_advised_on_as_well(models, recwarn):
    _, _, folder = models("sd1")
    fresh = sfumato.load(folder / "model", device="cpu", dtype="float32")
    assert advice(fresh, folder / "lcm.safetensors", recwarn, **AS_EVER)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        (json.dumps({"steps_range": [1, 8]}), "says nothing of sampler"),
        (json.dumps({"smapler": "lcm"}), "unknown key 'smapler'; did you mean 'sampler'"),
        (json.dumps({"guidance_range": [1]}), "guidance_range is .*: must have more than 1 item"),
    ],
)
def test_a_header_that_makes_no_sense_is_refused(text, message, models, tmp_path):
    _, studio, folder = models("sd1")
    with pytest.raises(CheckpointError, match=f"the sfumato.json of .*bad.safetensors.* {message}"):
        studio.load_adapter(stating(folder, tmp_path / "bad.safetensors", text))
