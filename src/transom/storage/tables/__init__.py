"""The tables, as the code sees them. `migrations/` brings a database there; a test compares the two."""

from transom.storage.tables.base import UtcTime, metadata
from transom.storage.tables.core import keys, projects, records
from transom.storage.tables.people import (
    identities,
    passkeys,
    people,
    person_roles,
    sessions,
    sign_in_challenges,
    sign_in_links,
    sign_in_paces,
)

__all__ = [
    "UtcTime",
    "identities",
    "keys",
    "metadata",
    "passkeys",
    "people",
    "person_roles",
    "projects",
    "records",
    "sessions",
    "sign_in_challenges",
    "sign_in_links",
    "sign_in_paces",
]
