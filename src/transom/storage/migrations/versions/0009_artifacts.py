"""Artifacts of projects."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "artifacts",
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("name", sa.LargeBinary(32), nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("blob", sa.String(32), nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("project_id", "name", name="pk_artifacts"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_artifacts_project_id"),
        sa.UniqueConstraint("project_id", "number", name="uq_artifacts_project_id_number"),
        sa.UniqueConstraint("blob", name="uq_artifacts_blob"),
    )
