"""`sfumato extend`: draw beyond the edges of a picture."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from sfumato.cli import like
from sfumato.cli.options import Device, Program, argument, request_fields
from sfumato.cli.saving import Output, draw_and_save
from sfumato.errors import UsageError, nearest, warn
from sfumato.request import Extend, Request

program = Program()
_SIDE = re.compile(r"(\w+)=(\S*)")
_OTHERS = (
    "image", "mask", "fill", "feather", "crop", "inversion", "source", "controls", "regions", "seamless",
    "upscale", "upscaler", "upscale_strength", "upscale_steps", "multidiffusion", "overlap",
)  # fmt: skip
"""Fields of a request that say nothing of a picture that is extended."""


@program.add(
    examples="""sfumato extend apple.png right=128 -o wide.png
sfumato extend apple.png left=64 right=64 top=100 'a meadow' -o wide.png --seed 7"""
)
def extend(
    fields: Annotated[dict[str, Any], request_fields(but=_OTHERS)],
    device: Device,
    output: Output,
    picture: Annotated[Path, argument("IMAGE", "The picture, whose pixels are all kept.")],
    words: Annotated[
        list[str],
        argument(
            "SIDE=PX... [PROMPT]",
            "By how many pixels: left, top, right, bottom. And what is drawn there. Default: the picture's "
            "own prompt, if Sfumato drew it, else the empty prompt.",
        ),
    ],
) -> None:
    """Draw beyond the picture's edges, in windows of the model's size."""
    sides, prompt = _read(words)
    if prompt is None:
        prompt = _own_prompt(picture)
    request = Request.build(prompt=prompt, image=picture, extend=sides, **fields)
    draw_and_save([request], device, output)


def _read(words: Sequence[str]) -> tuple[dict[str, int], str | None]:
    """The pixels of each side, and the prompt if there is one."""
    sides: dict[str, int] = {}
    prompts = []
    for word in words:
        side = _SIDE.fullmatch(word)
        if side is None:
            prompts.append(word)
            continue
        name, pixels = side.groups()
        whole = re.fullmatch(r"-?\d+", pixels)
        if name not in Extend.model_fields:
            if not whole:  # a prompt that holds a sign
                prompts.append(word)
                continue
            raise UsageError(f"unknown side {name!r}; {nearest(name, Extend.model_fields)}")
        if not whole:
            raise UsageError(f"{word!r} is not {name} and a whole number of pixels, as {name}=128")
        if name in sides:
            raise UsageError(f"{name} is given twice; give it once")
        sides[name] = int(pixels)
    if not sides:
        raise UsageError("no side is given; say how many pixels, as right=128")
    if len(prompts) > 1:
        raise UsageError(f"these are {len(prompts)} prompts; give one, in quotes: {' '.join(prompts)!r}")
    return sides, prompts[0] if prompts else None


def _own_prompt(picture: Path) -> str:
    """The prompt that the picture was drawn by, if Sfumato drew it; which one is used is said."""
    from sfumato import metadata

    prompt = metadata.read(picture).request.prompt if like.holds_record(picture) else ""
    warn(f"no prompt is given: extended by {repr(prompt) + ', its own' if prompt else 'the empty one'}")
    return prompt
