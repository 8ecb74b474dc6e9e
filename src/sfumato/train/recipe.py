"""What to train and how: a recipe is composed of sections, each a frozen dataclass with declared bounds.

`objective` says what is minimised and `data` what it learns from; both are classes of the objective's own
file in `sfumato.train.objectives`. The other sections are the same for all. `sfumato.train.recipe_file` reads
TOML.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn

from sfumato.adapt.live import NEW_KINDS, attach_new
from sfumato.config.base import Config, Positive, divides
from sfumato.devices import DTYPES, pick_dtype
from sfumato.errors import UsageError
from sfumato.names import LORA_LAYOUTS
from sfumato.train.lr_schedule import LR_SCHEDULES
from sfumato.train.optimizers import OPTIMIZERS
from sfumato.train.task import Task
from sfumato.validation import one_of

Count = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]

MODEL, LORA = "model", "lora.safetensors"
"""The folder, or the file of a LoRA, in a run's own that holds the result."""
SECTIONS = ("objective", "data", "optimizer", "adapter", "samples", "validation")


@dataclass(frozen=True)
class Section(Config):
    """A table of a recipe. `from_dict` raises `UsageError`."""

    ERROR = UsageError
    ADJUSTABLE: ClassVar[frozenset[str]] = frozenset()
    """Keys that may change while a run goes on; any other makes it another run."""


@dataclass(frozen=True)
class DataSection(Section):
    """The pictures to learn from."""

    ADJUSTABLE = frozenset({"folder"})

    folder: str = ""
    """What `sfumato data icons` made, or any folder of pictures."""

    def check(self) -> None:
        super().check()
        if not self.folder:
            raise ValueError("folder must name a folder of pictures")


@dataclass(frozen=True)
class Objective(Section, ABC):
    """What is minimised. Subclasses add their own keys and build the task."""

    NAME: ClassVar[str] = ""
    DATA: ClassVar[type[DataSection]] = DataSection
    STARTS: ClassVar[tuple[str, ...]] = ("base", "scratch")
    """What the weights may start from, the default first."""
    TAKES_ADAPTER: ClassVar[bool] = False
    """Whether a LoRA can be trained in place of the network's own weights."""
    MASKS_LOSS: ClassVar[bool] = False
    """Whether parts of a picture may count less than others."""
    TRAINS_TEXT: ClassVar[bool] = False
    """Whether the adapter may change the text encoders as well."""
    VALIDATES: ClassVar[bool] = False
    """Whether its loss can be measured on pictures that are held out."""
    FEW_STEPS: ClassVar[bool] = False
    """Whether it distils a model into one that samples in few steps."""

    def check_recipe(self, recipe: "Recipe") -> None:
        """Raise `ValueError` where other sections do not go with this objective."""

    def result(self, recipe: "Recipe") -> Path:
        """Where the result of a run is written."""
        return Path(recipe.run) / (LORA if recipe.adapter else MODEL)

    def usage(self, recipe: "Recipe") -> list[str]:
        """The command that tries the result; empty if other networks are to be trained first."""
        model = (
            [recipe.base, "--lora", str(self.result(recipe))]
            if recipe.adapter
            else [str(self.result(recipe))]
        )
        prompt = next(iter(recipe.samples.prompts), "a red apple")
        return ["sfumato", "generate", prompt, "--model", *model]

    @abstractmethod
    def task(self, recipe: "Recipe", device: torch.device, report: Callable[[str], None]) -> Task[Any]:
        """The task of `recipe` on `device`; `report(message)` is called before what takes long.

        Raises `UsageError`, `DataError` and `CheckpointError`.
        """


@dataclass(frozen=True)
class Optimizer(Section):
    """What takes the steps, and its learning rate."""

    ADJUSTABLE = frozenset({"warmup_steps", "decay_steps"})

    name: Annotated[str, one_of(OPTIMIZERS)] = "adamw"

    learning_rate: Positive = 1e-3
    """The highest learning rate; of "prodigy" what the one that it finds is multiplied with, 1 as a rule."""
    text_learning_rate: Positive | None = None
    """That of text encoders that an adapter changes; the same unless given."""
    lora_plus_ratio: Positive = 1.0
    """How much higher that of LoRA's matrix B is than that of A (LoRA+, Hayou et al. 2024)."""
    lr_schedule: Annotated[str, one_of(LR_SCHEDULES)] = "warmup-stable-decay"
    warmup_steps: NotNegative = 100
    """Steps until the highest learning rate is reached."""
    decay_steps: NotNegative = 0
    """Steps at the end over which "warmup-stable-decay" falls to 0."""
    beta1: Fraction = 0.9
    beta2: Fraction = 0.99
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    max_grad_norm: Positive = 1.0
    """The norm that the gradient of a step is clipped to."""

    def check(self) -> None:
        if self.name == "prodigy" and (self.lora_plus_ratio != 1 or self.text_learning_rate is not None):
            raise ValueError(
                "prodigy finds one learning rate for all: no lora_plus_ratio, no text_learning_rate"
            )


