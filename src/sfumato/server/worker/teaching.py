"""What the process that teaches does: one job, from its pictures to a file in the server's folders."""

import os
import traceback
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfumato import folders
from sfumato.errors import OutputError, SfumatoError, UsageError
from sfumato.files import make_folder, output_error, replace_atomically
from sfumato.server.worker import messages

if TYPE_CHECKING:
    from sfumato.train.loop import TrainingProgress
    from sfumato.train.stages import Plan, Stage
    from sfumato.train.teach import Teaching

SAMPLES = "samples"
"""The folder in a run's own that holds its sheets of samples."""
SHEETS = 4
"""Sheets of samples that are drawn while it learns, the last one at the end."""
NICENESS = 10
"""How far it stands back on a CPU behind what draws."""


def main(connection: Connection, folder: Path, device: str | None) -> None:
    """Carry out the job that comes over `connection`; its run is kept in `folder`."""
    import signal
    from threading import Thread

    # Ctrl-C reaches the whole group of processes; the server decides when this one ends
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    message = connection.recv()
    # with the server, so that no two ever write to one run
    Thread(target=_end_with, args=(connection,), name="server", daemon=True).start()
    try:
        _teach(connection, message, folder, device)
        finished = messages.JobFinished(message.job)
    except Exception as error:
        known = isinstance(error, SfumatoError)
        text = str(error) if known else f"internal error: {type(error).__name__}: {error}"
        details = None if known else "".join(traceback.format_exception(error))
        finished = messages.JobFinished(message.job, text, isinstance(error, UsageError), details)
    connection.send(finished)


def _end_with(connection: Connection) -> None:
    with suppress(EOFError, OSError):
        connection.recv()
    os._exit(1)


def _teach(connection: Connection, message: messages.Draw, folder: Path, device: str | None) -> None:
    from dataclasses import replace

    from sfumato.train import stages, teach
    from sfumato.train.distributed import process_group

    teaching = replace(teaching_of(message.request, folder), device=device)
    _write(message.request["pictures"], teaching.pictures[0])
    plan = teach.prepare(teaching)
    every = [max(stage.recipe.steps // SHEETS, 1) for stage in plan.stages]
    plan = replace(
        plan,
        stages=tuple(
            replace(stage, recipe=replace(stage.recipe, samples=replace(stage.recipe.samples, every=steps)))
            for stage, steps in zip(plan.stages, every, strict=True)
        ),
    )
    told = _Telling(connection, message.job, plan)
    with process_group(device) as place:
        results = stages.carry_out(plan, place, progress=told.progress, report=told.report)
    recipe = results[-1].stage.recipe
    _keep(recipe.objective.result(recipe), target(message.request))
    told.report("done")
    for path in list(folder.rglob("*")):
        if path.is_file() and path.parent.name != SAMPLES:
            path.unlink()


def teaching_of(request: Mapping[str, Any], folder: Path) -> "Teaching":
    """A job's `Teaching`, with its run and its pictures in `folder`. Raises as that does."""
    from sfumato.train.teach import Teaching

    return Teaching(
        pictures=(folder / (request["adapter"] or "pictures"),),
        name=request["name"],
        of_class=request["class"],
        method=request["method"],
        base=request["model"],
        run=folder / "run",
        steps=request["steps"],
        mask=request["mask"],
    )


def target(request: Mapping[str, Any]) -> Path:
    """Where the result of a job goes, in the server's folders."""
    return folders.folder(request["kind"]) / f"{request['adapter']}.safetensors"


def _write(pictures: list[Mapping[str, Any]], folder: Path) -> None:
    """The pictures of a job as files. Raises `OutputError`."""
    make_folder(folder)
    for picture in pictures:
        path = folder / picture["name"]
        if not path.exists():
            with replace_atomically(path) as file:
                file.write(picture["data"])


def _keep(made: Path, place: Path) -> None:
    """Copy the result to its place. Raises `OutputError`, also where another file is there."""
    make_folder(place.parent, place)
    try:
        content = made.read_bytes()
        if place.exists():
            if place.read_bytes() == content:
                return  # it was copied before the job was cut off
            raise OutputError(f"there is another {place.name} by now: teach it once more by another name")
        with replace_atomically(place) as file:
            file.write(content)
    except OSError as error:
        raise output_error(place, error) from error


class _Telling:
    """Tells the server how far a plan is, over all its stages."""

    def __init__(self, connection: Connection, job: str, plan: "Plan") -> None:
        self._connection, self._job, self._plan = connection, job, plan
        self._step = 0
        self._sample: Path | None = None

    @property
    def _steps(self) -> int:
        return sum(stage.recipe.steps for stage in self._plan.stages)

    def report(self, doing: str) -> None:
        """What takes long besides steps. Paths are the server's own affair."""
        text = doing.rpartition(": ")[2]
        self._send(messages.JobTrained(self._job, self._step, self._steps, doing=text))

    def progress(self, stage: "Stage", now: "TrainingProgress") -> None:
        """A step, or several, of a stage."""
        place = self._plan.stages.index(stage)
        self._step = now.step + sum(each.recipe.steps for each in self._plan.stages[:place])
        later = sum(each.recipe.steps * each.recipe.batch_size for each in self._plan.stages[place + 1 :])
        left = now.seconds_left + later / now.examples_per_second
        self._send(messages.JobTrained(self._job, self._step, self._steps, now.loss, left))

    def _send(self, message: messages.JobTrained) -> None:
        from dataclasses import replace

        self._connection.send(replace(message, sample=self._newest()))

    def _newest(self) -> bytes | None:
        """The newest sheet of samples, if it was not told yet."""
        runs = (Path(stage.recipe.run) / SAMPLES for stage in self._plan.stages)
        sheets = [path for run in runs for path in run.glob("*.webp")]
        newest = max(sheets, key=lambda path: path.stat().st_mtime_ns, default=None)
        if newest is None or newest == self._sample:
            return None
        self._sample = newest
        return newest.read_bytes()
