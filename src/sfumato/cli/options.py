"""Options of the command, each described once: request fields, the device, and what commands share."""

import inspect
import os
import re
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, wraps
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from sfumato.cli.help import CLIP, GUIDANCE, MODEL, OUTPUT, PICTURE, PROMPT, HelpfulCommand, HelpfulGroup
from sfumato.errors import SfumatoError, UsageError
from sfumato.names import DIALECTS, PREPROCESSORS, SAMPLERS, SPACINGS
from sfumato.options import EMBEDDED, DeviceOptions

F = TypeVar("F", bound=Callable[..., Any])


def option(spec: str, panel: str, text: str, known: Collection[str] = ()) -> Any:
    """An option of a command, spelled as "-o, --output PATH". `known`: values that the shell completes."""
    words = spec.split()
    names = [word.rstrip(",") for word in words if word.startswith("-")]

    def complete(incomplete: str) -> list[str]:
        return [name for name in known if name.startswith(incomplete)]

    return typer.Option(
        *names,
        help=text,
        metavar=" ".join(words[len(names) :]) or None,
        rich_help_panel=panel,
        show_default=False,
        autocompletion=complete if known else None,
    )


def argument(metavar: str, text: str) -> Any:
    """A positional argument of a command."""
    return typer.Argument(metavar=metavar, help=text, show_default=False)


Json = Annotated[bool, option("--json", OUTPUT, "Print JSON.")]
Quiet = Annotated[bool, option("-q, --quiet", OUTPUT, "No progress, no warnings.")]


@dataclass(frozen=True)
class OptionGroup:
    """Options that a command takes as one parameter: their values by name, made into one by `make`."""

    options: Callable[[], Iterable[inspect.Parameter]]
    make: Callable[[dict[str, Any]], Any]

    @classmethod
    def of(cls, kind: type) -> "OptionGroup":
        """The fields of a dataclass, each annotated with its option."""
        return cls(lambda: inspect.signature(kind).parameters.values(), lambda values: kind(**values))


class Program(typer.Typer):
    """The command or commands of one file."""

    def __init__(self) -> None:
        super().__init__(cls=HelpfulGroup, add_completion=False)

    def add(self, name: str | None = None, *, examples: str | None = None) -> Callable[[F], F]:
        """Register a function with its parameters as options; it returns the exit status, or `None` for 0."""

        def register(function: F) -> F:
            self.command(name, cls=HelpfulCommand, epilog=examples)(_expanded(function))
            return function

        return register


