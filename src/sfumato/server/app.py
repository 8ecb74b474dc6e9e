"""The web application: routes, guard and errors around one server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, get_args

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from sfumato.metadata import Record
from sfumato.request import Request
from sfumato.server.context import Server
from sfumato.server.dispatcher import Dispatcher
from sfumato.server.errors import RESPONSES, ErrorBody, handle_errors
from sfumato.server.events import Events
from sfumato.server.jobs import Event, EventData
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
    teachings,
)
from sfumato.server.security import Guard
from sfumato.server.settings import ServerSettings
from sfumato.server.store import GroupStore
from sfumato.server.teaching_worker import TeachingWorker
from sfumato.server.tracing import Tracing
from sfumato.server.workers import Workers
from sfumato.version import __version__

ROUTERS = (
    jobs.router,
    grids.router,
    pictures.router,
    library.router,
    reading.router,
    teachings.router,
    health.router,
    page.router,
    openai.router,
    a1111.router,
    a1111_lists.router,
    a1111_lists.controlnet,
)
_SCHEMAS = "#/components/schemas/"
_EVENT = {
    "type": "object",
    "properties": {
        "event": {"type": "string", "enum": list(get_args(Event.model_fields["kind"].annotation))},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": _SCHEMAS + "EventData"},
        },
    },
    "required": ["event", "data"],
}
"""A server-sent event, as OpenAPI describes one."""


def application(settings: ServerSettings) -> FastAPI:
    """The ASGI application of a server; its workers start and stop with it."""

    tracing = Tracing()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        store, events = GroupStore(settings.data, settings.database), Events()
        teacher = TeachingWorker(settings) if settings.max_teach_steps else None
        dispatcher = Dispatcher(store, events, settings, _workers(settings), teacher)
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
    """Have the OpenAPI document describe also what are dictionaries here: requests to draw and records, which
    may be of an older version, errors, and the data of events.
    """
    made = app.openapi

    def openapi() -> dict[str, Any]:
        document = made()
        schemas = document["components"]["schemas"]
        models: dict[str, type[BaseModel]] = {
            "DrawRequest": Request,
            "ErrorBody": ErrorBody,
            "Record": Record,
            "EventData": EventData,
        }
        for name, model in models.items():
            schema = model.model_json_schema(ref_template=_SCHEMAS + "{model}", by_alias=True)
            schemas |= {**schema.pop("$defs", {}), name: schema}
        drawn, record = ({"$ref": _SCHEMAS + name} for name in ("DrawRequest", "Record"))
        asked = ("Submission", "UnstoredSubmission", "GridText", "GridSubmission")
        for name in (*asked, "JobView", "GridView"):
            schemas[name]["properties"]["request"] = drawn
        schemas["Record"]["properties"]["request"] = drawn
        inspected = schemas["InspectionView"]["properties"]
        inspected["request"]["anyOf"] = [drawn, {"type": "null"}]
        inspected["record"]["anyOf"] = [record, {"type": "null"}]
        for path, methods in document["paths"].items():
            for operation in methods.values():
                content = operation["responses"].get("200", {}).get("content", {})
                if path.endswith("/record"):
                    content["application/json"]["schema"] = record
                if "text/event-stream" in content:
                    content["text/event-stream"]["itemSchema"] = _EVENT
        return document

    app.openapi = openapi  # type: ignore[method-assign]
