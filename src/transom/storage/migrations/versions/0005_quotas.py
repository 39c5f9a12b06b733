"""Quotas: ledger, counters, gateways and their leases."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    _ledger()
    op.create_table(
        "quota_counters",
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("budget", sa.String(24), nullable=False),
        sa.Column("window_start", sa.BigInteger, nullable=False),
        sa.Column("used", sa.BigInteger, nullable=False),
        sa.Column("held", sa.BigInteger, nullable=False),
        sa.Column("ceiling", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("account", "budget", "window_start", name="pk_quota_counters"),
        sa.CheckConstraint("used >= 0", name="ck_quota_counters_used"),
        sa.CheckConstraint("held >= 0", name="ck_quota_counters_held"),
        sa.CheckConstraint("used + held <= ceiling", name="ck_quota_counters_ceiling"),
    )
    op.create_table(
        "quota_gateways",
        sa.Column("id", sa.String(22), nullable=False),
        sa.Column("beat", sa.BigInteger, nullable=False),
        sa.Column("started", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_quota_gateways"),
    )
    op.create_table(
        "quota_leases",
        sa.Column("gateway", sa.String(22), nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("budget", sa.String(24), nullable=False),
        sa.Column("window_start", sa.BigInteger, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("gateway", "account", "budget", "window_start", name="pk_quota_leases"),
        sa.ForeignKeyConstraint(["gateway"], ["quota_gateways.id"], name="fk_quota_leases_gateway"),
        sa.CheckConstraint("amount >= 0", name="ck_quota_leases_amount"),
    )
    op.create_index("ix_quota_leases_account", "quota_leases", ["account"])


def _ledger() -> None:
    op.create_table(
        "quota_ledger",
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("key_id", sa.String(64)),
        sa.Column("person_id", sa.String(64)),
        sa.Column("project_id", sa.String(64)),
        sa.Column("grant_id", sa.String(64)),
        sa.Column("tier", sa.Text),
        sa.Column("model", sa.Text),
        sa.Column("reserved", sa.BigInteger, nullable=False),
        sa.Column("closed", sa.BigInteger, nullable=False),
        sa.Column("outcome", sa.String(8), nullable=False),
        sa.Column("short", sa.Boolean, nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("engine_us", sa.BigInteger, nullable=False),
        sa.Column("internals_bytes", sa.BigInteger, nullable=False),
        sa.Column("released_rank", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("request_id", name="pk_quota_ledger"),
    )
    op.create_index("ix_quota_ledger_key_id_reserved", "quota_ledger", ["key_id", "reserved"])
    op.create_index("ix_quota_ledger_person_id_reserved", "quota_ledger", ["person_id", "reserved"])
    op.create_index("ix_quota_ledger_project_id_reserved", "quota_ledger", ["project_id", "reserved"])
    op.create_index("ix_quota_ledger_grant_id_reserved", "quota_ledger", ["grant_id", "reserved"])
    op.create_index("ix_quota_ledger_reserved", "quota_ledger", ["reserved"])
