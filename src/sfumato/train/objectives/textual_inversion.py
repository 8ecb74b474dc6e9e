"""Textual inversion: the vectors of a new word, and nothing else (Gal et al. 2023, eq. 2).

    loss = w(t)·|f(x_t, t, text) − target|²

That is the loss of `sfumato.train.objectives.denoiser`, for texts that name the word. The text
encoders and the denoiser stay as they are.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic.dataclasses
import torch
from torch import Tensor

from sfumato import checkpoint
from sfumato.adapt import header
from sfumato.adapt.saving import save_embedding
from sfumato.checkpoint.source import locate
from sfumato.nets.inference import unpacked
from sfumato.train import sample_grid
from sfumato.train.examples import captioned_batches, embeddings_of
from sfumato.train.objectives.denoiser import Denoising, measured
from sfumato.train.recipe import Count, Recipe
from sfumato.train.task import Task
from sfumato.train.word import NewWord


@pydantic.dataclasses.dataclass(frozen=True)
class TextualInversion(Denoising):
    """Learns a word."""

    NAME, STARTS, TAKES_ADAPTER = "textual-inversion", ("base",), False

    token: str = ""
    """What captions and prompts call it, and the file."""
    vectors: Count = 4
    """How many it has: as many places of a prompt as it takes."""
    initializer: str = "thing"
    """Words whose embeddings it begins with."""
    keep_norm: bool = True
    """Whether the vectors keep the length that they begin with, which the text encoder knows."""

    def check(self) -> None:
        if not re.fullmatch(r"[\w.<>*-]+", self.token):
            raise ValueError("token must name the new word, of letters, digits, '-' and '_'")

    def check_recipe(self, recipe: Recipe) -> None:
        templates = getattr(recipe.data, "templates", ())
        if not any(self.token in template for template in templates):
            raise ValueError(f"data.caption_template must name the token {self.token!r}")

    def result(self, recipe: Recipe) -> Path:
        return Path(recipe.run) / f"{self.token}.safetensors"

    def usage(self, recipe: Recipe) -> list[str]:
        model = ["--model", recipe.base, "--embedding", str(self.result(recipe))]
        return ["sfumato", "generate", f"a picture of {self.token}", *model]

    def task(self, recipe: Recipe, device: torch.device, report: Callable[[str], None]) -> Task[Any]:
        base = checkpoint.load(recipe.base, dtype=torch.float32)
        word = NewWord(self.token, self.vectors, base, self.initializer, self.keep_norm).to(device)
        base, batches = captioned_batches(recipe, base, device, report, word=word)
        net = unpacked(base.unet).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        others = embeddings_of(recipe.data, base)  # type: ignore[arg-type]

        def show(state: dict[str, Tensor], path: Path) -> None:
            if recipe.samples.prompts:
                known = {**others, self.token: word.embedding(state)}
                drawn = sample_grid.draw(
                    base, recipe.samples.prompts, device, recipe.samples.guidance_scale, embeddings=known
                )
                sample_grid.save(drawn, path)

        def finish(state: dict[str, Tensor], folder: Path) -> dict[str, float]:
            told = header.of_training(
                base,
                title=self.token,
                triggers=[self.token],
                recipe=recipe.identity(),
                base_path=locate(recipe.base),
                kind="textual-inversion",
            )
            save_embedding(folder / self.result(recipe).name, word.embedding(state), metadata=told)
            show(state, folder / "samples" / "last.webp")
            return {}

        learned = Task(word, batches, self.loss(net, base, device), show, finish)
        return measured(learned, recipe, batches.held_out, device)
