"""Every loader takes what that of diffusers takes: tensors, dictionaries, parts, folders and its keywords."""

import json
import math
import shutil

import diffusers
import peft
import pytest
import torch
import transformers
from both import apart, run
from checkpoint_families import autoencoder, pipeline, text_encoder, tokenizer, unet
from diffusers.utils import convert_state_dict_to_diffusers
from safetensors.torch import load_file, save_file

from sfumato import compat
from sfumato.checkpoint.converting import convert
from sfumato.compat.schedulers import SCHEDULERS
from sfumato.errors import CheckpointError, UsageError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::sfumato.errors.SfumatoWarning")

SD = """
import torch
from diffusers import StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained(MODEL)
pipe.set_progress_bar_config(disable=True)
def draw(**others):
    return pipe(
        "a <cat> on a <mat>", num_inference_steps=2, generator=torch.Generator().manual_seed(3),
        **{"output_type": "latent", **others}
    ).images
"""
XL = SD.replace("StableDiffusionPipeline", "StableDiffusionXLPipeline")


def rows(count, width, seed=8):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


EMBEDDINGS = {
    "a tensor with a token": "pipe.load_textual_inversion(ONE[0], token='<cat>')",
    "a tensor of several vectors": "pipe.load_textual_inversion(MANY, token='<cat>')",
    "a tensor with a token for each row": "pipe.load_textual_inversion(TWO, token=['<cat>', '<mat>'])",
    "a dictionary": "pipe.load_textual_inversion({'<cat>': MANY})",
    "a dictionary under another name": "pipe.load_textual_inversion({'<dog>': ONE}, token='<cat>')",
    "a dictionary of A1111": """
pipe.load_textual_inversion({"name": "<cat>", "string_to_param": {"*": MANY}})
""",
    "a list of dictionaries": "pipe.load_textual_inversion([{'<cat>': ONE}, {'<mat>': MANY}])",
    "a list with a list of tokens": """
pipe.load_textual_inversion([ONE, MANY], token=["<cat>", "<mat>"])
""",
    "a folder and the name of a file": """
pipe.load_textual_inversion(FOLDER, weight_name="cat.safetensors", use_safetensors=True)
""",
    "a subfolder": "pipe.load_textual_inversion(FOLDER, subfolder='inside', local_files_only=True)",
    "with the pipeline's own encoder and tokenizer": """
pipe.load_textual_inversion({"<cat>": ONE}, text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer)
""",
    "one of two is unloaded": """
pipe.load_textual_inversion([{"<cat>": ONE}, {"<mat>": MANY}])
pipe.unload_textual_inversion("<cat>")
""",
}


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_an_embedding_from_memory_or_a_folder_draws_the_latents_of_diffusers(name, model, tmp_path):
    (tmp_path / "inside").mkdir()
    save_file({"<cat>": rows(2, 24)}, tmp_path / "cat.safetensors")
    save_file({"<cat>": rows(2, 24)}, tmp_path / "inside" / "learned_embeds.safetensors")
    given = {"ONE": rows(1, 24), "MANY": rows(3, 24), "TWO": rows(2, 24), "FOLDER": str(tmp_path)}
    program = f"{SD}plain = draw()\n{EMBEDDINGS[name]}\nresult = torch.cat([plain, draw()])"
    assert apart(program, model("sd1"), **given) < 1e-4
    plain, learned = run(program, model("sd1"), "sfumato.compat", **given)
    assert (learned - plain).abs().max() > 1e-3


XL_EMBEDDINGS = {
    "into the first encoder": """
pipe.load_textual_inversion(L, token="<cat>", text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer)
""",
    "into each encoder": """
pipe.load_textual_inversion(L, token="<cat>", text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer)
pipe.load_textual_inversion(G, token="<cat>", text_encoder=pipe.text_encoder_2, tokenizer=pipe.tokenizer_2)
""",
    "a token for each row, into each encoder": """
first, second = (pipe.text_encoder, pipe.tokenizer), (pipe.text_encoder_2, pipe.tokenizer_2)
for state, (encoder, tokenizer) in ((L, first), (G, second)):
    pipe.load_textual_inversion(state, token=["<cat>", "<mat>"], text_encoder=encoder, tokenizer=tokenizer)
""",
    "unloaded from the second": """
pipe.load_textual_inversion(L, token="<cat>", text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer)
pipe.load_textual_inversion(G, token="<cat>", text_encoder=pipe.text_encoder_2, tokenizer=pipe.tokenizer_2)
pipe.unload_textual_inversion(text_encoder=pipe.text_encoder_2, tokenizer=pipe.tokenizer_2)
""",
}


@pytest.mark.parametrize("name", XL_EMBEDDINGS)
def test_sdxl_takes_an_embedding_for_one_encoder_at_a_time(name, model):
    result = """
states, _, pooled, _ = pipe.encode_prompt("a <cat> on a <mat>", device="cpu")
result = states
"""
    given = {"L": rows(2, 8), "G": rows(2, 16)}
    assert apart(f"{XL}{XL_EMBEDDINGS[name]}{result}", model("sdxl"), **given) < 1e-4


