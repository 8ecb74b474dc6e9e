"""How fast Sfumato is beside diffusers and OpenVINO: the same weights and numbers, in turns, in one process.

    python benchmarks/speed.py [MODE]... [--write docs/performance.md]
    python benchmarks/speed.py sd15-picture --device cuda --compile
    python benchmarks/speed.py clips --rounds 2
    python benchmarks/speed.py editing --write docs/performance.md
    python benchmarks/speed.py fast live --model MODEL --write docs/few-steps.md

Needs the extra `test`, and `bench` for OpenVINO's rows. It wants a machine that does nothing else: ratios of
medians are what to trust.
`--clock cpu --threads 1` counts processor time instead, which a busy machine disturbs less. Every time is
printed as it is measured, and every row with the machine's load.
"""

import argparse
import copy
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import compel
import diffusers
import numpy as np
import PIL.Image
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.pipelines.stable_diffusion import (
    pipeline_stable_diffusion_img2img,
    pipeline_stable_diffusion_inpaint,
)
from measuring import LOAD, Run, Table, load, machine, medians
from torch import Tensor, nn

import sfumato
from sfumato import checkpoint
from sfumato.adapt.architecture import PUBLISHED
from sfumato.checkpoint.layout import FAST
from sfumato.config import MotionAdapterConfig, TinyVAEConfig, UNetConfig, VAEConfig
from sfumato.devices import pick_dtype
from sfumato.diffusion.guidance import ClassifierFreeGuidance
from sfumato.diffusion.level import VariancePreserving, alphas_cumprod, scaled_linear_betas
from sfumato.diffusion.samplers import sampler_named
from sfumato.diffusion.sampling import SeededNoise
from sfumato.diffusion.spacing import spacing_named
from sfumato.engine import Engine, Finished, Job
from sfumato.nets.denoiser import Denoiser
from sfumato.nets.inference import for_inference
from sfumato.nets.inputs import SizeConditioning
from sfumato.nets.motion import MotionAdapter
from sfumato.nets.tiny_vae import AutoencoderTiny
from sfumato.nets.unet import UNet
from sfumato.nets.vae import AutoencoderKL

PROMPT = "a red apple, 3d render"
CHANGED = "a blue apple, 3d render"
STEPS, GUIDANCE, STRENGTH = 20, 4.0, 0.6
TEACHER_STEPS, FAST_STEPS, LIVE_STEPS = 25, 4, (1, 2, 4)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SD15 = {
    "block_out_channels": [320, 640, 1280, 1280],
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "sample_size": 64,
}
SDXL = {**PUBLISHED["sdxl"]["unet"], "transformer_layers_per_block": [1, 1, 2], "sample_size": 128}
"""Less deep than SDXL, whose transformers have 2 and 10 layers."""
SD_VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "latent_channels": 4,
}
TINY = {
    "encoder_block_out_channels": [16] * 4,
    "num_encoder_blocks": [1, 2, 2, 3],
    "decoder_block_out_channels": [32] * 4,
    "num_decoder_blocks": [3, 3, 2, 0],
}
SMALL_SD = {**SD15, "block_out_channels": [96, 192, 384, 384], "sample_size": 32}
FRAMES = 16
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SCRIPT = """
import sys
import torch
from diffusers import StableDiffusionPipeline

folder, prompt, out, dtype = sys.argv[1:]
pipe = StableDiffusionPipeline.from_pretrained(folder, dtype=getattr(torch, dtype), safety_checker=None)
pipe.set_progress_bar_config(disable=True)
pipe(prompt, num_inference_steps=20, guidance_scale=4.0).images[0].save(out)
"""


@dataclass(frozen=True)
class Row:
    """One comparison: median seconds of ours and of each way of theirs, and how far the results lie apart."""

    what: str
    ours: float
    theirs: dict[str, float]
    apart: str
    load: str = field(default_factory=load)

    def cells(self) -> str:
        """The row of a Markdown table."""
        theirs = ", ".join(f"{seconds:.3f} ({way})" for way, seconds in self.theirs.items())
        ratio = f"**{min(self.theirs.values()) / self.ours:.2f}×**" if self.theirs else "–"
        return f"| {self.what} | {self.ours:.3f} | {theirs or '–'} | {ratio} | {self.apart} | {self.load} |"


