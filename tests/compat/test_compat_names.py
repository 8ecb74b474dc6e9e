"""Every public name and argument of diffusers' pipelines is here, or is left out for a reason."""

import contextlib
import inspect

import diffusers.schedulers
import diffusers.utils
import numpy as np
import PIL.Image
import pytest
import torch

from sfumato import compat
from sfumato.compat import utils
from sfumato.compat.schedulers import SCHEDULERS, AysSchedules
from sfumato.errors import SfumatoError, UsageError

LEFT_OUT = {
    "stepping by hand": "check_inputs get_guidance_scale_embedding get_timesteps prepare_extra_step_kwargs "
    "prepare_image_latents prepare_latents prepare_mask_latents",
    "a safety checker": "run_safety_checker",
    "methods that are not supported, with a reason": "decode_latents enable_freeu enable_group_offload "
    "fuse_qkv_projections push_to_hub",
    "diffusers' own machinery": "config_name extract_init_dict from_config get_config_dict has_compatibles "
    "ignore_for_config load_lora_into_text_encoder load_lora_into_unet maybe_convert_prompt "
    "model_cpu_offload_seq pack_weights register_for_auto_class register_to_config save_config "
    "text_encoder_name to_json_file to_json_string unet_name write_lora_layers",
}
"""Of the pipelines."""
FAMILIES = {
    "StableDiffusionPipeline": "sd1",
    "StableDiffusionXLPipeline": "sdxl",
    "LatentConsistencyModelPipeline": "lcm",
    "StableDiffusionImg2ImgPipeline": "sd1",
    "StableDiffusionXLImg2ImgPipeline": "refiner",
    "LatentConsistencyModelImg2ImgPipeline": "lcm",
    "StableDiffusionInpaintPipeline": "inpaint",
    "StableDiffusionXLInpaintPipeline": "sdxl",
    "StableDiffusionInstructPix2PixPipeline": "instruct",
}
CHOOSERS = (
    "DiffusionPipeline",
    "AutoPipelineForText2Image",
    "AutoPipelineForImage2Image",
    "AutoPipelineForInpainting",
)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_pipeline_has_every_public_name_of_diffusers_or_a_reason(name, model):
    pipe = getattr(compat, name).from_pretrained(model(FAMILIES[name]))
    left_out = {each for names in LEFT_OUT.values() for each in names.split()}
    public = {each for each in dir(getattr(diffusers, name)) if each[0] != "_"}
    assert {each for each in public if not hasattr(pipe, each)} == left_out & public


LOADED = (*CHOOSERS, "ShapEPipeline", "ShapEImg2ImgPipeline")
"""Those that are made by from_pretrained alone."""
STEERED = [
    name
    for name in compat.__all__
    if name.endswith("Pipeline") and ("ControlNet" in name or "Adapter" in name)
] + ["AnimateDiffPipeline", "AnimateDiffSDXLPipeline", "PIAPipeline"]