def _expanded(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with the options of its groups as parameters of their own."""
    parameters: list[inspect.Parameter] = []
    groups: dict[str, tuple[OptionGroup, list[str]]] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        metadata = getattr(parameter.annotation, "__metadata__", ())
        group = next((one for one in metadata if isinstance(one, OptionGroup)), None)
        own = [parameter] if group is None else list(group.options())
        parameters += [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own]
        if group is not None:
            groups[name] = group, [one.name for one in own]

    @wraps(function)
    def call(**values: Any) -> Any:
        # the shell leaves ~ as it is in --out=~/report
        values = {
            name: Path(os.path.expanduser(one)) if isinstance(one, Path) else one
            for name, one in values.items()
        }
        for name, (group, own) in groups.items():
            values[name] = group.make({one: values.pop(one) for one in own})
        return function(**values)

    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call


def number(text: str) -> object:
    """A number as it was typed, or the text itself, for `Request` to refuse by name."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def adapter(text: str) -> dict[str, Any]:
    """`--lora NAME[:WEIGHT[:TEXT_WEIGHT]]` as a field of `Request.adapters`."""
    name = text
    weights: list[float] = []
    while len(weights) < 2 and (match := re.fullmatch(r"(.+):([^:/\\]*)", name)):
        try:
            weights.insert(0, float(match[2]))
        except ValueError:
            break
        name = match[1]
    return {"name": name, **dict(zip(("weight", "text_weight"), weights, strict=False))}


def region(text: str) -> dict[str, Any]:
    """`--region L,T,R,B:PROMPT` as a field of `Request.regions`."""
    box, colon, prompt = text.partition(":")
    edges = box.split(",")
    if not colon or len(edges) != 4 or not prompt.strip():
        raise UsageError(f"--region {text!r}: it must be L,T,R,B:PROMPT, as 0,0,0.5,1:a red apple")
    return {"prompt": prompt.strip(), "box": [edge.strip() for edge in edges]}


def control(text: str) -> dict[str, Any]:
    """`--control MODEL:IMAGE[:WEIGHT[:START-END]]` as a field of `Request.controls`.

    Before IMAGE may stand a preprocessor, as in edges:canny:photo.png. Raises `UsageError`.
    """
    match = _CONTROL.fullmatch(text)
    if match is None:
        raise UsageError(
            f"--control {text!r}: it must be MODEL:IMAGE[:WEIGHT[:START-END]], as edges:drawing.png:0.8:0-0.5"
        )
    given = {name: value for name, value in match.groupdict().items() if value is not None}
    return {**given, "image": os.path.expanduser(given["image"])}


_FILE = r"(?:[A-Za-z]:[\\/])?"
"""The drive of a path on Windows, whose colon separates nothing."""
_NUMBER = r"[\d.]+"
_CONTROL = re.compile(
    rf"(?P<model>{_FILE}[^:]+):(?:(?P<preprocessor>{'|'.join(PREPROCESSORS)}):)?(?P<image>{_FILE}.+?)"
    rf"(?::(?P<weight>{_NUMBER})(?::(?P<start>{_NUMBER})-(?P<end>{_NUMBER}))?)?"
)


@dataclass(frozen=True)
class Field:
    """What the command adds to a field of `Request`, whose type, meaning, range and default it takes over."""

    spec: str = ""
    """How the option is spelled, if not by the field's own name."""
    panel: str = PICTURE
    known: Collection[str] = ()
    syntax: str = ""
    parse: Callable[[str], Any] | None = None
    """A value from its text; numbers are recognised, anything else is left for `Request` to read."""


NO_OPTIONS = ("prompt", "origin", "extend", "elements", "harmonise")
CLIP_FIELDS = (
    *("frames", "travel", "fps", "interpolate", "loop", "motion", "context", "context_overlap"),
    *("motion_amount", "noise_augmentation"),
)
"""Fields of clips, which are options of `sfumato video` alone."""
FIELDS = {
    **{name: Field(panel=CLIP) for name in CLIP_FIELDS},
    "travel": Field("--travel FRAME:TEXT", CLIP),
    "motion": Field("--motion FILE", CLIP),
    "context_overlap": Field("--overlap, --context-overlap N", CLIP),
    "negative": Field("--negative, --negative-prompt TEXT", PROMPT),
    "width": Field("-W, --width PX"),
    "height": Field("-H, --height PX"),
    "guidance": Field("--guidance, --guidance-scale SCALE", GUIDANCE),
    "guidance_interval": Field("--guidance-interval LOW HIGH", GUIDANCE),
    "guidance_rescale": Field("--guidance-rescale PHI", GUIDANCE),
    "token_merging": Field("--token-merging RATIO"),
    "sampler": Field(known=SAMPLERS),
    "spacing": Field(known=SPACINGS),
    "count": Field("-n, --count N"),
    "sticker": Field("--sticker PX"),
    "variation_seed": Field("--variation-seed N", parse=number),
    "variation_amount": Field("--variation-amount X", parse=number),
    "dialect": Field(panel=PROMPT, known=DIALECTS),
    "style": Field(panel=PROMPT),
    "templates": Field("--templates HOW", PROMPT),
    "adapters": Field(
        "--lora NAME[:W[:TW]]",
        PROMPT,
        syntax="W: its weight; TW: its weight on the text encoders.",
        parse=adapter,
    ),
    "embeddings": Field("--embedding FILE", PROMPT),
    "allow_partial": Field(panel=PROMPT),
    "regions": Field(
        "--region L,T,R,B:PROMPT",
        PROMPT,
        syntax="Edges are fractions: 0,0,0.5,1 is the left half.",
        parse=region,
    ),
    "controls": Field(
        "--control MODEL:IMAGE[:W[:START-END]]",
        syntax="W: its weight; START-END: of the steps, as 0-0.5. MODEL:canny:IMAGE takes the picture's "
        "edges, MODEL:invert:IMAGE dark lines on white.",
        parse=control,
    ),
    "model": Field("--model MODEL", MODEL),
    "vae": Field("--vae FILE", MODEL),
    "tiny": Field("--tiny FILE", MODEL),
    "base": Field("--base MODEL", MODEL),
    "prediction": Field(panel=MODEL),
    "zero_terminal_snr": Field(panel=MODEL),
}


def request_fields(*names: str, but: Collection[str] = (), clips: bool = False) -> OptionGroup:
    """The fields of `Request`, or those named, as options: a dictionary of the ones that were given.

    `but`: fields to leave out. `clips`: whether what it draws are clips.
    """

    def options() -> Iterable[inspect.Parameter]:
        schemas = _schemas()
        left_out = {*NO_OPTIONS, *but, *(() if clips else CLIP_FIELDS)}
        return [_parameter(name, schemas[name]) for name in names or schemas if name not in left_out]

    def make(values: dict[str, Any]) -> dict[str, Any]:
        schemas = _schemas()
        flags = {name for name in values if schemas[name]["default"] is False}
        given = {
            name: value
            for name, value in values.items()
            if value or (value is not None and name not in flags)
        }
        return {name: _parsed(name, value, schemas[name]) for name, value in given.items()}

    return OptionGroup(options, make)


def field_value(name: str, text: str) -> Any:
    """The value of a field of `Request` that `text` stands for, as its option has it; "none" for no value."""
    from sfumato.series.grid import read_value

    schema, value = _schemas().get(name), read_value(name, text)
    if schema is None or value is not text:
        return value
    several = schema.get("type") == "array" and "prefixItems" not in schema
    return _parsed(name, [text] if several else text.split() if "prefixItems" in schema else text, schema)


@cache
def _schemas() -> dict[str, dict[str, Any]]:
    """The JSON Schema of every field of `Request`, with that of its values where `None` is allowed too."""
    from sfumato.request import Request

    found = Request.model_json_schema()["properties"]
    return {name: {**field, **field.get("anyOf", [{}])[0]} for name, field in found.items()}


def _parameter(name: str, schema: dict[str, Any]) -> inspect.Parameter:
    """The option of a field of `Request`, from its JSON schema."""
    from sfumato.request import MAX_SEED

    own, kind, default = FIELDS.get(name, Field()), schema.get("type", "string"), schema["default"]
    pair = "prefixItems" in schema
    flag = bool if default is False else bool | None
    several = list[str] | None
    shape: dict[str, Any] = {"boolean": flag, "array": tuple[str, str] | None if pair else several}
    shape["object"] = several
    text = [schema["description"].replace("`", ""), own.syntax]
    if name in (embedded := _embedded_defaults()):
        text[0] = text[0].replace("Default: the model's.", f"Default: the model's ({embedded[name]}).")
    if kind != "boolean" and "Default:" not in text[0]:
        shown = f"{default:g}" if kind == "number" else default or (0 if kind == "integer" else "none")
        text.append(f"Default: {shown}.")
    if schema.get("maximum", MAX_SEED) < MAX_SEED:
        text.append(f"From {schema['minimum']} to {schema['maximum']}.")
    if kind in ("array", "object") and not pair:
        text.append("Repeatable.")
    metavar = {"boolean": "", "number": "N", "integer": "N"}.get(kind, "NAME")
    dashed = name.replace("_", "-")
    either = "" if kind != "boolean" or default is False else f"/--no-{dashed}"
    spec = own.spec or f"--{dashed}{either} {metavar}"
    described = option(
        spec, own.panel, " ".join(filter(None, text)), own.known or [*map(str, schema.get("enum", ()))]
    )
    return _keyword(name, shape.get(kind, str | None), described)


@cache
def _embedded_defaults() -> dict[str, Any]:
    """What the embedded model likes, by fields of `Request`; nothing where its file is not sound."""
    from sfumato.files import read_json

    with suppress(SfumatoError):
        own = read_json(Path(str(resources.files("sfumato"))) / "models" / "icons" / "sfumato.json")
        width, height = own.get("native_size", (None, None))
        found = {**own, "width": width, "height": height}
        return {name: f"{EMBEDDED}: {found[name]}" for name in _LIKED if found.get(name) is not None}
    return {}


_LIKED = ("width", "height", "steps", "guidance", "sampler", "spacing")


def _keyword(name: str, annotation: Any, described: Any) -> inspect.Parameter:
    default = False if annotation is bool else None
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=Annotated[annotation, described])


