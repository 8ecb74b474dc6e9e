"""Shap-E's pipelines (Jun & Nichol 2023): shapes from texts and pictures, drawn by `sfumato.ShapeModel`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import PIL.Image
import torch
from torch import Tensor

from sfumato.checkpoint.shape_model import ShapEModel, load_shape_model
from sfumato.checkpoint.source import pull
from sfumato.compat.arguments import Text, check, listed
from sfumato.compat.assembling import as_scheduler
from sfumato.compat.drawing import CallState, Conditions, StepResult, draw
from sfumato.compat.memory import asked_place
from sfumato.compat.noise import BatchNoise, Generators
from sfumato.compat.outputs import Output, to_pil
from sfumato.compat.plan import SampleArgs
from sfumato.compat.progress import ProgressMixin
from sfumato.compat.scheduler import Scheduler
from sfumato.compat.schedulers import scheduler_of
from sfumato.compat.sources import Dtype, hub_options, mapped_device, no_others, number, wanted_dtype, whole
from sfumato.devices import pick_device
from sfumato.edit.clip_picture import clip_picture
from sfumato.errors import UsageError, nearest
from sfumato.nets.shap_e import ImplicitField
from sfumato.options import DeviceOptions
from sfumato.space import implicit
from sfumato.space.camera import Camera
from sfumato.studio import ShapeModel
from sfumato.validation import shown

FORMS = ("pil", "np", "latent", "mesh")
VIEWS, ELEVATION, HALF_WIDTH = 20, math.degrees(math.atan(0.5)), math.tan(0.35)
"""Of diffusers' cameras: how many, how high they stand, and how far they see to each side."""
COUNTS = ("num_images_per_prompt", "num_inference_steps")
UNSUPPORTED = {
    "save_pretrained": "copy the model's folder",
    "from_pipe": "load the model again",
    "push_to_hub": "`hf upload` its folder",
}
"""Names of diffusers' pipelines that are left out, with what to do instead."""


@dataclass
class ShapEPipelineOutput(Output):
    """`images`: of each shape twenty views, as PIL images or an array (B, 20, H, W, 3) in [0, 1]; or its
    latents (B, N, D); or its meshes.
    """

    images: Any


@dataclass
class MeshDecoderOutput(Output):
    """A mesh: `verts` (V, 3), z upwards; `faces` (F, 3); `vertex_channels`, "R", "G" and "B" (V,) in [0, 1],
    linear.
    """

    verts: Tensor
    faces: Tensor
    vertex_channels: dict[str, Tensor]


def pan_cameras(size: int) -> list[Camera]:
    """diffusers' twenty cameras of `size` × `size` pixels: all around, the last where the first is.

    Their angle is that between the middles of the outermost pixels.
    """
    fov = math.degrees(2 * math.atan(HALF_WIDTH * size / (size - 1)))
    azimuths = [-360 * number / (VIEWS - 1) for number in range(VIEWS)]
    return [Camera(azimuth, ELEVATION, implicit.DISTANCE, fov, size, size) for azimuth in azimuths]


