"""From a recipe to a task: the base model, the network that is trained, its data, and what is kept of it.

Every result is a whole model folder, in which one network is new. The next recipe names it as its base.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from sfumato import checkpoint, weights
from sfumato.checkpoint import Model
from sfumato.config import Config
from sfumato.data.icons import Captioned, Icons, captioned, load, rows, tinted, to_signal
from sfumato.data.pack import words
from sfumato.data.sets import SETS
from sfumato.devices import DTYPES
from sfumato.diffusion.predict import prediction_named
from sfumato.errors import DataError, UsageError
from sfumato.nets.fast import plain
from sfumato.nets.text import CLIPText
from sfumato.nets.unet import UNet
from sfumato.nets.vae import AutoencoderKL
from sfumato.prompt.chunks import chunks
from sfumato.prompt.meaning import Phrase, Piece
from sfumato.prompt.tokenizer import Tokenizer
from sfumato.train import sheet
from sfumato.train.autoencoding import Autoencoding, Pictures, fold, latent_statistics, psnr
from sfumato.train.denoising import Denoising, Latents
from sfumato.train.distilling import (
    COMPOSED_SHARE,
    LABEL_SHARE,
    Distilling,
    Texts,
    agreement,
    composed,
    tokenized,
)
from sfumato.train.loop import Task
from sfumato.train.recipe import AutoencoderRecipe, DenoiserRecipe, Recipe, TextRecipe
from sfumato.train.teacher import Teacher

MODEL = "model"
"""The folder in a run's own that holds the result."""
LATENTS, LESSONS = "latents.safetensors", "lessons.safetensors"
PACK = "pack"
"""The folder in a data set's own that holds what it was rendered from."""
AT_ONCE = 256
"""Pictures and texts that are encoded in one batch."""
MOST_LOOKED_AT = 1024
"""Pictures that figures and the statistics of latents are taken from."""


def task(recipe: Recipe, device: torch.device) -> Task[Any]:
    """What `recipe` asks for, on `device`. Raises `UsageError`, `DataError` and `CheckpointError`."""
    torch.manual_seed(recipe.seed)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    base = checkpoint.load(recipe.base, dtype=torch.float32)
    if isinstance(recipe, TextRecipe):
        return _text(recipe, base, device)
    if isinstance(recipe, AutoencoderRecipe):
        return _autoencoder(recipe, base, device)
    assert isinstance(recipe, DenoiserRecipe)
    return _denoiser(recipe, base, device)


def _network(recipe: Recipe, net: nn.Module, config: Config, where: str) -> nn.Module:
    """The network to train: the base model's own, or one of its kind with random weights."""
    if recipe.start == "nothing":
        changed = type(config).from_dict({**config.to_dict(), **recipe.network}, f"network of {where}")
        net = type(net)(changed)
    return plain(net).requires_grad_(True)


