"""Terms and policies: versioned texts, and who accepted which.

A new version of a kind takes the place of the one before. Until a person has accepted every version in force,
their keys read what they asked before, and ask nothing new. Where nothing is published, nothing is asked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, ScalarSelect, func, insert, select, update

from transom.access.rights.trail import Entry, note
from transom.errors import Conflict, InvalidRequest, NotFound
from transom.schema.canonical import sha256
from transom.storage.tables import acceptances, terms

_KIND = re.compile(r"[a-z][a-z-]{0,15}")
MAX_TEXT = 200_000
"""Characters of a text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """One version of one text."""

    version: str
    """Kind and number, such as `privacy-2`."""
    kind: str
    text: str
    digest: str
    """SHA-256 of the text in UTF-8."""
    published: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """That a person accepted a version."""

    version: str
    digest: str
    accepted: datetime


def publish(connection: Connection, kind: str, text: str, *, actor: str, now: datetime) -> Terms:
    """Put a text in force, in the place of the version before.

    Raises:
        InvalidRequest: the kind is no short word, or the text is empty or far too long.
        Conflict: it is the text that is in force.
    """
    _check(kind, text)
    digest = sha256(text.encode())
    latest = connection.execute(
        select(terms.c.number, terms.c.digest).where(terms.c.kind == kind).order_by(terms.c.number.desc())
    ).first()
    if latest is not None and latest.digest == digest:
        raise Conflict(f"This is the text of {kind}-{latest.number}, which is in force.")
    number = 1 if latest is None else latest.number + 1
    version = f"{kind}-{number}"
    before = update(terms).where(terms.c.kind == kind, terms.c.superseded.is_(None))
    connection.execute(before.values(superseded=now))
    row = {"version": version, "kind": kind, "number": number, "text": text, "digest": digest}
    connection.execute(insert(terms).values(row | {"actor": actor, "published": now}))
    entry = Entry(at=now, actor=actor, action="terms.publish", subject=version, details={"digest": digest})
    note(connection, entry)
    return get(connection, version)


def in_force(connection: Connection) -> list[Terms]:
    """The versions that are asked for, by kind."""
    query = select(terms).where(terms.c.superseded.is_(None)).order_by(terms.c.kind)
    return [_terms(row) for row in connection.execute(query)]


def get(connection: Connection, version: str) -> Terms:
    """One version, in force or not.

    Raises:
        NotFound: there is none.
    """
    row = connection.execute(select(terms).where(terms.c.version == version)).one_or_none()
    if row is None:
        raise NotFound(f"There are no terms {version[:40]!r}.", param="version")
    return _terms(row)


def accept(connection: Connection, person_id: str, version: str, *, now: datetime) -> Acceptance:
    """Note that a person accepts a version. A second time changes nothing.

    Raises:
        NotFound: there is no such version.
        Conflict: another version is in force.
    """
    text = get(connection, version)
    known = {each.version: each for each in accepted(connection, person_id)}
    if version in known:
        return known[version]
    current = {each.version for each in in_force(connection) if each.kind == text.kind}
    if version not in current:
        raise Conflict(f"{version} is not in force any more; read and accept {', '.join(current)}.")
    acceptance = Acceptance(version=version, digest=text.digest, accepted=now)
    row = {"person_id": person_id, "version": version, "digest": text.digest, "accepted": now}
    connection.execute(insert(acceptances).values(row))
    return acceptance


def accepted(connection: Connection, person_id: str) -> list[Acceptance]:
    """What a person has accepted, oldest first, versions that are not in force any more too."""
    query = select(acceptances).where(acceptances.c.person_id == person_id)
    rows = connection.execute(query.order_by(acceptances.c.accepted, acceptances.c.version))
    return [Acceptance(version=row.version, digest=row.digest, accepted=row.accepted) for row in rows]


def first_unaccepted(person_id: ColumnElement[Any]) -> ScalarSelect[Any]:
    """The first version in force that the person of a row has not accepted; null where there is none.

    Part of another query, so that it costs no round trip of its own.
    """
    agreed = (
        select(acceptances.c.version)
        .where(acceptances.c.person_id == person_id, acceptances.c.version == terms.c.version)
        .correlate_except(acceptances)
        .exists()
    )
    return (
        select(func.min(terms.c.version))
        .where(terms.c.superseded.is_(None), person_id.is_not(None), ~agreed)
        .correlate_except(terms)
        .scalar_subquery()
    )


def _check(kind: str, text: str) -> None:
    if not _KIND.fullmatch(kind):
        raise InvalidRequest(
            "kind: write one word in lower case, up to 16 letters, such as terms or privacy.", param="kind"
        )
    if not text.strip() or len(text) > MAX_TEXT or "\0" in text:
        raise InvalidRequest(f"text: write 1 to {MAX_TEXT} characters, none of them NUL.", param="text")


def _terms(row: Row[Any]) -> Terms:
    return Terms(
        version=row.version, kind=row.kind, text=row.text, digest=row.digest, published=row.published
    )
