"""People: how they sign in."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    _people()
    _ways_in()
    _steps()


def _person(table: str, *, nullable: bool = False) -> tuple[sa.Column[str], sa.ForeignKeyConstraint]:
    """The column that says whose it is."""
    return (
        sa.Column("person_id", sa.String(26), nullable=nullable),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name=f"fk_{table}_person_id"),
    )


def _people() -> None:
    op.create_table(
        "people",
        sa.Column("id", sa.String(26), nullable=False),
        sa.Column("email", sa.String(254)),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("deleted", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_people"),
        sa.UniqueConstraint("email", name="uq_people_email"),
    )
    op.create_table(
        "person_roles",
        *_person("person_roles"),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("given_by", sa.Text, nullable=False),
        sa.Column("given", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("person_id", "role", name="pk_person_roles"),
    )


def _ways_in() -> None:
    op.create_table(
        "identities",
        sa.Column("issuer", sa.String(255), nullable=False),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("id", sa.String(26), nullable=False),
        *_person("identities"),
        sa.Column("added", sa.BigInteger, nullable=False),
        sa.Column("last_used", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("issuer", "subject", name="pk_identities"),
        sa.UniqueConstraint("id", name="uq_identities_id"),
    )
    op.create_index("ix_identities_person_id", "identities", ["person_id"])
    op.create_table(
        "passkeys",
        sa.Column("id", sa.String(26), nullable=False),
        *_person("passkeys"),
        sa.Column("credential", sa.String(1364), nullable=False),
        sa.Column("public_key", sa.LargeBinary, nullable=False),
        sa.Column("sign_count", sa.BigInteger, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("last_used", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_passkeys"),
        sa.UniqueConstraint("credential", name="uq_passkeys_credential"),
    )
    op.create_index("ix_passkeys_person_id", "passkeys", ["person_id"])
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(22), nullable=False),
        *_person("sessions"),
        sa.Column("mac", sa.LargeBinary(32), nullable=False),
        sa.Column("pepper_version", sa.Integer, nullable=False),
        sa.Column("carrier", sa.String(8), nullable=False),
        sa.Column("method", sa.String(16), nullable=False),
        sa.Column("agent", sa.Text, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("last_seen", sa.BigInteger, nullable=False),
        sa.Column("expires", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"),
    )
    op.create_index("ix_sessions_person_id", "sessions", ["person_id"])
    op.create_index("ix_sessions_expires", "sessions", ["expires"])


def _steps() -> None:
    op.create_table(
        "sign_in_links",
        sa.Column("id", sa.String(22), nullable=False),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("mac", sa.LargeBinary(32), nullable=False),
        sa.Column("code_mac", sa.LargeBinary(32), nullable=False),
        sa.Column("browser_mac", sa.LargeBinary(32)),
        sa.Column("pepper_version", sa.Integer, nullable=False),
        *_person("sign_in_links", nullable=True),
        sa.Column("next", sa.Text),
        sa.Column("wrong_codes", sa.Integer, nullable=False),
        sa.Column("expires", sa.BigInteger, nullable=False),
        sa.Column("used", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_sign_in_links"),
    )
    op.create_index("ix_sign_in_links_email", "sign_in_links", ["email"])
    op.create_index("ix_sign_in_links_expires", "sign_in_links", ["expires"])
    op.create_table(
        "sign_in_challenges",
        sa.Column("id", sa.String(22), nullable=False),
        sa.Column("purpose", sa.String(16), nullable=False),
        *_person("sign_in_challenges", nullable=True),
        sa.Column("browser_mac", sa.LargeBinary(32)),
        sa.Column("pepper_version", sa.Integer, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sa.Column("expires", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sign_in_challenges"),
    )
    op.create_index("ix_sign_in_challenges_expires", "sign_in_challenges", ["expires"])
    op.create_table(
        "sign_in_paces",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("busy_until", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_sign_in_paces"),
    )
    op.create_index("ix_sign_in_paces_busy_until", "sign_in_paces", ["busy_until"])
