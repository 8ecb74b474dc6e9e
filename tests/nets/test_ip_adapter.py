"""IP-Adapters as published against diffusers, live: tokens of pictures, and what a UNet makes of them."""

import pytest
import torch
from ip_adapter_states import flat, states
from nets_families import assert_close, pair

from sfumato.checkpoint.control import ip_adapter_of
from sfumato.nets.inputs import ImageKV, SizeConditioning

WIDTH = 12


def adapter_of(tables):
    return ip_adapter_of(flat(tables), "the tables")


def seen(kind, pictures, seed=3):
    """What an image encoder answers of some pictures."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(pictures, *([] if kind == "base" else [9]), WIDTH, generator=generator)


@pytest.mark.parametrize("kind", ["base", "full", "plus"])
def test_the_tokens_of_pictures_equal_diffusers(kind):
    _, peer = pair("SD 1.5")
    tables = states(peer, kind, WIDTH)
    theirs = peer._convert_ip_adapter_image_proj_to_diffusers(tables["image_proj"], low_cpu_mem_usage=False)
    ours = adapter_of(tables)
    with torch.no_grad():
        assert_close(ours.image_proj(seen(kind, 2)), theirs(seen(kind, 2)))


@pytest.mark.parametrize("family", ["SD 1.5", "SDXL base", "embedded-like"])
def test_several_adapters_and_several_pictures_of_each_act_on_a_unet_as_in_diffusers(family):
    net, peer = pair(family)
    net, peer = net.eval(), peer.eval()
    kinds, weights, counts = ["base", "plus"], [0.7, 0.4], [1, 2]
    tables = [states(peer, kind, WIDTH, seed=number) for number, kind in enumerate(kinds)]
    peer._load_ip_adapter_weights(tables, low_cpu_mem_usage=False)
    for name, processor in peer.attn_processors.items():
        if name.endswith("attn2.processor"):
            processor.scale = weights
    generator = torch.Generator().manual_seed(2)
    x, states_of = torch.randn(1, 4, 8, 8, generator=generator), torch.randn(1, 7, 24, generator=generator)
    t = torch.tensor([400])
    pictures = [seen(kind, count) for kind, count in zip(kinds, counts, strict=True)]
    size, extra = None, {}
    if net.config.addition_embed_type:
        size = SizeConditioning(
            torch.randn(1, 20, generator=generator), torch.tensor([[64, 64, 0, 0, 64, 64]])
        )
        extra = {"text_embeds": size.pooled, "time_ids": size.ids}
    with torch.no_grad():
        embeds = [picture[None] for picture in pictures]
        expected = peer(x, t, states_of, added_cond_kwargs={"image_embeds": embeds, **extra}).sample
        images = []
        for table, weight, picture in zip(tables, weights, pictures, strict=True):
            pairs = net.image_pairs(adapter_of(table)(picture))
            images.append(ImageKV(pairs, torch.full((1, len(net.cross)), weight)))
        time = net.embed_time(t, size)
        answer = net.denoise(x, time, net.context(states_of).with_images(images))
        plain = net.denoise(x, time, net.context(states_of))
    assert_close(answer, expected)
    assert (answer - plain).abs().max() > 1e-3
