"""Reading all of a folder but its weights: what there is, and what is wrong with it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sfumato.checkpoint.infer import Facts, facts
from sfumato.checkpoint.layout import (
    TOKENIZERS,
    Part,
    components,
    read_index,
    read_part,
    read_schedule,
    tokenizer_folder,
)
from sfumato.checkpoint.report import Report
from sfumato.config import ScheduleConfig, TextConfig
from sfumato.errors import CheckpointError
from sfumato.prompt.tokenizer import Tokenizer

T = TypeVar("T")


@dataclass
class Survey:
    """A folder's content short of its weights. A `patient` survey notes problems where another one raises."""

    folder: Path
    report: Report
    patient: bool = False
    index: dict[str, Any] = field(default_factory=dict)
    networks: int = 0
    parts: dict[str, Part] = field(default_factory=dict)
    tokenizers: dict[str, Tokenizer] = field(default_factory=dict)
    scheduler: dict[str, Any] = field(default_factory=dict)
    schedule: ScheduleConfig | None = None

    def attempt(self, step: Callable[..., T], *arguments: Any, **options: Any) -> T | None:
        """Do one step; a `CheckpointError` becomes a noted problem if the survey is patient."""
        try:
            return step(*arguments, **options)
        except CheckpointError as error:
            if not self.patient:
                raise
            self.report.problems.append(str(error))
            return None

    def take(self, *, variant: str | None, prefer_half: bool) -> None:
        """Read every configuration, header and tokenizer that the index names."""
        self.index = read_index(self.folder)
        named = components(self.index)
        encoders = [name for name in TOKENIZERS if name in named] or ["text_encoder"]
        self.networks = 2 + len(encoders)
        for name in ("unet", "vae", *encoders):
            options = {"variant": variant, "prefer_half": prefer_half}
            if part := self.attempt(read_part, self.folder, name, self.index, **options):
                self.parts[name] = part
                self.report.components.append(part.component())
                if part.choice.variant:
                    asked = "asked for" if part.choice.variant == variant else "found"
                    self.report.infer(
                        f"{name} variant", part.choice.variant, f"{part.choice.file} was {asked}"
                    )
        if variant:
            self.attempt(self._require_variant, variant)
        for name in encoders:
            self.attempt(self._take_tokenizer, name)
        if read := self.attempt(read_schedule, self.folder):
            self.scheduler, self.schedule = read

    def conclude(self) -> Facts:
        """Work out what the checkpoint is. Raises `CheckpointError` where something needed was not found."""
        if self.schedule is None or len(self.parts) < self.networks:
            raise CheckpointError(f"{self.folder}: what the model is cannot be told while parts are missing")
        return facts(self.folder, self.parts, self.schedule, self.report)

    def _require_variant(self, variant: str) -> None:
        if all(part.choice.variant != variant for part in self.parts.values()):
            raise CheckpointError(
                f"{self.folder} has no weights of variant {variant!r} (as in model.{variant}.safetensors)"
            )

    def _take_tokenizer(self, encoder: str) -> None:
        name = TOKENIZERS[encoder]
        place = tokenizer_folder(self.folder, name)
        tokenizer = Tokenizer.load(place)
        self.tokenizers[name] = tokenizer
        self.report.tokenizers.append(
            f"{name}: {len(tokenizer.vocab):,} pieces, windows of {tokenizer.limit}, padding {tokenizer.pad}"
        )
        if encoder in self.parts:
            config = self.parts[encoder].config
            assert isinstance(config, TextConfig)
            if max(tokenizer.vocab.values()) >= config.vocab_size:
                raise CheckpointError(
                    f"{place} knows ids up to {max(tokenizer.vocab.values())}, and {encoder} only "
                    f"{config.vocab_size} (vocab_size)"
                )
            if tokenizer.limit > config.max_position_embeddings:
                raise CheckpointError(
                    f"{place} makes windows of {tokenizer.limit} tokens, and {encoder} reads "
                    f"{config.max_position_embeddings} (max_position_embeddings)"
                )
