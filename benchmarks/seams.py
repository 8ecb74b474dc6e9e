"""Whether borders show: of windows, of decoder tiles, of extended pictures, and of textures laid together.

    python benchmarks/seams.py [TASK]... [--pictures N] [--steps N]

The figure is the seam energy: the mean squared difference of neighbouring pixels across the borders, over
that of all other neighbours along the same axis. 1 is no seam. Beside it is the same figure of a picture
without such borders: of plain diffusion at the same size, or decoded whole. `large` prints the peak of the
resident set while a picture of 1024 × 1024 pixels is drawn. Every figure is printed as it is measured.
"""

import argparse
import resource
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import PIL.Image
from measuring import load, machine, say
from numpy.typing import NDArray

import sfumato
from sfumato.decoders import Decoders
from sfumato.nets.tiling import spans
from sfumato.nets.windows import Windows
from sfumato.options import DeviceOptions

PROMPTS = (
    "a row of houses, flat color", "flowers and leaves, flat color", "snowy mountain, noto style",
    "a seamless pattern of stars, flat color", "a forest, flat emoji", "clouds, soft gradient emoji",
)  # fmt: skip
TILE = 24
"""Cells a side of the decoder's tiles here, so that a small picture has several."""
BEYOND = 96
"""Pixels by which pictures are extended."""
GROUNDS = ("#3cbeb4", "#fadc5a", "#3c3c6e", "#ffffff")
Pixels = NDArray[np.uint8]


def seam_energy(pixels: Pixels, borders: Sequence[int], axis: int = 1) -> tuple[float, float]:
    """Mean squared differences (H, W, 3) along `axis`, across `borders` and elsewhere.

    A border n is that between pixels n − 1 and n; 0 is that between the last and the first.
    """
    along = np.moveaxis(pixels.astype(np.float64), axis, 0)
    energy = ((along - np.roll(along, 1, 0)) ** 2).mean((1, 2))
    inside = np.ones(len(energy), bool)
    inside[[0, *borders]] = False
    return float(energy[list(borders)].mean()), float(energy[inside].mean())


def ratio(pictures: Sequence[Pixels], borders: Sequence[int]) -> float:
    """The seam energy of all `pictures` together."""
    across, elsewhere = np.array([seam_energy(each, borders) for each in pictures]).sum(0)
    return float(across / elsewhere)


def windows(draw: Callable[..., Pixels], studio: sfumato.Studio) -> None:
    """Panoramas in windows, and in one piece."""
    size: dict[str, Any] = {"width": 768, "height": 256, "upscale": 1}
    side = studio.native_size[0] // studio.factor
    found = Windows((side, side)).of((side, 768 // studio.factor))
    borders = sorted({int(edge) for window in found for edge in (window.columns[0], window.columns[-1] + 1)})
    pixels = [each * studio.factor for each in borders if 0 < each < 768 // studio.factor]
    said("windows of multidiffusion", draw, pixels, {**size, "multidiffusion": True})
    said("  the same places, one piece", draw, pixels, {**size, "multidiffusion": False})


def textures(draw: Callable[..., Pixels], studio: sfumato.Studio) -> None:
    """Textures at the edges where they are laid together."""
    said("seamless, laid side by side", draw, [0], {"seamless": "x"})
    said("  not seamless", draw, [0], {})


def outpainting(draw: Callable[..., Pixels], studio: sfumato.Studio) -> None:
    """Pictures on grounds of a colour, extended to the right, at the joint; and pictures drawn as wide."""

    def extended(prompt: str, seed: int, **fields: Any) -> Pixels:
        cut = PIL.Image.fromarray(draw(prompt, seed, transparent=True))
        before = PIL.Image.new("RGB", cut.size, GROUNDS[seed % len(GROUNDS)])
        before.paste(cut, mask=cut)
        return draw(prompt, seed, image=before, **fields)

    side = studio.native_size[0]
    said("extended, at the joint", extended, [side], {"extend": {"right": BEYOND}})
    said("  drawn as wide in one piece", draw, [side], {"width": side + BEYOND, "height": side})


def tiles(draw: Callable[..., Pixels], studio: sfumato.Studio) -> None:
    """Pictures decoded in tiles, and whole."""
    cells = 512 // studio.factor
    edges = {edge for span in spans(cells, TILE, TILE // 4) for edge in span}
    borders = [edge * studio.factor for edge in sorted(edges) if 0 < edge < cells]
    whole = studio.decoders
    size: dict[str, Any] = {"width": 512, "height": 512, "upscale_strength": 0, "upscaler": "latent"}
    options = DeviceOptions(tile=TILE)
    for name, decoders in (
        ("decoded in tiles", Decoders(studio.model, studio.device, studio.dtype, options)),
        ("  decoded whole", whole),
    ):
        studio.decoders = decoders
        said(name, draw, borders, size)
    studio.decoders = whole


def large(draw: Callable[..., Pixels], studio: sfumato.Studio) -> None:
    """The memory of a large picture."""
    before = _peak()
    draw(PROMPTS[0], 0, width=1024, height=1024)
    say(f"1024 × 1024: a peak of {_peak():.0f} MiB ({before:.0f} before), load {load()}")


def said(name: str, draw: Callable[..., Pixels], borders: Sequence[int], fields: dict[str, Any]) -> None:
    """Draw with `fields` and print the figure of the pictures."""
    pictures = [draw(prompt, seed, **fields) for seed, prompt in enumerate(COUNTED)]
    say(f"{name}: {ratio(pictures, borders):.2f} ({len(pictures)} pictures, load {load()})")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


TASKS = {each.__name__: each for each in (windows, textures, outpainting, tiles, large)}
COUNTED = list(PROMPTS)


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tasks", nargs="*", choices=[[], *TASKS], metavar="TASK", help=", ".join(TASKS))
    parser.add_argument("--pictures", type=int, default=len(PROMPTS), help="of each kind")
    parser.add_argument("--steps", type=int, default=12)
    options = parser.parse_args()
    COUNTED[:] = PROMPTS[: options.pictures]
    studio = sfumato.load(device="cpu")
    say(machine("cpu"))

    def draw(prompt: str, seed: int, **fields: Any) -> Pixels:
        return studio.generate(prompt, seed=seed, steps=options.steps, **fields).pixels

    for name in options.tasks or TASKS:
        TASKS[name](draw, studio)


if __name__ == "__main__":
    main()
