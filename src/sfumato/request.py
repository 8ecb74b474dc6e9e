"""The one typed request that the library, the command, the server and the page all build.

A field left at `None` means "as this model likes it"; `Studio.resolve` fills it in, and the resolved request
is what an image carries.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypedDict, Unpack

from pydantic import Field, field_validator, model_validator

from sfumato.control import Control, Fraction
from sfumato.element import Box, Element, check_box
from sfumato.errors import UsageError, nearest
from sfumato.inputs import InputImage, Picture, PictureSource, input_image
from sfumato.names import DIALECTS, ELSEWHERE, UPSCALERS, spacing_name, split_label
from sfumato.options import EMBEDDED
from sfumato.prompt.meaning import MAX_CHARACTERS, AdapterWeight
from sfumato.prompt.travel import read_travel
from sfumato.validation import Validated, shown

MAX_SIDE = 4096
MAX_STEPS = 1000
MAX_COUNT = 1000
MAX_SEED = 2**63 - 1

MAX_FRAMES = 1024
MAX_FPS = 50
"""Of what is shown: no file's unit of time is finer."""
FRAMES_OF_CLIP = 16
"""Of a clip, unless it says."""

MAX_TERMS = 16
MAX_KEYS = 64
"""Frames that have a text of their own (prompt travel)."""
MAX_ELEMENTS = 64

OVERLAP = 0.5
"""Of the windows of multidiffusion, unless it is given."""

FILLS = ("keep", "noise", "nothing", "blur")
"""What may stand in a mask before it is drawn, besides a colour."""

ALIASES = {
    "negative_prompt": "negative",
    "guidance_scale": "guidance",
    "num_inference_steps": "steps",
    "num_images_per_prompt": "count",
}
"""What diffusers calls fields of a request; both names are accepted."""


