"""Reading adapter files: each key finds its layer and its role, or is reported by name."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sfumato import weights
from sfumato.adapt import source, unsupported
from sfumato.adapt.delta import MAGNITUDES, Delta, kind_of, scale_of
from sfumato.adapt.embedding import MAX_VECTORS, Embedding, bundled
from sfumato.adapt.keys import NUMBERS, Key, LayerIndex, parse_key
from sfumato.adapt.sampling_hints import sampling_hints
from sfumato.adapt.settings import Settings
from sfumato.adapt.source import PARTS, Source
from sfumato.checkpoint.instruct_adapter import TASK
from sfumato.checkpoint.motion import MODULES
from sfumato.errors import CheckpointError, nearest

MAX_TRIGGERS = 10
_UNUSABLE = "cannot be used"
META = torch.device("meta")
"""Where shapes are tried and nothing is computed."""


@dataclass(frozen=True)
class Coverage:
    """How much of a file found its place: `used` of `keys`, in `layers` of `of_layers` layers of each part.

    `problems` are the keys that were left out, with the reason.
    """

    keys: int
    used: int
    layers: Mapping[str, int]
    of_layers: Mapping[str, int]
    problems: tuple[tuple[str, str], ...] = ()

    @property
    def whole(self) -> bool:
        """Whether nothing was left out."""
        return not self.problems

    def lines(self, most: int = 20) -> list[str]:
        """The report as text, at most so many problems by name."""
        told = [f"{self.used} of {self.keys} keys used"]
        told += [f"{part}: {self.layers[part]} of {self.of_layers[part]} layers" for part in self.layers]
        told += [f"left out: {key!r} {reason}" for key, reason in self.problems[:most]]
        if len(self.problems) > most:
            told.append(f"and {len(self.problems) - most} more")
        return told


@dataclass(frozen=True, eq=False)
class Adapter:
    """What a file changes: a `Delta` for each layer, by the network's place and the layer's path there."""

    name: str
    deltas: Mapping[tuple[str, str], Delta]
    report: Coverage
    fingerprint: str
    """16 hexadecimal digits of the SHA-256 of the file, or of the tensors where there is none."""
    triggers: tuple[str, ...] = ()
    """Words that it was trained with, as far as its header tells."""
    path: Path | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    sampling_hints: Mapping[str, Any] = field(default_factory=dict)
    """How to draw with it, where it is for few steps: see `sfumato.adapt.sampling_hints`."""
    embeddings: Mapping[str, Embedding] = field(default_factory=dict)
    """Learned words that came in the same file, which prompts can call while it is in use."""

    def __repr__(self) -> str:
        layers = ", ".join(f"{count} layers of {part}" for part, count in self.report.layers.items())
        return f"<Adapter {self.name!r}: {layers}, {self.fingerprint}>"

    @property
    def parts(self) -> tuple[str, ...]:
        """The places of the networks that it changes."""
        return tuple(part for part in PARTS if any(part == own for own, _ in self.deltas))

    @property
    def for_motion(self) -> bool:
        """Whether it changes a motion adapter."""
        return any(MODULES in path for _, path in self.deltas)


def read(
    path: str | Path,
    indexes: Mapping[str, LayerIndex],
    name: str | None = None,
    *,
    allow_partial: bool = False,
) -> Adapter:
    """Read an adapter for networks with these `indexes`, in any published form; nothing is applied.

    `path` is a file, or a folder of PEFT or diffusers. Raises `CheckpointError` for what is unsafe, damaged,
    something else, or for another family of models; and where keys match nothing, unless `allow_partial`, as
    long as something is left. A layer of which a part cannot be used is left out as a whole: without its
    magnitudes a DoRA would be another change.
    """
    path = Path(path)
    name = name or source.name_of(path)
    adapter = from_source(source.read(path), indexes, name, allow_partial=allow_partial)
    return replace(adapter, path=path)


def from_tensors(
    tensors: Mapping[str, Tensor],
    indexes: Mapping[str, LayerIndex],
    name: str,
    *,
    allow_partial: bool = False,
) -> Adapter:
    """As `read`, of a state dict in memory, whose names are those of any published form."""
    where = Path(f"the state dict of {name!r}")
    checked = weights.checked(tensors, str(where))
    found = Source(where, checked, {}, Settings({}, str(where)), weights.digest(checked))
    return from_source(found, indexes, name, allow_partial=allow_partial)


def from_source(
    found: Source, indexes: Mapping[str, LayerIndex], name: str, *, allow_partial: bool = False
) -> Adapter:
    """As `read`, of what was read from a file or folder already."""
    path, tensors = found.path, found.tensors
    for part in indexes:
        found.settings.check(part)
    if found.metadata.get(TASK) == "instruct":
        raise CheckpointError(f"{path} makes a model that edits by instruction: --model {path}")
    keys = {key: parsed for key in tensors if (parsed := parse_key(key))}
    if not keys:
        raise CheckpointError(f"{path} is not an adapter: it is {unsupported.described(tensors)}")
    others = [key for key, parsed in keys.items() if not parsed.for_motion]
    if model := unsupported.named(unsupported.OTHER_MODELS, others):
        raise CheckpointError(f"{path} was made for {model}, which is not supported")
    if len(others) < len(keys) and not any(index.has_motion for index in indexes.values()):
        raise CheckpointError(
            f"{path} is a motion LoRA, which changes a motion adapter: it is for clips that are drawn with "
            "one (--motion)"
        )

    sorter = _Sorter(name, indexes, found.settings, tensors)
    for key in tensors:
        sorter.sort(key, keys.get(key))
    deltas, embeddings = sorter.deltas(), sorter.embeddings()
    left_out = tuple(sorted(sorter.problems.items(), key=lambda each: (each[1].startswith(_UNUSABLE), each)))
    counted = Counter(part for part, _ in deltas)
    report = Coverage(
        keys=len(tensors),
        used=len(tensors) - len(left_out),
        layers=counted,
        of_layers={part: len(indexes[part].layers) for part in counted},
        problems=left_out,
    )
    if sorter.misfits and (other := sorter.other_family()):
        raise CheckpointError(
            f"{path} was made for {unsupported.family(other[0])}, "
            f"and this model is {unsupported.family(other[1])}"
        )
    if not deltas or (left_out and not allow_partial):
        raise CheckpointError(f"{path}: {_complaint(report, sorter)}")
    return Adapter(
        name=name,
        deltas=deltas,
        report=report,
        fingerprint=found.fingerprint,
        triggers=trigger_words(found.metadata),
        metadata=found.metadata,
        sampling_hints=sampling_hints(path, found.metadata),
        embeddings=embeddings,
    )


@dataclass
class _Sorter:
    """Sorts a file's keys by layer; what has no place or does not fit becomes a problem."""

    name: str
    indexes: Mapping[str, LayerIndex]
    settings: Settings
    tensors: Mapping[str, Tensor]
    problems: dict[str, str] = field(default_factory=dict)
    unmatched: dict[str, Key] = field(default_factory=dict)
    misfits: int = 0
    found: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    """The keys of each layer, by their roles."""
    stems: dict[str, tuple[str, str]] = field(default_factory=dict)
    spoilt: dict[tuple[str, str], str] = field(default_factory=dict)
    """Layers that cannot be what they were meant to be, and why."""
    words: dict[str, dict[int, str]] = field(default_factory=dict)
    """The keys of each embedding, by the text encoder's index."""

    def sort(self, key: str, parsed: Key | None) -> None:
        """Put one key to its layer."""
        if parsed is None:
            self._sort_other(key)
            return
        asked = PARTS if parsed.part is None else (parsed.part,)
        parts = [part for part in asked if part in self.indexes]
        home = next((part for part in parts if self.indexes[part].find(parsed.layer)), None)
        if home is None:
            self.problems[key] = (
                "names no layer of this model" if parts else f"is for a {asked[0]}, which this model lacks"
            )
            self.unmatched[key] = parsed
            return
        layer = self.indexes[home].find(parsed.layer)
        assert layer is not None
        self.stems[parsed.stem] = home, layer
        roles = self.found.setdefault((home, layer), {})
        if parsed.tensor not in roles:
            roles[parsed.tensor] = key
        elif not torch.equal(self.tensors[key], self.tensors[roles[parsed.tensor]]):
            self.problems[key] = f"is for the same as {roles[parsed.tensor]!r}, and differs"
            self.spoilt[home, layer] = f"{key!r} differs from {roles[parsed.tensor]!r}"

    def _sort_other(self, key: str) -> None:
        """Put a key that is no part of a layer's change to its embedding."""
        if word := bundled(key, self.name):
            self.words.setdefault(word.name, {})[word.encoder] = key
            if word.problem:
                self.problems[key] = word.problem
            return
        kind = unsupported.named(unsupported.OTHER_KINDS, [key])
        self.problems[key] = f"is not supported: {kind}" if kind else "is no part of an adapter"

    def embeddings(self) -> dict[str, Embedding]:
        """The words that came with the adapter, for the text encoders that there are."""
        widths = [
            layer.get_parameter("weight").shape[1]
            for part in PARTS[1:]
            if part in self.indexes
            for path, layer in self.indexes[part].layers.items()
            if path.endswith("token_embedding")
        ]
        made = {}
        for word, keys in self.words.items():
            rows = {encoder: self.tensors[key] for encoder, key in keys.items()}
            rows = {encoder: each[None] if each.ndim == 1 else each for encoder, each in rows.items()}
            problem = next((self.problems[key] for key in keys.values() if key in self.problems), "")
            for encoder, each in rows.items():
                if not each.is_floating_point() or each.ndim != 2 or not 0 < len(each) <= MAX_VECTORS:
                    problem = f"holds {each.dtype} numbers of shape {list(each.shape)}, not an embedding"
                elif widths and encoder >= len(widths):
                    problem = "is an embedding for a text_encoder_2, which this model lacks"
                elif widths and each.shape[1] != widths[encoder]:
                    problem = (
                        f"is an embedding {each.shape[1]} wide, where this model's text encoder reads "
                        f"{widths[encoder]}"
                    )
            if len({len(each) for each in rows.values()}) > 1:
                problem = "is an embedding with as many vectors as its other half has not"
            if problem:
                self.problems |= {key: self.problems.get(key, problem) for key in keys.values()}
                continue
            count = len(widths) or max(rows) + 1
            made[word] = Embedding(word, tuple(rows.get(encoder) for encoder in range(count)), word)
        return made

    def deltas(self) -> dict[tuple[str, str], Delta]:
        """The change of each layer, tried for its shape. One with a part that is not read is left out."""
        for key in [key for key in self.problems if key not in self.unmatched]:
            stem = key
            while stem and stem not in self.stems:
                stem = stem.rpartition(".")[0]
            if stem:
                self.spoilt.setdefault(self.stems[stem], f"{key!r} belongs to it and is not read")
        made = {}
        for (part, path), roles in self.found.items():
            try:
                if reason := self.spoilt.get((part, path)):
                    raise ValueError(reason)
                made[part, path] = self._delta(part, path, roles)
            except ValueError as error:
                for key in roles.values():
                    self.problems[key] = f"{_UNUSABLE}: {error}"
        return made

    def _delta(self, part: str, path: str, roles: Mapping[str, str]) -> Delta:
        parts = {role: self.tensors[key] for role, key in roles.items() if role not in NUMBERS}
        for role, tensor in parts.items():
            if not tensor.is_floating_point():
                raise ValueError(f"{role} holds {tensor.dtype}, not floating point numbers")
            if not tensor.numel() or not tensor.ndim:
                raise ValueError(f"{role} has shape {list(tensor.shape)}")
        kind = kind_of(frozenset(parts))
        if self.settings.has_magnitudes(part) and not set(MAGNITUDES) & set(parts):
            raise ValueError(f"{self.settings.where} says use_dora, and the magnitudes of {path} are missing")
        layer = self.indexes[part].layers[path]
        shape = published_shape(layer)
        trial = kind({role: torch.empty_like(tensor, device=META) for role, tensor in parts.items()})
        try:
            # to compute with shapes alone torch loads its compiler, which takes a second
            if not trial.plainly_fits(shape):
                trial.change(torch.empty(shape, device=META))
        except (RuntimeError, ValueError, IndexError) as error:
            self.misfits += 1
            raise ValueError(f"{str(error).splitlines()[0]} (in {path})") from None
        if (shift := trial.shift(META)) is not None and (
            layer._parameters.get("bias") is None or shift.shape != layer.bias.shape
        ):
            raise ValueError(f"{path} has no bias of shape {list(shift.shape)}")
        return kind(parts, self._scale(part, path, roles, trial.rank))

    def _scale(self, part: str, path: str, roles: Mapping[str, str], rank: int | None) -> float:
        """What the product of the parts is multiplied with.

        That is alpha / rank, or `scale` in its place, where a file has it (as AUTOMATIC1111's reader does),
        times the `scalar` that LyCORIS before 1.8 trained along (later versions multiply it in).
        """
        numbers = {role: _number(role, self.tensors[key]) for role, key in roles.items() if role in NUMBERS}
        alpha = numbers.get("alpha")
        if alpha is None:
            alpha = self.settings.alpha(part, path)
            rank = rank if rank is not None or alpha is None else self.settings.rank(part, path)
        scale = scale_of(alpha, rank, self.settings.rank_stabilised(part))
        return numbers.get("scale", scale) * numbers.get("scalar", 1.0)

    def hint(self, key: str) -> str:
        """The name nearest to that of a key which matched nothing, in brackets."""
        if key not in self.unmatched:
            return ""
        parsed = self.unmatched[key]
        known = [
            name
            for part in ((parsed.part,) if parsed.part else PARTS)
            if part in self.indexes
            for name in self.indexes[part].spellings()
            if ("." in name) == ("." in parsed.layer)
        ]
        hint = nearest(parsed.layer[:200], known)
        return f" ({hint})" if hint.startswith("did") else ""

    def other_family(self) -> tuple[int, int] | None:
        """The width of the text that the file's cross-attention reads, and the model's, if they differ."""
        for (part, path), roles in self.found.items():
            if part == "unet" and path.endswith((".attn2.to_k", ".attn2.to_v")) and "down" in roles:
                shape = self.tensors[roles["down"]].shape
                ours = published_shape(self.indexes["unet"].layers[path])[1]
                if len(shape) > 1 and shape[1] != ours:
                    return shape[1], ours
        return None


