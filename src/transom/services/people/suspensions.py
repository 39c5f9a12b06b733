"""Suspending, and lifting it: a person of the operator's decides, and whoever it touches gets a letter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection

from transom.access.people.persons import PersonCaller
from transom.access.programme import pausing
from transom.access.rights import suspensions
from transom.errors import Forbidden, TransomError
from transom.services.office import Office


@dataclass(frozen=True, slots=True)
class Told:
    """Who was told."""

    reached: tuple[str, ...]
    """People whose letter is on its way."""
    missed: tuple[str, ...]
    """People without an address, or whose letter could not be sent."""


async def suspend(office: Office, caller: PersonCaller, subject: str, reason: str) -> Told:
    """Refuse all requests of a key, a person or a project, everywhere within two seconds.

    It stands even if a letter cannot be sent. Applications of the person or the project wait meanwhile.

    Raises:
        Forbidden: the caller does not act for the operator.
        Suspended: they are suspended themselves.
        InvalidRequest, NotFound, Conflict: as `access.rights.suspensions.suspend`.
    """
    return await _act(office, caller, subject, reason, "suspended")


async def lift(office: Office, caller: PersonCaller, subject: str, reason: str) -> Told:
    """Undo a suspension; raises as `suspend` does."""
    return await _act(office, caller, subject, reason, "lifted")


async def _act(
    office: Office, caller: PersonCaller, subject: str, reason: str, what: Literal["suspended", "lifted"]
) -> Told:
    if not caller.operates:
        raise Forbidden("Only the operator suspends, or lifts a suspension.")
    now, act = office.now(), suspensions.suspend if what == "suspended" else suspensions.lift

    def write(connection: Connection) -> dict[str, str | None]:
        suspensions.refuse_suspended(connection, f"person:{caller.person_id}")
        affected = act(connection, subject, actor=caller.person_id, reason=reason, now=now)
        pausing.follow(connection, subject, actor=caller.person_id, party="operator", now=now)
        return {person: office.email_of(connection, person) for person in affected.person_ids}

    addresses = await office.database.write(write)
    office.keys.forget()
    sent = {
        person: await _send(office, address, subject, reason.strip(), what)
        for person, address in addresses.items()
    }
    return Told(
        reached=tuple(person for person, ok in sent.items() if ok),
        missed=tuple(person for person, ok in sent.items() if not ok),
    )


async def _send(office: Office, address: str | None, subject: str, reason: str, what: str) -> bool:
    if address is None:
        return False
    kind, _, name = subject.partition(":")
    title = f"Your {kind} was suspended" if what == "suspended" else f"Your {kind} is no longer suspended"
    text = (
        f"{title}: {name}\n\nThe reason that the operator gave:\n\n    {reason}\n\n"
        "This was decided by a person. It is noted in the trail, which you can read "
        "(`transom trail`, or GET /v1/trail). If you disagree, answer to the operator.\n"
    )
    try:
        await office.mailer.send(address, title, text)
    except (TransomError, OSError):
        return False
    return True
