"""Adapters and learned embeddings of a pipeline, loaded and selected by diffusers' methods."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from sfumato import weights
from sfumato.adapt import embedding, reading
from sfumato.adapt.embedding import Embedding
from sfumato.adapt.settings import HEADER
from sfumato.compat.sources import hub_options, no_others, number, weight_file
from sfumato.errors import UsageError, nearest, warn
from sfumato.files import make_folder
from sfumato.prompt.meaning import AdapterWeight
from sfumato.studio import Studio
from sfumato.validation import shown

LORA_FILE = "pytorch_lora_weights.safetensors"
EMBEDDING_FILE = "learned_embeds.safetensors"
ENCODERS = ("text_encoder", "text_encoder_2")
_COMPONENTS = ("unet", *ENCODERS)


@dataclass(eq=False)
class AdapterState:
    """The adapters of a model by diffusers' names: those that are loaded, active, or fused into the weights.

    The studio has another name for each adapter, `known`, since a fused one stays when its name is deleted.
    `fused`: which networks hold each of them, "unet" and "text", and with what weight.
    """

    known: dict[str, str] = field(default_factory=dict)
    active: dict[str, AdapterWeight] = field(default_factory=dict)
    fused: dict[tuple[str, str], AdapterWeight] = field(default_factory=dict)
    count: int = 0
    enabled: bool = True

    def own(self, name: str) -> str:
        """The studio's name of an adapter. Raises `UsageError` for one that is not loaded."""
        if name not in self.known:
            hint = nearest(name, self.known) if self.known else "none has been loaded"
            raise UsageError(f"there is no adapter {name!r}; {hint}")
        return self.known[name]


