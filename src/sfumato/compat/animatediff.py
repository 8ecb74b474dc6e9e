"""The pipelines of diffusers that draw clips with a motion adapter: AnimateDiff's, and PIA's."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from sfumato.checkpoint.layout import ENCODER
from sfumato.checkpoint.motion import LoadedMotion
from sfumato.compat.arguments import Size, StepEnd, Text, share
from sfumato.compat.drawing import Conditions
from sfumato.compat.families import LATENTS, StableDiffusion, StableDiffusionXL
from sfumato.compat.free_init import FreeInit
from sfumato.compat.noise import BatchNoise, Generators
from sfumato.compat.outputs import AnimateDiffPipelineOutput, PIAPipelineOutput
from sfumato.compat.pipeline import DiffusionPipeline
from sfumato.compat.plan import SampleArgs, SamplingPlan
from sfumato.compat.sources import whole
from sfumato.compat.videos import VideoCall
from sfumato.errors import UsageError
from sfumato.studio import Studio
from sfumato.studio.pia import SCALES, picture_channels


class AnimatedCall(VideoCall):
    """A call of AnimateDiff."""

    CHUNK = "decode_chunk_size"

    def __init__(self, pipe: "DiffusionPipeline", given: Mapping[str, Any]) -> None:
        super().__init__(pipe, given)
        known = pipe.motion_adapter.network.frames
        if self.frames > known:
            raise UsageError(f"num_frames is {self.frames}: the motion adapter knows {known} frames")

    def sampled(self, latents: Tensor) -> Tensor:
        """With FreeInit drawn several times."""
        again, first, steps = self.pipe.free_init, latents, self.steps
        if again is None:
            return super().sampled(latents)
        for iteration in range(again.num_iters):
            if iteration:
                last = torch.tensor([self.pipe.scheduler.config["num_train_timesteps"] - 1])
                noisy = self.pipe.scheduler.add_noise(latents, first, last.expand(len(latents)))
                latents = again.mixed(noisy.float(), self.noise(torch.float32).block())
            self.steps = again.steps(iteration, steps)
            self.plan = self.pipe.scheduler.plan(replace(self._args(), steps=self.steps))
            latents = super().sampled(latents)
        return latents


class Animated(DiffusionPipeline):
    """What pipelines with a motion adapter have in common."""

    CALL = AnimatedCall
    BESIDE = ("motion_adapter",)
    free_init: FreeInit | None = None

    def enable_free_init(
        self,
        num_iters: int = 3,
        use_fast_sampling: bool = False,
        method: str = "butterworth",
        order: int = 4,
        spatial_stop_frequency: float = 0.25,
        temporal_stop_frequency: float = 0.25,
    ) -> None:
        """Draw each clip several times (FreeInit, Wu et al. 2023). Raises `UsageError`."""
        frequencies = spatial_stop_frequency, temporal_stop_frequency
        self.free_init = FreeInit(num_iters, use_fast_sampling, method, order, *frequencies)

    def disable_free_init(self) -> None:
        """Draw each clip once."""
        self.free_init = None

    @property
    def free_init_enabled(self) -> bool:
        return self.free_init is not None

    @property
    def motion_name(self) -> str:
        """What its motion adapter is called by the studio, which has it ready."""
        studio, network = self._loaded.studio, self.motion_adapter.network
        name = f"motion_adapter {id(network)}"
        with studio.lock:
            if name not in studio.motions:
                # the scheduler knows the noise
                studio.motions.add(LoadedMotion(name, network, name, linear=False))
        return name

    @property
    def studio(self) -> Studio:
        """The studio that draws, with the motion adapter in its UNet."""
        studio, name = self._loaded.studio, self.motion_name
        with studio.lock:
            if studio.motions.attached != name:
                studio.adapt(studio.adapters.active, motion=name)
        return studio


class AnimateDiffPipeline(Animated, StableDiffusion):
    """Stable Diffusion with a motion adapter (AnimateDiff, Guo et al. 2023)."""

    OUTPUT = AnimateDiffPipelineOutput
    OPTIONAL: ClassVar[tuple[str, ...]] = ("feature_extractor", ENCODER)

    def __init__(
        self,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        unet: Any,
        motion_adapter: Any,
        scheduler: Any,
        feature_extractor: Any = None,
        image_encoder: Any = None,
    ) -> None:
        """Of parts of these names in diffusers. Raises `UsageError` and `CheckpointError`."""
        DiffusionPipeline.__init__(self, locals())

    def __call__(
        self,
        prompt: Text = None,
        num_frames: int | None = 16,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 7.5,
        negative_prompt: Text = None,
        num_videos_per_prompt: int | None = 1,
        eta: float = 0.0,
        generator: Generators = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        ip_adapter_image: Any = None,
        ip_adapter_image_embeds: Sequence[Tensor] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        cross_attention_kwargs: Mapping[str, Any] | None = None,
        clip_skip: int | None = None,
        callback_on_step_end: StepEnd | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = LATENTS,
        decode_chunk_size: int = 16,
        **others: Any,
    ) -> Any:
        """Draw clips, one of each prompt: as diffusers does, whatever `num_videos_per_prompt` is.

        Raises `UsageError`.
        """
        return self._draw(locals())


class AnimateDiffSDXLPipeline(Animated, StableDiffusionXL):
    """SDXL with a motion adapter."""

    OUTPUT = AnimateDiffPipelineOutput

    def __init__(
        self,
        vae: Any,
        text_encoder: Any,
        text_encoder_2: Any,
        tokenizer: Any,
        tokenizer_2: Any,
        unet: Any,
        motion_adapter: Any,
        scheduler: Any,
        image_encoder: Any = None,
        feature_extractor: Any = None,
        force_zeros_for_empty_prompt: bool = True,
    ) -> None:
        """Of parts of these names in diffusers. Raises `UsageError` and `CheckpointError`."""
        DiffusionPipeline.__init__(self, locals())

    def __call__(
        self,
        prompt: Text = None,
        prompt_2: Text = None,
        num_frames: int = 16,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        denoising_end: float | None = None,
        guidance_scale: float = 5.0,
        negative_prompt: Text = None,
        negative_prompt_2: Text = None,
        num_videos_per_prompt: int | None = 1,
        eta: float = 0.0,
        generator: Generators = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        pooled_prompt_embeds: Tensor | None = None,
        negative_pooled_prompt_embeds: Tensor | None = None,
        ip_adapter_image: Any = None,
        ip_adapter_image_embeds: Sequence[Tensor] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        cross_attention_kwargs: Mapping[str, Any] | None = None,
        guidance_rescale: float = 0.0,
        original_size: Size = None,
        crops_coords_top_left: tuple[int, int] = (0, 0),
        target_size: Size = None,
        negative_original_size: Size = None,
        negative_crops_coords_top_left: tuple[int, int] = (0, 0),
        negative_target_size: Size = None,
        clip_skip: int | None = None,
        callback_on_step_end: StepEnd | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = LATENTS,
    ) -> Any:
        """Draw clips; sizes are (height, width) in pixels, as diffusers has them. Raises `UsageError`."""
        return self._draw(locals())

    def encode_prompt(  # type: ignore[override]
        self,
        prompt: Text = None,
        prompt_2: Text = None,
        device: torch.device | None = None,
        num_videos_per_prompt: int = 1,
        do_classifier_free_guidance: bool = True,
        *others: Any,
        **more: Any,
    ) -> tuple[Any, Any, Any, Any]:
        """As `StableDiffusionXL.encode_prompt`."""
        given = device, num_videos_per_prompt, do_classifier_free_guidance
        return super().encode_prompt(prompt, prompt_2, *given, *others, **more)


class ShownPictureCall(AnimatedCall):
    """A call of PIA, whose frames read a picture beside their noise."""

    def _args(self) -> SampleArgs:
        args = super()._args()
        self.strength = share("strength", self.given, "at least 0") or 0.0
        taken = min(int(args.steps * self.strength), args.steps)
        if taken < 1:
            raise UsageError(f"strength is {self.strength:g}: of {args.steps} steps none is left")
        return replace(args, first=args.steps - taken)

    def _plan(self) -> tuple[SamplingPlan, int]:
        args = self._args()
        return self.pipe.scheduler.plan(args), args.steps - args.first

    def _conditions(self) -> tuple[Conditions, int]:
        found, count = super()._conditions()
        self.count = count
        scale = whole("motion_scale", self.given["motion_scale"])
        if not 0 <= scale < len(SCALES):
            raise UsageError(f"motion_scale is {scale}: must be 0 to {len(SCALES) - 1}")
        begun = super().start()  # its noise comes before that of the picture
        pipe, studio = self.pipe, self.pipe.studio
        pixels = pipe.image_processor.preprocess(self.given["image"]).to(studio.device)
        if len(pixels) not in (1, count):
            raise UsageError(f"{len(pixels)} pictures were given for {count} clips")
        side = [edge // pipe.model.factor for edge in pixels.shape[2:]]
        shape = (len(pixels), self.shape[1], *side)
        spread = BatchNoise(self.generator, shape, studio.device, studio.dtype).block()
        latent = F.interpolate(studio.decoders.encode(pixels, spread), size=self.shape[3:])
        channels = picture_channels(latent, self.frames, scale).expand(count, -1, -1, -1, -1)
        if self.strength < 1:
            first = self.plan.levels[0]
            begun = first.noisy(channels[:1, 1:], self.noise().block()) / self.plan.scale(first)
        self.begun = begun
        kinds = len(found.states) // count
        return replace(found, channels=channels.repeat(kinds, 1, 1, 1, 1)), count

    def start(self) -> Tensor:
        return self.begun


class PIAPipeline(Animated, StableDiffusion):
    """Stable Diffusion with PIA, a motion adapter that reads a picture (Zhang et al. 2023)."""

    CALL = ShownPictureCall
    OPTIONAL: ClassVar[tuple[str, ...]] = ("feature_extractor", ENCODER)
    OUTPUT = PIAPipelineOutput

    def __init__(
        self,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        unet: Any,
        scheduler: Any,
        motion_adapter: Any = None,
        feature_extractor: Any = None,
        image_encoder: Any = None,
    ) -> None:
        """Of parts of these names in diffusers. Raises `UsageError` and `CheckpointError`."""
        DiffusionPipeline.__init__(self, locals())

    def __call__(
        self,
        image: Any,
        prompt: Text = None,
        strength: float = 1.0,
        num_frames: int | None = 16,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 7.5,
        negative_prompt: Text = None,
        num_videos_per_prompt: int | None = 1,
        eta: float = 0.0,
        generator: Generators = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        ip_adapter_image: Any = None,
        ip_adapter_image_embeds: Sequence[Tensor] | None = None,
        motion_scale: int = 0,
        output_type: str = "pil",
        return_dict: bool = True,
        cross_attention_kwargs: Mapping[str, Any] | None = None,
        clip_skip: int | None = None,
        callback_on_step_end: StepEnd | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = LATENTS,
    ) -> Any:
        """Move `image`, as `motion_scale`, 0 to 8, says: see `sfumato.studio.pia`. Raises `UsageError`."""
        return self._draw(locals())
