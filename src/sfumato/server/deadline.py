"""uvicorn's HTTP protocol with deadlines for a request to come and for an answer to be taken."""

from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

DEADLINE = "deadline"
"""Where a request's state has the time of the event loop by which all of it must have come."""
ANSWER_SECONDS = 60.0
"""How long a client may leave what is waiting for it unread."""
_TO_REFUSE = 1.0
"""Seconds in which a request whose body is late is answered before its connection is closed."""


def deadline_protocol(seconds: float) -> type[H11Protocol]:
    """A protocol that closes a connection whose request does not come whole within `seconds` of its first
    byte, or of the connection's beginning, and one whose client does not read.
    """

    class DeadlineProtocol(H11Protocol):
        _coming: Any = None
        _unread: Any = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._expect()

        def data_received(self, data: bytes) -> None:
            if self._coming is None and self.conn.their_state is h11.IDLE:
                self._expect()
            super().data_received(data)
            self._look()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._look()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._unread = self.loop.call_later(ANSWER_SECONDS, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            _cancel(self._unread)

        def connection_lost(self, exc: Exception | None) -> None:
            _cancel(self._coming)
            _cancel(self._unread)
            super().connection_lost(exc)

        def _look(self) -> None:
            state = self.conn.their_state
            coming = state is h11.SEND_BODY or (state is h11.IDLE and self.conn.trailing_data[0])
            if not coming:
                _cancel(self._coming)
                self._coming = None
            elif self._coming is None:
                self._expect()

        def _expect(self) -> None:
            self.app_state = {**self.app_state, DEADLINE: self.loop.time() + seconds}
            self._coming = self.loop.call_later(seconds, self._expire)

        def _expire(self) -> None:
            if self.conn.their_state is h11.SEND_BODY:
                self._coming = self.loop.call_later(_TO_REFUSE, self.transport.abort)
            else:
                self.transport.abort()

    return DeadlineProtocol


def _cancel(timer: Any) -> None:
    if timer is not None:
        timer.cancel()
