"""Projects of people: embargoes, invitations, suspensions, terms; and the head of the trail."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from transom.storage.tables.base import UtcTime, metadata
from transom.storage.tables.core import projects

embargoes = Table(
    "embargoes",
    metadata,
    Column("project_id", ForeignKey(projects.c.id), primary_key=True),
    # 1, 2, 3, …: every choice is kept, since each decides about the records of its time.
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("since", UtcTime, nullable=False),
    Column("months", Integer, nullable=False),
    Column("person_id", String(32), nullable=False),
)

invitations = Table(
    "invitations",
    metadata,
    Column("id", String(22), primary_key=True),
    Column("project_id", ForeignKey(projects.c.id), nullable=False),
    Column("email", Text, nullable=False),
    Column("role", String(8), nullable=False),
    Column("mac", LargeBinary(32), nullable=False),
    Column("pepper_version", Integer, nullable=False),
    Column("invited_by", String(32), nullable=False),
    Column("created", UtcTime, nullable=False),
    Column("expires", UtcTime, nullable=False),
    # accepted, declined or revoked; null while it is open.
    Column("outcome", String(8)),
    Column("ended", UtcTime),
    Index(None, "project_id"),
)

suspensions = Table(
    "suspensions",
    metadata,
    # `key:<id>`, `person:<id>` or `project:<id>`. Only those in force: the trail keeps the history.
    Column("subject", String(80), primary_key=True),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("since", UtcTime, nullable=False),
)

terms = Table(
    "terms",
    metadata,
    # `<kind>-<number>`, such as `privacy-2`.
    Column("version", String(32), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("number", Integer, nullable=False),
    Column("text", Text, nullable=False),
    Column("digest", String(71), nullable=False),
    Column("actor", Text, nullable=False),
    Column("published", UtcTime, nullable=False),
    # When the next version of the kind took its place; null for the one in force.
    Column("superseded", UtcTime),
    UniqueConstraint("kind", "number"),
)

acceptances = Table(
    "acceptances",
    metadata,
    Column("person_id", String(32), primary_key=True),
    Column("version", ForeignKey(terms.c.version), primary_key=True),
    # Of the text that was accepted: what is proven does not rest on another table.
    Column("digest", String(71), nullable=False),
    Column("accepted", UtcTime, nullable=False),
)

trail_head = Table(
    "trail_head",
    metadata,
    # One row, 1: number and digest of the trail's latest entry. Without it nobody would miss the newest
    # entries once they are taken out; and on PostgreSQL its lock puts writers in a row.
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
    Column("digest", String(71), nullable=False),
)
