"""People, and how they sign in."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from transom.storage.tables.base import UtcTime, metadata

people = Table(
    "people",
    metadata,
    Column("id", String(26), primary_key=True),
    # Proven to be theirs; null for who came by a provider alone, and for who was deleted.
    Column("email", String(254)),
    Column("name", Text, nullable=False),
    Column("created", UtcTime, nullable=False),
    # A person who leaves leaves the id, which records and the trail refer to.
    Column("deleted", UtcTime),
    UniqueConstraint("email"),
)

person_roles = Table(
    "person_roles",
    metadata,
    Column("person_id", ForeignKey(people.c.id), nullable=False),
    Column("role", String(16), nullable=False),
    Column("given_by", Text, nullable=False),
    Column("given", UtcTime, nullable=False),
    PrimaryKeyConstraint("person_id", "role"),
)

identities = Table(
    "identities",
    metadata,
    Column("issuer", String(255), nullable=False),
    Column("subject", String(255), nullable=False),
    Column("id", String(26), nullable=False),
    Column("person_id", ForeignKey(people.c.id), nullable=False),
    Column("added", UtcTime, nullable=False),
    Column("last_used", UtcTime, nullable=False),
    PrimaryKeyConstraint("issuer", "subject"),
    UniqueConstraint("id"),
    Index(None, "person_id"),
)

passkeys = Table(
    "passkeys",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("person_id", ForeignKey(people.c.id), nullable=False),
    # Base64url of at most 1023 bytes.
    Column("credential", String(1364), nullable=False),
    Column("public_key", LargeBinary, nullable=False),
    Column("sign_count", BigInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("created", UtcTime, nullable=False),
    Column("last_used", UtcTime),
    UniqueConstraint("credential"),
    Index(None, "person_id"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", String(22), primary_key=True),
    Column("person_id", ForeignKey(people.c.id), nullable=False),
    Column("mac", LargeBinary(32), nullable=False),
    Column("pepper_version", Integer, nullable=False),
    Column("carrier", String(8), nullable=False),
    Column("method", String(16), nullable=False),
    Column("agent", Text, nullable=False),
    Column("created", UtcTime, nullable=False),
    Column("last_seen", UtcTime, nullable=False),
    Column("expires", UtcTime, nullable=False),
    Index(None, "person_id"),
    Index(None, "expires"),
)

sign_in_links = Table(
    "sign_in_links",
    metadata,
    Column("id", String(22), primary_key=True),
    Column("email", String(254), nullable=False),
    Column("mac", LargeBinary(32), nullable=False),
    Column("code_mac", LargeBinary(32), nullable=False),
    # Of the secret in the cookie of the browser that asked; null where a command line did.
    Column("browser_mac", LargeBinary(32)),
    Column("pepper_version", Integer, nullable=False),
    # Null for signing in; else who wants the address as theirs.
    Column("person_id", ForeignKey(people.c.id)),
    Column("next", Text),
    Column("wrong_codes", Integer, nullable=False),
    Column("expires", UtcTime, nullable=False),
    Column("used", UtcTime),
    Index(None, "email"),
    Index(None, "expires"),
)

sign_in_challenges = Table(
    "sign_in_challenges",
    metadata,
    Column("id", String(22), primary_key=True),
    Column("purpose", String(16), nullable=False),
    Column("person_id", ForeignKey(people.c.id)),
    Column("browser_mac", LargeBinary(32)),
    Column("pepper_version", Integer, nullable=False),
    # JSON: what has to be known when the answer comes; no secret.
    Column("data", Text, nullable=False),
    Column("expires", UtcTime, nullable=False),
    Index(None, "expires"),
)

sign_in_paces = Table(
    "sign_in_paces",
    metadata,
    # A keyed hash of pace and subject: no address, of either kind, stands here.
    Column("name", String(64), primary_key=True),
    Column("busy_until", UtcTime, nullable=False),
    Index(None, "busy_until"),
)
