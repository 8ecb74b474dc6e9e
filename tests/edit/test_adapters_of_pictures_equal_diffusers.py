"""Drawings that T2I-Adapters and IP-Adapters steer equal those of diffusers."""

import sys
from pathlib import Path

import diffusers
import numpy as np
import PIL.Image
import pytest
import torch
import transformers
from test_controls_equal_diffusers import controlnet

import sfumato
from sfumato import weights
from sfumato.engine import Engine
from sfumato.errors import SfumatoError

sys.path.append(str(Path(__file__).parents[1] / "nets"))

from ip_adapter_states import flat, states

sys.path.append(str(Path(__file__).parents[1] / "checkpoint"))

from checkpoint_families import pipeline, unet

pytestmark = pytest.mark.filterwarnings("ignore::sfumato.errors.SfumatoWarning")
SIZE = (24, 16)
STEPS = 4
UNET = {
    "block_out_channels": [8, 16, 16],
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
}
XL_UNET = {
    "block_out_channels": [8, 16, 16],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 68,
    "use_linear_projection": True,
}
ADAPTERS = {
    "sd1": {"channels": [8, 16, 16], "downscale_factor": 2},
    "sdxl": {"channels": [8, 16, 16, 16], "downscale_factor": 4, "adapter_type": "full_adapter_xl"},
    "light": {"channels": [8, 16], "downscale_factor": 2, "adapter_type": "light_adapter"},
}


