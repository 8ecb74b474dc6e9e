"""A network that answers in clean estimates: what stands between samplers and a denoising network.

Precision, memory format, what is kept of prompts and levels, and the batching of rows are its business; no
sampler sees them.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sfumato.devices import own_precision
from sfumato.diffusion.guidance import Term
from sfumato.diffusion.level import Level
from sfumato.diffusion.predict import clean_estimate, network_input, prediction_named
from sfumato.diffusion.sampling import Point
from sfumato.nets.circular import circular
from sfumato.nets.cross_frame import cross_frame
from sfumato.nets.feature_cache import FeatureCache
from sfumato.nets.inference import uncompiled
from sfumato.nets.inputs import SizeConditioning
from sfumato.nets.network import AppliedControl, AppliedImage, Context, ControlNetwork, Network, Residuals
from sfumato.nets.windows import Windows, in_windows

EMBEDDINGS_KEPT = 256
"""Time embeddings that a denoiser remembers, the least recently used one going first."""


@dataclass(frozen=True, eq=False)
class Conditioning:
    """One prompt made ready for a network, one row of each.

    `context`: what the network keeps of the text. `size`: SDXL's pooled text and sizes. `guidance`: the
    scale, for networks that read it. `channels` (1, C', …): input channels besides the latent's own (a mask
    and a masked picture for inpainting, a picture for instructions). `controls`: networks whose residuals are
    added. `images`: image prompts beside the text. `windows`: in which windows the latent is evaluated, if
    not whole. `seamless`: the axes, "x", "y" or "xy", along which it goes on at the opposite edge.
    `cross_frame`: whether the frames of a clip attend to the first. `frame_shares` (F, R): of a clip whose
    frames read several texts, how much each of the R rows of the context counts in each frame. `cache`: the
    deep features of the drawing whose conditioning this is. `token_merging`: the share of places that
    self-attention merges.
    """

    context: Context
    size: SizeConditioning | None = None
    guidance: float | None = None
    channels: Tensor | None = None
    controls: tuple[AppliedControl, ...] = ()
    images: tuple[AppliedImage, ...] = ()
    windows: Windows | None = None
    seamless: str = ""
    cross_frame: bool = False
    frame_shares: Tensor | None = None
    cache: FeatureCache | None = None
    token_merging: float = 0.0

    def context_in(self, step: int) -> Context:
        """The context, with the image prompts that count in this step."""
        images = [image.prompt for image in self.images if image.counts_in(step)]
        return self.context.with_images(images) if images else self.context

    def shares_of(self, frames: int) -> Tensor:
        """(F, R): those of each frame, all alike where there is one text."""
        return torch.ones(frames, 1) if self.frame_shares is None else self.frame_shares

    def controls_in(self, step: int) -> list[AppliedControl]:
        """Those that count in this step."""
        return [control for control in self.controls if control.counts_in(step)]

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
        trainable: bool = False,
    ) -> None:
        """`net` computes on `device`, the queries of its attention taking turns in `slices` parts.

        `trainable`: nothing is remembered, and answers can be differentiated.
        """
        self.net = net
        self.device = device
        self.prediction = prediction_named(prediction)
        self.slices, self.trainable = slices, trainable
        self._embeddings: OrderedDict[Hashable, Tensor] = OrderedDict()

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
        controls: Sequence[AppliedControl] = (),
        images: Sequence[AppliedImage] = (),
        windows: Windows | None = None,
        seamless: str = "",
        cross_frame: bool = False,
        frame_shares: Tensor | None = None,
    ) -> Conditioning:
        """A prompt's text `states` (1, T, D) and all else made ready, once for every step and picture.

        With `frame_shares` (F, R) the states are of R texts: see `Conditioning`.
        """
        with self._mode():
            context = self.net.context(states.to(self.device, self.dtype))
        if size is not None:
            size = size.to(self.device, self.dtype)
        if channels is not None:
            channels = channels.to(self.device, self.dtype)
        if frame_shares is not None:
            frame_shares = frame_shares.to(self.device)
        own = context, size, guidance, channels
        more = windows, seamless, cross_frame, frame_shares
        return Conditioning(*own, tuple(controls), tuple(images), *more)

    def group(self, row: tuple[Point, Term]) -> Hashable:
        """Rows of equal groups can share a batch: same latent shape, same kinds of conditioning."""
        point, conditioning = row[0], row[1].conditioning
        channels = None if conditioning.channels is None else conditioning.channels.shape[1]
        controlled = bool(conditioning.controls_in(point.step))
        kind = conditioning.context_in(point.step).group, channels, controlled
        windows = conditioning.windows
        placed = point.step if windows is not None and windows.loop else None
        cache = conditioning.cache
        cached = None if cache is None else cache.reused(point.step)
        places = windows, placed, conditioning.seamless, conditioning.cross_frame
        return point.x.shape[1:], *kind, *places, cached, conditioning.token_merging

    @own_precision
    def __call__(self, rows: Sequence[tuple[Point, Term]]) -> list[Tensor]:
        """Clean estimates (1, C, …) in float32 of `rows` of one `group`, evaluated as one batch.

        Rows whose points are the same object share what the network computes before it reads the text.
        """
        windows, shape = rows[0][1].conditioning.windows, rows[0][0].x.shape
        seamless = rows[0][1].conditioning.seamless
        if windows is None or not windows.split(shape):
            return self._evaluate(rows, seamless)
        return in_windows(partial(self._evaluate, seamless=windows.whole(shape, seamless)), rows, windows)

    def _evaluate(self, rows: Sequence[tuple[Point, Term]], seamless: str) -> list[Tensor]:
        """The same of latents as they are, with convolutions that are circular along the axes `seamless`."""
        asked = [(point, term.conditioning) for point, term in rows]
        owner = None
        if self._share_points(rows):
            points = list(dict.fromkeys(point for point, _ in asked))
            owner = torch.tensor([points.index(point) for point, _ in asked])
            first = dict(reversed(asked))
            asked = [(point, first[point]) for point in points]
        latents = torch.cat([point.x for point, _ in asked])
        across = rows[0][1].conditioning.cross_frame
        caches = [(term.conditioning.cache, point.step) for point, term in rows if term.conditioning.cache]
        deep = FeatureCache.features(caches)
        plain = not seamless and not across and deep is None
        denoise = self.net.denoise if plain else uncompiled(self.net, "denoise")
        with self._mode(), circular(seamless), cross_frame(across):
            contexts = [term.conditioning.context_in(point.step) for point, term in rows]
            times = [self._time(point.level, conditioning) for point, conditioning in asked]
            if any(term.conditioning.frame_shares is not None for _, term in rows):
                count = latents.shape[2]
                contexts = [
                    context.mixed(term.conditioning.shares_of(count))
                    for context, (_, term) in zip(contexts, rows, strict=True)
                ]
                if any(len(time) > 1 for time in times):
                    times = [
                        conditioning.shares_of(count).to(time) @ time
                        for time, (_, conditioning) in zip(times, asked, strict=True)
                    ]
            x = self._input(latents, asked)
            out = denoise(
                x,
                torch.cat(times),
                type(contexts[0]).cat(contexts),
                None if owner is None else owner.to(self.device),
                slices=self.slices,
                residuals=self._residuals(x, asked),
                deep=deep,
                token_merging=rows[0][1].conditioning.token_merging,
            )
        if deep is not None:
            FeatureCache.keep(caches, deep)
        latents = latents if owner is None else latents[owner.to(latents.device)]
        levels = [point.level for point, _ in rows]
        estimates = clean_estimate(self.prediction, latents, out.to(latents.device), levels)
        return list(torch.split(estimates, 1))

    def _share_points(self, rows: Sequence[tuple[Point, Term]]) -> bool:
        """Whether some rows have one point, and rows of one point differ in nothing but their context."""
        channels = {(id(point), id(term.conditioning.channels)) for point, term in rows}
        points = {id(point) for point, _ in rows}
        plain = all(
            term.conditioning.time_only and not term.conditioning.controls_in(point.step)
            for point, term in rows
        )
        return plain and len(channels) == len(points) < len(rows)

    def _input(self, latents: Tensor, asked: Sequence[tuple[Point, Conditioning]]) -> Tensor:
        """What the network is shown: the latents in its scale, and the channels that go with them."""
        levels = [point.level for point, _ in asked]
        x = network_input(self.prediction, latents, levels).to(self.device, self.dtype)
        channels = [conditioning.channels for _, conditioning in asked if conditioning.channels is not None]
        return torch.cat([x, torch.cat(channels)], dim=1) if channels else x

    def _residuals(self, x: Tensor, asked: Sequence[tuple[Point, Conditioning]]) -> Residuals | None:
        """The sum of what the controls of each row add, or nothing; every network is asked once."""
        networks: dict[ControlNetwork, list[tuple[int, AppliedControl]]] = {}
        for row, (point, conditioning) in enumerate(asked):
            for control in conditioning.controls_in(point.step):
                networks.setdefault(control.network, []).append((row, control))
        channels = asked[0][1].channels
        latents = x if channels is None else x[:, : -channels.shape[1]]
        parts = []
        for network, members in networks.items():
            rows = torch.tensor([row for row, _ in members], device=x.device)
            t = torch.tensor([asked[row][0].level.t for row, _ in members], device=x.device)
            weights = torch.tensor([control.weight for _, control in members], device=x.device, dtype=x.dtype)
            found = network.residuals(latents[rows], t, [control.inputs for _, control in members])
            parts.append(found.map(partial(_placed, weights=weights, rows=rows, count=len(x))))
        return Residuals.total(parts) if parts else None

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
        if not self.trainable:
            self._embeddings[key] = embedding
        if len(self._embeddings) > EMBEDDINGS_KEPT:
            self._embeddings.popitem(last=False)
        return embedding

    def _mode(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.trainable else torch.inference_mode()


def _placed(part: Tensor, weights: Tensor, rows: Tensor, count: int) -> Tensor:
    """Each row of `part` (N, …) times its weight (N,), added to row `rows` (N,) of `count` rows of zeros."""
    weighted = part * weights.view(-1, *[1] * (part.ndim - 1))
    return part.new_zeros(count, *part.shape[1:]).index_add(0, rows, weighted)
