"""Public beacons: chance that nobody can foresee and everybody can look up, for the lots of challenges.

Either a beacon in the form of drand (https://drand.love/docs, `/info` and `/public/{round}`), or, where
there is no network, a file to which somebody adds a line a day: a date, and what the dice said in hex.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import httpx2

from transom.errors import ConfigurationError

AHEAD = timedelta(minutes=10)
"""So long before a round a challenge is opened: its entry is published, and cosigned, before that comes."""

_TIMEOUT = httpx2.Timeout(10)
_LINE = re.compile(r"(\d{4}-\d{2}-\d{2})[ \t]+((?:[0-9a-f]{2}){16,64})")
_MOST_BYTES = 1 << 20


class Beacon(Protocol):
    """Where lots come from."""

    @property
    def name(self) -> str:
        """By which others find it."""
        ...

    async def upcoming(self, now: datetime) -> str:
        """A round that has yet to come.

        Raises:
            OSError, ValueError, httpx2.HTTPError: it cannot be asked now.
        """
        ...

    async def value(self, round_name: str) -> bytes | None:
        """What it said in that round; None while it has not.

        Raises:
            OSError, ValueError, httpx2.HTTPError: it cannot be asked now.
        """
        ...


def open_beacon(spelled: str) -> Beacon:
    """The beacon at an address, or in a file.

    Raises:
        ConfigurationError: it is neither.
    """
    if re.match("https?://", spelled):
        if re.search("[@?#]", spelled):
            raise ConfigurationError("TRANSOM_BEACON is public: an address without user, query or fragment")
        return Drand(spelled.rstrip("/"))
    path = Path(spelled)
    if not path.parent.is_dir():
        raise ConfigurationError(f"TRANSOM_BEACON is neither an address nor a file in a folder: {spelled!r}")
    return BeaconFile(path)


class BeaconFile:
    """Lines of a date and of what was drawn for it; there need not be any yet."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def name(self) -> str:
        """The name of the file, and not its place."""
        return f"file:{self._path.name}"

    async def upcoming(self, now: datetime) -> str:
        """Today, if nothing is drawn for it; else tomorrow."""
        today = now.astimezone(UTC).date()
        known = self._read()
        return next(day for day in (f"{today + timedelta(days=n)}" for n in range(400)) if day not in known)

    async def value(self, round_name: str) -> bytes | None:
        """What was drawn for a date."""
        return self._read().get(round_name)

    def _read(self) -> dict[str, bytes]:
        try:
            with self._path.open("rb") as file:
                text = file.read(_MOST_BYTES).decode("ascii", "replace")
        except FileNotFoundError:
            return {}
        found: dict[str, bytes] = {}
        for line in text.splitlines():
            if match := _LINE.fullmatch(line.strip()):
                # The first word counts: what was drawn is not drawn again.
                found.setdefault(match[1], bytes.fromhex(match[2]))
        return found


class Drand:
    """A chain of drand behind its HTTP interface."""

    def __init__(self, url: str, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self._url = url
        self._transport = transport

    @property
    def name(self) -> str:
        """Its address."""
        return self._url

    async def upcoming(self, now: datetime) -> str:
        """The first round that is more than ten minutes away."""
        info = await self._get("info")
        if info is None:
            raise ValueError("the beacon has no chain")
        genesis, period = int(info["genesis_time"]), int(info["period"])
        return str(int((now + AHEAD).timestamp() - genesis) // period + 2)

    async def value(self, round_name: str) -> bytes | None:
        """Its randomness, 32 bytes."""
        said = await self._get(f"public/{int(round_name)}")
        if said is None or str(said["round"]) != round_name:
            return None
        value = bytes.fromhex(said["randomness"])
        if len(value) != 32:
            raise ValueError("the beacon's randomness has 32 bytes")
        return value

    async def _get(self, path: str) -> dict[str, str] | None:
        async with httpx2.AsyncClient(timeout=_TIMEOUT, transport=self._transport) as client:
            reply = await client.get(f"{self._url}/{path}")
        if reply.status_code in (404, 425):
            return None  # the round has not come
        reply.raise_for_status()
        try:
            found: dict[str, str] = reply.json()
            return found | {}
        except TypeError as error:
            raise ValueError("the beacon does not answer in JSON objects") from error
