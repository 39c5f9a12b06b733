"""The tables, as the code sees them. `migrations/` brings a database there; a test compares the two."""

from transom.storage.tables.artifacts import artifacts
from transom.storage.tables.base import UtcTime, metadata, microseconds
from transom.storage.tables.core import keys, projects, records
from transom.storage.tables.log import log_documents, log_entries, log_head, seed_promises
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
from transom.storage.tables.programme import (
    application_events,
    applications,
    grant_changes,
    grants,
    members,
    outbox,
    trail,
)
from transom.storage.tables.quotas import quota_counters, quota_gateways, quota_leases, quota_ledger
from transom.storage.tables.rights import acceptances, embargoes, invitations, suspensions, terms, trail_head
from transom.storage.tables.sealed import data_keys
from transom.storage.tables.weights import matrix_exposures

__all__ = [
    "UtcTime",
    "acceptances",
    "application_events",
    "applications",
    "artifacts",
    "data_keys",
    "embargoes",
    "grant_changes",
    "grants",
    "identities",
    "invitations",
    "keys",
    "log_documents",
    "log_entries",
    "log_head",
    "matrix_exposures",
    "members",
    "metadata",
    "microseconds",
    "outbox",
    "passkeys",
    "people",
    "person_roles",
    "projects",
    "quota_counters",
    "quota_gateways",
    "quota_leases",
    "quota_ledger",
    "records",
    "seed_promises",
    "sessions",
    "sign_in_challenges",
    "sign_in_links",
    "sign_in_paces",
    "suspensions",
    "terms",
    "trail",
    "trail_head",
]
