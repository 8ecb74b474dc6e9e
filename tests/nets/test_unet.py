"""The UNet against diffusers, live, and against itself."""

import diffusers
import pytest
import torch
from nets_families import (
    NARROW_UNETS,
    PUBLISHED_UNETS,
    assert_close,
    norms,
    ours_of,
    pair,
    published,
    shapes,
)

from sfumato.config import UNetConfig
from sfumato.nets.attention import TransformerBlock
from sfumato.nets.inputs import SizeConditioning, TextKV
from sfumato.nets.unet import UNet

SIZES = [(16, 16), (11, 21)]
TOKENS = 9


def inputs(config, rows, size, seed=0):
    """x, t, states, added, guidance for `rows` rows."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(shape, generator=generator)

    added = guidance = None
    if config.addition_embed_type:
        count = 5 if config.projection_class_embeddings_input_dim == 60 else 6
        width = config.projection_class_embeddings_input_dim - count * config.addition_time_embed_dim
        added = SizeConditioning(randn(rows, width), 1024 * torch.rand(rows, count, generator=generator))
    if config.time_cond_proj_dim:
        guidance = 5 + 10 * torch.rand(rows, generator=generator)
    t = 999 * torch.rand(rows, generator=generator)
    context = config.context[0]
    return randn(rows, config.in_channels, *size), t, randn(rows, TOKENS, context), added, guidance


def theirs_of(model, x, t, states, added, guidance):
    cond = None
    if guidance is not None:
        embed = diffusers.LatentConsistencyModelPipeline.get_guidance_scale_embedding
        cond = embed(None, guidance - 1, embedding_dim=model.config.time_cond_proj_dim)
    extra = {"text_embeds": added.pooled, "time_ids": added.ids} if added else None
    return model(x, t, states, timestep_cond=cond, added_cond_kwargs=extra).sample


@pytest.mark.parametrize("family", PUBLISHED_UNETS)
def test_published_unet_has_the_keys_and_shapes_of_diffusers(family):
    with torch.device("meta"):
        theirs = diffusers.UNet2DConditionModel(**PUBLISHED_UNETS[family])
        ours = UNet(UNetConfig.from_dict(PUBLISHED_UNETS[family], family))
    assert shapes(ours) == shapes(theirs)
    assert norms(ours) == norms(theirs)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("family", NARROW_UNETS)
def test_unet_equals_diffusers(family, size):
    ours, theirs = pair(family)
    given = inputs(ours.config, 2, size)
    with torch.no_grad():
        assert_close(ours(*given), theirs_of(theirs, *given))


@pytest.mark.parametrize("family", NARROW_UNETS)
def test_saved_configuration_rebuilds_the_network_in_diffusers(family):
    ours, theirs = pair(family)
    again = diffusers.UNet2DConditionModel.from_config(ours.config.to_dict())
    assert shapes(again) == shapes(theirs)
    assert published(again.config) == published(theirs.config)


@pytest.mark.parametrize(
    "rows",
    [[0, 0, 1, 1], [1, 0, 1, 2, 0], [2, 1, 0], [1, 2], [0, 1, 2]],
    ids=["pairs", "uneven", "permuted", "fewer", "one each"],
)
@pytest.mark.parametrize(
    "family", ["SD 1.5", "SDXL base", "embedded-like", "text on the way up only", "no middle"]
)
def test_rows_that_share_a_point_equal_rows_alone(family, rows):
    net = ours_of(family)
    x, t, _, added, _ = inputs(net.config, max(rows) + 1, (10, 12))
    states = inputs(net.config, len(rows), (10, 12), seed=1)[2]
    rows = torch.tensor(rows)
    with torch.no_grad():
        time, text = net.embed_time(t, added), net.context(states)
        shared = net.denoise(x, time, text, rows)
        alone = net.denoise(x[rows], time[rows], text)
    assert_close(shared, alone, 1e-5)


@pytest.mark.parametrize("family", ["SD 1.5", "embedded-like"])
def test_what_comes_before_the_first_cross_attention_is_computed_once_for_each_point(family):
    net = ours_of(family)
    x, t, states, *_ = inputs(net.config, 2, (8, 8))
    first = next(module for module in net.modules() if isinstance(module, TransformerBlock))
    watched = {
        "first convolution": net.conv_in,
        "first residual block": net.resnets[0],
        "first self-attention": first.attn1,
        "first question to the text": first.attn2.to_q,
        "first answer of the text": first.attn2.to_out[0],
        "last residual block": net.up_blocks[-1].resnets[-1],
    }
    rows = {}
    for name, module in watched.items():
        module.register_forward_hook(lambda _m, args, _o, name=name: rows.update({name: len(args[0])}))
    with torch.no_grad():
        net.denoise(x[:1], net.embed_time(t[:1]), net.context(states), torch.tensor([0, 0]))
    assert list(rows.values()) == [1, 1, 1, 1, 2, 2]


@pytest.mark.parametrize("slices", [1, 2, 3, 1000])
def test_attention_in_slices_equals_attention_at_once(slices):
    net = ours_of("SD 1.5")
    x, t, states, *_ = inputs(net.config, 2, (9, 8))
    with torch.no_grad():
        time, text = net.embed_time(t), net.context(states)
        assert_close(net.denoise(x, time, text, slices=slices), net.denoise(x, time, text), 1e-5)


def test_text_and_time_projected_for_many_rows_equal_each_alone():
    net = ours_of("SDXL base")
    _, t, states, added, _ = inputs(net.config, 3, (8, 8))
    with torch.no_grad():
        many = net.context(states)
        alone = TextKV.cat([net.context(states[i : i + 1]) for i in range(3)])
        assert len(many) == len(alone) == 3
        for ours, theirs in zip(many.pairs, alone.pairs, strict=True):
            assert_close(ours[0], theirs[0], 1e-5)
            assert_close(ours[1], theirs[1], 1e-5)
        times = [
            net.embed_time(t[i : i + 1], SizeConditioning(added.pooled[i : i + 1], added.ids[i : i + 1]))
            for i in range(3)
        ]
        assert_close(net.embed_time(t, added), torch.cat(times), 1e-5)


def test_text_or_time_of_the_wrong_number_of_rows_is_refused():
    net = ours_of("embedded-like")
    x, t, states, *_ = inputs(net.config, 2, (8, 8))
    time, text = net.embed_time(t), net.context(states)
    with pytest.raises(ValueError, match="text of 1 rows was given for 2"):
        net.denoise(x, time, net.context(states[:1]))
    with pytest.raises(ValueError, match="times of 2 points were given for 1"):
        net.denoise(x[:1], time, text, rows=torch.tensor([0, 0]))


@pytest.mark.parametrize("family", ["SDXL base", "LCM Dreamshaper"])
def test_what_a_network_must_be_told_is_demanded_and_what_it_cannot_hear_refused(family):
    told, deaf = ours_of(family), ours_of("SD 1.5")
    _, t, _, added, guidance = inputs(told.config, 1, (8, 8))
    name = "size" if added else "guidance"
    with pytest.raises(ValueError, match=f"'{name}' must be given"):
        told.embed_time(t)
    with pytest.raises(ValueError, match=f"'{name}' must not be given"):
        deaf.embed_time(t, added, guidance)


@pytest.mark.parametrize("family", ["SD 1.5", "SDXL base", "LCM Dreamshaper"])
def test_every_parameter_of_the_unet_learns(family):
    net = ours_of(family)
    x, *rest = inputs(net.config, 2, (16, 16))  # with one place to look at, attention has nothing to learn
    net(x.requires_grad_(), *rest).square().mean().backward()
    assert x.grad.abs().max() > 0
    still = [name for name, parameter in net.named_parameters() if not parameter.grad.abs().max() > 0]
    assert still == []


@pytest.mark.parametrize("family", ["SD 1.5", "SD 2.1", "SDXL base", "LCM Dreamshaper"])
def test_unet_runs_in_bfloat16_close_to_float32(family):
    net = ours_of(family)
    given = inputs(net.config, 2, (8, 8))
    with torch.no_grad():
        exact = net(*given)
        net.to(torch.bfloat16)
        x, t, states, added, guidance = given
        rough = net(x.bfloat16(), t, states.bfloat16(), added, guidance)
    assert rough.dtype == torch.bfloat16
    assert_close(rough.float(), exact, 0.1)


def test_channels_last_pictures_stay_so_through_the_unet():
    net = ours_of("SD 1.5").to(memory_format=torch.channels_last)
    x, *rest = inputs(net.config, 2, (16, 16))
    layouts = []
    for resnet in net.resnets:
        resnet.register_forward_hook(lambda _m, _a, out: layouts.append(is_channels_last(out)))
    with torch.no_grad():
        net(x.to(memory_format=torch.channels_last), *rest)
    assert len(layouts) == len(net.resnets)
    assert all(layouts)


def is_channels_last(x):
    return x.is_contiguous(memory_format=torch.channels_last)
