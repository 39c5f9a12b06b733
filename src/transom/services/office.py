"""What the use cases around people and projects work with; they need no model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from transom.access.credentials.peppers import PepperSource
from transom.access.keys.callers import KeyStore
from transom.access.keys.issuing import GrantScopes
from transom.access.people.outbox import Mailer
from transom.access.projects.invitations import EmailOf
from transom.artifacts.store import ArtifactStore
from transom.records.store import RecordStore
from transom.storage.database import Database


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(kw_only=True)
class Office:
    """Put together by `transom.app`, for the server and for the commands on its machine."""

    database: Database
    records: RecordStore
    artifacts: ArtifactStore
    keys: KeyStore
    peppers: PepperSource
    mailer: Mailer
    email_of: EmailOf
    grant_scopes: GrantScopes
    now: Callable[[], datetime] = _now
