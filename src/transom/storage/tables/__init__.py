"""The tables, as the code sees them. `migrations/` brings a database there; a test compares the two."""

from transom.storage.tables.base import UtcTime, metadata
from transom.storage.tables.core import keys, projects, records
from transom.storage.tables.programme import members, trail
from transom.storage.tables.rights import (
    acceptances,
    embargoes,
    invitations,
    suspensions,
    terms,
    trail_head,
)

__all__ = [
    "UtcTime",
    "acceptances",
    "embargoes",
    "invitations",
    "keys",
    "members",
    "metadata",
    "projects",
    "records",
    "suspensions",
    "terms",
    "trail",
    "trail_head",
]
