"""`/openapi.json`: FastAPI's description, made true."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

_EVENT: dict[str, Any] = {
    "description": "One event; `data` is JSON, or `[DONE]` at the end. An error has `event: error`.",
    "type": "object",
    "required": ["data"],
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
}

ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer; with `stream`, its parts as server-sent events",
        "headers": {
            "x-transom-record": {
                "description": "Id of the answer's record",
                "required": True,
                "schema": {"type": "string"},
            }
        },
        "content": {
            "application/json": {"schema": {"type": "object", "required": ["id", "object", "choices"]}},
            "text/event-stream": {"schema": _EVENT},
        },
    }
}
"""The `responses` of a route that generates."""


def a_file(media_type: str, about: str) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that answers with something that is not JSON of a model of ours.

    Args:
        media_type: of the answer; errors are JSON all the same.
        about: what it is.
    """
    kind = "object" if media_type == "application/json" else "string"
    return {200: {"description": about, "content": {media_type: {"schema": {"type": kind}}}}}


def install(app: FastAPI) -> None:
    """Take the status 422 out of `app`'s description: a wrong field is answered with 400."""
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        schema = describe()
        for operation in (each for path in schema["paths"].values() for each in path.values()):
            operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            schema.get("components", {}).get("schemas", {}).pop(name, None)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's manual has it
