"""The tables, as the code sees them. `migrations/` brings a database there; a test compares the two."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class UtcTime(TypeDecorator[datetime]):
    """A moment, stored as whole microseconds since 1970: the same order and the same bits everywhere."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> int | None:
        """Microseconds.

        Raises:
            TypeError: the datetime has no time zone.
        """
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, _dialect: Dialect) -> datetime | None:
        """A datetime in UTC."""
        return None if value is None else _EPOCH + value * _MICROSECOND


metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

projects = Table(
    "projects",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", Text, nullable=False),
    Column("created", UtcTime, nullable=False),
    # The number of the project's latest record. Counted here and not by max() over records, so that a
    # record which somebody removed leaves a gap.
    Column("last_sequence", BigInteger, nullable=False),
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
    Index(None, "project_id"),
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
    # Canonical bytes: what the digest is of, and what will be signed.
    Column("statement", LargeBinary, nullable=False),
    # JSON with everything private.
    Column("openings", LargeBinary, nullable=False),
    UniqueConstraint("project_id", "sequence"),
)