@dataclass(frozen=True)
class AdapterSection(Section):
    """An adapter, such as a LoRA (Hu et al. 2022), that is trained in place of the network's own weights."""

    ADJUSTABLE = frozenset({"trigger_words", "layout"})

    rank: Count = 16
    kind: Annotated[str, one_of(NEW_KINDS)] = "lora"
    """"full" is the change of the weights itself, as LyCORIS calls it."""
    alpha: Positive | None = None
    """What the change is multiplied with, times the rank; the rank itself unless given."""
    rank_pattern: dict[str, Count] = field(default_factory=dict)
    """Other ranks for layers whose paths end in what a key, a regular expression, matches, as in PEFT."""
    alpha_pattern: dict[str, Positive] = field(default_factory=dict)
    dora: bool = False
    """Learn the norm of each output's weights apart from their direction (Liu et al. 2024)."""
    rank_stabilized: bool = False
    """alpha counts over the root of the rank, in place of the rank (Kalajdzievski 2023)."""
    target_modules: Annotated[tuple[str, ...], Field(min_length=1)] = (
        *("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"),
        *("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "time_emb_proj"),
    )
    """The ends of the paths of the denoiser's layers that it changes."""
    text_encoders: bool = False
    """Whether it changes the text encoders as well."""
    text_target_modules: Annotated[tuple[str, ...], Field(min_length=1)] = (
        *("q_proj", "k_proj", "v_proj", "out_proj"),
    )
    """The ends of the paths of their layers that it changes; kohya's scripts train "fc1" and "fc2" too."""
    trigger_words: tuple[str, ...] = ()
    """What a prompt says to have what it was trained on, for the file's header."""
    layout: Annotated[str, one_of(LORA_LAYOUTS)] = "peft"
    """Of the file. Only "kohya" has kinds besides LoRA."""

    def check(self) -> None:
        if self.dora and self.kind != "lora":
            raise ValueError(f"dora goes with kind = 'lora', not with {self.kind!r}")

    def attach(self, net: nn.Module, generator: torch.Generator) -> None:
        """Put a new one beside the layers of the denoiser `net`. Raises `UsageError`."""
        attach_new(
            net,
            self.rank,
            self.alpha,
            self.target_modules,
            kind=self.kind,
            ranks=self.rank_pattern,
            alphas=self.alpha_pattern,
            magnitudes=self.dora,
            rank_stabilised=self.rank_stabilized,
            generator=generator,
        )

    def attach_text(self, encoder: nn.Module, generator: torch.Generator) -> None:
        """Put a new one beside the layers of a text `encoder`. Raises `UsageError`."""
        attach_new(
            encoder,
            self.rank,
            self.alpha,
            self.text_target_modules,
            kind=self.kind,
            magnitudes=self.dora,
            rank_stabilised=self.rank_stabilized,
            generator=generator,
        )

    @property
    def written_layout(self) -> str:
        """The layout of the file: PEFT's has only LoRA."""
        return self.layout if self.kind == "lora" else "kohya"


@dataclass(frozen=True)
class Samples(Section):
    """Grids of samples drawn while training, in `samples/` of the run's folder."""

    ADJUSTABLE = frozenset({"prompts", "every", "guidance_scale"})

    prompts: tuple[str, ...] = ()
    every: NotNegative = 0
    """Steps between two grids; 0: only one at the end."""
    guidance_scale: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    """The base model's own unless given; a student samples with what it has learned."""


@dataclass(frozen=True)
class Validation(Section):
    """The loss of pictures that are not learned from, by which the best step is kept."""

    ADJUSTABLE = frozenset({"patience"})

    every: NotNegative = 0
    """Steps between two measurements; 0: none, and the result is that of the last step."""
    pictures: Count = 1
    """How many are held out for it, evenly chosen by their names."""
    batches: Count = 4
    """How many are measured each time, always with the same noise."""
    patience: NotNegative = 0
    """After so many measurements without a better one the run ends; 0: never."""


@dataclass(frozen=True)
class Recipe(Section):
    """A run. Paths are relative to the current folder."""

    ADJUSTABLE = frozenset(
        {"base", "run", "steps", "result_ema", "compile", "gradient_checkpointing"}
        | {"checkpoint_every", "log_every", "tensorboard"}
    )

    objective: Objective
    data: DataSection
    optimizer: Optimizer = field(default_factory=Optimizer)
    adapter: AdapterSection | None = None
    samples: Samples = field(default_factory=Samples)
    validation: Validation = field(default_factory=Validation)
    base: str = "embedded"
    """The model whose other networks are used, and whose own is trained on."""
    run: str = ""
    """The folder of the run's state, log and results."""
    start: Annotated[str, one_of(("base", "scratch"))] = "base"
    """"base": from the weights of the base model; "scratch": from random ones."""
    seed: NotNegative = 0
    steps: Count = 1000
    batch_size: Count = 64
    """Examples in one step, over all processes."""
    gradient_accumulation: Count = 1
    """Parts that a step's batch is taken in, for less memory; shared evenly by the processes."""
    ema_decays: Annotated[tuple[Fraction, ...], Field(min_length=1)] = (0.9995,)
    """Decays of the exponential moving averages of the weights."""
    result_ema: float | None = None
    """The decay of the average that becomes the result; the first of `ema_decays` unless given."""
    precision: Annotated[str, one_of(DTYPES)] | None = None
    """What the network computes in; the fastest that is safe on its device unless given.

    Weights, averages and the optimizer's moments are float32.
    """
    compile: bool = False
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    checkpoint_every: Count = 2000
    """Steps between two checkpoints; there is one at the end of every slice as well."""
    log_every: Count = 100
    tensorboard: bool = False
    """Log for TensorBoard as well, in the run's folder."""
    network: dict[str, Any] = field(default_factory=dict)
    """Keys of the network's configuration that differ from the base model's; only from scratch."""

    def dtype(self, device: torch.device) -> torch.dtype:
        """What the network computes in on `device`."""
        return pick_dtype(device, self.precision)

    def check(self) -> None:
        if not self.run:
            raise ValueError("run must name a folder")
        divides("gradient_accumulation", self.gradient_accumulation, "batch_size", self.batch_size)
        if self.optimizer.decay_steps > self.steps:
            raise ValueError(
                f"optimizer.decay_steps is {self.optimizer.decay_steps}: must be at most steps = {self.steps}"
            )
        if self.result_decay not in self.ema_decays:
            raise ValueError(
                f"result_ema is {self.result_ema}: must be one of ema_decays = {list(self.ema_decays)}"
            )
        if self.start not in self.objective.STARTS:
            right = " or ".join(repr(start) for start in self.objective.STARTS)
            raise ValueError(
                f"start is {self.start!r}: must be {right} for the objective {self.objective.NAME!r}"
            )
        if self.network and self.start == "base":
            raise ValueError("network may only be changed with start = 'scratch'")
        if self.adapter and not self.objective.TAKES_ADAPTER:
            raise ValueError(f"the objective {self.objective.NAME!r} takes no adapter: leave [adapter] out")
        if self.adapter and self.adapter.text_encoders:
            if not self.objective.TRAINS_TEXT:
                raise ValueError(f"the objective {self.objective.NAME!r} trains no text encoders")
            if getattr(self.data, "cache_text_embeddings", None):
                raise ValueError("cache_text_embeddings is not possible while text encoders are trained")
        if self.validation.every and not self.objective.VALIDATES:
            raise ValueError(f"the objective {self.objective.NAME!r} has no [validation]: leave it out")
        if self.optimizer.lora_plus_ratio != 1 and (self.adapter is None or self.adapter.kind != "lora"):
            raise ValueError("optimizer.lora_plus_ratio is of a LoRA: [adapter] with kind = 'lora'")
        if self.optimizer.text_learning_rate and not (self.adapter and self.adapter.text_encoders):
            raise ValueError("optimizer.text_learning_rate needs [adapter] text_encoders = true")
        if self.adapter and self.start != "base":
            raise ValueError("an adapter needs the weights that it adapts: start = 'base'")
        if getattr(self.data, "loss_mask", "none") != "none" and not self.objective.MASKS_LOSS:
            raise ValueError(f"the objective {self.objective.NAME!r} reads no data.loss_mask: leave it out")
        if not isinstance(self.data, self.objective.DATA):
            raise ValueError(f"data must be {self.objective.DATA.__name__} for this objective")
        self.objective.check_recipe(self)

    @property
    def result_decay(self) -> float:
        """The decay of the average that becomes the result."""
        return self.ema_decays[0] if self.result_ema is None else self.result_ema

    def identity(self) -> dict[str, Any]:
        """All that makes a run what it is, by dotted key."""
        return {key: value for key, value, _ in self._identifying()}

    def changed_since(self, before: Mapping[str, Any]) -> str | None:
        """The first key in which this is another run than the one whose `identity` was `before`.

        A key that is not in `before`, which an earlier version wrote, had its default then.
        """
        now = {key: (value, default) for key, value, default in self._identifying()}
        # of an earlier version, which could not change it
        adjustable = {f"optimizer.{name}" for name in self.optimizer.ADJUSTABLE}
        for key in (*now, *(key for key in before if key not in adjustable)):
            value, default = now.get(key, (None, None))
            if _plain(before.get(key, default)) != _plain(value):
                return key
        return None

    def _identifying(self) -> Iterator[tuple[str, Any, Any]]:
        """Key, value and default of all that is not adjustable: of none of [adapter], the rank is `None`."""
        special: dict[str, Any] = {"network": {}, "rank_pattern": {}, "alpha_pattern": {}, "rank": None}
        yield "objective.name", self.objective.NAME, ""
        for prefix in ("", *SECTIONS):
            section = getattr(self, prefix) if prefix else self
            for each in fields(section) if section else ():
                if each.name not in {*section.ADJUSTABLE, *SECTIONS}:
                    default = special.get(each.name, each.default)
                    yield f"{prefix}.{each.name}".lstrip("."), getattr(section, each.name), default


def _plain(value: Any) -> Any:
    """As it comes back from JSON."""
    return list(value) if isinstance(value, tuple) else value
