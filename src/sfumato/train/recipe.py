"""What to train and how, read strictly from TOML: an unknown key is an error that names the nearest."""

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, field, fields
from pathlib import Path
from typing import Any, ClassVar

from pydantic.dataclasses import dataclass

from sfumato.config import Config
from sfumato.data.caption_transform import CAPTION, CaptionTransform
from sfumato.data.crops import CropPolicy
from sfumato.devices import DTYPES
from sfumato.diffusion.distill import SOLVERS
from sfumato.errors import UsageError, nearest
from sfumato.train.denoising import WEIGHTINGS
from sfumato.train.lr_schedule import LR_SCHEDULES
from sfumato.train.progressive import WEIGHTS as HALVING_WEIGHTS

CROPS = ("middle", "anywhere")


@dataclass(frozen=True)
class Recipe(Config):
    """What every objective has in common. Paths are taken from the current folder."""

    ERROR = UsageError
    DERIVED = frozenset({"network"})
    IGNORED = frozenset({"network"})  # read by `defaults`
    FREE: ClassVar[frozenset[str]] = frozenset(
        {
            "base",
            "compile",
            "data",
            "decay",
            "gradient_checkpointing",
            "guidance",
            "keep_every",
            "log_every",
            "result",
            "run",
            "samples",
            "samples_every",
            "steps",
            "teacher",
            "tensorboard",
        }
    )
    """What may change between the slices of a run; anything else makes it another run."""

    objective: str = ""
    data: str = ""
    """The folder that `sfumato data icons` made, or any folder of pictures."""
    base: str = "embedded"
    """The model whose other networks are used, and whose own is trained on."""
    run: str = ""
    """Where the run's state, log and results are kept."""
    start: str = "base"
    """"base": from the weights of the base model; "nothing": from random ones."""
    seed: int = 0
    steps: int = 1000
    batch: int = 64
    """Examples in one step."""
    accumulate: int = 1
    """Parts that a step's batch is taken in, shared by the processes that train together, each of which takes
    its own one after another for less memory; at least one for each process."""
    rate: float = 1e-3
    """The highest learning rate."""
    schedule: str = "warmup-stable-decay"
    warmup: int = 100
    """Steps until the highest rate is reached."""
    decay: int = 0
    """Steps at the end over which a "warmup-stable-decay" falls to nothing."""
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.01
    clip: float = 1.0
    """The largest norm of a step's gradient."""
    ema: tuple[float, ...] = (0.9995,)
    """Decays of the averages of the weights."""
    result: float | None = None
    """The decay of the average that becomes the result, else the first of `ema`."""
    precision: str = "bfloat16"
    """What the network computes in; weights, averages and moments are float32."""
    compile: bool = False
    gradient_checkpointing: bool = False
    """Learn in less memory and more time: compute again on the way back what was computed on the way."""
    keep_every: int = 2000
    """Steps between two checkpoints; there is one at the end of every slice as well."""
    log_every: int = 100
    tensorboard: bool = False
    """Log for TensorBoard as well, into the run's folder."""
    samples_every: int = 0
    """Steps between two sample sheets; 0: only at the end of a slice."""
    samples: tuple[str, ...] = ()
    """Prompts of the sample sheets."""
    network: dict[str, Any] = field(default_factory=dict)
    """Keys of the network's configuration that differ from the base model's; only from "nothing"."""

    @classmethod
    def defaults(cls, mapping: Mapping[str, Any], where: str) -> dict[str, Any]:
        network = mapping.get("network", {})
        if not isinstance(network, dict):
            raise UsageError(f"{where}: network must be a table")
        return {"network": network}

    def check(self) -> None:
        for key in ("data", "run"):
            if not getattr(self, key):
                raise ValueError(f"{key} must name a folder")
        for key in ("steps", "batch", "accumulate", "keep_every", "log_every"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key} = {getattr(self, key)} must be at least 1")
        for key in ("warmup", "decay", "samples_every", "weight_decay", "seed"):
            if getattr(self, key) < 0:
                raise ValueError(f"{key} = {getattr(self, key)} must not be negative")
        for key in ("rate", "clip"):
            if getattr(self, key) <= 0:
                raise ValueError(f"{key} = {getattr(self, key)} must be positive")
        if self.batch % self.accumulate:
            raise ValueError(f"batch = {self.batch} must be a multiple of accumulate = {self.accumulate}")
        if self.decay > self.steps:
            raise ValueError(f"decay = {self.decay} steps are more than all steps = {self.steps}")
        if not self.ema or not all(0 <= decay < 1 for decay in self.ema):
            raise ValueError(f"ema = {list(self.ema)} must be decays in [0, 1)")
        for key in ("beta1", "beta2"):
            if not 0 <= getattr(self, key) < 1:
                raise ValueError(f"{key} = {getattr(self, key)} must be in [0, 1)")
        if self.kept not in self.ema:
            raise ValueError(f"result = {self.result} must be one of ema = {list(self.ema)}")
        for key, known in (
            ("schedule", LR_SCHEDULES),
            ("start", ("base", "nothing")),
            ("precision", DTYPES),
        ):
            if getattr(self, key) not in known:
                raise ValueError(
                    f"{key} {getattr(self, key)!r} is not known; {nearest(getattr(self, key), known)}"
                )
        if self.network and self.start == "base":
            raise ValueError("network may only be changed with start = 'nothing'")

    @property
    def kept(self) -> float:
        """The decay of the average that becomes the result."""
        return self.ema[0] if self.result is None else self.result

    def identity(self) -> dict[str, Any]:
        """All that makes a run what it is."""
        return {key: value for key, value in asdict(self).items() if key not in self.FREE}


