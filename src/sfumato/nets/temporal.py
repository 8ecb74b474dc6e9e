"""What networks of clips are made of besides the layers of pictures: convolutions and attention over frames.

Pictures come as rows (B·F, C, H, W), each of B clips as its F frames in their order. What looks across frames
takes them as clips (B, C, F, H·W): the frames are the rows of a picture, its places the columns.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from sfumato.nets.attention import (
    CrossAttention,
    FeedForward,
    SelfAttention,
    SpatialTransformer,
    to_image,
    to_tokens,
)
from sfumato.nets.circular import circular
from sfumato.nets.inference import Conv, LayerNorm, Linear, Norm, NormSiLU
from sfumato.nets.inputs import BlockInputs
from sfumato.nets.layers import ResnetBlock, TimeMLP, sinusoids


def to_clips(x: Tensor, frames: int) -> Tensor:
    """Frames (B·F, C, H, W) as clips (B, C, F, H·W)."""
    return x.unflatten(0, (-1, frames)).transpose(1, 2).flatten(3)


def to_frames(h: Tensor, like: Tensor) -> Tensor:
    """Clips (B, C, F, H·W) as frames (B·F, C, H, W), with the height and width of `like`."""
    return h.unflatten(3, like.shape[2:]).transpose(1, 2).flatten(0, 1)


class FrameConv(Conv):
    """A convolution over three frames, place by place; published as one of three dimensions, 3×1×1."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__(channels, out_channels, (3, 1), padding=(1, 0))

    def forward(
        self, x: Tensor, add: Tensor | None = None, shift: Tensor | None = None, *, relu: bool = False
    ) -> Tensor:
        """(B, C, F, H·W) to (B, C_out, F, H·W), `add` and `shift` as in `Conv`."""
        with circular(""):  # which is said of the picture's edges
            return super().forward(x, add, shift, relu=relu)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = destination[prefix + "weight"].unsqueeze(-1)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        if (weight := state_dict.get(prefix + "weight")) is not None:
            state_dict[prefix + "weight"] = weight.squeeze(-1)
        super()._load_from_state_dict(state_dict, prefix, *args)


class TemporalResnetBlock(ResnetBlock):
    """A residual block over the frames of clips (B, C, F, H·W)."""

    convolution: Callable[[int, int], Conv] = FrameConv


class TimeMixer(nn.Module):
    """A learned mix of what was computed frame by frame and of what was computed across frames.

    The sigmoid of its one number is the former's share, the latter's where it is `switched`.
    """

    def __init__(self, start: float = 0.5, switched: bool = False) -> None:
        super().__init__()
        self.mix_factor = nn.Parameter(torch.full((1,), start))
        self.switched = switched

    def forward(self, spatial: Tensor, temporal: Tensor) -> Tensor:
        """Two tensors of one shape to that shape."""
        share = torch.sigmoid(self.mix_factor)
        return spatial.lerp(temporal, share if self.switched else 1 - share)


class SpatioTemporalResBlock(nn.Module):
    """A residual block for each frame, one across frames behind it, and their mix (Blattmann et al. 2023)."""

    def __init__(
        self, channels: int, out_channels: int, groups: int, eps: float, time_width: int = 0
    ) -> None:
        super().__init__()
        self.spatial_res_block = ResnetBlock(channels, out_channels, groups, eps, time_width)
        self.temporal_res_block = TemporalResnetBlock(out_channels, out_channels, groups, eps, time_width)
        self.time_mixer = TimeMixer()

    def forward(self, x: Tensor, inputs: BlockInputs) -> Tensor:
        """(B·F, C, H, W) to (B·F, C_out, H, W)."""
        frames = inputs.frames or 1
        h = self.spatial_res_block(x, inputs)
        clips = replace(inputs, time=inputs.time[::frames], row_time=inputs.row_time[::frames])
        across = self.temporal_res_block(to_clips(h, frames), clips)
        return self.time_mixer(h, to_frames(across, h))


class TemporalBlock(nn.Module):
    """Two attentions over the frames, and the feed-forward; each adds to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width)
        self.attn1 = SelfAttention(width, heads, width)
        self.norm2 = LayerNorm(width)
        self.attn2 = SelfAttention(width, heads, width)
        self.norm3 = LayerNorm(width)
        self.ff = FeedForward(width)

    def numbered(self, h: Tensor) -> Tensor:
        """What the attentions read, (B·H·W, F, C), with the frames' numbers in it where they are told."""
        return h

    def forward(self, h: Tensor, slices: int | None) -> Tensor:
        """(B·H·W, F, C) to the same shape."""
        h = self.attn1(self.numbered(self.norm1(h)), slices, add=h)
        h = self.attn2(self.numbered(self.norm2(h)), slices, add=h)
        return self.ff(self.norm3(h), add=h)


