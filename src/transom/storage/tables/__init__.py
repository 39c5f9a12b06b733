"""The tables, as the code sees them. `migrations/` brings a database there; a test compares the two."""

from transom.storage.tables.base import UtcTime, metadata
from transom.storage.tables.core import keys, projects, records
from transom.storage.tables.sealed import data_keys

__all__ = ["UtcTime", "data_keys", "keys", "metadata", "projects", "records"]
