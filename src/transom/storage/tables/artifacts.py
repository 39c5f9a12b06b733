"""Artifacts: what researchers uploaded. The content lies in `transom.storage.blobs`."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, LargeBinary, String, Table, UniqueConstraint

from transom.storage.tables.base import UtcTime, metadata
from transom.storage.tables.core import projects

artifacts = Table(
    "artifacts",
    metadata,
    Column("project_id", ForeignKey(projects.c.id), primary_key=True),
    # The digest, keyed by the project's data key: equal content of two projects has nothing in common here.
    Column("name", LargeBinary(32), primary_key=True),
    # 1, 2, 3, … in the order of their arrival: what lists are ordered by.
    Column("number", BigInteger, nullable=False),
    Column("created", UtcTime, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    # Name of the blob, at random.
    Column("blob", String(32), nullable=False),
    # JSON with everything private: the digest, the blob's key, names and shapes of the tensors.
    Column("sealed", LargeBinary, nullable=False),
    UniqueConstraint("project_id", "number"),
    UniqueConstraint("blob"),
)