def noise(seed, size=SIZE):
    rng = np.random.default_rng(seed)
    return PIL.Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Pipelines of a family with their folders, their UNets of three levels."""
    made = {}

    def get(family):
        if family not in made:
            pipe = pipeline(family)
            torch.manual_seed(7)
            pipe.register_modules(unet=unet(**(XL_UNET if family == "sdxl" else UNET)))
            folder = tmp_path_factory.mktemp("steered") / family
            pipe.save_pretrained(folder)
            made[family] = pipe, folder
        return made[family]

    return get


def t2i_adapter(kind, seed, **changes):
    torch.manual_seed(seed)
    net = diffusers.T2IAdapter(**{**ADAPTERS[kind], **changes}).eval()
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.2 if kind == "sd1" else 0.4)
    return net


def saved(net, tmp_path, name):
    net.save_pretrained(tmp_path / name)
    return str(tmp_path / name)


def parts_of(pipe):
    parts = {name: part for name, part in pipe.components.items() if name != "image_encoder"}
    return parts | ({"requires_safety_checker": False} if "safety_checker" in parts else {})


def theirs(pipe, **call):
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = diffusers.DDIMScheduler.from_config(
        pipe.scheduler.config, timestep_spacing="trailing", set_alpha_to_one=True, clip_sample=False
    )
    generator = torch.Generator().manual_seed(11)
    return pipe(
        "a red apple", generator=generator, num_inference_steps=STEPS, guidance_scale=5.0, width=SIZE[0],
        height=SIZE[1], output_type="latent", **call,
    ).images  # fmt: skip


def ours(folder, controls, **fields):
    """The latent that ours ends with."""
    studio = sfumato.load(folder, device="cpu", dtype="float32")
    (picture,) = studio.prepare(
        "a red apple", controls=controls, sampler="ddim", spacing="trailing", seed=11, width=SIZE[0],
        height=SIZE[1], guidance=5.0, steps=STEPS, **fields,
    )  # fmt: skip
    (*_, done) = Engine(studio.networks).run([studio.job(picture, 0)])
    return done.latent


def apart(one, other):
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("kind", ["sd1", "sdxl", "light"])
def test_a_t2i_adapter_steers_as_in_diffusers(models, tmp_path, kind):
    pipe, folder = models("sdxl" if kind == "sdxl" else "sd1")
    net, sketch = t2i_adapter(kind, 1), noise(3, (40, 30))
    whole = getattr(diffusers, f"StableDiffusion{'XL' if kind == 'sdxl' else ''}AdapterPipeline")
    known = theirs(whole(**parts_of(pipe), adapter=net), image=sketch, adapter_conditioning_scale=0.8)
    control = {"model": saved(net, tmp_path, "adapter"), "image": sketch, "weight": 0.8}
    drawn = ours(folder, control)
    assert apart(drawn, known) < 1e-3
    assert apart(drawn, ours(folder, ())) > 0.05


def test_a_t2i_adapter_of_lines_steers_a_part_of_the_steps_as_in_diffusers(models, tmp_path):
    pipe, folder = models("sdxl")
    net, lines = t2i_adapter("sdxl", 1, in_channels=1), noise(3).convert("L")
    pipe = diffusers.StableDiffusionXLAdapterPipeline(**parts_of(pipe), adapter=net)
    known = theirs(pipe, image=lines, adapter_conditioning_factor=0.5)
    control = {"model": saved(net, tmp_path, "adapter"), "image": lines}
    assert apart(ours(folder, {**control, "end": 0.5}), known) < 1e-3
    assert apart(ours(folder, control), known) > 0.01


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_several_t2i_adapters_each_with_its_weight_steer_as_in_diffusers(models, tmp_path, family):
    pipe, folder = models(family)
    nets, pictures, scales = [t2i_adapter(family, seed) for seed in (1, 2)], [noise(3), noise(4)], [0.9, 0.4]
    whole = getattr(diffusers, f"StableDiffusion{'XL' if family == 'sdxl' else ''}AdapterPipeline")
    known = theirs(
        whole(**parts_of(pipe), adapter=diffusers.MultiAdapter(nets)), image=pictures,
        adapter_conditioning_scale=scales,
    )  # fmt: skip
    controls = [
        {"model": saved(net, tmp_path, str(number)), "image": picture, "weight": scale}
        for number, (net, picture, scale) in enumerate(zip(nets, pictures, scales, strict=True))
    ]
    assert apart(ours(folder, controls), known) < 1e-3


@pytest.fixture(scope="session")
def prompted(models, tmp_path_factory):
    """Of a family, a folder as IP-Adapters are published in, with its image encoder, and the tables there."""
    made = {}

    def get(family):
        if family not in made:
            pipe, _ = models(family)
            top = tmp_path_factory.mktemp("ip-adapters") / family
            torch.manual_seed(3)
            config = transformers.CLIPVisionConfig(
                hidden_size=16, intermediate_size=24, num_attention_heads=2, num_hidden_layers=3,
                image_size=20, patch_size=5, projection_dim=12, hidden_act="gelu",
            )  # fmt: skip
            encoder = transformers.CLIPVisionModelWithProjection(config).eval()
            for weight in encoder.parameters():
                torch.nn.init.normal_(weight, std=0.3)
            encoder.save_pretrained(top / "image_encoder")
            tables = {}
            for seed, (kind, width) in enumerate([("base", 12), ("plus", 16), ("full", 16)]):
                tables[kind] = states(pipe.unet, kind, width, seed)
                weights.write(top / f"{kind}.safetensors", flat(tables[kind]))
            made[family] = top, tables
        return made[family]

    return get


def their_ip_adapters(pipe, top, kinds, scales):
    pipe.load_ip_adapter(
        str(top), subfolder="", weight_name=[f"{kind}.safetensors" for kind in kinds],
        image_encoder_folder="image_encoder", low_cpu_mem_usage=False,
    )  # fmt: skip
    pipe.set_ip_adapter_scale(scales)
    return pipe


@pytest.fixture
def fresh(models):
    """A copy of a family's pipeline that a test may change."""

    def get(family):
        pipe, folder = models(family)
        return type(pipe).from_pretrained(folder), folder

    return get


