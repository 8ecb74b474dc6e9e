"""From prompt to prompt and from seed to seed: a request for every place on the way."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Self, TypeVar, Unpack

import numpy as np
import PIL.Image

from sfumato import expansion
from sfumato.errors import UsageError
from sfumato.prompt.language import escape, parse
from sfumato.prompt.meaning import Blend, Phrase, PromptTerm, WeightedText
from sfumato.request import MAX_COUNT, PictureOptions, Request

T = TypeVar("T")

FRAMES = 24
"""How many are drawn unless that is said."""
DIGITS = 4
"""Of the weights in the frames' requests."""
MEASURED_STEPS = 5
"""Sampling steps of the pictures by which the way is measured."""
EVEN = 1.5
"""How far the largest change from frame to frame may be above the mean before weights are not equal."""
_ROUNDS = 6
"""How often the longest parts of the way are halved: to a part in 64 of what they begin with."""
_BETWEEN = 6
"""Parts of the way from one prompt or seed to the next that are measured at first."""


@dataclass(frozen=True)
class Interpolation:
    """The way over `prompts` and `seeds`, each at even distances, and back to the first of each if `loop`.

    `requests`: of the pictures at the prompts, nothing left to expand in them.
    """

    requests: tuple[Request, ...]
    seeds: tuple[int, ...]
    loop: bool = False

    @classmethod
    def of(
        cls,
        prompts: str | Sequence[str],
        seeds: int | Sequence[int] = (),
        *,
        loop: bool = False,
        **fields: Unpack[PictureOptions],
    ) -> Self:
        """The way over `prompts`, one or more, and `seeds`, one random unless given; `fields` of all frames.

        Raises `UsageError` for fewer than two of both, and for prompts that cannot be mixed.
        """
        prompts = (prompts,) if isinstance(prompts, str) else tuple(prompts)
        given: dict[str, Any] = {**fields}
        own = given.pop("seed", None)
        seeds = (seeds,) if isinstance(seeds, int) else tuple(seeds)
        seeds = seeds or (secrets.randbelow(2**32) if own is None else own,)
        given["seed"] = seeds[0]
        if not prompts or len(prompts) + len(seeds) < 3:
            raise UsageError("an interpolation needs two prompts or more, or one and two seeds or more")
        if given.get("variation_amount") and len(seeds) > 1:
            raise UsageError("variation_amount is given with several seeds, between which it is what changes")
        requests = [_single(Request.build(**{**given, "prompt": prompt})) for prompt in prompts]
        way = cls(tuple(requests), seeds, loop)
        for one, other in pairwise(way._stops(way.requests)):
            _mixed(one, other, 0.5)
        return way

    def at(self, place: float) -> Request:
        """The request of the picture at `place`, 0 at the first prompt and seed to 1 at the last."""
        one, other, share = _between(self._stops(self.requests), place)
        request = _mixed(one, other, share)
        seed, next_seed, share = _between(self._stops(self.seeds), place)
        if not share:
            return request.filled(seed=seed)
        return request.changed(seed=seed, variation_seed=next_seed, variation_amount=share)

    def places(self, count: int) -> list[float]:
        """The places of `count` frames at equal weights; a loop's last one comes before the first again."""
        if not isinstance(count, int) or not 2 <= count <= MAX_COUNT:
            raise UsageError(f"frames is {count}: must be 2 to {MAX_COUNT}")
        return [index / (count if self.loop else count - 1) for index in range(count)]

    def even_places(
        self, count: int, draw: Callable[[list[Request]], Sequence[PIL.Image.Image]], decoder: str = "full"
    ) -> list[float]:
        """The places of `count` frames from each of which to the next the pictures change equally much.

        Those at equal weights, where no change is larger than `EVEN` times the mean.
        How much is the root of the mean squared difference of their pixels, at 32 × 32. It is measured on
        pictures that `draw` is asked for, in fewer steps and by the `decoder`: at first at even places, then
        where the way between two of them is longer than one between frames.
        """
        wanted = self.places(count)
        stops = max(len(self._stops(self.requests)), len(self._stops(self.seeds))) - 1
        known: dict[float, np.ndarray[Any, Any]] = {}
        new = [index / (stops * _BETWEEN) for index in range(stops * _BETWEEN + 1)]
        for _ in range(_ROUNDS):
            drawn = draw([self._measured(place, decoder) for place in new])
            known |= {place: _thumbnail(picture) for place, picture in zip(new, drawn, strict=True)}
            places = sorted(known)
            parts = [_apart(known[one], known[other]) for one, other in pairwise(places)]
            longest = sum(parts) / count
            new = [
                (one + other) / 2
                for (one, other), part in zip(pairwise(places), parts, strict=True)
                if part > longest
            ]
            if not new or len(places) >= 2 * count:
                break
        way = [0.0, *accumulate(parts)]
        steps = np.diff(np.interp(wanted, places, way))
        if steps.max() <= EVEN * steps.mean():
            return wanted
        found = np.interp([at * way[-1] for at in wanted], way, places)
        return [0.0, *map(float, found[1:])]

    def _measured(self, place: float, decoder: str) -> Request:
        request = self.at(place)
        fewer = MEASURED_STEPS if request.steps is None else min(request.steps, MEASURED_STEPS)
        return request.filled(steps=request.steps if request.fast else fewer, decoder=decoder)

    def _stops(self, what: Sequence[T]) -> Sequence[T]:
        return (*what, what[0]) if self.loop and len(what) > 1 else what


