"""What goes wrong on the way, as exceptions of the one tree in `transom.errors`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from transom.errors import (
    Conflict,
    EngineBusy,
    EngineError,
    EngineUnavailable,
    Forbidden,
    GenerationFailed,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    RequestError,
    TransomError,
    Unauthenticated,
    UnsupportedParameter,
)

RETRY_AFTER = 5
"""Seconds to wait where the server did not say."""

_BY_STATUS: dict[int, type[RequestError]] = {
    400: InvalidRequest,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: PayloadTooLarge,
    422: InvalidRequest,
}

_STATUS_OF_TYPE = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "server_error": 500,
}
"""Inside a stream the status is spent, and the error's type stands in for it."""


class ServerUnreachable(TransomError):
    """No answer, or only part of one; the message says what to check."""

    code = "server_unreachable"


class UnexpectedReply(TransomError):
    """Something answered, and not as a Transom server does."""

    code = "unexpected_reply"


class RateLimited(RequestError):
    """Too much for now; the same request may pass after `retry_after` seconds."""

    code = "rate_limited"

    def __init__(self, message: str, *, retry_after: int = RETRY_AFTER, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after


@contextmanager
def reaching(base_url: str) -> Iterator[None]:
    """Turn what the network does to us into `ServerUnreachable`."""
    try:
        yield
    except httpx2.SSEError as error:
        raise UnexpectedReply(f"{base_url} did not answer with a stream of events: {error}") from error
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
        raise ServerUnreachable(
            f"Nothing answers at {base_url}. Check that the server runs, and the address in TRANSOM_BASE_URL."
        ) from error
    except httpx2.TimeoutException as error:
        raise ServerUnreachable(
            f"{base_url} took longer than this client waits. Ask for less, or give the client more time."
        ) from error
    except httpx2.InvalidURL as error:
        raise UnexpectedReply(f"{base_url} cannot be asked for that: {error}.") from error
    except httpx2.HTTPError as error:
        raise ServerUnreachable(
            f"The connection to {base_url} broke ({str(error) or type(error).__name__}). "
            "Check that the server still runs; what it finished is among your records."
        ) from error


def cut_short(base_url: str) -> ServerUnreachable:
    """A stream that ended without saying so."""
    return ServerUnreachable(
        f"The stream from {base_url} was cut short. Check that the server still runs; "
        "what it finished is among your records."
    )


def of_response(response: httpx2.Response) -> TransomError:
    """The exception that a refused request becomes. The response has been read."""
    detail = _detail(response.content)
    if detail is None:
        return UnexpectedReply(
            f"{response.url} answered {response.status_code} {response.reason_phrase}, "
            "and not as a Transom server does. Check the address."
        )
    error = _error(response.status_code, detail, response.headers.get("retry-after"))
    record = response.headers.get("x-transom-record")
    if record:
        error.add_note(f"It is on record as {record}.")
    return error


def of_event(data: str) -> TransomError:
    """The exception that an error inside a stream becomes."""
    detail = _detail(data)
    if detail is None:
        return UnexpectedReply(
            "The stream broke off with an error that is not spelled as a Transom server does."
        )
    return _error(_STATUS_OF_TYPE.get(str(detail.get("type")), 500), detail, None)


def _detail(data: str | bytes) -> dict[str, Any] | None:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return None
    detail = body.get("error") if isinstance(body, dict) else None
    return detail if isinstance(detail, dict) and isinstance(detail.get("message"), str) else None


def _error(status: int, detail: dict[str, Any], retry_after: str | None) -> TransomError:
    message: str = detail["message"]
    named = (detail.get("code"), detail.get("param"))
    code, param = (each if isinstance(each, str) else None for each in named)
    if status == 503 or code in {EngineUnavailable.code, EngineBusy.code}:
        unavailable = EngineBusy if code == EngineBusy.code else EngineUnavailable
        return unavailable(message, retry_after=_seconds(retry_after))
    if status == 429:
        return RateLimited(message, retry_after=_seconds(retry_after), code=code)
    if status < 500:
        kind = (
            UnsupportedParameter
            if code == UnsupportedParameter.code
            else _BY_STATUS.get(status, RequestError)
        )
        return kind(message, param=param, code=code)
    if code == GenerationFailed.code:
        return GenerationFailed(message)
    return EngineError(message) if detail.get("layer") == "engine" else TransomError(message)


def _seconds(retry_after: str | None) -> int:
    return int(retry_after) if retry_after is not None and retry_after.isdecimal() else RETRY_AFTER
