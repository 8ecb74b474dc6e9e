"""From a request to the single pictures it asks for: styles put around the prompt, templates filled in."""

from collections.abc import Iterator

from sfumato.errors import UsageError
from sfumato.prompt import styles, template
from sfumato.prompt.language import parse
from sfumato.request import MAX_COUNT, MAX_SEED, Origin, Request


def pictures(request: Request) -> int:
    """How many pictures `request` asks for.

    Raises `UsageError` for unknown styles, for templates that cannot be filled in, and for texts that cannot
    be read when they are, as far as one way of filling them in tells.
    """
    texts = _styled(request)
    ways = template.combinations(texts) if request.templates == "combinatorial" else 1
    if request.templates != "off":
        texts = template.expand(texts, seed=0)
    for index, text in enumerate(texts):
        parse(text, request.dialect, negative=index == 1)
    if ways * request.count > MAX_COUNT:
        raise UsageError(
            f"{ways:,} combinations of the templates times {request.count} are too many pictures: "
            f"at most {MAX_COUNT:,} are drawn at once"
        )
    return ways * request.count


def singles(request: Request) -> Iterator[Request]:
    """One request for each picture: a seed of its own, `count` 1, nothing left to expand.

    At random every picture makes its choices with its own seed. In combinations all of one go with the same
    seeds, so that only the words make the difference. `request.seed` must be set.
    """
    assert request.seed is not None
    total = pictures(request)
    if request.seed + request.count - 1 > MAX_SEED:
        raise UsageError(
            f"seed is {request.seed}: with {request.count} images the last seed passes {MAX_SEED}"
        )
    texts = _styled(request)
    for index in range(total):
        way, place = divmod(index, request.count)
        seed = request.seed + place
        if request.templates == "off":
            words = texts
        elif request.templates == "combinatorial":
            words = template.combination(texts, way)
        else:
            words = template.expand(texts, seed=seed)
        yield _single(request, words, seed)


def _single(request: Request, words: list[str], seed: int) -> Request:
    prompt, negative, *places = words
    typed = [request.prompt, request.negative, *(region.prompt for region in request.regions)]
    origin = request.origin
    if words != typed:
        origin = Origin(prompt=request.prompt, negative=request.negative, style=request.style)
    regions = [
        region.model_copy(update={"prompt": text})
        for region, text in zip(request.regions, places, strict=True)
    ]
    return request.changed(
        prompt=prompt,
        negative=negative,
        regions=regions,
        style=(),
        templates="off",
        origin=origin,
        seed=seed,
        count=1,
    )


def _styled(request: Request) -> list[str]:
    """Prompt and negative with the styles around them, and the regions' prompts."""
    prompt, negative = request.prompt, request.negative
    if request.style:
        prompt, negative = styles.apply(request.style, prompt, negative, styles.load_styles())
    return [prompt, negative, *(region.prompt for region in request.regions)]
