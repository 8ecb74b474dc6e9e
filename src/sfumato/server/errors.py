"""One shape for every error, that of OpenAI's APIs: `{"error": {"message", "type", "param", "code"}}`."""

import logging
import re
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from sfumato.errors import OutputError, SfumatoError
from sfumato.request import Request as DrawRequest
from sfumato.server.error_codes import coded
from sfumato.server.store import UNAVAILABLE
from sfumato.server.store.quota import BusyError
from sfumato.validation import described_fault

log = logging.getLogger("sfumato.server")

BUSY_SECONDS = 5
"""After which a client may try again where the server cannot do something now."""
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
}


_PARAMS = {*DrawRequest.model_fields, "n", "size", "background", "output_format"}


class ErrorDetail(BaseModel):
    """What was wrong: `param` names the field, where one is at fault, `code` what it is, for programs."""

    message: str
    type: str
    param: str | None
    code: str | None
    values: dict[str, str] | None = Field(None, description="What the message names, by its code.")


class ErrorBody(BaseModel):
    """The answer of every error."""

    error: ErrorDetail


def _documented(description: str) -> dict[str, Any]:
    # not "model", which would have the type of the route's good answers
    schema = {"$ref": "#/components/schemas/ErrorBody"}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


RESPONSES: dict[int | str, dict[str, Any]] = {
    422: _documented("A value of the wrong type or out of range."),
    "4XX": _documented("The request is at fault, or comes at the wrong time."),
    503: _documented("Not now: Retry-After says when to try again."),
}
"""The errors of every route, for the OpenAPI document."""


def error_body(status: int, text: str, param: str | None = None) -> dict[str, Any]:
    """The JSON of an error."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    code, values = coded(text) or (None, None)
    named = {} if values is None else {"values": values}
    return {"error": {"message": text, "type": kind, "param": param, "code": code, **named}}


def _param(text: str) -> str | None:
    """The field that an error's text begins with."""
    name = re.match(r"(?:unknown \w+ ')?(\w+)", text)
    if name is None:
        return None
    return name[1] if name[1] in _PARAMS or text.startswith("unknown parameter") else None


def error_response(
    status: int, text: str, param: str | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    """An error as an answer."""
    return JSONResponse(error_body(status, text, param), status, headers)


def _facts(request: Request) -> dict[str, Any]:
    """What the log says of a request besides."""
    return {"facts": {"request": request.state.request_id}}


def handle_errors(app: FastAPI) -> None:
    """Have every error of `app` answered in this shape."""

    @app.exception_handler(SfumatoError)
    async def told(request: Request, error: SfumatoError) -> JSONResponse:
        if isinstance(error, BusyError):
            return error_response(429, str(error), headers={"retry-after": str(error.seconds)})
        if isinstance(error, OutputError):
            log.error("%s", error, extra=_facts(request))
            # the path is the server's own affair
            text = f"the server cannot keep the picture now: {str(error).rpartition(': ')[2]}"
            return error_response(503, text, headers={"retry-after": str(BUSY_SECONDS)})
        return error_response(400, str(error), _param(str(error)))

    async def unavailable(request: Request, error: Exception) -> JSONResponse:
        cause = getattr(error, "orig", None) or error
        log.error("the database cannot be used: %s", cause, extra=_facts(request))
        text = f"the database cannot be used now: {cause}"
        return error_response(503, text, headers={"retry-after": str(BUSY_SECONDS)})

    for kind in UNAVAILABLE:
        app.add_exception_handler(kind, unavailable)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> JSONResponse:
        return error_response(499, "the client went away")  # for the log: nobody reads it

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> JSONResponse:
        log.error("the request failed", exc_info=error, extra=_facts(request))
        return error_response(500, f"internal error: see the server's log, {request.state.request_id}")

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        # OpenAI's APIs answer so, and their clients tell the two apart
        status = 400 if request.url.path.startswith("/v1/") else 422
        if first["type"] == "json_invalid":
            return error_response(status, f"the body is no JSON: {first['ctx']['error']}")
        place = first["loc"][1:]
        fault: Any = {**first, "loc": place or ("body",)}
        return error_response(status, described_fault([fault], {}), ".".join(map(str, place)) or None)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers) if error.headers else None
        return error_response(error.status_code, str(error.detail), headers=headers)
