"""Requests about projects, keys and rights, as data; they travel with a session, and not with a key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from transom.client.operations import Operation
from transom.schema.keys import KeyList, KeyView, NewKeyView
from transom.schema.projects import (
    Deleted,
    InvitationList,
    InvitationView,
    MemberList,
    ProjectList,
    ProjectView,
    TrailPage,
)
from transom.schema.terms import AcceptanceView, Standing, TermsList, TermsView


def create_project(fields: Mapping[str, Any]) -> Operation[ProjectView]:
    """`POST /v1/projects`."""
    return Operation("POST", "/v1/projects", ProjectView.model_validate_json, _given(fields))


def projects() -> Operation[ProjectList]:
    """`GET /v1/projects`."""
    return Operation("GET", "/v1/projects", ProjectList.model_validate_json)


def project(project_id: str) -> Operation[ProjectView]:
    """`GET /v1/projects/{id}`."""
    return Operation("GET", _project(project_id), ProjectView.model_validate_json)


def change_project(project_id: str, fields: Mapping[str, Any]) -> Operation[ProjectView]:
    """`PATCH /v1/projects/{id}`."""
    return Operation("PATCH", _project(project_id), ProjectView.model_validate_json, _given(fields))


def delete_project(project_id: str, confirm: str) -> Operation[Deleted]:
    """`DELETE /v1/projects/{id}`."""
    return Operation("DELETE", _project(project_id), Deleted.model_validate_json, params={"confirm": confirm})


def export_project(project_id: str) -> Operation[str]:
    """`GET /v1/projects/{id}/export`."""
    return Operation("GET", _project(project_id, "export"), bytes.decode)


def members(project_id: str) -> Operation[MemberList]:
    """`GET /v1/projects/{id}/members`."""
    return Operation("GET", _project(project_id, "members"), MemberList.model_validate_json)


def change_role(project_id: str, person_id: str, role: str) -> Operation[MemberList]:
    """`PUT /v1/projects/{id}/members/{person_id}`."""
    path = _project(project_id, "members", person_id)
    return Operation("PUT", path, MemberList.model_validate_json, {"role": role})


def remove_member(project_id: str, person_id: str) -> Operation[None]:
    """`DELETE /v1/projects/{id}/members/{person_id}`."""
    return Operation("DELETE", _project(project_id, "members", person_id), _nothing)


def transfer_project(project_id: str, person_id: str) -> Operation[ProjectView]:
    """`POST /v1/projects/{id}/transfer`."""
    body = {"person_id": person_id}
    return Operation("POST", _project(project_id, "transfer"), ProjectView.model_validate_json, body)


def invite(project_id: str, email: str, role: str) -> Operation[InvitationView]:
    """`POST /v1/projects/{id}/invitations`."""
    body = {"email": email, "role": role}
    return Operation("POST", _project(project_id, "invitations"), InvitationView.model_validate_json, body)


def invitations(project_id: str) -> Operation[InvitationList]:
    """`GET /v1/projects/{id}/invitations`."""
    return Operation("GET", _project(project_id, "invitations"), InvitationList.model_validate_json)


def revoke_invitation(project_id: str, invitation_id: str) -> Operation[None]:
    """`DELETE /v1/projects/{id}/invitations/{invitation}`."""
    return Operation("DELETE", _project(project_id, "invitations", invitation_id), _nothing)


def accept_invitation(secret: str) -> Operation[ProjectView]:
    """`POST /v1/invitations/accept`."""
    body = {"invitation": secret}
    return Operation("POST", "/v1/invitations/accept", ProjectView.model_validate_json, body)


def decline_invitation(secret: str) -> Operation[None]:
    """`POST /v1/invitations/decline`."""
    return Operation("POST", "/v1/invitations/decline", _nothing, {"invitation": secret})


def create_key(fields: Mapping[str, Any]) -> Operation[NewKeyView]:
    """`POST /v1/keys`."""
    return Operation("POST", "/v1/keys", NewKeyView.model_validate_json, _given(fields))


def keys(project_id: str | None) -> Operation[KeyList]:
    """`GET /v1/keys`."""
    params = None if project_id is None else {"project": project_id}
    return Operation("GET", "/v1/keys", KeyList.model_validate_json, params=params)


def rotate_key(key_id: str, grace_seconds: int) -> Operation[NewKeyView]:
    """`POST /v1/keys/{id}/rotate`."""
    body = {"grace_seconds": grace_seconds}
    return Operation("POST", _path("keys", key_id, "rotate"), NewKeyView.model_validate_json, body)


def revoke_key(key_id: str) -> Operation[KeyView]:
    """`DELETE /v1/keys/{id}`."""
    return Operation("DELETE", _path("keys", key_id), KeyView.model_validate_json)


def terms() -> Operation[TermsList]:
    """`GET /v1/terms`."""
    return Operation("GET", "/v1/terms", TermsList.model_validate_json)


def terms_version(version: str) -> Operation[TermsView]:
    """`GET /v1/terms/{version}`."""
    return Operation("GET", _path("terms", version), TermsView.model_validate_json)


def standing() -> Operation[Standing]:
    """`GET /v1/terms/standing`."""
    return Operation("GET", "/v1/terms/standing", Standing.model_validate_json)


def accept_terms(version: str) -> Operation[AcceptanceView]:
    """`POST /v1/terms/{version}/accept`."""
    return Operation("POST", _path("terms", version, "accept"), AcceptanceView.model_validate_json)


def trail(before: int | None, limit: int) -> Operation[TrailPage]:
    """`GET /v1/trail`."""
    params = _given({"before": before, "limit": limit})
    return Operation("GET", "/v1/trail", TrailPage.model_validate_json, params=params)


def _project(project_id: str, *more: str) -> str:
    return _path("projects", project_id, *more)


def _path(*parts: str) -> str:
    # A part of dots alone would lead to another path; with a percent sign it leads to none.
    quoted = (quote(part, safe="") if part.strip(".") else "%2E" for part in parts)
    return "/v1/" + "/".join(quoted)


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _nothing(_data: bytes) -> None:
    return None
