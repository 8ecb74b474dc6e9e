"""Grids: one request with every combination of values of up to three of its fields, drawn as jobs."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, HTTPException, Query
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from sfumato.request import MAX_COUNT
from sfumato.server import grids
from sfumato.server.context import Owner, Server, Shared
from sfumato.server.grids import AxisText, GridView, PlanView
from sfumato.server.jobs import JobGroup, OnCrash
from sfumato.server.routes.jobs import Priority

router = APIRouter(prefix="/api/v1", tags=["grids"])


class GridText(BaseModel):
    """A request, and the axes of its grid: columns, rows and pages, in that order."""

    model_config = ConfigDict(extra="forbid")

    request: dict[str, Any]
    axes: list[AxisText] = Field(min_length=1, max_length=3)


class GridSubmission(GridText):
    """A grid to draw, and how its jobs are to be treated."""

    priority: Priority = 0
    on_crash: OnCrash = "retry"


@router.post("/grids/plan")
def plan_grid(grid: GridText, server: Shared, owner: Owner) -> PlanView:
    """What a grid would be: its values, how many pictures, about how long it takes, and what is wrong."""
    return grids.planned(server, grid.request, grid.axes, owner)


@router.post("/grids", status_code=202)
def create_grid(
    grid: GridSubmission,
    server: Shared,
    owner: Owner,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> GridView:
    """Submit a job for each of its pictures, all or none. The same Idempotency-Key gives the same grid."""
    group = grids.submit_grid(
        server,
        grid.request,
        grid.axes,
        owner,
        priority=grid.priority,
        on_crash=grid.on_crash,
        idempotency_key=idempotency_key,
    )
    return grids.viewed(server, group)


@router.get("/grids/{grid}")
def get_grid(grid: str, server: Shared, owner: Owner) -> GridView:
    """A grid and its cells."""
    return grids.viewed(server, _own(server, grid, owner))


@router.delete("/grids/{grid}")
def cancel_grid(grid: str, server: Shared, owner: Owner) -> GridView:
    """Cancel its jobs that are not over; what is drawn stays."""
    group = _own(server, grid, owner)
    grids.cancel_grid(server, group)
    return grids.viewed(server, group)


@router.post("/grids/{grid}/again", status_code=202)
def draw_grid_again(
    grid: str,
    server: Shared,
    owner: Owner,
    cell: Annotated[int | None, Query(ge=0, lt=MAX_COUNT)] = None,
) -> GridView:
    """Draw the pictures that failed or were cancelled again, or only that of `cell`, from 0."""
    group = _own(server, grid, owner)
    grids.draw_again(server, group, cell)
    return grids.viewed(server, group)


@router.get("/grids/{grid}/file", response_class=Response)
def get_grid_file(grid: str, server: Shared, owner: Owner) -> Response:
    """One PNG file with all pictures, labelled, as `sfumato grid` makes it; it carries their records."""
    return Response(grids.page(server, _own(server, grid, owner)), media_type="image/png")


def _own(server: Server, grid: str, owner: str) -> JobGroup:
    group = server.store.group(grid, owner)
    if group is None:
        raise HTTPException(404, f"there is no grid {grid!r}")
    return group
