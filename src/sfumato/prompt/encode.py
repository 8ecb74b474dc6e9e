"""From a prompt to what the networks read of it: token ids of one window, then text states."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.errors import UsageError
from sfumato.nets.text import CLIPText
from sfumato.prompt.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class Cond:
    """One encoded prompt: `states` (1, T, D) and, for SDXL, `pooled` (1, P)."""

    states: Tensor
    pooled: Tensor | None = None

    def zeroed(self) -> "Cond":
        """All zeros, which SDXL was trained to take for "no prompt" (Podell et al. 2023)."""
        pooled = None if self.pooled is None else torch.zeros_like(self.pooled)
        return Cond(torch.zeros_like(self.states), pooled)


def window(text: str, tokenizer: Tokenizer) -> tuple[Tensor, int]:
    """Ids (1, limit) of `text` between its begin and end marks, padded; and how many tokens did not fit."""
    ids = tokenizer.encode(text)
    kept = ids[: tokenizer.limit - 2]
    row = [tokenizer.bos, *kept, tokenizer.eos]
    row += [tokenizer.pad] * (tokenizer.limit - len(row))
    return torch.tensor([row]), len(ids) - len(kept)


def encode(
    text: str,
    tokenizers: Sequence[Tokenizer],
    encoders: Sequence[CLIPText],
    *,
    penultimate: bool = False,
    clip_skip: int = 0,
    device: torch.device | None = None,
) -> Cond:
    """Encode `text` with every encoder and its tokenizer; their states are concatenated along D.

    `penultimate` is how SDXL reads its encoders: the states before the last layer, without the final norm,
    and the last encoder's pooled row. `clip_skip` leaves out that many more layers (diffusers' count; A1111's
    is one higher). `device` is where the encoders compute, if not where their weights lie. Raises
    `UsageError` for a prompt that cannot be read and for a `clip_skip` out of range.
    """
    states, pooled = [], None
    for tokenizer, encoder in zip(tokenizers, encoders, strict=True):
        most = encoder.config.num_hidden_layers - 1 - penultimate
        if not 0 <= clip_skip <= most:
            raise UsageError(f"clip_skip = {clip_skip} is out of range: this text encoder allows 0 to {most}")
        ids, _ = window(text, tokenizer)
        out = encoder(
            ids.to(device or next(encoder.parameters()).device),
            skip=clip_skip + penultimate,
            final_norm=not penultimate,
        )
        states.append(out.states)
        pooled = out.pooled if penultimate else None
    return Cond(torch.cat(states, dim=-1), pooled)


def size_ids(
    size: tuple[int, int], *, original: tuple[int, int] | None = None, crop: tuple[int, int] = (0, 0)
) -> Tensor:
    """The six numbers that SDXL is told (1, 6): original size, where it was cropped, and target size.

    Sizes are (width, height) in pixels, `crop` is (left, top); `original` is `size` unless given
    (Podell et al. 2023, §2.2).
    """
    width, height = original or size
    return torch.tensor([[height, width, crop[1], crop[0], size[1], size[0]]], dtype=torch.float32)


def refiner_ids(size: tuple[int, int], *, aesthetic: float = 6.0, crop: tuple[int, int] = (0, 0)) -> Tensor:
    """The five numbers that the SDXL refiner is told (1, 5): original size, crop, and an aesthetic score.

    Its own examples use a score of 6 for the prompt and 2.5 for the negative prompt.
    """
    return torch.tensor([[size[1], size[0], crop[1], crop[0], aesthetic]], dtype=torch.float32)