def test_sdxl_takes_an_embedding_for_both_encoders_at_once(model):
    pair = {"clip_l": rows(2, 8), "clip_g": rows(2, 16)}
    one = compat.StableDiffusionXLPipeline.from_pretrained(model("sdxl"))
    one.load_textual_inversion(pair, token="<cat>")
    two = compat.StableDiffusionXLPipeline.from_pretrained(model("sdxl"))
    for index, tensor in enumerate(pair.values()):
        encoder = (two.text_encoder, two.text_encoder_2)[index]
        two.load_textual_inversion(tensor, token="<cat>", text_encoder=encoder)
    assert torch.equal(one.encode_prompt("a <cat>")[0], two.encode_prompt("a <cat>")[0])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda pipe: pipe.load_textual_inversion(rows(1, 24)), "a tensor needs a name in prompts"),
        (
            lambda pipe: pipe.load_textual_inversion([rows(1, 24)] * 2, token="a"),
            "2 embeddings were given, and 1",
        ),
        (
            lambda pipe: pipe.load_textual_inversion([rows(1, 24)] * 2, token=["a", "a"]),
            "a token was given twice",
        ),
        (lambda pipe: pipe.load_textual_inversion({"a": rows(1, 9)}), "is 9 wide"),
        (lambda pipe: pipe.load_textual_inversion({"a": 3}), "'a' is a int, not a tensor"),
        (lambda pipe: pipe.load_textual_inversion({"a": rows(1, 24) / 0}), "holds NaN or infinite numbers"),
        (
            lambda pipe: pipe.load_textual_inversion({"a": rows(1, 24)}, text_encoder=3),
            "one of the pipeline's own",
        ),
        (lambda pipe: pipe.unload_textual_inversion("<dog>"), "no token to unload was found"),
        (lambda pipe: pipe.load_lora_weights({"unet.nothing.lora_A.weight": rows(1, 24)}), "names no layer"),
        (lambda pipe: pipe.load_lora_weights({}), "not an adapter"),
    ],
)
def test_what_a_loader_cannot_take_is_an_error_of_one_line(call, words, model):
    pipe = compat.StableDiffusionPipeline.from_pretrained(model("sd1"))
    with pytest.raises((UsageError, CheckpointError), match=words) as caught:
        call(pipe)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="session")
def lora(model):
    """The state dict of a LoRA for the UNet and the text encoder, as PEFT trains it."""
    pipe, state = pipeline("sd1"), {}
    torch.manual_seed(5)
    for part, targets in (("unet", ["to_q", "to_v"]), ("text_encoder", ["q_proj", "fc1"])):
        network = getattr(pipe, part)
        config = peft.LoraConfig(r=2, lora_alpha=2, init_lora_weights=False, target_modules=targets)
        network.add_adapter(config)
        found = convert_state_dict_to_diffusers(peft.utils.get_peft_model_state_dict(network))
        state |= {f"{part}.{name}": tensor.clone() for name, tensor in found.items()}
    return state


LORAS = {
    "a state dict": "pipe.load_lora_weights(LORA)",
    "a state dict with a name and a weight": """
pipe.load_lora_weights(LORA, adapter_name="it")
pipe.set_adapters("it", adapter_weights=0.5)
""",
    "a file of one's own making": """
pipe.save_lora_weights(
    FOLDER,
    unet_lora_layers={k.removeprefix("unet."): v for k, v in LORA.items() if k.startswith("unet.")},
    text_encoder_lora_layers={
        k.removeprefix("text_encoder."): v for k, v in LORA.items() if k.startswith("text_encoder.")
    },
)
pipe.load_lora_weights(FOLDER, weight_name="pytorch_lora_weights.safetensors", subfolder=None)
""",
    "the unet's layers": """
pipe.unet.load_lora_adapter(LORA, prefix="unet", adapter_name="it")
""",
    "fused into the unet alone": """
pipe.load_lora_weights(LORA)
pipe.fuse_lora(components=["unet"], lora_scale=0.5)
""",
    "fused into the unet alone by position": """
pipe.load_lora_weights(LORA)
pipe.fuse_lora(["unet"], 0.5)
pipe.unload_lora_weights()
""",
    "taken out of the text encoder again": """
pipe.load_lora_weights(LORA)
pipe.fuse_lora()
pipe.unfuse_lora(components=["text_encoder"])
""",
    "weights by block": """
pipe.load_lora_weights(LORA, adapter_name="it")
pipe.set_adapters("it", {"unet": {"down": {"block_1": 0.2}, "mid": 0.4, "up": {"block_0": [0.6, 0.8]}}})
""",
    "hotswapped": """
pipe.load_lora_weights({name: 0 * tensor + 0.5 for name, tensor in LORA.items()}, adapter_name="it")
draw()
if hasattr(pipe, "studio"):
    pipe.load_lora_weights(LORA, adapter_name="it", hotswap=True)
else:  # diffusers does not swap text encoders
    pipe.delete_adapters("it")
    pipe.load_lora_weights(LORA, adapter_name="it")
""",
}


@pytest.mark.parametrize("name", LORAS)
def test_a_lora_from_memory_draws_the_latents_of_diffusers(name, model, lora, tmp_path):
    program = f"{SD}{LORAS[name]}\nresult = draw()"
    assert apart(program, model("sd1"), LORA=lora, FOLDER=str(tmp_path)) < 1e-4


