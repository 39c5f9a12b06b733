"""What a person can do with their keys."""

from __future__ import annotations

from datetime import datetime, timedelta

from transom.access.keys import issuing
from transom.access.keys.issuing import NewKey, Wish
from transom.access.people.persons import PersonCaller
from transom.errors import Forbidden
from transom.schema.keys import KeyView, NewKeyBody, NewKeyView
from transom.services.office import Office


async def create(office: Office, caller: PersonCaller, body: NewKeyBody) -> NewKeyView:
    """A key of the caller's own in one of their projects; raises as `issuing.issue_for_member` does."""
    now, by, peppers = office.now(), caller.person_id, office.peppers.latest()
    wish = Wish(
        project_id=body.project,
        person_id=by,
        name=body.name,
        expires=None if body.days is None else now + timedelta(days=body.days),
        scopes=None if body.scopes is None else frozenset(body.scopes),
        quotas={} if body.quotas is None else dict(body.quotas.amounts()),
    )
    new = await office.database.write(
        lambda connection: issuing.issue_for_member(
            connection, peppers, wish, office.grant_scopes, by=by, now=now
        )
    )
    return _shown_once(new)


async def list_visible(office: Office, caller: PersonCaller, project_id: str | None) -> list[KeyView]:
    """The caller's keys; in a project where they may see them, all of its keys."""
    found = await office.database.read(
        lambda connection: issuing.visible(connection, caller.person_id, project_id)
    )
    return [KeyView.model_validate(info) for info in found]


async def rotate(office: Office, caller: PersonCaller, key_id: str, grace: timedelta) -> NewKeyView:
    """A new key in the place of an old one, which works until `grace` is over."""
    now, by, peppers = office.now(), caller.person_id, office.peppers.latest()
    new = await office.database.write(
        lambda connection: issuing.rotate(connection, peppers, key_id, grace, by=by, now=now)
    )
    office.keys.forget()
    return _shown_once(new)


async def revoke(office: Office, caller: PersonCaller, key_id: str) -> KeyView:
    """Refuse a key from now on: here at once, everywhere within two seconds."""
    now, by = office.now(), caller.person_id
    info = await office.database.write(
        lambda connection: issuing.revoke_as_member(connection, key_id, by=by, now=now)
    )
    office.keys.forget()
    return KeyView.model_validate(info)


async def create_local(office: Office, caller: PersonCaller, name: str, expires: datetime | None) -> NewKey:
    """A key of the operator's own project, with every scope and no limits; it is in the trail.

    Raises:
        Forbidden: the caller does not act for the operator.
    """
    _require_operator(caller)
    now, peppers = office.now(), office.peppers.latest()
    wish = Wish(name=name, expires=expires)
    return await office.database.write(
        lambda connection: issuing.issue_as_operator(connection, peppers, wish, by=caller.person_id, now=now)
    )


async def revoke_as_operator(office: Office, caller: PersonCaller, key_id: str) -> KeyView:
    """Refuse a key of any project from now on; it is in the trail.

    Raises:
        Forbidden: the caller does not act for the operator.
        NotFound: there is no such key.
    """
    _require_operator(caller)
    now = office.now()
    info = await office.database.write(
        lambda connection: issuing.revoke_as_operator(connection, key_id, by=caller.person_id, now=now)
    )
    office.keys.forget()
    return KeyView.model_validate(info)


def _require_operator(caller: PersonCaller) -> None:
    if not caller.operates:
        raise Forbidden("Only the operator makes keys of the local project, and revokes those of others.")


def _shown_once(new: NewKey) -> NewKeyView:
    return NewKeyView(**KeyView.model_validate(new.info).model_dump(), key=new.text)