def _text(recipe: TextRecipe, base: Model, device: torch.device) -> Task[tuple[Tensor, Tensor]]:
    if len(base.text_encoders) != 1:
        raise UsageError(f"the base model {recipe.base} has {len(base.text_encoders)} text encoders, not one")
    teacher = Teacher.load(Path(recipe.teacher), device)
    texts, shares = _reading(recipe)
    ids = tokenized(texts, base.tokenizers[0], recipe.length)
    targets = _lessons(recipe, teacher, texts)
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(recipe.seed))
    tests = order[: min(4096, len(texts) // 8)]
    shares[tests] = 0
    cumulative = shares.cumsum(0)
    batches = Texts(ids.to(device), targets.to(device), (cumulative / cumulative[-1]).to(device))

    net = cast(CLIPText, _network(recipe, base.text_encoders[0], base.text_encoders[0].config, "text"))
    config = replace(net.config, projection_dim=teacher.width, with_projection=True)
    encoder = CLIPText(config)
    encoder.load_state_dict(net.state_dict(), strict=False)
    encoder.to(device)
    if recipe.compile:
        encoder.compile()

    def finish(state: dict[str, Tensor], folder: Path) -> dict[str, float]:
        judged, kept = CLIPText(config).to(device).eval(), CLIPText(net.config)
        judged.load_state_dict(state)
        kept.load_state_dict({name: state[name] for name in kept.state_dict()})
        model = replace(base, text_encoders=[kept.requires_grad_(False).eval()])
        checkpoint.save(model, folder / MODEL, dtype=torch.float16, overwrite=True)
        return agreement(judged, batches.ids[tests.to(device)], batches.targets[tests.to(device)])

    return Task(encoder, batches, Distilling(encoder), lambda state, path: None, finish)


def _reading(recipe: TextRecipe) -> tuple[list[str], Tensor]:
    """The texts to learn from, and how often each is read (N,)."""
    folder = Path(recipe.data)
    shown = [row for of_part in rows(folder).values() for row in of_part if not row.held_out]
    if not shown:
        raise DataError(f"{folder} describes no pictures; `sfumato data icons` makes them")
    labels = sorted({row.label for row in shown} | {tag for row in shown for tag in row.tags})
    styles = sorted({style for icons in SETS.values() for style in icons.styles})
    own = composed(labels, styles, recipe.composed, recipe.seed)
    others = sorted(set(words(folder / PACK)) - set(labels) - set(own))
    shares = [LABEL_SHARE] * len(labels) + [COMPOSED_SHARE] * len(own) + [1.0] * len(others)
    return [*labels, *own, *others], torch.tensor(shares, dtype=torch.float64)


def _lessons(recipe: TextRecipe, teacher: Teacher, texts: list[str]) -> Tensor:
    """What the teacher says of every text (N, P), in half precision, kept in the run's folder."""
    path = Path(recipe.run) / LESSONS
    told = {"texts": hashlib.sha256("\n".join(texts).encode("utf-8")).hexdigest()}
    if path.is_file() and weights.metadata(path) == told:
        return weights.read(path)["vectors"]
    vectors = torch.empty(len(texts), teacher.width, dtype=torch.float16)
    for start, end in _in_batches(len(texts)):
        vectors[start:end] = teacher.embed(texts[start:end])
    path.parent.mkdir(parents=True, exist_ok=True)
    weights.write(path, {"vectors": vectors}, told)
    return vectors


def _autoencoder(recipe: AutoencoderRecipe, base: Model, device: torch.device) -> Task[Tensor]:
    if not isinstance(base.vae, AutoencoderKL):
        raise UsageError(
            f"the base model {recipe.base} has a tiny autoencoder; this objective trains a KL one"
        )
    net = _network(recipe, base.vae, base.vae.config, "autoencoder")
    vae = cast(AutoencoderKL, net).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if recipe.only_decoder:
        vae.encoder.requires_grad_(False)
        if vae.quant_conv is not None:
            vae.quant_conv.requires_grad_(False)
    if recipe.compile:
        vae.encoder.compile()
        vae.decoder.compile()
    icons = load(Path(recipe.data), held_out=False, device=device)
    tests = _plain_pictures(load(Path(recipe.data), held_out=True, device=device), most=MOST_LOOKED_AT)

    def averaged(state: Mapping[str, Tensor]) -> AutoencoderKL:
        copy = AutoencoderKL(vae.config).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        copy.load_state_dict(state)
        return cast(AutoencoderKL, copy.eval())

    def show(state: dict[str, Tensor], path: Path) -> None:
        copy, x = averaged(state), tests[:: max(len(tests) // 32, 1)][:32]
        with torch.no_grad():
            y = copy.decode(copy.encode(x).mean).float().clamp(-1, 1)
        pairs = [part for rows in zip(x.split(8), y.split(8), strict=True) for part in rows]
        sheet.save(torch.cat(pairs), path)

    def finish(state: dict[str, Tensor], folder: Path) -> dict[str, float]:
        copy = averaged(state)
        seen = _plain_pictures(icons, most=MOST_LOOKED_AT)
        figures = {"psnr_held_out": psnr(copy, tests), "psnr_seen": psnr(copy, seen)}
        if not recipe.only_decoder:
            mean, std = latent_statistics(copy, seen)
            fold(copy, mean, std)
            figures |= {f"latent_mean_{c}": float(value) for c, value in enumerate(mean)}
            figures |= {f"latent_std_{c}": float(value) for c, value in enumerate(std)}
            copy.config = replace(
                copy.config, scaling_factor=1.0, shift_factor=None, latents_mean=None, latents_std=None
            )
        show(state, folder / "samples" / "last.webp")
        checkpoint.save(replace(base, vae=copy.cpu()), folder / MODEL, dtype=torch.float16, overwrite=True)
        return figures

    objective = Autoencoding(vae, recipe.kl, recipe.only_decoder)
    return Task(vae, Pictures(icons), objective, show, finish)


def _denoiser(recipe: DenoiserRecipe, base: Model, device: torch.device) -> Task[Any]:
    dtype = DTYPES[recipe.precision]
    for part in (base.vae, *base.text_encoders):
        part.to(device)
    base.vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    examples = captioned(
        load(Path(recipe.data), held_out=False, device=device),
        seed=recipe.seed,
        ways=recipe.captions,
        tints=recipe.tints,
    )
    latents = _latents(recipe, base, examples, device)
    texts, captions = _texts(base, examples, device)
    cumulative = torch.tensor(examples.weights, dtype=torch.float64).cumsum(0)
    batches = Latents(
        latents.to(device),
        captions.to(device),
        texts,
        (cumulative / cumulative[-1]).to(device),
        recipe.drop_text,
    )

    net = _network(recipe, base.unet, base.unet.config, "denoiser")
    unet = cast(UNet, net).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    drawer = UNet(unet.config).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    drawer.requires_grad_(False).eval()
    if recipe.compile:
        unet.compile()
    prediction = prediction_named(base.prediction)

    def show(state: dict[str, Tensor], path: Path) -> None:
        drawer.load_state_dict(state)
        if recipe.samples:
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                drawn = sheet.draw(base, drawer, recipe.samples, guidance=recipe.guidance)
            sheet.save(drawn, path)

    def finish(state: dict[str, Tensor], folder: Path) -> dict[str, float]:
        show(state, folder / "samples" / "last.webp")
        kept = UNet(unet.config).requires_grad_(False).eval()
        kept.load_state_dict(state)
        checkpoint.save(replace(base, unet=kept), folder / MODEL, dtype=torch.float16, overwrite=True)
        return {}

    return Task(unet, batches, Denoising(unet, base.path, prediction, recipe.weighting, device), show, finish)


def _plain_pictures(icons: Icons, most: int) -> Tensor:
    """At most `most` of the pictures, evenly chosen, one-colour drawings in black on white; (B, 3, S, S)."""
    total = len(icons.rows) + len(icons.ink_rows)
    share = min(1.0, most / total)
    parts = []
    if icons.rows:
        parts.append(to_signal(icons.pictures[_evenly(len(icons.rows), share)]))
    if icons.ink_rows:
        inks = icons.inks[_evenly(len(icons.ink_rows), share)]
        black = torch.full((len(inks), 3), -1.0, device=inks.device)
        parts.append(tinted(inks, black, -black))
    return torch.cat(parts)


def _evenly(count: int, share: float) -> list[int]:
    kept = max(1, int(count * share))
    return [place * count // kept for place in range(kept)]


@torch.no_grad()
def _latents(recipe: DenoiserRecipe, base: Model, examples: Captioned, device: torch.device) -> Tensor:
    """The scaled latents (N, C, h, w) of all examples, in half precision, kept in the run's folder."""
    path = Path(recipe.run) / LATENTS
    told = {"base": base.fingerprint, "count": str(len(examples)), "seed": str(recipe.seed)}
    if path.is_file() and weights.metadata(path) == told:
        return weights.read(path)["latents"]
    dtype = DTYPES[recipe.precision]
    parts = []
    for ends in _in_batches(len(examples)):
        x = examples.signal(*ends).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            mean = base.vae.encode(x).mean
        parts.append(base.vae.scale(mean.float()).half())
    latents = torch.cat(parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    weights.write(path, {"latents": latents}, told)
    return latents


@torch.no_grad()
def _texts(base: Model, examples: Captioned, device: torch.device) -> tuple[Tensor, Tensor]:
    """The states (U, T, D) of every different caption, the empty one first, and their rows (N, K)."""
    numbers = {"": 0}
    numbered = [[numbers.setdefault(one, len(numbers)) for one in own] for own in examples.captions]
    texts = list(numbers)
    length, last = base.tokenizers[0].limit, base.facts.penultimate
    width = sum(encoder.config.hidden_size for encoder in base.text_encoders)
    states = torch.empty(len(texts), length, width, dtype=torch.float16, device=device)
    for start, end in _in_batches(len(texts)):
        of_each = []
        for tokenizer, encoder in zip(base.tokenizers, base.text_encoders, strict=True):
            ids = torch.tensor([_window(text, tokenizer) for text in texts[start:end]], device=device)
            of_each.append(encoder(ids, skip=int(last), final_norm=not last).states)
        states[start:end] = torch.cat(of_each, dim=-1)
    return states, torch.tensor(numbered)


def _window(text: str, tokenizer: Tokenizer) -> list[int]:
    """The ids of the one chunk that a caption is read in."""
    (chunk,), _ = chunks(Phrase((Piece(text),)), tokenizer, "plain")
    return chunk.ids(tokenizer)


def _in_batches(count: int) -> list[tuple[int, int]]:
    return [(start, min(start + AT_ONCE, count)) for start in range(0, count, AT_ONCE)]
