"""Drawing: a loaded model, and the pictures, steps and clean estimates that requests ask of it."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sfumato import checkpoint, devices, expansion
from sfumato.adapt.adapters import Adapters
from sfumato.adapt.embedding import Embedding
from sfumato.calls import DrawingCalls, one_picture
from sfumato.checkpoint.motion import LoadedMotion
from sfumato.decoders import Decoders
from sfumato.diffusion.frame_interpolation import first_redrawn, interpolated
from sfumato.diffusion.guidance import MAIN, Guidance, InversionGuidance, SizedGuidance, active_terms
from sfumato.diffusion.inpainting import resampled
from sfumato.diffusion.level import CLEAN, Level
from sfumato.diffusion.samplers import sampler_named
from sfumato.diffusion.sampling import (
    Noise,
    Point,
    Sampler,
    SecondPass,
    SeededNoise,
    Start,
    Wrapper,
    resumed,
    second_pass,
    visited,
)
from sfumato.diffusion.thresholding import bounded, bounded_ddim, dynamic_threshold
from sfumato.diffusion.variation import varied
from sfumato.edit.canvas import Canvas, canvas_of
from sfumato.edit.instruction import check_edit
from sfumato.edit.matting import cut_out, outlined
from sfumato.engine import Engine, Evaluated, Failed, Finished, Job, guided_estimates
from sfumato.errors import NumericsError, UsageError, warn
from sfumato.expansion import Prepared, Weights
from sfumato.image import Image
from sfumato.metadata import Record, pixel_digest
from sfumato.names import TEXT2VIDEO_ZERO
from sfumato.nets.compiled import library
from sfumato.nets.denoiser import Denoiser
from sfumato.nets.inference import for_inference, unpacked, weights_of
from sfumato.options import DEFAULT_DEVICE, DEFAULT_MODEL, DeviceOptions, ModelOptions
from sfumato.prompt.language import parse
from sfumato.prompt.meaning import AdapterWeight
from sfumato.prompt.styles import load_styles
from sfumato.request import (
    FRAMES_OF_CLIP,
    Request,
    RequestFields,
    Requests,
    request_of,
    requests_of,
)
from sfumato.series.upscaling import enlargement
from sfumato.space.shape import Shape
from sfumato.studio import advice, clips, editing, enlarging, passes
from sfumato.studio.conditioning import Conditioner
from sfumato.studio.controls import Controls
from sfumato.studio.layers import LayerFolder
from sfumato.studio.library import Library
from sfumato.studio.motions import Motions
from sfumato.studio.pia import picture_channels
from sfumato.studio.resolving import resolved
from sfumato.studio.step import GuidedDenoiser, Step
from sfumato.validation import as_path, shown
from sfumato.version import __version__
from sfumato.video import Video

T = TypeVar("T")

ROWS_AT_ONCE = 16
"""Rows of the native size that a batch may hold on a GPU; on a CPU a request's pictures are drawn singly."""
CELLS_DECODED = 4 * 64 * 64
"""Latent cells that are decoded at once on a GPU, as of four pictures of 512 × 512 pixels."""