class TemporalTransformer(nn.Module):
    """Transformer `blocks`, `width` wide, in which every place attends to itself in all frames."""

    def __init__(self, channels: int, groups: int, width: int, blocks: Iterable[TemporalBlock]) -> None:
        super().__init__()
        self.norm = Norm(groups, channels, eps=1e-6)
        self.proj_in = Linear(channels, width)
        self.transformer_blocks = nn.ModuleList(blocks)
        self.proj_out = Linear(width, channels)

    def forward(self, x: Tensor, inputs: BlockInputs) -> Tensor:
        """(B·F, C, H, W) to the same shape; the normalisation is over whole clips."""
        clips = self.norm(to_clips(x, inputs.frames or 1))
        h = self.proj_in(clips.permute(0, 3, 2, 1).flatten(0, 1))
        for block in self.transformer_blocks:
            h = block(h, inputs.slices)
        h = self.proj_out(h).unflatten(0, (len(clips), -1)).permute(0, 3, 2, 1)
        return x + to_frames(h, x)


class TemporalConvs(nn.Module):
    """Four convolutions over frames, added to what came in (Wang et al. 2023, §3.2)."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        # the published numbering leaves room for the activation, and from the second on for dropout
        for index, room in enumerate((1, 2, 2, 2), start=1):
            layers = (NormSiLU(groups, channels), *(nn.Identity() for _ in range(room)))
            self.add_module(f"conv{index}", nn.Sequential(*layers, FrameConv(channels, channels)))
        last = self.get_submodule(f"conv4.{room + 1}")
        for parameter in last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, inputs: BlockInputs) -> Tensor:
        """(B·F, C, H, W) to the same shape."""
        h = to_clips(x, inputs.frames or 1)
        for convolve in self.children():
            h = convolve(h)
        return x + to_frames(h, x)


class SpatioTemporalBlock(nn.Module):
    """A transformer block over frames: feed-forward, attention to the other frames, attention to the text,
    feed-forward; each adds to what came in.
    """

    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.norm_in = LayerNorm(width)
        self.ff_in = FeedForward(width)
        self.norm1 = LayerNorm(width)
        self.attn1 = SelfAttention(width, heads, width)
        self.norm2 = LayerNorm(width)
        self.attn2 = CrossAttention(width, heads, context)
        self.norm3 = LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, h: Tensor, inputs: BlockInputs) -> Tensor:
        """(R, N, F, C), N places of the picture, to the same shape."""
        shape = h.shape
        h = h.flatten(0, 1)
        h = self.ff_in(self.norm_in(h), add=h)
        h = self.attn1(self.norm1(h), inputs.slices, add=h)
        h = h.view(shape[0], -1, shape[3])
        h = self.attn2(self.norm2(h), inputs, add=h)
        return self.ff(self.norm3(h), add=h).view(shape)


class SpatioTemporalTransformer(SpatialTransformer):
    """A block over the places of each frame and a block over the frames of each place by turns, mixed."""

    def __init__(
        self, channels: int, groups: int, heads: int, context: int, depth: int, linear: bool, upcast: bool
    ) -> None:
        super().__init__(channels, groups, heads, context, depth, linear, upcast)
        self.temporal_transformer_blocks = nn.ModuleList(
            SpatioTemporalBlock(channels, heads, context) for _ in range(depth)
        )
        self.time_pos_embed = TimeMLP(channels, channels, hidden=4 * channels)
        self.time_mixer = TimeMixer()

    def forward(self, x: Tensor, inputs: BlockInputs) -> Tensor:
        """(P·F or R·F, C, H, W) to (R·F, C, H, W)."""
        frames, channels = inputs.frames or 1, x.shape[1]
        waves = sinusoids(torch.arange(frames, device=x.device), channels, cosine_first=True, shift=0)
        positions = self.time_pos_embed(waves.to(x.dtype))
        h = self.proj_in(to_tokens(self.norm(x)))
        over_frames = replace(inputs, rows=None)  # all rows are there behind the first attention to the text
        blocks = zip(self.transformer_blocks, self.temporal_transformer_blocks, strict=True)
        for spatial, temporal in blocks:
            h = spatial(h, inputs)
            each = h.unflatten(0, (-1, frames)).transpose(1, 2)
            across = temporal((each + positions).contiguous(), over_frames)
            h = self.time_mixer(h, across.transpose(1, 2).flatten(0, 1))
        x = inputs.expand_rows(x)
        return to_image(self.proj_out(h, add=to_tokens(x)), x)
