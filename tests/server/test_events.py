"""One stream of events over all jobs and pictures, by which several windows stay in step."""

import json
from contextlib import contextmanager

from sfumato.server.jobs import EventData

QUICK = {"prompt": "a red apple", "steps": 2, "seed": 7, "width": 64, "height": 64}


@contextmanager
def following(server, **parameters):
    """The events as they come, each as (kind, data)."""

    def events(answer):
        kind = None
        for line in answer.iter_lines():
            if line.startswith("event: "):
                kind = line[7:]
            elif line.startswith("data: "):
                data = json.loads(line[6:])
                assert EventData(**data).model_dump(mode="json", exclude_none=True) == data
                yield kind, data

    with server.http.stream("GET", "/api/v1/events", params=parameters) as answer:
        yield events(answer)


def until(events, wanted):
    found = []
    for kind, data in events:
        found.append((kind, data))
        if wanted(kind, data):
            return found
    raise AssertionError(found)


def test_a_second_window_sees_what_the_first_one_does(start):
    server = start()
    held = server.submit(**{**QUICK, "steps": 200, "sampler": "euler", "width": 256, "height": 256})
    with following(server, previews=True) as events:
        kind, data = next(events)
        assert (kind, data["job"]) == ("state", held["id"])
        server.http.patch(f"/api/v1/jobs/{held['id']}", json={"priority": -5}).raise_for_status()
        until(events, lambda kind, data: data.get("priority") == -5)
        server.http.delete(f"/api/v1/jobs/{held['id']}")
        until(events, lambda kind, data: data.get("state") == "cancelled")
        job = server.submit(**{**QUICK, "steps": 8})["id"]
        seen = until(events, lambda kind, data: data.get("state") == "done")
        assert {data["job"] for _, data in seen} == {job}
        states = [data["state"] for kind, data in seen if kind == "state"]
        assert states == ["queued", "running", "done"]
        assert any("preview" in data["progress"] for kind, data in seen if kind == "progress")
        picture = next(data["picture"]["id"] for kind, data in seen if kind == "picture")
        server.http.patch(f"/api/v1/pictures/{picture}", json={"favourite": True})
        ((kind, data),) = until(events, lambda kind, data: kind == "picture_changed")
        assert data["picture"]["favourite"]
        server.http.delete(f"/api/v1/pictures/{picture}")
        ((kind, data),) = until(events, lambda kind, data: kind == "picture_changed")
        assert data["picture"]["deleted"]


def test_a_window_sees_the_jobs_of_its_own_key_alone(start):
    server = start("--api-key", "one", "--api-key", "two")
    server.http.headers["authorization"] = "Bearer one"
    with following(server) as events:
        server.submit(headers={"authorization": "Bearer two"}, **QUICK)
        own = server.submit(**QUICK)["id"]
        seen = until(events, lambda kind, data: data.get("state") == "done")
    assert {data["job"] for _, data in seen} == {own}


def test_several_jobs_of_a_key_are_put_in_another_order_at_once(start):
    server = start("--api-key", "one", "--api-key", "two")
    server.http.headers["authorization"] = "Bearer one"
    slow = {"prompt": "a castle", "steps": 200, "count": 10}
    jobs = [server.submit(**slow)["id"] for _ in range(3)]
    other = server.submit(headers={"authorization": "Bearer two"}, **slow)["id"]
    server.http.delete(f"/api/v1/jobs/{jobs[0]}")
    with following(server) as events:
        order = {"priorities": {**dict(zip(jobs, (3, 2, 1), strict=True)), other: 9, "none": 1}}
        assert server.http.patch("/api/v1/jobs", json=order).json() == sorted(jobs[1:])
        until(events, lambda kind, data: data.get("job") == jobs[2] and data.get("priority") == 1)
    assert [server.job(job)["priority"] for job in jobs] == [0, 2, 1]
    answer = server.http.get(f"/api/v1/jobs/{other}", headers={"authorization": "Bearer two"})
    assert answer.json()["priority"] == 0


def test_a_waiting_job_with_a_higher_priority_is_drawn_before_others(server):
    long = {"prompt": "a castle", "steps": 200, "sampler": "euler"}
    first, second = server.submit(**long), server.submit(**{**long, "steps": 190})
    changed = server.http.patch(f"/api/v1/jobs/{first['id']}", json={"priority": 5}).json()
    assert changed["priority"] == 5
    with server.http.stream("GET", "/api/v1/events") as answer:
        progress = []
        for line in answer.iter_lines():
            if line.startswith("data: ") and '"progress"' in line:
                progress.append(json.loads(line[6:])["job"])
            if len(progress) == 8:
                break
    for job in (first, second):
        server.http.delete(f"/api/v1/jobs/{job['id']}")
    # the other one may share its batches, and never goes before it
    assert progress[2:].count(first["id"]) >= len(progress[2:]) / 2
    over = server.http.patch(f"/api/v1/jobs/{first['id']}", json={"priority": 1})
    assert over.status_code == 409
