"""The HTTP server around the application: uvicorn, with a deadline for what clients send."""

import logging
import socket
import sys
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from sfumato.errors import OutputError
from sfumato.server.app import application
from sfumato.server.settings import ServerSettings


def serve(settings: ServerSettings, started: Callable[[str], None]) -> None:
    """Serve until a signal; `started` is told the address once requests are answered.

    Raises `OutputError` where the address cannot be had.
    """
    app = application(settings)
    config = uvicorn.Config(
        app,
        http=_protocol(settings.receive_seconds),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(int(settings.grace_seconds), 1),
        h11_max_incomplete_event_size=64 << 10,
    )
    sock = _bound(settings)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    server = _Server(config, lambda: started(f"http://{host}:{sock.getsockname()[1]}"))
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    server.run(sockets=[sock])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_start()


def _bound(settings: ServerSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((settings.host, settings.port))
    except OSError as error:
        sock.close()
        raise OutputError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; choose another --port"
        ) from None
    sock.set_inheritable(True)
    return sock


def _protocol(seconds: float) -> type[H11Protocol]:
    """uvicorn's protocol, which closes a connection whose next request has begun and does not get to the end
    of its headers within `seconds`; a silent one too.
    """

    class DeadlineProtocol(H11Protocol):
        _deadline: Any = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop_waiting()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if not self.transport.is_closing():
                self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def _wait(self) -> None:
            self._stop_waiting()
            self._deadline = self.loop.call_later(seconds, self._expire)

        def _stop_waiting(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _expire(self) -> None:
            if self.cycle is None or self.cycle.response_complete:
                self.transport.abort()

    return DeadlineProtocol
