"""What a researcher can always do with their data, and the one way in which an operator reads it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
from sqlalchemy import Connection

from transom.access.keys import issuing
from transom.access.people.persons import PersonCaller
from transom.access.programme import pausing
from transom.access.programme.forgetting import forget_texts
from transom.access.projects import deletion, projects
from transom.access.projects.projects import noted, require
from transom.access.projects.roles import Act
from transom.access.rights import export, trail
from transom.access.rights.suspensions import checked_reason
from transom.access.rights.trail import Entry, Noted
from transom.errors import Forbidden
from transom.records.store import owner_of
from transom.schema.projects import Deleted, TrailEntry, TrailPage
from transom.schema.record import RecordView, rfc3339
from transom.services.office import Office

_BATCH = 50
"""Records that are in memory at once."""


async def read_trail(office: Office, caller: PersonCaller, before: int | None, limit: int) -> TrailPage:
    """The entries about the caller and their projects, newest first."""

    def read(connection: Connection) -> list[Noted]:
        own = tuple(project.id for project in projects.list_of(connection, caller.person_id))
        return trail.entries(
            connection, project_ids=own, person_id=caller.person_id, before=before, limit=limit + 1
        )

    found = await office.database.read(read)
    data = tuple(_entry(noted) for noted in found[:limit])
    return TrailPage(data=data, before=data[-1].number if len(found) > limit else None)


async def export_project(office: Office, caller: PersonCaller, project_id: str) -> AsyncIterator[bytes]:
    """All that is kept of a project, as lines of JSON that come as they are read; it is noted in the trail.

    Raises:
        NotFound, Forbidden: as `access.projects.projects.require`; before the first line.
    """
    by, now = caller.person_id, office.now()

    def write(connection: Connection) -> list[dict[str, Any]]:
        require(connection, project_id, Act.EXPORT, by=by)
        noted(connection, Act.EXPORT, project_id, by=by, now=now)
        return list(export.project_lines(connection, project_id))

    return _lines(office, project_id, await office.database.write(write))


async def delete_project(office: Office, caller: PersonCaller, project_id: str, confirm: str) -> Deleted:
    """Delete a project: its keys are refused, and prompts, answers, artifacts, texts and members are gone.

    What it applies for is withdrawn, and what its people wrote to apply is gone too. The statements of its
    records stay, without prompts and answers, and so does what the trail says: the record of what was done
    keeps no gap. A deletion that is cut off is taken up when asked for again.

    Raises:
        InvalidRequest: `confirm` is not the project's name.
        NotFound, Forbidden, Suspended: as `access.projects.projects.require`.
        StorageError: it could not be finished.
    """
    by, now = caller.person_id, office.now()

    def begin(connection: Connection) -> None:
        deletion.begin(connection, project_id, confirm, by=by, now=now)
        pausing.withdraw_all(connection, project_id, by=by, now=now)
        forget_texts(connection, project_id)

    await office.database.write(begin)
    office.keys.forget()
    # Everything else is gone from the database before the openings: their shredding scrubs it out of the
    # files, and destroys the keys of the artifacts too.
    artifacts = await office.artifacts.shred(project_id)
    openings = await office.records.shred(project_id)
    await office.database.write(lambda connection: deletion.finish(connection, project_id))
    return Deleted(id=project_id, openings=openings, artifacts=artifacts)


async def read_record(office: Office, caller: PersonCaller, record_id: str, reason: str) -> RecordView:
    """A record with its openings, for an operator: the only function that shows one to who is no member.

    That it was read, by whom and why, is in the trail before anything is shown, and the researcher reads it
    there.

    Raises:
        Forbidden: the caller does not act for the operator.
        InvalidRequest: there is no reason.
        NotFound: there is no such record.
    """
    if not caller.operates:
        raise Forbidden("Only the operator reads records of others, with a reason that they can read.")
    said, now = checked_reason(reason), office.now()

    def write(connection: Connection) -> str:
        project_id, key_id = owner_of(connection, record_id)
        entry = Entry(
            at=now,
            actor=caller.person_id,
            action="record.read",
            subject=record_id,
            project_id=project_id,
            person_id=None if key_id is None else issuing.get(connection, key_id).person_id,
            reason=said,
        )
        trail.note(connection, entry)
        return project_id

    project_id = await office.database.write(write)
    return (await office.records.get(record_id, project_id)).view()


async def _lines(office: Office, project_id: str, first: list[dict[str, Any]]) -> AsyncIterator[bytes]:
    for line in first:
        yield orjson.dumps(line) + b"\n"
    last = 0
    while batch := await office.records.batch(project_id, last, _BATCH):
        for record in batch:
            yield orjson.dumps({"kind": "record", **record.view().model_dump(mode="json")}) + b"\n"
        last = batch[-1].sequence
    after: str | None = None
    while True:
        page = await office.artifacts.page(project_id, after)
        for artifact in page.data:
            yield orjson.dumps({"kind": "artifact", **artifact.model_dump(mode="json")}) + b"\n"
        after = page.after
        if after is None:
            return


def _entry(noted: Noted) -> TrailEntry:
    entry = noted.entry
    return TrailEntry(
        number=noted.number,
        at=rfc3339(entry.at),
        actor=entry.actor,
        action=entry.action,
        subject=entry.subject,
        project_id=entry.project_id,
        person_id=entry.person_id,
        reason=entry.reason,
        details=entry.details,
        digest=noted.digest,
    )
