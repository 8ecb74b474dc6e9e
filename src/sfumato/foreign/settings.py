"""Settings of another program, by whatever names it has for them, as fields of a request."""

import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sfumato.errors import UsageError
from sfumato.expansion import Prepared
from sfumato.files import is_crowded
from sfumato.names import spacing_name, split_label
from sfumato.request import MAX_SEED, Request

_MEANINGS: dict[str, str] = {
    name: meaning
    for meaning, names in {
        "prompt": "prompt positiveprompt",
        "negative": "negativeprompt negative uc",
        "steps": "steps numinferencesteps numberofinferencesteps",
        "guidance": "cfgscale cfg guidancescale scale",
        "token_merging": "tokenmergingratio",
        "guidance_rescale": "cfgrescale cfgrescalemultiplier cfgrescalephi guidancerescale",
        "seed": "seed noiseseed",
        "variation_seed": "variationseed subseed",
        "variation_amount": "variationseedstrength variationstrength subseedstrength",
        "variations": "variations",
        "width": "width",
        "height": "height",
        "size": "size resolution",
        "sampler": "sampler samplername",
        "spacing": "scheduler schedulername scheduletype noiseschedule",
        "clip_skip": "clipskip",
        "model": "model modelname modelid basemodel basemodelname checkpoint ckpt sdmodelcheckpoint "
        "usestablediffusionmodel stablediffusionmodel",
        "vae": "vae usevaemodel",
        "loras": "loras lora",
    }.items()
    for name in names.split()
}
"""What a key means, spelled in small letters and digits only."""
_JOINT = (
    ("variation_seed", "variation_amount"),
    ("upscale", "upscaler", "upscale_strength", "upscale_steps"),
)
"""Fields of which none is taken without the others."""
_SIZE = re.compile(r"(\d+)\D+(\d+)")
_NOTHING: tuple[Any, ...] = (None, "", False, 0, "None", "(None)", "0", [], {})
_OTHER_SOLVERS = {"dpmpp 2m sde heun": "dpmpp-2m-sde", "heunpp2": "heun", "dpm fast": "dpm-solver-3s"}
"""Samplers that are not here, and the nearest that are."""


@dataclass(frozen=True)
class ForeignRecord:
    """How another program drew a picture, as far as it can be drawn so here.

    `request` has what could be taken over, with its templates off; `model` is what the record calls the
    model, which is not looked for. `left_out`: a line for everything that was not taken over.
    """

    program: str
    request: Request
    model: str | None = None
    left_out: tuple[str, ...] = ()
    embeddings: tuple[str, ...] = ()
    """The learned embeddings that its prompts name, as far as the record says."""