@pytest.mark.parametrize(
    "name", [*FAMILIES, *LOADED, *STEERED, "StableDiffusionXLInstructPix2PixPipeline", "VaeImageProcessor"]
)
def test_methods_have_the_arguments_of_diffusers(name):
    ours, theirs = getattr(compat, name), getattr(diffusers, name)
    methods = [each for each in dir(theirs) if each[0] != "_" or each in ("__call__", "__init__")]
    if name in LOADED:
        methods.remove("__init__")
    for method in methods:
        if not hasattr(ours, method) or not inspect.isroutine(getattr(theirs, method)):
            continue
        own, other = (inspect.signature(getattr(each, method)).parameters for each in (ours, theirs))
        open_ended = any(each.kind is each.VAR_KEYWORD for each in own.values())
        kinds = {key: each.kind for key, each in other.items() if key != "self"}
        named = [key for key, kind in kinds.items() if kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
        assert open_ended or set(named) <= own.keys(), method
        positional = [key for key, each in own.items() if each.kind is each.POSITIONAL_OR_KEYWORD]
        if method not in ("save_lora_weights", "save_pretrained"):  # these are called by keyword
            common = [key for key in positional if key in named]
            assert common == named[: len(common)], method
        for key in named:
            default = other[key].default
            if key in own and default is not inspect.Parameter.empty and key != "components":
                found = own[key].default
                assert (list(found) if isinstance(found, tuple) else found) == default or (
                    default == found
                ), (method, key)


NOT_HERE = {
    "StableDiffusionUpscalePipeline": "its networks are of another kind",
    "StableDiffusionDepth2ImgPipeline": "its networks are of another kind",
    "StableDiffusionXLControlNetUnionPipeline": "this kind of network is not supported",
    "StableDiffusionPAGPipeline": "this kind of network is not supported",
    "FluxPipeline": "a transformer in the place of the UNet",
    "StableDiffusion3Pipeline": "a transformer in the place of the UNet",
    "AnimateDiffControlNetPipeline": "of videos only AnimateDiff's, PIA's, Stable Video",
    "KandinskyPipeline": "this family of models is not supported",
    "IPNDMScheduler": "known: ",
    "StableDiffusionPipelin": "did you mean 'StableDiffusionPipeline'",
    "BitsAndBytesConfig": "quantised weights",
}


@pytest.mark.parametrize("name", NOT_HERE)
def test_a_name_that_is_not_here_says_why_when_it_is_imported(name):
    with pytest.raises(ImportError, match=f"{name} is not supported") as caught:
        exec(f"from sfumato.compat import {name}")
    if name != "IPNDMScheduler":
        assert NOT_HERE[name] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_pipeline_of_diffusers_that_is_not_here_is_refused_in_one_line():
    for name in dir(diffusers):
        if name.endswith(("Pipeline", "Model", "Scheduler")) and name not in compat.__all__:
            with pytest.raises(ImportError, match=name):
                getattr(compat, name)
    assert not hasattr(compat, "nothing")


@pytest.mark.filterwarnings("ignore::sfumato.errors.SfumatoWarning")
@pytest.mark.parametrize(
    "name",
    [
        "StableDiffusionXLPipeline",
        "LatentConsistencyModelPipeline",
        "StableDiffusionXLInpaintPipeline",
        "StableDiffusionInstructPix2PixPipeline",
    ],
)
def test_a_call_with_an_argument_of_another_kind_raises_nothing_but_an_error_of_ours(name, model):
    kind = getattr(compat, name)
    pipe = kind.from_pretrained(model(FAMILIES[name]))
    pipe.set_progress_bar_config(disable=True)
    drawn = set()
    arguments = list(inspect.signature(kind.__call__).parameters)[1:]
    picture = PIL.Image.fromarray(np.full((16, 16, 3), 200, np.uint8))
    pictures = {name: picture for name in ("image", "mask_image") if name in arguments}
    for argument in arguments:
        for value in ("x", object(), [object()], torch.zeros(2), float("nan"), -3):
            call = {"prompt": "a cat", "num_inference_steps": 2, "output_type": "latent", **pictures}
            call[argument] = value
            with contextlib.suppress(SfumatoError):
                pipe(**call)
                drawn.add((argument, repr(value)))
    assert {("prompt", "'x'"), ("guidance_scale", "-3")} <= drawn
    wrong = (
        "guidance_scale",
        "generator",
        "latents",
        "width",
        "image",
        "mask_image",
        "strength",
        "denoising_end",
    )
    assert not {(name, "'x'") for name in wrong} & drawn


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda pipe: pipe.load_lora_weights(None), "not NoneType"),
        (lambda pipe: pipe.load_textual_inversion(torch.zeros(2)), "a tensor needs a name"),
        (lambda pipe: pipe.load_textual_inversion(torch.zeros(2), token=3), "3 is no name"),
        (lambda pipe: pipe.load_textual_inversion(torch.zeros(2), token=" "), "a token is a word"),
        (lambda pipe: pipe.set_adapters(None), "None is no name"),
        (lambda pipe: pipe.fuse_lora(components=["vae"]), "'vae' is not supported"),
        (lambda pipe: pipe.fuse_lora(components=[]), "cannot be an empty list"),
        (lambda pipe: pipe.to(object()), "neither a device nor a dtype"),
        (lambda pipe: pipe.to("nowhere"), "unknown device 'nowhere'"),
        (lambda pipe: pipe.enable_attention_slicing("x"), "slice_size is 'x'"),
        (lambda pipe: pipe.save_pretrained("x", max_shard_size="x"), "max_shard_size is 'x'"),
        (lambda pipe: compat.DiffusionPipeline.from_pretrained("embedded", dtype=3), "dtype is 3"),
        (lambda pipe: compat.AutoPipelineForText2Image.from_pipe(3), "int is not supported"),
        (lambda pipe: compat.StableDiffusionXLPipeline.from_pipe(pipe), "does not draw with"),
        (lambda pipe: compat.UNet2DConditionModel(nonsense=1), "unknown key 'nonsense'"),
        (lambda pipe: compat.AutoModel.from_pretrained("/nowhere/at/all"), "no file, folder or hub id"),
    ],
)
def test_a_method_with_an_argument_of_another_kind_is_an_error_of_one_line(call, words, model):
    pipe = compat.StableDiffusionPipeline.from_pretrained(model("sd1"))
    with pytest.raises(SfumatoError, match=words) as caught:
        call(pipe)
    assert "\n" not in str(caught.value)


def test_schedules_of_ten_steps_and_compatible_schedulers_are_those_of_diffusers():
    for name, schedule in AysSchedules.items():
        assert schedule == diffusers.schedulers.AysSchedules[name]
    ours = {kind.__name__ for kind in compat.EulerDiscreteScheduler().compatibles}
    theirs = {kind.__name__ for kind in diffusers.EulerDiscreteScheduler().compatibles}
    assert theirs & SCHEDULERS.keys() <= ours <= SCHEDULERS.keys()


def test_helpers_are_those_of_diffusers(tmp_path):
    pictures = [PIL.Image.fromarray(np.full((4, 6, 3), 40 * number, np.uint8)) for number in range(6)]
    for size in (None, 8):
        ours, theirs = (each.make_image_grid(pictures, 2, 3, size) for each in (utils, diffusers.utils))
        assert np.array_equal(np.asarray(ours), np.asarray(theirs))
    pixels = torch.rand(2, 3, 4, 6) * 2 - 1
    for ours, theirs in zip(utils.pt_to_pil(pixels), diffusers.utils.pt_to_pil(pixels), strict=True):
        assert np.array_equal(np.asarray(ours), np.asarray(theirs))
    pictures[1].save(tmp_path / "it.png")
    assert np.array_equal(np.asarray(utils.load_image(str(tmp_path / "it.png"))), np.asarray(pictures[1]))
    with pytest.raises(UsageError, match="do not fill a grid"):
        utils.make_image_grid(pictures, 1, 1)
    with pytest.raises(UsageError, match="nothing is downloaded"):
        utils.load_image("https://example.org/a.png")
