"""What a worker does: takes up jobs, evaluates one batch after another, and tells the server what came."""

import gc
import io
import math
import traceback
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from time import perf_counter
from typing import Any, Protocol

from torch import Tensor

from sfumato import animation, engine
from sfumato.engine import Engine
from sfumato.errors import NumericsError, SfumatoError, UsageError
from sfumato.expansion import Prepared
from sfumato.image import Image
from sfumato.options import DeviceOptions, ModelOptions
from sfumato.request import Request
from sfumato.server.order import Turn
from sfumato.server.worker import messages
from sfumato.server.worker.gate import ContentGate
from sfumato.server.worker.models import Models
from sfumato.studio import Studio
from sfumato.studio.passes import rounds
from sfumato.video import Video

AT_ONCE = 8
"""Pictures of one job that are drawn at the same time where batches are a gain."""
PREVIEW_SHARE = 0.1
"""Of the time, what previews of a job may take."""
PREVIEW_FRAMES = 16
"""Frames that the preview of a clip shows; of more every second, every third and so on."""

Key = tuple[str, int, int]
"""A job, the number of its picture, and which drawing of that picture's round."""


class Channel(Protocol):
    """A worker's end of what connects it with the server."""

    def poll(self, timeout: float | None) -> bool:
        """Whether there is a message, within so many seconds; for ever if `None`."""

    def recv(self) -> messages.ToWorker:
        """The next message. Raises `EOFError` where the server is gone."""

    def send(self, message: messages.FromWorker) -> None:
        """Tell the server."""


@dataclass(eq=False)
class _Picture:
    """A picture on its way: the drawings of its round, and the images of those that are done."""

    course: Generator[list[Prepared], Sequence[Image], Image]
    total: int
    round: list[Prepared]
    images: dict[int, Image] = field(default_factory=dict)
    done: int = 0


@dataclass(eq=False)
class _RunningJob:
    """A job that is being drawn."""

    studio: Studio
    turn: Turn
    waiting: Iterator[tuple[int, Prepared]]
    pictures: dict[int, _Picture] = field(default_factory=dict)
    preview_due: dict[int, float] = field(default_factory=dict)
    """When the drawings of a round may be shown next, so that each has its turn."""


