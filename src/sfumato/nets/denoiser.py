"""A network that answers in clean estimates: what stands between samplers and a denoising network.

Precision, memory format, what is kept of prompts and levels, and the batching of rows are its business; no
sampler sees them.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from sfumato.devices import own_precision
from sfumato.diffusion.guidance import Term
from sfumato.diffusion.level import Level
from sfumato.diffusion.predict import clean_estimate, network_input, prediction_named
from sfumato.diffusion.sampling import Point
from sfumato.nets.inputs import SizeConditioning
from sfumato.nets.network import Context, Network, Residuals


class Control(Protocol):
    """A network beside the denoiser, such as a ControlNet, with a picture and a text of its own."""

    def __call__(self, x: Tensor, level: Level) -> Residuals:
        """What it adds to the denoiser's answer to `x` (1, C, …), as the denoiser reads it, at `level`."""
        ...


@dataclass(frozen=True, eq=False)
class Conditioning:
    """One prompt made ready for a network, one row of each.

    `context`: what the network keeps of the text (and of an image prompt). `size`: SDXL's pooled text and
    sizes. `guidance`: the scale, for networks that read it. `channels` (1, C', …): input channels besides the
    latent's own (a mask and a masked picture for inpainting, a picture for instructions). `controls`:
    networks whose residuals are added.
    """

    context: Context
    size: SizeConditioning | None = None
    guidance: float | None = None
    channels: Tensor | None = None
    controls: tuple[Control, ...] = ()

    @property
    def time_only(self) -> bool:
        """Whether nothing but the time enters the time embedding, so that rows of one point can share it."""
        return self.size is None and self.guidance is None


