"""What has been told about weight matrices."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, String, Table, Text

from transom.storage.tables.base import metadata

matrix_exposures = Table(
    "matrix_exposures",
    metadata,
    # As in the counters of quotas: a project or a person.
    Column("account", Text, primary_key=True),
    # Digest of the model root.
    Column("root", String(80), primary_key=True),
    # A point and its layer, or the gradient there.
    Column("place", String(64), primary_key=True),
    Column("numbers", BigInteger, nullable=False),
)
