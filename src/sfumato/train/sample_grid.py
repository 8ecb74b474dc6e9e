"""Sheets of pictures that a model in training draws, to be looked at while it learns."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from sfumato.checkpoint import Model
from sfumato.diffusion.level import Level
from sfumato.diffusion.predict import clean_estimate, prediction_named
from sfumato.diffusion.samplers import sampler_named
from sfumato.diffusion.sampling import SeededNoise, run
from sfumato.files import replace_atomically
from sfumato.nets.inputs import SizeConditioning
from sfumato.nets.unet import UNet
from sfumato.prompt.encode import common_length

AT_ONCE = 32
"""Prompts drawn in one batch."""


@torch.no_grad()
def draw(
    model: Model, unet: UNet, prompts: Sequence[str], *, guidance: float | None = None, seed: int = 0
) -> Tensor:
    """Pictures (B, 3, H, W) in [−1, 1], one for each prompt, by `model` with `unet` in its UNet's place.

    Sampler and steps are the model's own; so is the guidance, unless given.
    """
    scale = model.info.defaults.guidance if guidance is None else guidance
    pictures = []
    for start in range(0, len(prompts), AT_ONCE):
        pictures.append(_batch(model, unet, prompts[start : start + AT_ONCE], scale, seed + start))
    return torch.cat(pictures)


def _batch(model: Model, unet: UNet, prompts: Sequence[str], guidance: float, seed: int) -> Tensor:
    device, count = next(unet.parameters()).device, len(prompts)
    prediction = prediction_named(model.prediction)
    own = model.info.defaults
    levels = model.levels(own.spacing, own.steps)
    width, height = model.native_size
    told = unet.config.time_cond_proj_dim is not None
    conds = [model.encode(prompt) for prompt in prompts]
    twice = guidance != 1 and not told
    if twice:
        conds += [model.encode("").zeroed() if model.zero_negative else model.encode("")] * count
    length = common_length([cond.states.shape[1] for cond in conds])
    states = torch.cat([cond.repeated(length).states for cond in conds])
    text = unet.context(states.to(device).float())
    pooled, ids = [cond.pooled for cond in conds if cond.pooled is not None], model.size_ids((width, height))
    added = None
    if pooled and ids is not None:
        added = SizeConditioning(torch.cat(pooled), ids.repeat(len(conds), 1)).to(device, torch.float32)
    w = torch.full((count,), guidance, device=device) if told else None

    def denoise(x: Tensor, level: Level) -> Tensor:
        time = unet.embed_time(torch.full((len(conds),), level.t, device=device), added, w)
        both = x.repeat(2, 1, 1, 1) if twice else x
        answer = clean_estimate(prediction, both, unet.denoise(both, time, text), [level] * len(both))
        if not twice:
            return answer
        said, uncaptioned = answer.chunk(2)
        return uncaptioned + guidance * (said - uncaptioned)

    noise = SeededNoise([seed + row for row in range(count)])
    shape = count, unet.config.in_channels, height // model.factor, width // model.factor
    x = noise(torch.empty(shape, device=device)) * levels[0].s
    z = run(sampler_named(own.sampler).sample(x, levels, noise), denoise)
    weight = next(model.vae.parameters())
    return model.vae.decode(model.vae.unscale(z.to(weight.device, weight.dtype))).float().clamp(-1, 1)


def save(pictures: Tensor, path: Path, columns: int = 8) -> None:
    """Write pictures (B, 3, H, W) in [−1, 1] as one image, `columns` in a row. Raises `OutputError`."""
    count, _, height, width = pictures.shape
    rows = -(-count // columns)
    pixels = ((pictures + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    for place, one in enumerate(pixels):
        sheet.paste(Image.fromarray(one), (place % columns * width, place // columns * height))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_atomically(path) as file:
        sheet.save(file, format="WEBP", quality=85)
