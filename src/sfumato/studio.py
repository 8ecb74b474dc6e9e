"""The studio: the one object a user meets. It holds a loaded model and draws requests with it."""

import math
import secrets
import warnings
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from sfumato import __version__, checkpoint, devices
from sfumato.diffusion.guidance import ClassifierFree, Guidance, PromptOnly
from sfumato.diffusion.samplers import evaluations, sampler_named
from sfumato.diffusion.sampling import SeededNoise
from sfumato.diffusion.spacing import spacing_named
from sfumato.engine import Engine, Failed, Job
from sfumato.errors import NumericsError, SfumatoError, SfumatoWarning, UsageError
from sfumato.image import Image
from sfumato.metadata import Record, pixel_digest
from sfumato.nets.denoiser import Conditioning, Denoiser
from sfumato.nets.fast import prepare
from sfumato.nets.given import AddedCond
from sfumato.prompt.encode import window
from sfumato.request import MAX_SEED, Request

T = TypeVar("T")


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

    def preview(self, quick: bool = False) -> Image:
        """What the network believes the picture to be by now.

        `quick`: colours straight from the latent, a hundredth of the work and an eighth of the size.
        """
        return self._studio.develop(self._estimate, self._request, quick=quick)


class Studio:
    """A model, ready to draw. Make one with `sfumato.load`."""

    def __init__(
        self,
        model: checkpoint.Model,
        *,
        source: str = "embedded",
        device: torch.device,
        dtype: torch.dtype,
        slices: int | None = None,
        tile: int | None = None,
        offload: bool = False,
        compiled: bool = False,
        reload: Callable[[torch.dtype], checkpoint.Model] | None = None,
    ) -> None:
        """See `load` for the arguments; `reload` fetches the model again in another precision."""
        self.source = source
        if model.task != "text":
            raise UsageError(
                f"{model.name} is an {model.task} model: it edits pictures, and needs one to begin"
            )
        self.model = model
        self._reload = reload
        self.device, self.dtype = device, dtype
        upcast = getattr(model.vae.config, "force_upcast", False)
        self.vae_dtype = torch.float32 if dtype == torch.float16 and upcast else dtype
        self.slices, self.tile, self.offload, self.compiled = slices, tile, offload, compiled
        for encoder in model.text_encoders:
            prepare(encoder, device, dtype, offload=offload)
        prepare(model.vae, device, self.vae_dtype, offload=offload, compiled=compiled)
        unet = prepare(model.unet, device, dtype, offload=offload, compiled=compiled)
        self.denoiser = Denoiser(unet, model.prediction, device, slices=slices)
        self.engine = Engine(self.denoiser, most_points=8 if device.type == "cuda" else 1)
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

        Raises `UsageError` for a size that the model cannot draw.
        """
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
        if seed + request.count - 1 > MAX_SEED:
            raise UsageError(f"seed is {seed}: with {request.count} images the last seed passes {MAX_SEED}")
        return request.changed(
            width=width,
            height=height,
            steps=request.steps or defaults.steps,
            guidance=defaults.guidance if request.guidance is None else request.guidance,
            sampler=request.sampler or defaults.sampler,
            spacing=request.spacing or defaults.spacing,
            seed=seed,
            model=self.source,
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
        for name in ("prompt", "negative"):
            dropped = max(window(getattr(request, name), each)[1] for each in self.model.tokenizers)
            if dropped:
                notes.append(f"the {name} is {dropped} tokens too long for this model; its end was not read")
        return tuple(notes)

    def generate(self, request: Request | str, **fields: Any) -> Image:
        """Draw one picture. `fields` are those of `Request`: `studio.generate("a red apple", seed=7)`."""
        request = _request(request, fields)
        if request.count != 1:
            raise UsageError(f"count is {request.count}: generate draws one picture; use generate_batch")
        return self.generate_batch(request)[0]

    def generate_batch(self, request: Request | str, **fields: Any) -> list[Image]:
        """Draw `count` pictures, with seeds that count up from the request's."""
        return [step.image for step in self.stream(request, **fields) if step.image is not None]

    def stream(self, request: Request | str, **fields: Any) -> Iterator[Step]:
        """Draw, one `Step` for each evaluation of the network; closing the iterator cancels the rest.

        A picture whose numbers leave the finite ones in half precision is drawn once more in float32.
        """
        request = self.resolve(_request(request, fields))
        for note in self.notes(request):
            warnings.warn(note, SfumatoWarning, stacklevel=2)
        sampler, path = sampler_named(_set(request.sampler)), self.model.path
        levels = spacing_named(_set(request.spacing)).levels(path, _set(request.steps))
        total = evaluations(sampler.name, levels)
        conditionings, guidance = self._guidance(request)
        places = {object(): index for index in range(request.count)}

        def job(key: Hashable, index: int) -> Job:
            noise = SeededNoise([_set(request.seed) + index])
            x = noise(self._empty(request)).to(self.device) * math.hypot(levels[0].a, levels[0].s)
            return Job(key, sampler.sample(x, levels, noise), conditionings, guidance)

        for event in self.engine.run(job(*place) for place in places.items()):
            index = places[event.key]
            single = request.changed(seed=_set(request.seed) + index, count=1)
            if isinstance(event, Failed):
                yield from self._again(single, index, request.count, event.error)
                continue
            yield Step(
                image_index=index,
                image_count=request.count,
                index=event.index,
                total=total,
                sigma=event.level.sigma,
                image=None if event.latent is None else self.develop(event.latent, single),
                _estimate=event.x0,
                _studio=self,
                _request=single,
            )

    def _again(self, request: Request, index: int, count: int, error: SfumatoError) -> Iterator[Step]:
        """The steps of a picture that failed, in float32; raises `error` where that cannot help."""
        full = self._full_precision
        if full is None or not isinstance(error, NumericsError):
            raise error
        warnings.warn(f"{error}; drawing it again in float32", SfumatoWarning, stacklevel=3)
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

    def _guidance(self, request: Request) -> tuple[list[Conditioning], Guidance]:
        """The conditionings of a request, and how they are weighed."""
        scale, size = _set(request.guidance), _size(request)
        if self.model.unet.config.time_cond_proj_dim is not None:
            return [self._condition(request.prompt, request.clip_skip, size, scale - 1)], PromptOnly()
        prompt = self._condition(request.prompt, request.clip_skip, size)
        if scale == 1:
            return [prompt], PromptOnly()
        negative = self._condition(request.negative, request.clip_skip, size, negative=True)
        interval = request.guidance_interval or (0.0, math.inf)
        return [prompt, negative], ClassifierFree(scale, interval, request.guidance_rescale)

    def _condition_uncached(
        self,
        text: str,
        clip_skip: int,
        size: tuple[int, int],
        w: float | None = None,
        negative: bool = False,
    ) -> Conditioning:
        """One text made ready for the network at one picture size."""
        with torch.inference_mode():
            cond = self.model.encode(text, clip_skip, self.device)
        if negative and not text and self.model.zero_negative:
            cond = cond.zeroed()
        ids = self.model.size_ids(size, negative=negative)
        added = None if cond.pooled is None or ids is None else AddedCond(cond.pooled, ids)
        return self.denoiser.condition(cond.states, added, w)

    @torch.inference_mode()
    def develop(self, latent: Tensor, request: Request, *, quick: bool = False) -> Image:
        """A latent (1, C, H, W) as a picture that carries `request`.

        Raises `NumericsError` rather than return a picture made of numbers that are not finite.
        """
        pixels = self._glance(latent) if quick else self._decode(latent)
        rgb = (pixels[0].float() / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
        array = rgb.permute(1, 2, 0).contiguous().cpu().numpy()
        record = Record(
            sfumato=__version__,
            request=request,
            model=self.name,
            fingerprint=self.fingerprint,
            torch=torch.__version__,
            device=devices.describe(self.device),
            dtype=str(self.dtype).removeprefix("torch."),
            pixels=pixel_digest(array),
            notes=(*self.notes(request), *([f"decoded in tiles of {self.tile}"] if self.tile else [])),
        )
        return Image(array, record)

    def _decode(self, latent: Tensor) -> Tensor:
        """Pixels (1, 3, H, W), about [−1, 1]; decoded once more in float32 if half precision overflows."""
        vae = self.model.vae
        for dtype in dict.fromkeys((self.vae_dtype, torch.float32)):
            prepare(vae, self.device, dtype, offload=self.offload, compiled=self.compiled)
            raw = vae.unscale(latent.to(self.device, dtype))
            pixels = vae.decode_tiled(raw, self.tile, self.tile // 4) if self.tile else vae.decode(raw)
            if bool(torch.isfinite(pixels).all()):
                return pixels
        raise NumericsError(f"the decoded picture is not finite, in {self.vae_dtype} and in float32")

    def _glance(self, latent: Tensor) -> Tensor:
        """Pixels (1, 3, h, w), one for each latent cell: the linear map nearest to what the decoder does."""
        weight, bias = self._colours
        return torch.einsum("bchw,cd->bdhw", latent.float(), weight) + bias[:, None, None]

    @cached_property
    def _colours(self) -> tuple[Tensor, Tensor]:
        """Least-squares fit (C, 3), (3,) of the decoder on patches of random colour."""
        shape = (1, self.model.vae.config.latent_channels, 12, 12)
        patches = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(self.device)
        pixels = self._decode(torch.nn.functional.interpolate(patches, scale_factor=4.0))
        seen = torch.nn.functional.interpolate(pixels.float(), size=patches.shape[2:], mode="area")
        known = patches.flatten(2)[0].T
        known = torch.cat([known, torch.ones_like(known[:, :1])], dim=1)
        fitted = torch.linalg.lstsq(known, seen.flatten(2)[0].T).solution
        return fitted[:-1], fitted[-1]


def load(
    source: str | Path = "embedded",
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    variant: str | None = None,
    slices: int | None = None,
    tile: int | None = None,
    offload: bool = False,
    compiled: bool = False,
    local_files_only: bool = False,
) -> Studio:
    """Load a model and make it ready to draw.

    `source`: "embedded", a diffusers folder, or a hub id such as "org/name". `device`: "cpu", "cuda", "mps";
    the fastest one here unless given. `dtype`: "float32", "bfloat16", "float16"; the fastest one that is safe
    on the device unless given. `variant`: of the weight files, such as "fp16".
    To draw in less memory with the same result: `slices`, parts into which attention splits its queries;
    `tile`, the side in latent cells of the tiles that large pictures are decoded in; `offload`, keep weights
    in main memory and bring them to the device part by part.
    `compiled`: have torch compile the networks for every size that is met, for many pictures of one size.
    Raises `CheckpointError` and `UsageError`.
    """
    where = devices.pick_device(device)
    precision = devices.pick_dtype(where, dtype)

    def fetch(dtype: torch.dtype) -> checkpoint.Model:
        return checkpoint.load(source, dtype=dtype, variant=variant, local_files_only=local_files_only)

    return Studio(
        fetch(precision),
        source=str(source),
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


def _size(request: Request) -> tuple[int, int]:
    """Width and height of a resolved request."""
    return _set(request.width), _set(request.height)


def _set(value: T | None) -> T:
    """A field that `resolve` has filled in."""
    assert value is not None
    return value
