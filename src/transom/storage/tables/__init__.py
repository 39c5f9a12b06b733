"""The tables, as the code sees them. `migrations/` brings a database there; a test compares the two."""

from transom.storage.tables.base import UtcTime, metadata
from transom.storage.tables.core import keys, projects, records
from transom.storage.tables.programme import members, trail

__all__ = ["UtcTime", "keys", "members", "metadata", "projects", "records", "trail"]
