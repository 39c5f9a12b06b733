"""What a monitor knows of the challenges of a log: when it saw them first, and what came of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

TABLES = """
CREATE TABLE IF NOT EXISTS looks (one INTEGER PRIMARY KEY CHECK (one = 1), last REAL);
CREATE TABLE IF NOT EXISTS challenges (digest TEXT PRIMARY KEY, place INTEGER NOT NULL, seen REAL NOT NULL,
    opened REAL, drawn INTEGER, verdict TEXT, outcome TEXT);
CREATE TABLE IF NOT EXISTS verdicts (digest TEXT PRIMARY KEY, place INTEGER NOT NULL, absent REAL,
    challenge TEXT);
CREATE TABLE IF NOT EXISTS faults (challenge TEXT NOT NULL, alert TEXT NOT NULL, message TEXT NOT NULL);
"""

Outcome: TypeAlias = Literal["met", "missed", "refuted"]


@dataclass(frozen=True, slots=True)
class KnownChallenge:
    """A challenge that has an entry."""

    digest: str
    place: int
    seen: float
    """Unix seconds at which its entry was seen first."""
    verdict: str | None
    """Digest of the first verdict on it."""


@dataclass(frozen=True, slots=True)
class KnownVerdict:
    """A verdict that has an entry."""

    digest: str
    place: int
    absent: float | None
    """Unix seconds of the last look at which it was not there yet; None where there was none before."""


class ChallengeState:
    """The part of a monitor's state that is about challenges.

    Args:
        database: of the state; whoever holds it begins the transactions.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def add(self, kind: Literal["challenge", "verdict"], digest: str, place: int, now: float) -> None:
        """Remember an entry that is new."""
        if kind == "challenge":
            query = "INSERT OR IGNORE INTO challenges (digest, place, seen) VALUES (?, ?, ?)"
            self._database.execute(query, (digest, place, now))
        else:
            query = "INSERT OR IGNORE INTO verdicts (digest, place, absent) VALUES (?, ?, ?)"
            self._database.execute(query, (digest, place, self._last))

    def looked(self, now: float) -> None:
        """Remember that all that was there at that time has been read."""
        self._database.execute("INSERT OR REPLACE INTO looks VALUES (1, ?)", (now,))

    @property
    def _last(self) -> float | None:
        found = self._database.execute("SELECT last FROM looks").fetchone()
        return None if found is None else float(found[0])

    def unread(self) -> list[KnownVerdict]:
        """Verdicts of which is not known yet what they are on, oldest first."""
        query = "SELECT digest, place, absent FROM verdicts WHERE challenge IS NULL ORDER BY place"
        return [KnownVerdict(*row) for row in self._database.execute(query)]

    def read(self, verdict: str, challenge: str) -> None:
        """Remember what a verdict is on; the first one counts."""
        self._database.execute("UPDATE verdicts SET challenge = ? WHERE digest = ?", (challenge, verdict))
        first = "UPDATE challenges SET verdict = ? WHERE digest = ? AND verdict IS NULL"
        self._database.execute(first, (verdict, challenge))

    def unsettled(self) -> list[KnownChallenge]:
        """Challenges of which nothing came yet, oldest first."""
        query = "SELECT digest, place, seen, verdict FROM challenges WHERE outcome IS NULL ORDER BY place"
        return [KnownChallenge(*row) for row in self._database.execute(query)]

    def verdict(self, digest: str) -> KnownVerdict:
        """A verdict that is known."""
        query = "SELECT digest, place, absent FROM verdicts WHERE digest = ?"
        return KnownVerdict(*self._database.execute(query, (digest,)).fetchone())

    def opened(self, digest: str, opened: float, *, is_drawn: bool) -> None:
        """Remember what a challenge says of itself."""
        query = "UPDATE challenges SET opened = ?, drawn = ? WHERE digest = ?"
        self._database.execute(query, (opened, is_drawn, digest))

    def settle(self, digest: str, outcome: Outcome, faults: Iterable[tuple[str, str]]) -> None:
        """Remember what came of a challenge, with kinds and messages of what is wrong with it."""
        self._database.execute("UPDATE challenges SET outcome = ? WHERE digest = ?", (outcome, digest))
        rows = [(digest, *fault) for fault in faults]
        self._database.executemany("INSERT INTO faults VALUES (?, ?, ?)", rows)

    def faults(self) -> list[tuple[str, int, str, str]]:
        """(digest, place, kind, message) of what is wrong with challenges that were settled."""
        query = (
            "SELECT digest, place, alert, message FROM faults JOIN challenges ON digest = challenge "
            "ORDER BY place, faults.rowid"
        )
        return list(self._database.execute(query))

    def were_shown(self) -> bool:
        """Whether a challenge or a verdict could be read once."""
        query = (
            "SELECT EXISTS (SELECT 1 FROM challenges WHERE opened IS NOT NULL) "
            "OR EXISTS (SELECT 1 FROM verdicts WHERE challenge IS NOT NULL)"
        )
        ((shown,),) = self._database.execute(query)
        return bool(shown)

    def newest_draw(self) -> float | None:
        """Unix seconds at which lots were drawn last; None where they never were."""
        ((found,),) = self._database.execute("SELECT max(opened) FROM challenges WHERE drawn")
        return None if found is None else float(found)

    def outcomes(self) -> Iterable[tuple[str, int]]:
        """How many challenges came to which outcome, `open` among them."""
        query = "SELECT coalesce(outcome, 'open'), count(*) FROM challenges GROUP BY 1 ORDER BY 1"
        return [(str(outcome), int(count)) for outcome, count in self._database.execute(query)]
