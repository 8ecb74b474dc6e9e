"""What CLIP is shown of a picture, against transformers."""

import numpy as np
import PIL.Image
import pytest
import transformers

from sfumato.edit.clip_picture import clip_picture


@pytest.mark.parametrize("size", [(300, 200), (224, 224), (100, 333), (37, 31), (701, 700), (225, 999)])
def test_a_picture_for_clip_equals_that_of_transformers(size):
    width, height = size
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    picture = PIL.Image.fromarray(pixels)
    for side in (224, 20):
        processor = transformers.CLIPImageProcessor(size=side, crop_size=side)
        expected = processor(picture, return_tensors="np").pixel_values
        assert np.abs(clip_picture(picture, side).numpy() - expected).max() <= 1e-4
