"""What an adapter's or embedding's file is, told from its header without a model: for `sfumato inspect`."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sfumato import weights
from sfumato.adapt import embedding, unsupported
from sfumato.adapt.delta import MAGNITUDES, kind_of
from sfumato.adapt.keys import NUMBERS, Key, parse_key
from sfumato.adapt.reading import tag_counts, trigger_words
from sfumato.adapt.settings import HEADER, Settings
from sfumato.adapt.source import PARTS, files_of
from sfumato.errors import CheckpointError

_LAYOUTS = (
    (re.compile(r"lycoris_"), "LyCORIS"),
    (re.compile(r"lora_(unet|te\d?)_"), "kohya"),
    (re.compile(r".*\.lora_[AB]\b"), "PEFT"),
    (re.compile(r".*(\.processor\.|\.lora_linear_layer\.|\.lora\.(up|down)\.)"), "diffusers, before PEFT"),
)
_WRITTEN_AS = {"LyCORIS": "kohya", "kohya": "kohya"}
_READS_TEXT = re.compile(r".*attn2[._]to_[kv]")
_LARGE = ("ss_tag_frequency", "ss_bucket_info", "modelspec.thumbnail", HEADER)
"""Metadata that is told in another way, or is nothing to read."""
MOTION_ADAPTER = "a motion adapter of AnimateDiff, used with --motion"
_MOST_TAGS = 30
_MOST_TEXT = 300


@dataclass(frozen=True)
class Description:
    """The facts; `kinds` and `layers` count layers, `ranks` and `alphas` the layers that have each.

    `base`: the family of models, where the layers or the header tell. `tags`: how often each word stood in
    the captions. `metadata`: the header as it is, `ss_*` of kohya's scripts and `modelspec.*` among it.
    """

    path: str
    kinds: Mapping[str, int]
    layout: str
    base: str | None
    layers: Mapping[str, int]
    ranks: Mapping[int, int]
    alphas: Mapping[float, int]
    dtypes: tuple[str, ...]
    bytes: int
    embeddings: Mapping[str, tuple[int, ...]]
    """The shapes of the words in the file: vectors, then the width for each text encoder."""
    triggers: tuple[str, ...]
    tags: Mapping[str, int]
    not_read: tuple[str, ...]
    metadata: Mapping[str, str]
    norms: Mapping[str, float] = field(default_factory=dict)
    """The Frobenius norm of the change in each block, by the names of `sfumato.adapt.blocks`, where asked."""

    def to_dict(self) -> dict[str, Any]:
        """The description as JSON would hold it."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The description as text, a fact a line."""
        kinds = " + ".join(f"{kind} ({count} layers)" for kind, count in self.kinds.items())
        facts = {
            "kind": kinds or "embedding",
            "layout": self.layout,
            "base": self.base or "not told",
            "networks": ", ".join(f"{part} ({count} layers)" for part, count in self.layers.items()),
            "rank": _counted(self.ranks),
            "alpha": _counted(self.alphas),
            "norms": ", ".join(f"{block} {norm:.3g}" for block, norm in self.norms.items()),
            "embeddings": ", ".join(
                f"{name} ({shape[0]} vectors, {' and '.join(map(str, shape[1:]))} wide)"
                for name, shape in self.embeddings.items()
            ),
            "trigger words": ", ".join(self.triggers),
            "tags": ", ".join(f"{tag} ({count})" for tag, count in list(self.tags.items())[:_MOST_TAGS])
            + (f" and {len(self.tags) - _MOST_TAGS} more" if len(self.tags) > _MOST_TAGS else ""),
            "not read": ", ".join(self.not_read[:5])
            + (f" and {len(self.not_read) - 5} more" if len(self.not_read) > 5 else ""),
            **{key: self.metadata[key] for key in sorted(self.metadata) if key not in _LARGE},
        }
        told = [f"{self.path}: {' + '.join(self.dtypes)}, {self.bytes / 1e6:,.1f} MB"]
        for name, fact in facts.items():
            text = " ".join(fact.split())
            if text:
                told.append(f"{name:18} {text[:_MOST_TEXT]}{'…' if len(text) > _MOST_TEXT else ''}")
        return told


def layout_of(keys: Iterable[str]) -> str:
    """Which layout of `sfumato.adapt.saving` comes nearest to that of a file with these keys."""
    return _WRITTEN_AS.get(_layout(keys), "peft")


def _layout(keys: Iterable[str]) -> str:
    keys = list(keys)
    return next((name for sign, name in _LAYOUTS if any(map(sign.match, keys))), "not told")