def _parsed(name: str, given: Any, schema: dict[str, Any]) -> Any:
    """What was given for a field, its texts parsed."""
    numeric = schema.get("prefixItems", [schema])[0].get("type") in ("number", "integer")
    parse = FIELDS.get(name, Field()).parse or (number if numeric else None)
    if parse is None:
        return given
    return [parse(one) for one in given] if isinstance(given, list | tuple) else parse(given)


DEVICE = {
    "device": ("--device NAME", "cpu, cuda, cuda:1 or mps. Default: the fastest."),
    "dtype": ("--dtype NAME", "float32, bfloat16 or float16. Default: the fastest safe one."),
    "quantization": (
        "--quantization NAME",
        "int8: a CPU multiplies in it; faster, less exact. Default: none.",
    ),
    "slices": ("--slices N", "Split attention into N parts: less memory. Default: 1."),
    "tile": ("--tile CELLS", "Decode in tiles of CELLS a side (64 are 512 px): less memory. Default: whole."),
    "offload": ("--offload", "Keep weights in main memory until they are needed."),
    "threads": ("--threads N", "Threads on the CPU. Default: one a core, or OMP_NUM_THREADS."),
    "compiled": ("--compile", "Compile the networks: minutes at first, then faster."),
}


def device_option(name: str) -> Any:
    """The option of a field of `DeviceOptions`."""
    spec, text = DEVICE[name]
    return option(spec, MODEL, text)


def device_options(*names: str) -> OptionGroup:
    """The fields of `DeviceOptions`, or those named, as options."""
    types = get_type_hints(DeviceOptions)
    options = [_keyword(name, types[name], device_option(name)) for name in names or DEVICE]
    return OptionGroup(lambda: options, lambda values: DeviceOptions(**values))


Device = Annotated[DeviceOptions, device_options()]
