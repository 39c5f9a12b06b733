"""The public log: what is in it, in the order in which it came."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, String, Table, Text

from transom.storage.tables.base import UtcTime, metadata

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
    # Who signs: the verifier key of the log, and the id of the first key of records. Two gateways with keys
    # of their own would be two logs.
    Column("log_key", Text),
    Column("record_key", String(71)),
)

seed_promises = Table(
    "seed_promises",
    metadata,
    Column("commitment", String(71), primary_key=True),
    Column("project_id", String(64), nullable=False),
    # Told in the record of the request that uses it; its row is deleted then.
    Column("secret", LargeBinary(32), nullable=False),
    Column("expires", UtcTime, nullable=False),
    # The first that came with it, where its request was refused: it comes with no other after that.
    Column("nonce", String(128)),
    Index(None, "project_id", "expires"),
)

challenges = Table(
    "challenges",
    metadata,
    # Of its document in the log.
    Column("digest", String(71), primary_key=True),
    Column("place", BigInteger, nullable=False),
    # The entry that was asked for, or the day for which lots are drawn; one of both is null.
    Column("entry", BigInteger),
    Column("day", String(10), unique=True),
    Column("opened", UtcTime, nullable=False),
    Column("deadline", UtcTime, nullable=False),
    # Of its verdict in the log.
    Column("verdict", String(71)),
    Column("judged", UtcTime),
    # The first cosigned checkpoint that has it, kept until the verdict tells it.
    Column("shown", LargeBinary),
    Index(None, "entry", "opened"),
    Index(None, "opened"),
)

log_documents = Table(
    "log_documents",
    metadata,
    # What the entry says: SHA-256 of the content.
    Column("digest", String(71), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("place", BigInteger, nullable=False),
    # Public, and shown to whoever asks.
    Column("content", LargeBinary, nullable=False),
)