def describe(path: Path) -> Description | None:
    """What `path`, a file or a folder of PEFT or diffusers, holds; nothing if it is no adapter or embedding.

    Only headers are read, and the numbers called alpha.
    """
    try:
        if (path / "model_index.json").exists():
            return None
        files = files_of(path)
        headers = {part: weights.header(file) for part, file in files.items()}
    except CheckpointError:
        return None
    shapes = {
        (f"{part}." if part else "") + key: info.shape
        for part, header in headers.items()
        for key, info in header.tensors.items()
    }
    dtypes = {info.dtype for header in headers.values() for info in header.tensors.values()}
    size = sum(header.file_bytes for header in headers.values())
    metadata = {key: text for header in headers.values() for key, text in header.metadata.items()}
    keys = {key: parsed for key in shapes if (parsed := parse_key(key))}
    words = {key: word for key in shapes if key not in keys and (word := embedding.bundled(key, path.stem))}
    if not keys:
        return _embedding(path, metadata, tuple(sorted(dtypes)), size)
    if 2 * (len(keys) + len(words)) < len(shapes):
        return None
    stems: dict[str, dict[str, str]] = {}
    for key, parsed in keys.items():
        stems.setdefault(parsed.stem, {})[parsed.tensor] = key
    known = {stem: keys[next(iter(roles.values()))] for stem, roles in stems.items()}
    ranks = {
        stem: shapes[roles[role]][0]
        for stem, roles in stems.items()
        for role in ("down", "hada_w1_b", "lokr_w1_b", "lokr_w2_b")
        if role in roles and shapes[roles[role]]
    }
    found: dict[str, list[tuple[int, ...]]] = {}
    for key, word in sorted(words.items(), key=lambda each: each[1].encoder):
        if not word.problem:
            found.setdefault(word.name, []).append((1, *shapes[key])[-2:])
    return Description(
        path=str(path),
        kinds=_by_count(_kind(roles) for roles in stems.values()),
        layout=_layout(keys),
        base=_base(known, stems, shapes, metadata),
        layers=_by_count(parsed.part or "unet" for parsed in known.values()),
        ranks=_by_count(ranks.values()),
        alphas=_by_count(_alphas(files, known, stems, metadata)),
        dtypes=tuple(sorted(dtypes)),
        bytes=size,
        embeddings={name: (each[0][0], *(shape[1] for shape in each)) for name, each in found.items()},
        triggers=trigger_words(metadata),
        tags=dict(tag_counts(metadata).most_common()),
        not_read=tuple(key for key in shapes if key not in keys and (key not in words or words[key].problem)),
        metadata=metadata,
    )


def _embedding(
    path: Path, metadata: Mapping[str, str], dtypes: tuple[str, ...], size: int
) -> Description | None:
    if path.is_dir() or size > 64 << 20:
        return None
    try:
        word = embedding.read(path)
    except CheckpointError:
        return None
    shapes = [rows.shape for rows in word.vectors if rows is not None]
    base = "Stable Diffusion XL" if len(shapes) > 1 else embedding.family(shapes[0][1])
    shape = (word.count, *(shape[1] for shape in shapes))
    return Description(
        str(path), {}, "textual inversion", base, {}, {}, {}, dtypes, size,
        {word.token or word.name: shape}, (), {}, (), metadata,
    )  # fmt: skip


def _kind(roles: Mapping[str, str]) -> str:
    names = frozenset(roles) - NUMBERS
    try:
        kind = kind_of(names).__name__
    except ValueError:
        return "incomplete"
    kind = "full difference" if kind == "Diff" else kind
    return (
        f"DoRA of {kind}"
        if names & set(MAGNITUDES) and kind != "LoRA"
        else "DoRA"
        if names & set(MAGNITUDES)
        else kind
    )


def _base(
    known: Mapping[str, Key],
    stems: Mapping[str, Mapping[str, str]],
    shapes: Mapping[str, tuple[int, ...]],
    metadata: Mapping[str, str],
) -> str | None:
    if any(parsed.for_motion for parsed in known.values()):
        return MOTION_ADAPTER
    if model := unsupported.named(unsupported.OTHER_MODELS, known):
        return model
    for stem, parsed in known.items():
        role = next((role for role in ("down", "hada_w1_b") if role in stems[stem]), None)
        if role and _READS_TEXT.fullmatch(parsed.layer) and len(shape := shapes[stems[stem][role]]) > 1:
            return unsupported.family(shape[1])
    if any(parsed.part == PARTS[2] for parsed in known.values()):
        return "Stable Diffusion XL"
    return metadata.get("modelspec.architecture") or metadata.get("ss_base_model_version")


def _alphas(
    files: Mapping[str, Path],
    known: Mapping[str, Key],
    stems: Mapping[str, Mapping[str, str]],
    metadata: dict[str, str],
) -> list[float]:
    """alpha of every layer that has one, in the file or in PEFT's settings."""
    values: dict[str, float] = {}
    for part, file in files.items():
        before = f"{part}." if part else ""
        names = {key.removeprefix(before) for stem in stems.values() if (key := stem.get("alpha", ""))}
        read = weights.read(file, names=names)
        values |= {before + key: float(tensor) for key, tensor in read.items() if tensor.numel() == 1}
    settings = {part: Settings.of(file, metadata) for part, file in files.items()}
    found = []
    for stem, parsed in known.items():
        part = parsed.part or "unet"
        own = settings.get(part) or settings.get("")
        alpha = values.get(stems[stem].get("alpha", ""))
        if alpha is None and own:
            alpha = own.alpha(part, parsed.layer)
        if alpha is not None:
            found.append(alpha)
    return found


def _by_count(values: Any) -> dict[Any, int]:
    return dict(Counter(values).most_common())


def _counted(values: Mapping[Any, int]) -> str:
    """One value, or all with the number of layers that have each, the most frequent first."""
    if len(values) == 1:
        return f"{next(iter(values)):g}"
    shown = [f"{value:g} ({count} layers)" for value, count in list(values.items())[:5]]
    return ", ".join(shown) + (f" and {len(values) - 5} more" if len(values) > 5 else "")
