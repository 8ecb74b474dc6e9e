"""Teaching on a server: pictures to an adapter that is drawn with; through crashes, cancelled, refused."""

import base64
import io
import signal
import time

import psutil
import pytest
from PIL import Image, ImageDraw
from running import TINY, RunningServer, tiny_model

import sfumato


def picture(number):
    """One of a striped thing."""
    drawn = Image.new("RGB", (64 + number, 64), "white")
    ImageDraw.Draw(drawn).rectangle((16 - number, 16, 44, 48), fill="teal", outline="orange", width=5)
    buffer = io.BytesIO()
    drawn.save(buffer, "PNG")
    return buffer.getvalue()


PICTURES = [base64.b64encode(picture(number)).decode() for number in range(3)]
MUG = {"name": "sks mug", "class": "mug", "pictures": PICTURES, "steps": 3}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_model(tmp_path_factory.mktemp("teach") / "tiny"))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The folder above the server's adapters, one of which is called `taken`."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "adapters").mkdir()
    (folder / "adapters" / "taken.safetensors").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory, model, home):
    """A server with two keys and narrow limits."""
    env = {"SFUMATO_HOME": str(home), "SFUMATO_SERVE_MAX_TEACH_STEPS": "50", "SFUMATO_SERVE_DISK": "1"}
    data = tmp_path_factory.mktemp("limited") / "data"
    found = RunningServer(data, "--model", model, "--api-key", "one", "--api-key", "two", env=env)
    found.wait_ready()
    found.http.headers["authorization"] = "Bearer one"
    yield found
    found.kill()
    found.stop()


@pytest.fixture
def begin(start, tmp_path, model):
    """Starts servers that keep their jobs in one folder, and their adapters in another."""

    def begun(**settings):
        found = start("--model", model, env={"SFUMATO_HOME": str(tmp_path / "home"), **settings})
        found.wait_ready()
        return found

    return begun


def teach(server, headers=None, **fields):
    answer = server.http.post("/api/v1/teach", json={**MUG, **fields}, headers=headers)
    assert answer.status_code == 202, answer.text
    return answer.json()


def looked_at(server, teaching, until):
    """A teaching as soon as `until` is true of it."""
    while not until(found := server.http.get(f"/api/v1/teach/{teaching['id']}").json()):
        assert found["state"] != "failed", (found, server.read_log())
        time.sleep(0.02)
    return found


def names(server):
    return [each["name"] for each in server.http.get("/api/v1/adapters").json()]


def ended(found):
    return found["state"] in ("done", "cancelled")


def learns(found):
    return found["progress"] is not None and found["progress"]["done"] > 0


def teacher(server):
    """The process that learns: the one that stands back behind those that draw."""
    return max(server.workers(), key=lambda pid: psutil.Process(pid).nice())


def test_a_subject_is_learned_and_drawn_with_at_once(server):
    with sfumato.connect(server.url, api_key="one") as studio:
        heard = []
        pictures = [Image.open(io.BytesIO(base64.b64decode(each))) for each in PICTURES]
        name = studio.teach(
            pictures, "sks mug", of_class="mug", steps=4, progress=lambda *each: heard.append(each)
        )
        assert name == "sks-mug"
        assert [step for step, _, loss in heard if loss is not None] == [1, 2, 3, 4]
        assert {steps for _, steps, _ in heard} == {4}
        assert "sks-mug" in names(server)
        given = {"seed": 1, "steps": 2, "sampler": "euler"}
        plain = studio.generate("sks mug on the moon", **given)
        taught = studio.generate("sks mug on the moon", adapters=["sks-mug"], **given)
        assert plain.pixels.tobytes() != taught.pixels.tobytes()
        assert list(taught.record.adapters) == ["sks-mug"]
    (found,) = server.http.get("/api/v1/teach").json()
    assert (found["state"], found["adapter"], found["kind"]) == ("done", "sks-mug", "adapters")
    assert (found["name"], found["class"], found["steps"], found["pictures"]) == ("sks mug", "mug", 4, 3)
    assert found["samples"] == 4
    sheets = [server.http.get(f"/api/v1/teach/{found['id']}/samples/{number}") for number in range(5)]
    assert [each.status_code for each in sheets] == [200] * 4 + [404]
    with Image.open(io.BytesIO(sheets[-2].content)) as sheet:
        assert (sheet.format, sheet.size) == ("WEBP", (128, 32))
    left = {path.parent.name for path in (server.data / "teach").rglob("*") if path.is_file()}
    assert left == {"samples"}
    # what draws pictures knows nothing of it
    assert all("prompt" in job["request"] for job in server.jobs())
    assert server.http.get(f"/api/v1/jobs/{found['id']}").status_code == 404


def test_its_events_tell_steps_losses_and_samples_until_it_is_over(server):
    found = teach(server, name="zwx mug")
    assert found["prompt"] == "zwx mug on the moon"
    with sfumato.connect(server.url, api_key="one") as studio:
        events = list(studio._events("GET", f"/api/v1/teach/{found['id']}/events?previews=true"))
    assert events[-1] == ("state", {"job": found["id"], "state": "done"})
    progress = [data["progress"] for kind, data in events if kind == "progress"]
    assert [each["done"] for each in progress if "loss" in each][-1] == 3
    assert any("doing" in each for each in progress)
    sheets = [base64.b64decode(each["preview"]) for each in progress if "preview" in each]
    assert sheets
    assert all(each[:4] == b"RIFF" for each in sheets)


