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
    op.create_table(
        "applications",
        sa.Column("id", sa.String(26), nullable=False),
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("applicant", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("intent", sa.String(10), nullable=False),
        sa.Column("state", sa.String(13), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("events", sa.Integer, nullable=False),
        sa.Column("tier", sa.String(32), nullable=False),
        sa.Column("asked", sa.Text, nullable=False),
        sa.Column("grant_id", sa.String(26)),
        sa.Column("appeal_of", sa.String(26)),
        sa.Column("blind", sa.Boolean, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("changed", sa.BigInteger, nullable=False),
        sa.Column("submitted", sa.BigInteger),
        sa.Column("decide_by", sa.BigInteger),
        sa.Column("decided", sa.BigInteger),
        sa.Column("decided_by", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_applications"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_applications_project_id"),
        sa.ForeignKeyConstraint(["appeal_of"], ["applications.id"], name="fk_applications_appeal_of"),
        sa.UniqueConstraint("appeal_of", name="uq_applications_appeal_of"),
    )
    op.create_index("ix_applications_project_id", "applications", ["project_id"])
    op.create_index("ix_applications_state", "applications", ["state"])
    op.create_table(
        "application_events",
        sa.Column("application_id", sa.String(26), nullable=False),
        sa.Column("number", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("party", sa.String(9), nullable=False),
        sa.Column("action", sa.String(12), nullable=False),
        sa.Column("state", sa.String(13), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("details", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("application_id", "number", name="pk_application_events"),
        sa.ForeignKeyConstraint(
            ["application_id"], ["applications.id"], name="fk_application_events_application_id"
        ),
    )
    op.create_table(
        "grants",
        sa.Column("id", sa.String(26), nullable=False),
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("application_id", sa.String(26), nullable=False),
        sa.Column("tier", sa.String(32), nullable=False),
        sa.Column("rank", sa.Integer, nullable=False),
        sa.Column("programme", sa.String(71), nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("models", sa.Text, nullable=False),
        sa.Column("quotas", sa.Text, nullable=False),
        sa.Column("holdback_percent", sa.Integer, nullable=False),
        sa.Column("embargo_months", sa.Integer, nullable=False),
        sa.Column("starts", sa.BigInteger, nullable=False),
        sa.Column("ends", sa.BigInteger, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("changes", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_grants"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_grants_project_id"),
        sa.ForeignKeyConstraint(["application_id"], ["applications.id"], name="fk_grants_application_id"),
        sa.UniqueConstraint("application_id", name="uq_grants_application_id"),
    )
    op.create_index("ix_grants_project_id", "grants", ["project_id"])
    op.create_table(
        "grant_changes",
        sa.Column("grant_id", sa.String(26), nullable=False),
        sa.Column("number", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("application_id", sa.String(26)),
        sa.Column("quotas", sa.Text),
        sa.Column("ends", sa.BigInteger),
        sa.PrimaryKeyConstraint("grant_id", "number", name="pk_grant_changes"),
        sa.ForeignKeyConstraint(["grant_id"], ["grants.id"], name="fk_grant_changes_grant_id"),
        sa.ForeignKeyConstraint(
            ["application_id"], ["applications.id"], name="fk_grant_changes_application_id"
        ),
    )
    op.create_table(
        "outbox",
        sa.Column("name", sa.String(120), nullable=False),
        sa.Column("recipient", sa.String(32), nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("claimed", sa.BigInteger),
        sa.Column("sent", sa.BigInteger),
        sa.PrimaryKeyConstraint("name", name="pk_outbox"),
    )
    op.create_index("ix_outbox_sent", "outbox", ["sent"])
