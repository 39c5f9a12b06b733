"""When witnesses saw that a challenge was logged."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.add_column("challenges", sa.Column("shown", sa.LargeBinary))
