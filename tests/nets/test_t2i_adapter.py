"""T2I-Adapters against diffusers, live: their features, and what a UNet makes of them."""

import diffusers
import pytest
import torch
from nets_families import assert_close, pair, shapes, stirred

from sfumato.config import T2IAdapterConfig
from sfumato.nets.inputs import SizeConditioning
from sfumato.nets.network import Residuals
from sfumato.nets.t2i_adapter import T2IAdapter

PUBLISHED = {
    "SD 1.5": {},
    "SD 1.5, of lines": {"in_channels": 1},
    "SDXL": {"adapter_type": "full_adapter_xl", "downscale_factor": 16},
    "SD 1.5, light": {"adapter_type": "light_adapter", "channels": [320, 640, 1280], "num_res_blocks": 4},
}
NARROW = {
    "SD 1.5": {"channels": [16, 32, 48, 48], "downscale_factor": 8},
    "SD 1.5, of lines": {"channels": [16, 32, 48, 48], "downscale_factor": 8, "in_channels": 1},
    "SDXL base": {"channels": [16, 32, 48, 48], "downscale_factor": 16, "adapter_type": "full_adapter_xl"},
    "SD 1.5, light": {"channels": [16, 32, 48], "num_res_blocks": 3, "adapter_type": "light_adapter"},
}


def adapters(family):
    torch.manual_seed(0)
    theirs = stirred(diffusers.T2IAdapter(**NARROW[family]))
    ours = T2IAdapter(T2IAdapterConfig.from_dict(NARROW[family], family)).eval()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def picture(family, width=80, height=64):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, NARROW[family].get("in_channels", 3), height, width, generator=generator)


@pytest.mark.parametrize("family", PUBLISHED)
def test_a_published_adapter_has_the_keys_and_shapes_of_diffusers(family):
    with torch.device("meta"):
        theirs = diffusers.T2IAdapter(**PUBLISHED[family])
        ours = T2IAdapter(T2IAdapterConfig.from_dict(PUBLISHED[family], family))
    assert shapes(ours) == shapes(theirs)


@pytest.mark.parametrize("family", NARROW)
def test_features_and_their_sizes_equal_diffusers(family):
    ours, theirs = adapters(family)
    shown = picture(family)
    with torch.no_grad():
        features, expected = ours(shown), theirs(shown)
    for feature, known, width, factor in zip(
        features, expected, ours.config.widths, ours.config.factors, strict=True
    ):
        assert_close(feature, known)
        assert feature.shape == (2, width, -(-64 // factor), -(-80 // factor))


@pytest.mark.parametrize("family", ["SD 1.5", "SDXL base"])
def test_a_unet_adds_features_where_diffusers_does_besides_the_residuals_of_a_controlnet(family):
    net, peer = pair(family)
    net, peer = net.eval(), peer.eval()
    adapter, _ = adapters(family)
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(2, 4, 8, 10, generator=generator)
    config = net.config
    states = torch.randn(2, 7, config.context[-1], generator=generator)
    t = torch.tensor([400, 700])
    size = extra = None
    if config.addition_embed_type:
        size = SizeConditioning(
            torch.randn(2, 20, generator=generator), torch.tensor([[64, 80, 0, 0, 64, 80]] * 2)
        )
        extra = {"text_embeds": size.pooled, "time_ids": size.ids}
    skips = []
    with torch.no_grad():
        features = adapter(picture(family))
        for down in peer.down_blocks:
            down.register_forward_hook(lambda _, __, out: skips.extend(out[1]))
        peer(x, t, states, added_cond_kwargs=extra)
        shapes_of = [(2, config.block_out_channels[0], 8, 10), *(skip.shape for skip in skips)]
        control = [torch.randn(shape, generator=generator) for shape in shapes_of]
        mid = torch.randn(shapes_of[-1], generator=generator)

        def expected(**more):
            copies = [feature.clone() for feature in features]
            return peer(
                x, t, states, added_cond_kwargs=extra, down_intrablock_additional_residuals=copies, **more
            ).sample

        def answer(residuals):
            return net.denoise(x, net.embed_time(t, size), net.context(states), residuals=residuals)

        assert_close(answer(Residuals(features=features)), expected())
        both = Residuals.total([Residuals(features=features), Residuals(tuple(control), mid)])
        assert_close(
            answer(both),
            expected(down_block_additional_residuals=control, mid_block_additional_residual=mid),
        )
        assert (answer(Residuals(features=features)) - answer(None)).abs().max() > 1e-3
