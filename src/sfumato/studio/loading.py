"""From the name of a model to a studio that draws with it."""

from pathlib import Path

import torch

from sfumato import checkpoint, devices
from sfumato.errors import warn
from sfumato.options import DEFAULT_DEVICE, DeviceOptions, ModelOptions
from sfumato.studio.drawing import Studio


def load(
    source: str | Path = "embedded",
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    variant: str | None = None,
    vae: str | Path | None = None,
    tiny: str | Path | None = None,
    base: str | Path | None = None,
    prediction: str | None = None,
    zero_terminal_snr: bool | None = None,
    slices: int | None = None,
    tile: int | None = None,
    offload: bool = False,
    compiled: bool = False,
    trainable: bool = False,
    quantization: str | None = None,
    threads: int | None = None,
    local_files_only: bool = False,
) -> Studio:
    """Load a model and make it ready to draw.

    `source`: "embedded", a diffusers folder, a `.safetensors` file, a hub id such as "org/name", or the name
    of a model in the user's folder. `device`: "cpu", "cuda", "mps"; the fastest one here unless given.
    `dtype`: "float32", "bfloat16", "float16"; the fastest one that is safe on the device unless given.
    `variant`: of the weight files, such as "fp16". `vae`: another autoencoder: a file, a folder or a hub id.
    `tiny`: one with a tiny autoencoder, such as TAESD, for previews and the decoder "tiny". `base`: a model
    that has what a file with a UNet alone lacks. `prediction`: what the network predicts, "epsilon", "v",
    "x0" or "flow", and `zero_terminal_snr`: whether the noise levels end in pure noise, whatever the files
    say.
    To draw in less memory: `slices`, parts into which attention splits its queries, and `offload`, keep
    weights in main memory and bring them to the device part by part, with the same result; `tile`, the side
    in latent cells of the tiles that large pictures are decoded in, with nearly the same one.
    `compiled`: have torch compile the networks for every size that is met, for many pictures of one size.
    `trainable`: leave the network differentiable, for `Studio.denoiser` in research loops; slower on a CPU.
    `quantization`: "int8" has a CPU multiply the UNet's weights and activations in int8: faster, less exact.
    `threads`: on the CPU, of the whole process; one for each core, or `OMP_NUM_THREADS`, unless given.
    Raises `CheckpointError` and `UsageError`.
    """
    options = ModelOptions.of(
        source,
        variant=variant,
        vae=vae,
        tiny=tiny,
        base=base,
        prediction=prediction,
        zero_terminal_snr=zero_terminal_snr,
        local_files_only=local_files_only,
    )
    device_options = DeviceOptions(
        device=None if device is None else str(device),
        dtype=None if dtype is None else str(dtype).removeprefix("torch."),
        slices=slices,
        tile=tile,
        offload=offload,
        compiled=compiled,
        trainable=trainable,
        quantization=quantization,
        threads=threads,
    )
    return open_studio(options, device_options)


def open_studio(options: ModelOptions, device_options: DeviceOptions = DEFAULT_DEVICE) -> Studio:
    """The studio of a model: what `load` does, with its options as two values."""
    device = devices.pick_device(device_options.device)
    dtype = devices.pick_dtype(device, device_options.dtype)
    if devices.emulated(device, dtype):
        best = devices.pick_dtype(device)
        warn(f"this CPU has no instructions for {dtype}: drawing takes 100 times as long as in {best}")

    def fetch(dtype: torch.dtype) -> checkpoint.Model:
        return checkpoint.load(options, dtype=dtype)

    return Studio(fetch(dtype), options, device_options, reload=fetch)
