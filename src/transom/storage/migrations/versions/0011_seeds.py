"""Secrets that were promised for seeds that neither side picks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.create_table(
        "seed_promises",
        sa.Column("commitment", sa.String(71), nullable=False),
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("secret", sa.LargeBinary(32), nullable=False),
        sa.Column("expires", sa.BigInteger, nullable=False),
        sa.Column("nonce", sa.String(128)),
        sa.PrimaryKeyConstraint("commitment", name="pk_seed_promises"),
    )
    op.create_index("ix_seed_promises_project_id_expires", "seed_promises", ["project_id", "expires"])
