"""A small picture of noise with a record, for tests that need no model."""

import numpy as np

from sfumato.image import Image
from sfumato.metadata import Record, pixel_digest
from sfumato.request import Request


def drawn(prompt="a red apple", seed=7, model="embedded", **fields):
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    given = {"width": 32, "height": 24, "steps": 12, "guidance": 4.5, "sampler": "dpmpp-2m"}
    record = Record(
        sfumato="0.1.0",
        request=Request.build(**{**given, "spacing": "karras", "prompt": prompt, "seed": seed, **fields}),
        model=model,
        fingerprint="0123456789abcdef",
        torch="2.13.0",
        device="cpu",
        dtype="float32",
        pixels=pixel_digest(pixels),
        notes=("the prompt is 3 tokens too long",),
    )
    return Image(pixels, record)
