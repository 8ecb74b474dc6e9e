"""How well an adapter draws what it was taught: fidelity, faithfulness, what is kept, diversity.

The metrics are those of DreamBooth (Ruiz et al. 2023, section 4.1), with the features and the scorer of this
package in place of DINO and CLIP: their values can be compared with each other alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sfumato.data.crops import CropPolicy
from sfumato.data.folder import check_is_there
from sfumato.data.search import search
from sfumato.errors import UsageError
from sfumato.evaluate import features
from sfumato.evaluate.cache import FeatureFn, PictureCache, Sample, cached_features
from sfumato.evaluate.candidates import Candidate, SamplingSettings
from sfumato.evaluate.diversity import mean_spread
from sfumato.evaluate.run import draw, drawn, vectors
from sfumato.evaluate.scorer import Scorer
from sfumato.version import __version__

TEMPLATES = (
    "{}",
    "{} on the moon",
    "{} in the snow",
    "{} on a beach",
    "a blue {}",
    "two {}",
    "{}, 3d render",
    "{}, flat icon",
)
"""What it is drawn as; {} is its name."""
UNRELATED = (
    "a red apple",
    "a house in the snow",
    "a sailing boat, flat icon",
    "an owl, 3d render",
    "a yellow flower",
    "a guitar",
    "a mountain, 3d render",
    "a green dragon",
)
"""Prompts that have nothing to do with it."""
_NEXT_SEED = 1_000_000
HEADINGS = ("pictures of", "pictures", "fidelity", "faithfulness", "kept", "diversity")


@dataclass(frozen=True)
class PersonalizationPlan:
    """What is drawn: each template by `name`, and without the adapter by `of_class`, from several seeds."""

    name: str
    of_class: str
    seeds: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise UsageError(f"count is {self.seeds}: must be at least 1, pictures of each prompt")

    def subject(self, called: str) -> list[list[Sample]]:
        """The samples of each template, by what it is called."""
        return self._samples([each.format(called) for each in TEMPLATES])

    @property
    def unrelated(self) -> list[list[Sample]]:
        """The samples of each prompt that has nothing to do with it."""
        return self._samples(UNRELATED)

    def _samples(self, prompts: Sequence[str]) -> list[list[Sample]]:
        numbered = enumerate(prompts, self.seed)
        return [
            [Sample(prompt, first + number * _NEXT_SEED) for number in range(self.seeds)]
            for first, prompt in numbered
        ]

    @property
    def to_draw(self) -> int:
        """How many pictures are drawn, with the adapter and without."""
        return 2 * self.seeds * (len(TEMPLATES) + len(UNRELATED))


@dataclass(frozen=True)
class PersonalizationMetrics:
    """The metrics of a set of pictures; docs/evaluation.md says what each means."""

    name: str
    pictures: int
    fidelity: float | None = None
    faithfulness: float | None = None
    kept: float | None = None
    diversity: float | None = None

    @property
    def cells(self) -> tuple[str, ...]:
        """A line of the table, a text for each of `HEADINGS`."""
        values = (self.fidelity, self.faithfulness, self.kept, self.diversity)
        return self.name, str(self.pictures), *("" if value is None else f"{value:.3f}" for value in values)


@dataclass(frozen=True)
class PersonalizationReport:
    """The metrics of the pictures taught, of the model's own of that class, and of those by the adapter."""

    plan: PersonalizationPlan
    settings: SamplingSettings
    rows: tuple[PersonalizationMetrics, ...]
    shown: tuple[tuple[str, Path], ...]
    """Prompts and pictures that the adapter drew, one for each template."""

    @property
    def name(self) -> str:
        """The model and the adapter."""
        return self.rows[-1].name

    @property
    def title(self) -> str:
        """A line above the table."""
        plan, drawn_by = self.plan, self.settings
        return (
            f"{plan.name!r} in {len(TEMPLATES)} prompts, {drawn_by.size} pixels a side, {drawn_by.label}, "
            f"steps {drawn_by.steps}, guidance {drawn_by.guidance:g}; seed {plan.seed}."
        )

    def tables(self) -> list[tuple[Sequence[str], Sequence[Sequence[str]]]]:
        """Headings and rows."""
        return [(HEADINGS, [row.cells for row in self.rows])]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as values of JSON."""
        rows = [{key: value for key, value in asdict(row).items() if value is not None} for row in self.rows]
        return {
            "sfumato": __version__,
            "torch": torch.__version__,
            "features": features.SHA256,
            "plan": asdict(self.plan),
            "settings": asdict(self.settings),
            "rows": rows,
        }


def cross_similarity(x: Tensor, y: Tensor) -> float:
    """The mean cosine of a row of `x` (N, D) and a row of `y` (M, D), over all pairs."""
    x, y = (F.normalize(each.double(), dim=-1) for each in (x, y))
    return float((x @ y.T).mean())


def self_similarity(x: Tensor) -> float | None:
    """The mean cosine of two different rows of `x` (N, D), or `None` where there is but one."""
    if len(x) < 2:
        return None
    x = F.normalize(x.double(), dim=-1)
    cosines = x @ x.T
    return float((cosines.sum() - cosines.trace()) / (len(x) * (len(x) - 1)))


def agreement(x: Tensor, y: Tensor) -> float:
    """The mean cosine of a row of `x` (N, D) and the same row of `y` (N, D)."""
    return float(F.cosine_similarity(x.double(), y.double(), dim=-1).mean())


def taught_pictures(folder: Path, size: int) -> Tensor:
    """The pictures in `folder`, their middle square (N, 3, `size`, `size`) in [−1, 1]. Raises `DataError`."""
    check_is_there(folder)
    found = search(folder)
    found.warn(captioned=False)
    source = found.chosen(held_out=None, captioned=False)
    crops = [CropPolicy().crop(each, (size, size), Random(0)) for each in source.sizes]
    return source.load(range(len(crops)), crops)


def evaluate(
    without: Candidate,
    adapted: Candidate,
    settings: SamplingSettings,
    real: Tensor,
    plan: PersonalizationPlan,
    cache: Path,
    network: FeatureFn,
    scorer: Scorer | None,
    device: torch.device,
    progress: Callable[[str], None] = lambda _: None,
) -> PersonalizationReport:
    """Draw what `plan` says with both candidates, and measure it beside the pictures taught, `real`
    (N, 3, H, W) in [−1, 1].

    Pictures in the cache are not drawn again. `progress` is called for every picture.
    """
    look = cached_features(cache, f"features-{features.SHA256[:12]}", network, device)
    seen = vectors(look, real.split(1))
    rows = [PersonalizationMetrics("pictures taught", len(real), fidelity=self_similarity(seen))]
    albums, spreads, unrelated = [], [], []
    asked = [text.format(plan.of_class) for text in TEMPLATES for _ in range(plan.seeds)]
    texts = None if scorer is None else scorer.of_texts(asked).cpu()
    for candidate, called in ((without, plan.of_class), (adapted, plan.name)):
        album = PictureCache(cache, {**candidate.identity, **asdict(settings)})
        groups = plan.subject(called)
        samples = [each for group in groups for each in group]
        others = [each for group in plan.unrelated for each in group]
        draw(candidate, settings, [*samples, *others], album, progress)
        found = [vectors(look, drawn(album, group)) for group in groups]
        unrelated.append(vectors(look, drawn(album, others)))
        spreads.append(mean_spread(found))
        faithfulness = None
        if scorer is not None and texts is not None:
            faithfulness = agreement(vectors(scorer.of_pictures, drawn(album, samples)).cpu(), texts)
        rows.append(
            PersonalizationMetrics(
                f"{called}, by {candidate.name}",
                len(samples),
                fidelity=cross_similarity(torch.cat(found), seen),
                faithfulness=faithfulness,
                kept=agreement(unrelated[0], unrelated[-1]),
                diversity=spreads[-1] / spreads[0] if spreads[-1] is not None and spreads[0] else None,
            )
        )
        albums.append(album)
    shown = tuple((group[0].prompt, albums[-1].path(group[0])) for group in plan.subject(plan.name))
    return PersonalizationReport(plan, settings, tuple(rows), shown)