def test_the_adapters_of_each_network_are_those_of_diffusers(model, lora):
    program = (
        SD
        + """
unet = {name: each for name, each in LORA.items() if name.startswith("unet.")}
pipe.load_lora_weights(unet, adapter_name="a")
pipe.load_lora_weights(LORA, adapter_name="b")
before = pipe.get_list_adapters(), pipe.get_active_adapters()
pipe.fuse_lora(adapter_names=["b"])
result = *before, pipe.num_fused_loras, pipe.fused_loras
"""
    )
    theirs, ours = (
        run(program, model("sd1"), library, LORA=lora) for library in ("diffusers", "sfumato.compat")
    )
    assert ours == theirs


def test_a_lora_keeps_its_settings_when_it_is_saved(model, lora, tmp_path):
    layers = {name.removeprefix("unet."): each for name, each in lora.items() if name.startswith("unet.")}
    settings = {"r": 2, "lora_alpha": 6, "target_modules": {"to_v", "to_q"}}
    files = []
    for library in (compat, diffusers):
        pipe = library.StableDiffusionPipeline.from_pretrained(model("sd1"))
        call = {"unet_lora_layers": layers, "unet_lora_adapter_metadata": settings}
        files.append(tmp_path / library.__name__)
        pipe.save_lora_weights(files[-1], **call)
        pipe.save_lora_weights(tmp_path / "none", is_main_process=False, **call)
    pipe = compat.StableDiffusionPipeline.from_pretrained(model("sd1"))
    assert pipe.lora_state_dict(files[0])[0].keys() == pipe.lora_state_dict(files[1])[0].keys()
    drawn = []
    for number, file in enumerate(files):
        pipe.load_lora_weights(file, adapter_name=f"number {number}")
        assert next(iter(pipe.studio.adapters[f"number {number}#{number}"].deltas.values())).scale == 3
        drawn.append(pipe.encode_prompt("a cat", "cpu", 1, False)[0])
    assert torch.equal(*drawn)


PARTS = {
    "a part of its own folder": """
from diffusers import AutoencoderKL
pipe = StableDiffusionPipeline.from_pretrained(MODEL, vae=AutoencoderKL.from_pretrained(OTHER + "/vae"))
""",
    "a part of a subfolder": """
from diffusers import AutoencoderKL, UNet2DConditionModel
pipe = StableDiffusionPipeline.from_pretrained(
    MODEL,
    vae=AutoencoderKL.from_pretrained(OTHER, subfolder="vae", torch_dtype=torch.float32),
    unet=UNet2DConditionModel.from_pretrained(OTHER, subfolder="unet", use_safetensors=True),
)
""",
    "parts by AutoModel": """
from diffusers import AutoModel
pipe = StableDiffusionPipeline.from_pretrained(
    MODEL, unet=AutoModel.from_pretrained(OTHER, subfolder="unet"), dtype=torch.float32
)
""",
    "a part that is assigned": """
from diffusers import AutoencoderKL
draw()
pipe.vae = AutoencoderKL.from_pretrained(OTHER, subfolder="vae")
""",
    "a pipeline of all its parts": """
from diffusers import AutoencoderKL, UNet2DConditionModel, DDIMScheduler
from transformers import CLIPTextModel, CLIPTokenizer
pipe = StableDiffusionPipeline(
    vae=AutoencoderKL.from_pretrained(OTHER, subfolder="vae"),
    text_encoder=CLIPTextModel.from_pretrained(OTHER, subfolder="text_encoder"),
    tokenizer=CLIPTokenizer.from_pretrained(OTHER, subfolder="tokenizer"),
    unet=UNet2DConditionModel.from_pretrained(OTHER, subfolder="unet"),
    scheduler=DDIMScheduler.from_pretrained(OTHER, subfolder="scheduler"),
    safety_checker=None,
    feature_extractor=None,
    requires_safety_checker=False,
)
""",
    "a text encoder of transformers": """
from transformers import CLIPTextModel, CLIPTokenizer
pipe = StableDiffusionPipeline.from_pretrained(
    MODEL,
    text_encoder=CLIPTextModel.from_pretrained(OTHER, subfolder="text_encoder"),
    tokenizer=CLIPTokenizer.from_pretrained(OTHER, subfolder="tokenizer"),
)
""",
    "weights loaded into an empty unet": """
from safetensors.torch import load_file
from diffusers import UNet2DConditionModel
unet = UNet2DConditionModel.from_config(MODEL, subfolder="unet").to("cpu", torch.float32)
unet.load_state_dict(load_file(OTHER + "/unet/diffusion_pytorch_model.safetensors"))
pipe = StableDiffusionPipeline.from_pretrained(MODEL, unet=unet)
""",
    "the components of another pipeline": """
from diffusers import DPMSolverMultistepScheduler
pipe = StableDiffusionPipeline(**pipe.components)
pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
""",
    "from a pipeline, with another scheduler": """
from diffusers import AutoPipelineForText2Image, EulerDiscreteScheduler
other = AutoPipelineForText2Image.from_pipe(pipe)
other.scheduler = EulerDiscreteScheduler.from_config(other.scheduler.config)
pipe = StableDiffusionPipeline.from_pipe(other, dtype=torch.float32)
""",
    "from a pipeline, with its adapters": """
from diffusers import DiffusionPipeline
pipe.load_lora_weights(LORA, adapter_name="it")
pipe.load_textual_inversion({"<cat>": CAT})
other = StableDiffusionPipeline.from_pipe(pipe)
pipe.set_adapters("it", 0.3)
pipe = other
""",
}


