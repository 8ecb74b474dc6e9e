"""What pipelines carry beside drawing: adapters, embeddings, forms of results, memory, and errors by name."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import diffusers
import numpy as np
import peft
import pytest
import torch
from both import apart, run
from checkpoint_families import pipeline
from diffusers.utils import convert_state_dict_to_diffusers
from safetensors.torch import save_file

from sfumato import compat
from sfumato.checkpoint.converting import convert
from sfumato.errors import CheckpointError, SfumatoWarning, UsageError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::sfumato.errors.SfumatoWarning")

LOAD = """
import torch
from diffusers import StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained(MODEL, torch_dtype=torch.float32, safety_checker=None)
pipe.set_progress_bar_config(disable=True)
def draw(**others):
    return pipe(
        "a <cat> on a mat", num_inference_steps=3, generator=torch.Generator().manual_seed(3),
        output_type="latent", **others
    ).images
"""
TINY = {"num_inference_steps": 2, "width": 16, "height": 8}


@pytest.fixture(scope="session")
def loras(tmp_path_factory):
    """Two folders, each with a LoRA for the UNet and the text encoder, as diffusers saves them."""
    top = tmp_path_factory.mktemp("loras")
    for seed, name in enumerate(("one", "two")):
        pipe = pipeline("sd1")
        torch.manual_seed(seed)
        layers = {}
        for part, targets in (("unet", ["to_q", "to_v"]), ("text_encoder", ["q_proj", "fc1"])):
            network = getattr(pipe, part)
            config = peft.LoraConfig(r=2, lora_alpha=3, init_lora_weights=False, target_modules=targets)
            network.add_adapter(config)
            state = peft.utils.get_peft_model_state_dict(network)
            layers[f"{part}_lora_layers"] = convert_state_dict_to_diffusers(state)
        diffusers.StableDiffusionPipeline.save_lora_weights(top / name, **layers)
    return top


ADAPTED = {
    "the latest is active": """
pipe.load_lora_weights(LORAS + "/one", adapter_name="one")
pipe.load_lora_weights(LORAS + "/two/pytorch_lora_weights.safetensors")
result = draw()
""",
    "a scale for the call": """
pipe.load_lora_weights(LORAS + "/one")
result = torch.cat([draw(cross_attention_kwargs={"scale": 0.4}), draw()])
""",
    "two at once with weights": """
pipe.load_lora_weights(LORAS, weight_name="one/pytorch_lora_weights.safetensors", adapter_name="one")
pipe.load_lora_weights(LORAS + "/two", weight_name="pytorch_lora_weights.safetensors", adapter_name="two")
pipe.set_adapters(["one", "two"], adapter_weights=[0.7, -0.3])
result = draw()
""",
    "fused, then unloaded": """
pipe.load_lora_weights(LORAS + "/one")
pipe.fuse_lora(lora_scale=0.6)
pipe.unload_lora_weights()
result = draw()
""",
    "fused, then taken out": """
pipe.load_lora_weights(LORAS + "/one", adapter_name="one")
pipe.fuse_lora(lora_scale=0.6)
fused = draw()
pipe.unfuse_lora()
pipe.unload_lora_weights()
result = torch.cat([fused, draw()])
""",
    "switched off and on": """
