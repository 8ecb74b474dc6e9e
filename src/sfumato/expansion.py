"""From a request to the single pictures it asks for: styles put around the prompt, templates filled in."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from sfumato.element import Element
from sfumato.errors import UsageError
from sfumato.prompt import styles, template
from sfumato.prompt.language import Prompt, parse
from sfumato.prompt.meaning import AdapterWeight
from sfumato.prompt.travel import PromptTravel, parse_travel
from sfumato.request import MAX_COUNT, MAX_SEED, Origin, Region, Request

if TYPE_CHECKING:
    from sfumato.adapt.embedding import Embedding
    from sfumato.adapt.reading import Adapter
    from sfumato.checkpoint.motion import LoadedMotion
    from sfumato.edit.canvas import Canvas

FAST_LORA = "fast, the model's own"
"""What the LoRA of `fast` is called among a studio's adapters."""


class Weights(NamedTuple):
    """What a network must hold for a drawing: `adapters`, and for a clip the `motion` adapter."""

    adapters: tuple[AdapterWeight, ...] = ()
    motion: str | None = None
    """Its name."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """One picture to draw, its texts parsed once: what travels down from the request to the engine.

    `request`: of this picture alone (`count` 1, a seed of its own, nothing left to expand). `embeddings`: the
    learned ones that its texts name. `loaded`: its adapters as they were read. `canvas`: what it draws over.
    `motion`: of a clip, its motion adapter.
    `controls`, `upscalers`: the fingerprints of their networks. `notes`: what the user should know of it.
    `parts`: the passes of a picture that is drawn in several. `layer`: the name of a part that may be kept.
    """

    request: Request
    prompt: Prompt | PromptTravel
    negative: Prompt
    regions: tuple[Prompt, ...] = ()
    embeddings: Mapping[str, "Embedding"] = field(default_factory=dict)
    loaded: Mapping[str, "Adapter"] = field(default_factory=dict)
    canvas: "Canvas | None" = None
    motion: "LoadedMotion | None" = None
    controls: Mapping[str, str] = field(default_factory=dict)
    upscalers: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    parts: "tuple[Prepared, ...]" = ()
    layer: str = ""

    @classmethod
    def of(cls, request: Request) -> "Prepared":
        """`request`, of a single picture, with its texts parsed. Raises `UsageError` for one that cannot
        be.
        """
        dialect = request.dialect
        regions = tuple(parse(region.prompt, dialect) for region in request.regions)
        negative = parse(request.negative, dialect, negative=True)
        return cls(request, prompt_of(request), negative, regions)

    @cached_property
    def adapters(self) -> tuple[AdapterWeight, ...]:
        """The adapters of the request, and those that its prompts call."""
        fast = (AdapterWeight(FAST_LORA),) if self.request.fast else ()
        called = (call for prompt in (self.prompt, *self.regions) for call in prompt.adapters)
        return (*self.request.adapters, *fast, *called)

    @property
    def weights(self) -> "Weights":
        """What the network must hold to draw it."""
        return Weights(self.adapters, self.request.motion)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of its pixels, C with alpha 4."""
        width, height = self.request.size
        if self.canvas is not None and self.canvas.mask is not None:
            height, width = self.canvas.mask.shape
        return height, width, 4 if self.request.has_alpha else 3

    @property
    def texts(self) -> tuple[str, ...]:
        """Every text: the prompt, the negative prompt, the regions' prompts."""
        prompts = self.prompt.parts if isinstance(self.prompt, PromptTravel) else (self.prompt,)
        return tuple(each.text for each in (*prompts, self.negative, *self.regions))


def prompt_of(request: Request, change: Callable[[str], str] = lambda text: text) -> Prompt | PromptTravel:
    """The prompt of a request for one picture or clip, each of its texts with a `change`.

    Raises `UsageError`.
    """
    text, dialect = change(request.prompt), request.dialect
    if not request.travel:
        return parse(text, dialect)
    assert request.frames is not None
    travel = {frame: change(own) for frame, own in request.travel.items()}
    return parse_travel(text, travel, request.frames, loop=request.loop, dialect=dialect)


def pictures(request: Request) -> int:
    """How many pictures `request` asks for.

    Raises `UsageError` for unknown styles, for templates that cannot be filled in, and for texts that cannot
    be read when they are, as far as one way of filling them in tells.
    """
    texts = _styled(request)
    if request.templates != "off":
        texts = template.expand(texts, seed=0)
    for index, text in enumerate(texts):
        parse(text, request.dialect, negative=index == 1)
    return count(request)


def count(request: Request) -> int:
    """The same without a look at how the texts read. Raises `UsageError` for more than can be drawn at
    once.
    """
    ways = template.combinations(_styled(request)) if request.templates == "combinatorial" else 1
    if ways * request.count > MAX_COUNT:
        raise UsageError(
            f"{ways:,} combinations of the templates times {request.count} are too many pictures: "
            f"at most {MAX_COUNT:,} are drawn at once"
        )
    return ways * request.count


def expand(request: Request) -> Iterator[Prepared]:
    """Each picture of a request whose seeds are set, with a seed of its own.

    With a variation it is the last of the variation seeds that counts up, and the seed stays.

    At random every picture makes its choices with its own seed. In combinations all of one go with the same
    seeds, so that only the words make the difference. `{@a|b}` moves on with each picture. Raises
    `UsageError` as `pictures` does.
    """
    assert request.seed is not None
    total = count(request)
    kept, last = request.variation_seed[:-1], request.variation_seed[-1:]
    varies = bool(request.variation_amount)
    name, first = ("variation_seed", last[0]) if varies else ("seed", request.seed)
    if first + request.count - 1 > MAX_SEED:
        raise UsageError(f"{name} is {first}: with {request.count} images the last seed passes {MAX_SEED}")
    texts = _styled(request)
    for index in range(total):
        way, place = divmod(index, request.count)
        seed = request.seed + (0 if varies else place)
        if request.templates == "off":
            words = texts
        elif request.templates == "combinatorial":
            words = template.combination(texts, way, seed=request.seed + index, turn=index)
        else:
            words = template.expand(texts, seed=seed, turn=place)
        single = _single(request, words, seed)
        if varies:
            single = single.filled(variation_seed=(*kept, first + place))
        yield Prepared.of(single)


def _single(request: Request, words: list[str], seed: int) -> Request:
    prompt, negative, *places = words
    single: dict[str, Any] = {"style": (), "templates": "off", "seed": seed, "count": 1}
    parts: tuple[Region | Element, ...] = (*request.regions, *request.elements)
    travel = dict(zip(request.travel, places[len(parts) :], strict=True))
    if words == [
        request.prompt,
        request.negative,
        *(part.prompt for part in parts),
        *request.travel.values(),
    ]:
        return request.filled(**single)
    places = places[: len(parts)]
    filled = [part.model_copy(update={"prompt": text}) for part, text in zip(parts, places, strict=True)]
    count = len(request.regions)
    origin = Origin(prompt=request.prompt, negative=request.negative, style=request.style)
    single |= {"regions": filled[:count], "elements": filled[count:], "travel": travel}
    return request.changed(prompt=prompt, negative=negative, origin=origin, **single)


def _styled(request: Request) -> list[str]:
    """Prompt and negative with the styles around them, the prompts of regions and elements, and those of
    frames.
    """
    prompt, negative = request.prompt, request.negative
    if request.style:
        prompt, negative = styles.apply(request.style, prompt, negative, styles.load_styles())
    places = [*(region.prompt for region in request.regions), *(each.prompt for each in request.elements)]
    return [prompt, negative, *places, *request.travel.values()]
