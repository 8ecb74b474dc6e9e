"""The HTTP server around the application: uvicorn, with a deadline for what clients send."""

import asyncio
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from sfumato.errors import OutputError
from sfumato.server.app import application
from sfumato.server.deadline import deadline_protocol
from sfumato.server.dispatcher import Dispatcher
from sfumato.server.logs import log_as_json
from sfumato.server.settings import ServerSettings

IDLE_SECONDS = 75
"""How long a connection may be kept without a request; longer than any `Retry-After` of a full queue."""

ANSWER_SECONDS = 5
"""How long the last answers may take after the last job."""


def serve(settings: ServerSettings, started: Callable[[str], None]) -> None:
    """Serve until a signal; `started` is told the address once requests are answered.

    Raises `OutputError` where the address cannot be had, `UsageError` where Ray cannot.
    """
    app = application(settings)
    config = uvicorn.Config(
        app,
        # the loop that the tests know: uvicorn takes uvloop where it finds it, as beside Ray
        loop="asyncio",
        http=deadline_protocol(settings.receive_seconds),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=int(settings.grace_seconds + ANSWER_SECONDS),
        h11_max_incomplete_event_size=64 << 10,
    )
    sock = _bound(settings)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    server = _Server(config, app, lambda: started(f"http://{host}:{sock.getsockname()[1]}"))
    log_as_json()
    if settings.ray:
        from sfumato.server.cluster.connecting import connect

        connect()
    server.run(sockets=[sock])


class _Server(uvicorn.Server):
    """Tells when it answers; at a signal lets running jobs finish, at a second one waits for nothing."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._app, self._on_start = app, on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_start()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        dispatcher: Dispatcher = self._app.state.server.dispatcher
        dispatcher.begin_stop()
        hurry = asyncio.ensure_future(self._hurry(dispatcher))
        await super().shutdown(sockets)
        if self.force_exit:  # which uvicorn leaves out then
            await self.lifespan.shutdown()
        hurry.cancel()

    async def _hurry(self, dispatcher: Dispatcher) -> None:
        """Watch for a second signal."""
        while not self.force_exit:
            await asyncio.sleep(0.1)
        dispatcher.hurry()


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
