"""Whose turn it is among jobs, and the work that one is expected to be."""

import pytest
from PIL import Image

import sfumato
from sfumato.diffusion.samplers import SAMPLERS
from sfumato.server.order import TWO_A_STEP, Turn, expected_evaluations


def test_the_samplers_of_two_evaluations_a_step_are_those_of_the_library():
    assert {name for name, info in SAMPLERS.items() if info.evaluations_per_step == 2} == TWO_A_STEP


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"steps": 12, "count": 3},
        {"steps": 12, "sampler": "heun"},
        {"fast": True},
        {"steps": 10, "image": Image.new("RGB", (64, 64)), "strength": 0.5},
        {"steps": 10, "upscale": 2, "upscale_strength": 0.5, "width": 512, "height": 512},
    ],
)
def test_the_work_that_is_expected_is_about_what_drawing_takes(fields):
    studio = sfumato.load()
    request = sfumato.Request(prompt="a cat", seed=1, **fields)
    taken = sum(map(studio.evaluations, studio.prepare(studio.resolve(request))))
    defaults = studio.model.defaults
    expected = expected_evaluations(request, request.count, defaults.steps, defaults.sampler)
    assert taken == pytest.approx(expected, rel=0.1)


def test_no_work_goes_before_a_priority():
    assert Turn(0, 10**6, priority=1).place < Turn(0, 1, priority=0).place


def test_a_job_that_came_twenty_evaluations_earlier_counts_as_one_shorter():
    assert Turn(80, 11).place == Turn(100, 10).place