class LoaderMixin(ABC):
    """Diffusers' methods for adapters, which are loaded, active or fused, and for learned embeddings."""

    @property
    @abstractmethod
    def studio(self) -> Studio:
        """The studio that draws."""

    @property
    @abstractmethod
    def adapters(self) -> AdapterState:
        """The adapters of the model."""

    @property
    @abstractmethod
    def components(self) -> dict[str, Any]:
        """Every part by its name."""

    def load_lora_weights(
        self,
        pretrained_model_name_or_path_or_dict: str | Path | Mapping[str, Tensor],
        adapter_name: str | None = None,
        hotswap: bool = False,
        *,
        weight_name: str | None = None,
        subfolder: str | None = None,
        **others: Any,
    ) -> None:
        """Load a LoRA from a file, a folder, the hub or a state dict, and make it the only active adapter.

        `hotswap`: in the place of the one of that name, which stays as active as it was. Raises `UsageError`
        and `CheckpointError`.
        """
        hub = hub_options(others)
        no_others("load_lora_weights", others, ignored=("unet_config", "return_lora_metadata"))
        state, studio, source = self.adapters, self.studio, pretrained_model_name_or_path_or_dict
        name = adapter_name or f"default_{len(state.known)}"
        if hotswap:
            state.own(name)
        elif name in state.known:
            raise UsageError(f"the adapter {name!r} is loaded already; delete it or use another adapter_name")
        own = f"{name}#{state.count}"
        if isinstance(source, Mapping):
            with studio.lock:
                studio.adapters.add(reading.from_tensors(source, studio.adapters.indexes, own))
        else:
            studio.load_adapter(weight_file(source, weight_name, LORA_FILE, subfolder, **hub), own)
        state.count += 1
        state.known[name] = own
        if not hotswap:
            state.active = {name: AdapterWeight(own)}
        elif name in state.active:
            state.active[name] = replace(state.active[name], name=own)
            self._forget()

    @classmethod
    def lora_state_dict(
        cls,
        pretrained_model_name_or_path_or_dict: str | Path | Mapping[str, Tensor],
        *,
        weight_name: str | None = None,
        subfolder: str | None = None,
        **others: Any,
    ) -> tuple[dict[str, Tensor], None]:
        """The tensors of a LoRA as they are in its file, for `load_lora_weights`, and no table of alphas."""
        hub = hub_options(others)
        no_others("lora_state_dict", others, ignored=("unet_config",))
        source = pretrained_model_name_or_path_or_dict
        if isinstance(source, Mapping):
            return dict(source), None
        return weights.read(weight_file(source, weight_name, LORA_FILE, subfolder, **hub)), None

    @classmethod
    def save_lora_weights(
        cls,
        save_directory: str | Path,
        unet_lora_layers: Mapping[str, Any] | None = None,
        text_encoder_lora_layers: Mapping[str, Any] | None = None,
        text_encoder_2_lora_layers: Mapping[str, Any] | None = None,
        is_main_process: bool = True,
        weight_name: str | None = None,
        save_function: None = None,
        safe_serialization: bool = True,
        **others: Any,
    ) -> None:
        """Write the layers of a LoRA, by their paths in each network, as one file.

        `unet_lora_adapter_metadata` and those of the text encoders: PEFT's settings, with rank and alpha.
        Raises `OutputError`, and `UsageError` for no layers.
        """
        if not safe_serialization:
            raise UsageError("safe_serialization = False is not supported: pickles are never written")
        settings = {
            f"{part}.{key}": sorted(value) if isinstance(value, set) else value
            for part in _COMPONENTS
            for key, value in (others.pop(f"{part}_lora_adapter_metadata", None) or {}).items()
        }
        no_others("save_lora_weights", {**others, "save_function": save_function})
        layers = dict(
            zip(
                _COMPONENTS,
                (unet_lora_layers, text_encoder_lora_layers, text_encoder_2_lora_layers),
                strict=True,
            )
        )
        state = {f"{part}.{name}": each for part, own in layers.items() for name, each in (own or {}).items()}
        if not state:
            raise UsageError("save_lora_weights: give unet_lora_layers or text_encoder_lora_layers")
        if is_main_process:
            make_folder(Path(save_directory))
            header = {"format": "pt"} | ({HEADER: json.dumps(settings)} if settings else {})
            path = Path(save_directory) / (weight_name or LORA_FILE)
            weights.write(path, weights.checked(state, "the LoRA"), header)

    def set_adapters(self, adapter_names: str | Sequence[str], adapter_weights: Any = None) -> None:
        """Make these the active adapters, each with a weight or a dictionary of weights."""
        state, names = self.adapters, _names(adapter_names)
        many = isinstance(adapter_weights, list | tuple)
        each = list(adapter_weights) if many else [adapter_weights] * len(names)
        if len(names) != len(each):
            raise UsageError(f"{len(names)} adapters were named, with {len(each)} weights")
        state.active = {name: _weight(state.own(name), w) for name, w in zip(names, each, strict=True)}
        state.enabled = True

    def get_active_adapters(self) -> list[str]:
        return list(self.adapters.active) if self.adapters.enabled else []

    def get_list_adapters(self) -> dict[str, list[str]]:
        """The names of the adapters of each network."""
        found: dict[str, list[str]] = {}
        for name, own in self.adapters.known.items():
            for part in self.studio.adapters[own].parts:
                found.setdefault(part, []).append(name)
        return found

    def delete_adapters(self, adapter_names: str | Sequence[str]) -> None:
        state = self.adapters
        for name in _names(adapter_names):
            state.own(name)
            del state.known[name]
            state.active.pop(name, None)
        self._forget()

    def disable_lora(self) -> None:
        self.adapters.enabled = False

    def enable_lora(self) -> None:
        self.adapters.enabled = True

    def fuse_lora(
        self,
        components: Sequence[str] = _COMPONENTS,
        lora_scale: float = 1.0,
        safe_fusing: bool = False,
        adapter_names: Sequence[str] | None = None,
        **others: Any,
    ) -> None:
        """Keep the active adapters in the weights until `unfuse_lora`, which restores the weights exactly.

        `components`: the networks whose weights are meant; the text encoders go together.
        """
        no_others("fuse_lora", others, ignored=("fuse_unet", "fuse_text_encoder"))
        state, groups = self.adapters, _groups(components)
        for name in list(state.active) if adapter_names is None else _names(adapter_names):
            use = state.active.get(name) or AdapterWeight(state.own(name))
            for group in groups:
                state.fused.setdefault((use.name, group), _scaled(_only(use, group), lora_scale))

    def unfuse_lora(self, components: Sequence[str] = _COMPONENTS, **others: Any) -> None:
        no_others("unfuse_lora", others, ignored=("unfuse_unet", "unfuse_text_encoder"))
        groups, state = _groups(components), self.adapters
        state.fused = {key: use for key, use in state.fused.items() if key[1] not in groups}

    @property
    def fused_loras(self) -> set[str]:
        """The names of the adapters that are fused."""
        fused = {own for own, _ in self.adapters.fused}
        return {name for name, own in self.adapters.known.items() if own in fused}

    @property
    def num_fused_loras(self) -> int:
        return len({own for own, _ in self.adapters.fused})

    def unload_lora_weights(self, reset_to_overwritten_params: bool = False) -> None:
        """Delete all adapters; fused ones stay in the weights."""
        self.adapters.known, self.adapters.active = {}, {}
        self._forget()

    @property
    def motion_name(self) -> str | None:
        """What its motion adapter is called by the studio, if it has one."""
        return None

    def adapt(self, scale: float | None = None) -> None:
        """Have the networks hold the active adapters, times `scale`, and the fused ones."""
        uses = self.adapter_weights(1.0 if scale is None else number("lora_scale", scale))
        self.studio.adapt(uses, motion=self.motion_name)

    def adapter_weights(self, scale: float) -> tuple[AdapterWeight, ...]:
        """The adapters of a call whose `cross_attention_kwargs` have this scale, with their weights."""
        state, fused = self.adapters, self.adapters.fused
        found = list(fused.values())
        for use in state.active.values() if state.enabled else ():
            left = [group for group in ("unet", "text") if (use.name, group) not in fused]
            if left:
                found.append(_scaled(use if len(left) == 2 else _only(use, left[0]), scale))
        return tuple(found)

    def load_textual_inversion(
        self,
        pretrained_model_name_or_path: Any,
        token: str | Sequence[str] | None = None,
        tokenizer: Any = None,
        text_encoder: Any = None,
        *,
        weight_name: str | None = None,
        subfolder: str | None = None,
        **others: Any,
    ) -> None:
        """Load learned embeddings under `token`, or under the token that comes with them.

        One or a list of: a file, a folder, a hub id, a tensor (n, D), a dictionary of a token's tensor, or
        A1111's. A tensor with a list of n tokens gives each of these a row. `text_encoder` or `tokenizer`:
        the one of SDXL's that they are for; without it what has vectors for both is for both, the rest for
        the first. Raises `UsageError` and `CheckpointError`.
        """
        hub = hub_options(others)
        no_others("load_textual_inversion", others)
        index, given = self._encoder_index(tokenizer, text_encoder), pretrained_model_name_or_path
        sources = list(given) if isinstance(given, list | tuple) else [given]
        for each in [token] if token is None or isinstance(token, str) else _names(token):
            if each is not None and not (isinstance(each, str) and each.strip()):
                raise UsageError(f"a token is a word for prompts, not {shown(each)}")
        tokens: list[str | None] = [token] if token is None or isinstance(token, str) else [*token]
        if len(sources) == 1 and isinstance(sources[0], Tensor) and len(tokens) > 1:
            sources = list(sources[0])
        if tokens == [None]:
            tokens = [None] * len(sources)
        if len(tokens) != len(sources):
            raise UsageError(f"{len(sources)} embeddings were given, and {len(tokens)} tokens")
        if len(set(tokens) - {None}) < len(tokens) - tokens.count(None):
            raise UsageError(f"a token was given twice: {', '.join(map(repr, tokens))}")
        for source, name in zip(sources, tokens, strict=True):
            if isinstance(source, Tensor | Mapping):
                found = _of_tensors(source, name)
            else:
                found = embedding.read(weight_file(source, weight_name, EMBEDDING_FILE, subfolder, **hub))
            self._learn(name or found.token or found.name, found.vectors, index)

    def _learn(self, token: str, vectors: Sequence[Tensor | None], index: int | None) -> None:
        """Know `token` by `vectors` for the text encoder `index`, or for those that they are for."""
        encoders = self.studio.model.text_encoders
        known = self.studio.library.embeddings
        rows: list[Tensor | None] = [None] * len(encoders)
        if token in known:
            rows = list(known[token].vectors)
        if index is not None:
            rows[index] = vectors[min(index, len(vectors) - 1)]
        else:
            rows = [*vectors, *rows[len(vectors) :]][: len(encoders)]
        learned = Embedding(token, tuple(rows), token)
        learned.check_fits([encoder.config.hidden_size for encoder in encoders])
        known[token] = learned

    def unload_textual_inversion(
        self, tokens: str | Sequence[str] | None = None, tokenizer: Any = None, text_encoder: Any = None
    ) -> None:
        """Forget these learned embeddings, or all; with a `text_encoder` for that one alone.

        Raises `UsageError` where there is none of them.
        """
        index, known = self._encoder_index(tokenizer, text_encoder), self.studio.library.embeddings
        asked = list(known) if tokens is None else _names(tokens)
        if tokens is not None and not any(token in known for token in asked):
            raise UsageError(f"no token to unload was found: {', '.join(map(repr, asked))}")
        for token in [token for token in asked if token in known]:
            learned = known.pop(token)
            rows = [None if at == index else each for at, each in enumerate(learned.vectors)]
            if index is not None and any(each is not None for each in rows):
                known[token] = replace(learned, vectors=tuple(rows))

    def _encoder_index(self, tokenizer: Any, text_encoder: Any) -> int | None:
        """Which text encoder is meant, by itself or by its tokenizer, from 0; `None` where none is given."""
        for kind, value in (("text_encoder", text_encoder), ("tokenizer", tokenizer)):
            if value is not None:
                own = [name for name, part in self.components.items() if part is value]
                if not own or not own[0].startswith(kind):
                    raise UsageError(f"{kind} must be one of the pipeline's own, such as pipe.{kind}")
                return int(own[0].endswith("_2"))
        return None

    def _forget(self) -> None:
        """Remove from the studio the adapters that are neither named nor fused any more."""
        studio, state = self.studio, self.adapters
        self.adapt()
        wanted = {*state.known.values(), *(own for own, _ in state.fused)}
        for own in set(studio.adapters.names) - wanted:
            studio.adapters.remove(own)


