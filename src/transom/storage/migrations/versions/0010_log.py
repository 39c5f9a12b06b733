"""Signatures, and the public log; records from before have places in it, in the order of their times."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_table(
        "log_entries",
        sa.Column("place", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("place", name="pk_log_entries"),
    )
    op.create_table(
        "log_head",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("published", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("log_key", sa.Text),
        sa.Column("record_key", sa.String(71)),
        sa.PrimaryKeyConstraint("id", name="pk_log_head"),
    )
    op.create_table(
        "log_documents",
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("place", sa.BigInteger, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_log_documents"),
    )
    if op.get_bind().dialect.name == "postgresql":
        # Each record is written once, and there may be many.
        op.execute("SET LOCAL statement_timeout = 0")
    op.add_column("records", sa.Column("log_index", sa.BigInteger))
    op.add_column("records", sa.Column("signer", sa.String(71)))
    op.add_column("records", sa.Column("signature", sa.LargeBinary(64)))
    op.execute(
        "UPDATE records SET log_index = places.place FROM "
        "(SELECT id, row_number() OVER (ORDER BY created, id) - 1 AS place FROM records) AS places "
        "WHERE places.id = records.id"
    )
    # A server of an older version, that still runs beside, can store no record outside of the log.
    with op.batch_alter_table("records") as records:
        records.alter_column("log_index", existing_type=sa.BigInteger, nullable=False)
    op.create_index("ix_records_log_index", "records", ["log_index"], unique=True)
    _log_earlier(op.get_bind())


def _log_earlier(connection: sa.Connection) -> None:
    found = connection.execute(sa.text("SELECT log_index, digest FROM records ORDER BY log_index"))
    insert = sa.text("INSERT INTO log_entries (place, content) VALUES (:place, :content)")
    size = 0
    while rows := found.fetchmany(1000):
        entries = [
            {"place": row.log_index, "content": b'{"digest":"%s","kind":"record"}' % row.digest.encode()}
            for row in rows
        ]
        connection.execute(insert, entries)
        size += len(rows)
    connection.execute(sa.text("INSERT INTO log_head (id, size) VALUES (1, :size)"), {"size": size})