@dataclass(frozen=True)
class TextRecipe(Recipe):
    """Texts to what a larger model says of them."""

    teacher: str = ""
    """The folder of a sentence BERT; all-MiniLM-L6-v2, which `sfumato[eval]` brings, if it is empty."""
    length: int = 32
    """Tokens of a text that are read, begin and end included."""
    composed: int = 90_000
    """Texts made of labels, colours and styles."""
    others: int = 1_000_000
    """Words and glosses that are read besides, at most."""

    def check(self) -> None:
        super().check()
        if self.length < 3:
            raise ValueError(f"length = {self.length} leaves no room for text: at least 3")
        if self.composed < 1:
            raise ValueError(f"composed = {self.composed} must be at least 1")
        if self.others < 0:
            raise ValueError(f"others = {self.others} must not be negative")


@dataclass(frozen=True)
class AutoencoderRecipe(Recipe):
    """Pictures to latents and back."""

    kl: float = 2e-5
    """Weight of the divergence from a standard normal distribution."""
    only_decoder: bool = False
    """Leave the latents as they are."""
    size: int = 0
    """Width and height in pixels of what is cut from one's own pictures; 0: the base model's."""

    def check(self) -> None:
        super().check()
        if self.size < 0:
            raise ValueError(f"size = {self.size} must not be negative")


@dataclass(frozen=True)
class TinyRecipe(Recipe):
    """The base model's latents to pictures and back at a fraction of the work."""

    crop: int = 0
    """Side in pixels of a part of each picture to learn from, for large pictures; 0: the whole."""

    def check(self) -> None:
        super().check()
        if self.crop < 0 or self.crop % 8:
            raise ValueError(f"crop = {self.crop} must be a multiple of 8 pixels, or 0 for whole pictures")


