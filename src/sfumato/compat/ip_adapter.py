"""IP-Adapters of a pipeline, loaded, scaled and given pictures by diffusers' methods."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from sfumato import weights
from sfumato.checkpoint.control import ip_adapter_of
from sfumato.checkpoint.layout import ENCODER
from sfumato.compat.models import CLIPVisionModelWithProjection, as_part
from sfumato.compat.sources import hub_options, no_others, number, part_folder, weight_file
from sfumato.edit.clip_picture import clip_picture
from sfumato.errors import UsageError
from sfumato.nets.inputs import ImageKV, joined
from sfumato.nets.ip_adapter import IPAdapter
from sfumato.nets.unet import UNet
from sfumato.studio import Studio
from sfumato.studio.control_fits import check_fits

IP_ADAPTER_FILE = "ip-adapter_sd15.safetensors"


@dataclass(eq=False)
class IPAdapters:
    """Those of a model, each with its scale for each cross-attention (A,), in the order of `TextKV`."""

    networks: list[IPAdapter] = field(default_factory=list)
    scales: list[Tensor] = field(default_factory=list)
    encoder: CLIPVisionModelWithProjection | None = None


class IPAdapterMixin(ABC):
    """Diffusers' methods for IP-Adapters."""

    @property
    @abstractmethod
    def studio(self) -> Studio:
        """The studio that draws."""

    @property
    @abstractmethod
    def ip_adapters(self) -> IPAdapters:
        """The IP-Adapters of the model, and what they see through."""

    def load_ip_adapter(
        self,
        pretrained_model_name_or_path_or_dict: Any,
        subfolder: str | Sequence[str],
        weight_name: str | Sequence[str],
        image_encoder_folder: str | None = "image_encoder",
        **others: Any,
    ) -> None:
        """Load one IP-Adapter or several in the place of those before, and an image encoder if there is none.

        `image_encoder_folder`: within `subfolder`, or with a slash in it within the whole; `None` for none.
        Raises `UsageError` and `CheckpointError`.
        """
        hub = hub_options(others)
        no_others("load_ip_adapter", others)
        names = _listed(weight_name)
        sources, folders = (
            _as_many(_listed(given), len(names), name)
            for name, given in (
                ("pretrained_model_name_or_path_or_dict", pretrained_model_name_or_path_or_dict),
                ("subfolder", subfolder),
            )
        )
        model, state = self.studio.model, self.ip_adapters
        networks = []
        for source, folder, name in zip(sources, folders, names, strict=True):
            where = "the IP-Adapter's state dict"
            if isinstance(source, Mapping):
                tensors = _flat(source)
            else:
                file = weight_file(source, name, IP_ADAPTER_FILE, folder, **hub)
                tensors, where = weights.read(file), str(file)
            network = ip_adapter_of(tensors, where)
            check_fits(where, network, model)
            networks.append(network)
            if state.encoder is None and image_encoder_folder is not None:
                if isinstance(source, Mapping):
                    raise UsageError(
                        "an IP-Adapter's state dict has no image encoder beside it: give the pipeline an "
                        "image_encoder, or image_encoder_folder=None"
                    )
                nested = "/" in image_encoder_folder
                inside = image_encoder_folder if nested else Path(folder, image_encoder_folder).as_posix()
                place = part_folder(source, inside, weights=True, **hub)
                state.encoder = CLIPVisionModelWithProjection.from_pretrained(place)
        state.networks = networks
        state.scales = [torch.ones(len(model.unet.cross)) for _ in networks]

    def set_ip_adapter_scale(self, scale: Any) -> None:
        """A number for all IP-Adapters, or a list with one for each; each a number or one for each block.

        Such as `{"down": {"block_2": [0.0, 1.0]}, "up": {"block_0": 0.5}}`: blocks that are not named have 0.
        Raises `UsageError`.
        """
        state, unet = self.ip_adapters, self.studio.model.unet
        scales = scale if isinstance(scale, list) else [scale] * len(state.networks)
        if len(scales) != len(state.networks):
            raise UsageError(f"{len(scales)} scales were given for {len(state.networks)} IP-Adapters")
        state.scales = [_scales(unet, each) for each in scales]

    def unload_ip_adapter(self) -> None:
        """Draw without IP-Adapters, and forget the image encoder."""
        state = self.ip_adapters
        state.networks, state.scales, state.encoder = [], [], None

    @torch.no_grad()
    def encode_image(
        self,
        image: Any,
        device: torch.device | str | None,
        num_images_per_prompt: int,
        output_hidden_states: bool | None = None,
    ) -> tuple[Tensor, Tensor]:
        """What the image encoder sees of pictures and of none: vectors (N, P), or states (N, L, D)."""
        encoder = self.ip_adapters.encoder
        if encoder is None:
            raise UsageError("the pipeline has no image_encoder: give ip_adapter_image_embeds")
        studio = self.studio
        encoder.to(studio.device, studio.dtype)
        network = encoder.network
        if not isinstance(image, Tensor):
            side = network.config.image_size
            image = torch.cat([clip_picture(_picture(each), side) for each in _listed(image)])
        pixels = image.to(studio.device, studio.dtype)
        seen = network(pixels)
        if output_hidden_states:
            found = seen.states, network(torch.zeros_like(pixels)).states
        else:
            found = seen.pooled, torch.zeros_like(seen.pooled)
        times = num_images_per_prompt
        shown, nothing = (each.repeat_interleave(times, dim=0) for each in found)
        return shown.to(device), nothing.to(device)

    def prepare_ip_adapter_image_embeds(
        self,
        ip_adapter_image: Any,
        ip_adapter_image_embeds: Sequence[Tensor] | None,
        device: torch.device | str | None,
        num_images_per_prompt: int,
        do_classifier_free_guidance: bool,
    ) -> list[Tensor]:
        """For each IP-Adapter what the encoder sees, (R, N, …) of N pictures.

        R is `num_images_per_prompt`, and with guidance twice that, of no picture first. Raises `UsageError`.
        """
        networks = self.ip_adapters.networks
        if not networks:
            raise UsageError("pictures are given to IP-Adapters, and none is loaded: see load_ip_adapter")
        given: list[tuple[Tensor, Tensor | None]]
        if ip_adapter_image_embeds is None:
            images = _listed(ip_adapter_image)
            _counted("ip_adapter_image", images, networks)
            given = []
            for image, network in zip(images, networks, strict=True):
                shown, nothing = self.encode_image(image, device, 1, not network.config.pooled)
                given.append((shown[None], nothing[None]))
        else:
            _counted("ip_adapter_image_embeds", ip_adapter_image_embeds, networks)
            given = [_halves(each, do_classifier_free_guidance) for each in ip_adapter_image_embeds]
        found = []
        for seen, none in given:
            rows = [seen] if none is None or not do_classifier_free_guidance else [none, seen]
            found.append(
                torch.cat([row for each in rows for row in [each] * num_images_per_prompt]).to(device)
            )
        return found

    @torch.no_grad()
    def image_prompts(self, embeds: Sequence[Tensor]) -> tuple[ImageKV, ...]:
        """Keys and values of `prepare_ip_adapter_image_embeds`' answer, under the scales of now."""
        studio, state = self.studio, self.ip_adapters
        unet, found = studio.model.unet, []
        for network, scale, rows in zip(state.networks, state.scales, embeds, strict=True):
            network.to(studio.device, studio.dtype)
            each = [unet.image_pairs(network(row)) for row in rows.to(studio.device, studio.dtype)]
            pairs = joined(each)
            found.append(ImageKV(pairs, scale.to(pairs[0][0]).expand(len(rows), -1)))
        return tuple(found)