pipe.load_lora_weights(LORAS + "/one")
pipe.disable_lora()
off = draw()
pipe.enable_lora()
result = torch.cat([off, draw()])
""",
}


@pytest.mark.parametrize("name", ADAPTED)
def test_adapters_draw_the_latents_of_diffusers(name, model, loras):
    assert apart(LOAD + ADAPTED[name], model("sd1"), LORAS=str(loras)) < 1e-4


def test_unloading_gives_back_the_same_bits(model, loras):
    pipe = compat.StableDiffusionPipeline.from_pretrained(model("sd1"))
    pipe("a cat", **TINY)
    before = pipe.unet.state_dict()["mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"].clone()
    pipe.load_lora_weights(loras / "one", adapter_name="one")
    pipe("a cat", **TINY)
    assert pipe.get_active_adapters() == ["one"]
    pipe.unload_lora_weights()
    after = pipe.unet.state_dict()["mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"]
    assert torch.equal(before, after)
    assert pipe.get_list_adapters() == {}
    with pytest.raises(UsageError, match="there is no adapter 'one'"):
        pipe.set_adapters("one")


@pytest.mark.parametrize("vectors", [1, 3])
def test_a_learned_word_draws_the_latents_of_diffusers(vectors, model, tmp_path):
    rows = torch.randn(vectors, 24, generator=torch.Generator().manual_seed(8))
    save_file({"<cat>": rows}, tmp_path / "learned.safetensors")
    program = LOAD + "pipe.load_textual_inversion(FILE)\nresult = draw()"
    plain = run(LOAD + "result = draw()", model("sd1"), "diffusers")
    file = str(tmp_path / "learned.safetensors")
    assert apart(program, model("sd1"), FILE=file) < 1e-4
    assert (run(program, model("sd1"), "sfumato.compat", FILE=file) - plain).abs().max() > 1e-3


def test_a_learned_word_can_be_given_another_name(model, tmp_path):
    save_file({"emb_params": torch.ones(1, 24)}, tmp_path / "learned.safetensors")
    program = LOAD + 'pipe.load_textual_inversion(FILE, token="<cat>")\nresult = draw()'
    assert apart(program, model("sd1"), FILE=str(tmp_path / "learned.safetensors")) < 1e-4


@pytest.mark.parametrize("form", ["np", "pt"])
def test_pictures_are_those_of_diffusers_as_arrays_and_tensors(form, model):
    program = (
        LOAD
        + f"""
result = torch.as_tensor(
    pipe(["a cat", "a dog"], num_inference_steps=3, generator=torch.Generator().manual_seed(3), width=24,
         height=16, output_type="{form}").images
)
"""
    )
    assert apart(program, model("sd1")) < 1e-4


def test_pictures_are_those_of_diffusers_as_pil_images(model):
    program = (
        LOAD
        + """
result = pipe("a cat", num_inference_steps=3, generator=torch.Generator().manual_seed(3), width=24, height=16)
"""
    )
    theirs, ours = (run(program, model("sd1"), library) for library in ("diffusers", "sfumato.compat"))
    assert ours.nsfw_content_detected is None
    assert ours[0][0].size == (24, 16)
    assert np.abs(np.asarray(ours.images[0], int) - np.asarray(theirs.images[0], int)).max() <= 1


def test_the_old_callback_is_called_after_the_steps_that_diffusers_calls_it_after(model):
    program = (
        LOAD
        + """
