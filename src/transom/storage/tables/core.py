"""Projects, keys and records."""

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

projects = Table(
    "projects",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", Text, nullable=False),
    Column("created", UtcTime, nullable=False),
    # The number of the project's latest record. Counted here and not by max() over records, so that a
    # record which somebody removed leaves a gap.
    Column("last_sequence", BigInteger, nullable=False),
    Column("description", Text, nullable=False, server_default=""),
    Column("institution", Text, nullable=False, server_default=""),
    # While this is set, nothing new is asked in the project.
    Column("archived", UtcTime),
    # The row stays, without its texts: the project's records keep their numbers.
    Column("deleted", UtcTime),
)

keys = Table(
    "keys",
    metadata,
    Column("id", String(22), primary_key=True),
    Column("project_id", ForeignKey(projects.c.id), nullable=False),
    Column("name", Text, nullable=False),
    Column("mac", LargeBinary(32), nullable=False),
    Column("pepper_version", Integer, nullable=False),
    Column("created", UtcTime, nullable=False),
    Column("expires", UtcTime),
    Column("revoked", UtcTime),
    Column("last_used", UtcTime),
    # Whose key it is; null for the operator's own, in the project `local`. No foreign key: as in members.
    Column("person_id", String(32)),
    # JSON list of scopes; null for all that the grant has.
    Column("scopes", Text),
    # JSON object of limits by budget; null for none beyond the grant's.
    Column("quotas", Text),
    # A key that was rotated: the id of the one that replaces it, and until when this one still works.
    Column("successor", String(22)),
    Column("retires", UtcTime),
    Index(None, "project_id"),
    Index(None, "person_id"),
)

records = Table(
    "records",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("project_id", ForeignKey(projects.c.id), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("key_id", ForeignKey(keys.c.id)),
    Column("created", UtcTime, nullable=False),
    Column("model", Text, nullable=False),
    Column("deployment", String(71), nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("status", String(8), nullable=False),
    Column("digest", String(71), nullable=False),
    # Canonical bytes: what the digest is of, and what is signed.
    Column("statement", LargeBinary, nullable=False),
    # JSON with everything private.
    Column("openings", LargeBinary, nullable=False),
    # Its entry in the public log.
    Column("log_index", BigInteger, nullable=False),
    # Of the statement's envelope, and the id of the key; null for those from before they were signed.
    Column("signer", String(71)),
    Column("signature", LargeBinary(64)),
    UniqueConstraint("project_id", "sequence"),
    Index(None, "log_index", unique=True),
)
