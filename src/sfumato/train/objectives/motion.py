"""Motion modules (AnimateDiff, Guo et al. 2023) m between the layers of the denoiser f, which stays as it is.

    loss = w(t) · |f(a_t·x0 + s_t·eps, t, text, m) − target|²

over the latents x0 (C, F, h, w) of clips, all frames at one time t with noise of their own. The modules' last
projections begin as zeros, so that at first every frame is what the denoiser makes of it alone (§4.2).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

import pydantic.dataclasses
import torch
from pydantic import Field
from torch import Tensor

from sfumato import checkpoint, weights
from sfumato.checkpoint import Model
from sfumato.checkpoint.motion import OWN_SCHEDULE, LoadedMotion, load_motion
from sfumato.config import MotionAdapterConfig
from sfumato.config.base import Channels
from sfumato.data import animated, icons
from sfumato.data.clips import Clips, JoinedClips, MovedIcons, moved_icons
from sfumato.devices import sent
from sfumato.diffusion.predict import prediction_named
from sfumato.edit.motion import MOTIONS
from sfumato.errors import UsageError
from sfumato.evaluate.motion import motion_of
from sfumato.files import make_folder, write_json
from sfumato.nets.inference import unpacked
from sfumato.nets.motion import MotionAdapter
from sfumato.nets.unet import UNet
from sfumato.train import sample_grid
from sfumato.train.cache import CaptionEncoder, CaptionStates, cached
from sfumato.train.context import StepContext
from sfumato.train.examples import LatentBatch, check_fits, side_of
from sfumato.train.objectives.denoiser import WEIGHTINGS, DenoisingLoss
from sfumato.train.order import CAPTIONS, WeightedSampling, random_of
from sfumato.train.recipe import Count, DataSection, NotNegative, Objective, Probability, Recipe
from sfumato.train.task import Task
from sfumato.validation import one_of

RESULT, WEIGHTS = "motion", "diffusion_pytorch_model.safetensors"
"""The folder in a run's own that holds the result, in the diffusers layout, and the file of its weights."""
LATENTS = "clips/{:06}.safetensors"
"""The latents of each clip, in the run's folder."""


@pydantic.dataclasses.dataclass(frozen=True)
class MotionData(DataSection):
    """Icons that are moved by known transforms, and animated emoji."""

    frames: Annotated[int, Field(ge=2, le=128)] = 16
    """Of a clip."""
    resolution: NotNegative = 0
    """Width and height of a frame in pixels; 0: the base model's."""
    clips: Count = 4096
    """How many are made; the latents of each are kept in the run's folder once it was learned from."""
    motions: Annotated[tuple[Annotated[str, one_of(MOTIONS)], ...], Field(min_length=1)] = tuple(MOTIONS)
    """How they move: names of `sfumato.edit.motion.MOTIONS`, each equally often."""
    captions_per_clip: Count = 4
    caption_dropout: Probability = 0.1
    animations: str = ""
    """A folder of animated emoji that `sfumato data motion` made, to learn from as well."""
    animation_share: Probability = 0.3
    """The share of examples that they are, if they are given."""
    tests: NotNegative = 18
    """Clips of held-out icons that are drawn at the end, to see whether their motion is recovered."""


