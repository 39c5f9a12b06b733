"""The public log: what is in it, in the order in which it came."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, Table

from transom.storage.tables.base import metadata

log_entries = Table(
    "log_entries",
    metadata,
    # 0, 1, 2, …: the leaf of the tree.
    Column("place", BigInteger, primary_key=True, autoincrement=False),
    # The bytes that are hashed and published.
    Column("content", LargeBinary, nullable=False),
)

log_head = Table(
    "log_head",
    metadata,
    # There is one row: who adds entries holds it until the commit, so that none is left out.
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("size", BigInteger, nullable=False),
    # As many of them as were published: files that have fewer are not those that people have seen.
    Column("published", BigInteger, nullable=False, server_default="0"),
)