@pytest.fixture(scope="session")
def other(tmp_path_factory):
    """A second model of the same family, with other weights."""
    folder = tmp_path_factory.mktemp("other")
    torch.manual_seed(99)
    diffusers.StableDiffusionPipeline(
        vae=autoencoder(),
        text_encoder=text_encoder(24),
        tokenizer=tokenizer(),
        unet=unet(),
        scheduler=diffusers.DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", PARTS)
def test_a_pipeline_of_parts_draws_the_pictures_of_diffusers(name, model, other, lora):
    program = f"{SD}{PARTS[name]}\npipe.set_progress_bar_config(disable=True)\n"
    program += "result = torch.cat([draw().flatten(), draw(output_type='pt').flatten()])"
    given = {"OTHER": str(other), "LORA": lora, "CAT": rows(1, 24)}
    assert apart(program, model("sd1"), **given) < 1e-4


def test_a_part_of_another_pipeline_brings_nothing_else_along(model, other, lora):
    first = compat.StableDiffusionPipeline.from_pretrained(other)
    first.load_lora_weights(lora)
    call = {"num_inference_steps": 2, "output_type": "latent"}

    def draw(pipe):
        return pipe("a cat", generator=torch.Generator().manual_seed(1), **call).images

    before = draw(first)
    plain = compat.StableDiffusionPipeline.from_pretrained(model("sd1"))
    mixed = compat.StableDiffusionPipeline.from_pretrained(model("sd1"), vae=first.vae)
    assert mixed.vae is first.vae
    assert (mixed.name_or_path, mixed.get_list_adapters()) == (plain.name_or_path, {})
    assert torch.equal(draw(mixed), draw(plain))
    assert torch.equal(draw(compat.StableDiffusionPipeline(**first.components)), before)


def test_the_networks_of_diffusers_themselves_can_be_parts(model, other):
    theirs = diffusers.StableDiffusionPipeline.from_pretrained(other)
    call = {"num_inference_steps": 2, "output_type": "latent"}
    ours = compat.StableDiffusionPipeline(**theirs.components)
    moved = compat.AutoPipelineForText2Image.from_pipe(theirs)
    theirs.set_progress_bar_config(disable=True)
    expected, *found = (
        pipe("a cat", generator=torch.Generator().manual_seed(1), **call).images
        for pipe in (theirs, ours, moved)
    )
    for latents in found:
        assert (latents - expected).abs().max() < 1e-4 * expected.abs().max()


def test_sdxl_takes_a_second_text_encoder_of_transformers(model):
    torch.manual_seed(4)
    encoder = text_encoder(16, projection=True, act="gelu")
    program = (
        XL
        + """
pipe = StableDiffusionXLPipeline.from_pretrained(MODEL, text_encoder_2=ENCODER, add_watermarker=False)
pipe.set_progress_bar_config(disable=True)
result = draw()
"""
    )
    assert apart(program, model("sdxl"), ENCODER=encoder) < 1e-4


def test_parts_left_out_are_not_needed_where_embeddings_are_given(model):
    program = (
        XL
        + """
text = StableDiffusionXLPipeline.from_pretrained(MODEL, unet=None, vae=None)
states = text.encode_prompt("a cat", device="cpu", do_classifier_free_guidance=True)
names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
pipe = StableDiffusionXLPipeline.from_pretrained(
    MODEL, text_encoder=None, text_encoder_2=None, tokenizer=None, tokenizer_2=None
)
pipe.set_progress_bar_config(disable=True)
assert pipe.text_encoder is None and pipe.components["tokenizer_2"] is None
result = pipe(
    **dict(zip(names, states)), num_inference_steps=2, generator=torch.Generator().manual_seed(3),
    output_type="latent",
).images
"""
    )
    assert apart(program, model("sdxl")) < 1e-4
    pipe = compat.StableDiffusionXLPipeline.from_pretrained(model("sdxl"), text_encoder=None)
    with pytest.raises(UsageError, match="the pipeline has no text_encoder: give prompt_embeds"):
        pipe("a cat", num_inference_steps=2)
    pipe = compat.StableDiffusionXLPipeline.from_pretrained(model("sdxl"), vae=None)
    with pytest.raises(UsageError, match="the pipeline has no vae"):
        pipe("a cat", num_inference_steps=2)


def test_parts_that_do_not_go_together_are_refused(model):
    wide = unet(cross_attention_dim=16)
    with pytest.raises(CheckpointError, match="cross_attention_dim = 16 does not fit text states 24 wide"):
        compat.StableDiffusionPipeline.from_pretrained(model("sd1"), unet=wide)
    with pytest.raises(CheckpointError, match="AutoencoderKLWan"):
        compat.StableDiffusionPipeline.from_pretrained(model("sd1"), vae=_of_class("AutoencoderKLWan"))
    with pytest.raises(UsageError, match="StableDiffusionPipeline needs a vae"):
        compat.StableDiffusionPipeline(
            vae=None, text_encoder=None, tokenizer=None, unet=None, scheduler=compat.DDIMScheduler()
        )


def _of_class(name):
    network = type(name, (torch.nn.Linear,), {})(1, 1)
    network.config = {}
    return network


NETWORKS = {
    "the unet": """
states = pipe.encode_prompt("a cat", "cpu", 1, False)[0]
latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
with torch.no_grad():
    result = pipe.unet(latents, torch.tensor(500), encoder_hidden_states=states).sample
    assert torch.equal(pipe.unet(latents, 500, encoder_hidden_states=states, return_dict=False)[0], result)
""",
    "the autoencoder": """
from diffusers import AutoencoderKL
vae = AutoencoderKL.from_pretrained(MODEL, subfolder="vae")
pixels = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(2))
with torch.no_grad():
    found = vae.encode(pixels).latent_dist
    latents = found.sample(torch.Generator().manual_seed(4)) * vae.config.scaling_factor
    back = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
    every = latents, found.mode(), found.std, back, vae(pixels).sample
result = torch.cat([each.flatten() for each in every])
""",
    "the text encoder and the tokenizer": """
tokens = pipe.tokenizer(
    ["a cat", "an owl that is far too long " * 20], padding="max_length",
    max_length=pipe.tokenizer.model_max_length, truncation=True, return_tensors="pt",
)
with torch.no_grad():
    out = pipe.text_encoder(tokens.input_ids.to("cpu"), output_hidden_states=True)
result = torch.cat([out[0].flatten(), out.last_hidden_state.flatten(), out.pooler_output.flatten()])
result = torch.cat([result, tokens.input_ids.flatten(), tokens["attention_mask"].flatten()])
result = torch.cat([result, *(each.flatten() for each in out.hidden_states[:-1])])
""",
    "the prompt under an adapter": """
pipe.load_lora_weights(LORA)
result = torch.cat(pipe.encode_prompt("a cat", "cpu", 1, True))
""",
    "latents decoded by hand": """
latents = draw()
with torch.no_grad():
    pixels = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
assert len(pipe.image_processor.postprocess(pixels)) == 1
result = pipe.image_processor.postprocess(pixels, output_type="pt")
""",
    "a unet that reads the guidance in sdxl": """
from diffusers import LCMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
unet = UNet2DConditionModel.from_config(XL, subfolder="unet").config
unet = UNet2DConditionModel.from_config({**unet, "time_cond_proj_dim": 16})
unet.load_state_dict(LCM)
pipe = StableDiffusionXLPipeline.from_pretrained(XL, unet=unet)
pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
pipe.set_progress_bar_config(disable=True)
result = draw(guidance_scale=8.0)
""",
    "a loop of one's own over the parts": """
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
vae = AutoencoderKL.from_pretrained(MODEL, subfolder="vae")
unet = UNet2DConditionModel.from_pretrained(MODEL, subfolder="unet", use_safetensors=True)
scheduler = DDIMScheduler.from_pretrained(MODEL, subfolder="scheduler")
negative, positive = (pipe.encode_prompt(text, "cpu", 1, False)[0] for text in ("", "a cat"))
states = torch.cat([negative, positive])
latents = torch.randn(1, unet.config.in_channels, 8, 8, generator=torch.manual_seed(0))
scheduler.set_timesteps(3)
latents = latents * scheduler.init_noise_sigma
for t in scheduler.timesteps:
    both = scheduler.scale_model_input(torch.cat([latents] * 2), timestep=t)
    with torch.no_grad():
        without, guided = unet(both, t, encoder_hidden_states=states).sample.chunk(2)
    latents = scheduler.step(without + 7.5 * (guided - without), t, latents).prev_sample
with torch.no_grad():
    result = vae.decode(1 / vae.config.scaling_factor * latents).sample
""",
    "the second text encoder": """
from diffusers import StableDiffusionXLPipeline
pipe = StableDiffusionXLPipeline.from_pretrained(XL)
ids = pipe.tokenizer_2("a cat", padding="max_length", return_tensors="pt").input_ids
with torch.no_grad():
    out = pipe.text_encoder_2(ids, output_hidden_states=True)
result = torch.cat([out[0].flatten(), out.text_embeds.flatten(), out.hidden_states[-2].flatten()])
""",
    "the sdxl unet": """
from diffusers import UNet2DConditionModel
unet = UNet2DConditionModel.from_pretrained(XL, subfolder="unet")
generator = torch.Generator().manual_seed(2)
added = {"text_embeds": torch.randn(2, 20, generator=generator), "time_ids": torch.ones(2, 6)}
with torch.no_grad():
    result = unet(
        torch.randn(2, 4, 8, 8, generator=generator), 7,
        encoder_hidden_states=torch.randn(2, 77, 24, generator=generator), added_cond_kwargs=added,
    )[0]
""",
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_part_computes_what_it_computes_in_diffusers(name, model, lora):
    torch.manual_seed(7)
    size = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8, "use_linear_projection": True}
    lcm = unet(projection_class_embeddings_input_dim=68, time_cond_proj_dim=16, **size).state_dict()
    given = {"XL": str(model("sdxl")), "LORA": lora, "LCM": lcm}
    assert apart(SD + NETWORKS[name], model("sd1"), **given) < 1e-4


def test_the_tokenizer_reads_as_that_of_transformers(model):
    theirs = transformers.CLIPTokenizer.from_pretrained(model("sd1"), subfolder="tokenizer")
    ours = compat.CLIPTokenizer.from_pretrained(model("sd1"), subfolder="tokenizer")
    for text in ("a photo of 3 cats", "L'été, déjà!", ""):
        assert ours.encode(text) == theirs.encode(text)
        assert ours.tokenize(text) == theirs.tokenize(text)
        assert ours(text).input_ids == theirs(text).input_ids
        assert ours.decode(ours.encode(text), skip_special_tokens=True).replace(" ", "") == theirs.decode(
            theirs.encode(text), skip_special_tokens=True
        ).replace(" ", "")
    for name in ("model_max_length", "bos_token_id", "eos_token_id", "pad_token_id"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.convert_tokens_to_ids(["cat</w>", "no such"]) == theirs.convert_tokens_to_ids(
        ["cat</w>", "no such"]
    )


def test_a_part_has_the_settings_and_the_weights_of_diffusers(model, tmp_path):
    ours, theirs = (
        library.StableDiffusionXLPipeline.from_pretrained(model("sdxl")) for library in (compat, diffusers)
    )
    for name in ("unet", "vae", "text_encoder", "text_encoder_2"):
        part, other = getattr(ours, name), getattr(theirs, name)
        assert type(part).__name__ == type(other).__name__
        config = other.config.to_dict() if hasattr(other.config, "to_dict") else dict(other.config)
        for key, value in part.config.items():
            if key in config and key != "architectures":
                assert _lists(value) == _lists(config[key]), key
        state = {key.removeprefix("text_model."): value for key, value in part.state_dict().items()}
        expected = {key.removeprefix("text_model."): value for key, value in other.state_dict().items()}
        expected = {key: value for key, value in expected.items() if "position_ids" not in key}
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[key], expected[key]) for key in state)
        assert (part.dtype, part.device) == (other.dtype, other.device)
        assert part.num_parameters() == sum(each.numel() for each in other.parameters())
        part.save_pretrained(tmp_path / name)
        again = type(other).from_pretrained(tmp_path / name)
        assert all(
            torch.equal(a, b)
            for a, b in zip(again.state_dict().values(), other.state_dict().values(), strict=True)
        )


