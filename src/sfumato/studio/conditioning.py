"""From parsed prompts to the guidance of a drawing: texts encoded, terms weighted and masked."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from sfumato.adapt.embedding import Embedding
from sfumato.checkpoint import Model
from sfumato.diffusion.guidance import (
    ClassifierFreeGuidance,
    Guidance,
    ImageGuidance,
    WeightedConditioning,
)
from sfumato.expansion import Prepared
from sfumato.names import TEXT2VIDEO_ZERO
from sfumato.nets.denoiser import Conditioning, Denoiser
from sfumato.nets.feature_cache import FeatureCache
from sfumato.nets.inputs import SizeConditioning
from sfumato.nets.network import AppliedControl, AppliedImage
from sfumato.nets.windows import Windows
from sfumato.prompt.chunks import mentioned
from sfumato.prompt.encode import TextEmbedding, common_length
from sfumato.prompt.language import Prompt
from sfumato.prompt.meaning import Content, Travel
from sfumato.prompt.travel import PromptTravel
from sfumato.request import Region
from sfumato.studio.ready_controls import ReadyControl

KEPT = 64
"""Text embeddings and conditionings that are remembered."""


@dataclass(frozen=True)
class _Text:
    """One content of a prompt, and everything that its text states depend on."""

    content: Content
    dialect: str
    clip_skip: int
    embeddings: tuple[tuple[str, Embedding], ...]
    """The learned embeddings that it may name."""
    negative: bool
    zero: bool
    """Whether its states are taken to be zeros."""


class Conditioner:
    """Makes the guidance of pictures for one model and its denoiser, and remembers what it encoded."""

    def __init__(self, model: Model, denoiser: Denoiser) -> None:
        self.model, self.denoiser = model, denoiser
        self._embedding = lru_cache(maxsize=KEPT)(self._encode)
        # weights that are trained change from step to step
        self._conditioning = lru_cache(maxsize=0 if denoiser.trainable else KEPT)(self._condition)

    def forget(self) -> None:
        """Drop what was computed from weights that are others now."""
        self._embedding.cache_clear()
        self._conditioning.cache_clear()

    def check(self, picture: Prepared) -> None:
        """Raise what encoding the texts of `picture` would, without that work."""
        request, steps = picture.request, picture.request.steps or 1
        texts = [
            text
            for prompt in (picture.prompt, *picture.regions)
            for text in self._texts(picture, prompt, steps)
        ]
        if request.guidance != 1 or not _sum_to_one(texts, steps):
            texts += self._texts(picture, picture.negative, steps, negative=True)
        common_length([self._places(each.conditioning) for each in texts])

    def guidance(
        self,
        picture: Prepared,
        size: tuple[int, int],
        steps: int,
        channels: Tensor | None = None,
        controls: tuple[ReadyControl, ...] = (),
        windows: Windows | None = None,
    ) -> Guidance:
        """The guidance of `picture`, (width, height) `size`, in `steps` steps.

        `channels` (1, C, h, w): what the network is given of a picture besides the latent. `controls`: what
        adds to its answers, to those without the prompt as well. `windows`: see `Conditioning`.
        """
        request = picture.request
        cross = request.motion == TEXT2VIDEO_ZERO and not request.travel
        assert request.guidance is not None
        scale, guidance = request.guidance, None
        if self.denoiser.net.reads_guidance:
            scale, guidance = 1.0, scale
        prompts = self._prompts(picture, size, steps)
        negatives: list[WeightedConditioning] = []
        image_scale = 1.0 if request.image_guidance is None else request.image_guidance
        if scale != 1 or image_scale != 1 or not _sum_to_one(prompts, steps):
            negatives = self._texts(picture, picture.negative, steps, negative=True)
        embeddings = [self._embedding(each.conditioning) for each in (*prompts, *negatives)]
        seamless = request.seamless or ""
        length = common_length([embedding.states.shape[1] for embedding in embeddings])
        interval = request.cache_interval
        cached = interval > 1 and windows is None

        def weighted(
            texts: Sequence[WeightedConditioning], channels: Tensor | None
        ) -> tuple[WeightedConditioning, ...]:
            made = (
                self._conditioning(
                    each.conditioning, size, guidance, length, channels, controls, windows, seamless, cross
                )
                for each in texts
            )
            if cached:
                made = (replace(each, cache=FeatureCache(interval)) for each in made)
            if request.token_merging:
                made = (replace(each, token_merging=request.token_merging) for each in made)
            return tuple(
                replace(each, conditioning=conditioning)
                for each, conditioning in zip(texts, made, strict=True)
            )

        by_text = ClassifierFreeGuidance(
            weighted(prompts, channels),
            weighted(negatives, channels),
            scale,
            request.guidance_interval or (0.0, math.inf),
            request.guidance_rescale,
        )
        if image_scale == 1 or channels is None:
            return by_text
        return ImageGuidance(by_text, weighted(negatives, torch.zeros_like(channels)), image_scale)

    def _prompts(self, picture: Prepared, size: tuple[int, int], steps: int) -> list[WeightedConditioning]:
        """The prompt's texts, and those of the regions, which leave to the prompt what they do not cover."""
        *_, height, width = self.model.latent.shape(size)
        regions = picture.request.regions
        masks = [_mask(region, width, height).to(self.denoiser.device) for region in regions]
        if not masks:
            return self._texts(picture, picture.prompt, steps)
        covered = torch.stack(masks).sum(0)
        texts = self._texts(picture, picture.prompt, steps, mask=(1 - covered).clamp(min=0))
        for prompt, mask in zip(picture.regions, masks, strict=True):
            texts += self._texts(picture, prompt, steps, mask=mask / covered.clamp(min=1))
        return texts

    def _texts(
        self,
        picture: Prepared,
        prompt: Prompt | PromptTravel,
        steps: int,
        *,
        mask: Tensor | None = None,
        negative: bool = False,
    ) -> list[WeightedConditioning]:
        """Every content of `prompt`, and how much it counts in which steps."""
        request, known = picture.request, picture.embeddings
        embeddings = tuple((name, known[name]) for name in sorted(mentioned(prompt.text, known)))
        zero = negative and not prompt.text and self.model.zero_negative
        texts = []
        for term in prompt.terms(steps):
            weight = term.weight if mask is None else term.weight * mask
            for index, content in enumerate(term.contents):
                at = frozenset(step for step, which in enumerate(term.at) if which == index)
                text = _Text(content, request.dialect, request.clip_skip, embeddings, negative, zero)
                texts.append(WeightedConditioning(text, weight, at if len(term.contents) > 1 else None))
        return texts

    def _encode(self, text: _Text) -> TextEmbedding:
        with torch.no_grad():
            embedding = self.model.encode(
                text.content,
                text.clip_skip,
                self.denoiser.device,
                dialect=text.dialect,
                embeddings=dict(text.embeddings),
            )
        return embedding.zeroed() if text.zero else embedding

    def _places(self, text: _Text) -> int:
        return self.model.places(
            text.content, text.clip_skip, dialect=text.dialect, embeddings=dict(text.embeddings)
        )

    def _condition(
        self,
        text: _Text,
        size: tuple[int, int],
        guidance: float | None,
        length: int,
        channels: Tensor | None,
        controls: tuple[ReadyControl, ...],
        windows: Windows | None,
        seamless: str,
        cross_frame: bool,
    ) -> Conditioning:
        """One content made ready for the network at one picture size and length of text."""
        embedding = self._embedding(text).repeated(length)
        ids = self.model.size_ids(size, negative=text.negative)
        added = None
        if embedding.pooled is not None and ids is not None:
            added = SizeConditioning(embedding.pooled, ids.expand(len(embedding.pooled), -1))
        states = embedding.states.to(self.denoiser.device)
        shares = torch.tensor(text.content.shares()) if isinstance(text.content, Travel) else None
        applied = [control.of(states, added, text.negative) for control in controls]
        return self.denoiser.condition(
            states,
            added,
            guidance,
            channels=channels,
            controls=[each for each in applied if isinstance(each, AppliedControl)],
            images=[each for each in applied if isinstance(each, AppliedImage)],
            windows=windows,
            seamless=seamless,
            cross_frame=cross_frame,
            frame_shares=shares,
        )


def _sum_to_one(texts: Sequence[WeightedConditioning], steps: int) -> bool:
    """Whether the weights sum to 1 in every step, so that guidance 1 has no use for the negative prompt."""
    for step in range(steps):
        total = torch.zeros(())
        for text in texts:
            total = total + torch.as_tensor(text.at(step)).cpu()
        if not torch.allclose(total, torch.ones_like(total), atol=1e-6):
            return False
    return True


def _mask(region: Region, width: int, height: int) -> Tensor:
    """(1, 1, height, width): how much of each latent cell lies in the region's box, times its weight."""
    left, top, right, bottom = region.box

    def covered(count: int, low: float, high: float) -> Tensor:
        edges = torch.arange(count + 1, dtype=torch.float32) / count
        return (edges[1:].clamp(max=high) - edges[:-1].clamp(min=low)).clamp(min=0) * count

    cells = covered(height, top, bottom)[:, None] * covered(width, left, right)
    return region.weight * cells[None, None]
