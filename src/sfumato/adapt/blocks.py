"""How much an adapter counts in each part of the networks: names of blocks, and lists as A1111 has them.

The UNet's blocks are `in`, `time`, `down`, `mid`, `up` and `out`; `down.1` is the second level on the way
down, `down.1.0` its first step. A step is a residual block with its transformer; what makes the picture
smaller is a step of its own, the last of its level, and what enlarges it belongs to the last step. `text` is
every text encoder.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from sfumato.adapt.keys import LayerIndex
from sfumato.errors import UsageError, nearest
from sfumato.prompt.meaning import AdapterWeight

MAX_WEIGHT = 1000.0


def layer_weights(
    asked: AdapterWeight, layers: Iterable[tuple[str, str]], indexes: Mapping[str, LayerIndex]
) -> dict[tuple[str, str], float]:
    """How much an adapter counts in each of its `layers`, by the network's place and the layer's path there.

    Those in which it does not count are left out. Raises `UsageError` for unknown blocks and for weights that
    are no numbers.
    """
    text_weight = asked.weight if asked.text_weight is None else asked.text_weight
    for weight in (asked.weight, text_weight):
        if not math.isfinite(weight) or abs(weight) > MAX_WEIGHT:
            raise UsageError(f"the weight of {asked.name!r} is {weight}: must be in ±{MAX_WEIGHT:.0f}")
    factors = by_name(asked.blocks, indexes)
    found = {}
    for part, path in layers:
        base = asked.weight if part == "unet" else text_weight
        if weight := base * factor(factors, indexes[part].blocks[path]):
            found[part, path] = weight
    return found


def factor(blocks: Mapping[str, float], own: Sequence[str]) -> float:
    """What `blocks` says of a layer in the blocks `own`, smallest first: the first entry found, else 1."""
    return next((float(blocks[name]) for name in own if name in blocks), 1.0)


def by_name(
    blocks: Mapping[str, float] | Sequence[float], indexes: Mapping[str, LayerIndex]
) -> Mapping[str, float]:
    """`blocks`, or what a list of weights means for the networks with these `indexes`.

    Raises `UsageError` for a block that none of them has, for what is no number, and as `from_list` does.
    """
    if not isinstance(blocks, Mapping):
        blocks = from_list(blocks, indexes["unet"])
    known = {name for each in indexes.values() for own in each.blocks.values() for name in own} | {"text"}
    for name, value in blocks.items():
        if name not in known:
            raise UsageError(f"there is no block {name!r} in this model; {nearest(name, known)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UsageError(f"the weight of block {name!r} is {value!r}: must be a number")
    return blocks


def from_list(values: Sequence[float], unet: LayerIndex) -> dict[str, float]:
    """Weights by block from a list: the text encoders, the way down, the middle, the way up.

    With a number for every step (26 in SD 1.x, 20 in SDXL), the first step being the first convolution, or
    only for those that attend to the text (17 and 12): the two lists of A1111's "LoRA Block Weight".
    Raises `UsageError` for any other length.
    """
    steps = {own[0] for own in unet.blocks.values()}
    attend = {unet.blocks[path][0] for path in unet.layers if ".attentions." in path}
    ways = {way: sorted((s for s in steps if s.startswith(f"{way}.")), key=_order) for way in ("down", "up")}
    every = ["text", "in", *ways["down"], "mid", *ways["up"]]
    short = [name for name in every if name in attend or name == "text"]
    for names in (every, short):
        if len(values) == len(names):
            return dict(zip(names, values, strict=True))
    raise UsageError(f"{len(values)} block weights were given: this model takes {len(short)} or {len(every)}")


def _order(step: str) -> tuple[int, int]:
    _, level, place = step.split(".")
    return int(level), int(place)
