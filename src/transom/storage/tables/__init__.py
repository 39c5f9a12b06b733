"""The tables, as the code sees them. `migrations/` brings a database there; a test compares the two."""

from transom.storage.tables.base import UtcTime, metadata
from transom.storage.tables.core import keys, projects, records
from transom.storage.tables.programme import (
    application_events,
    applications,
    grant_changes,
    grants,
    members,
    outbox,
    trail,
)

__all__ = [
    "UtcTime",
    "application_events",
    "applications",
    "grant_changes",
    "grants",
    "keys",
    "members",
    "metadata",
    "outbox",
    "projects",
    "records",
    "trail",
]