from diffusers import HeunDiscreteScheduler
pipe.scheduler = HeunDiscreteScheduler.from_config(pipe.scheduler.config)
result = []
draw(callback=lambda step, time, latents: result.append((step, round(float(time)))), callback_steps=2)
"""
    )
    ours, theirs = (run(program, model("sd1"), library) for library in ("sfumato.compat", "diffusers"))
    assert ours == theirs
    assert ours


def test_memory_savings_and_moves_leave_the_picture_as_it_is(model, loras):
    pipe = compat.StableDiffusionPipeline.from_pretrained(model("sd1"))
    pipe.load_lora_weights(loras / "one")
    call = {"generator": None, "output_type": "pt", **TINY}

    def draw():
        torch.manual_seed(1)
        return pipe("a cat", **call).images

    plain = draw()
    pipe.enable_attention_slicing()
    pipe.enable_vae_slicing()
    pipe.enable_vae_tiling()
    pipe.to("cpu", torch.float32).to(torch_device="cpu", torch_dtype=torch.float32)
    with pytest.warns(SfumatoWarning, match="xFormers is not used"):
        pipe.enable_xformers_memory_efficient_attention()
    assert pipe.studio.device_options.slices == 2
    assert (draw() - plain).abs().max() < 1e-5
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(draw(), draw())
        assert (draw() - plain).abs().max() < 1e-5
    pipe.to(torch.bfloat16)
    assert pipe.unet.dtype == torch.bfloat16
    assert draw().isfinite().all()


def test_a_pipeline_and_its_studio_draw_in_two_threads_what_each_draws_alone(model, loras):
    pipe = compat.StableDiffusionPipeline.from_pretrained(model("sd1"))
    pipe.load_lora_weights(loras / "one", adapter_name="one")
    pipe.set_adapters("one", 20.0)
    call = {"num_inference_steps": 6, "width": 16, "height": 8, "output_type": "latent"}

    def adapted(_=None):
        return pipe("a cat", generator=torch.Generator().manual_seed(1), **call).images

    def plain(_=None):
        image = pipe.studio.generate("a cat", steps=6, width=16, height=8, seed=1, dialect="plain")
        return torch.from_numpy(image.pixels.astype(np.float32))

    alone = adapted(), plain()
    with ThreadPoolExecutor(2) as pool:
        together = zip(pool.map(adapted, range(12)), pool.map(plain, range(12)), strict=True)
        for latents, pixels in together:
            assert (latents - alone[0]).abs().max() < 1e-4 * alone[0].abs().max()
            assert (pixels - alone[1]).abs().max() <= 1


def test_the_pipeline_is_the_one_that_the_model_is_for(model):
    kinds = {"sd1": "StableDiffusionPipeline", "sdxl": "StableDiffusionXLPipeline"}
    kinds["lcm"] = "LatentConsistencyModelPipeline"
    for family, name in kinds.items():
        assert type(compat.DiffusionPipeline.from_pretrained(model(family))).__name__ == name
        assert type(compat.AutoPipelineForText2Image.from_pretrained(model(family))).__name__ == name
    with pytest.raises(UsageError, match="StableDiffusionPipeline does not draw with"):
        compat.StableDiffusionPipeline.from_pretrained(model("sdxl"))


def test_the_older_name_and_the_community_pipeline_of_lcm_draw_the_same(model):
    pipe = compat.DiffusionPipeline.from_pretrained(
        model("lcm"), custom_pipeline="latent_consistency_txt2img", custom_revision="main"
    )
    old = compat.LCMStableDiffusionPipeline.from_pretrained(model("lcm"))
    call = {"prompt": "a cat", "num_inference_steps": 3, "output_type": "latent"}
    first = pipe(**call, generator=torch.Generator().manual_seed(1), original_inference_steps=30).images
    second = old(**call, generator=torch.Generator().manual_seed(1), lcm_origin_steps=30).images
    assert (first - second).abs().max() < 1e-5 * first.abs().max()


def test_a_single_file_draws_what_its_folder_draws(model, tmp_path):
    convert(model("sd1"), tmp_path / "model.safetensors")
    call = {"num_inference_steps": 3, "output_type": "latent"}
    folder, file = (
        pipe("a cat", generator=torch.Generator().manual_seed(1), **call).images
        for pipe in (
            compat.StableDiffusionPipeline.from_pretrained(model("sd1")),
            compat.StableDiffusionPipeline.from_single_file(tmp_path / "model.safetensors"),
        )
    )
    assert (folder - file).abs().max() < 1e-5 * folder.abs().max()


def test_parts_can_be_read(model):
    pipe = compat.StableDiffusionXLPipeline.from_pretrained(model("sdxl"))
    assert pipe.unet.config.in_channels == 4
    assert pipe.vae.config.scaling_factor == 0.18215
    assert pipe.text_encoder_2.config.projection_dim == 20
    assert pipe.safety_checker is None
    pipe.safety_checker = None
    pipe.unet = pipe.unet
    pipe.unet = torch.compile(pipe.unet)
    assert pipe.studio.device_options.compiled


def test_other_names_of_diffusers_are_refused_by_name():
    with pytest.raises(ImportError, match="FluxPipeline"):
        exec("from sfumato.compat import FluxPipeline")


CALLS = [
    ({"ip_adapter_image": 1}, "none is loaded: see load_ip_adapter"),
    ({"nonsense": 1}, "nonsense is not supported"),
    ({"output_type": "gif"}, "output_type = 'gif'"),
    ({"cross_attention_kwargs": {"gligen": 1}}, "cross_attention_kwargs: gligen"),
    ({"callback_on_step_end_tensor_inputs": ["noise"]}, "'noise' is not supported"),
    ({"width": 17}, "width is 17"),
    ({"num_inference_steps": 0}, "steps is 0"),
    ({"latents": torch.zeros(1, 4, 2, 2)}, r"shape \(1, 4, 2, 2\)"),
    ({"generator": [torch.Generator()] * 3}, "3 generators were given for 1 pictures"),
    ({"negative_prompt": ["a", "b"]}, "2 texts as negative_prompt were given for 1 prompts"),
    ({"prompt": None}, "give a prompt or prompt_embeds"),
    ({"sigmas": [1.0, 0.0]}, "DDIMScheduler takes no sigmas"),
    ({"clip_skip": 9}, "clip_skip = 9"),
]


@pytest.fixture(scope="module")
def pipe(model):
    return compat.StableDiffusionPipeline.from_pretrained(model("sd1"))


@pytest.mark.parametrize(("call", "words"), CALLS, ids=lambda value: str(value)[:30])
def test_what_a_call_cannot_do_is_said_by_name(call, words, pipe):
    with pytest.raises(UsageError, match=words):
        pipe(**{"prompt": "a cat", **TINY, **call})


def test_what_a_pipeline_does_not_have_is_said_by_name(pipe):
    with pytest.raises(AttributeError, match=r"no enable_freeu: FreeU is not supported"):
        pipe.enable_freeu(s1=0.9)
    with pytest.raises(
        UsageError, match=r"vae must be of class AutoencoderKL or AutoencoderTiny or .*, not Identity"
    ):
        pipe.vae = torch.nn.Identity()
    with pytest.raises(UsageError, match="safety_checker is not supported"):
        pipe.safety_checker = object()
    with pytest.raises(
        UsageError, match=r"pipe\.scheduler must be one of sfumato\.compat, not IPNDMScheduler"
    ):
        pipe.scheduler = diffusers.IPNDMScheduler()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"vae": object()}, "vae must be of class AutoencoderKL or AutoencoderTiny or .*, not object"),
        ({"device_map": "nowhere"}, "unknown device 'nowhere'"),
        ({"safety_checker": object()}, "safety_checker is not supported: only None"),
        ({"quantization_config": 8}, "quantization_config is not supported"),
        ({"dtype": torch.float32, "torch_dtype": torch.float32}, "give dtype or torch_dtype"),
        ({"use_safetensors": False}, "pickles are never read"),
        ({"custom_pipeline": "lpw_stable_diffusion"}, "custom_pipeline = 'lpw_stable_diffusion'"),
        ({"torch_dtype": torch.float64}, "unknown dtype 'float64'"),
    ],
)
def test_what_loading_cannot_do_is_said_by_name(settings, words, model):
    with pytest.raises(UsageError, match=words):
        compat.StableDiffusionPipeline.from_pretrained(model("sd1"), **settings)


def test_files_of_adapters_that_are_not_there_are_named(pipe, tmp_path):
    with pytest.raises(UsageError, match=r"pytorch_lora_weights\.safetensors"):
        pipe.load_lora_weights(tmp_path)
    with pytest.raises(CheckpointError, match=r"there is no file '.*c\.safetensors'"):
        pipe.load_lora_weights(tmp_path / "a" / "b" / "c.safetensors")


def test_each_picture_of_an_sdxl_batch_with_negative_sizes_equals_itself_drawn_alone(model):
    pipe = compat.StableDiffusionXLPipeline.from_pretrained(model("sdxl"))
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    sizes = {"negative_original_size": (4, 4), "negative_target_size": (16, 16)}

    def draw(prompts, latents):
        call = {"num_inference_steps": 2, "negative_prompt": "dark", "output_type": "latent", **sizes}
        return pipe(prompts, latents=latents, **call).images

    both = draw(["a cat", "a dog"], latents)
    alone = [draw("a cat", latents[:1]), draw("a dog", latents[1:])]
    assert (both - torch.cat(alone)).abs().max() < 1e-5


def test_the_page_names_everything_that_can_be_imported():
    page = (Path(__file__).parents[2] / "docs" / "compat.md").read_text()
    assert [name for name in compat.__all__ if not name.endswith("Output") and f"`{name}`" not in page] == []


def test_what_is_warned_of_is_what_the_call_asks_for(model, tmp_path, recwarn):
    folder = tmp_path / "few"
    shutil.copytree(model("sd1"), folder)
    own = {"sampler": "lcm", "steps": 4, "guidance": 1.0, "steps_range": [1, 8], "guidance_range": [1, 2]}
    (folder / "sfumato.json").write_text(json.dumps(own))
    pipe = compat.DiffusionPipeline.from_pretrained(folder)

    def noted(**fields):
        recwarn.clear()
        pipe("a cat", **{**TINY, "output_type": "latent", **fields})
        told = [str(one.message) for one in recwarn if issubclass(one.category, SfumatoWarning)]
        return [note for note in told if "far from" not in note]

    negative = {"negative_prompt": "blue"}
    assert noted(guidance_scale=1.5, **negative) == noted(guidance_scale=0) == []
    assert noted(guidance_scale=1, **negative) == [
        "the negative prompt does nothing: guidance 1 is the prompt alone"
    ]
    assert [note.split(":")[0] for note in noted(guidance_scale=7.5, num_inference_steps=9)] == [
        "steps 9 is not what this distilled model has learned (1 to 8)",
        "guidance 7.5 is not what this distilled model has learned (1 to 2)",
    ]