def published_shape(layer: nn.Module) -> tuple[int, ...]:
    """The shape of a layer's weight, also while the fast layers keep it in another order."""
    if isinstance(layer, nn.Conv2d):
        return (layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size)
    if isinstance(layer, nn.Linear):
        return (layer.out_features, layer.in_features)
    return tuple(layer.get_parameter("weight").shape)


def _number(role: str, tensor: Tensor) -> float:
    if tensor.numel() != 1:
        raise ValueError(f"{role} has shape {list(tensor.shape)}")
    return float(tensor.item())


def _complaint(report: Coverage, sorter: _Sorter, most: int = 3) -> str:
    """What is wrong: the first few keys, each with the nearest layer; and what would help."""
    shown = [f"{key!r} {reason}{sorter.hint(key)}" for key, reason in report.problems[:most]]
    if len(report.problems) > most:
        shown.append(f"and {len(report.problems) - most} more")
    told = f"{len(report.problems)} of {report.keys} keys do not fit this model: {'; '.join(shown)}"
    layers = ", ".join(f"{count} layers of the {part}" for part, count in report.layers.items())
    if not report.layers:
        return f"{told}; nothing of it can be used"
    return f"{told}; {report.used} keys fit ({layers}): allow partial use to go on without the rest"


def trigger_words(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """The trigger phrase that a header gives, else the words that the captions of training had most."""
    if phrase := metadata.get("modelspec.trigger_phrase", "").strip():
        return tuple(word for part in phrase.split(",") if (word := part.strip()))[:MAX_TRIGGERS]
    return tuple(tag for tag, _ in tag_counts(metadata).most_common(MAX_TRIGGERS))


def tag_counts(metadata: Mapping[str, str]) -> Counter[str]:
    """How often each word stood in the captions of training, all folders together, as kohya writes it."""
    counts: Counter[str] = Counter()
    try:
        folders = json.loads(metadata.get("ss_tag_frequency", "{}"))
    except (ValueError, RecursionError):
        return counts
    for tags in folders.values() if isinstance(folders, dict) else ():
        for tag, count in tags.items() if isinstance(tags, dict) else ():
            if type(count) is int and count > 0:
                counts[tag.strip()] += count
    return counts
