"""What a server tells those that watch it: figures, spans, its page; and what its content gate keeps out."""

import json
import re
import sys
import time

import pytest

from sfumato.server.worker.gate import ContentGate

TINY = {"prompt": "a red apple", "steps": 2, "width": 64, "height": 64, "seed": 3}
DETECTOR = """
class NudeDetector:
    def detect(self, content):
        return [{"class": NAME, "score": 0.9, "box": [0, 0, 9, 9]}]
"""
SPANS = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=open(FILE, "a"))))
trace.set_tracer_provider(provider)
"""


def value(text, name):
    return float(re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)[1])


def test_figures_count_jobs_pictures_batches_and_requests(start):
    server = start()
    server.wait(server.submit(**TINY, count=2)["id"])
    server.wait(server.submit(**{**TINY, "width": 100})["id"])
    text = server.http.get("/metrics").text
    assert value(text, 'sfumato_jobs_ended_total{state="done"}') == 1
    assert value(text, 'sfumato_jobs_ended_total{state="failed"}') == 1
    assert value(text, "sfumato_pictures_total") == 2
    assert value(text, "sfumato_wait_seconds_count") == 2
    assert value(text, "sfumato_draw_seconds_count") == 1
    assert value(text, "sfumato_batch_points_sum") == 4
    assert value(text, "sfumato_step_seconds_count") >= 2
    assert value(text, 'sfumato_jobs{state="queued"}') == 0
    posted = 'sfumato_http_requests_total{method="POST",route="/api/v1/jobs",status="202"}'
    assert value(text, posted) == 2


def test_a_job_is_a_span_within_its_requests(start, tmp_path):
    file = tmp_path / "spans"
    (tmp_path / "sitecustomize.py").write_text(SPANS.replace("FILE", repr(str(file))))
    server = start(env={"PYTHONPATH": f"{tmp_path}:{':'.join(sys.path)}"})
    server.wait(server.submit(**TINY, headers={"x-request-id": "mine"})["id"])
    server.stop()
    spans = [
        json.loads(each) for each in re.findall(r"^\{.*?^\}", file.read_text(), re.MULTILINE | re.DOTALL)
    ]
    (job,) = [span for span in spans if span["name"] == "job"]
    assert [event["name"] for event in job["events"]] == ["queued", "running", "picture", "done"]
    (posted,) = [span for span in spans if span["attributes"].get("sfumato.request") == "mine"]
    assert posted["name"] == "POST /api/v1/jobs"
    assert job["context"]["trace_id"] == posted["context"]["trace_id"]
    assert posted["attributes"]["http.response.status_code"] == 202


@pytest.mark.parametrize(("name", "state"), [("BUTTOCKS_EXPOSED", "failed"), ("FACE_FEMALE", "done")])
def test_the_gate_fails_a_job_and_keeps_nothing_of_a_picture_that_it_refuses(start, tmp_path, name, state):
    (tmp_path / "nudenet.py").write_text(DETECTOR.replace("NAME", repr(name)))
    server = start("--safety", env={"PYTHONPATH": f"{tmp_path}:{':'.join(sys.path)}"})
    job = server.wait(server.submit(**TINY)["id"])
    assert job["state"] == state
    if state == "failed":
        assert job["error"].startswith(
            "the content gate of this server refused the picture (buttocks exposed"
        )
        assert not list((server.data / "pictures").rglob("*.png"))
    assert len(job["pictures"]) == (state == "done")


def test_the_gate_lets_an_apple_through():
    import sfumato

    ContentGate().check(sfumato.load().generate("a red apple, 3d render", seed=1, steps=4).png())


def test_the_page_is_opened_where_it_is_asked_for(start, tmp_path):
    seen, browser = tmp_path / "seen", tmp_path / "browser.sh"
    browser.write_text(f'#!/bin/sh\necho "$1" > {seen}\n')
    browser.chmod(0o755)
    server = start("--open", env={"BROWSER": f"{browser} %s"})
    while not (seen.exists() and seen.read_text()):
        assert server.process.poll() is None
        time.sleep(0.05)
    assert seen.read_text().strip() == server.url
