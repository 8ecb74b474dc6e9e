"""Whether a thing has the colour that the prompt names: the most frequent colour outside the background.

Colours are compared in CIELAB by the CIE94 difference with its weights for textiles, which counts lightness
half, as shading should, and hue most (CIE 116-1995).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sfumato.data.captions import TINTS, article

NAMES = tuple(name for name in TINTS if name != "white")
"""Colours that prompts ask for; white is the usual background."""
THINGS = ("apple", "car", "star", "fish", "house", "heart", "cup", "hat")
"""Things that prompts ask for in these colours."""
STYLES = ("flat emoji", "3d render", "solid icon", "soft gradient emoji")
"""Styles of icons that prompts ask for."""
ACCEPTED = {"yellow": "gold", "blue": "navy"}
"""Names, and another that counts as right: what people call yellow is often nearest to `TINTS["gold"]`."""
ANALYSED = 128
"""Pixels a side that are analysed; of a larger picture, every second or third."""
FRAME = 3
"""Width in pixels of the edges whose median is the background."""
APART = 15.0
"""Distance in CIELAB beyond which a pixel is foreground."""
LEAST = 0.005
"""Fraction of a picture that the foreground must cover."""

_XYZ = torch.tensor(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]],
    dtype=torch.float64,
)
"""Linear sRGB to XYZ (IEC 61966-2-1)."""
_WHITE = _XYZ.sum(1)


def lab(rgb: Tensor) -> Tensor:
    """Colours (..., 3) of sRGB in [0, 1] as L*, a*, b* (..., 3), float64."""
    rgb = rgb.double()
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    t = linear @ _XYZ.T.to(rgb.device) / _WHITE.to(rgb.device)
    f = torch.where(t > (6 / 29) ** 3, t.clamp(min=0) ** (1 / 3), t / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = f.unbind(-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-1)


def main_colour(picture: Tensor) -> str | None:
    """The name in `TINTS` nearest to most foreground pixels; `None` without a foreground.

    `picture` (3, H, W) in [−1, 1]. The background is the median colour of the picture's edges.
    """
    step = max(1, picture.shape[-1] // ANALYSED)
    pixels = lab((picture[:, ::step, ::step].movedim(0, -1) + 1) / 2)
    edges = torch.cat(
        [
            pixels[:FRAME].flatten(0, 1),
            pixels[-FRAME:].flatten(0, 1),
            pixels[:, :FRAME].flatten(0, 1),
            pixels[:, -FRAME:].flatten(0, 1),
        ]
    )
    flat = pixels.flatten(0, 1)
    foreground = flat[torch.linalg.vector_norm(flat - edges.median(0).values, dim=-1) > APART]
    if len(foreground) < LEAST * len(flat):
        return None
    names = lab(torch.tensor(list(TINTS.values()), device=flat.device) / 255)
    nearest = difference(foreground[:, None], names).argmin(1)
    return list(TINTS)[int(nearest.bincount(minlength=len(names)).argmax())]


def difference(colour: Tensor, reference: Tensor) -> Tensor:
    """CIE94's ΔE*² of colours (..., 3) of CIELAB from references (..., 3): kL = 2, K1 = 0.048, K2 = 0.014."""
    offset = colour - reference
    chroma, own = (torch.linalg.vector_norm(each[..., 1:], dim=-1) for each in (reference, colour))
    hue = ((offset[..., 1:] ** 2).sum(-1) - (own - chroma) ** 2).clamp(min=0)
    lightness, saturation = offset[..., 0] / 2, (own - chroma) / (1 + 0.048 * chroma)
    squared: Tensor = lightness**2 + saturation**2 + hue / (1 + 0.014 * chroma) ** 2
    return squared


def right(wanted: str, found: str | None) -> bool:
    """Whether the colour `found` is the one that `wanted` names."""
    return found is not None and found in (wanted, ACCEPTED.get(wanted))


def prompts(things: int, styles: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of a colour and a prompt for a thing of that colour: `things` for every name in `NAMES`."""
    pairs = []
    for place, name in enumerate(NAMES):
        for number in range(things):
            what = f"{article(name)} {THINGS[(place + number) % len(THINGS)]}"
            style = f", {styles[(place + number) % len(styles)]}" if styles else ""
            pairs.append((name, what + style))
    return pairs


def named(label: str) -> str | None:
    """The colour of a label such as "red apple", or `None` where it names something else."""
    words = label.split()
    return words[0] if len(words) == 2 and words[0] in NAMES else None
