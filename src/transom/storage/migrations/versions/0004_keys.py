"""Keys of persons and their projects: rotation, invitations, suspensions, terms; guards of the trail."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    _projects()
    _keys()
    _terms()
    _guard_trail()
    op.create_table(
        "suspensions",
        sa.Column("subject", sa.String(80), nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("subject", name="pk_suspensions"),
    )


def _projects() -> None:
    op.add_column("projects", sa.Column("description", sa.Text, nullable=False, server_default=""))
    op.add_column("projects", sa.Column("institution", sa.Text, nullable=False, server_default=""))
    op.add_column("projects", sa.Column("archived", sa.BigInteger))
    op.add_column("projects", sa.Column("deleted", sa.BigInteger))
    op.create_table(
        "embargoes",
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("months", sa.Integer, nullable=False),
        sa.Column("person_id", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "number", name="pk_embargoes"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_embargoes_project_id"),
    )
    op.create_table(
        "invitations",
        sa.Column("id", sa.String(22), nullable=False),
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("email", sa.Text, nullable=False),
        sa.Column("role", sa.String(8), nullable=False),
        sa.Column("mac", sa.LargeBinary(32), nullable=False),
        sa.Column("pepper_version", sa.Integer, nullable=False),
        sa.Column("invited_by", sa.String(32), nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("expires", sa.BigInteger, nullable=False),
        sa.Column("outcome", sa.String(8)),
        sa.Column("ended", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_invitations"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_invitations_project_id"),
    )
    op.create_index("ix_invitations_project_id", "invitations", ["project_id"])


def _keys() -> None:
    op.add_column("keys", sa.Column("person_id", sa.String(32)))
    op.add_column("keys", sa.Column("scopes", sa.Text))
    op.add_column("keys", sa.Column("quotas", sa.Text))
    op.add_column("keys", sa.Column("successor", sa.String(22)))
    op.add_column("keys", sa.Column("retires", sa.BigInteger))
    op.create_index("ix_keys_person_id", "keys", ["person_id"])


def _terms() -> None:
    op.create_table(
        "terms",
        sa.Column("version", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("published", sa.BigInteger, nullable=False),
        sa.Column("superseded", sa.BigInteger),
        sa.PrimaryKeyConstraint("version", name="pk_terms"),
        sa.UniqueConstraint("kind", "number", name="uq_terms_kind_number"),
    )
    op.create_table(
        "acceptances",
        sa.Column("person_id", sa.String(32), nullable=False),
        sa.Column("version", sa.String(32), nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("accepted", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("person_id", "version", name="pk_acceptances"),
        sa.ForeignKeyConstraint(["version"], ["terms.version"], name="fk_acceptances_version"),
    )


def _guard_trail() -> None:
    head = op.create_table(
        "trail_head",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_trail_head"),
    )
    op.bulk_insert(head, [{"id": 1, "number": 0, "digest": "sha256:" + "0" * 64}])
    for statement in _GUARDS[op.get_bind().dialect.name]:
        op.execute(statement)


# Entries are added and never changed, and the head goes forward one by one. SQLite fires no trigger of
# deletion where an INSERT OR REPLACE deletes, so there a number that is taken is refused as well.
_GUARDS = {
    "sqlite": (
        """CREATE TRIGGER trail_is_not_changed BEFORE UPDATE ON trail
        BEGIN SELECT RAISE(ABORT, 'the trail is append-only'); END""",
        """CREATE TRIGGER trail_is_not_shortened BEFORE DELETE ON trail
        BEGIN SELECT RAISE(ABORT, 'the trail is append-only'); END""",
        """CREATE TRIGGER trail_is_not_replaced BEFORE INSERT ON trail
        WHEN EXISTS (SELECT 1 FROM trail WHERE number = NEW.number OR digest = NEW.digest)
        BEGIN SELECT RAISE(ABORT, 'the trail is append-only'); END""",
        """CREATE TRIGGER trail_head_goes_forward BEFORE UPDATE ON trail_head
        WHEN NEW.id <> OLD.id OR NEW.number <> OLD.number + 1
        BEGIN SELECT RAISE(ABORT, 'the trail is append-only'); END""",
        """CREATE TRIGGER trail_head_stays BEFORE DELETE ON trail_head
        BEGIN SELECT RAISE(ABORT, 'the trail is append-only'); END""",
        """CREATE TRIGGER trail_head_is_one BEFORE INSERT ON trail_head
        BEGIN SELECT RAISE(ABORT, 'the trail is append-only'); END""",
    ),
    "postgresql": (
        """CREATE FUNCTION trail_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'the trail is append-only'; END $$""",
        """CREATE TRIGGER trail_is_not_changed BEFORE UPDATE OR DELETE ON trail
        FOR EACH ROW EXECUTE FUNCTION trail_refuse()""",
        """CREATE TRIGGER trail_is_not_emptied BEFORE TRUNCATE ON trail
        FOR EACH STATEMENT EXECUTE FUNCTION trail_refuse()""",
        """CREATE TRIGGER trail_head_goes_forward BEFORE UPDATE ON trail_head FOR EACH ROW
        WHEN (NEW.id <> OLD.id OR NEW.number <> OLD.number + 1) EXECUTE FUNCTION trail_refuse()""",
        """CREATE TRIGGER trail_head_stays BEFORE INSERT OR DELETE ON trail_head
        FOR EACH ROW EXECUTE FUNCTION trail_refuse()""",
        """CREATE TRIGGER trail_head_is_not_emptied BEFORE TRUNCATE ON trail_head
        FOR EACH STATEMENT EXECUTE FUNCTION trail_refuse()""",
    ),
}
