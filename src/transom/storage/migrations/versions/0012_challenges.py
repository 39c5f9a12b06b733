"""Challenges: records that are replayed in public, and what came of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.create_table(
        "challenges",
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("place", sa.BigInteger, nullable=False),
        sa.Column("entry", sa.BigInteger),
        sa.Column("day", sa.String(10)),
        sa.Column("opened", sa.BigInteger, nullable=False),
        sa.Column("deadline", sa.BigInteger, nullable=False),
        sa.Column("verdict", sa.String(71)),
        sa.Column("judged", sa.BigInteger),
        sa.PrimaryKeyConstraint("digest", name="pk_challenges"),
        sa.UniqueConstraint("day", name="uq_challenges_day"),
    )
    op.create_index("ix_challenges_entry_opened", "challenges", ["entry", "opened"])
    op.create_index("ix_challenges_opened", "challenges", ["opened"])
