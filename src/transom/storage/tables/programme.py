"""The programme: members, applications, grants, terms and the trail."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from transom.storage.tables.base import UtcTime, metadata
from transom.storage.tables.core import projects

members = Table(
    "members",
    metadata,
    Column("project_id", ForeignKey(projects.c.id), primary_key=True),
    # No foreign key: a person who has deleted their account stays in the history of a project, by a bare id.
    Column("person_id", String(32), primary_key=True),
    # owner, admin or member.
    Column("role", String(8), nullable=False),
    Column("joined", UtcTime, nullable=False),
    Index(None, "person_id"),
)

trail = Table(
    "trail",
    metadata,
    # Counted by the writer and not by the database, so that a missing entry leaves a gap.
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("at", UtcTime, nullable=False),
    # A person's id, `operator:<user of the machine>`, or `system`.
    Column("actor", Text, nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", Text, nullable=False),
    Column("project_id", String(64)),
    Column("person_id", String(32)),
    Column("reason", Text),
    # Canonical JSON; never a secret, never a prompt.
    Column("details", Text, nullable=False),
    # SHA-256 over the entry and the digest before it: an entry that is changed or taken out breaks the chain.
    Column("digest", String(71), nullable=False),
    Index(None, "project_id"),
    Index(None, "person_id"),
    UniqueConstraint("digest"),
)
