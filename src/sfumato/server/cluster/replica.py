"""A replica of the deployment: one worker that draws in a thread, and a stream for each of its jobs."""

import asyncio
import os
import traceback
from collections.abc import AsyncIterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread

from sfumato.machine import cores
from sfumato.options import DeviceOptions
from sfumato.server.worker import messages
from sfumato.server.worker.answering import Answer, Question


class _InnerChannel:
    """The worker's end of two queues within a process."""

    def __init__(self, replica: "DrawingReplica") -> None:
        self.inbox: SimpleQueue[messages.ToWorker] = SimpleQueue()
        self.send = replica.hear
        self._next: messages.ToWorker | None = None

    def poll(self, timeout: float | None) -> bool:
        if self._next is None:
            with suppress(Empty):
                self._next = self.inbox.get(timeout != 0, timeout)
        return self._next is not None

    def recv(self) -> messages.ToWorker:
        message, self._next = self._next, None
        return message if message is not None else self.inbox.get()


class DrawingReplica:
    """What Ray Serve starts on a node: loads `model` and draws. `threads`: of a CPU, one a core if `None`."""

    def __init__(
        self, model: str, device: str | None, threads: int | None, memory: int | None, rows: int, safety: bool
    ) -> None:
        from sfumato.server.worker.loop import Worker

        options = DeviceOptions(device=device, threads=threads or cores())
        self._loop: asyncio.AbstractEventLoop | None = None
        self._streams: dict[str, asyncio.Queue[messages.FromWorker]] = {}
        self._channel = _InnerChannel(self)
        self._worker = Worker(self._channel, options, memory, rows, safety)
        self._worker.load(model)
        Thread(target=self._work, name="worker", daemon=True).start()

    async def draw(self, replica: str, draw: messages.Draw) -> AsyncIterator[list[messages.FromWorker]]:
        """Draw a job: what the worker says of it, as it comes. The job ends with the stream."""
        self._loop = asyncio.get_running_loop()
        if draw.job in self._streams:
            self._channel.inbox.put(messages.Cancel(draw.job))
        stream = self._streams[draw.job] = asyncio.Queue()
        self._channel.inbox.put(draw)
        said: list[messages.FromWorker] = []
        try:
            while not (said and isinstance(said[-1], messages.JobFinished)):
                said = [await stream.get()]
                while not stream.empty():
                    said.append(stream.get_nowait())
                yield said
        finally:
            if self._streams.get(draw.job) is stream:
                del self._streams[draw.job]
                self._channel.inbox.put(messages.Cancel(draw.job))

    async def tell(self, replica: str, message: messages.ToWorker) -> None:
        """Pass a message on to the worker."""
        self._channel.inbox.put(message)

    async def answer(self, replica: str, question: Question) -> Answer:
        """Answer a question, in a thread beside the one that draws."""
        return await asyncio.to_thread(lambda: question.answer)

    def hear(self, message: messages.FromWorker) -> None:
        """What the worker says, in its thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._pass_on, message)

    def _pass_on(self, message: messages.FromWorker) -> None:
        job = getattr(message, "job", None)
        if job is None:  # it is the worker's own, and any stream takes it
            job = next(iter(self._streams), None)
        if job in self._streams:
            self._streams[job].put_nowait(message)

    def _work(self) -> None:
        """In a thread of its own. A worker that fails ends its process, as it does elsewhere."""
        try:
            self._worker.run()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