class Denoiser:
    """`net` read through `prediction`; latents stay float32 outside, the network runs in its own dtype."""

    def __init__(
        self,
        net: Network,
        prediction: str,
        device: torch.device,
        *,
        slices: int | None = None,
        embeddings_kept: int = 256,
        trainable: bool = False,
    ) -> None:
        """`net` computes on `device`, the queries of its attention taking turns in `slices` parts.

        `embeddings_kept`: how many time embeddings are remembered, the least recently used one going first.
        `trainable`: nothing is remembered, and answers can be differentiated.
        """
        self.net = net
        self.device = device
        self.prediction = prediction_named(prediction)
        self.slices, self.trainable = slices, trainable
        self._embeddings: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._embeddings_kept = 0 if trainable else embeddings_kept

    @property
    def dtype(self) -> torch.dtype:
        """What the network computes in."""
        return self.net.dtype

    def forget(self) -> None:
        """Drop the time embeddings that are remembered: the weights they came from have changed."""
        self._embeddings.clear()

    @own_precision
    def condition(
        self,
        states: Tensor,
        size: SizeConditioning | None = None,
        guidance: float | None = None,
        *,
        channels: Tensor | None = None,
        controls: Sequence[Control] = (),
    ) -> Conditioning:
        """A prompt's text `states` (1, T, D) and all else made ready, once for every step and picture."""
        with self._mode():
            context = self.net.context(states.to(self.device, self.dtype))
        if size is not None:
            size = size.to(self.device, self.dtype)
        if channels is not None:
            channels = channels.to(self.device, self.dtype)
        return Conditioning(context, size, guidance, channels, tuple(controls))

    def group(self, row: tuple[Point, Term]) -> Hashable:
        """Rows of equal groups can share a batch: same latent shape, same kinds of conditioning."""
        point, conditioning = row[0], row[1].conditioning
        channels = None if conditioning.channels is None else conditioning.channels.shape[1]
        return point.x.shape[1:], conditioning.context.group, channels, bool(conditioning.controls)

    @own_precision
    def __call__(self, rows: Sequence[tuple[Point, Term]]) -> list[Tensor]:
        """Clean estimates (1, C, …) in float32 of `rows` of one `group`, evaluated as one batch.

        Rows whose points are the same object share what the network computes before it reads the text.
        """
        points = list(dict.fromkeys(point for point, _ in rows))
        conditionings: list[Conditioning] = [term.conditioning for _, term in rows]
        levels = [point.level for point, _ in rows]
        latents = torch.cat([point.x for point in points])
        owner = torch.tensor([points.index(point) for point, _ in rows], device=latents.device)
        single = len(rows) == len(points)
        with self._mode():
            context = type(conditionings[0].context).cat([each.context for each in conditionings])
            own = latents if single else latents[owner]
            if single or not self._can_share(points, rows):
                x = self._input(own, levels, conditionings)
                time = torch.cat([self._time(*each) for each in zip(levels, conditionings, strict=True)])
                residuals = self._residuals(x, levels, conditionings)
                out = self.net.denoise(x, time, context, slices=self.slices, residuals=residuals)
            else:
                first = {id(point): term.conditioning for point, term in reversed(rows)}
                shared = [first[id(point)] for point in points]
                x = self._input(latents, [point.level for point in points], shared)
                time = torch.cat([self._time(p.level, c) for p, c in zip(points, shared, strict=True)])
                out = self.net.denoise(x, time, context, owner.to(self.device), slices=self.slices)
        estimates = clean_estimate(self.prediction, own, out.to(latents.device), levels)
        return list(torch.split(estimates, 1))

    def _can_share(self, points: Sequence[Point], rows: Sequence[tuple[Point, Term]]) -> bool:
        """Whether the rows of every point differ in nothing but their context."""
        channels = {(id(point), id(term.conditioning.channels)) for point, term in rows}
        plain = all(term.conditioning.time_only and not term.conditioning.controls for _, term in rows)
        return plain and len(channels) == len(points)

    def _input(
        self, latents: Tensor, levels: Sequence[Level], conditionings: Sequence[Conditioning]
    ) -> Tensor:
        """What the network is shown: the latents in its scale, and the channels that go with them."""
        x = network_input(self.prediction, latents, levels).to(self.device, self.dtype)
        channels = [each.channels for each in conditionings if each.channels is not None]
        return torch.cat([x, torch.cat(channels)], dim=1) if channels else x

    def _residuals(
        self, x: Tensor, levels: Sequence[Level], conditionings: Sequence[Conditioning]
    ) -> Residuals | None:
        """The sum of what the controls of each row add, or nothing."""
        if not conditionings[0].controls:
            return None
        channels = conditionings[0].channels
        latents = x if channels is None else x[:, : -channels.shape[1]]
        rows = [
            _sum([control(latents[row : row + 1], level) for control in each.controls])
            for row, (level, each) in enumerate(zip(levels, conditionings, strict=True))
        ]
        skips = zip(*(row.skips for row in rows), strict=True)
        return Residuals(tuple(map(torch.cat, skips)), torch.cat([row.mid for row in rows]))

    def _time(self, level: Level, conditioning: Conditioning) -> Tensor:
        """The time embedding (1, E) of a level and what enters with it, kept for other steps and pictures."""
        key = (level.t, None if conditioning.time_only else conditioning)
        if key in self._embeddings:
            self._embeddings.move_to_end(key)
            return self._embeddings[key]
        t = torch.tensor([level.t], device=self.device)
        scale = conditioning.guidance
        guidance = None if scale is None else torch.tensor([scale], dtype=torch.float64)
        embedding = self.net.embed_time(t, conditioning.size, guidance)
        if self._embeddings_kept:
            self._embeddings[key] = embedding
        if len(self._embeddings) > self._embeddings_kept:
            self._embeddings.popitem(last=False)
        return embedding

    def _mode(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.trainable else torch.inference_mode()


def _sum(residuals: Sequence[Residuals]) -> Residuals:
    """Their sum, tensor by tensor."""
    first, *others = residuals
    skips, mid = list(first.skips), first.mid
    for other in others:
        skips = [a + b for a, b in zip(skips, other.skips, strict=True)]
        mid = mid + other.mid
    return Residuals(tuple(skips), mid)
