"""The studio: the one object a user meets. It holds a loaded model and draws requests with it."""

import math
import secrets
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from sfumato import checkpoint, devices, expansion, folders
from sfumato.adapt.adapters import Adapters, AdapterWeight
from sfumato.adapt.embedding import Embedding, called
from sfumato.adapt.embedding import read as read_embedding
from sfumato.checkpoint.infer import span
from sfumato.checkpoint.source import EMBEDDED
from sfumato.decoders import TINY, Decoders
from sfumato.diffusion.guidance import ClassifierFree, ComposableGuidance, Guidance, Unguided, WeightedTerm
from sfumato.diffusion.level import Level
from sfumato.diffusion.samplers import evaluations, sampler_named
from sfumato.diffusion.sampling import SeededNoise
from sfumato.engine import Engine, Event, Failed, Job
from sfumato.errors import NumericsError, SfumatoError, SfumatoWarning, UsageError
from sfumato.few_steps import CONSISTENCY_SAMPLERS, FAST_LORA, apply_fast, compatible, unmet_hints
from sfumato.image import Image
from sfumato.metadata import Record, pixel_digest
from sfumato.nets.denoiser import Conditioning, Denoiser
from sfumato.nets.fast import for_inference
from sfumato.nets.inputs import SizeConditioning
from sfumato.prompt.chunks import chunks, mentioned
from sfumato.prompt.encode import TextEmbedding, common_length
from sfumato.prompt.language import parse
from sfumato.prompt.meaning import Content, Phrase, WeightedText
from sfumato.prompt.styles import MODELS, load_styles
from sfumato.request import Region, Request
from sfumato.version import __version__

T = TypeVar("T")


@dataclass(frozen=True)
class _Reading:
    """One content of a prompt, and everything that its text states depend on."""

    content: Content
    dialect: str
    clip_skip: int
    embeddings: tuple[tuple[str, Embedding], ...]
    """The learned embeddings that it may call."""
    negative: bool
    zero: bool
    """Whether its states are taken to be zeros."""


@dataclass(frozen=True, eq=False)
class Step:
    """One network evaluation on the way to a picture.

    `index` of `total` evaluations are done for picture `image_index` of `image_count`; `image` is the
    finished picture on its last step, else `None`.
    """

    image_index: int
    image_count: int
    index: int
    total: int
    sigma: float
    image: Image | None
    _estimate: Tensor
    _studio: "Studio"
    _request: Request

    def preview(self, quick: bool = False, *, decoder: str | None = None) -> Image:
        """What the network believes the picture to be by now.

        `quick`: colours straight from the latent, a hundredth of the work and an eighth of the size; else
        decoded by the `decoder` "full" or "tiny", the tiny one unless given, where the model has it.
        """
        request = self._request
        if not quick:
            request = request.changed(decoder=decoder or self._studio.decoders.quickest)
        return self._studio.develop(self._estimate, request, quick=quick)