@dataclass(frozen=True)
class Bench:
    """What every comparison needs to know."""

    device: str
    rounds: int
    clock: str
    compile: bool
    model: str = "embedded"
    """What `fast` and `live` draw with: a folder with a LoRA to draw fast with."""

    @property
    def folder(self) -> Path:
        """Where that model lies."""
        return checkpoint.embedded() if self.model == "embedded" else Path(self.model)

    def medians(self, runs: dict[str, Run], rounds: int | None = None) -> dict[str, float]:
        """Median seconds of each run, all taking turns in every round; the first round does not count."""
        clock = time.process_time if self.clock == "cpu" else time.perf_counter
        after = torch.cuda.synchronize if self.device == "cuda" else lambda: None
        return medians(runs, rounds or self.rounds, clock=clock, after=after)


def embedded(bench: Bench) -> Iterator[Row]:
    """Whole pictures of the embedded model: text, 20 guided steps of DDIM at 256², decoding."""
    noise = SeededNoise([7])(torch.empty(1, 4, 32, 32))
    fresh = iter(range(10**9))
    """A new prompt every time, so that its text is encoded every time."""
    for name, dtype in DTYPES.items():
        studio = sfumato.load(device=bench.device, dtype=dtype)
        pipes = {"plain": pipeline(dtype, bench.device)}
        pipes["channels_last"] = pipeline(dtype, bench.device)
        for part in (pipes["channels_last"].unet, pipes["channels_last"].vae):
            part.to(memory_format=torch.channels_last)

        def ours(prompt: str, studio: sfumato.Studio = studio) -> Any:
            return studio.generate(prompt, seed=7, steps=STEPS, guidance=GUIDANCE, sampler="ddim").pixels

        def theirs(prompt: str, pipe: Any, dtype: torch.dtype = dtype) -> Any:
            latents = noise.to(bench.device, dtype)
            drawn = pipe(prompt, num_inference_steps=STEPS, guidance_scale=GUIDANCE, latents=latents)
            return np.asarray(drawn.images[0])

        apart = pixels_apart(ours(PROMPT), theirs(PROMPT, pipes["plain"]))
        runs: dict[str, Run] = {"ours": lambda draw=ours: draw(f"{PROMPT} {next(fresh)}")}
        for way, pipe in pipes.items():
            runs[way] = lambda draw=theirs, pipe=pipe: draw(f"{PROMPT} {next(fresh)}", pipe)
        seconds = bench.medians(runs)
        what = f"embedded model, {STEPS} guided steps at 256², text to pixels, {name}"
        yield Row(what, seconds.pop("ours"), seconds, apart)


