"""`VaeImageProcessor`: pictures to tensors for an autoencoder, and back."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from PIL import ImageFilter, ImageOps
from torch import Tensor
from torch.nn import functional as F

from sfumato.compat.models import PartConfig
from sfumato.compat.outputs import FORMS, pixels_in_form, to_pil
from sfumato.edit.masks import Box, bounds
from sfumato.errors import UsageError, nearest, warn
from sfumato.validation import shown

Picture = PIL.Image.Image
PictureInput = Picture | NDArray[Any] | Tensor | Sequence[Picture] | Sequence[NDArray[Any]] | Sequence[Tensor]
"""One picture or several: PIL images, arrays (H, W, 3) in [0, 1], or tensors (3, H, W) in [0, 1]; latents
(C, h, w) as tensors.
"""
INTERPOLATION = {
    "linear": PIL.Image.Resampling.BILINEAR,
    "bilinear": PIL.Image.Resampling.BILINEAR,
    "bicubic": PIL.Image.Resampling.BICUBIC,
    "lanczos": PIL.Image.Resampling.LANCZOS,
    "nearest": PIL.Image.Resampling.NEAREST,
}
RESIZE_MODES = ("default", "fill", "crop")


class VaeImageProcessor:
    """Diffusers' class of this name, with its settings in `config`."""

    def __init__(
        self,
        do_resize: bool = True,
        vae_scale_factor: int = 8,
        vae_latent_channels: int = 4,
        resample: str = "lanczos",
        reducing_gap: float | None = None,
        do_normalize: bool = True,
        do_binarize: bool = False,
        do_convert_rgb: bool = False,
        do_convert_grayscale: bool = False,
    ) -> None:
        """Sizes are brought to multiples of `vae_scale_factor` pixels. Raises `UsageError`."""
        if do_convert_rgb and do_convert_grayscale:
            raise UsageError("do_convert_rgb and do_convert_grayscale cannot both be True")
        if resample not in INTERPOLATION:
            raise UsageError(f"resample = {resample!r} is not supported; {nearest(resample, INTERPOLATION)}")
        self.config = PartConfig({name: value for name, value in locals().items() if name != "self"})

    def preprocess(
        self,
        image: PictureInput,
        height: int | None = None,
        width: int | None = None,
        resize_mode: str = "default",
        crops_coords: Box | None = None,
    ) -> Tensor:
        """Pixels (B, 3, H, W) in [−1, 1], or in [0, 1] without `do_normalize`; latents as they are.

        `height`, `width`: in pixels, by default the picture's own; rounded down to multiples. `crops_coords`:
        the part of PIL images to take. Raises `UsageError` for what is no picture.
        """
        kind, pictures = self._listed(image)
        if kind is Picture:
            if crops_coords is not None:
                pictures = [each.crop(crops_coords) for each in pictures]
            if self.config.do_resize:
                height, width = self.get_default_height_width(pictures[0], height, width)
                pictures = [self.resize(each, height, width, resize_mode) for each in pictures]
            pixels = self.numpy_to_pt(self.pil_to_numpy([self._coloured(each) for each in pictures]))
        else:
            joined = kind is np.ndarray
            pixels = _joined([self.numpy_to_pt(each) if joined else each for each in pictures])
            if pixels.ndim == 3:
                pixels = pixels[:, None]
            if kind is Tensor and pixels.shape[1] == self.config.vae_latent_channels:
                return pixels
            height, width = self.get_default_height_width(pixels, height, width)
            if self.config.do_resize:
                pixels = self.resize(pixels, height, width)
        wanted = 1 if self.config.do_convert_grayscale else 3
        if pixels.shape[1] != wanted:
            raise UsageError(f"a picture has {pixels.shape[1]} channels: must have {wanted}")
        if self.config.do_normalize and pixels.min() < 0:
            warn("a picture has numbers below 0, and is taken to be in [−1, 1]: [0, 1] is expected")
        elif self.config.do_normalize:
            pixels = self.normalize(pixels)
        return self.binarize(pixels) if self.config.do_binarize else pixels

    def postprocess(
        self, image: Tensor, output_type: str = "pil", do_denormalize: Sequence[bool] | None = None
    ) -> Any:
        """Pixels (B, 3, H, W) in [−1, 1] as "pil", "np" or "pt"; "latent" is as it is.

        `do_denormalize`: which pictures are in [−1, 1]; others are in [0, 1]. Raises `UsageError`.
        """
        if not isinstance(image, Tensor):
            raise UsageError(f"postprocess takes a tensor, not {type(image).__name__}")
        if output_type not in FORMS:
            known = nearest(str(output_type), FORMS)
            raise UsageError(f"output_type = {output_type!r} is not supported; {known}")
        if output_type == "latent":
            return image
        wanted = [bool(self.config.do_normalize)] * len(image) if do_denormalize is None else do_denormalize
        rows = [self.denormalize(row) if each else row for row, each in zip(image, wanted, strict=True)]
        return pixels_in_form(torch.stack(rows).detach(), output_type)

    def resize(self, image: Any, height: int, width: int, resize_mode: str = "default") -> Any:
        """A PIL image, an array (B, H, W, C) or a tensor (B, C, H, W) at another size in pixels.

        `resize_mode` of PIL images: "default" stretches, "fill" and "crop" keep the proportions: the edges
        are spread over what is left, or what does not fit is left out. Raises `UsageError`.
        """
        if resize_mode not in RESIZE_MODES or (resize_mode != "default" and not isinstance(image, Picture)):
            known = nearest(str(resize_mode), RESIZE_MODES)
            raise UsageError(f"resize_mode = {resize_mode!r} is not supported here; {known}")
        if isinstance(image, np.ndarray):
            return self.pt_to_numpy(self.resize(self.numpy_to_pt(image), height, width))
        if isinstance(image, Tensor):
            return F.interpolate(image, size=(height, width))
        if resize_mode == "default":
            gap = self.config.reducing_gap
            return image.resize((width, height), self._resample, reducing_gap=gap)
        return self._fitted(image, width, height, crop=resize_mode == "crop")

    def _fitted(self, image: Picture, width: int, height: int, crop: bool) -> Picture:
        """A picture in its proportions in the middle of (width, height), all of it or, to `crop`, a part."""
        wider = image.width / image.height > width / height
        narrow = (image.width * height // image.height, height)
        flat = (width, image.height * width // image.width)
        size = narrow if wider == crop else flat
        resized = image.resize(size, self._resample)
        whole = PIL.Image.new("RGB", (width, height))
        left, top = width // 2 - size[0] // 2, height // 2 - size[1] // 2
        whole.paste(resized, (left, top))
        if top > 0:
            for edge, at in ((0, 0), (resized.height, top + resized.height)):
                whole.paste(resized.resize((width, top), box=(0, edge, width, edge)), (0, at))
        elif left > 0:
            for edge, at in ((0, 0), (resized.width, left + resized.width)):
                whole.paste(resized.resize((left, height), box=(edge, 0, edge, height)), (at, 0))
        return whole

    def get_default_height_width(
        self, image: Any, height: int | None = None, width: int | None = None
    ) -> tuple[int, int]:
        """The size, or else the picture's own, rounded down to multiples of `vae_scale_factor`."""
        if isinstance(image, Picture):
            own = image.height, image.width
        else:
            own = tuple(image.shape[2:4] if isinstance(image, Tensor) else image.shape[1:3])
        factor = self.config.vae_scale_factor
        high, wide = own[0] if height is None else height, own[1] if width is None else width
        if high < factor or wide < factor:
            raise UsageError(f"a picture of {wide}×{high} is too small: each side must be {factor} or more")
        return high - high % factor, wide - wide % factor

    @staticmethod
    def get_crop_region(mask_image: Picture, width: int, height: int, pad: int = 0) -> Box:
        """(left, top, right, bottom) around what a mask has, `pad` pixels wider, in a drawing's proportions.

        `width`, `height`: of the drawing. Raises `UsageError` where the mask is black.
        """
        around = bounds(np.asarray(mask_image.convert("L"), np.float32))
        if around is None:
            raise UsageError("the mask is black: white is what is drawn anew, black what is kept")
        left, top = max(around[0] - pad, 0), max(around[1] - pad, 0)
        right, bottom = min(around[2] + pad, mask_image.width), min(around[3] + pad, mask_image.height)
        ratio = width / height
        if (right - left) / (bottom - top) > ratio:
            top, bottom = _grown(top, bottom, (right - left) / ratio, mask_image.height)
        else:
            left, right = _grown(left, right, (bottom - top) * ratio, mask_image.width)
        return left, top, right, bottom

    def apply_overlay(
        self, mask: Picture, init_image: Picture, image: Picture, crop_coords: Box | None = None
    ) -> Picture:
        """`image` with `init_image` laid over it where the mask is black; `crop_coords`: the part drawn."""
        kept = PIL.Image.new("RGBa", init_image.size)
        kept.paste(init_image.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(mask.convert("L")))
        if crop_coords is not None:
            left, top, right, bottom = crop_coords
            part = self.resize(image, bottom - top, right - left, "crop")
            image = PIL.Image.new("RGB", init_image.size)
            image.paste(part, (left, top))
        whole = image.convert("RGBA")
        whole.alpha_composite(kept.convert("RGBA"))
        return whole.convert("RGB")

    @staticmethod
    def blur(image: Picture, blur_factor: float = 4) -> Picture:
        """A picture under a Gaussian blur of `blur_factor` pixels."""
        return image.filter(ImageFilter.GaussianBlur(blur_factor))

    @staticmethod
    def binarize(image: Tensor) -> Tensor:
        """1 from 0.5 on, else 0."""
        return (image >= 0.5).to(image.dtype)

    @staticmethod
    def normalize(images: Any) -> Any:
        """[0, 1] to [−1, 1]."""
        return 2.0 * images - 1.0

    @staticmethod
    def denormalize(images: Any) -> Any:
        """[−1, 1] to [0, 1]."""
        return (images * 0.5 + 0.5).clip(0, 1)

    @staticmethod
    def pil_to_numpy(images: Picture | Sequence[Picture]) -> "np.ndarray[Any, Any]":
        """PIL images of one size as (B, H, W, C), or grey ones as (B, H, W), in [0, 1]."""
        listed = [images] if isinstance(images, Picture) else images
        return np.stack([np.asarray(each, np.float32) / 255 for each in listed])

    @staticmethod
    def numpy_to_pil(images: "np.ndarray[Any, Any]") -> list[Picture]:
        """Pictures (B, H, W, C) in [0, 1] as PIL images."""
        return to_pil(images if images.ndim == 4 else images[None])

    @staticmethod
    def numpy_to_pt(images: "np.ndarray[Any, Any]") -> Tensor:
        """(B, H, W, C) or (B, H, W) as a tensor (B, C, H, W)."""
        return torch.from_numpy((images if images.ndim == 4 else images[..., None]).transpose(0, 3, 1, 2))

    @staticmethod
    def pt_to_numpy(images: Tensor) -> "np.ndarray[Any, Any]":
        """(B, C, H, W) as an array (B, H, W, C)."""
        array: np.ndarray[Any, Any] = images.cpu().permute(0, 2, 3, 1).float().numpy()
        return array

    @staticmethod
    def convert_to_rgb(image: Picture) -> Picture:
        return image.convert("RGB")

    @staticmethod
    def convert_to_grayscale(image: Picture) -> Picture:
        return image.convert("L")

    @property
    def _resample(self) -> PIL.Image.Resampling:
        return INTERPOLATION[self.config.resample]

    def _coloured(self, image: Picture) -> Picture:
        """A picture in the colours that are wanted. Raises `UsageError` for one that has others."""
        if self.config.do_convert_grayscale:
            return self.convert_to_grayscale(image)
        if self.config.do_convert_rgb:
            return self.convert_to_rgb(image)
        if image.mode != "RGB":
            raise UsageError(f'a picture is of mode {image.mode}: give image.convert("RGB")')
        return image

    def _listed(self, image: Any) -> tuple[Any, list[Any]]:
        """Of what kind pictures are, and a list of them: arrays and tensors with a batch axis."""
        pictures = list(image) if isinstance(image, list | tuple) else [image]
        kinds = (Picture, np.ndarray, Tensor)
        kind = next((each for each in kinds if all(isinstance(one, each) for one in pictures)), None)
        if kind is None or not pictures:
            raise UsageError(
                f"{shown(image)} is no picture: give a PIL image, an array or a tensor, or a list of these"
            )
        if kind is Picture:
            return kind, pictures
        grey = bool(self.config.do_convert_grayscale)
        return kind, [_batched(each, kind is np.ndarray, grey) for each in pictures]


def _batched(picture: Any, array: bool, grey: bool) -> Any:
    """An array (B, H, W, C), or a tensor (B, C, H, W), from one with or without a batch axis."""
    if array and picture.dtype == np.uint8:
        raise UsageError("an array of bytes is no picture: divide it by 255")
    if not array and not picture.is_floating_point():
        raise UsageError(f"a tensor of {picture.dtype} is no picture: it must be of numbers in [0, 1]")
    channel = -1 if array else 0
    if picture.ndim == 2:
        picture = picture[..., None] if array else picture[None]
    elif picture.ndim == 3 and grey and picture.shape[channel] != 1:
        return picture[..., None] if array else picture[:, None]
    if picture.ndim not in (3, 4):
        raise UsageError(f"numbers of shape {tuple(picture.shape)} are no picture")
    return picture if picture.ndim == 4 else picture[None]


def _joined(pictures: list[Tensor]) -> Tensor:
    """Pictures (…, C, H, W) in one batch. Raises `UsageError` unless they are of one size."""
    if len({each.shape[1:] for each in pictures}) > 1:
        sizes = " and ".join(dict.fromkeys(f"{each.shape[-1]}×{each.shape[-2]}" for each in pictures))
        raise UsageError(f"pictures of {sizes} make no batch: they must be of one size")
    return torch.cat(pictures)


def _grown(low: int, high: int, length: float, most: int) -> tuple[int, int]:
    """A span widened to `length` on both sides, moved and cut to lie within [0, most)."""
    more = int(length - (high - low))
    low, high = low - more // 2, high + more - more // 2
    over = max(high - most, 0)
    low, high = low - over, high - over
    under = max(-low, 0)
    return low + under, min(high + under, most)
