"""Prompt travel: which text each frame of a clip reads, in closed form, and clips that are drawn so."""

import json

import numpy as np
import pytest
import torch
from clips_motion import save_motion
from typer.testing import CliRunner

import sfumato
from sfumato.cli.app import app
from sfumato.diffusion.guidance import MAIN, Term, active_terms
from sfumato.diffusion.sampling import Point
from sfumato.errors import UsageError
from sfumato.expansion import Prepared
from sfumato.prompt.meaning import Blend, Phrase, Travel, WeightedText
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


def contents(request, steps=1):
    (term,) = Prepared.of(request).prompt.terms(steps)
    return [term.contents[which] for which in term.at]


@pytest.mark.parametrize(
    ("keys", "frames", "loop", "of_second"),
    [
        ((0, 4), 5, False, [0, 0.25, 0.5, 0.75, 1]),
        ((1, 3), 6, False, [0, 0, 0.5, 1, 1, 1]),
        ((0, 4), 8, True, [0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25]),
        ((1, 3), 6, True, [0.25, 0, 0.5, 1, 0.75, 0.5]),
    ],
)
def test_each_frame_reads_the_two_texts_around_it_by_its_distance_from_them(keys, frames, loop, of_second):
    shares = Travel((phrase("a"), phrase("b")), keys, frames, loop).shares()
    assert np.allclose(shares, [[1 - share, share] for share in of_second])


@pytest.mark.parametrize("loop", [False, True])
def test_one_text_is_that_of_every_frame(loop):
    assert Travel((phrase("a"),), (3,), 5, loop).shares() == [[1.0]] * 5


@pytest.mark.parametrize(
    "given",
    [
        {8: "an open flower", 0: "a bud"},
        {"0": "a bud", "8": "an open flower"},
        "0: a bud\n8: an open flower\n",
        ["8: an open flower", " 0 :a bud"],
    ],
)
def test_what_users_of_animatediff_write_is_read(given):
    request = Request("a rose", frames=16, travel=given)
    assert list(request.travel.items()) == [(0, "a bud"), (8, "an open flower")]
    assert Request.build(**json.loads(request.model_dump_json())) == request
    assert contents(request) == [
        Travel((phrase("a rose, a bud"), phrase("a rose, an open flower")), (0, 8), 16)
    ]


def test_weights_and_schedules_of_the_texts_are_read_as_in_any_prompt():
    request = Request("", frames=4, travel={0: "[cat:dog:0.5]", 3: "(sun:1.5)"})
    sun = Phrase((WeightedText("sun", 1.5),))
    assert contents(request, 2) == [Travel((phrase(word), sun), (0, 3), 4) for word in ("cat", "dog")]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"travel": {0: "a"}}, "travel is given without frames"),
        ({"frames": 8, "travel": {8: "a"}}, "travel names frame 8: the clip has 8 frames, 0 to 7"),
        ({"frames": 8, "travel": {-1: "a"}}, "travel.-1"),
        ({"frames": 8, "travel": "a bud"}, "must be FRAME: TEXT, as 8: an open flower"),
        ({"frames": 8, "travel": ["1: a", "1: b"]}, "frame 1 is given twice"),
        ({"frames": 8, "travel": 3}, "travel is 3"),
    ],
)
def test_what_is_no_travel_is_refused_by_name(fields, message):
    with pytest.raises(UsageError, match=message):
        Request("a cat", **fields)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a cat AND a dog", "travel and AND exclude each other"),
        ("a <lora:x:1>", "frame 0 of travel calls the adapter 'x'"),
        ("a (cat", "never closed"),
    ],
)
def test_texts_that_no_frame_can_read_are_refused(text, message):
    with pytest.raises(UsageError, match=message):
        Prepared.of(Request("", frames=8, travel={0: text}))


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


def test_sdxl_mixes_its_pooled_texts_too():
    """A row of the time embedding for each text becomes one for each frame."""
    from sfumato.config import UNetConfig
    from sfumato.diffusion.level import Level
    from sfumato.nets.denoiser import Denoiser
    from sfumato.nets.inputs import SizeConditioning
    from sfumato.nets.unet import UNet

    torch.manual_seed(0)
    sizes = {"block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4}
    kinds = {"down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"]}
    kinds["up_block_types"] = ["CrossAttnUpBlock2D", "UpBlock2D"]
    added = {"addition_embed_type": "text_time", "addition_time_embed_dim": 4}
    width = {"projection_class_embeddings_input_dim": 24 + 6, "cross_attention_dim": 8}
    config = UNetConfig.from_dict({**sizes, **kinds, **added, **width, "attention_head_dim": 4}, "unet")
    denoiser = Denoiser(UNet(config).eval(), "epsilon", torch.device("cpu"))
    states, pooled, ids = torch.randn(2, 5, 8), torch.randn(2, 6), torch.full((2, 6), 64.0)
    shares = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    clip = denoiser.condition(states, SizeConditioning(pooled, ids), frame_shares=shares)
    x, level = torch.randn(1, 4, 3, 8, 8), Level(0.8, 0.6, 300.0)
    (found,) = denoiser([(Point(x, level, 0), Term(clip))])
    for frame, row in enumerate((0, 1, 0)):
        own = slice(row, row + 1)
        still = denoiser.condition(states[own], SizeConditioning(pooled[own], ids[own]))
        (due,) = denoiser([(Point(x[:, :, frame], level, 0), Term(still))])
        assert torch.allclose(found[:, :, frame], due, atol=1e-5)
