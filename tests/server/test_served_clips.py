"""Clips over HTTP: what is kept and shown of one, and that it is the clip that a studio draws."""

import base64
import io
import json

import numpy as np
import openai
import PIL.Image
import pytest

import sfumato
from sfumato.errors import UsageError
from sfumato.metadata import pixel_digest

CLIP = {
    "prompt": "a red apple bouncing",
    "frames": 3,
    "fps": 10,
    "loop": True,
    "steps": 2,
    "width": 64,
    "height": 64,
    "seed": 7,
}


@pytest.fixture(scope="module")
def job(server):
    """A job of one clip, drawn."""
    found = server.wait(server.submit(**CLIP)["id"])
    assert found["state"] == "done", found["error"]
    return found


@pytest.fixture
def picture(job):
    (found,) = job["pictures"]
    return found


def test_the_file_of_a_clip_is_an_animated_webp_with_its_record(server, picture, tmp_path):
    answer = server.http.get(f"/api/v1/pictures/{picture['id']}/file")
    assert answer.headers["content-type"] == "image/webp"
    path = tmp_path / "apple.webp"
    path.write_bytes(answer.content)
    video = sfumato.Video.open(path)
    assert (len(video), video.fps, video.loop, video.size) == (3, 10, True, (64, 64))
    assert video.request.motion == "text2video-zero"
    assert (video.request.seed, video.request.prompt) == (7, CLIP["prompt"])
    assert len({frame.record.pixels for frame in video.frames}) == 3
    record = server.http.get(f"/api/v1/pictures/{picture['id']}/record").json()
    assert record == json.loads(video.record.model_dump_json())
    kept = [path.name for path in server.data.rglob(f"{picture['sha256']}*")]
    assert sorted(kept) == [f"{picture['sha256']}.clip.webp", f"{picture['sha256']}.webp"]


def test_its_thumbnail_is_its_first_frame(server, picture):
    answer = server.http.get(f"/api/v1/pictures/{picture['id']}/thumbnail")
    assert answer.headers["content-type"] == "image/webp"
    content = server.http.get(f"/api/v1/pictures/{picture['id']}/file").content
    with PIL.Image.open(io.BytesIO(answer.content)) as small, PIL.Image.open(io.BytesIO(content)) as clip:
        assert small.n_frames == 1
        apart = np.asarray(small.convert("RGB"), int) - np.asarray(clip.convert("RGB"), int)
    assert np.abs(apart).mean() < 8


def test_the_gallery_says_that_it_is_a_clip(server, picture):
    still = server.wait(server.submit(**{**CLIP, "frames": None, "fps": None, "loop": False})["id"])
    listed = {each["id"]: each["frames"] for each in server.http.get("/api/v1/pictures").json()}
    assert (listed[picture["id"]], listed[still["pictures"][0]["id"]]) == (3, None)
    sheet = server.http.post("/api/v1/pictures/sheet", json={"pictures": list(listed)[:2]})
    assert sheet.status_code == 200
    assert PIL.Image.open(io.BytesIO(sheet.content)).format == "PNG"


def test_inspecting_its_file_gives_the_request(server, picture):
    content = server.http.get(f"/api/v1/pictures/{picture['id']}/file").content
    found = server.http.post("/api/v1/inspect", json={"image": base64.b64encode(content).decode()}).json()
    assert found["request"]["frames"] == 3


@pytest.mark.parametrize("store", [True, False])
def test_a_connected_studio_draws_the_clip_that_a_studio_draws(server, store):
    with sfumato.connect(server.url, store=store) as studio:
        there = studio.animate(**CLIP)
    here = sfumato.load().animate(**CLIP)
    assert there.request == here.request
    assert (len(there), there.fps, there.loop) == (len(here), here.fps, here.loop)
    if there.record.threads == here.record.threads:
        assert there.record.frame_pixels == tuple(pixel_digest(frame.pixels) for frame in here.frames)
    for one, other in zip(there.frames, here.frames, strict=True):
        assert np.abs(one.pixels.astype(int) - other.pixels).mean() < 4


@pytest.mark.parametrize("travel", [{}, {0: "a pear", 2: "a plum"}])
def test_a_stream_shows_the_frames_that_are_drawn_and_ends_with_the_clip(server, travel):
    given = {**CLIP, "prompt": "", "travel": travel} if travel else CLIP
    with sfumato.connect(server.url) as studio:
        steps = list(studio.stream(**{**given, "steps": 40}, previews=True))
    assert [step.video is not None for step in steps] == [False] * (len(steps) - 1) + [True]
    assert all(step.image is None for step in steps)
    assert steps[-1].index == steps[-1].total >= len(steps)
    numbers = []
    for step in steps:
        if step.webp is not None:
            with PIL.Image.open(io.BytesIO(step.webp)) as shown:
                assert shown.size == (64, 64)
                numbers.append(shown.n_frames)
    # frames that are alike are one in the file
    assert max(numbers) in (2, 3)


def test_a_clip_that_does_not_say_has_as_many_frames_as_its_model_draws(server):
    with sfumato.connect(server.url) as studio:
        assert studio.clip_frames() == studio.clip_frames("embedded") == 16
        with pytest.raises(UsageError, match="model 'none' is not served"):
            studio.animate("a cat", model="none", fps=4)


def test_a_clip_of_too_many_frames_is_refused_by_name(server):
    answer = server.http.post("/api/v1/jobs", json={"request": {**CLIP, "frames": 65}})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "frames"
    assert answer.json()["error"]["message"] == "frames is 65: at most 64 here"


def test_apis_of_pictures_and_grids_draw_no_clips(server):
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="any")
    with pytest.raises(openai.BadRequestError, match="frames is given: this API answers with pictures"):
        client.images.generate(prompt="a cat", extra_body={"frames": 3})
    axes = [{"field": "seed", "values": "1, 2"}]
    answer = server.http.post("/api/v1/grids", json={"request": CLIP, "axes": axes})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "frames is given: a grid has pictures, no clips"


def test_a_motion_adapter_is_never_a_path(server):
    with sfumato.connect(server.url) as studio, pytest.raises(UsageError, match="motion"):
        studio.animate(**CLIP, motion="/etc/passwd")