def test_a_teaching_goes_on_where_it_was_after_a_kill_of_the_server_and_of_its_process(begin):
    server = begin()
    once = teach(server, headers={"idempotency-key": "mug"}, steps=120)
    again = teach(server, headers={"idempotency-key": "mug"}, steps=120)
    assert again["id"] == once["id"]
    for changed in ({"steps": 121}, {"pictures": MUG["pictures"][1:]}, {"name": "rfz cup"}):
        body = {**MUG, "steps": 120, **changed}
        other = server.http.post("/api/v1/teach", json=body, headers={"idempotency-key": "mug"})
        assert other.status_code == 409, other.text
        assert f"({', '.join(changed)} differed)" in other.json()["error"]["message"]
    looked_at(server, once, lambda found: learns(found) and found["progress"]["done"] > 26)
    server.kill()
    server = begin()
    assert looked_at(server, once, learns)["progress"]["done"] > 25
    psutil.Process(teacher(server)).kill()
    found = looked_at(server, once, ended)
    assert (found["state"], found["crashes"]) == ("done", 1)
    assert names(server) == ["sks-mug"]


def test_a_stopped_server_keeps_it_and_a_cancelled_one_leaves_nothing(begin):
    server = begin()
    first, second = teach(server, steps=2000), teach(server, name="zwx mug", adapter="other", steps=2000)
    looked_at(server, first, learns)
    assert looked_at(server, second, lambda found: True)["state"] == "queued"
    server.process.send_signal(signal.SIGTERM)
    server.process.wait()
    server = begin()
    assert server.http.get(f"/api/v1/teach/{first['id']}").json()["crashes"] == 0
    looked_at(server, first, learns)
    assert server.submit(**TINY)
    for each in (second, first):
        assert server.http.delete(f"/api/v1/teach/{each['id']}").json()["state"] == "cancelled"
    while list((server.data / "teach").glob("*")):
        time.sleep(0.02)
    assert names(server) == []
    # the next one does not wait for those
    assert looked_at(server, teach(server), ended)["state"] == "done"


def test_what_cannot_be_taught_is_refused_before_it_waits(server):
    before = server.http.get("/api/v1/teach").json()
    noise = io.BytesIO()
    Image.effect_noise((1500, 1500), 90).save(noise, "PNG")
    for fields, status, said in (
        ({"method": "hypnosis"}, 400, "unknown method 'hypnosis'"),
        ({"method": "dreambooth", "class": None}, 400, "dreambooth keeps the class as it was"),
        ({"name": "<lora>"}, 400, "the name is '<lora>'"),
        ({"adapter": "../mug"}, 400, "adapter is '../mug': must be letters"),
        ({"adapter": "taken"}, 400, "adapter 'taken' is there already: call this one otherwise"),
        ({"model": "none"}, 400, "model 'none' is not served"),
        ({"steps": 51}, 400, "steps are 51 in all: at most 50 here"),
        ({"method": "pivotal", "steps": 26}, 400, "steps are 52 in all: at most 50 here"),
        ({"method": "inversion", "adapter": "mug"}, 400, "must be 'sks', the word that is learned"),
        ({"pictures": []}, 422, "pictures"),
        ({"pictures": ["bm90aGluZw=="]}, 400, "pictures[0] is not a"),
        ({"pictures": ["http://example.com/mug.png"]}, 400, "pictures[0] is a URL"),
        ({"pictures": [base64.b64encode(noise.getvalue()).decode()]}, 429, "that may be kept"),
    ):
        answer = server.http.post("/api/v1/teach", json={**MUG, "adapter": "mug", **fields})
        assert (answer.status_code, said in answer.text) == (status, True), answer.text
    assert server.http.get("/api/v1/teach").json() == before


def test_each_key_has_its_own_and_not_too_many(server):
    other = {"authorization": "Bearer two"}
    found = [teach(server, adapter=f"mug{number}", steps=50) for number in range(8)]
    answer = server.http.post("/api/v1/teach", json={**MUG, "adapter": "more"})
    assert (answer.status_code, "retry-after" in answer.headers) == (429, True)
    assert answer.json()["error"]["code"] == "too_many_teachings"
    path = f"/api/v1/teach/{found[0]['id']}"
    for method, own in (("GET", ""), ("DELETE", ""), ("GET", "/events"), ("GET", "/samples/0")):
        assert server.http.request(method, path + own, headers=other).status_code == 404
    assert server.http.get("/api/v1/teach", headers=other).json() == []
    # a name that waits is taken for all
    answer = server.http.post("/api/v1/teach", json={**MUG, "adapter": "mug7"}, headers=other)
    assert answer.json()["error"]["values"] == {"name": "mug7"}


def test_where_nothing_may_be_taught_it_is_said(begin):
    server = begin(SFUMATO_SERVE_MAX_TEACH_STEPS="0")
    answer = server.http.post("/api/v1/teach", json=MUG)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "nothing_taught")
    assert server.http.get("/api/v1/teach").json() == []