@pytest.mark.parametrize("kind", ["base", "plus", "full"])
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_an_ip_adapter_steers_as_in_diffusers(fresh, prompted, family, kind):
    pipe, folder = fresh(family)
    top, _ = prompted(family)
    shown = noise(3, (50, 37))
    known = theirs(their_ip_adapters(pipe, top, [kind], [0.7]), ip_adapter_image=shown)
    drawn = ours(folder, {"model": str(top / f"{kind}.safetensors"), "image": shown, "weight": 0.7})
    assert apart(drawn, known) < 1e-3
    assert apart(drawn, ours(folder, ())) > 0.05


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_several_ip_adapters_with_several_pictures_steer_as_in_diffusers(fresh, prompted, family):
    pipe, folder = fresh(family)
    top, _ = prompted(family)
    first, others = noise(3, (50, 37)), [noise(4, (20, 20)), noise(5, (64, 90))]
    pipe = their_ip_adapters(pipe, top, ["base", "plus"], [0.7, 0.4])
    known = theirs(pipe, ip_adapter_image=[first, others])
    controls = [
        {"model": str(top / "base.safetensors"), "image": first, "weight": 0.7},
        {"model": str(top / "plus.safetensors"), "image": others, "weight": 0.4},
    ]
    drawn = ours(folder, controls)
    assert apart(drawn, known) < 1e-3
    assert apart(drawn, ours(folder, controls[:1])) > 0.01


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_an_ip_adapter_beside_a_controlnet_steers_as_in_diffusers(fresh, prompted, tmp_path, family):
    pipe, folder = fresh(family)
    top, _ = prompted(family)
    net, edges, shown = controlnet(pipe.unet, 1), noise(3), noise(4, (50, 37))
    whole = getattr(diffusers, f"StableDiffusion{'XL' if family == 'sdxl' else ''}ControlNetPipeline")
    pipe = their_ip_adapters(whole(**parts_of(pipe), controlnet=net), top, ["base"], [0.7])
    known = theirs(pipe, image=edges, ip_adapter_image=shown, controlnet_conditioning_scale=0.8)
    controls = [
        {"model": saved(net, tmp_path, "controlnet"), "image": edges, "weight": 0.8},
        {"model": str(top / "base.safetensors"), "image": shown, "weight": 0.7},
    ]
    assert apart(ours(folder, controls), known) < 1e-3


def test_an_ip_adapter_that_counts_in_the_first_half_changes_just_that(fresh, prompted):
    """diffusers does it by a callback that sets the scale to 0."""
    pipe, folder = fresh("sd1")
    top, _ = prompted("sd1")
    shown = noise(3)

    def ends(pipe, step, timestep, values):
        if step == 1:
            pipe.set_ip_adapter_scale(0.0)
        return values

    known = theirs(
        their_ip_adapters(pipe, top, ["base"], [0.7]), ip_adapter_image=shown, callback_on_step_end=ends
    )
    control = {"model": str(top / "base.safetensors"), "image": shown, "weight": 0.7, "end": 0.5}
    assert apart(ours(folder, control), known) < 1e-3


@pytest.fixture(scope="session")
def refusal(models):
    """The one line that a family's model refuses controls with, before anything is drawn."""
    studios = {}

    def get(family, controls, **fields):
        if family not in studios:
            studios[family] = sfumato.load(models(family)[1], device="cpu", dtype="float32")
        with pytest.raises(SfumatoError) as caught:
            studios[family].prepare("a red apple", controls=controls, **{"width": 24, "height": 16, **fields})
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return get


def test_controls_of_another_family_are_refused_and_both_are_named(refusal, prompted, tmp_path):
    control = {"model": saved(t2i_adapter("sdxl", 1), tmp_path, "xl"), "image": noise(3)}
    told = refusal("sd1", control)
    assert told.startswith(
        f"the T2I-Adapter {tmp_path / 'xl'} is for Stable Diffusion XL (features of 8, 16, 16, 16"
    )
    assert "sd1 is another kind of model (levels of 8, 16, 16 channels" in told
    top, _ = prompted("sdxl")
    told = refusal("sd1", {"model": str(top / "base.safetensors"), "image": noise(3)})
    assert "base.safetensors is for another kind of model (7 attentions to text of 24); sd1 is" in told


