"""The tables, as the code sees them. `migrations/` brings a database there; a test compares the two."""

from transom.storage.tables.base import (
    UtcTime,
    metadata,
)
from transom.storage.tables.core import (
    keys,
    projects,
    records,
)
from transom.storage.tables.programme import (
    members,
    trail,
)
from transom.storage.tables.quotas import (
    quota_counters,
    quota_gateways,
    quota_leases,
    quota_ledger,
)

__all__ = [
    "UtcTime",
    "keys",
    "members",
    "metadata",
    "projects",
    "quota_counters",
    "quota_gateways",
    "quota_leases",
    "quota_ledger",
    "records",
    "trail",
]