@dataclass
class Translation:
    """A `ForeignRecord` on the way: settings are taken one by one, and what does not fit is noted."""

    program: str
    dialect: str = "a1111"
    fields: dict[str, Any] = field(default_factory=dict)
    model: str | None = None
    adapters: list[dict[str, Any]] = field(default_factory=list)
    embeddings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def take_all(
        self, settings: Mapping[str, Any], own: Mapping[str, str] | None = None, idle: str = ""
    ) -> None:
        """Take every setting by its key's meaning: `own` ones of the program first; "" is no setting.

        `idle`: keys that do not change the picture, between spaces. Others without a meaning are noted, those
        that begin with the same word on one line.
        """
        meanings = {**_MEANINGS, **dict.fromkeys(map(_plain, idle.split()), "")}
        meanings |= {_plain(key): meaning for key, meaning in (own or {}).items()}
        unknown: dict[str, list[str]] = {}
        for key, value in settings.items():
            meaning = meanings.get(_plain(key))
            if meaning:
                self.take(meaning, value)
            elif meaning is None and value not in _NOTHING and not _is_whole(key, value):
                unknown.setdefault(re.split(r"[ _]", key)[0], []).append(f"{key}: {value}")
        self.notes += [", ".join(each) for each in unknown.values()]

    def take(self, meaning: str, value: Any) -> None:
        """One setting; what is no value for it is noted."""
        if value is None or value == "":
            return
        if meaning in ("prompt", "negative"):
            self.fields[meaning] = _words(value)
        elif meaning == "seed":
            self._seed("seed", value)
        elif meaning == "variation_seed":
            self._seed("variation_seed", value)
        elif meaning == "variations":
            self._variations(value)
        elif meaning == "size":
            if size := _SIZE.search(str(value)):
                self.fields |= {"width": int(size[1]), "height": int(size[2])}
        elif meaning == "sampler":
            self._sampler(str(value))
        elif meaning == "spacing":
            self._spacing(str(value))
        elif meaning == "model":
            self._model(value)
        elif meaning == "vae":
            if str(value) not in ("None", "Automatic", "Default (model)", "Default"):
                self.notes.append(f"VAE {_named(value)}")
        elif meaning == "loras":
            self._loras(value)
        elif meaning == "clip_skip":
            self.fields["clip_skip"] = max(int(number(value) or 0) - 1, 0)
        elif (found := number(value)) is not None:
            whole = meaning in ("steps", "width", "height")
            self.fields[meaning] = round(found) if whole else found
        else:
            self.notes.append(f"{meaning} {value}")

    def adapter(self, name: Any, weight: Any = 1.0, text_weight: Any = None) -> None:
        """A LoRA, by its file's name."""
        found = {"name": _file(_named(name)), "weight": number(weight, 1.0)}
        text = number(text_weight)
        if text is not None and text != found["weight"]:
            found["text_weight"] = text
        if found["name"] not in ("", "None"):
            self.adapters.append(found)

    def adapters_of(self, names: Any, weights: Any) -> None:
        """LoRAs whose names and weights are lists of their own."""
        names, weights = listed(names), weights if isinstance(weights, int | float) else listed(weights)
        for index, name in enumerate(names):
            each = weights if not isinstance(weights, list) else dict(enumerate(weights)).get(index, 1.0)
            self.adapter(name, each)

    def record(self) -> ForeignRecord:
        """What was taken, as a record."""
        request = Request.build(prompt="", templates="off", dialect=self.dialect)
        if not self.fields.get("prompt"):
            self.notes.append("the prompt: none was found")
        fields: dict[str, Any] = {**self.fields, "adapters": self.adapters}
        variation, second = ({name: fields.pop(name) for name in names if name in fields} for names in _JOINT)
        if not variation.get("variation_amount"):
            variation = {}
        for given in (*({name: value} for name, value in fields.items()), variation, second):
            try:
                request = request.changed(**given)
            except UsageError as error:
                self.notes.append(str(error))
        try:
            Prepared.of(request)
        except UsageError as error:
            self.notes.append(f"the prompt's syntax: {error}")
            request = request.filled(dialect="plain")
        texts = f"{request.prompt} {request.negative}"
        named = [*self.embeddings, *re.findall(r"embedding:([\w./\\-]*\w)", texts)]
        notes = dict.fromkeys(shortened(note) for note in self.notes)
        return ForeignRecord(
            self.program, request, self.model, tuple(notes), tuple(dict.fromkeys(map(_file, named)))
        )

    def _seed(self, name: str, value: Any) -> None:
        with suppress(ValueError):
            seed = int(str(value))
            if seed > MAX_SEED:
                self.notes.append(f"{name} {seed}, which is above {MAX_SEED}: drawn with {seed & MAX_SEED}")
            if seed >= 0:
                self.fields[name] = seed & MAX_SEED

    def _variations(self, value: Any) -> None:
        """InvokeAI's seeds with weights, mixed in one after another: lists, objects, or "seed:weight"."""
        pairs = []
        for each in listed(value):
            if isinstance(each, Mapping):
                each = [each.get("seed"), each.get("weight")]
            pairs.append(each.split(":") if isinstance(each, str) else each)
        if pairs and all(isinstance(each, list) and len(each) == 2 for each in pairs):
            self.fields["variation_seed"] = [seed for seed, _ in pairs]
            self.fields["variation_amount"] = [weight for _, weight in pairs]

    def _sampler(self, label: str) -> None:
        known = label.removesuffix("_gpu").removesuffix("_cfg_pp")
        if known.endswith("CFG++") or known != label.removesuffix("_gpu"):
            self.notes.append(f"CFG++ of the sampler {label}")
            known = known.removesuffix("CFG++").strip()
        try:
            self.fields["sampler"], spacing = split_label(known)
        except UsageError:
            near = _OTHER_SOLVERS.get(" ".join(re.split(r"[\s_-]+", known.lower().replace("++", "pp"))))
            self.notes.append(f"sampler {label}" + (f": drawn with {near}" if near else ""))
            if near:
                self.fields["sampler"] = near
            return
        if spacing:
            self.fields["spacing"] = spacing

    def _spacing(self, label: str) -> None:
        try:
            self.fields["spacing"] = spacing_name(label)
        except UsageError:
            # what diffusers calls a scheduler is a sampler
            if label.endswith("Scheduler"):
                self._sampler(label)
            else:
                self.notes.append(f"schedule {label}")

    def _model(self, value: Any) -> None:
        self.model = re.sub(r"\s*\[\w+\]$", "", _named(value)) or None

    def _loras(self, value: Any) -> None:
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, Mapping):
                named = next((each[key] for key in ("model", "lora", "name", "file") if each.get(key)), "")
                self.adapter(named, each.get("weight", 1.0))
            elif isinstance(each, list) and len(each) > 1:
                self.adapter(each[0], each[1])
            elif each:
                weight, dash, name = str(each[0] if isinstance(each, list) else each).partition(" - ")
                self.adapter(*((name, weight) if dash else (weight,)))


