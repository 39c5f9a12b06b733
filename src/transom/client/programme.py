"""The requests of people and not of keys: applications and grants. Carried out by a client with a session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import quote

from transom.client.operations import Operation
from transom.errors import InvalidRequest
from transom.schema.applications import ApplicationPage, ApplicationView
from transom.schema.grants import GrantPage, GrantView
from transom.schema.programme import ProgrammeStatistics, ProgrammeView

Act = Literal["submit", "withdraw", "start-review", "ask-changes", "approve", "decline", "appeal", "comment"]


def programme() -> Operation[ProgrammeView]:
    """`GET /v1/programme`."""
    return Operation("GET", "/v1/programme", ProgrammeView.model_validate_json)


def statistics() -> Operation[ProgrammeStatistics]:
    """`GET /v1/programme/statistics`."""
    return Operation("GET", "/v1/programme/statistics", ProgrammeStatistics.model_validate_json)


def create(body: Mapping[str, Any]) -> Operation[ApplicationView]:
    """`POST /v1/applications`."""
    return Operation("POST", "/v1/applications", ApplicationView.model_validate_json, body)


def applications(after: str | None, limit: int) -> Operation[ApplicationPage]:
    """`GET /v1/applications`."""
    params: dict[str, str | int] = {"limit": limit} if after is None else {"limit": limit, "after": after}
    return Operation("GET", "/v1/applications", ApplicationPage.model_validate_json, params=params)


def application(application_id: str) -> Operation[ApplicationView]:
    """`GET /v1/applications/{id}`."""
    return Operation("GET", _application(application_id), ApplicationView.model_validate_json)


def change(application_id: str, body: Mapping[str, Any]) -> Operation[ApplicationView]:
    """`PATCH /v1/applications/{id}`."""
    return Operation("PATCH", _application(application_id), ApplicationView.model_validate_json, body)


def act(application_id: str, what: Act, body: Mapping[str, Any]) -> Operation[ApplicationView]:
    """`POST /v1/applications/{id}/…`."""
    return Operation(
        "POST", f"{_application(application_id)}/{what}", ApplicationView.model_validate_json, body
    )


def grants(project: str | None) -> Operation[GrantPage]:
    """`GET /v1/grants`."""
    params = None if project is None else {"project": project}
    return Operation("GET", "/v1/grants", GrantPage.model_validate_json, params=params)


def grant(grant_id: str) -> Operation[GrantView]:
    """`GET /v1/grants/{id}`."""
    return Operation("GET", _grant(grant_id), GrantView.model_validate_json)


def progress(grant_id: str, report: str) -> Operation[GrantView]:
    """`POST /v1/grants/{id}/progress`."""
    return Operation(
        "POST", f"{_grant(grant_id)}/progress", GrantView.model_validate_json, {"report": report}
    )


def _application(application_id: str) -> str:
    return f"/v1/applications/{_part(application_id, 'app_')}"


def _grant(grant_id: str) -> str:
    return f"/v1/grants/{_part(grant_id, 'grt_')}"


def _part(name: str, prefix: str) -> str:
    """An id as one part of a path."""
    if not name.startswith(prefix):
        raise InvalidRequest(f"{name!r} is no id of this kind; they begin with {prefix}.", param="id")
    return quote(name, safe="")
