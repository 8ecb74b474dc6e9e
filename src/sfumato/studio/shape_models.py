"""Shap-E (Jun & Nichol 2023): shapes drawn as latents, by the samplers and the engine that draw pictures."""

import math
import secrets
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self, Unpack

import PIL.Image
import torch
from torch import Tensor

from sfumato import devices
from sfumato.checkpoint.shape_model import ShapEModel, load_shape_model
from sfumato.diffusion.guidance import ClassifierFreeGuidance
from sfumato.diffusion.level import Level
from sfumato.diffusion.samplers import sampler_named
from sfumato.diffusion.sampling import Sampler, SeededNoise, visited
from sfumato.diffusion.spacing import spacing_named
from sfumato.diffusion.thresholding import bounded
from sfumato.edit.canvas import on_white
from sfumato.edit.clip_picture import clip_picture
from sfumato.engine import Engine, Evaluated, Failed, Finished, Job
from sfumato.errors import UsageError
from sfumato.nets.denoiser import Denoiser
from sfumato.nets.inference import for_inference
from sfumato.nets.shap_e import ImplicitField
from sfumato.nets.text import CLIPText
from sfumato.nets.vision import CLIPVision, PictureStates
from sfumato.options import DEFAULT_DEVICE, DeviceOptions, ModelOptions
from sfumato.prompt.encode import encode
from sfumato.request import Request, RequestOptions, request_of
from sfumato.space import implicit
from sfumato.space.settings import FACES
from sfumato.space.shape import Shape, check_frames, check_puffing

STEPS, GUIDANCE, SAMPLER = 25, 4.0, "heun"
"""Unless a request says otherwise, as in diffusers' pipelines."""
FRAMES, SIDE = 12, 64
"""Of views of the radiance field: how many, and of how many pixels a side."""
_READ = {"prompt", "image", "seed", "steps", "guidance", "sampler", "spacing"}
"""The fields of a request that mean something here, besides what says which model."""

Told = Callable[[int, int], None]
"""Is told how many of how many evaluations are done."""