def networks(bench: Bench) -> Iterator[Row]:
    """One pass of the embedded model's UNet for one row, and for one, two and four guided pictures."""
    generator = torch.Generator().manual_seed(1)
    given = torch.randn(4, 4, 32, 32, generator=generator)
    text = torch.randn(8, 77, 256, generator=generator)
    for name, dtype in DTYPES.items():
        unet = sfumato.load(device=bench.device, dtype=dtype).model.unet
        t = torch.tensor([500.0], device=bench.device)
        for count in (1, 2, 4, 8):
            points = max(count // 2, 1)
            x = given[:points].to(bench.device, dtype)
            states = text[:count, :, : unet.config.cross_attention_dim].to(bench.device, dtype)
            rows = torch.arange(points, device=bench.device).repeat(count // points)
            peer = diffusers.UNet2DConditionModel.from_pretrained(checkpoint.embedded() / "unet")
            peer = Answer(peer).to(bench.device, dtype).eval()
            what = f"embedded model's UNet, a pass for {count} row{'s' * (count > 1)}, {name}"
            asked = (x[rows], t, states)
            with torch.inference_mode():
                ours = partial(unet.denoise, x, unet.embed_time(t.repeat(points)), unet.context(states), rows)
                yield beside(bench, what, ours, peer, asked, name, rounds=3 * bench.rounds)


class Answer(nn.Module):
    """A network of diffusers that answers with a tensor."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, *asked: Tensor) -> Tensor:
        """Of a decoder's latent, or of a UNet's input, time and text, and of SDXL's pooled text and sizes."""
        given, more = asked[:3], asked[3:]
        added = dict(zip(("text_embeds", "time_ids"), more, strict=True)) if more else None
        options = {} if added is None else {"added_cond_kwargs": added}
        answer: Tensor = self.net(*given, **options, return_dict=False)[0]
        return answer


def beside(
    bench: Bench,
    what: str,
    ours: Run,
    peer: nn.Module,
    asked: tuple[Tensor, ...],
    dtype: str,
    *,
    scale: float = 0,
    rounds: int | None = None,
    convert: bool = True,
) -> Row:
    """Our answer beside the peer's, plain, in channels_last, and compiled by OpenVINO if it is installed and
    it is to `convert` the peer.

    With `scale` the difference is told in numbers of 8 bits, `scale` of them for 1.
    """
    gap, size = (ours().float() - peer(*asked).float()).abs(), peer(*asked).float().abs().max()
    apart = f"{gap.max() / size:.1e} of the largest answer at most"
    if scale:
        apart = f"{scale * gap.max():.0f}/255 at most, {scale * gap.mean():.2f}/255 on average"
    other = copy.deepcopy(peer).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    runs: dict[str, Run] = {
        "ours": ours,
        "plain": lambda: peer(*asked),
        "channels_last": lambda: other(*asked),
    }
    if convert and bench.device == "cpu" and find_spec("openvino") is not None:
        runs["OpenVINO"] = compiled_by_openvino(peer, asked, dtype)
    seconds = bench.medians(runs, rounds)
    return Row(what, seconds.pop("ours"), seconds, apart)


def compiled_by_openvino(net: nn.Module, asked: tuple[Tensor, ...], dtype: str) -> Run:
    """A network as OpenVINO computes it in this precision, with as many threads as torch has."""
    import openvino

    given = tuple(x.float() for x in asked)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        model = openvino.convert_model(
            copy.deepcopy(net).float(), example_input=given, input=[tuple(x.shape) for x in given]
        )
    hints = {
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[dtype],
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    request = openvino.Core().compile_model(model, "CPU", hints).create_infer_request()
    numbers = [x.numpy() for x in given]
    return lambda: request.infer(numbers)


def editing(bench: Bench) -> Iterator[Row]:
    """A picture drawn over as a whole, and a part of one drawn anew, by the embedded model: pixels to pixels.

    Both begin with the most likely latent of the picture; diffusers takes one at random otherwise.
    """
    picture = sfumato.load(device=bench.device).generate(PROMPT, seed=7).pil
    mask = PIL.Image.new("L", picture.size)
    mask.paste(255, (64, 64, 192, 192))
    noise = SeededNoise([7])(torch.empty(1, 4, 32, 32))
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        f"img2img, {STEPS} guided steps at strength {STRENGTH}": (
            diffusers.StableDiffusionImg2ImgPipeline,
            {"strength": STRENGTH},
        ),
        f"inpainting, {STEPS} guided steps": (
            diffusers.StableDiffusionInpaintPipeline,
            {"strength": 1.0, "mask": mask},
        ),
    }
    fresh = iter(range(10**9))
    """A new prompt every time, so that its text is encoded every time."""
    with ExitStack() as changed:
        changed.enter_context(
            patch.object(DiagonalGaussianDistribution, "sample", lambda self, *_: self.mean)
        )
        same_noise = {"randn_tensor": lambda shape, device, dtype, **_: noise.to(device, dtype)}
        for module in (pipeline_stable_diffusion_img2img, pipeline_stable_diffusion_inpaint):
            changed.enter_context(patch.multiple(module, **same_noise))
        for (name, dtype), (kind, (peer, call)) in product(DTYPES.items(), kinds.items()):
            studio = sfumato.load(device=bench.device, dtype=dtype)
            pipes = {way: pipeline(dtype, bench.device, peer) for way in ("plain", "channels_last")}
            for part in (pipes["channels_last"].unet, pipes["channels_last"].vae):
                part.to(memory_format=torch.channels_last)
            renamed = {"mask": "mask_image"}
            peer_call = {renamed.get(key, key): value for key, value in call.items()}

            def ours(prompt: str, studio: sfumato.Studio = studio, call: dict[str, Any] = call) -> Any:
                sampling = {"seed": 7, "steps": STEPS, "guidance": GUIDANCE, "sampler": "ddim"}
                return studio.generate(prompt, image=picture, **sampling, **call).pixels

            def theirs(prompt: str, pipe: Any, call: dict[str, Any] = peer_call) -> Any:
                sampling = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE}
                return np.asarray(pipe(prompt, image=picture, **sampling, **call).images[0])

            inside = np.asarray(mask) > 0 if "mask" in call else ...
            apart = pixels_apart(ours(CHANGED)[inside], theirs(CHANGED, pipes["plain"])[inside])
            runs: dict[str, Run] = {"ours": lambda draw=ours: draw(f"{CHANGED} {next(fresh)}")}
            for way, pipe in pipes.items():
                runs[way] = lambda draw=theirs, pipe=pipe: draw(f"{CHANGED} {next(fresh)}", pipe)
            seconds = bench.medians(runs)
            yield Row(f"{kind} at 256², pixels to pixels, {name}", seconds.pop("ours"), seconds, apart)


def pipeline(dtype: torch.dtype, device: str, kind: Any = diffusers.StableDiffusionPipeline) -> Any:
    """The embedded model in diffusers."""
    pipe = kind.from_pretrained(checkpoint.embedded(), dtype=dtype, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def pixels_apart(ours: Any, theirs: Any) -> str:
    """How two pictures of 8 bits a channel differ."""
    gap = np.abs(ours.astype(int) - theirs.astype(int))
    return f"{gap.max()}/255 at most, {gap.mean():.2f}/255 on average"


def sd15(bench: Bench) -> Iterator[Row]:
    """One guided pass of a UNet of SD 1.5's size, 64×64 latents, with random weights."""
    for name in DTYPES:
        yield guided_pass(bench, "UNet of SD 1.5's size, one guided pass at 64×64", SD15, name)


def sdxl(bench: Bench) -> Iterator[Row]:
    """One guided pass of a UNet of SDXL's widths and less depth, 128×128 latents, with random weights."""
    what = "UNet of SDXL's widths, a quarter of its depth, one guided pass at 128×128"
    yield guided_pass(bench, what, SDXL, "bfloat16")


def guided_pass(bench: Bench, what: str, config: dict[str, Any], precision: str) -> Row:
    """Keys and values, and what depends on the time alone, are made once a picture: they do not count."""
    dtype, side = DTYPES[precision], config["sample_size"]
    peer = peer_unet(dtype, config).to(bench.device)
    unet = own_unet(peer, bench, config)
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(bench.device, dtype)

    x, states = random(1, 4, side, side), random(2, 77, config["cross_attention_dim"])
    t = torch.tensor([500.0], device=bench.device)
    rows = torch.zeros(2, dtype=torch.long, device=bench.device)
    size, more = None, ()
    if config is SDXL:
        pixels = 8 * float(side)
        ids = torch.tensor([[pixels, pixels, 0.0, 0.0, pixels, pixels]], device=bench.device)
        pooled = random(1, 1280)
        size, more = SizeConditioning(pooled, ids), (torch.cat([pooled] * 2), torch.cat([ids] * 2).to(dtype))
    with torch.inference_mode():
        time_, text = unet.embed_time(t, size), unet.context(states)
        asked = (torch.cat([x, x]), t, states, *more)
        ours = partial(unet.denoise, x, time_, text, rows)
        return beside(bench, f"{what}, {precision}", ours, Answer(peer), asked, precision)


def sd15_picture(bench: Bench) -> Iterator[Row]:
    """20 guided DDIM steps at 512² and decoding, at SD 1.5's sizes, in bfloat16, with random weights."""
    dtype = torch.bfloat16
    peer = peer_unet(dtype).to(bench.device)
    torch.manual_seed(2)
    peer_vae = diffusers.AutoencoderKL(**SD_VAE).to(bench.device, dtype).eval()
    unet = own_unet(peer, bench)
    vae = AutoencoderKL(VAEConfig.from_dict(SD_VAE, "SD_VAE"))
    vae.load_state_dict(peer_vae.state_dict())
    vae = for_inference(vae, torch.device(bench.device), dtype)
    pipe = diffusers.StableDiffusionPipeline(
        vae=peer_vae,
        text_encoder=None,
        tokenizer=None,
        unet=peer,
        scheduler=diffusers.DDIMScheduler(**BETAS, clip_sample=False, timestep_spacing="trailing"),
        safety_checker=None,
        feature_extractor=None,
    )
    pipe.set_progress_bar_config(disable=True)
    states = torch.randn(2, 77, 768, generator=torch.Generator().manual_seed(1)).to(bench.device, dtype)
    noise = SeededNoise([7])(torch.empty(1, 4, 64, 64)).to(bench.device)
    denoiser = Denoiser(unet, "epsilon", torch.device(bench.device))
    levels = spacing_named("trailing").levels(
        VariancePreserving(alphas_cumprod(scaled_linear_betas())), STEPS
    )

    @torch.inference_mode()
    def ours() -> Tensor:
        terms = [denoiser.condition(row) for row in states.split(1)]
        sampling = sampler_named("ddim").sample(noise, levels, SeededNoise([7]))
        guidance = ClassifierFreeGuidance.of(*terms, scale=GUIDANCE)
        *_, finished = Engine(denoiser).run([Job(0, sampling, guidance)])
        assert isinstance(finished, Finished)
        return vae.decode(vae.unscale(finished.latent.to(dtype)))

    def theirs() -> Tensor:
        drawn = pipe(
            prompt_embeds=states[:1],
            negative_prompt_embeds=states[1:],
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            latents=noise.to(dtype),
            output_type="pt",
        )
        picture: Tensor = drawn.images
        return picture

    gap = ((ours().float() / 2 + 0.5).clamp(0, 1) - theirs().float()).abs()
    own = []
    seconds = {}
    ways: list[tuple[str, Run]] = [
        ("plain", lambda: None),
        ("channels_last", lambda: [net.to(memory_format=torch.channels_last) for net in (peer, peer_vae)]),
    ]
    if bench.compile:
        ways.append(("compiled", lambda: compile_in_place(pipe)))
    for way, change in ways:
        change()
        found = bench.medians({"ours": ours, way: theirs})
        own.append(found.pop("ours"))
        seconds |= found
    apart = f"{255 * gap.max():.0f}/255 at most, {255 * gap.mean():.2f}/255 on average"
    yield Row(
        f"SD 1.5's sizes, {STEPS} guided steps at 512² and decoding, bfloat16", min(own), seconds, apart
    )


def decoding(bench: Bench) -> Iterator[Row]:
    """A latent to 256² pixels by the embedded model's autoencoder, and by a tiny one with random weights."""
    device = torch.device(bench.device)
    for name, dtype in DTYPES.items():
        z = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(1)).to(device, dtype)
        torch.manual_seed(3)
        peers = {
            "full": diffusers.AutoencoderKL.from_pretrained(checkpoint.embedded() / "vae", dtype=dtype),
            "tiny": diffusers.AutoencoderTiny(**TINY),
        }
        small = AutoencoderTiny(TinyVAEConfig.from_dict(TINY, "TINY"))
        small.load_state_dict(peers["tiny"].state_dict())
        own = {"full": checkpoint.load("embedded").vae, "tiny": small}
        seconds: dict[str, float] = {}
        for decoder, net in own.items():
            ours = for_inference(net, device, dtype, compiled=bench.compile)
            peer = peers[decoder].to(device, dtype).eval()
            # OpenVINO's converter calls the module itself
            peer.forward = peer.decode
            what = f"a latent to 256² pixels by the {decoder} decoder, {name}"
            with torch.inference_mode():
                row = beside(
                    bench,
                    what,
                    lambda net=ours, z=z: net.decode(z),  # type: ignore[misc]
                    Answer(peer),
                    (z,),
                    name,
                    scale=127.5,
                    rounds=3 * bench.rounds,
                )
            seconds[decoder] = row.ours
            if decoder == "tiny":
                times = seconds["full"] / seconds["tiny"]
                row = replace(row, what=f"{what} ({times:.1f} times as fast as by our full one)")
            yield row


def fast(bench: Bench) -> Iterator[Row]:
    """Whole pictures of a model that draws fast: the teacher's guided steps, and few by either decoder.

    Each way has a studio of its own, so that no LoRA is put in and taken out between two pictures.
    """
    fresh = iter(range(10**9))
    """A new prompt every time, so that its text is encoded every time."""
    few: dict[str, Any] = {"fast": True, "steps": FAST_STEPS}
    kinds: dict[str, dict[str, Any]] = {
        f"the teacher's {TEACHER_STEPS} guided steps": {"steps": TEACHER_STEPS},
        f"--fast, {FAST_STEPS} steps": few,
        f"--fast, {FAST_STEPS} steps, tiny decoder": {**few, "decoder": "tiny"},
    }
    for name, dtype in DTYPES.items():
        runs: dict[str, Run] = {}
        apart = {}
        for kind, fields in kinds.items():
            studio = sfumato.load(bench.folder, device=bench.device, dtype=dtype)
            pipe = peer_of(bench.folder, dtype, bench.device, "fast" in fields, "decoder" in fields)
            own = studio.resolve(sfumato.Request.build(prompt=PROMPT, seed=7, **fields))

            def ours(prompt: str, studio: sfumato.Studio = studio, fields: dict[str, Any] = fields) -> Any:
                return studio.generate(prompt, seed=7, **fields).pixels

            def theirs(prompt: str, pipe: Any = pipe, own: sfumato.Request = own) -> Any:
                return np.asarray(peer_picture(pipe, own.steps, own.guidance, prompt=prompt))

            apart[kind] = pixels_apart(ours(PROMPT), theirs(PROMPT))
            runs[kind] = lambda draw=ours: draw(f"{PROMPT} {next(fresh)}")
            runs[f"diffusers, {kind}"] = lambda draw=theirs: draw(f"{PROMPT} {next(fresh)}")
        seconds = bench.medians(runs)
        teacher, *_ = (seconds[kind] for kind in kinds)
        for kind in kinds:
            times = f" ({teacher / seconds[kind]:.1f} times as fast)" if seconds[kind] != teacher else ""
            peer = {"channels_last": seconds[f"diffusers, {kind}"]}
            yield Row(f"{kind}, text to pixels, {name}{times}", seconds[kind], peer, apart[kind])


def live(bench: Bench) -> Iterator[Row]:
    """One frame of `examples/live.py` on its way from prompt to prompt: a new mixture of texts every time."""
    share = iter(range(1, 10**9))
    studio = sfumato.load(bench.folder, device=bench.device)
    pipe = peer_of(bench.folder, studio.dtype, bench.device, True, True)
    mixer = compel.Compel(pipe.tokenizer, pipe.text_encoder)
    fields = {"fast": True, "seed": 7, "decoder": "tiny", "dialect": "compel"}

    def mixed(number: int) -> str:
        return f'("{PROMPT}", "a lemon, 3d render").blend({1 - number / 10**4:.4f}, {number / 10**4:.4f})'

    for steps in LIVE_STEPS:

        def ours(text: str, steps: int = steps) -> Any:
            return studio.generate(text, steps=steps, **fields).pixels

        def theirs(text: str, steps: int = steps) -> Any:
            with torch.no_grad():
                states = mixer(text)
            return np.asarray(peer_picture(pipe, steps, 1.0, prompt_embeds=states))

        apart = pixels_apart(ours(mixed(0)), theirs(mixed(0)))
        runs: dict[str, Run] = {
            "ours": lambda draw=ours: draw(mixed(next(share))),
            "channels_last": lambda draw=theirs: draw(mixed(next(share))),
        }
        found = bench.medians(runs, rounds=3 * bench.rounds)
        own = found.pop("ours")
        name = str(studio.dtype).removeprefix("torch.")
        yield Row(f"a live frame in {steps} steps, {name} ({1 / own:.1f} a second)", own, found, apart)


def peer_of(folder: Path, dtype: torch.dtype, device: str, few: bool, tiny: bool) -> Any:
    """The model in diffusers as it is fastest there: in channels_last, an LCM-LoRA folded in."""
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder, dtype=dtype, safety_checker=None)
    if few:
        pipe.load_lora_weights(folder, weight_name=FAST)
        pipe.fuse_lora()
        pipe.unload_lora_weights()
        pipe.scheduler = diffusers.LCMScheduler.from_config(pipe.scheduler.config)
    else:
        pipe.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(
            pipe.scheduler.config, timestep_spacing="trailing"
        )
    if tiny:
        pipe.vae = diffusers.AutoencoderTiny.from_pretrained(folder / "tiny_vae", dtype=dtype)
    for part in (pipe.unet, pipe.vae):
        part.to(memory_format=torch.channels_last)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def peer_picture(pipe: Any, steps: int | None, guidance: float | None, **text: Any) -> Any:
    """A picture from the same first noise as ours, and in float32 from the same later noise."""
    generator = torch.Generator().manual_seed(7)
    size = pipe.unet.config.sample_size
    first = torch.randn(1, 4, size, size, generator=generator).to(pipe.device, pipe.unet.dtype)
    drawn = pipe(
        **text, num_inference_steps=steps, guidance_scale=guidance, latents=first, generator=generator
    )
    return drawn.images[0]


