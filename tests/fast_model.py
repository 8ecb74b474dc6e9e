"""The embedded model with a LoRA to draw fast with that has learned nothing: for tests of its use."""

import shutil

import torch

from sfumato import checkpoint
from sfumato.adapt.live import attach_new
from sfumato.adapt.saving import save_lora
from sfumato.checkpoint.layout import FAST


def fast_model(folder):
    shutil.copytree(checkpoint.embedded(), folder)
    unet = checkpoint.load("embedded", dtype=torch.float32).unet
    attach_new(unet, 1)
    save_lora(folder / FAST, {"unet": unet})
    return folder
