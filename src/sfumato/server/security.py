"""What stands before every route: who may call, from where, how much, and how long it may take to say it."""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import re
import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sfumato.server.deadline import DEADLINE
from sfumato.server.settings import ServerSettings
from sfumato.server.tracing import Tracing, describe

log = logging.getLogger("sfumato.server.access")

OPEN_PATHS = ("/healthz", "/readyz")
"""What needs no key: it says nothing of what is drawn."""
LOCAL_OWNER = "local"
BODIES = ("application/json", "multipart/form-data")
_REQUEST_ID = re.compile(r"[\w.-]{1,64}")
_CHANGES = ("POST", "PUT", "PATCH", "DELETE")

POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
"""What the page may load and run: its own files, and no script or style within its text."""

HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
}


class Guard:
    """Refuses what may not be asked, before any route sees it (pure ASGI).

    Another site's page (by `Host`, against DNS rebinding, and `Origin`), a missing key, a body of another
    type, one that is too large, and one that takes too long.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: ServerSettings,
        tracing: Tracing | None = None,
        seen: Callable[[str, str, int, float], None] = lambda *request: None,
    ) -> None:
        """`seen(method, route, status, seconds)` is told of each request that was answered."""
        self.app, self.settings, self.seen = app, settings, seen
        self.tracing = tracing or Tracing()
        self._keys = {owner(key): key for key in settings.api_keys}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, headers = time.perf_counter(), Headers(scope=scope)
        asked = headers.get("x-request-id", "")
        identifier = asked if _REQUEST_ID.fullmatch(asked) else secrets.token_hex(8)
        scope.setdefault("state", {}).update(request_id=identifier, owner=LOCAL_OWNER)
        status = 0

        async def answered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = MutableHeaders(scope=message)
                own["x-request-id"] = identifier
                for name, value in HEADERS.items():
                    own.setdefault(name, value)
            await send(message)

        tracing = self.tracing.request(scope["method"], scope["path"], headers, identifier)
        span = tracing.__enter__()
        try:
            refusal = self._refusal(scope, headers)
            if refusal is None:
                limited = _Limited(
                    receive,
                    self.settings.max_body,
                    self.settings.receive_seconds,
                    scope["state"].get(DEADLINE),
                )
                try:
                    await self.app(scope, limited.receive, answered)
                except _RefusedError as error:
                    refusal = error.status, str(error)
                    if status:
                        raise
            if refusal is not None:
                await _refuse(answered, *refusal)
        finally:
            seconds = time.perf_counter() - began
            route = getattr(scope.get("route"), "path", "none")
            describe(span, route, scope["method"], status)
            tracing.__exit__(None, None, None)
            self.seen(scope["method"], route, status, seconds)
            facts = {
                "request": identifier,
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "seconds": round(seconds, 4),
                "owner": scope["state"]["owner"],
            }
            log.info("answered", extra={"facts": facts})

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if _name(host) not in self.settings.hosts:
            return 421, f"this server is not known as {host!r}; name it with --allowed-host"
        origin = headers.get("origin")
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            return 403, f"a page of {origin!r} may not use this server"
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        if scope["method"] in _CHANGES and has_body and kind not in BODIES:
            return 415, f"the body is {kind or 'of no type'}: it must be {' or '.join(BODIES)}"
        if (
            int(length) > self.settings.max_body
            if (length := headers.get("content-length", "")).isdigit()
            else 0
        ):
            return 413, f"the body has {int(length):,} bytes: at most {self.settings.max_body:,}"
        if self._keys and scope["path"] not in OPEN_PATHS:
            found = self._owner(headers)
            if found is None:
                return 401, "an API key is needed: Authorization: Bearer KEY, or as a password"
            scope["state"]["owner"] = found
        return None

    def _owner(self, headers: Headers) -> str | None:
        """Whose key came with the request; every key is compared, in constant time."""
        key = _key(headers)
        found = None
        for name, known in self._keys.items():
            if hmac.compare_digest(key.encode(), known.encode()):
                found = name
        return found


def owner(key: str) -> str:
    """What the holder of a key is called in the database, which does not know the key."""
    return hashlib.sha256(key.encode()).hexdigest()[:16]


class _RefusedError(Exception):
    """A body that is not read to its end."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class _Limited:
    """A body of at most `most` bytes that comes until the `deadline`, or within `seconds` from now."""

    def __init__(self, receive: Receive, most: int, seconds: float, deadline: float | None = None) -> None:
        self._receive, self._most, self._seconds = receive, most, seconds
        self._deadline = deadline or asyncio.get_running_loop().time() + seconds
        self._whole = False

    async def receive(self) -> Message:
        if self._whole:  # what comes now is that the client has gone
            return await self._receive()
        left = self._deadline - asyncio.get_running_loop().time()
        try:
            message = await asyncio.wait_for(self._receive(), max(left, 0))
        except TimeoutError:
            raise _RefusedError(408, f"the request did not come within {self._seconds:g} seconds") from None
        self._most -= len(message.get("body", b""))
        if self._most < 0:
            raise _RefusedError(413, "the body is too large")
        self._whole = not message.get("more_body", False)
        return message


async def _refuse(send: Send, status: int, text: str) -> None:
    from sfumato.server.errors import error_body

    body = json.dumps(error_body(status, text)).encode()
    headers: Iterable[tuple[bytes, bytes]] = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    if status == 401:
        headers = [*headers, (b"www-authenticate", b'Basic realm="Sfumato"')]
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


def _key(headers: Headers) -> str:
    """The key that came as a bearer token, as the password of basic authentication, or in a header."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return given.strip()
    if scheme.lower() == "basic":
        with suppress(ValueError):
            return base64.b64decode(given, validate=True).decode().partition(":")[2]
    return headers.get("x-api-key", "")


def _name(host: str) -> str:
    """A `Host` header without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host
