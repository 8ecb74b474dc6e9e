"""Drawing of which nothing is stored."""

import base64
import gc
import io
import json
import sys
from contextlib import closing, contextmanager

import httpx2
import PIL.Image
import psutil
import pytest

import sfumato
from sfumato.server.jobs import EventData
from sfumato.server.store import Store

QUICK = {"prompt": "a red apple", "fast": True, "steps": 1, "decoder": "tiny", "seed": 7}
SLOW = {"prompt": "a castle", "steps": 200, "sampler": "euler", "seed": 7}


@contextmanager
def drawing(server, *, headers=None, previews=False, **fields):
    """The events of a drawing as they come, each as (kind, data)."""
    body = {"request": fields, "previews": previews}
    with server.http.stream("POST", "/api/v1/draw", json=body, headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        yield ((event.event, json.loads(event.data)) for event in httpx2.EventSource(answer))


def drawn(server, **fields):
    with drawing(server, **fields) as events:
        found = list(events)
    for _, data in found:
        assert EventData(**data).model_dump(mode="json", exclude_none=True) == data
    return found


def files(server):
    return [path for path in (server.data / "pictures").rglob("*") if path.is_file()]


def nothing_runs(server):
    """Whether no evaluation was done for some time."""
    before = server.http.get("/metrics").text.partition("sfumato_batch_points_count ")[2].split()[0]
    drawn(server, **QUICK)
    after = server.http.get("/metrics").text.partition("sfumato_batch_points_count ")[2].split()[0]
    return float(after) - float(before) == 1


def test_the_picture_comes_with_the_answer_and_neither_it_nor_its_job_is_stored(server):
    before, jobs = files(server), server.jobs()
    events = drawn(server, **QUICK, count=2)
    states = [data["state"] for kind, data in events if kind == "state"]
    assert states == ["queued", "running", "done"]
    assert events[0][1]["count"] == 2
    found = [data["picture"] for kind, data in events if kind == "picture"]
    assert sorted(each["number"] for each in found) == [0, 1]
    for each in found:
        with PIL.Image.open(io.BytesIO(base64.b64decode(each["content"]))) as picture:
            assert picture.size == (each["width"], each["height"]) == (256, 256)
            assert json.loads(picture.text["sfumato"])["request"]["seed"] == each["seed"]
    assert server.http.get(f"/api/v1/jobs/{events[0][1]['job']}").status_code == 404
    assert (files(server), server.jobs()) == (before, jobs)


def test_it_is_the_picture_that_a_stored_job_gives(server):
    with sfumato.connect(server.url, store=False) as live, sfumato.connect(server.url) as kept:
        one, other = live.generate(**QUICK), kept.generate(**QUICK)
    assert one.pil.tobytes() == other.pil.tobytes()
    assert one.request == other.request


def test_several_requests_are_drawn_together_by_a_client(server):
    with sfumato.connect(server.url, store=False) as studio:
        requests = [sfumato.Request(**{**QUICK, "count": 2}), sfumato.Request(**{**QUICK, "prompt": "a cat"})]
        steps = [step for step in studio.stream(requests) if step.image]
    assert sorted(step.image_index for step in steps) == [0, 1, 2]
    assert {step.image_count for step in steps} == {3}


def test_a_client_that_goes_away_cancels_what_is_drawn_for_it(server):
    for _ in range(3):
        with drawing(server, **SLOW) as events:
            assert next(kind for kind, _ in events if kind == "progress")
    while not nothing_runs(server):
        pass


@pytest.mark.parametrize("store", [True, False])
def test_a_studio_that_is_closed_cancels_its_streams_and_none_of_them_fails_later(server, monkeypatch, store):
    failed = []
    monkeypatch.setattr(sys, "unraisablehook", failed.append)
    with sfumato.connect(server.url, store=store) as studio:
        stream = studio.stream(**SLOW)
        next(stream)
    assert next(stream, None) is None
    del stream
    gc.collect()
    assert failed == []
    while not nothing_runs(server):
        pass


def test_previews_are_sent_to_who_asks_for_them(server):
    with drawing(server, previews=True, **SLOW) as events:
        found = (data["progress"].get("preview") for kind, data in events if kind == "progress")
        assert base64.b64decode(next(filter(None, found)))[:4] == b"RIFF"


def test_what_is_wrong_is_told_before_the_answer_begins(server):
    for fields, text in (({"prompt": "a", "steps": 0}, "steps is 0"), ({"prompt": "a [b:c"}, "never closed")):
        answer = server.http.post("/api/v1/draw", json={"request": fields})
        assert answer.status_code == 400
        assert text in answer.json()["error"]["message"]


def test_what_the_worker_finds_wrong_ends_it_as_failed(server):
    _, last = drawn(server, **QUICK, guidance=3)[-1]
    assert last["state"] == "failed"
    assert "leave guidance out" in last["error"]


def test_other_windows_hear_nothing_of_it(server):
    with server.http.stream("GET", "/api/v1/events") as answer:
        events = httpx2.EventSource(answer)
        own = drawn(server, **QUICK)[0][1]["job"]
        stored = server.submit(**QUICK)["id"]
        heard = set()
        for event in events:
            data = json.loads(event.data)
            heard.add(data["job"])
            if data["job"] == stored and data.get("state") == "done":
                break
    assert own not in heard


def test_it_counts_for_the_quota(start):
    server = start("--api-key", "one", "--api-key", "two", env={"SFUMATO_SERVE_PICTURES_PER_HOUR": "3"})
    server.http.headers["authorization"] = "Bearer one"
    drawn(server, **QUICK)
    server.submit(**QUICK)
    answer = server.http.post("/api/v1/draw", json={"request": {**QUICK, "count": 2}})
    assert answer.status_code == 429
    assert "2 pictures were asked for" in answer.json()["error"]["message"]
    assert int(answer.headers["retry-after"]) > 3000
    assert server.http.post("/api/v1/jobs", json={"request": {**QUICK, "count": 2}}).status_code == 429
    assert drawn(server, headers={"authorization": "Bearer two"}, **QUICK, count=3)[-1][1]["state"] == "done"


def test_it_is_refused_where_the_queue_is_full(start):
    server = start("--queue", "1")
    while server.http.post("/api/v1/jobs", json={"request": SLOW}).status_code == 202:
        pass
    answer = server.http.post("/api/v1/draw", json={"request": QUICK})
    assert answer.status_code == 429
    assert answer.headers["retry-after"]


def test_nothing_of_it_outlives_a_crash(start):
    server = start()
    server.wait_ready()
    with drawing(server, **SLOW) as events:
        next(kind for kind, _ in events if kind == "progress")
        for pid in server.workers():
            psutil.Process(pid).kill()
        _, last = list(events)[-1]
    assert (last["state"], last["error"]) == ("failed", "the process that drew it ended")
    with drawing(server, **SLOW) as events:
        next(kind for kind, _ in events if kind == "progress")
        server.kill()
        with pytest.raises(httpx2.HTTPError):
            list(events)
    with closing(Store(start.data)) as store:
        assert store.list_jobs(limit=1) == []
