"""Learning in less memory changes no gradient."""

import pytest
import torch

from sfumato.config import TextConfig, UNetConfig, VAEConfig
from sfumato.nets.layers import enable_checkpointing
from sfumato.nets.text import CLIPText
from sfumato.nets.unet import UNet
from sfumato.nets.vae import AutoencoderKL

UNET = UNetConfig(
    block_out_channels=(8, 16),
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    layers_per_block=1,
    norm_num_groups=4,
    cross_attention_dim=12,
    attention_head_dim=2,
)
VAE = VAEConfig(
    block_out_channels=(8, 8),
    down_block_types=("DownEncoderBlock2D",) * 2,
    up_block_types=("UpDecoderBlock2D",) * 2,
    norm_num_groups=4,
)
TEXT = TextConfig(
    vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2,
    max_position_embeddings=9, projection_dim=16, eos_token_id=49,
)  # fmt: skip


def unet_loss(net):
    generator = torch.Generator().manual_seed(1)
    x, states = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 5, 12, generator=generator)
    return net(x, torch.tensor([3.0, 700.0]), states).square().mean()


def vae_loss(net):
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return (net.decode(net.encode(x).mean) - x).square().mean()


def text_loss(net):
    ids = torch.tensor([[48, 1, 2, 3, 49], [48, 7, 49, 49, 49]])
    told = net(ids, skip=1)
    return told.states.square().mean() + told.pooled.square().mean()


NETS = {
    "unet": (lambda: UNet(UNET), unet_loss),
    "autoencoder": (lambda: AutoencoderKL(VAE), vae_loss),
    "text": (lambda: CLIPText(TEXT), text_loss),
}


def learned(name, change=lambda net: None, autocast=False):
    """The gradients of a network, and how many numbers it remembers on the way."""
    make, loss = NETS[name]
    torch.manual_seed(0)
    net = make()
    change(net)
    held = {}

    def pack(tensor):
        held[tensor.untyped_storage().data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            value = loss(net)
        remembered = sum(held.values())
        value.backward()
    return {
        name: weight.grad for name, weight in net.named_parameters() if weight.grad is not None
    }, remembered


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_gradients_are_the_same_and_less_is_remembered(name, autocast):
    usual, all_of_it = learned(name, autocast=autocast)
    thrifty, less = learned(name, enable_checkpointing, autocast)
    assert usual.keys() == thrifty.keys()
    for weight, gradient in usual.items():
        torch.testing.assert_close(thrifty[weight], gradient, atol=1e-6, rtol=1e-6)
    assert less < 0.8 * all_of_it


def test_a_compiler_sees_through_it():
    """Of the text encoder; `Checkpointed` is the same in all networks."""

    def traced(net):
        enable_checkpointing(net)
        net.compile(backend="eager", fullgraph=True)

    usual, compiled = learned("text")[0], learned("text", traced)[0]
    for weight, gradient in usual.items():
        torch.testing.assert_close(compiled[weight], gradient, atol=1e-6, rtol=1e-6)


def test_who_only_draws_computes_once():
    net = UNet(UNET)
    enable_checkpointing(net)
    calls = []
    net.mid_block.resnets[0].register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        unet_loss(net)
    assert len(calls) == 1
    unet_loss(net).backward()
    assert len(calls) == 3
