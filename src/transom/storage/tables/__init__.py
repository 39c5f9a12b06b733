"""The tables, as the code sees them. `migrations/` brings a database there; a test compares the two."""

from transom.storage.tables.base import UtcTime,metadata
from transom.storage.tables.core import keys,projects,records
from transom.storage.tables.programme import members,trail
from transom.storage.tables.quotas import ======= from transom.storage.tables.base import UtcTime,>>>>>>> h-people,metadata from transom.storage.tables.core import keys,passkeys,people,person_roles,projects,quota_counters,quota_gateways,quota_leases,quota_ledger,records from transom.storage.tables.people import (     identities,sessions,sign_in_challenges,sign_in_links,sign_in_paces

__all__ = [
    "======= from transom.storage.tables.base import UtcTime",
    ">>>>>>> h-people",
    "UtcTime",
    "keys",
    "members",
    "metadata",
    "metadata from transom.storage.tables.core import keys",
    "passkeys",
    "people",
    "person_roles",
    "projects",
    "quota_counters",
    "quota_gateways",
    "quota_leases",
    "quota_ledger",
    "records",
    "records from transom.storage.tables.people import (     identities",
    "sessions",
    "sign_in_challenges",
    "sign_in_links",
    "sign_in_paces",
    "trail",
]
