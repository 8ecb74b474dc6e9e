"""The server as its own clients use it."""

import base64
import hashlib
import io
import json
import time

import numpy as np
import PIL.Image
import pytest
from running import TINY
from sqlalchemy import insert

import sfumato
from sfumato.errors import UsageError
from sfumato.server.store import Store
from sfumato.server.store.tables import jobs

QUICK = {"prompt": "a red apple, 3d render", "steps": 4, "seed": 7}


def events(server, job, **parameters):
    found = []
    with server.http.stream("GET", f"/api/v1/jobs/{job}/events", params=parameters) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("event: "):
                found.append([line[7:]])
            elif line.startswith("data: "):
                found[-1].append(json.loads(line[6:]))
    return found


def test_a_picture_from_the_server_is_the_one_that_the_command_draws(server, tmp_path):
    job = server.wait(server.submit(**QUICK)["id"])
    content = server.http.get(f"/api/v1/pictures/{job['pictures'][0]['id']}/file").content
    (tmp_path / "apple.png").write_bytes(content)
    there = sfumato.Image.open(tmp_path / "apple.png")
    here = sfumato.load().generate(**QUICK)
    if there.record.threads == here.record.threads:
        assert there.differs(here) is None
    assert np.abs(np.asarray(there, dtype=int) - np.asarray(here, dtype=int)).max() <= 8
    assert there.request == here.request


def test_the_events_of_a_job_lead_to_its_pictures(server):
    job = server.submit(**QUICK, count=2)
    found = events(server, job["id"], previews=True)
    kinds = [kind for kind, _ in found]
    assert kinds[0] == kinds[-1] == "state"
    assert found[-1][1]["state"] == "done"
    assert kinds.count("picture") == 2
    steps = [data["progress"] for kind, data in found if kind == "progress"]
    assert [(each["number"], each["done"]) for each in steps] == [
        (n, k) for n in (0, 1) for k in (1, 2, 3, 4)
    ]
    assert any("preview" in each for each in steps)


def test_the_events_of_a_job_that_is_over_are_its_pictures_and_its_end(server):
    job = server.wait(server.submit(**QUICK)["id"])
    assert [kind for kind, _ in events(server, job["id"])] == ["state", "picture"]


def test_a_cancelled_job_stops_and_draws_nothing(server):
    job = server.submit(**{**QUICK, "steps": 200, "sampler": "euler"})
    assert server.http.delete(f"/api/v1/jobs/{job['id']}").json()["state"] == "cancelled"
    assert server.wait(server.submit(**QUICK)["id"])["state"] == "done"
    assert server.job(job["id"])["pictures"] == []


def test_a_short_job_does_not_wait_behind_more_long_ones_than_a_worker_holds(start):
    store = Store(start.data)
    fields = {**TINY, "steps": 200, "model": "embedded"}
    common = {"state": "queued", "owner": "me", "priority": 0, "on_crash": "retry", "crashes": 0}
    common |= {"model": "embedded", "request": json.dumps(fields), "count": 1, "created": 0.0, "turn": 200.0}
    with store._engine.begin() as connection:
        connection.execute(insert(jobs), [{**common, "id": f"long {number}"} for number in range(300)])
    store.close()
    server = start()
    server.wait_ready()
    short = server.wait(server.submit(**TINY)["id"])
    assert short["state"] == "done"
    assert 'sfumato_jobs{state="done"} 1.0' in server.http.get("/metrics").text


def test_a_picture_that_was_sent_once_is_named_by_its_hash(server):
    picture = {"prompt": "a cat", "strength": 0.5, "steps": 2, "seed": 1, "width": 64, "height": 64}
    content = png(PIL.Image.effect_noise((64, 64), 50))
    first = server.wait(server.submit(**picture, image=base64.b64encode(content).decode())["id"])
    named = first["request"]["image"]
    assert named == {"name": "", "sha256": hashlib.sha256(content).hexdigest(), "data": None}
    again = server.wait(server.submit(**first["request"])["id"])
    assert [each["sha256"] for each in again["pictures"]] == [each["sha256"] for each in first["pictures"]]
    named = {"sha256": "0" * 64}
    answer = server.http.post("/api/v1/jobs", json={"request": {**picture, "image": named}})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "image")


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_only_the_exact_name_of_a_job_cancels_it(server):
    job = server.submit(**QUICK)
    assert server.http.delete(f"/api/v1/jobs/{job['id'][:5]}").status_code == 404
    assert server.wait(job["id"])["state"] == "done"