def _lists(value):
    return list(value) if isinstance(value, tuple) else value


KEYWORDS = [
    {"dtype": torch.float32, "device_map": "cpu"},
    {"torch_dtype": "auto", "low_cpu_mem_usage": True},
    {"dtype": {"default": torch.float32, "unet": torch.float32}},
    {"device_map": "balanced", "max_memory": {0: "1GB"}, "local_files_only": True},
    {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False},
    {"token": None, "cache_dir": None, "force_download": False, "trust_remote_code": False},
]


@pytest.mark.parametrize("settings", KEYWORDS, ids=str)
def test_a_pipeline_loads_with_the_keywords_of_diffusers(settings, model):
    pipe = compat.DiffusionPipeline.from_pretrained(model("sd1"), **settings)
    assert pipe.dtype == torch.float32
    if "device_map" in settings:
        assert set(pipe.hf_device_map) == {"unet", "vae", "text_encoder"}
        pipe.reset_device_map()
    assert pipe.hf_device_map is None
    assert pipe("a cat", num_inference_steps=2, output_type="latent").images.isfinite().all()


def test_auto_is_the_precision_of_the_files(model, tmp_path):
    pipe = compat.DiffusionPipeline.from_pretrained(model("sd1"), dtype=torch.bfloat16)
    pipe.save_pretrained(tmp_path / "half", variant="bf16", max_shard_size="10KB")
    assert list((tmp_path / "half" / "unet").glob("*.bf16-00001-of-*.safetensors"))
    for source in (model("sd1"), tmp_path / "half"):
        found = compat.DiffusionPipeline.from_pretrained(source, dtype="auto", variant=None)
        assert found.dtype == (torch.float32 if source == model("sd1") else torch.bfloat16)


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_a_scheduler_that_diffusers_has_saved_is_read_with_its_settings(name, tmp_path):
    theirs = getattr(diffusers, name)()
    theirs.save_pretrained(tmp_path)
    ours = SCHEDULERS[name].from_pretrained(tmp_path)
    for key, value in ours.settings.items():
        assert _lists(value) == _lists(theirs.config[key]), key


