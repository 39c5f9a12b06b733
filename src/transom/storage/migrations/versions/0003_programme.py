"""The programme: members, applications, grants, terms and the trail."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "members",
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("person_id", sa.String(32), nullable=False),
        sa.Column("role", sa.String(8), nullable=False),
        sa.Column("joined", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("project_id", "person_id", name="pk_members"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_members_project_id"),
    )
    op.create_index("ix_members_person_id", "members", ["person_id"])
    op.create_table(
        "trail",
        sa.Column("number", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("project_id", sa.String(64)),
        sa.Column("person_id", sa.String(32)),
        sa.Column("reason", sa.Text),
        sa.Column("details", sa.Text, nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_trail"),
        sa.UniqueConstraint("digest", name="uq_trail_digest"),
    )
    op.create_index("ix_trail_project_id", "trail", ["project_id"])
    op.create_index("ix_trail_person_id", "trail", ["person_id"])
