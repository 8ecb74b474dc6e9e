"""A LoRA trained in a few steps on the embedded model: saved, loaded, folded in, beside, and gone again."""

import pytest
import torch

from sfumato import checkpoint
from sfumato.adapt import Adapters, AdapterWeight, attach_new, live, save_lora
from sfumato.diffusion.guidance import Term
from sfumato.diffusion.predict import prediction_named
from sfumato.diffusion.samplers import sampler_named
from sfumato.diffusion.sampling import Point, SeededNoise, run
from sfumato.diffusion.spacing import spacing_named
from sfumato.nets.denoiser import Denoiser
from sfumato.nets.inference import for_inference, unpacked

CPU = torch.device("cpu")
SIZE = 16
COLOUR = torch.tensor([-0.8, 0.6, -0.8])
"""Green, in [−1, 1]."""
PROMPT = "a red apple, 3d render"


def draw(model):
    """A latent (1, 4, 16, 16), in 3 steps."""
    denoiser = Denoiser(model.unet, model.prediction, CPU)
    with torch.inference_mode():
        prompt = denoiser.condition(model.encode(PROMPT).states)
        noise = SeededNoise([7])
        levels = spacing_named("trailing").levels(model.path(), 3)
        x = noise(torch.empty(1, 4, SIZE, SIZE))

        def denoise(x, level):
            return denoiser([(Point(x, level, 0), Term(prompt))])[0]

        return run(sampler_named("ddim").sample(x, levels, noise), denoise)


def train(model, steps=9):
    """Teach a new LoRA that everything is of one colour; the losses of its steps."""
    with torch.no_grad():
        picture = COLOUR[None, :, None, None].expand(1, 3, SIZE * 8, SIZE * 8)
        x0 = model.vae.scale(model.vae.encode(picture).mean)
        states = model.encode(PROMPT).states
    generator = torch.Generator().manual_seed(0)
    made = attach_new(model.unet, 4, targets=("to_v", "to_out.0", "conv2"), generator=generator)
    optimizer = torch.optim.Adam(made, lr=7e-3)
    losses = []
    for step in range(steps):
        level = model.path().level((999, 700, 400)[step % 3])
        eps = torch.randn(x0.shape, generator=generator)
        a, s = torch.tensor(level.a), torch.tensor(level.s)
        answer = model.unet(a * x0 + s * eps, torch.tensor([level.t]), states)
        target = prediction_named(model.prediction).target(x0, eps, a, s)
        loss = (answer - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.fixture(scope="module")
def model():
    return checkpoint.load("embedded", dtype=torch.float32)


@pytest.fixture(scope="module")
def lora(model, tmp_path_factory):
    """The file, and what the network drew with the LoRA still beside it."""
    path = tmp_path_factory.mktemp("trained") / "green.safetensors"
    losses = train(model)
    assert sum(losses[-3:]) < 0.6 * sum(losses[:3])
    save_lora(path, model.networks)
    trained = draw(model)
    live.detach(model.unet)
    return path, trained


def distance(model, latent):
    """How far the picture is from the colour that was trained."""
    with torch.inference_mode():
        pixels = model.vae.decode(model.vae.unscale(latent))
    return (pixels - COLOUR[None, :, None, None]).abs().mean().item()


@pytest.mark.parametrize("prepared", [False, True])
def test_a_trained_lora_changes_the_picture_as_trained_and_leaves_no_trace(prepared, model, lora):
    path, trained = lora
    if prepared:
        for_inference(model.unet, CPU, torch.float32)
    else:
        unpacked(model.unet)
    adapters = Adapters(model.networks)
    assert adapters.load(path).report.whole
    before = draw(model)
    adapters.set_adapters([AdapterWeight("green")])
    folded = draw(model)
    adapters.set_adapters([AdapterWeight("green", 0.2)])
    little = draw(model)
    near, between, far = (distance(model, latent) for latent in (folded, little, before))
    assert near < 0.7 * far
    assert near < between < far
    adapters.set_adapters([])
    assert torch.equal(draw(model), before)
    adapters.attach([AdapterWeight("green")])
    for other in (draw(model), trained):
        torch.testing.assert_close(folded, other, rtol=0, atol=1e-4 * folded.abs().max().item())
    adapters.detach()
    assert torch.equal(draw(model), before)
    assert not live.attached(model.unet)