def test_a_model_saved_with_an_infinite_setting_is_read_and_converted(tmp_path):
    pipe = pipeline("sd1")
    pipe.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    pipe.save_pretrained(tmp_path / "model")
    assert "-Infinity" in (tmp_path / "model" / "scheduler" / "scheduler_config.json").read_text()
    ours = compat.StableDiffusionPipeline.from_pretrained(tmp_path / "model")
    ours.save_pretrained(tmp_path / "again")
    again = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "again")
    assert again.scheduler.config.lambda_min_clipped == -math.inf
    convert(tmp_path / "model", tmp_path / "model.safetensors")
    file = compat.StableDiffusionPipeline.from_single_file(tmp_path / "model.safetensors")
    assert file.scheduler.config.lambda_min_clipped == -math.inf


def test_a_pipeline_is_saved_as_diffusers_reads_it(model, tmp_path, lora):
    pipe = compat.StableDiffusionPipeline.from_pretrained(model("sd1"))
    pipe.scheduler = compat.EulerDiscreteScheduler.from_config(
        pipe.scheduler.config, timestep_spacing="trailing"
    )
    pipe.load_lora_weights(lora)
    pipe.fuse_lora()
    pipe.save_pretrained(tmp_path / "saved", safe_serialization=True)
    pipe.save_pretrained(tmp_path / "saved")
    theirs = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "saved")
    theirs.set_progress_bar_config(disable=True)
    assert theirs.scheduler.config.timestep_spacing == "trailing"
    assert pipe.config["unet"] == ["diffusers", "UNet2DConditionModel"]
    index = compat.DiffusionPipeline.load_config(tmp_path / "saved")
    assert index["_class_name"] == diffusers.DiffusionPipeline.load_config(tmp_path / "saved")["_class_name"]
    assert json.loads(repr(pipe).removeprefix("StableDiffusionPipeline ")) == pipe.config
    ours, expected = (
        each(
            "a cat", generator=torch.Generator().manual_seed(1), num_inference_steps=2, output_type="latent"
        ).images
        for each in (pipe, theirs)
    )
    assert (ours - expected).abs().max() < 1e-4 * expected.abs().max()