def compile_in_place(pipe: Any) -> None:
    """diffusers at its fastest on a GPU."""
    pipe.unet = torch.compile(pipe.unet, mode="max-autotune", fullgraph=True)
    pipe.vae.decode = torch.compile(pipe.vae.decode, mode="max-autotune", fullgraph=True)


def peer_unet(dtype: torch.dtype, config: dict[str, Any] = SD15) -> Any:
    """diffusers' UNet of a size, SD 1.5's, with random weights."""
    torch.manual_seed(1)
    return diffusers.UNet2DConditionModel(**config).to(dtype).eval()


def own_unet(peer: Any, bench: Bench, config: dict[str, Any] = SD15, *, quantized: bool = False) -> UNet:
    """Ours with the same weights."""
    with torch.device("meta"):
        unet = UNet(UNetConfig.from_dict(config, "the UNet"))
    unet.load_state_dict({name: weight.clone() for name, weight in peer.state_dict().items()}, assign=True)
    return for_inference(
        unet, torch.device(bench.device), peer.dtype, compiled=bench.compile, quantized=quantized
    )


def clips(bench: Bench) -> Iterator[Row]:
    """A guided pass of AnimateDiff with its motion modules, and whole clips of the embedded model."""
    dtype, device = torch.float32, torch.device(bench.device)
    peer = peer_unet(dtype, SMALL_SD)
    torch.manual_seed(3)
    adapter = diffusers.MotionAdapter(block_out_channels=SMALL_SD["block_out_channels"])
    for weight in adapter.parameters():
        nn.init.normal_(weight, std=0.02)
    motion = MotionAdapter(MotionAdapterConfig.from_dict(dict(adapter.config), "the motion adapter"))
    motion.load_state_dict(adapter.state_dict())
    unet = own_unet(peer, bench, SMALL_SD)
    for_inference(motion, device, dtype, compiled=bench.compile).attach(unet)
    theirs = diffusers.UNetMotionModel.from_unet2d(peer, adapter).to(device, dtype).eval()
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 4, FRAMES, 32, 32, generator=generator).to(device)
    states = torch.randn(2, 77, SMALL_SD["cross_attention_dim"], generator=generator).to(device)
    t, rows = torch.tensor([500.0], device=device), torch.zeros(2, dtype=torch.long, device=device)
    asked = (torch.cat([x, x]), t, states.repeat_interleave(FRAMES, dim=0))
    what = f"AnimateDiff on 3 tenths of SD 1.5's widths, one guided pass, {FRAMES} frames at 256², float32"
    with torch.inference_mode():
        ours = partial(unet.denoise, x, unet.embed_time(t), unet.context(states), rows)
        yield beside(bench, what, ours, Answer(theirs), asked, "float32", convert=False)
    studio = sfumato.load(device=bench.device)
    name = str(studio.dtype).removeprefix("torch.")
    for kind, fields in (
        (f"{STEPS} guided steps", {"steps": STEPS, "guidance": GUIDANCE}),
        (f"--fast, {FAST_STEPS} steps", {"fast": True, "steps": FAST_STEPS}),
    ):

        def clip(fields: dict[str, Any] = fields) -> Any:
            return studio.animate(f"{PROMPT}, bouncing", frames=FRAMES, seed=7, **fields)

        seconds = bench.medians({"ours": clip})
        what = f"a clip of the embedded model, {FRAMES} frames at 256², {kind}, text to pixels, {name}"
        yield Row(what, seconds["ours"], {}, "–")


