"""Single files give the networks that were written, and the pictures that diffusers draws with them."""

from dataclasses import replace

import diffusers
import pytest
import torch
from single_files import FAMILIES, diffusers_keys, write

import sfumato
from sfumato import checkpoint
from sfumato.config import UNetConfig, VAEConfig
from sfumato.nets.inputs import SizeConditioning

pytestmark = pytest.mark.filterwarnings("ignore::sfumato.errors.SfumatoWarning")


@pytest.fixture(scope="module")
def models(published, tmp_path_factory):
    """Each family's pipeline and its file in the original layout, made once."""
    made = {}

    def get(family):
        if family not in made:
            pipe, tensors = published(family)
            path = tmp_path_factory.mktemp("single") / f"{family}.safetensors"
            made[family] = pipe, write(marked(family, tensors), path)
        return made[family]

    return get


def marked(family, tensors):
    """A model of the second kind that predicts noise says so by how long it was trained."""
    return tensors | {"global_step": torch.tensor(875_000)} if family == "sd2-epsilon" else tensors


def assert_same_networks(model, pipe):
    for name, network in model.networks.items():
        theirs = {key.removeprefix("text_model."): t for key, t in getattr(pipe, name).state_dict().items()}
        ours = network.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_in_the_original_layout_holds_what_was_written(family, models):
    pipe, path = models(family)
    model = checkpoint.load(path)
    assert_same_networks(model, pipe)
    assert model.name == family
    assert model.prediction == ("v" if family == "sd2-v" else "epsilon")
    assert model.task == (family if family in ("inpaint", "instruct") else "text")
    assert model.info.distilled == ("lcm" if family == "lcm" else None)
    assert [tokenizer.pad for tokenizer in model.tokenizers] == {
        "sdxl": [49407, 0], "sd2-v": [0], "sd2-epsilon": [0]
    }.get(family, [49407])  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_in_diffusers_keys_holds_what_was_written(family, models, tmp_path):
    pipe, path = models(family)
    again = write(marked(family, diffusers_keys(pipe)), tmp_path / "again.safetensors")
    model = checkpoint.load(again)
    assert_same_networks(model, pipe)
    other = checkpoint.load(path)
    assert {name: net.config for name, net in model.networks.items()} == {
        name: net.config for name, net in other.networks.items()
    }
    assert (model.scheduler, model.kind) == (other.scheduler, other.kind)


def comparable(config):
    """A configuration without what changes nothing, with one number for each level."""
    if isinstance(config, UNetConfig):
        each = {"attention_head_dim": config.heads, "layers_per_block": config.layers}
        each |= {"cross_attention_dim": config.context, "transformer_layers_per_block": config.down_depths}
        return replace(config, **each, reverse_transformer_layers_per_block=config.up_depths)
    return replace(config, **({"sample_size": 0} if isinstance(config, VAEConfig) else {"pad_token_id": 0}))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_file_leaves_unsaid_is_what_the_real_networks_are(family, models):
    pipe, path = models(family)
    model = checkpoint.load(path)
    for name, network in model.networks.items():
        real = getattr(pipe, name).config
        real = real.to_dict() if name.startswith("text") else dict(real)
        real |= {"architectures": [type(getattr(pipe, name)).__name__]}
        real = {key: value for key, value in real.items() if key in network.config.to_dict()}
        stated = type(network.config).from_dict(real, "diffusers")
        assert comparable(network.config) == comparable(stated)
    schedule = pipe.scheduler.config
    for key in ("beta_start", "beta_end", "beta_schedule", "prediction_type", "num_train_timesteps"):
        assert getattr(model.schedule, key) == schedule[key]


def peers_latents(pipe, **call):
    own = pipe.scheduler
    if not isinstance(own, diffusers.LCMScheduler):
        pipe.scheduler = diffusers.DDIMScheduler.from_config(
            own.config, timestep_spacing="trailing", set_alpha_to_one=True, clip_sample=False
        )
    call |= {"num_inference_steps": 4, "width": 24, "height": 16, "output_type": "latent"}
    pipe.set_progress_bar_config(disable=True)
    try:
        return pipe("a red apple", generator=torch.Generator().manual_seed(11), **call).images[0]
    finally:
        pipe.scheduler = own


@pytest.mark.parametrize("family", ["sd1", "sd2-epsilon", "sd2-v", "sdxl", "lcm"])
def test_four_steps_from_a_single_file_end_where_diffusers_do(family, models):
    pipe, path = models(family)
    lcm = family == "lcm"
    negative = {} if lcm else {"negative_prompt": "blurred"}
    theirs = peers_latents(pipe, guidance_scale=5.0, **negative)
    studio = sfumato.load(path, device="cpu", dtype="float32")
    *_, last = studio.stream(
        "a red apple", negative="" if lcm else "blurred", steps=4, guidance=5.0, seed=11, width=24, height=16,
        sampler="lcm" if lcm else "ddim", spacing="lcm" if lcm else "trailing",
    )  # fmt: skip
    ours = last._estimate.squeeze(0)
    assert (ours - theirs).norm() <= 1e-3 * theirs.norm()
    assert theirs.std() > 0.1


@pytest.mark.parametrize("family", ["sd1", "sd2-epsilon", "sd2-v", "sdxl", "lcm", "inpaint", "instruct"])
def test_the_unets_answers_equal_diffusers(family, models):
    pipe, path = models(family)
    model = checkpoint.load(path)
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, model.unet.config.in_channels, 8, 8, generator=generator)
    t = torch.tensor([10.0, 700.0])
    ids = torch.tensor([model.tokenizers[0].bos, *model.tokenizers[0].encode("a red apple"), 49407])
    with torch.inference_mode():
        told = {}
        if family == "sdxl":
            cond = model.encode("a red apple")
            states = cond.states.expand(2, -1, -1)
            sizes = model.size_ids((16, 16)).expand(2, -1)
            pooled = cond.pooled.expand(2, -1)
            told = {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes}}
            ours = model.unet(x, t, states, size=SizeConditioning(pooled, sizes))
        else:
            states = model.text_encoders[0](ids[None]).states.expand(2, -1, -1)
            theirs = pipe.text_encoder(ids[None]).last_hidden_state
            assert (states[:1] - theirs).abs().max() <= 1e-5 * theirs.abs().max()
            guidance = torch.tensor([1.5, 8.0]) if family == "lcm" else None
            if guidance is not None:
                embedded = pipe.get_guidance_scale_embedding(guidance - 1, embedding_dim=32)
                told = {"timestep_cond": embedded}
            ours = model.unet(x, t, states, guidance=guidance)
        theirs = pipe.unet(x, t, states, **told).sample
    assert (ours - theirs).norm() <= 1e-5 * theirs.norm()
