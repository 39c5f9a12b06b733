"""Challenges: what this server asked and waits for an answer to, each answered once, and soon."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from transom.access.credentials.keys import random_id
from transom.access.credentials.peppers import PepperSource
from transom.access.sign_in.links import browser_body
from transom.errors import Unauthenticated
from transom.storage.tables import sign_in_challenges as challenges


@dataclass(frozen=True, slots=True)
class Challenge:
    """What was asked."""

    id: str
    person_id: str | None
    """Whose session asked; None for signing in."""
    data: dict[str, Any]


def _now() -> datetime:
    return datetime.now(UTC)


class ChallengeStore:
    """The challenges that are out. Its methods are steps of a write that somebody else began."""

    def __init__(self, peppers: PepperSource, *, clock: Callable[[], datetime] = _now) -> None:
        self._peppers = peppers
        self._clock = clock

    def make(
        self,
        connection: Connection,
        purpose: str,
        *,
        lifetime: timedelta,
        data: dict[str, Any],
        person_id: str | None = None,
        browser: str | None = None,
    ) -> str:
        """A new challenge's id; bound to a browser by the secret in its cookie, where one is given."""
        now, version = self._clock(), self._peppers.latest().current
        row = {
            "id": random_id(),
            "purpose": purpose,
            "person_id": person_id,
            "browser_mac": None
            if browser is None
            else self._peppers.latest().mac(browser_body(browser), version),
            "pepper_version": version,
            "data": json.dumps(data),
            "expires": now + lifetime,
        }
        connection.execute(delete(challenges).where(challenges.c.expires <= now))
        connection.execute(insert(challenges).values(row))
        return str(row["id"])

    def take(
        self, connection: Connection, purpose: str, challenge_id: str, *, browser: str | None = None
    ) -> Challenge:
        """Use a challenge up, whatever comes of it.

        Raises:
            Unauthenticated: there is none, it was used, it is too old, it is for something else, or it
                belongs to another browser. Nothing is used up then.
        """
        row = (
            connection.execute(select(challenges).where(challenges.c.id == challenge_id))
            .mappings()
            .one_or_none()
        )
        mac, version = (None, None) if row is None else (row["browser_mac"], row["pepper_version"])
        same = self._peppers.latest().proves(browser_body(browser or ""), mac, version)
        good = row is not None and row["purpose"] == purpose and self._clock() < row["expires"]
        if row is None or not good or not (same or mac is None):
            raise _stale()
        gone = delete(challenges).where(challenges.c.id == challenge_id)
        if connection.execute(gone).rowcount != 1:
            raise _stale()
        return Challenge(row["id"], row["person_id"], json.loads(row["data"]))


def _stale() -> Unauthenticated:
    return Unauthenticated(
        "This answers nothing that was asked here a moment ago: begin again.", code="stale_challenge"
    )