def startup(bench: Bench) -> Iterator[Row]:
    """From the start of the process to the saved picture, in what is fastest here."""
    dtype = str(pick_dtype(torch.device("cpu"))).removeprefix("torch.")
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "apple.png")
        own = [sys.executable, "-m", "sfumato", "generate", PROMPT, "-o", out, "--steps", str(STEPS)]
        own += ["--guidance", str(GUIDANCE), "--sampler", "ddim"]
        script = [sys.executable, "-c", SCRIPT, str(checkpoint.embedded()), PROMPT, out, dtype]
        seconds = replace(bench, clock="wall").medians(
            {"ours": process(own), "a minimal script": process(script)}
        )
    yield Row(f"process start to saved picture, {dtype}", seconds.pop("ours"), seconds, "–")


def answers(bench: Bench) -> Iterator[Row]:
    """The command's answers that need no network."""
    bench = replace(bench, clock="wall")
    for what, words in (
        ("`sfumato --help`", ["--help"]),
        ("a usage error", ["generate", PROMPT, "--sampler", "eulr"]),
    ):
        seconds = bench.medians({"ours": process([sys.executable, "-m", "sfumato", *words])})
        yield Row(what, seconds["ours"], {}, "–")


def process(words: list[str]) -> Run:
    """Running a command."""
    return lambda: subprocess.run(words, capture_output=True, check=False)