@dataclass(frozen=True)
class DenoiserRecipe(Recipe):
    """Latents from noise, told what to draw."""

    WEIGHTINGS: ClassVar[Mapping[str, Any]] = WEIGHTINGS

    weighting: str = "plain"
    """Of the loss over noise levels, a name of `denoising.WEIGHTINGS`."""
    drop_text: float = 0.1
    """How often the text is left empty, so that guidance has an unconditional answer (Ho & Salimans 2021)."""
    caption_template: str | tuple[str, ...] = CAPTION
    """What is said of a picture, `{caption}` being its own caption; of several, one at a time."""
    shuffle_tags: bool = False
    """Whether the parts of a caption between commas change their order."""
    drop_tags: float = 0.0
    """How often each of them is left out."""
    keep_tags: int = 0
    """How many at a caption's beginning stay as they are."""
    cache_texts: bool | None = None
    """Whether all text states are computed once and kept; by itself, if they take less than 1 GiB."""
    size: int = 0
    """Width and height in pixels of square pictures; others have as many pixels. 0: the data's own if it is
    icons, else the base model's."""
    ratio: float = 2.0
    """How many times as long one way as the other pictures may be; 1: all are cropped to squares."""
    bucket_step: int = 0
    """What widths and heights are multiples of, in pixels; 0: an eighth of the size, at most 64."""
    crop: str = "middle"
    """Where pictures are cropped: "middle", or "anywhere", by chance."""
    mirror: bool = False
    """Whether one in two pictures is mirrored."""
    captions: int = 6
    """Captions of each icon."""
    tints: int = 3
    """Colourings of each one-colour icon."""
    guidance: float = 4.0
    """Of the sample sheets."""

    @property
    def wording(self) -> CaptionTransform:
        """How captions become texts."""
        said = self.caption_template
        templates = (said,) if isinstance(said, str) else said
        return CaptionTransform(templates, self.drop_text, self.shuffle_tags, self.drop_tags, self.keep_tags)

    @property
    def framing(self) -> CropPolicy:
        """What of a picture is shown."""
        return CropPolicy(anywhere=self.crop == "anywhere", mirrored=self.mirror)

    def check(self) -> None:
        super().check()
        self.wording.check()
        if self.cache_texts and self.wording.changes_tags:
            raise ValueError("cache_texts is not possible while tags are shuffled or left out")
        if self.weighting not in self.WEIGHTINGS:
            hint = nearest(self.weighting, self.WEIGHTINGS)
            raise ValueError(f"weighting {self.weighting!r} is not known; {hint}")
        if self.crop not in CROPS:
            raise ValueError(f"crop {self.crop!r} is not known; {nearest(self.crop, CROPS)}")
        if not 1 <= self.ratio <= 8:
            raise ValueError(f"ratio = {self.ratio} must be in [1, 8]")
        for key in ("size", "bucket_step"):
            if getattr(self, key) < 0:
                raise ValueError(f"{key} = {getattr(self, key)} must not be negative")
        for key in ("captions", "tints"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key} = {getattr(self, key)} must be at least 1")


@dataclass(frozen=True)
class StudentRecipe(DenoiserRecipe):
    """What the base model does in many steps, in few."""

    drop_text: float = 0.0
    guided: tuple[float, ...] = ()
    """The lowest and the highest guidance scale that the teacher is asked with; empty: without guidance."""
    told: bool = False
    """Whether the student is told the scale, so that a request may choose it; else it learns their mean."""

    def check(self) -> None:
        super().check()
        if self.start != "base":
            raise ValueError(f"start = {self.start!r} must be 'base': a student begins as its teacher")
        if self.guided and (len(self.guided) != 2 or not 1 <= self.guided[0] <= self.guided[1] <= 100):
            raise ValueError(f"guided = {list(self.guided)} must be [lowest, highest], both in [1, 100]")
        if self.told and not self.guided:
            raise ValueError("told = true needs the scales that are told: guided = [lowest, highest]")


