"""Records that are sealed at rest."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    # Openings of earlier records stay as they are: a migration has no key to seal them with.
    op.create_table(
        "data_keys",
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("seals", sa.BigInteger, nullable=False),
        sa.Column("master_version", sa.Integer, nullable=False),
        sa.Column("wrapped", sa.LargeBinary(60)),
        sa.Column("destroyed", sa.BigInteger),
        sa.PrimaryKeyConstraint("project_id", "version", name="pk_data_keys"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_data_keys_project_id"),
    )
