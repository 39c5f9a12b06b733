"""Applications that wait while something stands against them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    # Those whose project is closed already are refused all the same; they are marked when it closes again.
    op.add_column("applications", sa.Column("paused", sa.BigInteger))
