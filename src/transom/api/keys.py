"""`/v1/keys`: one's own keys, and those of a project that one leads."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Response

from transom.api.body import PersonRoute
from transom.api.dependencies import KeyId, TheOffice, ThePerson
from transom.api.errors import documented
from transom.schema.keys import KeyList, KeyView, NewKeyBody, NewKeyView, Rotation
from transom.schema.projects import Id
from transom.services.people import keys

router = APIRouter(prefix="/keys", tags=["Keys"], route_class=PersonRoute)

_ACT = documented(400, 401, 403, 404, 409, 413, 415)


@router.post("", status_code=201, responses=_ACT)
async def create_key(
    body: NewKeyBody, office: TheOffice, person: ThePerson, response: Response
) -> NewKeyView:
    """Make a key of your own; its text is in this reply and nowhere else."""
    response.headers["cache-control"] = "no-store"
    return await keys.create(office, person, body)


@router.get("", responses=documented(400, 401, 404))
async def list_keys(
    office: TheOffice,
    person: ThePerson,
    project: Annotated[
        Id | None, Query(description="Only this project's; all of them, if you lead it")
    ] = None,
) -> KeyList:
    """Your keys, those that have ended too."""
    return KeyList(data=tuple(await keys.list_visible(office, person, project)))


@router.post("/{id}/rotate", status_code=201, responses=_ACT)
async def rotate_key(
    key_id: KeyId, body: Rotation, office: TheOffice, person: ThePerson, response: Response
) -> NewKeyView:
    """A new key in the place of an old one, which goes on working for a while."""
    response.headers["cache-control"] = "no-store"
    return await keys.rotate(office, person, key_id, timedelta(seconds=body.grace_seconds))


@router.delete("/{id}", responses=documented(400, 401, 403, 404))
async def revoke_key(key_id: KeyId, office: TheOffice, person: ThePerson) -> KeyView:
    """Refuse a key from now on, everywhere within two seconds."""
    return await keys.revoke(office, person, key_id)
