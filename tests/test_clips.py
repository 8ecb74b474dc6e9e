"""Clips: requests, windows, loops, memory of frames, and what a clip carries. On a small random model."""

import numpy as np
import pytest
from clips_motion import save_motion

import sfumato
from sfumato.errors import UsageError
from sfumato.request import Request

pytestmark = pytest.mark.filterwarnings("ignore::sfumato.errors.SfumatoWarning")
SMALL = {"steps": 2, "width": 64, "height": 64, "seed": 3}


@pytest.fixture(scope="module")
def studio():
    return sfumato.load(device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def motions(studio, tmp_path_factory):
    folder = tmp_path_factory.mktemp("motions")
    return {
        name: save_motion(folder / name, studio.model.unet.config, zero=name == "zero")
        for name in ("zero", "random")
    }


def pixels(video):
    return np.stack([frame.pixels for frame in video.frames]).astype(int)


def test_the_first_frame_of_still_motion_is_the_picture_of_the_seed(studio, motions):
    video = studio.animate("a red apple", frames=3, motion=motions["zero"], **SMALL)
    still = studio.generate("a red apple", **SMALL)
    assert np.abs(pixels(video)[0] - still.pixels).max() <= 1
    assert np.abs(pixels(video)[1] - still.pixels).max() > 8


def test_a_clip_carries_the_request_that_draws_it_again(studio, motions):
    video = studio.animate("a red apple", frames=3, fps=5, loop=True, motion=motions["random"], **SMALL)
    request = video.request
    assert (len(video), video.fps, video.loop, video.size) == (3, 5, True, (64, 64))
    assert (request.frames, request.context, request.context_overlap) == (3, 16, 4)
    assert request.motion == motions["random"]
    again = studio.animate(request)
    assert np.array_equal(pixels(video), pixels(again))
    assert video.record.motion == again.record.motion


def test_longer_clips_begin_alike_and_are_drawn_in_windows(studio, motions):
    asked = []
    evaluate = type(studio.networks["main"])._evaluate

    def counted(self, rows, seamless):
        asked.append(rows[0][0].x.shape[2])
        return evaluate(self, rows, seamless)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(studio.networks["main"]), "_evaluate", counted)
        studio.animate(
            "a red apple", frames=10, context=4, context_overlap=2, motion=motions["random"], **SMALL
        )
    assert set(asked) == {4}
    assert len(asked) == 4 * 2  # windows, times steps; both rows of guidance together


def test_a_loop_is_drawn_another_way(studio, motions):
    given = {"frames": 4, "motion": motions["random"], **SMALL}
    plain, loop = studio.animate("a cat", **given), studio.animate("a cat", loop=True, **given)
    assert not np.array_equal(pixels(plain), pixels(loop))


def test_frames_are_put_between_those_that_are_drawn(studio, motions):
    given = {"frames": 4, "motion": motions["random"], "steps": 12, "context": 4, "context_overlap": 2}
    given = {**SMALL, **given, "loop": True, "fps": 5, "decoder": "tiny"}
    plain = studio.animate("a red apple", **given)
    steps = list(studio.stream("a red apple", interpolate=2, **given))
    video = steps[-1].video
    assert (len(video), video.fps, video.seconds) == (8, 10, plain.seconds)
    # one row of frames is decoded with others
    assert np.abs(pixels(video)[::2] - pixels(plain)).max() <= 2
    assert [step.index for step in steps] == list(range(1, steps[0].total + 1))
    assert steps[0].total > 12
    assert (video.request.frames, video.request.interpolate, video.request.clip_frames) == (4, 2, 8)
    again = studio.animate(video.request)
    assert np.array_equal(pixels(again), pixels(video))


def test_a_clip_without_an_adapter_has_frames_in_between_too(studio):
    video = studio.animate("a red heart bouncing", frames=3, interpolate=4, travel={2: "blue"}, **SMALL)
    assert (len(video), video.fps) == (9, 32)


def test_a_picture_begins_to_move(studio, motions):
    still = studio.generate("a red apple", **SMALL)
    given = {"frames": 2, "motion": motions["zero"], "image": still.pil, **SMALL, "steps": 4}
    near, far = (studio.animate("a red apple", strength=s, **given) for s in (0.25, 1.0))
    distances = [np.abs(pixels(video) - still.pixels).mean() for video in (near, far)]
    assert distances[0] < distances[1]


def test_steps_of_a_clip_show_it_as_it_is_drawn(studio, motions):
    steps = list(studio.stream("a cat", frames=3, motion=motions["zero"], **SMALL))
    assert [step.video is not None for step in steps] == [False, True]
    assert all(step.image is None for step in steps)
    assert steps[0].preview(quick=True, frame=2).size == (8, 8)
    assert len(steps[0].preview_video()) == 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fps": 8}, "fps is given without frames"),
        ({"loop": True}, "loop is given without frames"),
        ({"frames": 0}, "frames is 0"),
        ({"frames": 10_000}, "frames is 10000"),
        ({"frames": 8, "fps": 0}, "fps is 0"),
        ({"interpolate": 2}, "interpolate is given without frames"),
        ({"frames": 8, "interpolate": 3}, "interpolate is 3"),
        ({"frames": 600, "interpolate": 2}, "with 600 frames these are 1199"),
        ({"frames": 8, "interpolate": 4, "fps": 16}, "with fps 16 these are 64 frames a second"),
        ({"frames": 8, "transparent": True}, "transparent is given with frames"),
        ({"frames": 8, "upscale": 2}, "upscale is given with frames"),
    ],
)
def test_what_no_clip_can_be_is_refused_by_name(fields, message):
    with pytest.raises(UsageError, match=message):
        Request("a cat", **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"context": 32}, "context is 32: the motion adapter .* knows 16 frames"),
        ({"context": 4, "context_overlap": 4}, "context_overlap is 4: must be less than context"),
    ],
)
def test_windows_that_the_motion_adapter_does_not_know_are_refused(fields, message, studio, motions):
    with pytest.raises(UsageError, match=message):
        studio.animate("a cat", frames=40, motion=motions["zero"], **fields, **SMALL)


def test_a_clip_that_says_no_frames_has_those_of_its_model(studio):
    drawn = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(studio, "stream", lambda requests: drawn.extend(requests) or iter([None]))
        for call in (lambda: studio.animate("a cat", loop=True), lambda: studio.animate(Request("a cat"))):
            with pytest.raises(AttributeError):
                call()
    assert [(each.frames, each.loop) for each in drawn] == [(16, True), (16, False)]


def test_a_picture_is_no_clip(studio):
    with pytest.raises(UsageError, match="generate draws pictures, and animate draws clips"):
        studio.generate("a cat", frames=4)
    with pytest.raises(UsageError, match="animate draws one clip"):
        studio.animate("a cat", count=2)