def _of_tensors(source: Tensor | Mapping[str, Any], token: str | None) -> Embedding:
    """An embedding from a tensor or a state dict, A1111's among them. Raises `UsageError`."""
    if isinstance(source, Tensor):
        if token is None:
            raise UsageError("load_textual_inversion: a tensor needs a name in prompts, token=…")
        source = {token: source}
    elif "string_to_param" in source:
        named = source["string_to_param"]
        source = {
            str(source.get("name") or token): named["*"] if "*" in named else next(iter(named.values()))
        }
    return embedding.from_tensors(source, token or "embedding")


def _names(names: str | Sequence[str]) -> list[str]:
    """One name or several as a list. Raises `UsageError` for anything else."""
    if not isinstance(names, Sequence):
        raise UsageError(f"{shown(names)} is no name and no list of names")
    return [names] if isinstance(names, str) else list(names)


def _groups(components: Sequence[str]) -> list[str]:
    """The networks whose weights adapters can be given apart, "unet" and "text". Raises `UsageError`."""
    names = _names(components)
    for name in names:
        if name not in _COMPONENTS:
            raise UsageError(f"components: {name!r} is not supported; {nearest(name, _COMPONENTS)}")
    if not names:
        raise UsageError("components cannot be an empty list")
    return list(dict.fromkeys("unet" if name == "unet" else "text" for name in names))