class Studio:
    """A model, ready to draw. Make one with `sfumato.load`."""

    def __init__(
        self,
        model: checkpoint.Model,
        *,
        source: str = "embedded",
        vae: str | None = None,
        tiny: str | None = None,
        base: str | None = None,
        prediction: str | None = None,
        device: torch.device,
        dtype: torch.dtype,
        slices: int | None = None,
        tile: int | None = None,
        offload: bool = False,
        compiled: bool = False,
        reload: Callable[[torch.dtype], checkpoint.Model] | None = None,
    ) -> None:
        """See `load` for the arguments; `reload` fetches the model again in another precision."""
        self.source, self.vae, self.tiny, self.base = source, vae, tiny, base
        self.prediction = prediction
        if model.task != "text":
            raise UsageError(
                f"{model.name} is an {model.task} model: it edits pictures, and needs one to begin"
            )
        self.model = model
        self._reload = reload
        self.device, self.dtype = device, dtype
        self.slices, self.tile, self.offload, self.compiled = slices, tile, offload, compiled
        for encoder in model.text_encoders:
            for_inference(encoder, device, dtype, offload=offload)
        self.decoders = Decoders(model, device, dtype, tile=tile, offload=offload, compiled=compiled)
        unet = for_inference(model.unet, device, dtype, offload=offload, compiled=compiled)
        self.denoiser = Denoiser(unet, model.prediction, device, slices=slices)
        self.most_points = 8 if device.type == "cuda" else 1
        self.adapters = Adapters(model.networks)
        self.embeddings: dict[str, Embedding] = {}
        self._brought: dict[str, Embedding] = {}
        self._encode = lru_cache(maxsize=64)(self._encode_uncached)
        self._condition = lru_cache(maxsize=64)(self._condition_uncached)

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def fingerprint(self) -> str:
        return self.model.fingerprint

    @property
    def native_size(self) -> tuple[int, int]:
        """Width and height in pixels at which the model was trained."""
        return self.model.native_size

    @property
    def factor(self) -> int:
        """Pixels for each latent cell; widths and heights are multiples of it."""
        return self.model.factor

    def resolve(self, request: Request) -> Request:
        """`request` with every open field filled in as this model likes it.

        Raises `UsageError` for a size that the model cannot draw, and a decoder that it does not have.
        """
        self.decoders.check(request.decoder)
        defaults = self.model.defaults
        width, height = request.width or self.native_size[0], request.height or self.native_size[1]
        for name, value in (("width", width), ("height", height)):
            if value % self.factor:
                below = max(value // self.factor, 1) * self.factor
                raise UsageError(
                    f"{name} is {value}: must be a multiple of {self.factor} for this model, "
                    f"such as {below} or {below + self.factor}"
                )
        seed = secrets.randbelow(2**32) if request.seed is None else request.seed
        if request.fast:
            request = apply_fast(request, self.model)
        sampler = request.sampler or defaults.sampler
        spacing = "lcm" if sampler in ("lcm", "tcd") else defaults.spacing
        return request.changed(
            width=width,
            height=height,
            steps=request.steps or defaults.steps,
            guidance=defaults.guidance if request.guidance is None else request.guidance,
            sampler=sampler,
            spacing=request.spacing or spacing,
            seed=seed,
            model=self.source,
            vae=self.vae,
            tiny=self.tiny if request.decoder == TINY else None,
            base=self.base,
            prediction=self.prediction,
        )

    def notes(self, request: Request) -> tuple[str, ...]:
        """What the user should know of a resolved request that will probably not come out as hoped."""
        (native_width, native_height), (width, height) = self.native_size, _size(request)
        notes = []
        if not 0.5 <= width * height / (native_width * native_height) <= 2:
            native = f"{native_width}×{native_height}"
            notes.append(
                f"{width}×{height} is far from the {native} this model was trained at; "
                "shapes may be broken or repeated"
            )
        if max(width, height) > 2 * min(width, height):
            notes.append(f"{width}×{height} is longer than 2:1; shapes may be repeated")
        if self.model.unet.config.time_cond_proj_dim is not None and request.negative:
            notes.append("this model is told the guidance and reads no negative prompt")
        else:
            notes += _idle_notes(request)
        notes += self._limit_notes(request) + self._wish_notes(request)
        if request.dialect == "plain":
            for name in ("prompt", "negative"):
                phrase = Phrase((WeightedText(getattr(request, name)),))
                dropped = max(chunks(phrase, each, "plain")[1] for each in self.model.tokenizers)
                if dropped:
                    notes.append(
                        f"the {name} is {dropped} tokens too long for one window, and a plain prompt has no "
                        "other; its end was not read"
                    )
        return tuple(notes)

    def _limit_notes(self, request: Request) -> list[str]:
        """What a distilled model has not learned of what a resolved request asks of it."""
        limits, defaults = self.model.info.trained_range, self.model.defaults
        if limits is None:
            return []
        notes = []
        if defaults.sampler in CONSISTENCY_SAMPLERS and not compatible(request, defaults.sampler):
            notes.append(
                f"sampler {request.sampler!r} is not for what this distilled model has learned: "
                f"pictures will be worse; try {defaults.sampler!r}"
            )
        for name, value, (low, high), best in (
            ("steps", _set(request.steps), limits.steps, defaults.steps),
            ("guidance", _set(request.guidance), limits.guidance, defaults.guidance),
        ):
            if not low <= value <= high:
                notes.append(
                    f"{name} {value:g} is not what this distilled model has learned ({span(low, high)}): "
                    f"pictures will be worse, not better; try {best:g}"
                )
        return notes

    def _wish_notes(self, request: Request) -> list[str]:
        """What LoRAs of few steps need and a resolved request does not have, as far as they were read."""
        notes = []
        for use in self._uses(request):
            hints = self.adapters[use.name].sampling_hints if use.name in self.adapters.names else {}
            if use.weight and hints and (wrong := unmet_hints(hints, request)):
                notes.append(
                    f"the LoRA {use.name!r} is for few steps: it draws well only with {', '.join(wrong)}"
                )
        return notes

    def _style_notes(self, request: Request) -> list[str]:
        """What the user should know of styles that were made for another kind of model than this one."""
        kind = "stable-diffusion" if self.model.kind.startswith("sd") else None
        if self.source == EMBEDDED:
            kind = "embedded"
        known = load_styles() if request.style and kind else {}
        return [
            f"the style {name!r} was made for {MODELS[known[name].models[0]]}, and suits this model less"
            for name in request.style
            if name in known and known[name].models and kind not in known[name].models
        ]

    def generate(self, request: Request | str, **fields: Any) -> Image:
        """Draw one picture. `fields` are those of `Request`: `studio.generate("a red apple", seed=7)`."""
        request = _request(request, fields)
        if (count := expansion.pictures(request)) != 1:
            raise UsageError(f"the request is for {count} pictures: generate draws one; use generate_batch")
        return self.generate_batch(request)[0]

    def generate_batch(self, request: Request | str, **fields: Any) -> list[Image]:
        """Draw every picture that the request asks for, with seeds that count up from its own."""
        return [step.image for step in self.stream(request, **fields) if step.image is not None]

    def stream(self, request: Request | str, **fields: Any) -> Iterator[Step]:
        """Draw, one `Step` for each evaluation of the network; closing the iterator cancels the rest.

        A picture whose numbers leave the finite ones in half precision is drawn once more in float32.
        """
        request = self.resolve(_request(request, fields))
        singles = list(expansion.singles(request))
        for single in singles:
            self._fetch(self._uses(single), single.allow_partial)
        noted = [*self._style_notes(request), *(note for single in singles for note in self.notes(single))]
        for note in dict.fromkeys(noted):
            warnings.warn(note, SfumatoWarning, stacklevel=2)
        places = {object(): index for index in range(len(singles))}
        totals = [self._evaluations(single) for single in singles]
        for uses, alike in groupby(places.items(), lambda place: self._uses(singles[place[1]])):
            for event in self._drive(uses, (self.job(singles[index], key) for key, index in alike)):
                index = places[event.key]
                single = singles[index]
                if isinstance(event, Failed):
                    yield from self._again(single, index, len(singles), event.error)
                    continue
                yield Step(
                    image_index=index,
                    image_count=len(singles),
                    index=event.index,
                    total=totals[index],
                    sigma=event.level.sigma,
                    image=None if event.latent is None else self.develop(event.latent, single),
                    _estimate=event.x0,
                    _studio=self,
                    _request=single,
                )

    def _drive(self, uses: tuple[AdapterWeight, ...], jobs: Iterable[Job]) -> Iterator[Event]:
        """What happens to `jobs`, all of them with the adapters `uses`; closing it cancels the rest.

        Whoever draws with this studio between two events may have put other adapters into the weights.
        """
        engine = Engine(self.denoiser, self.most_points)
        with closing(engine.run(jobs)) as running:
            while (event := next(running, None)) is not None:
                yield event
                self.adapt(uses)
        self.most_points = engine.most_points

    def job(self, request: Request, key: Hashable) -> Job:
        """The drawing of a single picture, as `resolve` and `expansion.singles` leave it, for an engine.

        The adapters that it names are in use from here on, for all jobs of this studio.
        """
        self.adapt(self._uses(request), request.allow_partial)
        self._learn(request)
        levels = self._levels(request)
        noise = SeededNoise([_set(request.seed)])
        x = noise(self._empty(request)).to(self.device) * math.hypot(levels[0].a, levels[0].s)
        conditionings, guidance = self._guidance(request, len(levels) - 1)
        sampler = sampler_named(_set(request.sampler))
        own = {"scaling": self.model.schedule.timestep_scaling} if sampler.name == "lcm" else {}
        return Job(key, sampler.sample(x, levels, noise, **own), conditionings, guidance)

    def _levels(self, request: Request) -> list[Level]:
        return self.model.levels(_set(request.spacing), _set(request.steps))

    def _evaluations(self, request: Request) -> int:
        """How often drawing a single picture asks the network."""
        return evaluations(sampler_named(_set(request.sampler)).name, self._levels(request))

    def _again(self, request: Request, index: int, count: int, error: SfumatoError) -> Iterator[Step]:
        """The steps of a picture that failed, in float32; raises `error` where that cannot help."""
        full = self._full_precision
        if full is None or not isinstance(error, NumericsError):
            raise error
        warnings.warn(f"{error}; drawing it again in float32", SfumatoWarning, stacklevel=3)
        for name in self.adapters.names:
            if name not in full.adapters.names:
                full.adapters.add(self.adapters[name])
        full.embeddings |= self.embeddings
        full._brought |= self._brought
        for step in full.stream(request):
            yield replace(step, image_index=index, image_count=count)

    @cached_property
    def _full_precision(self) -> "Studio | None":
        """This studio in float32, if it is not, and if the model can be had again."""
        if self.dtype == torch.float32 or self._reload is None:
            return None
        return Studio(
            self._reload(torch.float32),
            source=self.source,
            vae=self.vae,
            tiny=self.tiny,
            base=self.base,
            prediction=self.prediction,
            device=self.device,
            dtype=torch.float32,
            slices=self.slices,
            tile=self.tile,
            offload=self.offload,
            compiled=self.compiled,
        )

    def _empty(self, request: Request) -> Tensor:
        """A latent (1, C, H, W) of the request's size."""
        width, height = _size(request)
        channels = self.model.vae.config.latent_channels
        return torch.empty(1, channels, height // self.factor, width // self.factor)

    def _guidance(self, request: Request, steps: int) -> tuple[list[Conditioning], Guidance]:
        """The conditionings of a request, and how they are weighed."""
        scale, told = _set(request.guidance), None
        if self.model.unet.config.time_cond_proj_dim is not None:
            scale, told = 1.0, scale - 1
        prompts, readings = self._prompts(request, steps)
        negatives: list[WeightedTerm] = []
        if scale != 1 or not _whole(prompts, steps):
            negatives, others = self._read(request.negative, request, steps, negative=True)
            readings = readings + others
        length = common_length([self._encode(reading).states.shape[1] for reading in readings])
        conditionings = [self._condition(reading, _size(request), told, length) for reading in readings]
        interval = request.guidance_interval or (0.0, math.inf)
        if _plain(prompts) and not negatives:
            return conditionings, Unguided()
        if _plain(prompts) and _plain(negatives):
            return conditionings, ClassifierFree(scale, interval, request.guidance_rescale)
        rescale = request.guidance_rescale
        return conditionings, ComposableGuidance(scale, tuple(prompts), tuple(negatives), interval, rescale)

    def _prompts(self, request: Request, steps: int) -> tuple[list[WeightedTerm], list[_Reading]]:
        """The prompt's terms, and those of the regions, which leave to the prompt what they do not cover."""
        shape = self._empty(request).shape
        masks = [_mask(region, shape[-1], shape[-2]).to(self.device) for region in request.regions]
        if not masks:
            return self._read(request.prompt, request, steps)
        covered = torch.stack(masks).sum(0)
        rest = (1 - covered).clamp(min=0)
        shares, readings = self._read(request.prompt, request, steps, mask=rest)
        for region, mask in zip(request.regions, masks, strict=True):
            part = mask / covered.clamp(min=1)
            more, their = self._read(region.prompt, request, steps, mask=part)
            shares, readings = shares + more, readings + their
        return shares, readings

    def _read(
        self, text: str, request: Request, steps: int, *, mask: Tensor | None = None, negative: bool = False
    ) -> tuple[list[WeightedTerm], list[_Reading]]:
        """Every content of `text`, and how much it counts in which steps."""
        shares, readings = [], []
        embeddings = self._named_in(text, request)
        for term in parse(text, request.dialect, negative=negative).terms(steps):
            for index, content in enumerate(term.contents):
                at = frozenset(step for step, which in enumerate(term.at) if which == index)
                weight = term.weight if mask is None else term.weight * mask
                shares.append(WeightedTerm(weight, at if len(term.contents) > 1 else None))
                zero = negative and not text and self.model.zero_negative
                readings.append(
                    _Reading(content, request.dialect, request.clip_skip, embeddings, negative, zero)
                )
        return shares, readings

    def _encode_uncached(self, reading: _Reading) -> TextEmbedding:
        """Text states of one content."""
        with torch.inference_mode():
            cond = self.model.encode(
                reading.content,
                reading.clip_skip,
                self.device,
                dialect=reading.dialect,
                embeddings=dict(reading.embeddings),
            )
        return cond.zeroed() if reading.zero else cond

    def _condition_uncached(
        self, reading: _Reading, size: tuple[int, int], w: float | None, length: int
    ) -> Conditioning:
        """One content made ready for the network at one picture size and length of text."""
        cond = self._encode(reading).repeated(length)
        ids = self.model.size_ids(size, negative=reading.negative)
        added = None if cond.pooled is None or ids is None else SizeConditioning(cond.pooled, ids)
        return self.denoiser.condition(cond.states, added, w)

    def load_adapter(self, path: str | Path, name: str | None = None, *, allow_partial: bool = False) -> str:
        """Read a LoRA or the like, and the name that requests and prompts call it by.

        `path`: a `.safetensors` file, or the name of one in the user's folder. Every key must find its layer,
        unless `allow_partial`. A file is read once: load it again when it has changed. Raises
        `CheckpointError` and `UsageError`.
        """
        file = folders.pick("adapters", str(path))
        name = name or file.stem
        self.adapt([use for use in self.adapters.active if use.name != name])
        adapter = self.adapters.load(file, name, allow_partial=allow_partial)
        if not adapter.report.whole:
            told = "; ".join(adapter.report.lines(most=3))
            warnings.warn(f"{file} fits in part: {told}", SfumatoWarning, stacklevel=2)
        return adapter.name

    def load_embedding(self, path: str | Path, name: str | None = None) -> str:
        """Read a learned embedding (textual inversion), and the name that prompts call it by.

        `path` as in `load_adapter`. Raises `CheckpointError`, also where it does not fit, and `UsageError`.
        """
        embedding = read_embedding(folders.pick("embeddings", str(path)))
        embedding.check_fits(self._text_widths)
        name = name or embedding.name
        self.embeddings[name] = embedding
        return name

    @property
    def _text_widths(self) -> list[int]:
        return [encoder.config.hidden_size for encoder in self.model.text_encoders]

    def _learn(self, request: Request) -> None:
        """Read the learned embeddings that a request brings or names."""
        for file in request.embeddings:
            if file not in self._brought:
                embedding = read_embedding(folders.pick("embeddings", file))
                embedding.check_fits(self._text_widths)
                self._brought[file] = embedding
        text = "\n".join(_texts(request))
        self.embeddings |= called(text, self._known(request), self._text_widths)

    def _known(self, request: Request) -> dict[str, Embedding]:
        """The learned embeddings that a request may call; those it brings stand before the studio's own."""
        brought = [self._brought[file] for file in request.embeddings]
        return {**self.embeddings, **{embedding.name: embedding for embedding in brought}}

    def _named_in(self, text: str, request: Request) -> tuple[tuple[str, Embedding], ...]:
        """The learned embeddings whose names stand in `text`."""
        known = self._known(request)
        return tuple((name, known[name]) for name in sorted(mentioned(text, known)))

    def _uses(self, request: Request) -> tuple[AdapterWeight, ...]:
        """The adapters of a request and those that its prompts call."""
        uses = [
            AdapterWeight(each.name, each.weight, each.text_weight, each.blocks) for each in request.adapters
        ]
        if request.fast:
            uses.append(AdapterWeight(FAST_LORA))
        for text in (request.prompt, *(region.prompt for region in request.regions)):
            for call in parse(text, request.dialect).adapters:
                uses.append(AdapterWeight(call.name, call.weight, call.text_weight))
        return tuple(uses)

    def adapt(self, uses: Sequence[AdapterWeight], allow_partial: bool = False) -> None:
        """Have just these adapters in use, read from the user's folder if need be.

        `allow_partial` as in `load_adapter`.
        """
        self._fetch(uses, allow_partial)
        if tuple(uses) != self.adapters.active and self.adapters.set_adapters(uses):
            self._forget()

    def _fetch(self, uses: Sequence[AdapterWeight], allow_partial: bool) -> None:
        """Have these adapters ready, read from the user's folder if need be."""
        for use in uses:
            if use.name not in self.adapters.names:
                file = self.model.fast if use.name == FAST_LORA else None
                self.load_adapter(file or use.name, use.name, allow_partial=allow_partial)

    def _forget(self) -> None:
        """Drop what was computed from weights that are others now."""
        self._encode.cache_clear()
        self._condition.cache_clear()
        self.denoiser.forget()

    @torch.inference_mode()
    def develop(self, latent: Tensor, request: Request, *, quick: bool = False) -> Image:
        """A latent (1, C, H, W) as a picture that carries `request`.

        Raises `NumericsError` rather than return a picture made of numbers that are not finite.
        """
        pixels = self.decoders.latent_rgb(latent) if quick else self.decoders.decode(latent, request.decoder)
        rgb = (pixels[0].float() / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
        array = rgb.permute(1, 2, 0).contiguous().cpu().numpy()
        adapters = {use.name: self.adapters[use.name] for use in self._uses(request)}
        if not all(adapter.report.whole for adapter in adapters.values()):
            request = request.changed(allow_partial=True)
        record = Record(
            sfumato=__version__,
            request=request,
            model=self.name,
            fingerprint=self.fingerprint,
            torch=torch.__version__,
            device=devices.describe(self.device),
            dtype=str(self.dtype).removeprefix("torch."),
            pixels=pixel_digest(array),
            adapters={name: adapter.fingerprint for name, adapter in adapters.items()},
            embeddings={
                name: embedding.fingerprint
                for text in _texts(request)
                for name, embedding in self._named_in(text, request)
            },
            notes=(*self.notes(request), *([f"decoded in tiles of {self.tile}"] if self.tile else [])),
        )
        return Image(array, record)


def load(
    source: str | Path = "embedded",
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    variant: str | None = None,
    vae: str | Path | None = None,
    tiny: str | Path | None = None,
    base: str | Path | None = None,
    prediction: str | None = None,
    slices: int | None = None,
    tile: int | None = None,
    offload: bool = False,
    compiled: bool = False,
    local_files_only: bool = False,
) -> Studio:
    """Load a model and make it ready to draw.

    `source`: "embedded", a diffusers folder, a `.safetensors` file, a hub id such as "org/name", or the name
    of a model in the user's folder. `device`: "cpu", "cuda", "mps"; the fastest one here unless given.
    `dtype`: "float32", "bfloat16", "float16"; the fastest one that is safe on the device unless given.
    `variant`: of the weight files, such as "fp16". `vae`: a file or folder with another autoencoder.
    `tiny`: one with a tiny autoencoder, such as TAESD, for previews and the decoder "tiny". `base`: a model
    that has what a file with a UNet alone lacks. `prediction`: "epsilon" or "v", where a Stable Diffusion 2
    file does not say.
    To draw in less memory with the same result: `slices`, parts into which attention splits its queries;
    `tile`, the side in latent cells of the tiles that large pictures are decoded in; `offload`, keep weights
    in main memory and bring them to the device part by part.
    `compiled`: have torch compile the networks for every size that is met, for many pictures of one size.
    Raises `CheckpointError` and `UsageError`.
    """
    where = devices.pick_device(device)
    precision = devices.pick_dtype(where, dtype)

    def fetch(dtype: torch.dtype) -> checkpoint.Model:
        return checkpoint.load(
            source,
            dtype=dtype,
            variant=variant,
            vae=vae,
            tiny=tiny,
            base=base,
            prediction=prediction,
            local_files_only=local_files_only,
        )

    return Studio(
        fetch(precision),
        source=str(source),
        vae=None if vae is None else str(vae),
        tiny=None if tiny is None else str(tiny),
        base=None if base is None else str(base),
        prediction=prediction,
        device=where,
        dtype=precision,
        slices=slices,
        tile=tile,
        offload=offload,
        compiled=compiled,
        reload=fetch,
    )


def _request(request: Request | str, fields: dict[str, Any]) -> Request:
    if isinstance(request, str):
        return Request.build(prompt=request, **fields)
    return request.changed(**fields) if fields else request


def _texts(request: Request) -> tuple[str, ...]:
    """Every text of a request."""
    return (request.prompt, request.negative, *(region.prompt for region in request.regions))


def _idle_notes(request: Request) -> list[str]:
    """What the user has set in a resolved request that does nothing there, as there is no guidance."""
    idle = [
        name
        for name, given in (
            ("the negative prompt", (request.origin or request).negative),
            ("guidance_interval", request.guidance_interval),
            ("guidance_rescale", request.guidance_rescale),
        )
        if given
    ]
    if not idle or request.guidance != 1:
        return []
    for text in (request.prompt, *(region.prompt for region in request.regions)):
        terms = parse(text, request.dialect).terms(_set(request.steps))
        if not math.isclose(sum(term.weight for term in terms), 1, abs_tol=1e-6):
            return []
    why = "fast draws without guidance" if request.fast else "guidance 1 is the prompt alone"
    return [f"{name} does nothing: {why}" for name in idle]


def _size(request: Request) -> tuple[int, int]:
    """Width and height of a resolved request."""
    return _set(request.width), _set(request.height)


def _plain(shares: Sequence[WeightedTerm]) -> bool:
    """Whether there is one share, of weight 1 in every step."""
    return len(shares) == 1 and shares[0] == WeightedTerm()


def _whole(shares: Sequence[WeightedTerm], steps: int) -> bool:
    """Whether the shares sum to 1 in every step, so that guidance 1 has no use for the negative prompt."""
    for step in range(steps):
        total = torch.zeros(())
        for share in shares:
            total = total + torch.as_tensor(share.at(step)).cpu()
        if not torch.allclose(total, torch.ones_like(total), atol=1e-6):
            return False
    return True


def _mask(region: Region, width: int, height: int) -> Tensor:
    """(1, 1, height, width): how much of each latent cell lies in the region's box, times its weight."""
    left, top, right, bottom = region.box

    def covered(count: int, low: float, high: float) -> Tensor:
        edges = torch.arange(count + 1, dtype=torch.float32) / count
        return (edges[1:].clamp(max=high) - edges[:-1].clamp(min=low)).clamp(min=0) * count

    cells = covered(height, top, bottom)[:, None] * covered(width, left, right)
    return region.weight * cells[None, None]


def _set(value: T | None) -> T:
    """A field that `resolve` has filled in."""
    assert value is not None
    return value
