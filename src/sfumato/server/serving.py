"""The HTTP server around the application: uvicorn, with a deadline for what clients send."""

import logging
import socket
import sys
from collections.abc import Callable

import uvicorn

from sfumato.errors import OutputError
from sfumato.server.app import application
from sfumato.server.deadline import deadline_protocol
from sfumato.server.settings import ServerSettings

IDLE_SECONDS = 75
"""How long a connection may be kept without a request; longer than any `Retry-After` of a full queue."""


def serve(settings: ServerSettings, started: Callable[[str], None]) -> None:
    """Serve until a signal; `started` is told the address once requests are answered.

    Raises `OutputError` where the address cannot be had.
    """
    app = application(settings)
    config = uvicorn.Config(
        app,
        http=deadline_protocol(settings.receive_seconds),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=IDLE_SECONDS,
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