def test_a_short_job_overtakes_a_long_one(server):
    long = server.submit(prompt="a castle", steps=200, sampler="euler", seed=1)
    short = server.wait(server.submit(**QUICK)["id"])
    assert short["state"] == "done"
    assert server.job(long["id"])["state"] == "running"
    server.http.delete(f"/api/v1/jobs/{long['id']}")


def test_the_same_idempotency_key_draws_once(server):
    first = server.submit(**QUICK, headers={"idempotency-key": "one"})
    again = server.submit(**QUICK, headers={"idempotency-key": "one"})
    assert first["id"] == again["id"]


def test_an_idempotency_key_that_comes_with_another_request_is_refused(server):
    key, asked = {"idempotency-key": "two"}, {"prompt": "a red apple, 3d render", "steps": 4}
    first = server.submit(**asked, headers=key)
    assert server.submit(**asked, headers=key)["id"] == first["id"]
    seed = first["request"]["seed"]
    assert server.submit(**asked, seed=seed, headers=key)["id"] == first["id"]
    for name, value in (("steps", 5), ("seed", seed + 1)):
        answer = server.http.post("/api/v1/jobs", json={"request": {**asked, name: value}}, headers=key)
        assert answer.status_code == 409
        assert f"another request ({name} differed)" in answer.json()["error"]["message"]