def shortened(text: str, limit: int = 120) -> str:
    """A text on one line of at most `limit` characters."""
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else f"{flat[: limit - 3]}..."


def json_object(text: object) -> dict[str, Any] | None:
    """The JSON object that a text is, with NaN as some programs write it, or `None`."""
    if not isinstance(text, str) or not text.lstrip().startswith("{") or is_crowded(text.encode()):
        return None
    with suppress(ValueError, RecursionError):
        found = json.loads(text, strict=False)
        return found if isinstance(found, dict) else None
    return None


def _plain(key: str) -> str:
    return re.sub(r"[^a-z0-9]", "", key.lower())


def _is_whole(key: str, value: Any) -> bool:
    """Whether a setting says that the picture was drawn from noise alone."""
    return _plain(key) in ("denoise", "strength", "denoisingstrength") and number(value) == 1


def _words(value: Any) -> str:
    """A prompt, also where it is a list of texts, or of texts with weights."""
    if isinstance(value, list):
        return ", ".join(filter(None, map(_words, value)))
    if isinstance(value, Mapping):
        return _words(value.get("prompt", ""))
    return str(value).strip()


def listed(value: Any) -> list[Any]:
    """A list, or the one of a text with commas; nothing else is one."""
    if isinstance(value, str):
        return [part for part in value.split(",") if part]
    return value if isinstance(value, list) else []


def number(value: Any, default: float | None = None) -> float | None:
    """A finite number, also where it is a text; else `default`."""
    with suppress(TypeError, ValueError, OverflowError):
        number = float(value)
        return number if math.isfinite(number) else default
    return default


def _named(value: Any) -> str:
    """The name of a model, also where it is described by several facts."""
    if isinstance(value, Mapping):
        named = ("name", "model_name", "model", "Model", "path")
        return next((_named(value[key]) for key in named if value.get(key)), "")
    return str(value).strip()


def _file(name: str) -> str:
    return name.replace("\\", "/").removesuffix(".safetensors")
