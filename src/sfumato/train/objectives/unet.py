"""The UNet in training, whole or through a LoRA: made, sampled from, and saved."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sfumato import checkpoint
from sfumato.adapt import header, sampling_hints
from sfumato.adapt.embedding import Embedding
from sfumato.adapt.saving import save_lora
from sfumato.checkpoint import Model, instruct_adapter
from sfumato.checkpoint.loading import empty_network
from sfumato.checkpoint.source import locate
from sfumato.config import UNetConfig
from sfumato.diffusion.distill import BatchLevel, DenoiseFn
from sfumato.diffusion.predict import Prediction, prediction_named
from sfumato.nets.inference import unpacked
from sfumato.nets.text import CLIPText
from sfumato.nets.unet import UNet
from sfumato.train import sample_grid
from sfumato.train.context import StepContext
from sfumato.train.examples import CaptionedData, LatentBatch, embeddings_of
from sfumato.train.recipe import MODEL, Recipe
from sfumato.train.task import Loss, Task, holding

GUIDANCE_CHANNELS = 256
"""Channels of the embedding of the guidance scale (Luo et al. 2023, §4.3)."""


@dataclass(frozen=True, eq=False)
class X0Model:
    """A network whose output is read as an estimate of x0."""

    net: nn.Module
    prediction: Prediction

    def denoiser(self, batch: LatentBatch, guidance: Tensor | None = None) -> DenoiseFn:
        """Clean estimates for the texts of `batch`; `guidance` (B,): the scale, if the network reads it."""
        given = {"size": batch.added, "guidance": guidance}
        given = {name: value for name, value in given.items() if value is not None}

        def denoise(x: Tensor, level: BatchLevel) -> Tensor:
            seen = self.prediction.input(x, level.a, level.s)
            out = self.net(seen, level.t, batch.states, **given)
            return self.prediction.x0(x, out.float(), level.a, level.s)

        return denoise


@dataclass(frozen=True, eq=False)
class TrainedUNet:
    """What a recipe trains: the base model's UNet, one of its kind from scratch, or a LoRA of it."""

    recipe: Recipe
    base: Model
    device: torch.device
    guidance_embedding: bool = False
    """Whether it reads the guidance scale, as the base model's need not."""
    extra_channels: int = 0
    """How many channels of a picture it reads beside the noisy latent's."""
    apart: bool = False
    """Whether the base model's own UNet stays as it is, beside each new one; else they share their memory."""

    @property
    def embeddings(self) -> dict[str, Embedding]:
        """The learned words that the captions name: they are drawn with, and a LoRA's file brings them."""
        data = self.recipe.data
        return embeddings_of(data, self.base) if isinstance(data, CaptionedData) else {}

    def x0_model(self, net: UNet) -> X0Model:
        """`net`, which predicts what the base model's does."""
        return X0Model(net, prediction_named(self.base.prediction))

    def network(self) -> UNet:
        """A new one, as it is before the first step: from "base" it answers as the base model's does."""
        recipe, base = self.recipe, self.base
        config = replace(base.unet.config, sample_size=base.native_size[0] // base.factor)
        if self.guidance_embedding and config.time_cond_proj_dim is None:
            config = replace(config, time_cond_proj_dim=GUIDANCE_CHANNELS)
        if self.extra_channels:
            config = replace(config, in_channels=base.latent.channels + self.extra_channels)
        if recipe.start == "scratch":
            config = type(config).from_dict({**config.to_dict(), **recipe.network}, "[network]")
        net = unpacked(UNet(config)) if recipe.start == "scratch" else self._copy(config)
        net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        net.train().requires_grad_(True)
        if recipe.adapter:
            net.requires_grad_(False)
            generator = torch.Generator().manual_seed(recipe.seed)
            recipe.adapter.attach(net, generator)
            if self.extra_channels:
                net.conv_in.weight.requires_grad_(True)
        if recipe.compile:
            net.compile()
        return net

    def _copy(self, config: UNetConfig) -> UNet:
        """The base model's UNet as `config` has it, where it is larger with zeros."""
        own = unpacked(self.base.unet)
        own.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        state = {name: weight.clone() if self.apart else weight for name, weight in own.state_dict().items()}
        state["conv_in.weight"] = _widened(state["conv_in.weight"], config.in_channels)
        net = empty_network(config)
        assert isinstance(net, UNet)
        for name, weight in net.named_parameters():
            if name not in state:
                state[name] = torch.zeros(weight.shape, device=self.device)
        net.load_state_dict(state, assign=True)
        return net

    def text_encoders(self) -> dict[str, CLIPText]:
        """Those that an adapter changes as well, with it, by their places in a model's folder."""
        section = self.recipe.adapter
        if section is None or not section.text_encoders:
            return {}
        places = self.base.info.family.text_encoders
        found = dict(zip(places, self.base.text_encoders, strict=False))
        generator = torch.Generator().manual_seed(self.recipe.seed)
        for encoder in found.values():
            section.attach_text(unpacked(encoder.requires_grad_(False)), generator)
        return found

    def task(
        self,
        net: UNet,
        batches: Callable[[StepContext, int], Any],
        loss: Loss[Any],
        ema_networks: Mapping[float, nn.Module] | None = None,
        as_sampled: Callable[[Model], Model] = lambda model: model,
        text_encoders: Mapping[str, CLIPText] | None = None,
    ) -> Task[Any]:
        """The task of training `net`, a `network`, and the `text_encoders` that are trained with it.

        `as_sampled`: the base model with the trained UNet in its place to how that is to be sampled.
        """
        recipe, device = self.recipe, self.device
        model = as_sampled(replace(self.base, unet=net, fast=None, controls={}))
        networks: dict[str, nn.Module] = {"unet": net, **(text_encoders or {})}
        trained = nn.ModuleDict(networks) if text_encoders else net

        def show(state: dict[str, Tensor], path: Path) -> None:
            if recipe.samples.prompts:
                with holding(trained, state):
                    drawn = sample_grid.draw(
                        model,
                        recipe.samples.prompts,
                        device,
                        recipe.samples.guidance_scale,
                        embeddings=self.embeddings,
                    )
                sample_grid.save(drawn, path)

        def finish(state: dict[str, Tensor], folder: Path) -> dict[str, float]:
            with holding(trained, state):
                write(folder)
            show(state, folder / "samples" / "last.webp")
            return {}

        def write(folder: Path) -> None:
            if recipe.adapter:
                hints = sampling_hints.header(model.own) if recipe.objective.FEW_STEPS else {}
                metadata = {
                    "made by": "sfumato",
                    "base": self.base.fingerprint,
                    **header.of_training(
                        self.base,
                        title=folder.name,
                        triggers=recipe.adapter.trigger_words,
                        recipe=recipe.identity(),
                        base_path=locate(recipe.base),
                    ),
                    **hints,
                }
                others = None
                if self.extra_channels:
                    metadata |= instruct_adapter.header_entries(recipe.base, model.own)
                    others = {instruct_adapter.FIRST: net.conv_in.weight}
                path = folder / recipe.objective.result(recipe).name
                save_lora(
                    path,
                    networks,
                    layout=recipe.adapter.written_layout,
                    dtype=torch.float16,
                    metadata=metadata,
                    others=others,
                    embeddings=self.embeddings,
                )
            else:
                checkpoint.save(model, folder / MODEL, dtype=torch.float16, overwrite=True)

        frozen_base = self.base.fingerprint if recipe.adapter else ""
        return Task(trained, batches, loss, show, finish, ema_networks or {}, frozen_base)


def _widened(weight: Tensor, channels: int) -> Tensor:
    """The weight (O, I, …) of a layer that reads `channels` channels, those after its own with no effect."""
    if not (extra := channels - weight.shape[1]):
        return weight
    return torch.cat([weight, weight.new_zeros(len(weight), extra, *weight.shape[2:])], dim=1)