def test_pictures_that_a_control_cannot_read_are_refused(refusal, prompted, tmp_path):
    sketch = {"model": saved(t2i_adapter("sd1", 1), tmp_path, "sketch"), "image": noise(3)}
    xl = {**sketch, "model": saved(t2i_adapter("sdxl", 1), tmp_path, "xl")}
    assert refusal("sdxl", xl, width=22) == "width is 22: with this T2I-Adapter it must be a multiple of 4"
    four = saved(t2i_adapter("sd1", 1, in_channels=4), tmp_path, "four")
    told = refusal("sd1", {**sketch, "model": four})
    assert told.endswith("reads pictures of 4 channels: only those of 3, or of 1 (grey), are supported")
    told = refusal("sd1", {**sketch, "image": [noise(3), noise(4)]})
    assert told == f"2 pictures are given to the control {sketch['model']}, which reads one"
    assert "must be a picture, or several" in refusal("sd1", {**sketch, "image": []})
    top, _ = prompted("sd1")
    control = {"model": str(top / "base.safetensors"), "image": noise(3), "preprocessor": "invert"}
    assert refusal("sd1", control).endswith("base.safetensors reads pictures as they are")


def test_an_ip_adapter_without_its_image_encoder_or_of_faces_is_refused(refusal, prompted, tmp_path):
    top, tables = prompted("sd1")
    alone = tmp_path / "models" / "alone.safetensors"
    alone.parent.mkdir()
    weights.write(alone, flat(tables["plus"]))
    told = refusal("sd1", {"model": str(alone), "image": noise(3)})
    assert "whose states are 16 wide, in a folder image_encoder beside it: it is in none of" in told
    assert str(tmp_path / "models" / "image_encoder") in told
    wider = {**tables["base"], "image_proj": states(unet(), "base", 14)["image_proj"]}
    weights.write(top / "wider.safetensors", flat(wider))
    told = refusal("sd1", {"model": str(top / "wider.safetensors"), "image": noise(3)})
    assert told.endswith(f"they are 12 wide in {top / 'image_encoder'}")
    faces = {
        "proj.0.weight": torch.ones(8, 4),
        "proj.2.weight": torch.ones(96, 8),
        "norm.weight": torch.ones(24),
    }
    weights.write(top / "faces.safetensors", flat({**tables["base"], "image_proj": faces}))
    assert "is an IP-Adapter FaceID" in refusal(
        "sd1", {"model": str(top / "faces.safetensors"), "image": noise(3)}
    )
    assert "name one of" in refusal("sd1", {"model": str(top), "image": noise(3)})


def test_a_picture_steered_by_an_ip_adapter_is_drawn_again_from_its_record_alone(models, prompted, tmp_path):
    top, _ = prompted("sd1")
    pictures = [noise(4, (20, 20)), noise(5, (64, 90))]
    control = {"model": str(top / "plus.safetensors"), "image": pictures, "weight": 0.4}
    studio = sfumato.load(models("sd1")[1], device="cpu", dtype="float32")
    drawn = studio.generate("a red apple", controls=control, width=24, height=16, steps=2, seed=1)
    again = studio.generate(sfumato.Request.model_validate_json(drawn.record.request.model_dump_json()))
    assert np.array_equal(again.pixels, drawn.pixels)
    assert list(drawn.record.request.inputs) == ["controls.0.0", "controls.0.1"]
    bare = drawn.record.request.without_inputs()
    assert [each.data for each in bare.controls[0].images] == [None, None]
    assert drawn.record.controls.keys() == {str(top / "plus.safetensors")}