def _between(stops: Sequence[T], place: float) -> tuple[T, T, float]:
    """The two of `stops` that `place`, 0 to 1, lies between, and the share of the second."""
    along = min(max(place, 0.0), 1.0) * (len(stops) - 1)
    index = min(int(along), max(len(stops) - 2, 0))
    share = round(along - index, DIGITS)
    if share == 1:
        index, share = index + 1, 0.0
    return stops[index], stops[min(index + 1, len(stops) - 1)], share


def _single(request: Request) -> Request:
    """The one picture of a request, its styles and templates expanded."""
    if (count := expansion.count(request)) != 1:
        raise UsageError(f"the prompt {request.prompt!r} is for {count} pictures; a frame is one")
    (picture,) = expansion.expand(request)
    if called := picture.prompt.adapters:
        raise UsageError(
            f"the prompt calls the adapter {called[0].name!r}, which cannot be mixed: give it to all frames "
            f"with adapters, --lora {called[0].name}"
        )
    return picture.request.filled(origin=None)


def _mixed(one: Request, other: Request, share: float) -> Request:
    """`one` with a part of `other`'s prompt: by `.blend()` where both are plain text, else by AND.

    Raises `UsageError` where neither can say it.
    """
    if not share or one.prompt == other.prompt:
        return one
    weights = [f"{weight:.{DIGITS}f}" for weight in (1 - share, share)]
    texts = [_for_compel(each.prompt, one.dialect) for each in (one, other)]
    negative = _for_compel(one.negative, one.dialect)
    blended = '("{}", "{}").blend({}, {})'.format(*texts, *weights)
    if None not in (*texts, negative) and (one.dialect == "compel" or not one.regions) and _blends(blended):
        return one.changed(prompt=blended, negative=negative or "", dialect="compel")
    if one.dialect not in ("sfumato", "a1111"):
        raise UsageError(
            f"prompts with syntax of the dialect {one.dialect} cannot be mixed: write them in the default one"
        )
    parts = [f"{each.prompt} :{weight}" for each, weight in zip((one, other), weights, strict=True)]
    mixed = one.changed(prompt=" AND ".join(parts))
    if len(parse(mixed.prompt, mixed.dialect).terms(1)) != 2:
        raise UsageError(f"prompts that hold AND cannot be mixed: {one.prompt!r}, {other.prompt!r}")
    return mixed


def _for_compel(text: str, dialect: str) -> str | None:
    """How compel says a text of another dialect; `None` if it has syntax or compel has no way to say it."""
    if dialect == "compel":
        return text
    match parse(text, dialect).terms(2):
        case [PromptTerm(contents=(Phrase(parts=(WeightedText(text=plain, weight=1.0),)),))]:
            try:
                return escape(plain, "compel")
            except UsageError:
                return None
    return None


def _blends(prompt: str) -> bool:
    """Whether compel reads a prompt as a blend of two texts."""
    (term,) = parse(prompt, "compel").terms(1)
    return isinstance(blend := term.contents[0], Blend) and len(blend.parts) == 2


def _thumbnail(picture: PIL.Image.Image) -> np.ndarray[Any, Any]:
    return np.asarray(picture.resize((32, 32), PIL.Image.Resampling.BOX), dtype=np.float32)


def _apart(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    return float(np.sqrt(np.mean((one - other) ** 2)))
