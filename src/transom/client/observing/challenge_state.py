"""What a monitor knows of the challenges of a log: when it saw them first, and what came of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

TABLES = """
CREATE TABLE IF NOT EXISTS looks (one INTEGER PRIMARY KEY CHECK (one = 1), last REAL);
CREATE TABLE IF NOT EXISTS sizes (minute INTEGER PRIMARY KEY, size INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS challenges (digest TEXT PRIMARY KEY, place INTEGER NOT NULL, seen REAL NOT NULL,
    absent REAL, opened REAL, beacon TEXT, verdict TEXT, outcome TEXT, settled INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS verdicts (digest TEXT PRIMARY KEY, place INTEGER NOT NULL, absent REAL,
    challenge TEXT);
CREATE TABLE IF NOT EXISTS faults (challenge TEXT NOT NULL, alert TEXT NOT NULL, message TEXT NOT NULL,
    PRIMARY KEY (challenge, alert, message));
"""

Outcome: TypeAlias = Literal["met", "missed", "refuted", "unreplayed"]

Fault: TypeAlias = "tuple[str, str]"
"""The kind of an alert, and its message."""

_KEPT_MINUTES = 3 * 24 * 60


@dataclass(frozen=True, slots=True)
class KnownChallenge:
    """A challenge that has an entry."""

    digest: str
    place: int
    seen: float
    """Unix seconds at which its entry was seen first."""
    absent: float | None
    """Unix seconds of the last look at which it was not there yet; None where there was none before."""
    verdict: str | None
    """Digest of the first verdict on it."""


@dataclass(frozen=True, slots=True)
class KnownVerdict:
    """A verdict that has an entry."""

    digest: str
    place: int
    absent: float | None
    """As of a challenge."""


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
            query = "INSERT OR IGNORE INTO challenges (digest, place, seen, absent) VALUES (?, ?, ?, ?)"
            self._database.execute(query, (digest, place, now, self._last))
        else:
            query = "INSERT OR IGNORE INTO verdicts (digest, place, absent) VALUES (?, ?, ?)"
            self._database.execute(query, (digest, place, self._last))

    def looked(self, began: float, size: int) -> None:
        """Remember that all was read of a log that had so many entries at that time."""
        minute = int(began // 60)
        self._database.execute("INSERT OR REPLACE INTO looks VALUES (1, ?)", (began,))
        self._database.execute("INSERT OR IGNORE INTO sizes VALUES (?, ?)", (minute, size))
        self._database.execute("DELETE FROM sizes WHERE minute < ?", (minute - _KEPT_MINUTES,))

    @property
    def _last(self) -> float | None:
        found = self._database.execute("SELECT last FROM looks").fetchone()
        return None if found is None else float(found[0])

    def size_before(self, seconds: float) -> int:
        """How many entries the log is known to have had at a time."""
        query = "SELECT coalesce(max(size), 0) FROM sizes WHERE minute < ?"
        ((size,),) = self._database.execute(query, (int(seconds // 60),))
        return int(size)

    def unread(self) -> list[KnownVerdict]:
        """Verdicts of which is not known yet what they are on, oldest first."""
        query = "SELECT digest, place, absent FROM verdicts WHERE challenge IS NULL ORDER BY place"
        return [KnownVerdict(*row) for row in self._database.execute(query)]

    def read(self, verdict: str, challenge: str) -> bool:
        """Remember what a verdict is on; the first in the log counts.

        Returns:
            Whether it is the only one on it so far.
        """
        self._database.execute("UPDATE verdicts SET challenge = ? WHERE digest = ?", (challenge, verdict))
        query = "SELECT digest FROM verdicts WHERE challenge = ? ORDER BY place"
        all_of_it = [digest for (digest,) in self._database.execute(query, (challenge,))]
        query = "UPDATE challenges SET verdict = ? WHERE digest = ?"
        self._database.execute(query, (all_of_it[0], challenge))
        return len(all_of_it) == 1

    def unsettled(self) -> list[KnownChallenge]:
        """Challenges of which it is not known for good what came of them, oldest first."""
        query = "SELECT digest, place, seen, absent, verdict FROM challenges WHERE NOT settled ORDER BY place"
        return [KnownChallenge(*row) for row in self._database.execute(query)]

    def verdict(self, digest: str) -> KnownVerdict:
        """A verdict that is known."""
        query = "SELECT digest, place, absent FROM verdicts WHERE digest = ?"
        return KnownVerdict(*self._database.execute(query, (digest,)).fetchone())

    def opened(self, digest: str, opened: float, beacon: str | None) -> None:
        """Remember what a challenge says of itself; what is after it was seen is not believed."""
        query = "UPDATE challenges SET opened = min(?, seen), beacon = ? WHERE digest = ?"
        self._database.execute(query, (opened, beacon, digest))

    def judge(self, digest: str, outcome: Outcome | None) -> None:
        """Remember what has come of a challenge so far; None while it is open."""
        self._database.execute("UPDATE challenges SET outcome = ? WHERE digest = ?", (outcome, digest))

    def settle(self, digest: str, faults: Iterable[Fault]) -> None:
        """What has come of a challenge is known for good, with all that is wrong with it."""
        self._database.execute("UPDATE challenges SET settled = 1 WHERE digest = ?", (digest,))
        for fault in faults:
            self.add_fault(digest, fault)

    def add_fault(self, challenge: str, fault: Fault) -> None:
        """Remember what is wrong with a challenge, to be told at each look."""
        query = "INSERT OR IGNORE INTO faults VALUES (?, ?, ?)"
        self._database.execute(query, (challenge, *fault))

    def faults(self) -> list[tuple[str, int, str, str]]:
        """(digest, place, kind, message) of what is wrong with challenges for good."""
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

    def beacons(self) -> list[str]:
        """Names of the beacons that lots were drawn by."""
        query = "SELECT DISTINCT beacon FROM challenges WHERE beacon IS NOT NULL ORDER BY beacon"
        return [beacon for (beacon,) in self._database.execute(query)]

    def newest_draw(self) -> float | None:
        """Unix seconds at which lots were drawn last; None where they never were."""
        ((found,),) = self._database.execute("SELECT max(opened) FROM challenges WHERE beacon IS NOT NULL")
        return None if found is None else float(found)

    def outcomes(self) -> Iterable[tuple[str, int]]:
        """How many challenges came to which outcome, `open` among them."""
        query = "SELECT coalesce(outcome, 'open'), count(*) FROM challenges GROUP BY 1 ORDER BY 1"
        return [(str(outcome), int(count)) for outcome, count in self._database.execute(query)]