class ShapeModel:
    """A model of shapes, ready to draw: Shap-E's, of texts or of pictures. Make one with `load`."""

    def __init__(self, model: ShapEModel, device_options: DeviceOptions = DEFAULT_DEVICE) -> None:
        if device_options.quantization is not None:
            raise UsageError("quantization is given, and Shap-E is not drawn in int8")
        self.model = model
        devices.set_threads(device_options)
        self.device = device = devices.pick_device(device_options.device)
        self.dtype = dtype = devices.pick_dtype(device, device_options.dtype)
        offload = device_options.offload
        for_inference(model.encoder, device, dtype, offload=offload)
        for_inference(model.prior, device, dtype, offload=offload, compiled=device_options.compiled)
        # waves of 2^14 of a place leave the precision of fewer bits
        for_inference(model.renderer, device, torch.float32)
        self.device_options = device_options
        self._denoiser = self.denoiser(model.prediction)

    @classmethod
    def load(cls, source: str | Path | ModelOptions, device_options: DeviceOptions = DEFAULT_DEVICE) -> Self:
        """Load a folder of Shap-E's in diffusers' layout, or a hub id. Raises `CheckpointError`."""
        dtype = devices.pick_dtype(devices.pick_device(device_options.device), device_options.dtype)
        return cls(load_shape_model(source, dtype=dtype), device_options)

    def denoiser(self, prediction: str) -> Denoiser:
        """The prior, its answers read as `prediction` says, a name of `sfumato.diffusion.predict`."""
        slices = self.device_options.slices
        return Denoiser(self.model.prior, prediction, self.device, slices=slices)

    def __repr__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"<ShapeModel {self.model.name!r}: from {self.model.task}, {self.device}, {dtype}>"

    def resolve(self, request: Request | str, **fields: Unpack[RequestOptions]) -> Request:
        """A request with every open field that is read filled in.

        Raises `UsageError` for a field that shapes have no use for, and for a text or picture that is missing
        or not read by this model.
        """
        request = request_of(request, fields)
        own = {*_READ, *ModelOptions.__dataclass_fields__, "model"}
        if others := sorted(set(request.model_dump(exclude_defaults=True)) - own):
            raise UsageError(f"{', '.join(others)} is given, and Shap-E does not read it")
        pictures = self.model.task == "image"
        if pictures and (request.image is None or request.prompt):
            raise UsageError(f"{self.model.name} makes shapes of pictures: give a picture, and no prompt")
        if not pictures and request.image is not None:
            raise UsageError(f"{self.model.name} makes shapes of prompts: give no picture")
        return request.filled(
            seed=secrets.randbelow(2**32) if request.seed is None else request.seed,
            steps=request.steps or STEPS,
            guidance=GUIDANCE if request.guidance is None else request.guidance,
            sampler=request.sampler or SAMPLER,
            spacing=request.spacing or self.spacing,
        )

    @property
    def spacing(self) -> str:
        """Of the noise levels, as the model's scheduler has it."""
        schedule = self.model.schedule
        if schedule.use_karras_sigmas:
            return "karras"
        return "exponential" if schedule.use_exponential_sigmas else schedule.timestep_spacing

    def shape(
        self,
        request: Request | str = "",
        *,
        faces: int = FACES,
        told: Told | None = None,
        **fields: Unpack[RequestOptions],
    ) -> Shape:
        """The textured surface of what is drawn, of about so many `faces`; see `latent`."""
        check_puffing(1.0, "inpaint", faces)
        return self.shape_of(self.latent(request, told=told, **fields), faces=faces)

    def latent(
        self,
        request: Request | str = "",
        *,
        noise: Tensor | None = None,
        told: Told | None = None,
        **fields: Unpack[RequestOptions],
    ) -> Tensor:
        """A latent (N, D), drawn of a prompt or, by a model of pictures, of `image`.

        `fields` are those of `Request` that `resolve` allows. `noise` (N, D): standard normal, from `seed`
        unless given. `told` is called after each evaluation of the network. Raises `UsageError`, and
        `NumericsError` where the network's answers leave the finite numbers.
        """
        request = self.resolve(request, **fields)
        assert request.seed is not None
        assert request.steps is not None
        levels = self._levels(request)
        seeded = SeededNoise([request.seed])
        eps = seeded(torch.empty(1, 1, *self.model.latent_size)) if noise is None else noise[None, None]
        sample = self._sampler(request)
        x = eps.float() * math.hypot(levels[0].a, levels[0].s)
        job = Job(0, sample(x.to(self.device), levels, seeded), self._guidance(request))
        total = len(visited(sample, levels))
        for event in Engine(self._denoiser).run([job]):
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Evaluated) and told is not None:
                told(event.index, total)
            if isinstance(event, Finished):
                return event.latent[0, 0].float().cpu()
        raise AssertionError("a job ends finished or failed")

    @torch.no_grad()
    def field(self, latent: Tensor) -> ImplicitField:
        """The implicit functions that a latent (N, D) stands for."""
        made: ImplicitField = self.model.renderer(latent)
        return made

    def shape_of(self, latent: Tensor, *, faces: int = FACES, grid: int = implicit.GRID) -> Shape:
        """The textured surface of a latent (N, D), found on a grid of `grid`³ points.

        Raises `UsageError` where none has formed.
        """
        return Shape(implicit.mesh(self.field(latent), faces=faces, grid=grid))

    def views(self, latent: Tensor, frames: int = FRAMES, size: int = SIDE) -> Iterator[PIL.Image.Image]:
        """Pictures of `size` × `size` pixels of a latent's radiance field from even azimuths."""
        check_frames(frames)
        return implicit.turning(self.field(latent), self.model.renderer.void.background, frames, size)

    def _levels(self, request: Request) -> Sequence[Level]:
        assert request.spacing is not None
        return spacing_named(request.spacing).levels(self.model.path, request.steps)

    def _sampler(self, request: Request) -> Sampler:
        assert request.sampler is not None
        sample, schedule = sampler_named(request.sampler).sample, self.model.schedule
        if not schedule.clips:
            return sample
        most = schedule.clip_sample_range
        return bounded(sample, partial(torch.clamp, min=-most, max=most))

    @torch.no_grad()
    def _guidance(self, request: Request) -> ClassifierFreeGuidance:
        assert request.guidance is not None
        if request.image is None:
            states = self.text_states(request.prompt)
        else:
            picture = PIL.Image.fromarray(on_white(request.image.rgba))
            states = self.picture_states(clip_picture(picture, self.picture_side))
        given, none = (self._denoiser.condition(each) for each in (states, torch.zeros_like(states)))
        return ClassifierFreeGuidance.of(given, none, request.guidance)

    @property
    def picture_side(self) -> int:
        """Pixels a side of what a model of pictures sees of one."""
        assert isinstance(self.model.encoder, CLIPVision)
        return self.model.encoder.config.image_size

    @torch.no_grad()
    @devices.own_precision
    def picture_states(self, pixels: Tensor) -> Tensor:
        """What the prior is told of pictures (B, 3, S, S), made ready by `clip_picture`, (B, T, C)."""
        seen: PictureStates = self.model.encoder(pixels.to(self.device, self.dtype))
        return seen.last[:, 1:].float()

    @torch.no_grad()
    @devices.own_precision
    def text_states(self, prompt: str) -> Tensor:
        """What the prior is told of a text: one vector of length √C, (1, 1, C)."""
        encoder = self.model.encoder
        assert isinstance(encoder, CLIPText)
        assert self.model.tokenizer is not None
        told: Any = {"dialect": "plain", "penultimate": True, "device": self.device}
        pooled = encode(prompt, [self.model.tokenizer], [encoder], **told).pooled
        assert pooled is not None
        direction: Tensor = pooled.float() / torch.linalg.norm(pooled.float(), dim=-1, keepdim=True)
        return direction[:, None] * math.sqrt(pooled.shape[-1])
