"""Challenges: opened with a deadline, judged once. Each is an entry of the log, its verdict another."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, case, func, insert, select, update

from transom.errors import QuotaExceeded
from transom.records.beacons import Beacon
from transom.schema.canonical import sha256
from transom.schema.challenges import Challenge, ChallengeCounts, ChallengeView, Outcome, Verdict
from transom.schema.record import rfc3339
from transom.storage.tables import challenges
from transom.tlog.documents import log_document

MOST_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Rules:
    """What an operator takes on."""

    beacon: Beacon | None = None
    """What lots are drawn by; None where none are."""
    count: int = 8
    """Entries that lots fall on, each day."""
    most_asked: int = 24
    """Challenges from outside in a day; the operator pays for them."""


def open_challenge(
    connection: Connection, challenge: Challenge, opened: datetime, deadline: datetime, day: str | None = None
) -> str:
    """Log a challenge, before it is judged; its digest."""
    digest = sha256(challenge.content)
    row = {
        "digest": digest,
        "place": log_document(connection, "challenge", challenge.content),
        "entry": challenge.index,
        "day": day,
        "opened": opened,
        "deadline": deadline,
    }
    connection.execute(insert(challenges).values(row))
    return digest


class Patience:
    """When a challenge that could not be judged is tried again: after 10 seconds, 20, 40, … an hour."""

    def __init__(self) -> None:
        self._next: dict[str, tuple[datetime, timedelta]] = {}

    def waits(self, digest: str, now: datetime) -> bool:
        """Whether it is too early."""
        known = self._next.get(digest)
        return known is not None and now < known[0]

    def failed(self, digest: str, now: datetime) -> None:
        """It could not be judged now."""
        known = self._next.get(digest)
        pause = timedelta(seconds=10) if known is None else min(2 * known[1], timedelta(hours=1))
        self._next[digest] = now + pause, pause


def open_for(connection: Connection, index: int, now: datetime) -> str | None:
    """The newest challenge of that entry, while it can be met or was opened within a day."""
    query = select(challenges.c.digest).where(challenges.c.entry == index, challenges.c.deadline > now)
    return connection.execute(query.limit(1)).scalar_one_or_none()


def is_drawn(connection: Connection, day: str) -> bool:
    """Whether the day has its challenge."""
    return connection.execute(select(challenges.c.place).where(challenges.c.day == day)).first() is not None


def check_room(connection: Connection, now: datetime, most: int) -> None:
    """Pass while fewer than `most` entries were asked for today (UTC).

    Raises:
        QuotaExceeded: there were as many; says when there will be room.
    """
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    query = select(func.count()).where(challenges.c.entry.is_not(None), challenges.c.opened >= midnight)
    if connection.execute(query).scalar_one() >= most:
        left = midnight + timedelta(days=1) - now
        raise QuotaExceeded(
            f"{most} challenges a day are taken from outside, and today had as many; ask again after "
            "midnight, UTC.",
            retry_after=max(1, round(left.total_seconds())),
        )


def unjudged(connection: Connection, since: datetime) -> list[str]:
    """Digests of the challenges without a verdict, oldest first.

    Args:
        connection: to the database.
        since: older ones are given up.
    """
    query = select(challenges.c.digest).where(challenges.c.verdict.is_(None), challenges.c.opened >= since)
    return list(connection.execute(query.order_by(challenges.c.opened)).scalars())


def unshown(connection: Connection, size: int) -> list[str]:
    """Digests of lots that a log of `size` entries has, and no cosigned checkpoint is kept of."""
    query = select(challenges.c.digest).where(
        challenges.c.verdict.is_(None),
        challenges.c.shown.is_(None),
        challenges.c.day.is_not(None),
        challenges.c.place < size,
    )
    return list(connection.execute(query).scalars())


def show(connection: Connection, digests: list[str], note: bytes) -> None:
    """Keep a cosigned checkpoint that has these challenges."""
    if digests:
        wanted = challenges.c.digest.in_(digests) & challenges.c.shown.is_(None)
        connection.execute(update(challenges).where(wanted).values(shown=note))


def shown(connection: Connection, digest: str) -> bytes | None:
    """The cosigned checkpoint that is kept of a challenge."""
    query = select(challenges.c.shown).where(challenges.c.digest == digest)
    note: bytes | None = connection.execute(query).scalar_one()
    return note


def judge(connection: Connection, verdict: Verdict) -> None:
    """Log a verdict, unless there is one."""
    judged = datetime.fromisoformat(verdict.judged)
    given = update(challenges).where(challenges.c.digest == verdict.challenge, challenges.c.verdict.is_(None))
    digest = sha256(verdict.content)
    if connection.execute(given.values(verdict=digest, judged=judged)).rowcount:
        log_document(connection, "verdict", verdict.content)


def newest(connection: Connection, now: datetime) -> tuple[ChallengeView, ...]:
    """The newest challenges, newest first."""
    query = select(challenges).order_by(challenges.c.opened.desc(), challenges.c.place.desc())
    return tuple(_view(row, now) for row in connection.execute(query.limit(MOST_SHOWN)))


def view_of(connection: Connection, digest: str, now: datetime) -> ChallengeView | None:
    """One challenge."""
    row = connection.execute(select(challenges).where(challenges.c.digest == digest)).one_or_none()
    return None if row is None else _view(row, now)


def count_outcomes(connection: Connection, now: datetime) -> ChallengeCounts:
    """All challenges by their outcome."""
    met = challenges.c.judged <= challenges.c.deadline
    still = challenges.c.judged.is_(None) & (challenges.c.deadline > now)
    sums = [func.sum(case((each, 1), else_=0)) for each in (met, still)]
    whole, met_in_time, waiting = connection.execute(select(func.count(challenges.c.digest), *sums)).one()
    done, left = int(met_in_time or 0), int(waiting or 0)
    return ChallengeCounts(open=left, met=done, missed=whole - done - left)


def _view(row: Row[Any], now: datetime) -> ChallengeView:
    return ChallengeView(
        digest=row.digest,
        place=row.place,
        index=row.entry,
        opened=rfc3339(row.opened),
        deadline=rfc3339(row.deadline),
        verdict=row.verdict,
        judged=None if row.judged is None else rfc3339(row.judged),
        outcome=_outcome(row.judged, row.deadline, now),
    )


def _outcome(judged: datetime | None, deadline: datetime, now: datetime) -> Outcome:
    if judged is None:
        return "open" if now < deadline else "missed"
    return "met" if judged <= deadline else "missed"