class Worker:
    """Draws the jobs that come over `connection`; with `memory` bytes for models, and batches of at least
    `rows` rows of the native size.
    """

    def __init__(
        self,
        connection: Channel,
        device: DeviceOptions,
        memory: int | None = None,
        rows: int = 0,
        safety: bool = False,
    ) -> None:
        self.gate = ContentGate() if safety else None
        self.connection = connection
        self.rows = rows
        self.models = Models(device, memory)
        self._engines: dict[Studio, Engine] = {}
        self._drawings: dict[str, _RunningJob] = {}
        self._watched: set[str] = set()
        self._deferred: list[tuple[messages.Draw, ModelOptions | None]] = []
        """Jobs that wait until there is room for their models, and those models."""
        self._clock = 0

    def load(self, model: str) -> None:
        """Have a model ready. One that cannot be loaded is told to each job that asks for it."""
        with suppress(SfumatoError):
            self._studio(ModelOptions.of(model))

    def run(self) -> None:
        """Work until the server says stop or is gone."""
        self.connection.send(messages.Ready())
        while True:
            while self.connection.poll(0 if self._drawings or self._deferred else None):
                try:
                    message = self.connection.recv()
                except EOFError:
                    return
                if isinstance(message, messages.Stop):
                    return
                self._take(message)
            self._step()
            self._take_deferred()

    def _take(self, message: messages.ToWorker) -> None:
        if isinstance(message, messages.Draw):
            self._deferred.append((message, _model(message)))
            if len(self._deferred) == 1:
                self._take_deferred()
        elif isinstance(message, messages.Cancel):
            self._deferred = [each for each in self._deferred if each[0].job != message.job]
            self._drop(message.job)
        elif isinstance(message, messages.Skip):
            self._skip(message.job, message.number)
        elif isinstance(message, messages.Watch):
            (self._watched.add if message.previews else self._watched.discard)(message.job)
        elif isinstance(message, messages.Prioritise):
            if message.job in self._drawings:
                self._drawings[message.job].turn.priority = message.priority
            self._deferred = [
                (replace(draw, priority=message.priority) if draw.job == message.job else draw, model)
                for draw, model in self._deferred
            ]

    def _take_deferred(self) -> None:
        """Begin the first of the highest priority, if there is room for its model, with all of that model."""
        while self._deferred:
            _, options = max(self._deferred, key=lambda each: each[0].priority)
            busy = [each.studio for each in self._drawings.values()]
            if options is not None and not self.models.fits(options, busy):
                return
            taken = [message for message, model in self._deferred if model == options]
            self._deferred = [each for each in self._deferred if each[1] != options]
            for message in taken:
                try:
                    self._begin(message)
                except Exception as error:
                    self._fail(message.job, error)

    def _begin(self, message: messages.Draw) -> None:
        """Take up a job: its model loaded, its pictures prepared."""
        request = Request.build(**message.request)
        options = ModelOptions.of_request(request)
        if self.models.get(options) is None:
            self.connection.send(messages.Loading(message.job, request.model))
        studio = self._studio(options)
        resolved = studio.resolve(request)
        prepared = enumerate(studio.prepare(resolved))
        waiting = [(number, picture) for number, picture in prepared if number not in message.done]
        left = sum(studio.evaluations(picture) for _, picture in waiting)
        turn = Turn(self._clock - message.waited, left, message.priority)
        self._drawings[message.job] = _RunningJob(studio, turn, iter(waiting))
        self._submit(message.job)

    def _studio(self, options: ModelOptions) -> Studio:
        """The studio of a model, loaded if need be. Raises `SfumatoError`."""
        studio = self.models.get(options)
        if studio is None:
            busy = [each.studio for each in self._drawings.values()]
            for each in self.models.make_room(options, busy):
                self._close(each)
            studio = self.models.load(options)
            # it may be larger than was expected
            for each in self.models.make_room(options, busy):
                self._close(each)
            studio.confine()
            self.connection.send(messages.Loaded(self.models.names))
        return studio

    def _submit(self, job: str) -> None:
        """Have the engine draw as many pictures of a job as are drawn at once; one without any is over."""
        drawing = self._drawings[job]
        most = AT_ONCE if drawing.studio.budget else 1
        for number, picture in islice(drawing.waiting, most - len(drawing.pictures)):
            course = rounds(picture, drawing.studio)
            total = drawing.studio.evaluations(picture)
            drawing.pictures[number] = _Picture(course, total, next(course))
            self._submit_round(job, number)
        if not drawing.pictures:
            self._drop(job)
            self.connection.send(messages.JobFinished(job))

    def _submit_round(self, job: str, number: int) -> None:
        studio = self._drawings[job].studio
        for part, each in enumerate(self._drawings[job].pictures[number].round):
            self._engine(studio).submit(studio.job(each, (job, number, part)))

    def _engine(self, studio: Studio) -> Engine:
        if studio not in self._engines:
            self._engines[studio] = studio.engine(self._rank, rows=self.rows)
        return self._engines[studio]

    def _close(self, studio: Studio) -> None:
        twin = vars(studio).get("full_precision")
        for each in (studio, twin):
            if each is not None:
                self._engines.pop(each, None)
                each.close()
        gc.collect()

    def _rank(self, key: Key) -> float:
        return self._drawings[key[0]].turn.place

    def _step(self) -> None:
        """One batch of the studio whose job has its turn."""
        if not self._drawings:
            return
        first = min(self._drawings, key=lambda job: self._drawings[job].turn.place)
        for studio in self._studios(self._drawings[first]):
            began, sizes, model = perf_counter(), [], ""
            for event in self._engine(studio).step():
                key: Any = event.key
                if key[0] not in self._drawings:
                    continue
                if isinstance(event, engine.Evaluated):
                    request = self._drawings[key[0]].pictures[key[1]].round[key[2]].request
                    model = request.model
                    # of a clip (1, C, F, h, w): F frames at once
                    frames = event.x0.shape[2] if event.x0.ndim == 5 else 1
                    sizes.append(math.prod(request.size) * frames)
                self._tell(key, event, studio)
            if sizes:
                seconds = perf_counter() - began
                self.connection.send(messages.BatchEvaluated(len(sizes), seconds, model, sum(sizes)))

    def _studios(self, drawing: _RunningJob) -> list[Studio]:
        """Where a job is drawn: in its studio, or in that one's twin of full precision."""
        twin = vars(drawing.studio).get("full_precision")
        return [each for each in (drawing.studio, twin) if each is not None and not self._engine(each).idle]

    def _tell(self, key: Key, event: engine.Event, studio: Studio) -> None:
        job, number, part = key
        drawing = self._drawings[job]
        picture = drawing.pictures[number]
        if isinstance(event, engine.Evaluated):
            self._clock += 1
            drawing.turn.left -= 1
            picture.done += 1
            preview = None if event.last else self._preview(job, picture, part, event)
            layer = picture.round[part].layer if preview else ""
            self.connection.send(
                messages.JobEvaluated(job, number, picture.done, picture.total, preview, layer or None)
            )
        elif isinstance(event, engine.Finished):
            try:
                if event.pixels is None:  # a clip, which is drawn in one round
                    self._send(job, number, studio.video(event.latent, picture.round[part]))
                    return
                picture.images[part] = studio.image(event.pixels, picture.round[part])
                if len(picture.images) == len(picture.round):
                    self._go_on(job, number)
            except Exception as error:
                self._fail(job, error)
        else:
            self._again(key, event.error, studio)

    def _go_on(self, job: str, number: int) -> None:
        """A round of a picture is drawn: the next one, or the picture is done."""
        drawing = self._drawings[job]
        picture = drawing.pictures[number]
        images = [picture.images[part] for part in range(len(picture.round))]
        picture.images.clear()
        try:
            picture.round = picture.course.send(images)
        except StopIteration as end:
            self._send(job, number, end.value)
        else:
            self._submit_round(job, number)

    def _send(self, job: str, number: int, drawn: Image | Video) -> None:
        """A picture is done: send it, and begin the next one."""
        del self._drawings[job].pictures[number]
        content = drawn.encoded("WEBP") if isinstance(drawn, Video) else drawn.png()
        if self.gate is not None:
            frames = (each.png() for each in drawn.frames) if isinstance(drawn, Video) else (content,)
            for frame in frames:
                self.gate.check(frame)
        self.connection.send(messages.PictureDrawn(job, number, content, _facts(drawn)))
        self._submit(job)

    def _preview(self, job: str, picture: _Picture, part: int, event: engine.Evaluated) -> bytes | None:
        """A WebP file of what a drawing of the round is becoming, if somebody looks and one is due."""
        began = perf_counter()
        drawing = self._drawings[job]
        # what is not checked is not shown
        if self.gate is not None or job not in self._watched or began < drawing.preview_due.get(part, 0):
            return None
        try:
            content = _shown(event.x0, picture.round[part], drawing.studio)
        except Exception:  # as for want of memory: the picture itself may well be drawn
            self._watched.discard(job)
            return None
        now = perf_counter()
        drawing.preview_due[part] = now + (now - began) * len(picture.round) / PREVIEW_SHARE
        return content

    def _again(self, key: Key, error: Exception, studio: Studio) -> None:
        """A drawing that failed in `studio`, once more in full precision where that can help."""
        job, number, part = key
        drawing = self._drawings[job]
        try:
            first = isinstance(error, NumericsError) and studio is drawing.studio
            full = studio.full_precision if first else None
            if full is None:
                raise error
            studio.library.share(full.library)
            full.confine()
            own = drawing.pictures[number].round
            (own[part],) = full.prepare(own[part].request)
            self._engine(full).submit(full.job(own[part], key))
        except Exception as failed:
            self._fail(job, failed)

    def _fail(self, job: str, error: Exception) -> None:
        self._drop(job)
        known = isinstance(error, SfumatoError)
        text = str(error) if known else f"internal error: {type(error).__name__}: {error}"
        details = None if known else "".join(traceback.format_exception(error))
        self.connection.send(messages.JobFinished(job, text, isinstance(error, UsageError), details))

    def _skip(self, job: str, number: int) -> None:
        """Leave out a picture of a job; the job is over if it was the last."""
        self._deferred = [
            (replace(draw, done=draw.done | {number}) if draw.job == job else draw, model)
            for draw, model in self._deferred
        ]
        drawing = self._drawings.get(job)
        if drawing is None or number not in drawing.pictures:
            return
        picture = drawing.pictures.pop(number)
        drawing.turn.left -= picture.total - picture.done
        self._cancel(job, number, picture)
        self._submit(job)

    def _cancel(self, job: str, number: int, picture: _Picture) -> None:
        """Have no engine draw a picture any more."""
        for one in self._engines.values():
            for part in range(len(picture.round)):
                one.cancel((job, number, part))

    def _drop(self, job: str) -> None:
        """Forget a job, whatever it was about to do."""
        self._watched.discard(job)
        drawing = self._drawings.pop(job, None)
        for number, picture in drawing.pictures.items() if drawing else ():
            self._cancel(job, number, picture)


