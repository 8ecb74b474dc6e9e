"""Between adapters and whole models: folding one into a model's files, and telling two models' difference."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import hypot, sqrt
from pathlib import Path

import torch
from torch import Tensor, nn

from sfumato import folders
from sfumato.adapt import header, saving, source
from sfumato.adapt.architecture import fitted, of_model
from sfumato.adapt.blocks import layer_weights
from sfumato.adapt.delta import Delta, merged
from sfumato.adapt.low_rank import RankChoice, truncated
from sfumato.adapt.source import PARTS
from sfumato.adapt.transforming import (
    SUFFIX,
    Progress,
    WrittenAdapter,
    check_no_input,
    checked_target,
)
from sfumato.checkpoint.layout import INDEX
from sfumato.checkpoint.stored import StoredModel
from sfumato.errors import OutputError, UsageError, warn
from sfumato.files import check_file, check_folder
from sfumato.prompt.meaning import AdapterWeight


@dataclass(frozen=True)
class WrittenModel:
    """A model that was written: `layers` counts those that were changed, by the network's place."""

    path: Path
    layout: str
    layers: Mapping[str, int]
    bytes: int


def fold(
    model: str | Path,
    adapters: Sequence[AdapterWeight | str | Path],
    target: str | Path,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> WrittenModel:
    """Write `model` with `adapters` in its weights, W + Σ wᵢ ΔWᵢ, computed in float32 and rounded once.

    `target` is in the layout of `model`, a `.safetensors` file or a diffusers folder; what else is there goes
    along. No more than one tensor at a time is in memory. What is at `target` is replaced only with
    `overwrite`, what is read never. Raises `CheckpointError` for what is no model or adapter or does not fit,
    `UsageError` for weights that are no numbers and for weights of 8 bits, and `OutputError`.
    """
    wanted = [each if isinstance(each, AdapterWeight) else AdapterWeight(str(each)) for each in adapters]
    if not wanted:
        raise UsageError("fold takes one adapter or more")
    paths = [folders.pick("adapters", each.name) for each in wanted]
    with StoredModel(str(model)) as stored:
        place = _model_target(target, stored, paths, overwrite)
        sources = [(source.name_of(path), source.read(path)) for path in paths]
        architecture, read = fitted(sources, str(model))
        del sources
        terms: dict[tuple[str, str], list[tuple[float, Delta]]] = {}
        for each, adapter in zip(wanted, read, strict=True):
            for at, weight in layer_weights(each, adapter.deltas, architecture.indexes).items():
                terms.setdefault(at, []).append((weight, adapter.deltas[at]))
            if adapter.embeddings:
                words = ", ".join(adapter.embeddings)
                warn(f"{adapter.name}: a model has no place for its embedding {words}, which is left out")
        changed: set[tuple[str, str]] = set()

        def change(part: str, parameter: str, tensor: Tensor) -> Tensor:
            layer, _, kind = parameter.rpartition(".")
            own = terms.get((part, layer))
            if not own:
                return tensor
            if tensor.dtype.itemsize < 2:
                raise UsageError(
                    f"{model} holds numbers of 8 bits, which a change would be lost in: make it one of 16 "
                    "first, as `sfumato convert --dtype fp16` does"
                )
            made = _folded(kind, tensor, own)
            if not bool(made.isfinite().all()):
                raise UsageError(f"{parameter} of the {part} becomes too large for {tensor.dtype}")
            changed.add((part, layer))
            if progress:
                progress(len(changed), len(terms))
            return made

        told = [(each.name, each.fingerprint) for each in read]
        stored.write(place, change, header.of_folding(told, wanted), overwrite=overwrite)
    files = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    return WrittenModel(
        path=place,
        layout="single file" if place.is_file() else "diffusers folder",
        layers=dict(Counter(part for part, _ in changed)),
        bytes=sum(path.stat().st_size for path in files),
    )


def _folded(kind: str, tensor: Tensor, own: Sequence[tuple[float, Delta]]) -> Tensor:
    """A weight or a bias with what some adapters add to it."""
    if kind == "weight":
        return merged(tensor, None, own)[0]
    shifts = [weight * shift for weight, delta in own if (shift := delta.shift(tensor.device)) is not None]
    return (tensor.float() + sum(shifts)).to(tensor.dtype) if shifts else tensor


def _model_target(target: str | Path, stored: StoredModel, paths: Sequence[Path], overwrite: bool) -> Path:
    """Where to write a model in the layout of `stored`. Raises `UsageError` and `OutputError`."""
    path = Path(os.path.expanduser(target))
    single = stored.place.is_file()
    if single != (path.suffix.lower() == SUFFIX):
        right = f"a {SUFFIX} file" if single else "a folder"
        raise UsageError(f"{stored.place} is {right}: the target must be one, not {path}; then convert it")
    check_no_input(path, [stored.place, *paths])
    if not single:
        check_folder(path, marker=INDEX, overwrite=overwrite)
        return path
    if path.exists() and not overwrite:
        raise OutputError(f"will not replace {path}: it is there already (overwrite=True replaces it)")
    check_file(path, stored.place.stat().st_size)
    return path


def extract(
    base: str | Path,
    tuned: str | Path,
    target: str | Path,
    *,
    rank: int | None = None,
    conv_rank: int | None = None,
    dynamic: str | None = None,
    value: float = 1.0,
    layout: str = "kohya",
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> WrittenAdapter:
    """Write the LoRA nearest to what the model `tuned` has over `base`, layer by layer.

    Both may be of any layout; no more than one layer at a time is in memory, and the LoRA. `rank`,
    `conv_rank`, `dynamic` and `value`: see `RankChoice`. `dtype`: half precision where both models are, if
    `None`. A LoRA has no place for norms, biases and tables of words, whose changes are left out, which a
    `SfumatoWarning` tells. Raises `UsageError` for models of two shapes and for models without a difference.
    """
    choice = RankChoice(rank, conv_rank, dynamic, value)
    if rank is None and dynamic is None:
        raise UsageError("extract takes a rank, or a way to choose one for each layer")
    saving.check_layout(layout)
    with StoredModel(str(base)) as before, StoredModel(str(tuned)) as after:
        path = checked_target(target, [before.place, after.place], overwrite)
        _check_same_shape(before, after)
        indexes = of_model(str(base)).indexes
        places = [
            (part, layer)
            for part, index in indexes.items()
            for layer, module in index.layers.items()
            if isinstance(module, nn.Linear | nn.Conv2d)
        ]
        deltas: dict[tuple[str, str], Delta] = {}
        norm = lost = 0.0
        half = True
        for done, (part, layer) in enumerate(places, 1):
            difference, is_half = _difference(before, after, part, f"{layer}.weight")
            half = half and is_half
            if bool(difference.any()):
                found = truncated(difference.flatten(1), choice, difference.shape)
                deltas[part, layer] = found.delta(difference.shape, torch.float32)
                norm, lost = hypot(norm, found.norm), hypot(lost, found.lost)
            if progress:
                progress(done, len(places))
        if not deltas:
            raise UsageError(f"{tuned} and {base} have the same weights: there is nothing to extract")
        _warn_of_others(before, after, {f"{part}.{layer}.weight" for part, layer in places})
        told = header.of_extraction(before, after, Path(tuned).stem)
    dtype = dtype or (torch.float16 if half else torch.float32)
    saving.write(path, deltas, indexes, layout=layout, dtype=dtype, metadata=told)
    return WrittenAdapter(
        path=path,
        layout=layout,
        family=before.info.family.name,
        layers=dict(Counter(part for part, _ in deltas)),
        ranks=dict(Counter(delta.rank for delta in deltas.values() if delta.rank)),
        bytes=path.stat().st_size,
        kept=sqrt(max(0.0, 1 - (lost / norm) ** 2)),
    )


def _check_same_shape(before: StoredModel, after: StoredModel) -> None:
    for part in PARTS:
        ours, theirs = (model.parameters.get(part, {}) for model in (before, after))
        if ours == theirs:
            continue
        kinds = [model.info.family.title for model in (before, after)]
        if kinds[0] != kinds[1]:
            raise UsageError(f"{after.place} is {kinds[1]}, and {before.place} is {kinds[0]}")
        wrong = next(name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name))
        raise UsageError(f"{after.place} has another {wrong} in its {part} than {before.place}")


def _difference(before: StoredModel, after: StoredModel, part: str, parameter: str) -> tuple[Tensor, bool]:
    """What a parameter has gained, in float32, and whether both models keep it in half precision.

    The one with more digits is rounded as the other is: what rounding took is no difference.
    """
    old, new = before.read(part, parameter), after.read(part, parameter)
    narrow = min((old.dtype, new.dtype), key=lambda dtype: dtype.itemsize)
    return new.to(narrow).float() - old.to(narrow).float(), max(old.itemsize, new.itemsize) < 4


def _warn_of_others(before: StoredModel, after: StoredModel, compared: set[str]) -> None:
    others = [
        name
        for part in PARTS
        for name in before.parameters.get(part, {})
        if f"{part}.{name}" not in compared and bool(_difference(before, after, part, name)[0].any())
    ]
    if others:
        warn(
            f"{len(others)} norms, biases and tables differ too, such as {others[0]}: a LoRA has no place "
            "for them"
        )
