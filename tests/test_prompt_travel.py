"""Clips whose frames read different texts, as they are drawn."""

import numpy as np
import pytest
import torch
from clips_motion import save_motion
from typer.testing import CliRunner

import sfumato
from sfumato.cli.app import app
from sfumato.diffusion.guidance import MAIN, Term, active_terms
from sfumato.diffusion.sampling import Point
from sfumato.prompt.meaning import Blend, Phrase, WeightedText
from sfumato.request import Request

pytestmark = pytest.mark.filterwarnings("ignore::sfumato.errors.SfumatoWarning")
SMALL = {"steps": 2, "width": 64, "height": 64, "seed": 3}
APPLES = {0: "a green apple", 2: "a red apple"}


@pytest.fixture(scope="module")
def studio():
    return sfumato.load(device="cpu", dtype="float32")


def pixels(video):
    return np.stack([frame.pixels for frame in video.frames]).astype(int)


def phrase(text):
    return Phrase((WeightedText(text),))


def test_templates_are_filled_in_for_every_frame(studio):
    (picture,) = studio.prepare(Request("a {red|red} apple", frames=4, travel={0: "{small|small}"}, **SMALL))
    assert picture.request.travel == {0: "small"}
    assert picture.texts[0] == "a red apple, small"


@torch.no_grad()
def test_the_estimate_of_a_frame_is_that_of_a_picture_with_the_mixed_text(studio):
    """Keys and values are linear in the states, so frame 1 of 0 to 2 reads the blend of both texts."""
    request = Request("", frames=3, guidance=1, travel=APPLES, **SMALL)
    (picture,) = studio.prepare(request)
    guidance = studio._guidance(picture, None)
    x = torch.randn(1, 4, 3, 8, 8)
    point = Point(x, studio._levels(picture.request)[0], 0)
    (term,) = active_terms(guidance, point)
    (found,) = studio.networks[MAIN]([(point, term)])
    parts = tuple(map(phrase, APPLES.values()))
    for frame, share in enumerate((0, 0.5, 1)):
        blend = Blend(parts, (1 - share, share))
        states = studio.model.encode(blend, 0, studio.device, dialect="sfumato").states
        still = Point(x[:, :, frame], point.level, 0)
        (due,) = studio.networks[MAIN]([(still, Term(studio.networks[MAIN].condition(states)))])
        assert torch.allclose(found[:, :, frame], due, atol=1e-4)


def test_windows_read_the_texts_of_their_own_frames(studio, tmp_path):
    motion = save_motion(tmp_path / "zero", studio.model.unet.config, zero=True)
    given = {"frames": 6, "travel": APPLES, "motion": motion, **SMALL}
    whole, windows = (studio.animate("", context=c, context_overlap=0, **given) for c in (6, 3))
    # noise is shared by windows, so that only the first one's is the same
    assert np.abs(pixels(whole)[:3] - pixels(windows)[:3]).max() <= 2


def test_the_embedded_model_changes_a_picture_as_its_texts_say(studio):
    travel = {0: "a green apple, 3d render", 4: "a red apple, 3d render"}
    video = studio.animate("", frames=5, travel=travel, width=128, height=128, fast=True, seed=7)
    shown = pixels(video)
    more_red = (shown[..., 0] - shown[..., 1]).mean((1, 2))
    assert more_red[0] < -5 < 5 < more_red[4]
    assert (np.diff(more_red) > -1).all()
    again = studio.animate(video.request)
    assert np.array_equal(pixels(again), shown)


def test_what_moves_changes_as_well(studio):
    travel = {0: "a green apple bouncing", 2: "a red apple"}
    steps = list(studio.stream("", frames=3, travel=travel, **{**SMALL, "steps": 4}))
    assert [step.index for step in steps] == list(range(1, steps[0].total + 1))
    assert len(steps[0].preview_video()) == 3


def test_the_command_draws_and_records_it(tmp_path):
    path = tmp_path / "ripe.webp"
    told = ["--travel", "0: a green apple", "--travel", "2: a red apple", "--frames", "3", "--steps", "1"]
    result = CliRunner().invoke(app, ["video", *told, "-W", "64", "-H", "64", "-o", str(path), "--quiet"])
    assert result.exit_code == 0, result.output
    assert sfumato.Video.open(path).request.travel == APPLES