@dataclass(frozen=True)
class ConsistencyRecipe(StudentRecipe):
    """The picture at the end of the way from everywhere on it, led by the base model."""

    solver: str = "ddim"
    """How the base model leads, a name of `distill.SOLVERS`."""
    intervals: int = 50
    """Into how many steps it takes the way."""
    slow: float = 0.95
    """The decay of the average that the student is compared with; 0: itself."""
    huber: float = 0.00054
    """c/√d of the distance √(‖x − y‖² + c²) − c over d numbers (Song & Dhariwal 2024, §3.3)."""
    walks: int = 0
    """Whole walks of the base model, over `intervals` steps, that are kept and learned from in place of
    single steps; 0: none."""
    rank: int = 0
    """Of a LoRA that is learned instead of the whole network; 0: the whole network."""
    layers: tuple[str, ...] = (
        *("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"),
        *("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "time_emb_proj"),
    )
    """The ends of the paths of the layers that the LoRA changes."""

    def check(self) -> None:
        super().check()
        if self.solver not in SOLVERS:
            raise ValueError(f"solver {self.solver!r} is not known; {nearest(self.solver, SOLVERS)}")
        if not 1 <= self.intervals <= 1000:
            raise ValueError(f"intervals = {self.intervals} must be 1 to 1000")
        if not 0 <= self.slow < 1:
            raise ValueError(f"slow = {self.slow} must be in [0, 1)")
        if self.huber <= 0:
            raise ValueError(f"huber = {self.huber} must be positive")
        if self.walks < 0:
            raise ValueError(f"walks = {self.walks} must not be negative")
        if self.walks and self.slow:
            raise ValueError(f"walks are compared with their ends: no slow = {self.slow}")
        if self.rank < 0:
            raise ValueError(f"rank = {self.rank} must not be negative")
        if self.rank and not self.layers:
            raise ValueError(f"layers = [] leaves a LoRA (rank = {self.rank}) nothing to change")
        if self.rank and (self.told or self.slow):
            key = "told = true" if self.told else f"slow = {self.slow}"
            raise ValueError(
                f"a LoRA (rank = {self.rank}) is told nothing and compared with itself: no {key}"
            )


@dataclass(frozen=True)
class LatentConsistencyRecipe(ConsistencyRecipe):
    """The same of a guided model, the guidance told or learned as well."""

    guided: tuple[float, ...] = (2.0, 8.0)
    told: bool = True

    def check(self) -> None:
        super().check()
        if not self.guided:
            raise ValueError("guided = [] leaves nothing but objective = 'consistency'")


@dataclass(frozen=True)
class ConsistencyTrainingRecipe(ConsistencyRecipe):
    """The same from pictures alone, in ever shorter steps."""

    slow: float = 0.0
    first_intervals: int = 10
    last_intervals: int = 1280
    """Into how many steps the way is taken at the beginning and at the end."""

    def check(self) -> None:
        super().check()
        if self.guided:
            raise ValueError("guided needs somebody to be guided: objective = 'latent-consistency'")
        if self.walks:
            raise ValueError("walks need somebody to walk: objective = 'consistency'")
        if not 2 <= self.first_intervals <= self.last_intervals:
            span = f"{self.first_intervals} to {self.last_intervals}"
            raise ValueError(f"intervals of {span} must rise, from at least 2")


@dataclass(frozen=True)
class ProgressiveRecipe(StudentRecipe):
    """One step for two of the base model's."""

    WEIGHTINGS: ClassVar[Mapping[str, Any]] = HALVING_WEIGHTS

    halves: int = 0
    """The student's steps, half as many as the base model is taken to need."""
    weighting: str = "truncated-snr"
    """Of an error in x0, a name of `halving.WEIGHTS`."""

    def check(self) -> None:
        super().check()
        if not 1 <= self.halves <= 500:
            raise ValueError(f"halves = {self.halves} must be 1 to 500 steps")


@dataclass(frozen=True)
class ScorerRecipe(Recipe):
    """Pictures to what a larger model says of their captions."""

    start: str = "nothing"
    drop: float = 0.2
    """The share of what is read from a picture that is hidden in each step."""
    pictures: int = 16384
    """How many are learned from at most, drawn by lot."""
    captions: int = 3
    """Captions of each picture."""
    tints: int = 1
    """Colourings of each one-colour drawing."""

    def check(self) -> None:
        super().check()
        if self.start != "nothing":
            raise ValueError(f"start = {self.start!r} must be 'nothing': no model has a scorer to begin with")
        if not 0 <= self.drop < 1:
            raise ValueError(f"drop = {self.drop} must be in [0, 1)")
        for key in ("pictures", "captions", "tints"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key} = {getattr(self, key)} must be at least 1")


RECIPES: dict[str, type[Recipe]] = {
    "text": TextRecipe,
    "autoencoder": AutoencoderRecipe,
    "tiny": TinyRecipe,
    "denoiser": DenoiserRecipe,
    "scorer": ScorerRecipe,
    "latent-consistency": LatentConsistencyRecipe,
    "consistency": ConsistencyRecipe,
    "consistency-training": ConsistencyTrainingRecipe,
    "progressive": ProgressiveRecipe,
}
"""What a recipe of each objective may say."""


def read(path: Path, changes: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe in the TOML file `path`, with `changes` to its keys. Raises `UsageError`."""
    mapping = toml(path)
    objective = mapping.get("objective")
    if objective not in RECIPES:
        hint = nearest(str(objective), RECIPES)
        raise UsageError(f"{path}: objective = {objective!r} is not known; {hint}")
    return RECIPES[objective].from_dict({**mapping, **(changes or {})}, str(path))


def toml(path: Path) -> dict[str, Any]:
    """What the TOML file `path` says. Raises `UsageError`."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the recipe {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from error


def different(before: Mapping[str, Any], recipe: Recipe) -> str | None:
    """The first key in which `recipe` is another run than the one whose `identity` was `before`.

    A key that is not in `before`, which an earlier version wrote, had its default then.
    """
    now = recipe.identity()
    before = {**{key: getattr(type(recipe), key, {}) for key in now}, **before}
    for entry in fields(recipe):
        if entry.name in now and _plain(before[entry.name]) != _plain(now[entry.name]):
            return entry.name
    return None


def _plain(value: Any) -> Any:
    """As it comes back from JSON."""
    return list(value) if isinstance(value, tuple) else value
