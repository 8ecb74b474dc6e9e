"""ControlNets against diffusers, live: what they add to a UNet's skips, row by row."""

import diffusers
import pytest
import torch
from nets_families import NARROW_UNETS, assert_close, published, shapes, stirred

from sfumato.config import ControlNetConfig
from sfumato.nets.controlnet import ConditionEmbedding, ControlNet, ControlNetInputs
from sfumato.nets.inputs import SizeConditioning

FAMILIES = ("SD 1.5", "SD 2.1", "SDXL base")


def nets(family, **changes):
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(**NARROW_UNETS[family])
    theirs = diffusers.ControlNetModel.from_unet(
        unet, conditioning_embedding_out_channels=(4, 8, 12), load_weights_from_unet=False, **changes
    )
    for weight in theirs.parameters():  # its last convolutions are zeros
        if weight.ndim == 4 and not weight.any():
            torch.nn.init.normal_(weight, std=0.1)
    ours = ControlNet(ControlNetConfig.from_dict(published(theirs.config), family)).eval()
    ours.load_state_dict(stirred(theirs).state_dict())
    return ours, theirs


def given(net, rows=2, tokens=9):
    generator = torch.Generator().manual_seed(3)

    def randn(*shape):
        return torch.randn(shape, generator=generator)

    config, size = net.config, None
    if config.addition_embed_type:
        width = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        size = SizeConditioning(randn(rows, width), 1024 * torch.rand(rows, 6, generator=generator))
    picture = torch.rand(rows, 3, 48, 64, generator=generator)
    t = 999 * torch.rand(rows, generator=generator)
    return randn(rows, 4, 12, 16), t, randn(rows, tokens, config.context[0]), picture, size


@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_controlnet_adds_equals_diffusers(family, order):
    ours, theirs = nets(family, controlnet_conditioning_channel_order=order)
    assert shapes(ours) == shapes(theirs)
    x, t, states, picture, size = given(ours)
    added = {"text_embeds": size.pooled, "time_ids": size.ids} if size else None
    with torch.no_grad():
        found = ours(x, t, states, picture, size)
        downs, mid = theirs(x, t, states, picture, added_cond_kwargs=added, return_dict=False)
    assert len(found.skips) == len(downs)
    for one, known in zip((*found.skips, found.mid), (*downs, mid), strict=True):
        assert_close(one, known)


@pytest.mark.parametrize("family", ["SD 1.5", "SDXL base"])
def test_rows_of_different_pictures_texts_and_sizes_equal_each_alone(family):
    ours, _ = nets(family)
    x, t, states, picture, size = given(ours)

    def asked(row):
        own = slice(row, row + 1)
        sizes = size and SizeConditioning(size.pooled[own], size.ids[own])
        # texts of different lengths
        return ControlNetInputs(ours.embed(picture[own]), ours.context(states[own, : 9 - 4 * row]), sizes)

    with torch.no_grad():
        inputs = [asked(0), asked(1)]
        both = ours.residuals(x, t, inputs)
        for row, one in enumerate(inputs):
            own = slice(row, row + 1)
            alone = ours.residuals(x[own], t[own], [one])
            for each, known in zip((*both.skips, both.mid), (*alone.skips, alone.mid), strict=True):
                assert_close(each[own], known)


def test_a_part_of_the_latent_has_the_same_part_of_the_picture():
    ours, _ = nets("SD 1.5")
    _, _, states, picture, _ = given(ours, rows=1)
    whole = ControlNetInputs(ours.embed(picture), ours.context(states))
    part = whole.within(lambda x: x[..., 2:7])
    assert torch.equal(part.condition, whole.condition[..., 2:7])
    assert part.context is whole.context


def test_a_controlnet_adds_nothing_before_it_is_trained():
    ours, _ = nets("SD 1.5")
    ours.zero_outputs()
    with torch.no_grad():
        found = ours(*given(ours)[:4])
    assert not any(each.any() for each in (*found.skips, found.mid))


def test_a_fresh_embedding_of_edges_neither_fades_away_nor_explodes():
    torch.manual_seed(0)
    config = ControlNetConfig.from_dict(published(nets("SD 1.5")[1].config), "narrow")
    embedding = ConditionEmbedding(config)
    edges = (torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2)) > 0.8).float()
    faded = embedding(edges).std().item()
    embedding.reset()
    assert 0.2 < embedding(edges).std().item() < 2
    assert faded < 0.1
    assert all(not layer.bias.any() for layer in (embedding.conv_in, embedding.conv_out))
