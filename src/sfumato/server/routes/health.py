"""Whether the server is well, for those that watch it."""

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from sfumato.server.context import Shared
from sfumato.server.errors import error_response

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthy() -> dict[str, str]:
    """The server answers."""
    return {"status": "ok"}


@router.get("/readyz", response_class=PlainTextResponse)
async def ready(server: Shared) -> Response:
    """A worker can draw; 503 until then."""
    if server.dispatcher.ready:
        return PlainTextResponse("ready")
    return error_response(503, "the model is still loading", headers={"retry-after": "2"})


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(server: Shared) -> Response:
    """Figures for Prometheus."""
    text = server.dispatcher.metrics.exposition(server.store.counts(), server.dispatcher.ready)
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4")