Side = Annotated[int, Field(ge=8, le=MAX_SIDE)]
Extension = Annotated[int, Field(ge=0, le=MAX_SIDE)]
Text = Annotated[str, Field(max_length=MAX_CHARACTERS)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Name = Annotated[str, Field(min_length=1, max_length=1000)]


class Region(Validated):
    """A part of the picture that another prompt describes."""

    prompt: Text
    box: Box
    """Left, top, right, bottom, as fractions of the picture."""
    weight: Fraction = 1.0
    """How much of the place is this prompt's; the rest is the request's own prompt's."""

    @model_validator(mode="after")
    def _box_has_an_area(self) -> Self:
        check_box(self.box)
        return self


class Extend(Validated):
    """How many pixels a picture is extended by, on each side."""

    left: Extension = 0
    top: Extension = 0
    right: Extension = 0
    bottom: Extension = 0

    @model_validator(mode="after")
    def _by_anything(self) -> Self:
        if not any((self.left, self.top, self.right, self.bottom)):
            raise ValueError("must be more than 0 on some side: left, top, right or bottom")
        return self


class Origin(Validated):
    """What was typed, where styles and templates made something else of it."""

    prompt: Text
    negative: Text = ""
    style: tuple[Name, ...] = ()


class PictureOptions(TypedDict, total=False):
    """The fields of a `Request` for a picture besides its prompt, as keywords: what may be given for each,
    aliases too.
    """

    negative: str
    width: int | None
    height: int | None
    steps: int | None
    guidance: float | None
    guidance_interval: Sequence[float] | None
    guidance_rescale: float
    cache_interval: int
    token_merging: float
    sampler: str | None
    spacing: str | None
    seed: int | None
    count: int
    variation_seed: int | Sequence[int]
    variation_amount: float | Sequence[float]
    fast: bool
    dialect: str
    style: str | Sequence[str]
    templates: Literal["random", "combinatorial", "off"]
    origin: Origin | None
    adapters: str | Sequence[str | AdapterWeight | Mapping[str, Any]]
    embeddings: str | Sequence[str]
    allow_partial: bool
    regions: Sequence[Region | Mapping[str, Any]]
    image: PictureSource | InputImage | None
    strength: float | None
    inversion: Literal["ddim", "ddpm"] | None
    source: str
    image_guidance: float | None
    mask: PictureSource | InputImage | None
    fill: str
    feather: int
    crop: int | None
    resample: int | None
    extend: Extend | Mapping[str, int] | None
    elements: Sequence[Element | Mapping[str, Any]]
    harmonise: float | None
    transparent: bool
    sticker: int
    controls: Control | Mapping[str, Any] | Sequence[Control | Mapping[str, Any]]
    upscale: float | None
    upscaler: str | None
    upscale_strength: float | None
    upscale_steps: int | None
    multidiffusion: bool | None
    overlap: float
    seamless: Literal["x", "y", "xy"] | None
    clip_skip: int
    decoder: Literal["full", "tiny"]
    model: str
    vae: str | None
    tiny: str | None
    base: str | None
    prediction: Literal["epsilon", "v", "x0", "flow"] | None
    zero_terminal_snr: bool | None
    negative_prompt: str
    guidance_scale: float | None
    num_inference_steps: int | None
    num_images_per_prompt: int


class RequestOptions(PictureOptions, total=False):
    """Those for a clip as well."""

    frames: int | None
    travel: Mapping[int, str] | str | Sequence[str]
    fps: float | None
    interpolate: int | None
    loop: bool
    motion: str | None
    context: int | None
    context_overlap: int | None
    motion_amount: int | None
    noise_augmentation: float | None


_OF_CLIPS = (
    *("travel", "fps", "interpolate", "loop", "motion", "context", "context_overlap"),
    *("motion_amount", "noise_augmentation"),
)


class RequestFields(RequestOptions, total=False):
    """All fields of a `Request` as keywords."""

    prompt: str


class Request(Validated):
    """What to draw and how. Every error is a `UsageError` that names the field, the value and the range."""

    prompt: str = Field(max_length=MAX_CHARACTERS, description="What the picture shows.")
    negative: str = Field(
        "", max_length=MAX_CHARACTERS, description="Negative prompt: what the picture should not show."
    )
    width: Side | None = Field(
        None, description="Width in pixels, a multiple of the model's factor. Default: the model's."
    )
    height: Side | None = Field(
        None, description="Height in pixels, a multiple of the model's factor. Default: the model's."
    )
    steps: int | None = Field(
        None,
        ge=1,
        le=MAX_STEPS,
        description="Sampling steps: more are slower and finer. Default: the model's.",
    )
    guidance: float | None = Field(
        None,
        ge=0,
        le=100,
        allow_inf_nan=False,
        description="Guidance scale γ; 1 is the prompt alone. Default: the model's.",
    )
    guidance_interval: tuple[float, float] | None = Field(
        None,
        description="Guide only at noise levels σ from LOW to HIGH (Kynkäänniemi et al. 2024). "
        "Default: at all.",
    )
    guidance_rescale: float = Field(
        0.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Rescale φ, against overexposure (Lin et al. 2023, eq. 16).",
    )
    cache_interval: int = Field(
        1,
        ge=1,
        le=MAX_STEPS,
        description="Compute the deeper layers of the UNet in one of so many steps (DeepCache, Ma et al. "
        "2024); 1 is in all.",
    )
    token_merging: float = Field(
        0.0,
        ge=0,
        le=0.75,
        allow_inf_nan=False,
        description="Share of the places that self-attention merges where there are most (Bolya & Hoffman "
        "2023): less exact, faster at large sizes.",
    )
    sampler: str | None = Field(
        None, description="Sampler; `sfumato samplers` lists them. Default: the model's."
    )
    spacing: str | None = Field(
        None, description="Spacing of the noise levels; `sfumato samplers` lists them. Default: the model's."
    )
    seed: int | None = Field(
        None,
        ge=0,
        le=MAX_SEED,
        description="Seed of the first picture; the next ones count up. Default: random.",
    )
    count: int = Field(1, ge=1, le=MAX_COUNT, description="Pictures of each prompt.")
    variation_seed: tuple[Seed, ...] = Field(
        (),
        max_length=MAX_TERMS,
        description="Seed of the noise that `variation_amount` mixes in; in place of the seed it counts up "
        "with the pictures. Default: random.",
    )
    variation_amount: tuple[Fraction, ...] = Field(
        (),
        max_length=MAX_TERMS,
        description="How much of the noise of `variation_seed` is mixed into that of the seed: 0 none, 1 it "
        "alone. Several are mixed in one after another.",
    )
    fast: bool = Field(
        False,
        description="Draw in 4 steps, or in 1 to 8 given as steps, with the model's few-step LoRA.",
    )
    dialect: str = Field("sfumato", description=f"Syntax of the prompt: {', '.join(DIALECTS)}.")
    style: tuple[Name, ...] = Field(
        (), max_length=MAX_TERMS, description="Style presets around the prompt; `sfumato styles` lists them."
    )
    templates: Literal["random", "combinatorial", "off"] = Field(
        "random",
        description="What `{a|b}` and `__list__` become: random (a choice for each picture), combinatorial "
        "(each in turn) or off.",
    )
    origin: Origin | None = Field(None, description="The texts before styles and templates.")
    adapters: tuple[AdapterWeight, ...] = Field(
        (), max_length=MAX_TERMS, description="LoRAs and other adapters: a file, or a name in your folder."
    )
    embeddings: tuple[Name, ...] = Field(
        (),
        max_length=MAX_TERMS,
        description="Files of learned embeddings (textual inversion) that the prompt names; those in your "
        "folder need no mention.",
    )
    allow_partial: bool = Field(False, description="Use adapters that fit the model only in part.")
    regions: tuple[Region, ...] = Field(
        (), max_length=MAX_TERMS, description="Prompts for parts of the picture."
    )
    image: Picture | None = Field(None, description="A picture to begin with (img2img), or to draw into.")
    strength: Fraction | None = Field(
        None,
        description="How much of the picture is drawn anew: 0 keeps it, 1 begins from noise alone. Default: "
        "0.8, with a mask 1.",
    )
    inversion: Literal["ddim", "ddpm"] | None = Field(
        None,
        description="Begin with the picture's own noise, to keep what the prompts have in common: its latent "
        "inverted (ddim), or the noise of every step (ddpm).",
    )
    source: str = Field(
        "", max_length=MAX_CHARACTERS, description="What the picture shows, the prompt of its inversion."
    )
    image_guidance: float | None = Field(
        None,
        ge=0,
        le=100,
        allow_inf_nan=False,
        description="Guidance scale γ_I of the picture, for models that edit by instruction. Default: 1.5.",
    )
    mask: InputImage | Literal["alpha"] | None = Field(
        None,
        description="Which part of the picture is drawn anew: a picture of its size, white where it is; or "
        "alpha, where the picture is transparent.",
    )
    fill: str = Field(
        "keep",
        description="What stands in the mask before it is drawn: keep, noise, nothing, blur or a colour as "
        "#rrggbb.",
    )
    feather: int = Field(0, ge=0, le=512, description="Fade the mask out over so many pixels.")
    crop: int | None = Field(
        None,
        ge=0,
        le=MAX_SIDE,
        description="Draw only the mask and so many pixels around it, at the model's size.",
    )
    resample: int | None = Field(
        None,
        ge=1,
        le=100,
        description="Take each step so often, to fit the mask's part to the rest (RePaint). Default: 1, with "
        "extend 3.",
    )
    extend: Extend | None = Field(
        None, description="Draw beyond the picture's edges, by so many pixels on each side."
    )
    elements: tuple[Element, ...] = Field(
        (),
        max_length=MAX_ELEMENTS,
        description="Objects in front of the picture: each is drawn for itself, cut out, and put in its box.",
    )
    harmonise: Fraction | None = Field(
        None,
        description="Strength of a last pass over all, taken at the edges of the elements. Default: 0.2.",
    )
    transparent: bool = Field(
        False, description="Cut the object out of its plain background, which becomes transparent."
    )
    sticker: int = Field(
        0, ge=0, le=256, description="Put a white outline so many pixels wide around it; transparent too."
    )
    controls: tuple[Control, ...] = Field(
        (),
        max_length=MAX_TERMS,
        description="Pictures that steer the drawing through a ControlNet: a folder, a file, a hub id, a "
        "name in your folder, or edges (the embedded model's).",
    )
    upscale: float | None = Field(
        None,
        ge=1,
        le=16,
        allow_inf_nan=False,
        description="Second pass: draw so many times smaller first, enlarge that and refine it; width and "
        "height are the result's. Default: 1, more where the size is larger than the model knows.",
    )
    upscaler: Name | None = Field(
        None,
        description="What enlarges: lanczos, latent, embedded (a small network for drawings), or the file of "
        "such a network. Default: embedded for the embedded model, lanczos for others.",
    )
    upscale_strength: Fraction | None = Field(
        None,
        description="How much of the enlarged picture is drawn anew: 0 keeps it. Default: 0.1 for the "
        "embedded model, 0.3 for others; with latent 0.6.",
    )
    upscale_steps: int | None = Field(
        None, ge=1, le=MAX_STEPS, description="Steps of the second pass at strength 1. Default: as steps."
    )
    multidiffusion: bool | None = Field(
        None,
        description="Draw in overlapping windows that are averaged at every step (Bar-Tal et al. 2023). "
        "Default: where the size is larger than the model knows.",
    )
    overlap: float = Field(
        OVERLAP,
        ge=0.125,
        le=0.875,
        allow_inf_nan=False,
        description="The share of a window of multidiffusion that neighbours have in common.",
    )
    seamless: Literal["x", "y", "xy"] | None = Field(
        None,
        description="Have the picture go on at its opposite edge: side by side (x), one above the other (y) "
        "or both (xy).",
    )
    frames: int | None = Field(
        None, ge=2, le=MAX_FRAMES, description="Draw a clip of so many frames. Default: a picture."
    )
    travel: dict[Annotated[int, Field(ge=0, lt=MAX_FRAMES)], Text] = Field(
        {},
        max_length=MAX_KEYS,
        description="Prompt travel: what the prompt goes on with at a frame of a clip, counted from 0, as "
        "8: an open flower; in between the texts are mixed.",
    )
    fps: float | None = Field(
        None,
        ge=1,
        le=MAX_FPS,
        allow_inf_nan=False,
        description="Frames a second of a clip, without those of interpolate. Default: 8.",
    )
    interpolate: Literal[2, 4, 8] | None = Field(
        None,
        description="Put frames between those that are drawn, along their motion: so many times as many a "
        "second, 2, 4 or 8.",
    )
    loop: bool = Field(False, description="Have the last frame of a clip lead back to the first.")
    motion: Name | None = Field(
        None,
        description="Motion adapter of a clip (AnimateDiff): a folder, a file, a hub id or a name in your "
        "folder; or text2video-zero, which needs none. Default: the model's own, else text2video-zero.",
    )
    context: int | None = Field(
        None,
        ge=2,
        le=MAX_FRAMES,
        description="Frames that the motion adapter attends to at once; longer clips are drawn in windows of "
        "so many. Default: 16.",
    )
    context_overlap: int | None = Field(
        None,
        ge=0,
        le=MAX_FRAMES,
        description="Frames that neighbouring windows of a clip have in common. Default: 4.",
    )
    motion_amount: int | None = Field(
        None,
        ge=0,
        le=255,
        description="How much moves, of a model that moves a picture (its motion bucket, by default 127), or "
        "of PIA (0 to 8, by default 0).",
    )
    noise_augmentation: float | None = Field(
        None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Noise in the picture that a model moves: with more the clip keeps less of it. "
        "Default: 0.02.",
    )
    clip_skip: int = Field(0, ge=0, le=11, description="Last layers of the text encoder to skip.")
    decoder: Literal["full", "tiny"] = Field(
        "full", description="Decoder of the final latent: full, or tiny, several times faster and less exact."
    )
    model: str = Field(
        EMBEDDED, min_length=1, description="A diffusers folder, a .safetensors file, a hub id or `embedded`."
    )
    vae: Name | None = Field(None, description="Another autoencoder than the model's own. Default: its own.")
    tiny: Name | None = Field(
        None,
        description="A tiny autoencoder (TAESD) for previews and the decoder tiny, where the model has none.",
    )
    base: Name | None = Field(None, description="The model with the parts that a file of a UNet alone lacks.")
    prediction: Literal["epsilon", "v", "x0", "flow"] | None = Field(
        None, description="What the network predicts: epsilon, v, x0 or flow. Default: as its files say."
    )
    zero_terminal_snr: bool | None = Field(
        None, description="Whether the noise levels end in pure noise. Default: as the model's files say."
    )

    if TYPE_CHECKING:

        def __init__(self, prompt: str, **fields: Unpack[RequestOptions]) -> None: ...

    else:

        def __init__(self, /, *prompt, **fields):
            if len(prompt) > 1 or (prompt and "prompt" in fields):
                raise UsageError("a request has one prompt; name the other fields, as steps=20")
            if prompt:
                fields["prompt"] = prompt[0]
            known = {*type(self).model_fields, *ALIASES}
            for name in fields:
                if name not in known:
                    here = [each for each in ELSEWHERE.get(name, ()) if each in known]
                    right = f"here it is {' and '.join(here)}" if here else nearest(name, known)
                    raise UsageError(f"unknown field {name!r}; {right}")
            super().__init__(**fields)

        __init__.__pydantic_base_init__ = True

    @classmethod
    def build(cls, **fields: Any) -> Self:
        """A request from fields whose names and types are known only at run time."""
        return cls(**fields)

    def changed(self, **fields: Unpack[RequestFields]) -> Self:
        """This request with other values for some fields, validated anew; other texts have no `origin`."""
        changes = _by_own_names({**fields})
        if changes.keys() & {"prompt", "negative"}:
            changes = {"origin": None, **changes}
        return self.build(**{**self.model_dump(), **changes})

    def filled(self, **fields: Any) -> Self:
        """This request with other values for some fields, which are known to be valid."""
        return self.model_copy(update=fields)

    @property
    def inputs(self) -> dict[str, InputImage]:
        """The pictures that it begins from, by field."""
        given = {"image": self.image, "mask": self.mask}
        for number, control in enumerate(self.controls):
            several = len(control.images) > 1
            for index, image in enumerate(control.images):
                given[f"controls.{number}.{index}" if several else f"controls.{number}"] = image
        given |= {f"elements.{number}": each.mask for number, each in enumerate(self.elements)}
        return {name: each for name, each in given.items() if isinstance(each, InputImage)}

    def without_inputs(self) -> Self:
        """This request with the names and hashes of `inputs`, without their bytes."""

        def bare(picture: Any) -> Any:
            return picture.without_data() if isinstance(picture, InputImage) else picture

        controls = []
        for each in self.controls:
            several = isinstance(each.image, tuple)
            image = tuple(map(bare, each.image)) if several else bare(each.image)
            controls.append(each.model_copy(update={"image": image}))
        elements = tuple(each.model_copy(update={"mask": bare(each.mask)}) for each in self.elements)
        bared: dict[str, Any] = {"controls": tuple(controls), "elements": elements}
        return self.filled(image=bare(self.image), mask=bare(self.mask), **bared)

    @property
    def has_alpha(self) -> bool:
        """Whether its pictures are transparent where there is no object."""
        return self.transparent or self.sticker > 0

    @property
    def clip_frames(self) -> int:
        """Frames of the whole clip, with those in between; of a picture 0.

        A loop has some behind the last that is drawn as well.
        """
        frames, factor = self.frames or 0, self.interpolate or 1
        return factor * frames if self.loop else factor * (frames - 1) + 1 if frames else 0

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a resolved request, in pixels."""
        assert self.width is not None
        assert self.height is not None
        return self.width, self.height

    @property
    def upscale_steps_taken(self) -> int:
        """Steps that the second pass of a resolved request takes: of N int(N · strength), and one at least
        unless that is 0.
        """
        assert self.upscale_steps is not None
        assert self.upscale_strength is not None
        taken = int(self.upscale_steps * self.upscale_strength)
        return max(taken, 1) if self.upscale_strength else 0

    @field_validator("prompt", "negative", "source", mode="before")
    @classmethod
    def _encodable(cls, text: Any) -> Any:
        if isinstance(text, str):
            for position, character in enumerate(text):
                if "\ud800" <= character <= "\udfff":
                    raise ValueError(f"holds half of a surrogate pair at character {position}")
        return text

    @field_validator("mask", mode="before")
    @classmethod
    def _mask_picture(cls, source: Any) -> Any:
        return source if isinstance(source, str) and source == "alpha" else input_image(source)

    @field_validator("fill")
    @classmethod
    def _fill_known(cls, fill: str) -> str:
        if fill not in FILLS and not re.fullmatch("#[0-9a-fA-F]{6}", fill):
            raise ValueError(f"must be {', '.join(FILLS)} or a colour as #rrggbb")
        return fill

    @field_validator("upscaler")
    @classmethod
    def _upscaler_known(cls, name: str | None) -> str | None:
        if name is not None and name not in UPSCALERS and not name.endswith(".safetensors"):
            raise ValueError(f"unknown upscaler; {nearest(name, UPSCALERS)}, or a .safetensors file")
        return name

    @field_validator("dialect")
    @classmethod
    def _dialect_known(cls, name: str) -> str:
        if name not in DIALECTS:
            raise ValueError(f"unknown dialect; {nearest(name, DIALECTS)}")
        return name

    @field_validator("seed", mode="before")
    @classmethod
    def _random_seed(cls, seed: Any) -> Any:
        if seed == -1 or (isinstance(seed, str) and seed.lower() in ("-1", "random")):
            raise ValueError(f"must be at least 0 (allowed: 0 to {MAX_SEED}); for a random seed leave it out")
        return seed

    @field_validator("style", "embeddings", mode="before")
    @classmethod
    def _one_name(cls, names: Any) -> Any:
        return (names,) if isinstance(names, str) else names

    @field_validator("controls", mode="before")
    @classmethod
    def _one_control(cls, controls: Any) -> Any:
        return (controls,) if isinstance(controls, Control | Mapping) else controls

    @field_validator("variation_seed", "variation_amount", mode="before")
    @classmethod
    def _one_number(cls, numbers: Any) -> Any:
        if numbers is None:
            return ()
        return (numbers,) if isinstance(numbers, int | float | str) else numbers

    @field_validator("travel", mode="before")
    @classmethod
    def _travel_by_frame(cls, travel: Any) -> Any:
        return read_travel(travel)

    @field_validator("travel")
    @classmethod
    def _travel_in_order(cls, travel: dict[int, str]) -> dict[int, str]:
        return dict(sorted(travel.items()))

    @field_validator("adapters", mode="before")
    @classmethod
    def _adapters_by_name(cls, adapters: Any) -> Any:
        each = (adapters,) if isinstance(adapters, str | AdapterWeight) else adapters
        if not isinstance(each, list | tuple):
            return adapters
        return [{"name": one} if isinstance(one, str) else one for one in each]

    @model_validator(mode="before")
    @classmethod
    def _names_known(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        try:
            named = _by_own_names(fields)
            if isinstance(named.get("sampler"), str):
                named["sampler"], spacing = split_label(named["sampler"])
                named["spacing"] = named.get("spacing") or spacing
            if isinstance(named.get("spacing"), str):
                named["spacing"] = spacing_name(named["spacing"])
        except UsageError as error:
            raise ValueError(str(error)) from None
        return named

    @model_validator(mode="after")
    def _of_a_picture(self) -> Self:
        """What is said of a picture needs one; what is said of a mask needs that."""
        for name in ("strength", "inversion", "image_guidance", "mask", "extend"):
            if self.image is None and getattr(self, name) is not None:
                raise ValueError(f"{name} is given without image, the picture that it is about")
        layers = ["background", *(each.name for each in self.elements if each.name)]
        if twice := [name for name in layers if layers.count(name) > 1]:
            raise ValueError(f"two layers are called {twice[0]!r}: elements need names of their own")
        if self.harmonise is not None and not self.elements:
            raise ValueError("harmonise is given without elements, which it fits to the rest")
        if self.source and self.inversion is None:
            raise ValueError("source is given without inversion, whose prompt it is")
        if self.extend is not None:
            for name in ("mask", "inversion", "controls", "elements", "regions", "seamless"):
                if getattr(self, name):
                    raise ValueError(f"{name} is given with extend, which draws just what is new")
            # what is resolved has upscale 1 and no windows
            large = {"upscale": (self.upscale or 1) > 1, "upscaler": self.upscaler}
            for name, given in {**large, "multidiffusion": self.multidiffusion}.items():
                if given:
                    raise ValueError(
                        f"{name} is given with extend, which draws in windows of its own: enlarge the "
                        "picture before or after"
                    )
        without: dict[str, tuple[Any, ...]] = {"fill": ("keep",), "feather": (0,), "crop": (None,)}
        if self.extend is None:
            # records of earlier versions have 1
            without["resample"] = (None, 1)
        for name, defaults in without.items():
            if self.mask is None and getattr(self, name) not in defaults:
                raise ValueError(f"{name} is given without mask, the part of the picture to draw")
        return self

    @model_validator(mode="after")
    def _seeds_have_amounts(self) -> Self:
        if (seeds := len(self.variation_seed)) > (amounts := len(self.variation_amount)):
            given = "without variation_amount" if not amounts else f"for {amounts} of variation_amount"
            raise ValueError(f"{seeds} of variation_seed are given {given}: each needs an amount, 0 to 1")
        if self.variation_amount and self.inversion:
            raise ValueError(
                "variation_amount is given with inversion, which begins with the picture's own noise; a "
                "picture is varied by strength"
            )
        return self

    @model_validator(mode="after")
    def _of_a_second_pass(self) -> Self:
        """What is said of a second pass needs one; a part of a picture has none."""
        if self.upscale == 1:
            for name in ("upscale_strength", "upscale_steps"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} is given with upscale 1, which is one pass alone")
        if self.mask is not None and (self.upscale or 1) > 1:
            raise ValueError(
                "upscale and mask exclude each other: draw into the picture first, and enlarge it after"
            )
        return self

    @model_validator(mode="after")
    def _of_a_clip(self) -> Self:
        """What is said of a clip needs frames, and a clip is drawn without what changes single pictures."""
        if self.frames is None:
            for name in _OF_CLIPS:
                if getattr(self, name):
                    raise ValueError(f"{name} is given without frames, how many a clip has")
            return self
        if self.travel and (last := max(self.travel)) >= self.frames:
            raise ValueError(
                f"travel names frame {last}: the clip has {self.frames} frames, 0 to {self.frames - 1}"
            )
        if self.clip_frames > MAX_FRAMES:
            raise ValueError(
                f"interpolate is {self.interpolate}: with {self.frames} frames these are {self.clip_frames}, "
                f"and a clip has at most {MAX_FRAMES}"
            )
        if self.interpolate and self.interpolate * (self.fps or 1) > MAX_FPS:
            raise ValueError(
                f"interpolate is {self.interpolate}: with fps {self.fps:g} these are "
                f"{self.interpolate * (self.fps or 1):g} frames a second, and at most {MAX_FPS} can be shown"
            )
        without = ("inversion", "mask", "extend", "elements", "controls", "has_alpha", "upscaler")
        given = [name for name in without if getattr(self, name)]
        given += ["upscale"] * ((self.upscale or 1) > 1) + ["multidiffusion"] * bool(self.multidiffusion)
        if given:
            name = "transparent" if given[0] == "has_alpha" else given[0]
            raise ValueError(f"{name} is given with frames: it is of single pictures")
        return self

    @model_validator(mode="after")
    def _interval_ordered(self) -> Self:
        if self.guidance_interval is not None:
            low, high = self.guidance_interval
            if not 0 <= low < high < math.inf:
                raise ValueError(f"guidance_interval is {low:g} to {high:g}; it must be 0 ≤ low < high < ∞")
        return self


Requests = Request | str | Iterable[Request | str]
"""One request or several; a text is a request's prompt."""


def requests_of(request: Requests | None, fields: Mapping[str, Any]) -> list[Request]:
    """Each of `request` with `fields`; a text is a prompt. Raises `UsageError` for anything else."""
    if request is None:
        return [Request.build(**fields)]
    if isinstance(request, Request | str):
        return [request_of(request, fields)]
    if isinstance(request, bytes | Mapping) or not isinstance(request, Iterable):
        raise UsageError(f"cannot draw {shown(request)}: {_DRAWN}")
    each = [request_of(one, fields) for one in request]
    if not each:
        raise UsageError("there is no request to draw")
    return each


_DRAWN = "a request is a prompt, a sfumato.Request, or a list of these"


def request_of(one: Any, fields: Mapping[str, Any]) -> Request:
    """One of these with `fields`. Raises `UsageError`."""
    if isinstance(one, str):
        if "prompt" in fields:
            raise UsageError("prompt is given twice; give it once")
        return Request.build(prompt=one, **fields)
    if not isinstance(one, Request):
        raise UsageError(f"cannot draw {shown(one)}: {_DRAWN}")
    return one.changed(**fields) if fields else one


def _by_own_names(fields: dict[str, Any]) -> dict[str, Any]:
    """`fields` with their own names in place of `ALIASES`. Raises `UsageError` for one given twice."""
    for alias, name in ALIASES.items():
        if alias in fields and name in fields:
            raise UsageError(f"{alias} and {name} are one field; give one of the two")
    return {ALIASES.get(name, name): value for name, value in fields.items()}
