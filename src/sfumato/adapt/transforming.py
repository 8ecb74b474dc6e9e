"""From adapters' files to another file: in another layout, several as one, or of a smaller rank."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import hypot, sqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sfumato import checkpoint, folders
from sfumato.adapt import header, saving, source
from sfumato.adapt.architecture import Architecture, fitted
from sfumato.adapt.blocks import layer_weights
from sfumato.adapt.delta import MAGNITUDES, SHIFTS, Delta, Diff, LoRA
from sfumato.adapt.description import layout_of
from sfumato.adapt.embedding import Embedding
from sfumato.adapt.keys import LayerIndex
from sfumato.adapt.low_rank import RankChoice, factors, summed, truncated
from sfumato.adapt.reading import Adapter, published_shape
from sfumato.errors import OutputError, UsageError, warn
from sfumato.files import check_file
from sfumato.prompt.meaning import AdapterWeight

SUFFIX = ".safetensors"
Progress = Callable[[int, int], None]
"""Called with how many layers are done, of how many."""
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class WrittenAdapter:
    """An adapter that was written: `ranks` counts the layers that have each.

    `kept` is the share of the changes' Frobenius norm that is left, 1 where nothing was lost.
    """

    path: Path
    layout: str
    family: str
    layers: Mapping[str, int]
    ranks: Mapping[int, int]
    bytes: int
    kept: float = 1.0


def convert(
    adapter: str | Path,
    target: str | Path,
    *,
    layout: str,
    dtype: torch.dtype | None = None,
    model: str | None = None,
    overwrite: bool = False,
) -> WrittenAdapter:
    """Write `adapter`, a path or a name, in another layout: "peft" (diffusers), or "kohya" (A1111, ComfyUI).

    `dtype`: what to round to; as it is if `None`. `model`: the one that it was made for, where that has
    another shape than the published ones of Stable Diffusion 1, 2 and XL. What is at `target` is replaced
    only with `overwrite`, the file that is read never. Raises `CheckpointError` for a file that is no
    adapter, `UsageError` for what the layout has no way to say, and `OutputError` where it cannot be written.
    """
    saving.check_layout(layout)
    job = _Job.begin([AdapterWeight(str(adapter))], target, model, overwrite)
    (only,) = job.adapters
    return job.write(dict(only.deltas), [{}], layout, dtype)


def merge(
    adapters: Sequence[AdapterWeight | str | Path],
    target: str | Path,
    *,
    rank: int | None = None,
    conv_rank: int | None = None,
    layout: str | None = None,
    dtype: torch.dtype | None = None,
    model: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> WrittenAdapter:
    """Write Σ wᵢ ΔWᵢ of several adapters as one.

    The sum of LoRAs is one whose rank is the sum of theirs, exactly; with `rank` it is the nearest of that
    rank (`conv_rank` for 3 × 3 convolutions). LoHa and LoKr become a LoRA, and need a `rank`. `layout`,
    `dtype`: of the first, if `None`. The change of a DoRA depends on the model's weights: it is the one that
    it makes to `model`, and becomes a LoRA as those do. The rest is as in `convert`. Raises `UsageError` for
    adapters of two families, and for DoRA without a `model`.
    """
    choice = RankChoice(rank, conv_rank)
    wanted = [each if isinstance(each, AdapterWeight) else AdapterWeight(str(each)) for each in adapters]
    if len(wanted) < 2:
        raise UsageError(f"merge takes two adapters or more, not {len(wanted)}")
    job = _Job.begin(wanted, target, model, overwrite, layout)
    terms: dict[tuple[str, str], list[tuple[float, Delta]]] = {}
    for each, deltas in zip(wanted, job.take(), strict=True):
        for place, weight in layer_weights(each, deltas, job.architecture.indexes).items():
            terms.setdefault(place, []).append((weight, deltas[place]))
        deltas.clear()
    if model is not None and any(delta.has(*MAGNITUDES) for own in terms.values() for _, delta in own):
        networks = checkpoint.load(model, dtype=torch.float32).networks
        job.layers = {part: LayerIndex(networks[part]).layers for part in job.architecture.indexes}
    if not terms:
        raise UsageError("every weight is 0: nothing would be left")
    facts = [
        {"weight": each.weight, **({} if each.text_weight is None else {"text_weight": each.text_weight})}
        for each in wanted
    ]
    return job.write_combined(terms, choice, facts, layout, dtype, progress)


def resize(
    adapter: str | Path,
    target: str | Path,
    *,
    rank: int | None = None,
    conv_rank: int | None = None,
    dynamic: str | None = None,
    value: float = 1.0,
    layout: str | None = None,
    dtype: torch.dtype | None = None,
    model: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> WrittenAdapter:
    """Write the nearest LoRA of a smaller rank, of any kind of adapter.

    `rank`, `conv_rank`, `dynamic` and `value` choose it: see `RankChoice`. The two factors of a DoRA are made
    smaller, and its magnitudes stay. A rank that is larger than a layer's leaves it as it is. The rest is as
    in `convert`. Raises `UsageError` where neither `rank` nor `dynamic` is given.
    """
    choice = RankChoice(rank, conv_rank, dynamic, value)
    if rank is None and dynamic is None:
        raise UsageError("resize takes a rank, or a way to choose one for each layer")
    job = _Job.begin([AdapterWeight(str(adapter))], target, model, overwrite, layout)
    (deltas,) = job.take()
    old = Counter(delta.rank for delta in deltas.values() if delta.rank)
    facts: dict[str, Any] = {"ranks": {str(each): count for each, count in old.items()}}
    facts |= {name: each for name, each in asdict(choice).items() if each is not None and name != "value"}
    if dynamic is not None:
        facts["value"] = value
    terms = {place: [(1.0, deltas.pop(place))] for place in list(deltas)}
    return job.write_combined(terms, choice, [facts], layout, dtype, progress)


@dataclass(frozen=True)
class Combined:
    """The sum of some changes of one layer, its Frobenius norm, and the norm of what was cut off."""

    delta: Delta
    norm: float = 0.0
    lost: float = 0.0


def combined(
    terms: Sequence[tuple[float, Delta]], shape: Sequence[int], choice: RankChoice, where: str
) -> Combined:
    """Σ wᵢ ΔWᵢ of a layer called `where`, whose weight has this `shape`, of the rank that `choice` says.

    Exact where nothing limits the rank. Raises `UsageError` for what has no such sum.
    """
    limited = choice.rank is not None or choice.dynamic is not None
    shifts = _shifts(terms)
    if len(terms) == 1:
        ((weight, delta),) = terms
        if delta.has(*MAGNITUDES):
            return _dora(weight, delta, shape, choice, limited, where)
        if not limited or (isinstance(delta, Diff) and len(shape) < 2):
            return Combined(type(delta)(dict(delta.parts), weight * delta.scale))
    if any(delta.has(*MAGNITUDES) for _, delta in terms):
        raise UsageError(
            f"{where} is DoRA: what it adds depends on the model's weights; name that model, or fold it in"
        )
    if all(isinstance(delta, LoRA) for _, delta in terms):
        product = summed([factors(delta, weight) for weight, delta in terms if isinstance(delta, LoRA)])
        if not limited and product[0].shape[1] <= min(product[0].shape[0], product[1].shape[1]):
            up, down = product
            made = LoRA(
                {
                    "up": up.reshape(shape[0], -1, *[1] * (len(shape) - 2)),
                    "down": down.reshape(-1, *shape[1:]),
                }
            )
            return Combined(_with(made, shifts))
        found = truncated(product, choice, shape)
    else:
        whole = sum(
            (weight * delta.scale * delta.product(_CPU).reshape(tuple(shape)) for weight, delta in terms),
            torch.zeros(tuple(shape)),
        )
        if len(shape) < 2 or (not limited and any(isinstance(delta, Diff) for _, delta in terms)):
            return Combined(_with(Diff({"diff": whole}), shifts))
        if not limited:
            kind = next(type(delta).__name__ for _, delta in terms if not isinstance(delta, LoRA))
            raise UsageError(f"{where} is {kind}, whose sum with another is a LoRA of high rank: give a rank")
        found = truncated(whole.flatten(1), choice, shape)
    return Combined(_with(found.delta(shape, torch.float32), shifts), found.norm, found.lost)


def _dora(
    weight: float, delta: Delta, shape: Sequence[int], choice: RankChoice, limited: bool, where: str
) -> Combined:
    """A DoRA by itself: its factors of a smaller rank, its magnitudes as they are."""
    if weight != 1:
        raise UsageError(f"{where} is DoRA, which has no weight but 1 without the model's own weights")
    if not limited:
        return Combined(delta)
    if not isinstance(delta, LoRA):
        raise UsageError(f"{where} is DoRA of {type(delta).__name__}, which has no rank to choose")
    found = truncated(factors(delta), choice, shape)
    kept = {role: part for role, part in delta.parts.items() if role in (*MAGNITUDES, *SHIFTS)}
    small = found.delta(shape, torch.float32)
    shift = {"diff_b": delta.scale * kept.pop("up_bias")} if "up_bias" in kept else {}
    return Combined(LoRA({**small.parts, **kept, **shift}), found.norm, found.lost)


def _shifts(terms: Sequence[tuple[float, Delta]]) -> Tensor | None:
    """What is added to the bias, together."""
    found = [weight * shift for weight, delta in terms if (shift := delta.shift(_CPU)) is not None]
    return sum(found[1:], found[0]) if found else None


def _with(delta: Delta, shift: Tensor | None) -> Delta:
    return delta if shift is None else type(delta)({**delta.parts, "diff_b": shift}, delta.scale)


@dataclass
class _Job:
    """What was read, and where the result goes, known to be writable."""

    adapters: list[Adapter]
    architecture: Architecture
    layout: str
    dtype: torch.dtype
    target: Path
    layers: Mapping[str, Mapping[str, nn.Module]] = field(default_factory=dict)
    """Those of the model by the network's place, where what a DoRA changes is to be known."""

    @classmethod
    def begin(
        cls,
        wanted: Sequence[AdapterWeight],
        target: str | Path,
        model: str | None,
        overwrite: bool,
        layout: str | None = None,
    ) -> "_Job":
        """Read the adapters. Raises as `convert` and `merge` do, before any work."""
        if layout is not None:
            saving.check_layout(layout)
        paths = [folders.pick("adapters", each.name) for each in wanted]
        checked = checked_target(target, paths, overwrite)
        sources = [(source.name_of(path), source.read(path)) for path in paths]
        architecture, adapters = fitted(sources, model)
        first = sources[0][1].tensors
        dtypes = Counter(tensor.dtype for tensor in first.values() if tensor.ndim > 1)
        return cls(adapters, architecture, layout_of(first), dtypes.most_common(1)[0][0], checked)

    def take(self) -> list[dict[tuple[str, str], Delta]]:
        """The changes of each, which are kept here no longer."""
        taken = [dict(adapter.deltas) for adapter in self.adapters]
        self.adapters = [replace(adapter, deltas={}) for adapter in self.adapters]
        return taken

    def shape(self, place: tuple[str, str]) -> tuple[int, ...]:
        """The shape of a layer's weight."""
        part, layer = place
        return published_shape(self.architecture.indexes[part].layers[layer])

    def without_magnitudes(self, place: tuple[str, str], delta: Delta) -> Delta:
        """What a DoRA adds to the model's weights, where those are known; any other change as it is."""
        part, layer = place
        if part not in self.layers or not delta.has(*MAGNITUDES):
            return delta
        whole = Diff({"diff": delta.change(self.layers[part][layer].get_parameter("weight"))})
        return _with(whole, delta.shift(_CPU))

    def write_combined(
        self,
        terms: dict[tuple[str, str], list[tuple[float, Delta]]],
        choice: RankChoice,
        facts: Sequence[Mapping[str, Any]],
        layout: str | None,
        dtype: torch.dtype | None,
        progress: Progress | None,
    ) -> WrittenAdapter:
        """Combine the changes of each layer, which are forgotten on the way, and write the file."""
        deltas: dict[tuple[str, str], Delta] = {}
        norm = lost = 0.0
        total = len(terms)
        for done, place in enumerate(list(terms), 1):
            own = [(weight, self.without_magnitudes(place, delta)) for weight, delta in terms.pop(place)]
            found = combined(own, self.shape(place), choice, f"{place[1]} of the {place[0]}")
            rounded = {role: part.data.to(dtype or self.dtype) for role, part in found.delta.parts.items()}
            deltas[place] = type(found.delta)(rounded, found.delta.scale)
            norm, lost = hypot(norm, found.norm), hypot(lost, found.lost)
            if progress:
                progress(done, total)
        kept = sqrt(max(0.0, 1 - (lost / norm) ** 2)) if norm else 1.0
        return self.write(deltas, facts, layout, dtype, kept)

    def write(
        self,
        deltas: Mapping[tuple[str, str], Delta],
        facts: Sequence[Mapping[str, Any]],
        layout: str | None,
        dtype: torch.dtype | None,
        kept: float = 1.0,
    ) -> WrittenAdapter:
        """Write the file, with `facts` of each adapter that went into it."""
        layout = layout or self.layout
        embeddings: dict[str, Embedding] = {}
        for adapter in self.adapters:
            for word, embedding in adapter.embeddings.items():
                if word in embeddings and embeddings[word].fingerprint != embedding.fingerprint:
                    raise UsageError(f"two of the adapters bring an embedding {word!r}, and they differ")
                embeddings[word] = embedding
        if embeddings and layout == "peft":
            warn(
                f"{', '.join(embeddings)}: diffusers' layout has no place for embeddings, which are left out"
            )
            embeddings = {}
        told = header.carried_over(list(zip(self.adapters, facts, strict=True)), self.architecture.family)
        indexes = self.architecture.indexes
        saving.write(
            self.target, deltas, indexes, layout=layout, dtype=dtype, metadata=told, embeddings=embeddings
        )
        return WrittenAdapter(
            path=self.target,
            layout=layout,
            family=self.architecture.family,
            layers=dict(Counter(part for part, _ in deltas)),
            ranks=dict(Counter(delta.rank for delta in deltas.values() if delta.rank)),
            bytes=self.target.stat().st_size,
            kept=kept,
        )


def checked_target(target: str | Path, inputs: Sequence[Path], overwrite: bool) -> Path:
    """Where to write a file, expanded. Raises `UsageError` for another name and for one of the `inputs`.

    Raises `OutputError` for a file that is there, unless `overwrite`, and for a place that takes none.
    """
    path = Path(os.path.expanduser(target))
    if path.suffix.lower() != SUFFIX:
        raise UsageError(f"cannot write {path}: an adapter is named {SUFFIX}")
    check_no_input(path, inputs)
    if path.exists() and not overwrite:
        raise OutputError(f"will not replace {path}: it is there already (overwrite=True replaces it)")
    check_file(path)
    return path


def check_no_input(target: Path, inputs: Sequence[Path]) -> None:
    """Raise `UsageError` if `target` is one of the `inputs`, a folder of theirs, or in one."""
    for each in inputs:
        same = target.exists() and os.path.samefile(target, each)
        if same or (each.is_dir() and target.resolve().is_relative_to(each.resolve())):
            raise UsageError(f"{target} is what is read: it is not replaced; give another name")
