"""The denoising UNet of latent diffusion (Rombach et al. 2022): SD 1.x, SD 2.x, SDXL and their variants."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise, zip_longest
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sfumato.config import UNetConfig
from sfumato.config.unet import EncoderConfig
from sfumato.nets.attention import CrossAttention, SpatialTransformer
from sfumato.nets.feature_cache import DeepFeatures
from sfumato.nets.inference import Conv, NormSiLU
from sfumato.nets.inputs import KV, BlockInputs, SizeConditioning, TextKV
from sfumato.nets.layers import Checkpointed, Downsample, ResnetBlock, TimeMLP, Upsample, sinusoids
from sfumato.nets.network import Residuals


class Block(Checkpointed):
    """The residual blocks of one resolution, a transformer after each where the level attends to the text.

    `widths` are the channels that each residual block reads, `depths` the depths of the transformers.
    """

    RESIDUAL: ClassVar[type[nn.Module]] = ResnetBlock
    TRANSFORMER: ClassVar[type[nn.Module]] = SpatialTransformer

    def __init__(
        self, config: EncoderConfig, level: int, widths: Sequence[int], depths: Sequence[int] | None
    ) -> None:
        super().__init__()
        channels, groups = config.block_out_channels[level], config.norm_num_groups
        eps = self.norm_eps(config, depths is not None)
        self.resnets = nn.ModuleList(
            self.RESIDUAL(width, channels, groups, eps, config.time_width) for width in widths
        )
        self.attentions = nn.ModuleList(
            self.TRANSFORMER(
                channels,
                groups,
                config.heads[level],
                config.context[level],
                depth,
                config.use_linear_projection,
                bool(config.upcast_attention),
            )
            for depth in depths or ()
        )
        finer = config.down_block_types[: max(level, 0)]
        finest = level >= 0 and not any(kind.startswith("CrossAttn") for kind in finer)
        for transformer in self.attentions:
            if isinstance(transformer, SpatialTransformer):
                transformer.finest = finest

        self.motion_modules = nn.ModuleList()
        """What a motion adapter puts behind each transformer, or residual block; it acts on clips alone."""

    @staticmethod
    def norm_eps(config: EncoderConfig, attends: bool) -> float:
        """What the residual blocks' normalisations add to the variance."""
        return config.norm_eps

    @property
    def stages(self) -> tuple[nn.ModuleList, ...]:
        """What follows each other in a layer: the first of each, then the second of each, and so on."""
        return self.resnets, self.attentions, self.motion_modules

    def layers(self) -> Iterator[Callable[[Tensor, BlockInputs], Tensor]]:
        """Each residual block with what follows it, as one function of the picture and what it is given."""
        for stages in zip_longest(*self.stages):
            yield partial(self.checkpoint, partial(_in_turn, stages))


def _in_turn(stages: Sequence[nn.Module | None], h: Tensor, inputs: BlockInputs) -> Tensor:
    for stage in stages:
        h = h if stage is None else stage(h, inputs)
    return h


