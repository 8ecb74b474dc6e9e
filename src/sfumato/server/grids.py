"""Grids over HTTP: read before they are drawn, drawn as a group of jobs, and laid out on one page."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import PIL.Image
from pydantic import BaseModel, ConfigDict, Field

from sfumato.errors import UsageError
from sfumato.inputs import bytes_only
from sfumato.request import Request
from sfumato.series.grid import Axis, Grid
from sfumato.server.admission import checked, requested
from sfumato.server.context import Server
from sfumato.server.encoding import opened
from sfumato.server.jobs import ENDED, Event, Failing, JobGroup, JobState, JobView, OnCrash, PictureView, View
from sfumato.server.settings import ServerSettings
from sfumato.server.submitting import check_repeated, new_job, sent

KIND = "grid"


class AxisText(BaseModel):
    """A field of the request, and its values."""

    model_config = ConfigDict(extra="forbid")

    field: str = Field(
        max_length=1000,
        description="A field's name; `prompt~word` or `negative~word`, which the values take the place of; "
        "or `lora~name`, whose values are weights of that adapter.",
    )
    values: str | list[str] = Field(
        max_length=20_000,
        description="A text, as `4, 8, 12` or `1-10 (+3)` or `0-1 [5]`; or each value as it is.",
    )


class AxisView(View):
    """An axis: its `values`, and the `labels` that a page has for them. `problem`: why it cannot be one."""

    field: str
    values: tuple[str, ...]
    labels: tuple[str, ...]
    problem: str | None = None


class PlanView(View):
    """What a grid would be. `seconds`: about how long it takes; null where its model drew nothing yet."""

    axes: tuple[AxisView, ...]
    pictures: int
    seconds: float | None
    problem: str | None = Field(description="Why it cannot be drawn, where no one axis is at fault.")


class CellView(Failing):
    """A picture of a grid, and the job that draws it; null is one that is no longer kept."""

    job: str | None
    state: JobState | None
    picture: PictureView | None


class GridView(View):
    """A grid. `cells` stand page by page, row by row."""

    id: str
    created: float
    request: dict[str, Any]
    axes: tuple[AxisView, ...]
    cells: tuple[CellView, ...]


def planned(server: Server, fields: Mapping[str, Any], axes: Sequence[AxisText], owner: str) -> PlanView:
    """What a grid would be, with what is wrong where it is wrong. Raises `UsageError` for the request."""
    request = requested(sent(server, fields, owner), server.settings)
    problem, seconds = None, None
    try:
        grid = _grid(request, [Axis.of(each.field, each.values) for each in axes], server.settings)
        cells = grid.requests
        for index, each in enumerate(cells):
            with grid.told(index):
                checked(each, server.settings)
        seconds = server.dispatcher.pace.seconds(cells, server.model)
    except UsageError as error:
        problem = str(error)
    views = [_planned_axis(each, request, server.settings, wrong=problem is not None) for each in axes]
    return PlanView(
        axes=tuple(views),
        pictures=math.prod(len(view.values) for view in views),
        seconds=None if seconds is None else seconds / server.settings.workers,
        problem=None if any(view.problem for view in views) else problem,
    )


def submit_grid(
    server: Server,
    fields: Mapping[str, Any],
    axes: Sequence[AxisText],
    owner: str,
    *,
    priority: int = 0,
    on_crash: OnCrash = "retry",
    idempotency_key: str | None = None,
) -> JobGroup:
    """Accept a job for every cell, all or none. Raises as `submit` does."""
    settings = server.settings
    request = requested(sent(server, fields, owner), settings)
    grid = _grid(request, [Axis.of(each.field, each.values) for each in axes], settings)
    jobs = []
    for index, each in enumerate(grid.requests):
        with grid.told(index):
            request, count = checked(each, settings)
        jobs.append(new_job(server, request, count, priority=priority, on_crash=on_crash))
    facts: dict[str, Any] = {
        "request": grid.request.without_inputs().model_dump(mode="json"),
        "axes": [{"field": axis.field, "values": axis.texts} for axis in grid.axes],
    }
    group, new = server.store.submit_group(
        KIND,
        facts,
        jobs,
        owner=owner,
        limits=settings.limits,
        idempotency_key=idempotency_key,
    )
    if new:
        _begin(server, group)
    else:
        first = {**group.facts["request"], "axes": group.facts["axes"]}
        check_repeated(first, {**facts["request"], "axes": facts["axes"]})
    return group


def draw_again(server: Server, group: JobGroup, cell: int | None = None) -> None:
    """Have the cells that failed or were cancelled drawn again, or only one. Raises `BusyError`."""
    found = server.store.group_jobs(group.id)
    chosen = [
        job.id
        for place, job in found.items()
        if job.state in (JobState.FAILED, JobState.CANCELLED) and cell in (None, place)
    ]
    if chosen:
        settings = server.settings
        server.store.submit_again(chosen, limits=settings.limits)
        _begin(server, group)


def cancel_grid(server: Server, group: JobGroup) -> None:
    """Cancel what is not drawn yet, the last first, so that none is begun meanwhile."""
    for job in reversed(server.store.group_jobs(group.id).values()):
        if job.state not in ENDED:
            server.dispatcher.cancel(job.id)


def viewed(server: Server, group: JobGroup) -> GridView:
    """A grid as it stands."""
    grid = _of(group)
    found = server.store.group_jobs(group.id)
    return GridView(
        id=group.id,
        created=group.created,
        request=grid.request.model_dump(mode="json"),
        axes=tuple(AxisView(field=axis.field, values=axis.texts, labels=axis.labels) for axis in grid.axes),
        cells=tuple(_cell(found.get(place)) for place in range(grid.cells)),
    )


def page(server: Server, group: JobGroup) -> bytes:
    """The PNG file of a grid; cells without a picture stay empty. Raises `UsageError` where none has one."""
    grid, found = _of(group), server.store.group_jobs(group.id)
    cells: list[PIL.Image.Image | None] = []
    records = []
    for place in range(grid.cells):
        view = _cell(found.get(place)).picture
        if view is None:
            cells.append(None)
            continue
        image = opened(server, view)
        cells.append(grid.cell(image.pil))
        records.append(image.record)
    if not records:
        raise UsageError("the grid has no pictures yet")
    return grid.encoded(cells, records)


def _grid(request: Request, axes: Sequence[Axis], settings: ServerSettings) -> Grid:
    """The grid, if it can be drawn here. Raises `UsageError`."""
    with bytes_only():
        grid = Grid.of(request, *axes)
    if grid.cells > settings.queue:
        raise UsageError(f"the grid has {grid.cells:,} pictures: at most {settings.queue:,} may wait here")
    if any(each.frames for each in grid.requests):
        raise UsageError("frames is given: a grid has pictures, no clips")
    return grid


def _planned_axis(given: AxisText, request: Request, settings: ServerSettings, *, wrong: bool) -> AxisView:
    """An axis; where something is `wrong` with the grid, what of that is this one's fault."""
    try:
        axis = Axis.of(given.field, given.values)
    except UsageError as error:
        return AxisView(field=given.field, values=(), labels=(), problem=str(error))
    problem = None
    for index in range(len(axis.values)) if wrong else ():
        try:
            with bytes_only():
                checked(axis.applied(request, index), settings)
        except UsageError as error:
            problem = str(error)
            break
    return AxisView(field=axis.field, values=axis.texts, labels=axis.labels, problem=problem)


def _of(group: JobGroup) -> Grid:
    """The grid that was accepted as a group."""
    axes = (Axis.of(each["field"], each["values"]) for each in group.facts["axes"])
    return Grid(Request.build(**group.facts["request"]), tuple(axes))


def _cell(job: JobView | None) -> CellView:
    if job is None:
        return CellView(job=None, state=None, error=None, picture=None)
    picture = job.pictures[0] if job.pictures else None
    return CellView(job=job.id, state=job.state, error=job.error, picture=picture)


def _begin(server: Server, group: JobGroup) -> None:
    """New jobs of a group wait: tell of them, and have them drawn."""
    for job in server.store.group_jobs(group.id).values():
        if job.state is JobState.QUEUED:
            event = Event(kind="state", job=job.id, group=group.id, state=job.state, priority=job.priority)
            server.events.tell(event)
    server.dispatcher.wake()