def _model(message: messages.Draw) -> ModelOptions | None:
    """The model of a job, `None` if its request is none."""
    try:
        return ModelOptions.of_request(Request.build(**message.request))
    except SfumatoError:
        return None


def _shown(x0: Tensor, picture: Prepared, studio: Studio) -> bytes:
    """A clean estimate (1, C, …) as a WebP file, of a clip an animated one of `PREVIEW_FRAMES` at most."""
    if x0.ndim == 4:
        buffer = io.BytesIO()
        studio.preview(x0, picture).pil.save(buffer, "WEBP", quality=75)
        return buffer.getvalue()
    every = math.ceil(x0.shape[2] / PREVIEW_FRAMES)
    video = studio.preview_video(x0[:, :, ::every], picture, quick=False)
    return animation.encoded([frame.pil for frame in video.frames], "WEBP", video.fps / every, {})


def _facts(drawn: Image | Video) -> dict[str, Any]:
    """What is kept of a picture besides its file."""
    request, record = drawn.request, drawn.record
    return {
        "width": drawn.size[0],
        "height": drawn.size[1],
        "frames": len(drawn) if isinstance(drawn, Video) else None,
        "seed": request.seed,
        "prompt": request.prompt,
        "negative": request.negative,
        "model": record.model,
        "record": record.for_file("PNG", embed=False).model_dump_json(),
    }
