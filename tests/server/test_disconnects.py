"""Clients that go away in the middle."""

import json
import socket

import pytest

SLOW = {"prompt": "a red apple", "steps": 150, "sampler": "euler"}
OPENAI = {**SLOW, "size": "64x64", "n": 10}
A1111 = {"prompt": "a red apple", "steps": 150, "width": 64, "height": 64, "batch_size": 10}


def sent(server, path, body, *, length=None, kind="application/json"):
    """A connection on which a request was sent, or the beginning of it."""
    connection = socket.create_connection(("127.0.0.1", server.port))
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: {kind}\r\n"
    connection.sendall(f"{head}Content-Length: {length or len(body)}\r\n\r\n{body}".encode())
    return connection


def newest(server):
    found = server.http.get("/api/v1/jobs", params={"limit": 1}).json()
    return found[0] if found else {"id": None, "state": None}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/images/generations", OPENAI),
        ("/v1/images/generations", {**OPENAI, "stream": True, "partial_images": 2}),
        ("/sdapi/v1/txt2img", A1111),
    ],
)
def test_what_nobody_waits_for_is_cancelled(server, path, body):
    before = newest(server)["id"]
    connection = sent(server, path, json.dumps(body))
    while (job := newest(server))["id"] == before or job["state"] == "queued":
        pass
    connection.close()
    assert server.wait(job["id"])["state"] == "cancelled"


def test_a_job_outlives_those_who_follow_it(server):
    job = server.submit(**{**SLOW, "steps": 60}, width=64, height=64)
    for _ in range(10):
        connection = socket.create_connection(("127.0.0.1", server.port))
        path = f"/api/v1/jobs/{job['id']}/events?previews=true"
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        connection.close()
    assert server.wait(job["id"])["state"] == "done"


def test_an_upload_that_breaks_off_is_no_failure_of_the_server(server):
    form = '--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nabc'
    for _ in range(10):
        sent(server, "/api/v1/jobs", '{"request": {', length=10_000).close()
        kind = "multipart/form-data; boundary=x"
        sent(server, "/v1/images/edits", form, length=10_000, kind=kind).close()
    while server.read_log().count('/v1/images/edits", "status": 499') < 10:
        assert server.http.get("/healthz").status_code == 200
    assert "Traceback" not in server.read_log()
