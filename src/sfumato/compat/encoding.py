"""Text conditions of a call: states of prompts and negative prompts, and SDXL's size conditioning."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sfumato.checkpoint.saving import tokenizer_names
from sfumato.compat.arguments import Text, listed
from sfumato.compat.drawing import CallState, Conditions
from sfumato.compat.sources import number, whole
from sfumato.errors import UsageError
from sfumato.prompt.encode import refiner_ids, size_ids

if TYPE_CHECKING:
    from sfumato.compat.pipeline import DiffusionPipeline

Embeds = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]
"""What a caller has computed: states, negative states, pooled states, negative pooled states."""


def conditions(
    pipe: "DiffusionPipeline", given: Mapping[str, Any], size: tuple[int, int], times: int
) -> tuple[Conditions, int]:
    """What a call's arguments say of texts and sizes, and for how many pictures, `times` of each prompt.

    `size`: (width, height) in pixels. Raises `UsageError`.
    """
    state: CallState = pipe.state
    names = (
        "prompt_embeds",
        "negative_prompt_embeds",
        "pooled_prompt_embeds",
        "negative_pooled_prompt_embeds",
    )
    states, negatives, pooled, negative_pooled = encoded(
        pipe,
        (given.get("prompt"), given.get("prompt_2")),
        (given.get("negative_prompt"), given.get("negative_prompt_2")),
        tuple(given.get(name) for name in names),  # type: ignore[arg-type]
        state.do_classifier_free_guidance,
        times,
        given.get("clip_skip"),
    )
    rows = [(states, pooled, False)]
    if negatives is not None and state.image_guidance_scale is not None:
        rows += [(negatives, negative_pooled, True)] * 2
    elif negatives is not None:
        rows.insert(0, (negatives, negative_pooled, True))
    count = len(states)
    if pooled is None:
        return Conditions(torch.cat([each for each, _, _ in rows])), count
    ids = [_ids(pipe, given, size, count, negative) for _, _, negative in rows]
    return Conditions(
        torch.cat([each for each, _, _ in rows]),
        torch.cat([each for _, each, _ in rows]),
        torch.cat(ids).to(states.device),
    ), count


def encoded(
    pipe: "DiffusionPipeline",
    prompts: Sequence[Text],
    negative_prompts: Sequence[Text],
    given: Embeds,
    guided: bool,
    times: int,
    clip_skip: int | None,
) -> tuple[Any, Any, Any, Any]:
    """States, negative states, pooled and negative pooled states, each row repeated `times` times.

    `prompts`: for each of two text encoders; of a model with one the first counts. `given`: those that the
    caller has computed. Raises `UsageError`.
    """
    model, (states, negatives, pooled, negative_pooled) = pipe.model, given
    encoders = len(model.text_encoders)
    texts = [listed(prompt) for prompt in prompts[:encoders]]
    if (texts[0] is None) == (states is None):
        raise UsageError("give a prompt or prompt_embeds, one of the two")
    if texts[0] is not None:
        states, pooled = _states(pipe, [text or texts[0] for text in texts], clip_skip)
    elif "tokenizer_2" in pipe.PARTS and pooled is None:
        raise UsageError("prompt_embeds need pooled_prompt_embeds")
    assert states is not None
    width = model.unet.config.context[-1]
    if states.ndim != 3 or states.shape[-1] != width:
        raise UsageError(f"prompt_embeds have the shape {tuple(states.shape)}: must be (B, T, {width})")
    if negatives is not None and negatives.shape != states.shape:
        raise UsageError(
            f"negative_prompt_embeds have the shape {tuple(negatives.shape)}: must be "
            f"{tuple(states.shape)}, that of prompt_embeds"
        )
    if not guided:
        negatives = negative_pooled = None
    elif negatives is None and negative_prompts[0] is None and pooled is not None and model.zero_negative:
        negatives, negative_pooled = torch.zeros_like(states), torch.zeros_like(pooled)
    elif negatives is None:
        count, empty = len(texts[0] or states), listed(negative_prompts[0]) or [""]
        negative_texts = [
            _repeated(listed(text) or empty, count, name)
            for text, name in zip(
                negative_prompts[:encoders], ("negative_prompt", "negative_prompt_2"), strict=False
            )
        ]
        negatives, negative_pooled = _states(pipe, negative_texts, None)

    def placed(rows: Tensor | None) -> Any:
        return None if rows is None else rows.to(pipe.device, pipe.dtype).repeat_interleave(times, dim=0)

    return placed(states), placed(negatives), placed(pooled), placed(negative_pooled)


def _repeated(texts: list[str], count: int, name: str) -> list[str]:
    """One text for each of `count` prompts; a single one goes for all. Raises `UsageError`."""
    if len(texts) not in (1, count):
        raise UsageError(f"{len(texts)} texts as {name} were given for {count} prompts")
    return texts * count if len(texts) == 1 else texts


@torch.no_grad()
def _states(
    pipe: "DiffusionPipeline", texts: Sequence[list[str]], clip_skip: int | None
) -> tuple[Tensor, Tensor | None]:
    """Text states (B, T, D) of `texts`, a list for each encoder, and SDXL's pooled states (B, P)."""
    first, last = texts[0], texts[-1]
    if len(first) != len(last):
        raise UsageError(f"{len(last)} texts as prompt_2 were given for {len(first)} prompts")
    tokenizers = tokenizer_names(pipe.model)
    for name in (*(each.replace("tokenizer", "text_encoder") for each in tokenizers), *tokenizers):
        if getattr(pipe, name) is None:
            raise UsageError(f"the pipeline has no {name}: give prompt_embeds and negative_prompt_embeds")
    studio, skip = pipe.studio, 0 if clip_skip is None else whole("clip_skip", clip_skip)
    known = {
        text: pipe.model.encode(text, skip, studio.device, embeddings=studio.library.embeddings)
        for text in dict.fromkeys([*first, *last])
    }
    states = torch.cat([known[text].states for text in last])
    if first != last:
        width = pipe.model.text_encoders[0].config.hidden_size
        own = torch.cat([known[text].states for text in first])
        states = torch.cat([own[..., :width], states[..., width:]], dim=-1)
    pooled = [each for text in last if (each := known[text].pooled) is not None]
    return states, torch.cat(pooled) if pooled else None