def as_encoder(value: Any) -> CLIPVisionModelWithProjection | None:
    """An image encoder of these, or one of transformers, whose parameters are copied. Raises `UsageError`."""
    if value is None:
        return None
    part = as_part(ENCODER, value)
    assert isinstance(part, CLIPVisionModelWithProjection)
    return part


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _as_many(given: list[Any], count: int, name: str) -> list[Any]:
    """One for each of `count` files; a single one goes for all. Raises `UsageError`."""
    if len(given) not in (1, count):
        raise UsageError(f"{len(given)} of {name} were given for {count} of weight_name")
    return given * count if len(given) == 1 else given


def _counted(name: str, given: Sequence[Any], networks: Sequence[IPAdapter]) -> None:
    if len(given) != len(networks):
        raise UsageError(f"{name} has {len(given)} entries for {len(networks)} IP-Adapters: one for each")


def _flat(tables: Mapping[str, Any]) -> dict[str, Any]:
    """An IP-Adapter's two tables as one."""
    return {
        f"{part}.{name}" if isinstance(held, Mapping) else part: tensor
        for part, held in tables.items()
        for name, tensor in (held.items() if isinstance(held, Mapping) else [("", held)])
    }


def _halves(embeds: Tensor, guided: bool) -> tuple[Tensor, Tensor | None]:
    """What is seen of pictures, and of none, which comes first if there is guidance."""
    if not guided:
        return embeds, None
    nothing, shown = embeds.chunk(2)
    return shown, nothing


def _picture(image: Any) -> PIL.Image.Image:
    if isinstance(image, np.ndarray):
        image = PIL.Image.fromarray(
            image if image.dtype == np.uint8 else (image * 255).round().astype("uint8")
        )
    if not isinstance(image, PIL.Image.Image):
        raise UsageError(f"ip_adapter_image must be a picture, not {type(image).__name__}")
    return image.convert("RGB")


def _scales(unet: UNet, scale: Any) -> Tensor:
    """A scale for each cross-attention, of one number or of one for each block. Raises `UsageError`."""
    if not isinstance(scale, Mapping):
        return torch.full((len(unet.cross),), number("set_ip_adapter_scale", scale))
    places = {module: path for path, module in unet.named_modules()}
    found = []
    used: set[str] = set()
    for attention in unet.cross:
        way, *where = places[attention].split(".")
        side = way.removesuffix("_blocks").removesuffix("_block")
        value: Any = scale.get(side, 0.0)
        used.add(side)
        if side != "mid":
            block, _, transformer, *_ = where
            value = value.get(f"block_{block}", 0.0) if isinstance(value, Mapping) else value
            if isinstance(value, list):
                value = value[0 if len(value) == 1 else int(transformer)]
        elif isinstance(value, list):
            (value,) = value
        found.append(number("set_ip_adapter_scale", value))
    if unknown := [name for name in scale if name not in used]:
        raise UsageError(
            f"set_ip_adapter_scale: there is no {unknown[0]!r}; known: {', '.join(sorted(used))}"
        )
    return torch.tensor(found)