def _weight(name: str, weight: Any) -> AdapterWeight:
    """An adapter with its weight as diffusers has it: a number, or numbers by network and UNet part."""
    if weight is None:
        return AdapterWeight(name)
    if not isinstance(weight, Mapping):
        return AdapterWeight(name, number("an adapter's weight", weight))
    for part in weight.keys() - {*_COMPONENTS}:
        warn(f"an adapter's weight for {part!r} is left out: only for {', '.join(_COMPONENTS)}")
    given = {part: value for part, value in weight.items() if part in _COMPONENTS and value is not None}
    text, unet = given.get("text_encoder", given.get("text_encoder_2", 1.0)), given.get("unet", 1.0)
    if given.get("text_encoder_2", text) != text:
        raise UsageError("weights that differ between text_encoder and text_encoder_2 are not supported")
    text = number("the weight for text_encoder", text)
    if not isinstance(unet, Mapping):
        return AdapterWeight(name, number("the weight for unet", unet), text)
    return AdapterWeight(name, 1.0, text, _blocks(unet))


def _blocks(weights: Mapping[str, Any]) -> dict[str, float]:
    """Weights by block from diffusers' table of the UNet's: `down`, `mid`, `up`, `block_N`, lists."""
    found: dict[str, float] = {}
    for way, value in weights.items():
        if way not in ("down", "mid", "up"):
            raise UsageError(
                f"an adapter's weight for {way!r} of the unet; {nearest(way, ('down', 'mid', 'up'))}"
            )
        levels = value if isinstance(value, Mapping) else {"": value}
        for level, own in levels.items():
            block = way + str(level).replace("block_", ".")
            if isinstance(own, list | tuple) and way != "mid":
                for step, each in enumerate(own):
                    found[f"{block}.{step}"] = number(f"the weight for {level} of {way}", each)
            else:
                own = own[0] if isinstance(own, list | tuple) and len(own) == 1 else own
                found[block] = number(f"the weight for {level or way}", own)
    return found


def _scaled(use: AdapterWeight, scale: float) -> AdapterWeight:
    if scale == 1:
        return use
    text = use.weight if use.text_weight is None else use.text_weight
    return replace(use, weight=use.weight * scale, text_weight=text * scale)


def _only(use: AdapterWeight, group: str) -> AdapterWeight:
    """An adapter in the UNet alone, or in the text encoders alone."""
    if group == "unet":
        return replace(use, text_weight=0.0)
    return replace(use, weight=0.0, text_weight=use.weight if use.text_weight is None else use.text_weight)