def _ids(
    pipe: "DiffusionPipeline", given: Mapping[str, Any], size: tuple[int, int], count: int, negative: bool
) -> Tensor:
    """SDXL's size conditioning (count, 6), or that of its refiner with a score (count, 5).

    Sizes among the arguments are (height, width), as diffusers has them.
    """

    def pair(name: str, other: tuple[int, int]) -> tuple[int, int]:
        found = given.get(name)
        return other if found is None else found

    original, target = (pair(name, (size[1], size[0])) for name in ("original_size", "target_size"))
    crop = pair("crops_coords_top_left", (0, 0))
    refiner, picture = pipe.model.kind == "sdxl-refiner", "negative_aesthetic_score" in given
    both = all(given.get(f"negative_{name}") is not None for name in ("original_size", "target_size"))
    if negative and (picture or both):
        original, target = pair("negative_original_size", original), pair("negative_target_size", target)
        # beside pictures diffusers reads the negative crop with a score alone
        crop = pair("negative_crops_coords_top_left", (0, 0)) if refiner or not picture else crop
    corner, from_size = (crop[1], crop[0]), (original[1], original[0])
    if refiner:
        score = "negative_aesthetic_score" if negative else "aesthetic_score"
        row = refiner_ids(from_size, aesthetic=number(score, given[score]), crop=corner)
    else:
        row = size_ids((target[1], target[0]), original=from_size, crop=corner)
    return row.repeat(count, 1)
