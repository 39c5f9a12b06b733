"""Data keys: what private columns are sealed by, each wrapped by a master key."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Integer, LargeBinary, Table

from transom.storage.tables.base import UtcTime, metadata
from transom.storage.tables.core import projects

data_keys = Table(
    "data_keys",
    metadata,
    Column("project_id", ForeignKey(projects.c.id), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("created", UtcTime, nullable=False),
    # How many values were sealed by it; never lowered.
    Column("seals", BigInteger, nullable=False),
    Column("master_version", Integer, nullable=False),
    # Null once it was destroyed: what it sealed cannot be read by anybody any more.
    Column("wrapped", LargeBinary(60)),
    Column("destroyed", UtcTime),
)
