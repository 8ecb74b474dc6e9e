import asyncio
import json
from base64 import b64encode

import pytest

from sfumato.errors import UsageError
from sfumato.server.security import Guard
from sfumato.server.settings import ServerSettings, server_settings

HOST = ("host", "127.0.0.1:7860")


async def _echo(scope, receive, send):
    body, more = b"", scope["method"] != "GET"
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def asked(*headers, method="GET", path="/api/v1/jobs", chunks=(), pause=0.0, **settings):
    """Status, headers and body that the guard answers with."""
    waiting, sent = list(chunks), []

    async def receive():
        await asyncio.sleep(pause)
        body = waiting.pop(0) if waiting else b""
        return {"type": "http.request", "body": body, "more_body": bool(waiting)}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in headers],
    }
    asyncio.run(Guard(_echo, ServerSettings(**settings))(scope, receive, send))
    answered = dict(sent[0]["headers"])
    return sent[0]["status"], answered, b"".join(each.get("body", b"") for each in sent[1:])


def message(body):
    return json.loads(body)["error"]["message"]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "", "0.0.0.0"]
)
def test_a_name_that_is_not_the_servers_is_refused(host):
    status, _, body = asked(("host", host))
    assert status == 421
    assert host in message(body)


@pytest.mark.parametrize(
    "host", ["127.0.0.1:7860", "localhost:7860", "[::1]:7860", "localhost", "draw.example"]
)
def test_the_servers_own_names_are_answered(host):
    assert asked(("host", host), allowed_hosts=("draw.example",))[0] == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:7860", "http://127.0.0.1"]
)
def test_a_page_of_another_site_is_refused(origin):
    assert asked(HOST, ("origin", origin))[0] == 403


def test_the_servers_own_page_is_answered():
    assert asked(HOST, ("origin", "http://127.0.0.1:7860"))[0] == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_body_that_a_foreign_form_could_send_is_refused(kind):
    status, _, _ = asked(HOST, ("content-type", kind), ("content-length", "2"), method="POST", chunks=[b"{}"])
    assert status == 415


def test_a_key_is_needed_where_there_are_keys():
    keys = {"api_keys": ("secret", "other")}
    assert asked(HOST, **keys)[0] == 401
    assert asked(HOST, ("authorization", "Bearer wrong"), **keys)[0] == 401
    assert asked(HOST, ("authorization", "Bearer other"), **keys)[0] == 200
    assert asked(HOST, ("x-api-key", "secret"), **keys)[0] == 200
    assert asked(HOST, ("authorization", f"Basic {b64encode(b'me:secret').decode()}"), **keys)[0] == 200
    assert asked(HOST, ("authorization", "Basic %%%"), **keys)[0] == 401
    assert asked(HOST, path="/healthz", **keys)[0] == 200


JSON = ("content-type", "application/json")


def test_a_body_that_says_it_is_too_large_is_refused_unread():
    status, _, body = asked(HOST, JSON, ("content-length", "5000"), method="POST", max_body=2000)
    assert (status, message(body)) == (413, "the body has 5,000 bytes: at most 2,000")


def test_a_body_that_turns_out_too_large_is_refused():
    chunked = ("transfer-encoding", "chunked")
    status, _, _ = asked(HOST, JSON, chunked, method="POST", chunks=[b"x" * 1500] * 2, max_body=2000)
    assert status == 413


def test_a_body_that_drips_is_given_up():
    chunks = [b"x"] * 50
    status, _, _ = asked(
        HOST, JSON, ("content-length", "50"), method="POST", chunks=chunks, pause=0.05, receive_seconds=0.2
    )
    assert status == 408


def test_every_answer_has_a_request_id_and_forbids_sniffing():
    _, headers, _ = asked(HOST, ("x-request-id", "my-id"))
    assert headers[b"x-request-id"] == b"my-id"
    assert headers[b"x-content-type-options"] == b"nosniff"
    _, headers, _ = asked(HOST, ("x-request-id", "no\nid"))
    assert headers[b"x-request-id"] != b"no\nid"


def test_other_machines_need_a_key():
    with pytest.raises(UsageError, match="only with a key"):
        server_settings(host="0.0.0.0")
    assert server_settings(host="0.0.0.0", api_keys=("k",)).hosts == {"127.0.0.1", "::1", "localhost"}


def test_settings_come_from_the_command_then_the_environment_then_the_file(tmp_path, monkeypatch):
    file = tmp_path / "server.toml"
    file.write_text("port = 1\nqueue = 2\nworkers = 3\n")
    monkeypatch.setenv("SFUMATO_SERVE_PORT", "4")
    monkeypatch.setenv("SFUMATO_SERVE_QUEUE", "5")
    settings = server_settings(file, port=6)
    assert (settings.port, settings.queue, settings.workers) == (6, 5, 3)


@pytest.mark.parametrize(
    ("text", "wrong"), [("prot = 1", "did you mean 'port'"), ("port = 'x'", "port"), ("queue = 0", "queue")]
)
def test_a_wrong_setting_is_named(tmp_path, text, wrong):
    file = tmp_path / "server.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=wrong):
        server_settings(file)
