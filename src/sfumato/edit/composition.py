"""Scenes drawn in passes: a background, objects cut out and put in front of it, and a light pass over all."""

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL import ImageFilter

from sfumato.edit.masks import Box, bounds
from sfumato.edit.passes import Pass, Passes, Pixels
from sfumato.element import Element
from sfumato.errors import UsageError
from sfumato.inputs import InputImage
from sfumato.request import MAX_SEED, Region, Request

HARMONISE = 0.2
"""Strength of the last pass, unless it is given."""
JOINT = 4
"""To how many pixels from the edge of an object, about, what the last pass drew is taken."""
VISIBLE = 8
"""From which alpha of 255 on a pixel counts as part of an object."""
SHADOW_BLUR, SHADOW_SHIFT = 0.04, 0.03
"""Of a shadow, as fractions of the object's height."""
LANCZOS = PIL.Image.Resampling.LANCZOS


def composed(request: Request, native: tuple[int, int]) -> Passes:
    """The passes of a resolved `request` with `elements`, which are drawn at (width, height) `native`."""
    plain = request.filled(elements=(), harmonise=None, transparent=False, sticker=0)
    elements = request.elements
    background, *objects = yield [
        Pass(plain, "background"),
        *(
            Pass(_alone(plain, each, number, native), layer_name(each, number))
            for number, each in enumerate(elements, start=1)
        ),
    ]
    scene = PIL.Image.fromarray(background)
    places: dict[int, Box] = {}
    joints = np.zeros(background.shape[:2], np.float32)
    for number in sorted(range(len(elements)), key=lambda number: elements[number].depth):
        layer, places[number] = _placed(objects[number], elements[number], scene.size)
        scene = _in_front(scene, layer, elements[number].shadow, places[number])
        joints = np.maximum(_edge(layer), joints * (np.asarray(layer.getchannel("A")) < VISIBLE))
    if not request.harmonise:
        return np.asarray(scene)
    width, height = scene.size
    regions = [
        Region(prompt=each.prompt, box=(left / width, top / height, right / width, bottom / height))
        for each, (left, top, right, bottom) in zip(
            elements, (places[n] for n in sorted(places)), strict=True
        )
    ]
    joint = plain.filled(
        image=InputImage.of(scene),
        strength=request.harmonise,
        mask=None,
        regions=(*plain.regions, *regions),
        width=width,
        height=height,
    )
    (drawn,) = yield [Pass(joint)]
    before = np.asarray(scene, dtype=np.float32)
    whole: Pixels = (before + joints[..., None] * (drawn - before)).round().astype(np.uint8)
    return whole


def layer_name(element: Element, number: int) -> str:
    """What the layer of the element with this `number`, from 1, is called."""
    return element.name or f"element-{number}"


def _alone(request: Request, element: Element, number: int, native: tuple[int, int]) -> Request:
    """The request of one element, transparent, at the size `native`."""
    assert request.seed is not None
    width, height = native
    seed = (request.seed + number) % (MAX_SEED + 1) if element.seed is None else element.seed
    return Request.build(
        **{name: getattr(request, name) for name in _SHARED},
        prompt=element.prompt,
        negative=element.negative,
        style=element.style,
        seed=seed,
        steps=element.steps or request.steps,
        guidance=request.guidance if element.guidance is None else element.guidance,
        width=width,
        height=height,
        transparent=True,
    )


_SHARED = (
    *("sampler", "spacing", "guidance_interval", "guidance_rescale", "fast", "dialect", "adapters"),
    *("embeddings", "allow_partial", "clip_skip", "decoder", "model", "vae", "tiny", "base", "prediction"),
    "zero_terminal_snr",
)
"""What an element takes over from the request of its scene."""


def _placed(pixels: Pixels, element: Element, size: tuple[int, int]) -> tuple[PIL.Image.Image, Box]:
    """An object (H, W, 4) in its place in a scene of (width, height) `size`, and the box of the place."""
    width, height = size
    mask = None
    if element.mask is not None:
        grey = PIL.Image.fromarray(element.mask.rgba).convert("LA").getchannel("L")
        mask = grey.resize(size, LANCZOS)
        white = bounds(np.asarray(mask, dtype=np.float32) >= VISIBLE)
        if white is None:
            raise UsageError(
                f"the mask of the element {element.prompt!r} is black: it is white where it stands"
            )
        box = white
    else:
        left, top, right, bottom = element.box or (0, 0, 1, 1)
        box = (round(left * width), round(top * height), round(right * width), round(bottom * height))
        box = (box[0], box[1], max(box[2], box[0] + 1), max(box[3], box[1] + 1))
    around = bounds(pixels[..., 3] >= VISIBLE)
    layer = PIL.Image.new("RGBA", size)
    if around is None:
        return layer, box
    layer.paste(*_fitted(PIL.Image.fromarray(pixels).crop(around), box))
    if mask is not None:
        alpha = np.asarray(layer.getchannel("A"), dtype=np.float32) * np.asarray(mask) / 255
        layer.putalpha(PIL.Image.fromarray(alpha.round().astype(np.uint8)))
    return layer, box


def _in_front(scene: PIL.Image.Image, layer: PIL.Image.Image, darkness: float, box: Box) -> PIL.Image.Image:
    """`scene` with a placed object in front of it, and its shadow."""
    below = scene.convert("RGBA")
    if darkness:
        below.alpha_composite(_shadow(layer, box[3] - box[1], darkness))
    below.alpha_composite(layer)
    return below.convert("RGB")


def _edge(layer: PIL.Image.Image) -> NDArray[np.float32]:
    """1 at the edge of a placed object, 0 away from it."""
    alpha = layer.getchannel("A").filter(ImageFilter.GaussianBlur(JOINT / 2))
    soft: NDArray[np.float32] = np.asarray(alpha, dtype=np.float32) / np.float32(255)
    edge: NDArray[np.float32] = 4 * soft * (1 - soft)
    return edge


def _fitted(cut: PIL.Image.Image, box: Box) -> tuple[PIL.Image.Image, tuple[int, int]]:
    """An object as large as `box` has room for, and where its corner is: in the middle, at the bottom."""
    left, top, right, bottom = box
    scale = min((right - left) / cut.width, (bottom - top) / cut.height)
    size = max(round(cut.width * scale), 1), max(round(cut.height * scale), 1)
    return cut.resize(size, LANCZOS), ((left + right - size[0]) // 2, bottom - size[1])


def _shadow(layer: PIL.Image.Image, height: int, darkness: float) -> PIL.Image.Image:
    """A soft shadow of an object `height` pixels high, a little below it."""
    alpha = layer.getchannel("A").filter(ImageFilter.GaussianBlur(SHADOW_BLUR * height))
    shadow = PIL.Image.new("RGBA", layer.size)
    shadow.paste((0, 0, 0), (0, round(SHADOW_SHIFT * height)), alpha.point(lambda value: value * darkness))
    return shadow
