"""What a server tells those that watch it: figures, spans, its page."""

import json
import logging
import os
import re
import signal
import sys
import time

from sfumato.server.logs import JsonLines

TINY = {"prompt": "a red apple", "steps": 2, "width": 64, "height": 64, "seed": 3}
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


def test_the_log_is_one_json_object_a_line(start):
    server = start()
    server.wait(server.submit(**TINY, headers={"x-request-id": "mine"})["id"])
    os.kill(server.workers()[0], signal.SIGKILL)
    while "worker 0 ended" not in server.read_log():
        time.sleep(0.05)
    lines = [json.loads(line) for line in server.read_log().splitlines()]
    assert all({"time", "level", "message"} <= line.keys() for line in lines)
    (line,) = [line for line in lines if line.get("request") == "mine"]
    assert (line["method"], line["path"], line["status"]) == ("POST", "/api/v1/jobs", 202)
    assert [line["level"] for line in lines if "worker 0 ended" in line["message"]] == ["error"]


def test_an_exception_is_one_line_of_the_log_too():
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.LogRecord("", logging.ERROR, "", 0, "it %s", ("failed",), sys.exc_info())
    record.facts = {"request": "mine"}
    line = JsonLines().format(record)
    found = json.loads(line)
    assert (found["level"], found["message"], found["request"]) == ("error", "it failed", "mine")
    assert "Traceback" in found["traceback"]
    assert "\n" not in line


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


def test_the_page_is_opened_where_it_is_asked_for(start, tmp_path):
    seen, browser = tmp_path / "seen", tmp_path / "browser.sh"
    browser.write_text(f'#!/bin/sh\necho "$1" > {seen}\n')
    browser.chmod(0o755)
    server = start("--open", env={"BROWSER": f"{browser} %s"})
    while not (seen.exists() and seen.read_text()):
        assert server.process.poll() is None
        time.sleep(0.05)
    assert seen.read_text().strip() == server.url
