"""Errors as OpenAI's clients expect them, and nothing that was not meant to be told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from transom.errors import (
    Conflict,
    EngineError,
    EngineUnavailable,
    Forbidden,
    GenerationFailed,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    PolicyRefused,
    QuotaExceeded,
    QuotaUnavailable,
    RequestError,
    SignInUnavailable,
    TransomError,
    Unauthenticated,
)

log = structlog.get_logger()

_STATUS: dict[type[TransomError], int] = {
    Unauthenticated: 401,
    Forbidden: 403,
    PolicyRefused: 403,
    NotFound: 404,
    Conflict: 409,
    QuotaExceeded: 429,
    QuotaUnavailable: 503,
    SignInUnavailable: 503,
    PayloadTooLarge: 413,
    RequestError: 400,
    EngineUnavailable: 503,
    GenerationFailed: 500,
    EngineError: 500,
    TransomError: 500,
}

_STATUS_OF_REASON = {"unsupported_media_type": 415, "range_not_satisfiable": 416}

_TYPE = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    409: "conflict_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    416: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}


class ErrorDetail(BaseModel):
    """What went wrong, and how to mend it."""

    message: str
    type: str
    param: str | None = Field(description="The field at fault, as a path such as `messages.0.content`")
    code: str
    layer: str = Field(
        description="Which part of the server said no: api, access, quota, policy, engine, records"
    )


class ErrorBody(BaseModel):
    """Every error has this body."""

    error: ErrorDetail


def status_of(error: TransomError) -> int:
    """HTTP status of an error."""
    if isinstance(error, RequestError) and error.reason in _STATUS_OF_REASON:
        return _STATUS_OF_REASON[error.reason]
    return next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)


def body_of(error: TransomError) -> dict[str, Any]:
    """The body of an error, also as an event inside a stream."""
    return {
        "error": {
            "message": error.message,
            "type": _TYPE[status_of(error)],
            "param": error.param if isinstance(error, RequestError) else None,
            "code": error.reason if isinstance(error, RequestError) else error.code,
            "layer": error.layer,
        }
    }


def response_of(error: TransomError) -> Response:
    """The reply that an error becomes."""
    headers = {}
    retry_after = getattr(error, "retry_after", None)
    if retry_after is not None:
        headers["retry-after"] = str(retry_after)
    if isinstance(error, Unauthenticated):
        headers["www-authenticate"] = "Bearer"
    return _response(status_of(error), body_of(error), headers)


def from_validation(errors: Sequence[Any]) -> InvalidRequest:
    """The most specific of pydantic's findings, as one error that names the field."""
    worst = max(errors, key=lambda error: len(error["loc"]))
    context = worst.get("ctx") or {}
    path = [str(part) for part in worst["loc"] if not _is_union_tag(part)]
    path = path[1:] if path[:1] in (["body"], ["query"], ["path"]) else path
    param = ".".join([*path, str(context["field"])] if "field" in context else path)[:200] or None
    what, code = worst["msg"], InvalidRequest.code
    match worst["type"]:
        case "extra_forbidden":
            what, code = "is not a parameter of this endpoint; remove it", "unknown_parameter"
        case "missing":
            what, code = "is required", "missing_parameter"
        case "model_type" | "model_attributes_type":
            # Pydantic names our own class here, which says nothing to anybody.
            what = "must be a JSON object; send one with its fields by name, as in the API's reference"
        case "unsupported_parameter":
            code = "unsupported_parameter"
    subject = param or "The body"
    return InvalidRequest(f"{subject}: {what[:1].lower()}{what[1:300]}.", param=param, code=code)


def _is_union_tag(part: object) -> bool:
    """Pydantic names the member of a union that it tried; that is no part of the field's path."""
    return isinstance(part, str) and ("[" in part or part in {"str", "constrained-str"})


def answer_to(error: TransomError | ClientDisconnect) -> Response:
    """The reply to a request that ended in an error; what is our fault is logged."""
    if isinstance(error, ClientDisconnect):
        # Nobody reads this; 499 is what nginx logs when a client has gone.
        return Response(status_code=499)
    if status_of(error) == 500:
        log.error("request failed", code=error.code, message=error.message)
    return response_of(error)


def install(app: FastAPI) -> None:
    """Answer every error of `app` in one shape."""

    async def on_expected(_request: Request, error: Exception) -> Response:
        assert isinstance(error, TransomError | ClientDisconnect)  # noqa: S101  # registered for them
        return answer_to(error)

    async def on_validation_error(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        return response_of(from_validation(error.errors()))

    async def on_http_error(_request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
        detail = {
            "message": str(error.detail),
            "type": _TYPE.get(error.status_code, "invalid_request_error"),
            "param": None,
            "code": code,
            "layer": "api",
        }
        return _response(error.status_code, {"error": detail}, dict(error.headers or {}))

    async def on_surprise(_request: Request, error: Exception) -> Response:
        log.error("unexpected error", exc_info=error)
        return response_of(TransomError("The server met an error that it did not expect."))

    app.add_exception_handler(TransomError, on_expected)
    app.add_exception_handler(RequestValidationError, on_validation_error)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(ClientDisconnect, on_expected)
    app.add_exception_handler(Exception, on_surprise)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route, for the statuses that it can answer with beside 200."""
    return {
        status: {"model": ErrorBody, "description": _TYPE[status].replace("_", " ")} for status in statuses
    }


def _response(status: int, body: dict[str, Any], headers: dict[str, str]) -> Response:
    return Response(orjson.dumps(body), status, headers, media_type="application/json")
