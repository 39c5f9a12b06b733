"""How much of each weight matrix is told."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "matrix_exposures",
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("root", sa.String(80), nullable=False),
        sa.Column("place", sa.String(64), nullable=False),
        sa.Column("numbers", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("account", "root", "place", name="pk_matrix_exposures"),
    )
