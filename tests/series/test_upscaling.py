"""Requests for larger pictures: what of a picture's own request they keep, and their size."""

import numpy as np
import pytest
from pictures import drawn

from sfumato.inputs import InputImage
from sfumato.request import Request
from sfumato.series.upscaling import enlargement, upscaling

PIXELS = np.zeros((24, 32, 3), np.uint8)


def test_an_image_is_refined_under_its_own_prompt_and_settings_four_times_as_large():
    image = drawn(negative="blurry")
    request = upscaling(image)
    assert request.size == (128, 96)
    kept = ("prompt", "negative", "seed", "steps", "guidance", "sampler", "spacing")
    assert all(getattr(request, name) == getattr(image.request, name) for name in kept)
    assert (request.upscale, request.image.rgba.shape) == (1, (24, 32, 4))
    assert (request.templates, request.count) == (Request(prompt="").templates, 1)


@pytest.mark.parametrize("templates", ["off", "combinatorial"])
def test_a_prompt_whose_braces_were_meant_keeps_them(templates):
    request = upscaling(drawn("a red apple", templates=templates))
    assert (request.templates == "off") == (templates == "off")


def test_another_picture_has_an_empty_prompt_unguided_unless_one_is_given():
    request = upscaling(InputImage.of(PIXELS), 2.5)
    assert (request.prompt, request.guidance, request.size) == ("", 1, (80, 60))
    request = upscaling(InputImage.of(PIXELS), 2, prompt="a roof", steps=7)
    assert (request.prompt, request.guidance, request.steps) == ("a roof", None, 7)
    request = upscaling(InputImage.of(PIXELS), 2, negative="fog", guidance=3)
    assert (request.prompt, request.negative, request.guidance) == ("", "fog", 3)


def test_what_is_given_is_in_place_of_the_images_own():
    request = upscaling(drawn(), 2, sampler="euler", width=72, image=InputImage.of(PIXELS[:12]))
    assert (request.sampler, request.size, request.steps) == ("euler", (72, 24), 12)
    assert request.image.rgba.shape == (12, 32, 4)


def test_the_sides_of_an_enlargement_are_the_nearest_multiples_and_at_least_one():
    asked = Request(prompt="", width=45, height=51)
    larger = enlargement(asked, 4, "lanczos")
    assert (larger.size, larger.upscaler) == ((44, 52), "lanczos")
    named = enlargement(asked.changed(upscaler="embedded"), 100, "lanczos")
    assert (named.size, named.upscaler) == ((100, 100), "embedded")