def test_a_request_that_only_the_model_can_refuse_fails_its_job_with_the_reason(server):
    job = server.wait(server.submit(**QUICK, width=100)["id"])
    assert job["state"] == "failed"
    assert job["error"].startswith("width is 100: must be a multiple of 8")
    assert server.wait(server.submit(**QUICK)["id"])["state"] == "done"


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"request": {"prompt": "a", "steps": 0}}, 400, "steps"),
        ({"request": {"prompt": "a", "model": "other"}}, 400, "model 'other' is not served"),
        ({"request": {"prompt": "a <lora:/etc/passwd:1>"}}, 202, None),
        ({"request": 5}, 422, "request"),
        ({"request": {"prompt": "a"}, "priority": 99}, 422, "priority"),
        ({}, 422, "request"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(server, body, status, text):
    answer = server.http.post("/api/v1/jobs", json=body)
    assert answer.status_code == status
    if text is not None:
        assert text in answer.json()["error"]["message"]


def test_a_prompt_reads_no_file_of_the_server(server, tmp_path):
    path = tmp_path / "ink.safetensors"
    path.write_bytes(b"")
    job = server.wait(server.submit(prompt=f"a cat <lora:{path}:1>")["id"])
    assert (job["state"], job["error"]) == ("failed", f"there is no adapter '{path}' in the server's folder")


def test_the_gallery_finds_keeps_deletes_and_brings_back(server):
    job = server.wait(server.submit(prompt="one zebra", steps=1)["id"])
    picture = job["pictures"][0]["id"]
    path = f"/api/v1/pictures/{picture}"
    found = server.http.get("/api/v1/pictures", params={"search": "zeb"}).json()
    assert [each["id"] for each in found] == [picture]
    changed = server.http.patch(path, json={"favourite": True, "tags": ["stripes"]}).json()
    assert (changed["favourite"], changed["tags"]) == (True, ["stripes"])
    assert server.http.get(path + "/record").json()["request"]["prompt"] == "one zebra"
    for given, count in (
        ({"seed": job["request"]["seed"], "model": "embedded"}, 1),
        ({"model": "other"}, 0),
        ({"since": job["created"]}, 1),
        ({"until": job["created"]}, 0),
    ):
        assert len(server.http.get("/api/v1/pictures", params={"search": "zebra", **given}).json()) == count
    thumbnail = PIL.Image.open(io.BytesIO(server.http.get(path + "/thumbnail").content))
    assert thumbnail.size == (256, 256)
    server.http.delete(path)
    assert server.http.get("/api/v1/pictures", params={"search": "zebra"}).json() == []
    server.http.post(path + "/restore")
    assert len(server.http.get("/api/v1/pictures", params={"tag": "stripes"}).json()) == 1


def test_the_openapi_document_describes_a_request_to_draw(server):
    document = server.http.get("/openapi.json").json()
    fields = document["components"]["schemas"]["DrawRequest"]["properties"]
    assert {"prompt", "steps", "image"} <= fields.keys()
    assert not [ref for ref in _references(document) if ref not in document["components"]["schemas"]]


def _references(node):
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"].removeprefix("#/components/schemas/")
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def test_health_and_metrics_say_how_the_server_is(server):
    assert server.http.get("/healthz").json() == {"status": "ok"}
    assert "sfumato_ready 1.0" in server.http.get("/metrics").text


def test_a_remote_studio_draws_with_the_calls_of_a_local_one(server):
    with sfumato.connect(server.url) as studio:
        image = studio.generate("a red apple, 3d render", seed=7, steps=4, width=64, height=64)
        assert image.request.seed == 7
        assert image.as_drawn
        blue = studio.generate("a blue apple", image=image, strength=0.5, steps=4, width=64, height=64)
        assert blue.size == image.size == (64, 64)
        steps = list(studio.stream(["a cat", "a dog"], steps=3, width=64, height=64))
        for picture in (0, 1):  # both are drawn at once: first steps may be over when they are looked at
            seen = [step.index for step in steps if step.image_index == picture]
            assert seen == sorted(set(seen))
            assert seen[-1] == 3
        assert [step.image_index for step in steps if step.image is not None] == [0, 1]
        with pytest.raises(UsageError, match="must be a multiple of 8"):
            studio.generate("a cat", width=100)


def test_a_picture_that_was_drawn_before_it_is_looked_at_comes_as_its_last_step(server):
    with sfumato.connect(server.url) as studio:
        stream = studio.stream(["a cat", "a dog"], steps=3, width=64, height=64)
        steps = [next(stream)]
        while any(job["state"] in ("queued", "running") for job in server.http.get("/api/v1/jobs").json()):
            time.sleep(0.05)
        steps += list(stream)
    assert [step.index for step in steps if step.image_index == 0][-1] == 3
    assert [(step.index, step.total) for step in steps if step.image_index == 1] == [(3, 3)]


def test_a_remote_studio_edits_varies_and_enlarges(server):
    with sfumato.connect(server.url) as studio:
        image = studio.generate("a red apple, 3d render", seed=7, steps=4, width=64, height=64)
        assert studio.edit(image, "make it blue", steps=2).record.model == "embedded-instruct"
        varied = studio.vary(image, amount=0.2, count=2)
        assert [one.request.variation_amount for one in varied] == [(0.2,), (0.2,)]
        large = studio.upscale(image, 1.4, steps=4)
        assert large.size == (88, 88)
        assert (large.request.upscaler, large.request.strength) == ("embedded", 0.1)
        small = {"width": 64, "height": 64, "steps": 2}
        frames = studio.interpolate(["a red apple", "a lemon"], frames=3, constant_speed=False, **small)
        assert len(frames) == 3
        with pytest.raises(UsageError, match="reads no instructions"):
            studio.edit(image, "make it blue", model="embedded")


def test_a_stream_that_is_closed_cancels_the_rest(server):
    with sfumato.connect(server.url) as studio:
        stream = studio.stream("a cat", steps=200, sampler="euler")
        next(stream)
        stream.close()
    assert server.http.get("/api/v1/jobs").json()[0]["state"] == "cancelled"


def test_a_server_that_is_not_there_is_one_clear_error():
    with pytest.raises(sfumato.SfumatoError, match=r"no server answers at http://127\.0\.0\.1:9"):
        sfumato.connect("http://127.0.0.1:9")


def test_a_picture_that_is_drawn_in_several_passes_is_drawn_whole(server):
    with sfumato.connect(server.url) as studio:
        apple = studio.generate("a red apple", width=64, height=64, steps=2)
        wide = studio.generate("a red apple", image=apple, extend={"right": 64}, steps=2)
    assert wide.size == (128, 64)
    assert (np.asarray(wide)[:, :64] == np.asarray(apple)).all()