MODES = {
    "embedded": embedded,
    "networks": networks,
    "editing": editing,
    "sd15": sd15,
    "sdxl": sdxl,
    "sd15-picture": sd15_picture,
    "decoding": decoding,
    "fast": fast,
    "live": live,
    "clips": clips,
    "startup": startup,
    "help": answers,
}


def head(bench: Bench) -> list[str]:
    """What stands above the rows, in Markdown."""
    kind = "processor seconds" if bench.clock == "cpu" else "seconds"
    columns = f"| what | Sfumato, {kind} | peers, {kind} | ratio to the fastest | difference | {LOAD} |"
    return [f"{machine(bench.device)}.", "", columns, "|---|---|---|---|---|---|"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modes", nargs="*", metavar="MODE", help=f"of {', '.join(MODES)}")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument(
        "--model", default="embedded", help="for fast and live: a folder with fast.safetensors"
    )
    parser.add_argument("--compile", action="store_true", help="also compile the networks, ours and theirs")
    parser.add_argument("--write", type=Path, metavar="PAGE")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    diffusers.logging.set_verbosity_error()
    bench = Bench(options.device, options.rounds, options.clock, options.compile, options.model)
    table = Table("speed", head(bench), options.write, beside=True)
    for mode in options.modes or ("embedded", "networks", "editing", "decoding", "sd15", "startup", "help"):
        for row in MODES[mode](bench):
            table.add(row.cells())


if __name__ == "__main__":
    main()
