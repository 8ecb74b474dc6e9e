"""A network that answers in clean estimates: what stands between samplers and a UNet.

Precision, memory format, text keys and values, time embeddings and the batching of rows are its business; no
sampler sees them.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.devices import own_precision
from sfumato.diffusion.level import Level
from sfumato.diffusion.predict import clean_estimate, prediction_named
from sfumato.diffusion.sampling import Point
from sfumato.nets.inputs import SizeConditioning, TextKV
from sfumato.nets.unet import UNet


@dataclass(frozen=True, eq=False)
class Conditioning:
    """One prompt made ready for a UNet: its keys and values, and what else enters with the time.

    `text`: keys and values of every cross attention, one row. `added`: SDXL's pooled text and sizes, one row.
    `w`: the guidance scale minus one that a latent consistency model is told.
    """

    text: TextKV
    added: SizeConditioning | None = None
    w: float | None = None

    @property
    def plain(self) -> bool:
        """Whether nothing but the time enters the time embedding, so that rows of one point can share it."""
        return self.added is None and self.w is None


class Denoiser:
    """`net` read through `prediction`; latents stay float32 outside, the network runs in its own dtype."""

    def __init__(
        self,
        net: UNet,
        prediction: str,
        device: torch.device,
        *,
        slices: int | None = None,
        embeddings_kept: int = 256,
    ) -> None:
        """`net` computes on `device`, the queries of its attention taking turns in `slices` parts.

        `embeddings_kept`: how many time embeddings are remembered, the least recently used one going first.
        """
        self.net = net
        self.device = device
        self.prediction = prediction_named(prediction)
        self._embeddings: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._embeddings_kept = embeddings_kept
        self.slices = slices

    @property
    def dtype(self) -> torch.dtype:
        """What the network computes in."""
        return self.net.dtype

    def forget(self) -> None:
        """Drop the time embeddings that are remembered: the weights they came from have changed."""
        self._embeddings.clear()

    @own_precision
    def condition(
        self, states: Tensor, added: SizeConditioning | None = None, w: float | None = None
    ) -> Conditioning:
        """Keys and values of one prompt's `states` (1, T, D), computed here once for every step and image."""
        with torch.inference_mode():
            text = self.net.project_text(states.to(self.device, self.dtype))
        if added is not None:
            added = added.to(self.device, self.dtype)
        return Conditioning(text, added, w)

    @own_precision
    def __call__(
        self, points: Sequence[Point], terms: Sequence[Sequence[Conditioning]]
    ) -> list[list[Tensor]]:
        """Clean estimates of every point under each of its terms, evaluated as one batch.

        `points`: latents (1, C, H, W) of one size; `terms[i]`: the conditionings of point i, their texts of
        one length. Returns, for each point, one float32 estimate (1, C, H, W) a term.
        """
        rows = [(index, term) for index, own in enumerate(terms) for term in own]
        levels = [points[index].level for index, _ in rows]
        latents = torch.cat([point.x for point in points])
        with torch.inference_mode():
            text = TextKV.cat([term.text for _, term in rows])
            owner = torch.tensor([index for index, _ in rows], device=latents.device)
            x = latents.to(self.device, self.dtype)
            if len(rows) == len(points):
                out = self.net.denoise(x, self._times(levels, rows), text, slices=self.slices)
            elif all(term.plain for _, term in rows):
                times = torch.cat(
                    [self._time(point.level, own[0]) for point, own in zip(points, terms, strict=True)]
                )
                out = self.net.denoise(x, times, text, rows=owner, slices=self.slices)
            else:
                out = self.net.denoise(x[owner], self._times(levels, rows), text, slices=self.slices)
        own_latents = latents if len(rows) == len(points) else latents[owner]
        estimates = clean_estimate(self.prediction, own_latents, out.to(latents.device), levels)
        each = iter(torch.split(estimates, 1))
        return [[next(each) for _ in own] for own in terms]

    def _times(self, levels: Sequence[Level], rows: Sequence[tuple[int, Conditioning]]) -> Tensor:
        return torch.cat([self._time(level, term) for level, (_, term) in zip(levels, rows, strict=True)])

    def _time(self, level: Level, term: Conditioning) -> Tensor:
        """The time embedding (1, E) of a level and what enters with it, kept for other steps and images."""
        key = (level.t, None if term.plain else term)
        if key in self._embeddings:
            self._embeddings.move_to_end(key)
            return self._embeddings[key]
        t = torch.tensor([level.t], device=self.device)
        w = None if term.w is None else torch.tensor([term.w], device=self.device)
        self._embeddings[key] = embedding = self.net.embed_time(t, term.added, w)
        if len(self._embeddings) > self._embeddings_kept:
            self._embeddings.popitem(last=False)
        return embedding