def test_a_single_file_takes_the_keywords_of_diffusers(model, tmp_path):
    convert(model("sd1"), tmp_path / "model.safetensors")
    config = tmp_path / "config"
    shutil.copytree(model("sd1"), config)
    settings = json.loads((config / "scheduler" / "scheduler_config.json").read_text())
    (config / "scheduler" / "scheduler_config.json").write_text(json.dumps(settings | {"steps_offset": 3}))
    (tmp_path / "v.yaml").write_text('model:\n  params:\n    parameterization: "v"\n')
    load = compat.StableDiffusionPipeline.from_single_file
    file = tmp_path / "model.safetensors"
    pipe = load(
        file, variant="fp16", config=str(config), dtype=torch.float32, use_safetensors=True, revision="main"
    )
    assert pipe.scheduler.config.steps_offset == 1  # which StableDiffusionPipeline puts right
    assert (
        load(file, original_config=str(tmp_path / "v.yaml")).scheduler.config.prediction_type
        == "v_prediction"
    )
    assert load(file, torch_dtype=torch.bfloat16, device_map="cpu").unet.dtype == torch.bfloat16
    other = autoencoder()
    pipe = load(file, vae=other, local_files_only=True, load_safety_checker=False)
    assert torch.equal(
        pipe.vae.state_dict()["decoder.conv_in.weight"], other.state_dict()["decoder.conv_in.weight"]
    )
    with pytest.raises(CheckpointError, match="is not on the Hugging Face hub"):
        load("https://example.org/model.safetensors")
    with pytest.raises(CheckpointError, match=r"there is no file 'none\.safetensors'"):
        load("none.safetensors")


@pytest.mark.parametrize(
    ("family", "file", "changes"),
    [
        ("sd1", "vae/config.json", {"scaling_factor": 0.5}),
        ("sd1", "unet/config.json", {"sample_size": 12, "attention_head_dim": 4}),
        ("sd1", "text_encoder/config.json", {"hidden_act": "gelu"}),
        ("sd1", "scheduler/scheduler_config.json", {"prediction_type": "v_prediction", "beta_end": 0.02}),
        ("sdxl", "model_index.json", {"force_zeros_for_empty_prompt": False}),
    ],
)
def test_a_single_file_takes_all_settings_of_its_config(family, file, changes, model, tmp_path):
    convert(model(family), tmp_path / "model.safetensors")
    config = shutil.copytree(model(family), tmp_path / "config")
    (config / file).write_text(json.dumps(json.loads((config / file).read_text()) | changes))
    for weights_file in config.rglob("*.safetensors"):
        weights_file.unlink()
    name = "StableDiffusionXLPipeline" if family == "sdxl" else "StableDiffusionPipeline"
    drawn = []
    for library, others in ((compat, {}), (diffusers, {"local_files_only": True})):
        pipe = getattr(library, name).from_single_file(
            tmp_path / "model.safetensors", config=str(config), **others
        )
        options = {"num_inference_steps": 2, "output_type": "np"}
        drawn.append(pipe("a cat", generator=torch.Generator().manual_seed(0), **options).images)
    assert drawn[0].shape == drawn[1].shape
    assert abs(drawn[0] - drawn[1]).max() < 1e-4
    undone = getattr(compat, name).from_single_file(tmp_path / "model.safetensors")
    undone = undone("a cat", generator=torch.Generator().manual_seed(0), **options).images
    assert undone.shape != drawn[0].shape or abs(undone - drawn[0]).max() > 1e-3


def test_parts_are_loaded_from_single_files(model, tmp_path):
    vae = load_file(model("sd1") / "vae" / "diffusion_pytorch_model.safetensors")
    save_file(vae, tmp_path / "vae.safetensors")
    with pytest.raises(CheckpointError):
        compat.AutoencoderTiny.from_pretrained(tmp_path)
    convert(model("sdxl"), tmp_path / "model.safetensors")
    for kind, name in ((compat.UNet2DConditionModel, "unet"), (compat.AutoencoderKL, "vae")):
        ours = kind.from_single_file(str(tmp_path / "model.safetensors"), torch_dtype=torch.float32)
        folder = kind.from_pretrained(model("sdxl"), subfolder=name, device_map="cpu")
        assert ours.config.block_out_channels == folder.config.block_out_channels
        for mine, theirs in zip(ours.state_dict().values(), folder.state_dict().values(), strict=True):
            assert torch.equal(mine, theirs)
        settings = {**json.loads((model("sdxl") / name / "config.json").read_text()), "sample_size": 24}
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(settings))
        other = kind.from_single_file(tmp_path / "model.safetensors", config=tmp_path, subfolder=name)
        assert other.config.sample_size == 24
        assert torch.equal(next(other.parameters()), next(ours.parameters()))