class Studio(DrawingCalls):
    """A model, ready to draw; several threads may use it. Make one with `sfumato.load`.

    At the end of `with sfumato.load() as studio` it is closed, and its memory is free.
    """

    def __init__(
        self,
        model: checkpoint.Model,
        options: ModelOptions = DEFAULT_MODEL,
        device_options: DeviceOptions = DEFAULT_DEVICE,
        *,
        reload: Callable[[torch.dtype], checkpoint.Model] | None = None,
    ) -> None:
        """See `load` for the options; `reload` fetches the model again in another precision."""
        self.model, self.options, self.device_options = model, options, device_options
        self._reload = reload
        devices.set_threads(device_options)
        self.device = device = devices.pick_device(device_options.device)
        self.dtype = dtype = devices.pick_dtype(device, device_options.dtype)
        self.lock = RLock()
        """Held while the weights, or what is remembered of them, are used or changed."""
        offload, compiled = device_options.offload, device_options.compiled
        for encoder in (*model.text_encoders, *([model.vision] if model.vision else [])):
            for_inference(encoder, device, dtype, offload=offload)
        self.decoders = Decoders(model, device, dtype, device_options)
        if device_options.trainable:
            unpacked(model.unet).to(device, dtype).requires_grad_(True)
        else:
            int8 = device_options.quantization is not None
            if int8:
                devices.check_int8(device)
            for_inference(model.unet, device, dtype, offload=offload, compiled=compiled, quantized=int8)
        denoiser = Denoiser(
            model.unet,
            model.prediction,
            device,
            slices=device_options.slices,
            trainable=device_options.trainable,
        )
        self.networks = {MAIN: denoiser}
        """What the terms of a guidance may ask, by name."""
        self.library = Library(model)
        self.layers: LayerFolder | None = None
        """Where layers of scenes are kept, and those that have not changed are found."""
        local = options.local_files_only
        self.motions = Motions(model, device, dtype, device_options, local_files_only=local)
        self._conditioner = Conditioner(model, denoiser)
        self.controls = Controls(model, denoiser, device_options, local_files_only=local)
        self.budget: float = ROWS_AT_ONCE * self._native_cells if device.type == "cuda" else 0
        """How large a batch may be, in rows × latent cells: see `Engine`."""
        self.decode_budget: float = CELLS_DECODED if device.type == "cuda" else 0

    def confine(self) -> None:
        """From now on requests name adapters, embeddings and controls of the user's folders, and no paths."""
        self.library.names_only = self.controls.names_only = self.motions.names_only = True

    def close(self) -> None:
        """Free the memory of the weights. A closed studio draws no more: every use is a `UsageError`."""
        lock = self.lock
        with lock:
            vars(self).clear()
            self.lock = lock
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            if "model" not in vars(self) and not name.startswith("__"):
                raise UsageError("this studio is closed; load the model again")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        if "model" not in vars(self):
            return "<Studio, closed>"
        width, height = self.native_size
        dtype = str(self.dtype).removeprefix("torch.")
        adapters = f", adapters: {', '.join(map(repr, self.adapters))}" if len(self.adapters) else ""
        return (
            f"<Studio {self.name!r}: {self.model.kind}, {width}×{height}, {self.device}, {dtype}{adapters}>"
        )

    @property
    def name(self) -> str:
        """The model's name: "embedded", or that of its file or folder."""
        return self.model.name

    @property
    def source(self) -> str:
        """Where the model came from, as `load` was told."""
        return self.options.source

    @property
    def fingerprint(self) -> str:
        """What identifies the files of the model; its pictures record it."""
        return self.model.fingerprint

    @property
    def native_size(self) -> tuple[int, int]:
        """Width and height in pixels at which the model was trained."""
        return self.model.native_size

    def clip_frames(self, model: str | None = None) -> int:
        """Frames of a clip that does not say: as many as the model draws at once, if it is one of clips."""
        return self.model.info.frames or FRAMES_OF_CLIP

    @property
    def factor(self) -> int:
        """Pixels for each latent cell; widths and heights are multiples of it."""
        return self.model.factor

    @property
    def adapters(self) -> Adapters:
        """The adapters that are ready."""
        return self.library.adapters

    @property
    def embeddings(self) -> dict[str, Embedding]:
        """The learned embeddings that prompts may name, besides those in the user's folder."""
        return self.library.embeddings

    @property
    def weight_bytes(self) -> int:
        """What the weights take in memory: of the model, its controls, motion adapters and adapters, and of
        its twin in float32 where there is one.
        """
        networks = (*self.model.networks.values(), *self.controls.networks(), *self.motions.networks())
        tensors = {each for network in networks for each in weights_of(network)}
        tensors |= set(self.library.adapters.tensors())
        twin: Studio | None = vars(self).get("full_precision")
        return sum(each.nbytes for each in tensors) + (0 if twin is None else twin.weight_bytes)

    def resolve(self, request: Request) -> Request:
        """`request` with every open field filled in as this model likes it.

        Raises `UsageError` for a size that the model cannot draw, a decoder that it does not have, and a
        model that draws from more than a text.
        """
        return resolved(request_of(request, {}), self)

    def prepare(self, request: Requests | None = None, **fields: Unpack[RequestFields]) -> list[Prepared]:
        """Every picture that a request asks for, or several do, worked out once: what `job` draws.

        Its adapters and embeddings are read. Raises `UsageError` and `CheckpointError`.
        """
        prepared = []
        for each in requests_of(request, fields):
            request = self.resolve(each)
            sizes = enlarging.pass_sizes(request, self.factor)
            canvas = self.canvas(request.filled(width=sizes[0][0], height=sizes[0][1]))
            with self.lock:
                for size in sizes:
                    controls = self.controls.fetch(request.controls, size)
                upscalers = enlarging.fetch(request, self.decoders)
            for picture in map(clips.still, expansion.expand(request)):
                with self.lock:
                    motion = self._attached(picture.request)
                    self.library.fetch(picture.adapters, allow_partial=picture.request.allow_partial)
                    loaded = {use.name: self.adapters[use.name] for use in picture.adapters}
                    embeddings = self.library.named(picture)
                if motion is None and (moving := [name for name, own in loaded.items() if own.for_motion]):
                    raise UsageError(
                        f"the adapter {moving[0]} changes a motion adapter, and this is drawn without one: "
                        "give frames and motion"
                    )
                notes = advice.notes(picture, self.model, self.adapters)
                picture = replace(picture, embeddings=embeddings, loaded=loaded, canvas=canvas, notes=notes)
                picture = replace(picture, controls=controls, upscalers=upscalers, motion=motion)
                if self.model.text_encoders:
                    self._conditioner.check(picture)
                prepared.append(passes.prepared(picture, self))
        return prepared

    def _attached(self, request: Request) -> LoadedMotion | None:
        """The motion adapter of a resolved request, in the UNet, so that other adapters find its layers."""
        found = self.motions.fetch(request.motion)
        if found is not None:
            self._select(Weights(self.adapters.active, request.motion))
        return found

    def canvas(self, request: Request) -> Canvas | None:
        """What a request draws over by itself, not in passes."""
        return None if request.extend else canvas_of(request, self.native_size, self.factor)

    @property
    def quickest_decoder(self) -> str:
        """The decoder for pictures that are only measured."""
        return self.decoders.quickest

    def enlargement(self, request: Request) -> Request:
        """`request` for the enlargement of a picture, with a size that the model can draw and an upscaler."""
        return enlargement(request, self.factor, enlarging.upscaler_of(request, self.model))

    def check_edit(self, request: Request) -> None:
        """Raise `UsageError` for an edit that the model cannot carry out in the way that is asked for."""
        check_edit(request, self.model.name, self.model.task)

    def stream(self, request: Requests | None = None, **fields: Unpack[RequestFields]) -> Iterator[Step]:
        """Draw, one `Step` for each evaluation of the network; closing the iterator cancels the rest.

        Pictures may take turns, and end in another order than they were asked for: see `image_index`. One
        whose numbers leave the finite ones in half precision is drawn once more in float32. What is wrong
        with the request is raised here, before the first step.
        """
        requests = requests_of(request, fields)
        pictures = self.prepare(requests)
        styles = load_styles() if any(each.style for each in requests) else {}
        notes = [note for each in requests for note in advice.style_notes(each, self.model, styles)]
        for note in dict.fromkeys([*notes, *(note for picture in pictures for note in picture.notes)]):
            warn(note)
        return self.steps(pictures)

    def steps(self, pictures: Sequence[Prepared]) -> Iterator[Step]:
        """The steps of pictures that `prepare` has worked out, as those of `stream`."""

        def alike(index: int) -> tuple[int | None, Weights]:
            return index if pictures[index].parts else None, pictures[index].weights

        for (single, _), group in groupby(range(len(pictures)), alike):
            if single is None:
                yield from self._draw(pictures, list(group))
            else:
                for step in passes.drawn(pictures[single], self):
                    yield replace(step, image_index=single, image_count=len(pictures))

    def _draw(self, pictures: Sequence[Prepared], chosen: Sequence[int]) -> Iterator[Step]:
        """The steps of the `chosen` ones of `pictures`, by their indices."""
        totals = {index: self.evaluations(pictures[index]) for index in chosen}
        last: dict[int, Evaluated] = {}
        engine = self.engine()

        def step(index: int, event: Evaluated, image: Image | None, video: Video | None = None) -> Step:
            return Step(
                image_index=index,
                image_count=len(pictures),
                index=event.index,
                total=totals[index],
                sigma=event.level.sigma,
                image=image,
                _estimate=event.x0,
                _studio=self,
                _picture=pictures[index],
                video=video,
            )

        with ExitStack() as stack:
            events = stack.enter_context(closing(engine.run(self.job(pictures[i], i) for i in chosen)))
            stack.callback(self._learn_budgets, engine)
            while True:
                with self.lock:
                    event = next(events, None)
                if event is None:
                    return
                index: Any = event.key
                if isinstance(event, Evaluated):
                    if event.last:
                        last[index] = event
                    else:
                        yield step(index, event, None)
                elif isinstance(event, Finished):
                    # at strength 0 nothing is evaluated
                    done = last.pop(index, Evaluated(index, 0, 0, CLEAN, event.latent, event.latent, True))
                    if event.pixels is None:
                        yield step(index, done, None, self.video(event.latent, pictures[index]))
                    else:
                        yield step(index, done, self.image(event.pixels, pictures[index]))
                else:
                    for again in self._again(pictures[index], event):
                        yield replace(again, image_index=index, image_count=len(pictures))

    def _learn_budgets(self, engine: Engine) -> None:
        """Keep the sizes of batches that turned out to fit into the memory."""
        self.budget = min(self.budget, engine.budget)
        self.decode_budget = min(self.decode_budget, engine.decode_budget)

    def job(
        self, picture: Prepared, key: Any, *, start: Start | None = None, wrappers: Sequence[Wrapper] = ()
    ) -> Job:
        """The drawing of one picture that `prepare` has worked out, for an engine over `networks`.

        `start`: a clean latent, and where on the way from noise the drawing begins with it, in place of pure
        noise. `wrappers` are put around the sampler, the first of them innermost. What is drawn so is
        evaluated with the picture's adapters in the weights: the engine selects them.
        """
        if picture.parts:
            raise UsageError("a picture that is drawn in passes is no single job: see Studio.steps")
        request, canvas = picture.request, picture.canvas
        first_size = enlarging.first_size(request, self.factor)
        with self.lock, torch.no_grad():
            self._select(picture.weights)
            if canvas is not None and enlarging.enlarges(request):
                canvas = enlarging.enlarged_canvas(canvas, request, self.decoders)
                if request.strength == 0:
                    return enlarging.only(canvas, self.model, key)
            levels = self._levels(request, first_size)
            noise: Noise = SeededNoise([_set(request.seed)])
            if request.motion == TEXT2VIDEO_ZERO:
                noise = clips.same_noise(noise)
            if self.model.task == "animate":  # the picture's comes first, see `clips.guidance`
                clips.picture_noise(noise, first_size)
            shape = self.model.latent.shape(first_size, frames=clips.frames_begun(request))
            eps = noise(torch.empty(shape))
            eps = varied(eps, request.variation_seed, request.variation_amount)
            eps = clips.noise(eps, request).to(self.device)
            guidance = self._guidance(picture, canvas)
        if canvas is not None and request.inversion:
            with self.lock:
                x0 = self.decoders.encode(canvas.shown, seamless=request.seamless or "").to(eps)
            sampling = editing.inverted(request, self._sampler(request))(x0, levels, noise)
        else:
            if canvas is not None:
                with self.lock:
                    begun, inner = editing.begun(self.model, self.decoders, canvas, request, eps, noise)
                start, wrappers = start or begun, (*inner, *wrappers)
            if start is None:
                x, first = eps * math.hypot(levels[0].a, levels[0].s), 0
            else:
                x, first = start.noisy(levels, eps), start.step
            sampling = resumed(self._sampler(request)(x, levels[first:], noise), first)
        for wrapper in wrappers:
            sampling = wrapper(sampling)
        if second := self._second_pass(request, levels):
            sampling = second_pass(
                sampling, second.change, self._sampler(request), second.levels, noise, second.step
            )
        if factor := request.interpolate:
            loop = request.loop
            sampling = interpolated(sampling, factor, self._sampler(request), levels, noise, loop=loop)
        # a clip is decoded in parts, see `video`
        decode = enlarging.decode(request, self.decoders) if request.frames is None else None
        return Job(key, sampling, guidance, picture.weights, decode)

    def _second_pass(self, request: Request, levels: Sequence[Level]) -> SecondPass | None:
        """What follows a first pass over `levels`, if anything does."""
        given: dict[str, Any] = {"request": request, "decoders": self.decoders}
        if enlarging.refines(request):
            refining = self._levels(request, request.size, request.upscale_steps)
            change = partial(enlarging.enlarge_latent, **given)
            return SecondPass(change, refining, enlarging.second_step(request))
        if request.motion == TEXT2VIDEO_ZERO and clips.motion_of(request):
            change = partial(clips.moved_latent, **given)
            return SecondPass(change, levels, clips.second_step(request))
        return None

    def _guidance(self, picture: Prepared, canvas: Canvas | None) -> Guidance:
        """The guidance of every pass; `canvas` is laid out for the first."""
        request = picture.request
        first, *second = enlarging.pass_sizes(request, self.factor)
        steps = range(editing.first_step(request), _set(request.steps))
        guidance = self._pass_guidance(picture, canvas, first, steps)
        if request.inversion is not None:
            source = replace(picture, prompt=parse(request.source, request.dialect), regions=())
            bare = request.filled(
                regions=(), controls=(), guidance=1.0, guidance_rescale=0.0, cache_interval=1
            )
            guidance = InversionGuidance(
                guidance, self._pass_guidance(replace(source, request=bare), None, first, steps)
            )
        if request.interpolate:
            longer = clips.interpolated(picture)
            last = self._pass_guidance(longer, canvas, first, steps)
            numbers = (clips.frames_begun(request), request.frames)
            drawn = {self._sides(first, frames): guidance for frames in numbers}
            return SizedGuidance({**drawn, self._sides(first, longer.request.frames): last})
        if not second:
            return guidance
        large = canvas and replace(canvas, size=request.size)
        steps = range(enlarging.second_step(request), _set(request.upscale_steps))
        refining = self._pass_guidance(picture, large, request.size, steps)
        cells = (self._sides(size, None) for size in (first, request.size))
        return SizedGuidance(dict(zip(cells, (guidance, refining), strict=True)))

    def _sides(self, size: tuple[int, int], frames: int | None) -> tuple[int, ...]:
        """((F,) H, W) of the latent of a pass."""
        return tuple(self.model.latent.shape(size, frames=frames)[2:])

    def _pass_guidance(
        self, picture: Prepared, canvas: Canvas | None, size: tuple[int, int], taken: range
    ) -> Guidance:
        """The guidance of a pass of `size` over `canvas` that takes the steps `taken`, up to the last one."""
        request = picture.request
        if self.model.task == "animate":
            assert canvas is not None
            denoiser = self.networks[MAIN]
            windows = clips.windows(request, size, self.model, self.budget)
            return clips.guidance(self.model, denoiser, self.decoders, canvas, request, windows)
        channels = editing.input_channels(self.model, self.decoders, canvas, request.seamless or "")
        if picture.motion is not None and picture.motion.network.conv_in is not None:
            assert canvas is not None
            latent = self.decoders.encode(canvas.shown, seamless=request.seamless or "")
            channels = picture_channels(latent, request.clip_frames, _set(request.motion_amount))
        controls = self.controls.ready(request.controls, size, taken)
        windows_of = enlarging.windows if request.frames is None else clips.windows
        windows = windows_of(request, size, self.model, self.budget)
        return self._conditioner.guidance(picture, size, taken.stop, channels, controls, windows)

    def denoiser(
        self, request: Request | str | None = None, **fields: Unpack[RequestFields]
    ) -> GuidedDenoiser:
        """The guided denoiser of one picture's request, a function `(x, level) -> x0`: what samplers ask.

        Latents (B, C, H, W) of the request's size in float32, x = a·x0 + s·eps at `level`, any level of the
        model's path. Of a studio made with `trainable` the answer can be differentiated, by x and by the
        weights of the network. Prompts that change on the way are read as at the `step` of the request's own
        schedule that holds the level, unless it is given: samplers that look ahead (heun, dpm2-a, dpmpp-2s-a)
        ask for a level within the step before it. Raises `UsageError` as `prepare` does.
        """
        requests = one_picture(requests_of(request, fields), "a denoiser is of one")
        (picture,) = self.prepare(requests)
        for note in picture.notes:
            warn(note)
        # a cache is of one drawing
        picture = replace(picture, request=picture.request.filled(cache_interval=1))
        levels = self._levels(picture.request)

        def guidance() -> Guidance:
            self._select(picture.weights)
            return self._guidance(picture, picture.canvas)

        with self.lock:
            kept = None if self.device_options.trainable else guidance()

        def denoise(x: Tensor, level: Level, step: int | None = None) -> Tensor:
            if step is None:
                step = max(sum(each.sigma >= level.sigma for each in levels[:-1]) - 1, 0)
            with self.lock:
                own = kept or guidance()
                self._select(picture.weights)
                points = [Point(row, level, step) for row in x.split(1)]
                questions = [(point, own, active_terms(own, point)) for point in points]
                return torch.cat(guided_estimates(self.networks, questions))

        return denoise

    def _levels(
        self, request: Request, size: tuple[int, int] | None = None, steps: int | None = None
    ) -> list[Level]:
        """Those of a pass of `size`, the last one's if `None`, in `steps`, the first one's if `None`."""
        path = clips.path(self.motions.fetch(request.motion), self.model)
        count = steps or _set(request.steps)
        return self.model.levels(_set(request.spacing), count, size or request.size, path)

    def _field_shape(self, request: Request, quality: str, objective: str, faces: int) -> Shape:
        from sfumato.studio import shaping

        return shaping.field_shape(self, request, quality, objective, faces)

    def _textured_shape(self, request: Request, shape: Shape, faces: int | None) -> Shape:
        from sfumato.studio import texturing

        return texturing.textured_shape(self, request, shape, faces)

    def only_step(self, image: Image, picture: Prepared) -> Step:
        """The step of a picture for which no network was asked."""
        x = torch.from_numpy(np.array(image.pixels[..., :3])).permute(2, 0, 1)[None] / 127.5 - 1
        with self.lock:
            estimate = self.decoders.encode(x)
        return Step(0, 1, 0, 0, CLEAN.sigma, image, estimate, self, picture)

    def engine(self, order: Callable[[Any], float] | None = None, *, rows: int = 0) -> Engine:
        """An engine for the jobs of this studio, with batches of at least `rows` rows of the native size; see
        `Engine` for `order`.
        """
        budget = max(self.budget, rows * self._native_cells)
        return Engine(self.networks, budget, self._select, decode_budget=self.decode_budget, order=order)

    @property
    def _native_cells(self) -> int:
        return math.prod(self.model.latent.shape(self.model.native_size)[2:])

    def evaluations(self, picture: Prepared) -> int:
        """How often drawing a picture that `prepare` has worked out asks the network."""
        if picture.parts:
            return sum(map(self.evaluations, picture.parts))
        request = picture.request
        if enlarging.enlarges(request) and request.strength == 0:
            return 0
        sampler = self._sampler(request)
        levels = self._levels(request, enlarging.first_size(request, self.factor))
        if request.inversion:
            count = len(visited(editing.inverted(request, sampler), levels))
        else:
            count = len(visited(sampler, levels[editing.first_step(request) :]))
        if second := self._second_pass(request, levels):
            count += len(visited(sampler, second.levels[second.step :]))
        if request.interpolate:
            count += len(visited(sampler, levels[first_redrawn(levels) :]))
        return count

    def _sampler(self, request: Request) -> Sampler:
        """The sampler of a single picture, as the request has it step."""
        info = sampler_named(_set(request.sampler))
        own: dict[str, Any] = {}
        if info.name == "lcm":
            own = {"scaling": self.model.schedule.timestep_scaling}
        sample: Sampler = partial(info.sample, **own)
        schedule = self.model.schedule
        if schedule.thresholds:
            bound = partial(
                dynamic_threshold,
                ratio=schedule.dynamic_thresholding_ratio,
                most=schedule.sample_max_value,
            )
            ddim = info.name == "ddim"
            sample = partial(bounded_ddim, bound=bound) if ddim else bounded(sample, bound)
        return resampled(sample, times) if (times := request.resample or 1) > 1 else sample

    def _select(self, weights: Weights) -> None:
        """Have the network hold these adapters and no others, which must be ready, and the motion adapter.

        Pictures are drawn as well where there is one, but for PIA's.
        """
        adapters, motion = weights
        if motion is None and self.motions.shows_picture:
            motion = TEXT2VIDEO_ZERO
        if adapters and self.device_options.trainable:
            raise UsageError(
                "a trainable studio draws without adapters, which would be folded into the weights that are "
                "trained: put them beside the layers with studio.adapters.attach"
            )
        if adapters == self.adapters.active and motion in (None, self.motions.attached):
            return
        try:
            moved = motion is not None and self.motions.attach(motion, self.adapters)
            changed = self.adapters.set_adapters(adapters) or moved
        except BaseException:
            self._forget()
            raise
        if changed:
            self._forget()

    def _forget(self) -> None:
        """Drop what was computed from weights that are others now."""
        self._conditioner.forget()
        for network in self.networks.values():
            network.forget()

    def _again(self, picture: Prepared, failed: Failed) -> Iterator[Step]:
        """The steps of a picture that failed, in float32; raises the error where that cannot help."""
        with self.lock:
            full = self.full_precision
        if full is None or not isinstance(failed.error, NumericsError):
            raise failed.error
        warn(f"{failed.error}; drawing it again in float32")
        self.library.share(full.library)
        yield from full._draw(full.prepare(picture.request), [0])

    @cached_property
    def full_precision(self) -> "Studio | None":
        """This studio in float32, if it is not, and if the model can be had again."""
        if self.dtype == torch.float32 or self._reload is None:
            return None
        device_options = replace(self.device_options, dtype="float32", quantization=None)
        return Studio(self._reload(torch.float32), self.options, device_options)

    def trainable_copy(self) -> "Studio":
        """The model read again, its network differentiable and in float32; see `sfumato.load`.

        Raises `UsageError` where this studio was given a model and not where it came from.
        """
        if self._reload is None:
            raise UsageError("the model cannot be read again: load it with sfumato.load")
        options = replace(
            self.device_options,
            dtype="float32",
            trainable=True,
            offload=False,
            compiled=False,
            quantization=None,
        )
        return Studio(self._reload(torch.float32), self.options, options)

    def load_adapter(self, path: str | Path, name: str | None = None, *, allow_partial: bool = False) -> str:
        """Read a LoRA or the like, and the name that requests and prompts call it by.

        `path`: a `.safetensors` file, or the name of one in the user's folder. Every key must find its layer,
        unless `allow_partial`. A file is read once: load it again when it has changed. Raises
        `CheckpointError` and `UsageError`.
        """
        with self.lock:
            known = name or as_path(path).stem
            self.adapt([each for each in self.adapters.active if each.name != known])
            return self.library.load_adapter(path, name, allow_partial=allow_partial)

    def load_embedding(self, path: str | Path, name: str | None = None) -> str:
        """Read a learned embedding (textual inversion), and the name that prompts call it by.

        `path` as in `load_adapter`. Raises `CheckpointError`, also where it does not fit.
        """
        with self.lock:
            return self.library.load_embedding(as_path(path), name)

    def adapt(
        self,
        adapters: Sequence[AdapterWeight | str] | Weights,
        allow_partial: bool = False,
        *,
        motion: str | None = None,
    ) -> None:
        """Have the weights hold just these adapters, read from the user's folder if need be.

        A name is an adapter at weight 1. `allow_partial` as in `load_adapter`. `motion`: the motion adapter
        that the UNet is to hold too, one of `motions`, or the name for none; `None` leaves it as it is. What
        a job says of the weights, `Weights`, is both: an engine's `select` may be this.
        """
        if isinstance(adapters, Weights):
            adapters, motion = adapters
        uses = [_adapter(each) for each in ([adapters] if isinstance(adapters, str) else adapters)]
        with self.lock:
            self.library.fetch(uses, allow_partial=allow_partial)
            self._select(Weights(tuple(uses), motion))

    def preview(
        self, x0: Tensor, picture: Prepared, quick: bool = False, *, decoder: str | None = None
    ) -> Image:
        """A clean estimate (1, C, h, w) of a drawing as a picture; see `Step.preview`."""
        name = decoder or self.decoders.quickest
        with self.lock:
            pixels = self.decoders.latent_rgb(x0) if quick else self.decoders.decode(x0, name)
        request = picture.request.filled(transparent=False, sticker=0)
        request = request if quick else request.filled(decoder=name)
        return self.image(pixels, replace(picture, request=request))

    def video(self, latent: Tensor, picture: Prepared) -> Video:
        """A clip's latent (1, C, F, h, w) decoded, some frames at a time, with how it was drawn."""
        request, parts = picture.request, []
        for seen, kept in clips.decoded_parts(latent.shape[2], self.decoders.sees_frames):
            with self.lock:
                pixels = self.decoders.decode(latent[:, :, seen], request.decoder, request.seamless or "")
            parts.append(clips.pixels_of(pixels[:, :, kept]))
        frames = np.concatenate(parts)
        fps = _set(request.fps) * (request.interpolate or 1)
        return Video.of(frames, self._record(picture, request, ""), fps=fps, loop=request.loop)

    def preview_video(self, x0: Tensor, picture: Prepared, quick: bool = True) -> Video:
        """A clean estimate (1, C, F, h, w) of a drawing as a clip; see `Step.preview_video`."""
        frames = [self.preview(frame, picture, quick) for frame in x0.unbind(2)]
        fps = _set(picture.request.fps)
        return Video(tuple(frames), fps, picture.request.loop)

    def image(self, pixels: Tensor, picture: Prepared) -> Image:
        """Pixels (1, 3, H, W) in [−1, 1] as a picture that carries how it was drawn.

        What it was drawn over is around them, where they have the size at which it was drawn.
        """
        array = clips.pixels_of(pixels[:, :, None])[0]
        if picture.canvas is not None and array.shape[1::-1] == picture.canvas.size:
            array = picture.canvas.put_back(array)
        return self.finished(array, picture)

    def finished(self, array: NDArray[np.uint8], picture: Prepared) -> Image:
        """Pixels (H, W, 3) as a picture that carries how it was drawn, cut out if that is asked."""
        for name, adapter in picture.loaded.items():
            if name not in self.adapters.names or self.adapters[name] is not adapter:
                raise UsageError(f"the adapter {name!r} was loaded anew while a picture was drawn with it")
        request = picture.request
        if request.has_alpha:
            matte = cut_out(array)
            array = outlined(matte.pixels, request.sticker) if request.sticker else matte.pixels
            for note in matte.notes:
                warn(note)
            picture = replace(picture, notes=(*picture.notes, *matte.notes))
        if not all(adapter.report.whole for adapter in picture.loaded.values()):
            request = request.filled(allow_partial=True)
        record = self._record(picture, request, pixel_digest(array))
        return Image(array, record)

    def check_fits(self, picture: Prepared, path: Path) -> None:
        """Raise `UsageError` if a file called `path` cannot hold the picture, known before it is drawn."""
        self._record(picture, picture.request, "").check_fits(path)

    def _record(self, picture: Prepared, request: Request, pixels: str) -> Record:
        tile = self.decoders.tile(self.model.latent.shape(request.size))
        compiled = self.device.type == "cpu" and library() is not None
        return Record(
            sfumato=__version__,
            request=request,
            model=self.name,
            fingerprint=self.fingerprint,
            torch=torch.__version__,
            device=devices.describe(self.device),
            dtype=str(self.dtype).removeprefix("torch."),
            quantization=self.device_options.quantization,
            threads=torch.get_num_threads(),
            processor=f"{devices.processor()}, compiled kernels" if compiled else devices.processor(),
            pixels=pixels,
            adapters={name: adapter.fingerprint for name, adapter in picture.loaded.items()},
            motion=picture.motion.fingerprint if picture.motion else None,
            embeddings={name: each.fingerprint for name, each in picture.embeddings.items()},
            controls=dict(picture.controls),
            upscalers=dict(picture.upscalers),
            notes=(*picture.notes, *([f"decoded in tiles of {tile}"] if tile else [])),
        )


def _adapter(one: Any) -> AdapterWeight:
    if isinstance(one, AdapterWeight):
        return one
    if not isinstance(one, str):
        raise UsageError(f"cannot use {shown(one)}: an adapter is a name or an AdapterWeight")
    return AdapterWeight(one)


def _set(value: T | None) -> T:
    """A field that `resolve` has filled in."""
    assert value is not None
    return value
