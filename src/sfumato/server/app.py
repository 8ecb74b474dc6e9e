"""The web application: routes, guard and errors around one server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from sfumato.request import Request
from sfumato.server.context import Server
from sfumato.server.dispatcher import Dispatcher
from sfumato.server.errors import RESPONSES, ErrorBody, handle_errors
from sfumato.server.events import Events
from sfumato.server.local_workers import LocalWorkers
from sfumato.server.routes import (
    a1111,
    a1111_lists,
    grids,
    health,
    jobs,
    library,
    openai,
    page,
    pictures,
    reading,
)
from sfumato.server.security import Guard
from sfumato.server.settings import ServerSettings
from sfumato.server.store import GroupStore
from sfumato.server.tracing import Tracing
from sfumato.server.workers import Workers
from sfumato.version import __version__

ROUTERS = (
    jobs.router,
    grids.router,
    pictures.router,
    library.router,
    reading.router,
    health.router,
    page.router,
    openai.router,
    a1111.router,
    a1111_lists.router,
    a1111_lists.controlnet,
)
_SCHEMAS = "#/components/schemas/"


def application(settings: ServerSettings) -> FastAPI:
    """The ASGI application of a server; its workers start and stop with it."""

    tracing = Tracing()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        store, events = GroupStore(settings.data, settings.database), Events()
        dispatcher = Dispatcher(store, events, settings, _workers(settings))
        events.observers.append(tracing.see)
        app.state.server = Server(settings, store, events, dispatcher)
        await run_in_threadpool(dispatcher.start)
        try:
            yield
        finally:
            await run_in_threadpool(dispatcher.stop)
            store.close()

    app = FastAPI(
        title="Sfumato",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses=RESPONSES,
    )
    for router in ROUTERS:
        app.include_router(router)
    handle_errors(app)

    def seen(method: str, route: str, status: int, seconds: float) -> None:
        app.state.server.dispatcher.metrics.see_request(method, route, status, seconds)

    app.add_middleware(Guard, settings=settings, tracing=tracing, seen=seen)
    _document(app)
    return app


def _workers(settings: ServerSettings) -> Workers:
    if settings.ray:
        from sfumato.server.cluster.ray_workers import RayWorkers

        return RayWorkers(settings)
    return LocalWorkers(settings)


def _document(app: FastAPI) -> None:
    """Have the OpenAPI document describe requests to draw and errors too, which are dictionaries here: those
    of jobs may be of an older version.
    """
    made = app.openapi

    def openapi() -> dict[str, Any]:
        document = made()
        schemas = document["components"]["schemas"]
        for name, model in (("DrawRequest", Request), ("ErrorBody", ErrorBody)):
            schema = model.model_json_schema(ref_template=_SCHEMAS + "{model}", by_alias=True)
            schemas |= {**schema.pop("$defs", {}), name: schema}
        drawn = {"$ref": _SCHEMAS + "DrawRequest"}
        asked = ("Submission", "UnstoredSubmission", "GridText", "GridSubmission")
        for name in (*asked, "JobView", "GridView"):
            schemas[name]["properties"]["request"] = drawn
        inspected = schemas["InspectionView"]["properties"]["request"]
        inspected["anyOf"] = [drawn, {"type": "null"}]
        return document

    app.openapi = openapi  # type: ignore[method-assign]