def test_a_tiny_autoencoder_decodes_as_in_diffusers(model, tmp_path):
    torch.manual_seed(6)
    tiny = diffusers.AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )
    tiny.save_pretrained(tmp_path)
    program = (
        SD
        + """
from diffusers import AutoencoderTiny
pipe.vae = AutoencoderTiny.from_pretrained(TINY, torch_dtype=torch.float32)
result = draw(output_type="pt")
"""
    )
    assert apart(program, model("sd1"), TINY=str(tmp_path)) < 1e-3


@pytest.fixture
def cache(model, lora, tmp_path):
    """A cache of the hub's library with a model, and a repository with an adapter and an embedding."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    for repository in ("some/model", "some/adapters"):
        top = tmp_path / "cache" / f"models--{repository.replace('/', '--')}"
        (top / "refs").mkdir(parents=True)
        (top / "refs" / "main").write_text(commit)
        (top / "snapshots" / commit).mkdir(parents=True)
    shutil.copytree(
        model("sd1"), tmp_path / "cache/models--some--model/snapshots" / commit, dirs_exist_ok=True
    )
    adapters = tmp_path / "cache/models--some--adapters/snapshots" / commit
    save_file(lora, adapters / "pytorch_lora_weights.safetensors")
    save_file({"<cat>": rows(2, 24)}, adapters / "learned_embeds.safetensors")
    return {"cache_dir": str(tmp_path / "cache"), "local_files_only": True}


@pytest.mark.parametrize("revision", [None, "main", "0123456789abcdef0123456789abcdef01234567"])
def test_every_loader_takes_a_cache_a_revision_and_a_token(revision, cache, model):
    where = {**cache, "revision": revision, "token": "hf_none"}
    pipe = compat.DiffusionPipeline.from_pretrained("some/model", **where)
    vae = compat.AutoencoderKL.from_pretrained("some/model", subfolder="vae", **where)
    empty = compat.UNet2DConditionModel.from_config("some/model", subfolder="unet", **where)
    scheduler = compat.DDIMScheduler.from_pretrained("some/model", subfolder="scheduler", **cache)
    assert compat.DiffusionPipeline.download("some/model", **where).name.startswith("0123")
    assert isinstance(compat.AutoModel.from_pretrained("some/model", subfolder="unet", **where), type(empty))
    pipe = compat.StableDiffusionPipeline.from_pretrained("some/model", vae=vae, scheduler=scheduler, **where)
    pipe.load_lora_weights("some/adapters", **where)
    pipe.load_textual_inversion("some/adapters", **where)
    assert pipe.lora_state_dict("some/adapters", **where)[0]
    local = compat.StableDiffusionPipeline.from_pretrained(model("sd1"))
    call = {"num_inference_steps": 1, "output_type": "latent"}
    found, plain = (each("a <cat>", generator=torch.manual_seed(1), **call).images for each in (pipe, local))
    assert (found - plain).abs().max() > 1e-3
    with pytest.raises(CheckpointError, match="not in the local cache"):
        compat.DiffusionPipeline.from_pretrained("some/other", **where)


def test_a_part_moves_and_compiles_with_its_pipeline(model):
    pipe = compat.StableDiffusionPipeline.from_pretrained(model("sd1"))
    pipe.unet.to(memory_format=torch.channels_last)
    pipe.vae.enable_tiling()
    pipe.vae.enable_slicing()
    assert pipe.studio.device_options.tile == 64
    pipe.disable_vae_tiling()
    assert pipe.studio.device_options.tile is None
    pipe.unet.to(torch.bfloat16)
    assert pipe.dtype == pipe.studio.dtype == torch.bfloat16
    pipe.text_encoder.to(torch.float32)
    assert pipe("a cat", num_inference_steps=1).images
    del pipe.vae
    assert pipe.vae is None
    assert pipe("a cat", num_inference_steps=1, output_type="latent").images.isfinite().all()
    pipe.unet.compile(mode="reduce-overhead")
    assert pipe.studio.device_options.compiled
    with pytest.raises(AttributeError, match=r"UNet2DConditionModel of sfumato\.compat has no add_adapter"):
        pipe.unet.add_adapter()


def test_pipelines_that_share_parts_share_their_adapters(model, lora):
    pipe = compat.StableDiffusionPipeline.from_pretrained(model("sd1"))
    other = compat.StableDiffusionPipeline.from_pipe(pipe)
    assert other.unet is pipe.unet
    call = {"num_inference_steps": 2, "output_type": "latent"}

    def draw(each):
        return each("a cat", generator=torch.Generator().manual_seed(1), **call).images

    plain = draw(other)
    pipe.load_lora_weights(lora)
    assert (draw(other) - plain).abs().max() > 1e-3
    assert torch.equal(draw(other), draw(pipe))
    with_vae = compat.StableDiffusionPipeline.from_pipe(pipe, vae=autoencoder())
    assert torch.equal(draw(with_vae), draw(pipe))
    pipe.unload_lora_weights()
    assert torch.equal(draw(other), plain)
    assert torch.equal(draw(with_vae), plain)
