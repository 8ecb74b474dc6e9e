"""Parameter names: what other versions of the same libraries wrote, in terms of the names used here."""

import re
from collections.abc import Iterable, Mapping

from sfumato.errors import CheckpointError

# diffusers before 0.12 kept the autoencoder's attention under its first names, some as 1×1 convolutions.
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_ATTENTION = re.compile(r"(.*\.attentions\.\d+\.)(query|key|value|proj_attn)\.(weight|bias)")
_MATRIX = re.compile(r".*\.attentions\.\d+\.to_(?:q|k|v|out\.0)\.weight")
# transformers up to 4 saved this constant; it holds 0, 1, 2, … and nothing else.
_CONSTANT = re.compile(r"(?:.*\.)?position_ids")
TEXT_PREFIX = "text_model."
VISION_PREFIX = "vision_model."
TRIANGLES = "mesh_decoder."
"""Of Shap-E's renderer: the table of marching cubes, which is the same for all and holds nothing learned."""


def _vae(name: str) -> str:
    if match := _ATTENTION.fullmatch(name):
        return f"{match[1]}{_OLD_ATTENTION[match[2]]}.{match[3]}"
    return name


def translate(part: str, names: Iterable[str], expected: Iterable[str]) -> dict[str, str]:
    """For each name in a file that matters, its name among `expected`, the names of `part`'s own module.

    Names that no rule touches stay themselves, for the strict check to judge. Raises `CheckpointError` where
    two names in the file mean the same parameter.
    """
    prefixed = any(name.startswith(TEXT_PREFIX) for name in expected)
    ours: dict[str, str] = {}
    origin: dict[str, str] = {}
    for name in names:
        if part == "vae":
            known = _vae(name)
        elif part in ("text_encoder", "text_encoder_2", "image_encoder"):
            if _CONSTANT.fullmatch(name):
                continue
            known = _vision(name) if part == "image_encoder" else _text(name, prefixed)
        elif name.startswith(TRIANGLES):
            continue
        else:
            known = name
        if known in origin:
            raise CheckpointError(f"{part}: {origin[known]!r} and {name!r} are both {known!r}")
        origin[known] = name
        ours[name] = known
    return ours


def _vision(name: str) -> str:
    # transformers 5 has no prefix where there is no projection
    return name if name.startswith((VISION_PREFIX, "visual_projection.")) else VISION_PREFIX + name


def _text(name: str, prefixed: bool) -> str:
    bare = name.removeprefix(TEXT_PREFIX)
    return f"{TEXT_PREFIX}{bare}" if prefixed and not bare.startswith("text_projection.") else bare


def matrix_shape(part: str, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """`shape`, or (C, C) for an autoencoder's attention weight stored as a (C, C, 1, 1) convolution."""
    if part == "vae" and len(shape) == 4 and shape[2:] == (1, 1) and _MATRIX.fullmatch(name):
        return shape[:2]
    return shape


def published(part: str, state: Mapping[str, object]) -> dict[str, str]:
    """For each of our names, the name to save under: the one that every version of the libraries reads."""
    if not part.startswith("text_encoder"):
        return {name: name for name in state}
    return {name: _text(name, prefixed=True) for name in state}