@pydantic.dataclasses.dataclass(frozen=True)
class MotionTraining(Objective):
    """Trains motion modules for the base model."""

    NAME, DATA, STARTS = "motion", MotionData, ("base",)

    begin_from: str = ""
    """Motion modules to begin with in place of new ones: the folder that another run left."""
    heads: Channels = 8
    """Of the attention over frames."""
    mid_block: bool = True
    """Whether the middle block has a module too."""
    max_frames: Annotated[int, Field(ge=2, le=1024)] = 32
    """How many frames the modules can look across."""
    weighting: Annotated[str, one_of(WEIGHTINGS)] = "plain"
    """Of the loss over noise levels, a name of `WEIGHTINGS`."""
    timestep_shift: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Above 1, noisy levels are trained more often: where things are is decided there."""

    def check_recipe(self, recipe: Recipe) -> None:
        frames = cast(MotionData, recipe.data).frames
        if frames > self.max_frames:
            raise ValueError(f"data.frames is {frames}: must be at most max_frames = {self.max_frames}")

    def result(self, recipe: Recipe) -> Path:
        return Path(recipe.run) / RESULT

    def usage(self, recipe: Recipe) -> list[str]:
        prompt = next(iter(recipe.samples.prompts), "a red apple bouncing")
        return ["sfumato", "video", prompt, "--model", recipe.base, "--motion", str(self.result(recipe))]

    def task(self, recipe: Recipe, device: torch.device, report: Callable[[str], None]) -> Task[Any]:
        base = checkpoint.load(recipe.base, dtype=torch.float32)
        check_fits(recipe, base)
        data = cast(MotionData, recipe.data)
        for part in (base.vae, *base.text_encoders):
            part.to(device)
        base.vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        batches = clip_batches(recipe, base, device)
        unet = unpacked(base.unet).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        net, average = self.network(unet).to(device), self.network(unet).to(device)
        if self.begin_from:
            begin(net, Path(self.begin_from))
        net.attach(unet)
        if recipe.compile:
            unet.compile()
        prediction = prediction_named(base.prediction)
        loss = DenoisingLoss(unet, base.path(), prediction, self.weighting, device, self.timestep_shift)
        guidance = recipe.samples.guidance_scale

        def clips_of(state: dict[str, Tensor], prompts: Sequence[str]) -> Iterator[Tensor]:
            average.load_state_dict(state)
            average.attach(unet)  # what is learning is not to be made ready for drawing
            info = replace(base.info, native_size=(batches.side, batches.side))
            model = replace(base, unet=unet, info=info, fast=None, controls={})
            motion = LoadedMotion(RESULT, average, "", linear=False)
            yield from sample_grid.draw_clips(model, motion, prompts, data.frames, device, guidance)
            net.attach(unet)

        def show(state: dict[str, Tensor], path: Path) -> None:
            if recipe.samples.prompts:
                drawn = torch.cat([*clips_of(state, recipe.samples.prompts)])
                sample_grid.save(drawn, path, columns=data.frames)

        def recovered(state: dict[str, Tensor]) -> float:
            tests = moving_icons(recipe, base, held_out=True, count=data.tests)
            drawn = clips_of(state, [captions[0] for captions in tests.captions])
            told = [motion_of(clip.cpu()) for clip in drawn]
            return sum(a == b.motion for a, b in zip(told, tests.clips, strict=True)) / len(told)

        def finish(state: dict[str, Tensor], folder: Path) -> dict[str, float]:
            make_folder(folder / RESULT)
            write_json(folder / RESULT / "config.json", net.config.to_dict())
            half = {name: tensor.half() for name, tensor in state.items()}
            weights.write(folder / RESULT / WEIGHTS, half, {OWN_SCHEDULE: "true"})
            show(state, folder / "samples" / "last.webp")
            return {"motion_recovered": recovered(state)} if data.tests else {}

        return Task(net, batches, loss, show, finish)

    def network(self, unet: UNet) -> MotionAdapter:
        """New modules for `unet`, which change nothing before the first step. Raises `UsageError`."""
        config = MotionAdapterConfig.from_dict(
            {
                "block_out_channels": unet.config.block_out_channels,
                "motion_layers_per_block": unet.config.layers,
                "motion_num_attention_heads": self.heads,
                "motion_norm_num_groups": unet.config.norm_num_groups,
                "motion_max_seq_length": self.max_frames,
                "use_motion_mid_block": self.mid_block and unet.config.mid_block_type is not None,
            },
            "[objective]",
        )
        return MotionAdapter(config)


@dataclass(frozen=True, eq=False)
class ClipBatches:
    """Batches of the latents of clips, encoded when they are first learned from and kept in files."""

    clips: Clips
    order: WeightedSampling
    states: CaptionStates
    base: Model
    device: torch.device
    dtype: torch.dtype
    folder: Path
    side: int
    """Width and height of a frame in pixels."""
    dropout: float
    """The share of captions that are replaced by the empty one."""

    def __call__(self, context: StepContext, count: int) -> LatentBatch:
        """`count` examples, x0 (B, C, F, h, w)."""
        _, rows = self.order(context, count)
        random = random_of(context, CAPTIONS)
        texts = [
            "" if random.random() < self.dropout else random.choice(self.clips.captions[row]) for row in rows
        ]
        states, _ = self.states(texts)
        x0 = torch.stack([self._latents(row) for row in rows])
        return LatentBatch(sent(x0, self.device).float(), states, step=context.step)

    def _latents(self, row: int) -> Tensor:
        """(C, F, h, w) in half precision."""
        inputs = {"base": self.base.fingerprint, "data": self.clips.digest, "precision": str(self.dtype)}
        path = self.folder / LATENTS.format(row)
        return cached(path, {**inputs, "row": str(row)}, partial(self._encoded, row))["latents"]

    @torch.no_grad()
    def _encoded(self, row: int) -> dict[str, Tensor]:
        x = sent(self.clips.load(row), self.device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            mean = self.base.vae.encode(x).mean
        latents = self.base.vae.scale(mean.float()).half()
        return {"latents": latents.transpose(0, 1).contiguous().cpu()}


def begin(net: MotionAdapter, folder: Path) -> None:
    """Take the weights in `folder`, which a run left, into `net`. Raises `CheckpointError`."""
    state = load_motion(str(folder), dtype=torch.float32).network.state_dict()
    weights.check(state, net, str(folder))
    net.load_state_dict(state)


def clip_batches(recipe: Recipe, base: Model, device: torch.device) -> ClipBatches:
    """The clips that `recipe` learns from. Raises `DataError` where there is nothing to move."""
    if base.info.family.size_ids is not None:
        raise UsageError(f"the base model {recipe.base} is of SDXL's family; this objective knows SD 1 and 2")
    data = cast(MotionData, recipe.data)
    icons_moved = moving_icons(recipe, base, held_out=False, count=data.clips)
    side, clips = icons_moved.side, cast(Clips, icons_moved)
    if data.animations:
        emoji = animated.load(
            Path(data.animations),
            held_out=False,
            seed=recipe.seed,
            frames=data.frames,
            side=side,
            captions=data.captions_per_clip,
        )
        clips = JoinedClips((icons_moved, emoji), (1 - data.animation_share, data.animation_share))
    order = WeightedSampling.of(clips.weights, (side, side))
    states = CaptionEncoder(base, device)
    return ClipBatches(
        clips,
        order,
        states,
        base,
        device,
        recipe.dtype(device),
        Path(recipe.run),
        side,
        data.caption_dropout,
    )


def moving_icons(recipe: Recipe, base: Model, *, held_out: bool, count: int) -> MovedIcons:
    """`count` clips for the recipe, of icons to learn from or of those held out. Raises `DataError`."""
    data = cast(MotionData, recipe.data)
    return moved_icons(
        icons.load(Path(data.folder), held_out=held_out),
        seed=recipe.seed,
        count=count,
        frames=data.frames,
        side=side_of(base, data.resolution),
        motions=data.motions,
        captions=data.captions_per_clip,
    )