class ShapePipeline(ProgressMixin):
    """What both pipelines share; its `from_pretrained` chooses by what the model makes shapes of."""

    TASK: ClassVar[str | None] = None
    """What it makes shapes of: "text" or "image"."""

    def __init__(self, shapes: ShapeModel, source: str, scheduler: Scheduler) -> None:
        self.shapes, self.name_or_path = shapes, source
        self.scheduler = scheduler

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        torch_dtype: Dtype = None,
        dtype: Dtype = None,
        variant: str | None = None,
        scheduler: Any = None,
        device_map: str | Mapping[str, Any] | None = None,
        **others: Any,
    ) -> Self:
        """Load a folder or a hub id, on the CPU, in float32 unless told otherwise.

        Raises `CheckpointError`, and `UsageError` for what is not supported.
        """
        source = place = pretrained_model_name_or_path
        hub = hub_options(others)
        local = hub.pop("local_files_only")
        if any(hub.values()) and not Path(source).expanduser().exists():
            place = pull(str(source), variant=variant, local_files_only=local, **hub)
        wanted = wanted_dtype("from_pretrained", dtype, torch_dtype, "prior")
        options = {"variant": variant, "local_files_only": local}
        return cls.load(place, str(source), wanted, scheduler, device_map, options, others)

    @classmethod
    def load(
        cls,
        place: str | Path,
        source: str,
        dtype: torch.dtype | None,
        scheduler: Any,
        device_map: str | Mapping[str, Any] | None,
        options: Mapping[str, Any],
        others: Mapping[str, Any],
    ) -> Self:
        """Load what is at `place`, called `source`. Raises as `from_pretrained`."""
        no_others(cls.__name__, others)
        model = load_shape_model(place, dtype=dtype, **options)
        kind: Any = next(
            (
                each
                for each in (ShapEPipeline, ShapEImg2ImgPipeline)
                if issubclass(each, cls) and model.task == each.TASK
            ),
            None,
        )
        if kind is None:
            raise UsageError(f"{cls.__name__} does not draw with {model.name}, a model of {model.task}s")
        precision = str(dtype or model.prior.dtype).removeprefix("torch.")
        shapes = ShapeModel(model, DeviceOptions(device=str(mapped_device(device_map)), dtype=precision))
        made: Self = kind(shapes, source, scheduler or scheduler_of(model.scheduler))
        return made

    @property
    def model(self) -> ShapEModel:
        """The model as Sfumato holds it."""
        return self.shapes.model

    @property
    def device(self) -> torch.device:
        return self.shapes.device

    @property
    def dtype(self) -> torch.dtype:
        return self.shapes.dtype

    @property
    def scheduler(self) -> Scheduler:
        """The scheduler, which sets the sampler and the noise levels; it can be assigned."""
        return self._scheduler

    @scheduler.setter
    def scheduler(self, value: Any) -> None:
        self._scheduler = as_scheduler(value)

    def to(self, *places: Any, **named: Any) -> Self:
        """Move to a device, a dtype, or both: `to("cuda")`, `to(torch.float16)`, `to(torch_device=…)`."""
        device, dtype = asked_place(self.device, self.dtype, places, named)
        return self._placed(device=str(device), dtype=str(dtype).removeprefix("torch."))

    def cuda(self) -> Self:
        return self.to("cuda")

    def cpu(self) -> Self:
        return self.to("cpu")

    def enable_model_cpu_offload(
        self, gpu_id: int | None = None, device: str | torch.device | None = None
    ) -> None:
        """Keep weights in main memory and copy them to the device, by default the fastest, when needed."""
        where = device if gpu_id is None else f"cuda:{gpu_id}"
        self._placed(device=str(pick_device(where)), offload=True)

    enable_sequential_cpu_offload = enable_model_cpu_offload

    def maybe_free_model_hooks(self) -> None:
        """Nothing to do: with offloading, weights are in main memory whenever they do not compute."""

    remove_all_hooks = maybe_free_model_hooks

    def _placed(self, **changes: Any) -> Self:
        options = replace(self.shapes.device_options, **changes)
        self.shapes = ShapeModel(self.model, options)
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__} of {self.shapes!r}"

    def __getattr__(self, name: str) -> Any:
        why = UNSUPPORTED.get(name, "it is not supported")
        raise AttributeError(f"{type(self).__name__} of sfumato.compat has no {name}: {why}")

    def _draw(self, states: Tensor, given: Mapping[str, Any], scaled: bool) -> Any:
        """Draw shapes of P conditions `states` (P, T, C), as the `locals()` of a call say.

        `scaled`: whether latents that are given are unit noise, and not yet in the scheduler's scale.
        """
        check(given)
        form, size = given["output_type"], whole("frame_size", given["frame_size"])
        if form not in FORMS:
            raise UsageError(f"output_type = {form!r} is not supported; {nearest(str(form), FORMS)}")
        if not 2 <= size <= 4096:
            raise UsageError(f"frame_size is {size}: must be 2 to 4096")
        times, steps = (whole(name, given[name]) for name in COUNTS)
        for name, count in zip(COUNTS, (times, steps), strict=True):
            if count < 1:
                raise UsageError(f"{name} is {count}: must be at least 1")
        states = states.repeat_interleave(times, dim=0)
        state = CallState(guidance_scale=number("guidance_scale", given["guidance_scale"]))
        plan = self.scheduler.plan(SampleArgs(steps))
        state.num_timesteps = len(plan.evaluated)
        shape = len(states), 1, *self.model.latent_size
        noise = BatchNoise(given["generator"], shape, self.device, plan.noise_dtype or self.dtype)
        latents = self._given_latents(given["latents"], shape)
        if latents is None:
            latents, scaled = noise.block(), True
        latents = latents * plan.init_noise_sigma if scaled else latents
        noise.skip(plan.unused)
        if state.do_classifier_free_guidance:
            states = torch.cat([torch.zeros_like(states), states])
        denoiser = self.shapes.denoiser(self.scheduler.prediction)
        with self.progress_bar(total=state.num_timesteps) as bar:

            def after(result: StepResult) -> tuple[Tensor, None]:
                bar.update()
                return result.latents, None

            found = draw(state, denoiser, plan, Conditions(states), latents, noise, after)
        if form == "latent":
            return ShapEPipelineOutput(found[:, 0].to(self.dtype))
        made = ShapEPipelineOutput(self._in_form([*found[:, 0].float().cpu()], form, size))
        return made if given["return_dict"] else made.to_tuple()

    def _given_latents(self, latents: Tensor | None, shape: tuple[int, ...]) -> Tensor | None:
        """The caller's latents (B, N·D) in `shape`. Raises `UsageError`."""
        if latents is None:
            return None
        due = shape[0], shape[2] * shape[3]
        if tuple(latents.shape) not in (due, (shape[0], *shape[2:])):
            raise UsageError(f"latents have the shape {tuple(latents.shape)}: this call's is {due}")
        return latents.to(self.device, torch.float32).view(shape)

    @torch.no_grad()
    def _in_form(self, latents: Sequence[Tensor], form: str, size: int) -> Any:
        """Latents (N, D) as views of `size` × `size` pixels, or as meshes."""
        fields = [self.shapes.field(latent) for latent in latents]
        if form == "mesh":
            return [_mesh(field) for field in fields]
        cameras, background = pan_cameras(size), self.model.renderer.void.background
        pixels = torch.stack([implicit.views(field, cameras, background) for field in fields]).numpy()
        return [to_pil(each) for each in pixels] if form == "pil" else pixels