class DownBlock(Block):
    """One level on the way down."""

    def __init__(self, config: EncoderConfig, level: int) -> None:
        before, channels = (config.block_out_channels[max(i, 0)] for i in (level - 1, level))
        widths = [before] + [channels] * (config.layers[level] - 1)
        attends = config.down_block_types[level].startswith("CrossAttn")
        super().__init__(config, level, widths, config.down_depths[level] if attends else None)
        last = level == len(config.block_out_channels) - 1
        self.downsamplers = nn.ModuleList([] if last else [Downsample(channels)])

    def forward(
        self, h: Tensor, inputs: BlockInputs, feature: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """(P or R, C, H, W) to half the size, and what the way up will read.

        `feature` (R, C, h, w) is added after the last transformer, or where there is none at the end.
        """
        skips = []
        for layer in self.layers():
            h = layer(h, inputs)
            skips.append(h)
        if feature is not None and self.attentions:
            h = skips[-1] = h + feature
        for downsample in self.downsamplers:
            h = downsample(h)
            skips.append(h)
        if feature is not None and not self.attentions:
            h = skips[-1] = h + feature
        return h, skips


class MidBlock(Block):
    """The deepest part: a residual block, and where it attends to the text a transformer and another."""

    def __init__(self, config: EncoderConfig) -> None:
        channels = config.block_out_channels[-1]
        attends = config.mid_block_type == "UNetMidBlock2DCrossAttn"
        depths = config.down_depths[-1][:1] if attends else None
        super().__init__(config, -1, [channels] * (2 if attends else 1), depths)

    def forward(self, h: Tensor, inputs: BlockInputs) -> Tensor:
        """(P or R, C, H, W) to the same shape."""
        for layer in self.layers():
            h = layer(h, inputs)
        return h


class UpBlock(Block):
    """One level on the way up; `level` counts as on the way down."""

    def __init__(self, config: UNetConfig, level: int) -> None:
        channels = config.block_out_channels
        last = len(channels) - 1
        below, here, above = (channels[min(max(i, 0), last)] for i in (level + 1, level, level - 1))
        count = config.layers[level]
        skips = [here] * count + [above]
        widths = [came + skip for came, skip in zip([below] + [here] * count, skips, strict=True)]
        attends = config.up_block_types[last - level].startswith("CrossAttn")
        super().__init__(config, level, widths, config.up_depths[last - level] if attends else None)
        self.upsamplers = nn.ModuleList([Upsample(here)] if level else [])

    def forward(
        self, h: Tensor, skips: list[Tensor], inputs: BlockInputs, deep: DeepFeatures | None = None
    ) -> Tensor:
        """(P or R, C, H, W) to the size of the next skip; takes its own from the end of `skips`.

        With fewer skips than it takes, only as many of its last layers compute. `deep` is given what enters
        the last layer.
        """
        for layer in [*self.layers()][-len(skips) :]:
            if deep is not None and len(skips) == 1:
                deep.h = inputs.expand_rows(h)
            skip = skips.pop()
            h = layer(
                torch.cat([h, skip if len(skip) == len(h) else inputs.expand_rows(skip)], dim=1), inputs
            )
        for upsample in self.upsamplers:
            h = upsample(h, skips[-1].shape[2:])
        return h


class Encoder(nn.Module):
    """What a UNet and the networks beside it begin with: the time, the way down, the deepest part."""

    DOWN: ClassVar[type[DownBlock]] = DownBlock
    MIDDLE: ClassVar[type[MidBlock]] = MidBlock

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.block_out_channels
        self.conv_in = Conv(config.in_channels, channels[0], 3, padding=1)
        self.picture_convs: tuple[nn.Conv2d, ...] = ()
        """What reads the channels beyond its own, where a motion adapter brings that (PIA); not its part."""
        self.time_embedding = TimeMLP(channels[0], config.time_width, config.guidance_width)
        added = config.projection_class_embeddings_input_dim if config.addition_embed_type else None
        self.add_embedding = TimeMLP(added, config.time_width) if added else None
        self.down_blocks = nn.ModuleList(self.DOWN(config, level) for level in range(len(channels)))
        self.mid_block = self.MIDDLE(config) if config.mid_block_type else None
        self.resnets: tuple[ResnetBlock, ...] = ()
        self.cross: tuple[CrossAttention, ...] = ()

    def count_blocks(self) -> None:
        """Find all residual blocks and cross-attentions, and tell each its place among them."""
        self.resnets = tuple(module for module in self.modules() if isinstance(module, ResnetBlock))
        ends = [0]
        for resnet in self.resnets:
            ends.append(ends[-1] + resnet.conv1.out_channels)
        for resnet, columns in zip(self.resnets, pairwise(ends), strict=True):
            resnet.columns = slice(*columns)
        self.cross = tuple(module for module in self.modules() if isinstance(module, CrossAttention))
        for index, attention in enumerate(self.cross):
            attention.index = index

    @property
    def dtype(self) -> torch.dtype:
        """The weights' own."""
        return self.conv_in.weight.dtype

    def embed_time(
        self, t: Tensor, size: SizeConditioning | None = None, guidance: Tensor | None = None
    ) -> Tensor:
        """All that the blocks read of the time: the projections for every residual block, side by side.

        `t` (R,) in the units of training. `size`: SDXL's. `guidance` (R,): the scale γ, of which latent
        consistency models read γ − 1 (Luo et al. 2023, §4.3). To (R, E), which depends on nothing else and
        may be kept for a whole schedule. Raises `ValueError` if the network wants `size` or `guidance` and
        lacks it, or the reverse.
        """
        config = self.config
        for name, value, wanted in (
            ("size", size, self.add_embedding),
            ("guidance", guidance, config.guidance_width),
        ):
            if (value is None) != (wanted is None):
                raise ValueError(f"{name!r} must{' not' if wanted is None else ''} be given to this network")
        w = None
        if guidance is not None:
            w = 1000 * (guidance - 1).float().to(t.device)
            w = sinusoids(w, config.guidance_width or 0).to(self.dtype)
        embedding = self.time_embedding(self._waves(t, config.block_out_channels[0]), w)
        if size is not None and self.add_embedding is not None:
            ids = self._waves(size.ids.flatten(), config.addition_time_embed_dim or 0)
            ids = ids.unflatten(0, size.ids.shape).flatten(1)
            embedding = embedding + self.add_embedding(torch.cat([size.pooled.to(self.dtype), ids], dim=1))
        embedding = F.silu(embedding)
        projections = [resnet.time_emb_proj for resnet in self.resnets]
        return torch.cat([project(embedding) for project in projections if project is not None], dim=1)

    def _waves(self, t: Tensor, width: int) -> Tensor:
        return sinusoids(t, width, self.config.flip_sin_to_cos, self.config.freq_shift).to(self.dtype)

    def context(self, states: Tensor) -> TextKV:
        """Keys and values of every cross-attention for the text `states` (R, T, D)."""
        return TextKV.of([attention.project(states) for attention in self.cross])

    def encode(
        self, h: Tensor, inputs: BlockInputs, features: Sequence[Tensor] = ()
    ) -> tuple[list[Tensor], Tensor]:
        """From what `conv_in` gave, (P, C, H, W), to what the way up reads, and the deepest part.

        `features`: see `Residuals`.
        """
        skips = [h]
        for down, feature in zip_longest(self.down_blocks, features[: len(self.down_blocks)]):
            h, more = down(h, inputs, feature)
            skips += more
        if self.mid_block is not None:
            h = self.mid_block(h, inputs)
        for deepest in features[len(self.down_blocks) :]:
            h = h + deepest
        return skips, h


class UNet(Encoder):
    """Predicts what the checkpoint was trained to predict, from a noisy latent, its time and a prompt."""

    config: UNetConfig
    UP: ClassVar[type[UpBlock]] = UpBlock

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        channels = config.block_out_channels
        self.up_blocks = nn.ModuleList(self.UP(config, level) for level in reversed(range(len(channels))))
        self.conv_norm_out = NormSiLU(config.norm_num_groups, channels[0], config.norm_eps)
        self.conv_out = Conv(channels[0], config.out_channels, 3, padding=1)
        self.count_blocks()

    @property
    def reads_guidance(self) -> bool:
        """Whether it is told the guidance scale, as latent consistency models are."""
        return self.config.time_cond_proj_dim is not None

    @property
    def cross_as_published(self) -> list[CrossAttention]:
        """Every cross-attention in the order of IP-Adapters' files: way down, way up, middle."""
        ways = (*self.down_blocks, *self.up_blocks, *([] if self.mid_block is None else [self.mid_block]))
        return [module for way in ways for module in way.modules() if isinstance(module, CrossAttention)]

    def image_pairs(self, published: Sequence[KV]) -> tuple[KV, ...]:
        """Keys and values of an image prompt as `TextKV` has them, from those in the order of the file."""
        pairs = dict(zip(self.cross_as_published, published, strict=True))
        return tuple(pairs[attention] for attention in self.cross)

    def enter(self, x: Tensor, inputs: BlockInputs) -> Tensor:
        """The first layer: (P, C_in, H, W) to what `encode` begins with."""
        own = self.config.in_channels
        shown = [convolve(x[:, own:]) for convolve in self.picture_convs]
        h: Tensor = self.conv_in(x[:, :own] if shown else x, *shown)
        return h

    def denoise(
        self,
        x: Tensor,
        time: Tensor,
        context: TextKV,
        rows: Tensor | None = None,
        *,
        slices: int | None = None,
        residuals: Residuals | None = None,
        deep: DeepFeatures | None = None,
        token_merging: float = 0.0,
    ) -> Tensor:
        """The network's answer for R rows of text, (R, C_out, …), to P noisy latents `x` (P, C, …).

        Clips (P, C, F, H, W) go through it frame by frame, but for layers that look across frames.

        `time` (P, E), from `embed_time`, or of clips (P·F, E). `rows` (R,) says which point a row of the text
        belongs to; what comes before the first cross-attention is computed once for each point and shared by
        its rows. Without it R = P. The text has R rows, or R·F where each frame has its own. `slices` bounds
        the memory of attention, see `attend`. `residuals` (R = P, of clips P·F rows) are added where they
        say. `deep` is given what the deeper layers compute, or has it, and they do not compute.
        `token_merging`: the share of places, 0 to 0.75, that self-attention merges at the finest level that
        attends. Height and width are free: the way up takes its sizes from the way down. Raises `ValueError`
        where the numbers of rows do not agree.
        """
        count = len(x if rows is None else rows)
        frames = x.shape[2] if x.ndim == 5 else None
        by_frame = frames is not None and rows is None and len(time) == len(x) * frames
        if len(time) != len(x) and not by_frame:
            raise ValueError(f"times of {len(time)} points were given for {len(x)}")
        if self.cross and len(context) not in (count, count * (frames or 1)):
            raise ValueError(f"text of {len(context)} rows was given for {count}")
        if rows is not None and len(rows) <= len(x):
            x, time, rows = x[rows], time[rows], None
        row_time = time if rows is None else time[rows]
        inputs = BlockInputs(time, row_time, context, rows, slices, token_merging)
        if frames:
            x, inputs = x.transpose(1, 2).flatten(0, 1), inputs.of_frames(frames, by_frame)

        added = residuals or Residuals()
        h = self.enter(x, inputs)
        if deep is not None and deep.h is not None:
            skips, h, ups = [h], deep.h, self.up_blocks[-1:]
        else:
            skips, h = self.encode(h, inputs, added.features)
            h, ups = h if added.mid is None else h + added.mid, self.up_blocks
        if added.skips:
            skips = [skip + more for skip, more in zip(skips, added.skips[: len(skips)], strict=True)]
        for up in ups:
            h = up(h, skips, inputs, deep)
        h = inputs.expand_rows(self.conv_out(self.conv_norm_out(h)))
        return h.unflatten(0, (-1, frames)).transpose(1, 2) if frames else h

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        states: Tensor,
        size: SizeConditioning | None = None,
        guidance: Tensor | None = None,
    ) -> Tensor:
        """`x` (R, C, H, W) at times `t` (R,) with text states (R, T, D), to (R, C_out, H, W)."""
        return self.denoise(x, self.embed_time(t, size, guidance), self.context(states))
