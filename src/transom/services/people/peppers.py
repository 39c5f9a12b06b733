"""Changing the peppers, under a server that runs."""

from __future__ import annotations

from sqlalchemy import Connection

from transom.access.credentials.peppers import PepperFile
from transom.access.keys import issuing
from transom.access.people.persons import PersonCaller
from transom.access.projects import invitations
from transom.access.rights import trail
from transom.access.rights.trail import Entry
from transom.errors import ConfigurationError
from transom.services.office import Office


async def rotate(office: Office, caller: PersonCaller, file: PepperFile) -> int:
    """Make a fresh pepper, for keys from now on; those that exist keep theirs. Its version."""
    peppers = file.latest().rotated()
    file.replace(peppers)
    await _note(office, caller, "pepper.rotate", peppers.current)
    return peppers.current


async def retire(office: Office, caller: PersonCaller, file: PepperFile, version: int) -> None:
    """Forget an old pepper, with which nothing that still works was hashed.

    Raises:
        ConfigurationError: something still needs it, it is the current one, or there is none of that number.
    """
    rest, now = file.latest().without(version), office.now()

    def read(connection: Connection) -> tuple[int, int]:
        return (
            issuing.count_living(connection, version, now),
            invitations.count_open(connection, version, now),
        )

    key_count, invitation_count = await office.database.read(read)
    if key_count or invitation_count:
        raise ConfigurationError(
            f"Pepper {version} is still needed by {key_count} keys and {invitation_count} invitations: "
            "rotate or revoke them first."
        )
    file.replace(rest)
    await _note(office, caller, "pepper.retire", version)


async def _note(office: Office, caller: PersonCaller, action: str, version: int) -> None:
    entry = Entry(at=office.now(), actor=caller.person_id, action=action, subject=str(version))
    await office.database.write(lambda connection: trail.note(connection, entry))