def _mesh(field: ImplicitField) -> MeshDecoderOutput:
    """The surface in the functions' own coordinates, as much smaller as diffusers' is, see docs/shapes.md.

    Colours are those at the places of the smaller one, in linear light.
    """
    found = implicit.implicit_surface(field, implicit.GRID)
    shrunk = (implicit.GRID - 1) / (implicit.GRID + 1)
    places = implicit.turned(torch.from_numpy(found.vertices).float()) * shrunk
    colours = field.surface(places)[1].cpu()
    linear = torch.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    channels = dict(zip("RGB", linear.unbind(1), strict=True))
    return MeshDecoderOutput(places, torch.from_numpy(found.faces).long(), channels)


class ShapEPipeline(ShapePipeline):
    """Shap-E's model of texts."""

    TASK = "text"

    def __call__(
        self,
        prompt: Text,
        num_images_per_prompt: int = 1,
        num_inference_steps: int = 25,
        generator: Generators = None,
        latents: Tensor | None = None,
        guidance_scale: float = 4.0,
        frame_size: int = 64,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> Any:
        """Draw shapes of one prompt or several. Raises `UsageError`."""
        given = locals()
        check(given)
        texts = listed(prompt)
        if texts is None:
            raise UsageError("give a prompt")
        states = torch.cat([self.shapes.text_states(text) for text in texts])
        return self._draw(states, given, scaled=True)


class ShapEImg2ImgPipeline(ShapePipeline):
    """Shap-E's model of pictures."""

    TASK = "image"

    def __call__(
        self,
        image: Any,
        num_images_per_prompt: int = 1,
        num_inference_steps: int = 25,
        generator: Generators = None,
        latents: Tensor | None = None,
        guidance_scale: float = 4.0,
        frame_size: int = 64,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> Any:
        """Draw shapes of one picture or several: PIL images, or what CLIP is shown, (B, 3, S, S).

        Raises `UsageError`.
        """
        given = locals()
        return self._draw(self.shapes.picture_states(self._pixels(image)), given, scaled=False)

    def _pixels(self, image: Any) -> Tensor:
        side = self.shapes.picture_side
        pictures = [*image] if isinstance(image, list | tuple) else [image]
        parts = []
        for each in pictures:
            if isinstance(each, PIL.Image.Image):
                parts.append(clip_picture(each.convert("RGB"), side))
            elif isinstance(each, Tensor) and each.shape[-3:] == (3, side, side) and each.ndim in (3, 4):
                parts.append(each.view(-1, 3, side, side))
            else:
                raise UsageError(
                    f"image is {shown(each)}: must be a PIL image, or a tensor (B, 3, {side}, {side})"
                )
        if not parts:
            raise UsageError("image is an empty list: give a picture")
        return torch.cat(parts)
