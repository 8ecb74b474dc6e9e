"""The content gate: what it refuses, and that nothing of a refused picture leaves its process."""

import io
import sys
import threading

import numpy as np
import openai
import PIL.Image
import pytest
from running import RunningServer

import sfumato
from sfumato.errors import UsageError
from sfumato.server.worker import gate
from sfumato.server.worker.gate import REFUSED, ContentGate

TINY = {"prompt": "a red apple", "steps": 2, "width": 64, "height": 64, "seed": 3}
LONG = {**TINY, "steps": 12, "width": 128, "height": 128}
DETECTOR = """
import cv2, numpy

class NudeDetector:
    '''Finds what is refused in every picture but those of 72 pixels a side.'''

    def detect(self, content):
        found = cv2.imdecode(numpy.frombuffer(content, numpy.uint8), -1)
        name = "FACE_FEMALE" if found.shape[0] == 72 else "BUTTOCKS_EXPOSED"
        return [{"class": name, "score": 0.9, "box": [0, 0, 9, 9]}]
"""
REFUSAL = "the content gate of this server refused the picture (buttocks exposed, score 0.90)"


@pytest.fixture(scope="module")
def gated(tmp_path_factory):
    """A server with a detector that refuses nearly every picture."""
    folder = tmp_path_factory.mktemp("gated")
    (folder / "nudenet.py").write_text(DETECTOR)
    env = {"PYTHONPATH": f"{folder}:{':'.join(sys.path)}"}
    found = RunningServer(folder / "data", "--safety", env=env)
    found.wait_ready()
    yield found
    found.stop()


def holds_picture(content):
    """Whether there is the beginning of a PNG, WebP or JPEG file, also in base64."""
    marks = (b"\x89PNG", b"WEBP", b"\xff\xd8\xff", b"iVBORw0", b"UklGR", b"/9j/")
    return any(mark in content for mark in marks)


def test_a_picture_that_is_not_refused_is_kept(gated):
    job = gated.wait(gated.submit(**{**TINY, "width": 72, "height": 72})["id"])
    assert (job["state"], len(job["pictures"])) == ("done", 1)


def test_every_frame_of_a_clip_is_looked_at(gated):
    clip = {**TINY, "prompt": "a red apple bouncing", "frames": 2}
    refused = gated.wait(gated.submit(**clip)["id"])
    assert (refused["state"], refused["pictures"]) == ("failed", [])
    assert refused["error"].startswith(REFUSAL)
    kept = gated.wait(gated.submit(**{**clip, "width": 72, "height": 72})["id"])
    assert [each["frames"] for each in kept["pictures"]] == [2]


def test_nothing_of_a_refused_picture_is_kept_told_or_logged(gated):
    before = {path for path in gated.data.rglob("*") if path.is_file()}
    job = gated.submit(**LONG)["id"]
    events = []
    for path in (f"/api/v1/jobs/{job}/events", "/api/v1/events"):
        with gated.http.stream("GET", path, params={"previews": True}) as answer:
            for line in answer.iter_lines():
                events.append(line)
                if '"failed"' in line:
                    break
        if path.startswith("/api/v1/jobs"):
            gated.submit(**LONG)
    said = "\n".join(events)
    assert "event: progress" in said
    assert REFUSAL in said
    assert not holds_picture(said.encode())
    assert "event: picture" not in said
    view = gated.job(job)
    assert (view["state"], view["pictures"]) == ("failed", [])
    assert view["error"].startswith(REFUSAL)
    # the database is changed in its place
    assert {path for path in gated.data.rglob("*") if path.is_file()} == before
    assert not holds_picture(gated.read_log().encode())


def test_no_api_answers_with_a_refused_picture(gated):
    with gated.http.stream("POST", "/api/v1/draw", json={"request": LONG, "previews": True}) as answer:
        said = answer.read()
    assert REFUSAL in said.decode()
    assert not holds_picture(said)
    client = openai.OpenAI(base_url=f"{gated.url}/v1", api_key="any", max_retries=0)
    fields = {"prompt": "a red apple", "size": "128x128", "extra_body": {"seed": 1, "steps": 12}}
    with pytest.raises(openai.BadRequestError, match="refused the picture"):
        client.images.generate(**fields)
    told = []
    with pytest.raises(openai.APIError, match="refused the picture"):
        told.extend(client.images.generate(**fields, stream=True, partial_images=3))
    assert told == []
    looked, over = [], threading.Event()

    def look():
        while not over.is_set():
            looked.append(gated.http.get("/sdapi/v1/progress").json()["current_image"])

    watching = threading.Thread(target=look)
    watching.start()
    answer = gated.http.post("/sdapi/v1/txt2img", json={"prompt": "a cat", "steps": 12, "width": 128})
    assert (answer.status_code, holds_picture(answer.content)) == (400, False)
    over.set()
    watching.join()
    assert set(looked) == {None}
    found = gated.http.get("/api/v1/pictures").json()
    assert {picture["width"] for picture in found} <= {72}


def drawn(mode="RGB"):
    buffer = io.BytesIO()
    PIL.Image.new(mode, (96, 64), "white").save(buffer, "PNG")
    return buffer.getvalue()


class Planted:
    """The network of the detector, which finds one thing in every picture."""

    def __init__(self, number, score, labels):
        self.found = np.zeros((1, 4 + labels, 2), np.float32)
        self.found[0, :4, 0] = 160, 160, 80, 80
        self.found[0, 4 + number, 0] = score

    def run(self, *_):
        return [self.found]


def test_the_detector_knows_what_is_refused_and_its_scores_are_compared(monkeypatch):
    from nudenet import nudenet

    labels = vars(nudenet)["__labels"]
    assert set(REFUSED) == {each for each in labels if each.endswith("_EXPOSED")} - {
        "MALE_BREAST_EXPOSED",
        "FEET_EXPOSED",
        "ARMPITS_EXPOSED",
        "BELLY_EXPOSED",
    }
    content_gate = ContentGate()
    for number, name in enumerate(labels):
        for score, mode in ((0.41, "RGB"), (0.41, "RGBA"), (0.39, "RGB")):
            monkeypatch.setattr(content_gate._detector, "onnx_session", Planted(number, score, len(labels)))
            if name in REFUSED and score >= gate.LEAST_SCORE:
                with pytest.raises(UsageError, match=name.lower().replace("_", " ")):
                    content_gate.check(drawn(mode))
            else:
                content_gate.check(drawn(mode))


def test_the_gate_lets_an_apple_through():
    ContentGate().check(sfumato.load().generate("a red apple, 3d render", seed=1, steps=4).png())
