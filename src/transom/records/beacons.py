"""Public beacons: chance that nobody can foresee and everybody can look up, for the lots of challenges.

Either a chain of drand behind any relay (https://docs.drand.love, `/info` and `/public/{round}`), or, where
there is no network, a file to which somebody adds a line a day: a date, and what the dice said in hex.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import httpx2

from transom.errors import ConfigurationError
from transom.schema.drand import PREFIX, SCHEME, Chain, Spoken

AHEAD = timedelta(minutes=10)
"""So long before a round a challenge is opened: its entry is published, and cosigned, before that comes."""

_TIMEOUT = httpx2.Timeout(10)
_LINE = re.compile(r"(\d{4}-\d{2}-\d{2})[ \t]+((?:[0-9a-f]{2}){16,64})")
_MOST_BYTES = 1 << 20
_RELAY = re.compile("(https?://.+)/([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Word:
    """What a beacon said in a round."""

    value: bytes
    spoken: Spoken | None = None
    """What shows that it said so; None of a file, which cannot show it."""


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

    async def word(self, round_name: str) -> Word | None:
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
        relay = _RELAY.fullmatch(spelled.rstrip("/"))
        if relay is None or re.search("[@?#]", spelled):
            raise ConfigurationError(
                "TRANSOM_BEACON is the address of a relay of drand that ends with the hash of a chain, "
                "without user, query or fragment: https://api.drand.sh/52db9ba70e0cc0f6eaf7803dd07447a1f5477735fd3f661"
                "792ba94600c84e971 is quicknet."
            )
        return Drand(relay[1], relay[2])
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

    async def word(self, round_name: str) -> Word | None:
        """What was drawn for a date."""
        value = self._read().get(round_name)
        return None if value is None else Word(value)

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
    """A chain of drand behind a relay, of which nothing is believed that the chain has not signed.

    Args:
        relay: address above that of the chain.
        chain: its hash.
        transport: in the place of the network, for tests.
    """

    def __init__(self, relay: str, chain: str, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self._url = f"{relay}/{chain}"
        self._hash = chain
        self._transport = transport
        self._chain: Chain | None = None

    @property
    def name(self) -> str:
        """That of the chain: any relay will do to look its words up."""
        return f"{PREFIX}{self._hash}"

    async def upcoming(self, now: datetime) -> str:
        """The first round that is more than ten minutes away."""
        chain = await self._known()
        return str(chain.round_after((now + AHEAD).timestamp()))

    async def word(self, round_name: str) -> Word | None:
        """Its randomness, 32 bytes, with the signature that it is made of."""
        chain, number = await self._known(), int(round_name)
        said = await self._get(f"public/{number}")
        if said is None or said.get("round") != number:
            return None
        spoken = Spoken.model_validate({"chain": chain, "signature": said.get("signature")})
        return Word(await asyncio.to_thread(spoken.word, number), spoken)

    async def _known(self) -> Chain:
        """The chain, whose facts have the hash that the operator set."""
        if self._chain is None:
            info = await self._get("info")
            self._chain = _chain_of(info or {}, self._hash)
        return self._chain

    async def _get(self, path: str) -> dict[str, Any] | None:
        async with httpx2.AsyncClient(timeout=_TIMEOUT, transport=self._transport) as client:
            reply = await client.get(f"{self._url}/{path}")
        if reply.status_code in (404, 425):
            return None  # the round has not come
        reply.raise_for_status()
        found = reply.json()
        if not isinstance(found, dict):
            raise ValueError("the beacon does not answer in JSON objects")  # noqa: TRY004  # it is one to callers
        return found


def _chain_of(info: dict[str, Any], expected: str) -> Chain:
    """The chain that a relay tells of.

    Raises:
        ValueError: it is another, or of a scheme that is not understood.
    """
    if info.get("schemeID") != SCHEME:
        raise ValueError(f"the chain is of the scheme {info.get('schemeID')!r}, and {SCHEME} is understood")
    metadata = info.get("metadata")
    facts = {
        "public_key": info.get("public_key"),
        "period": info.get("period"),
        "genesis_time": info.get("genesis_time"),
        "group_hash": info.get("groupHash"),
        "beacon_id": metadata.get("beaconID") if isinstance(metadata, dict) else None,
    }
    chain = Chain.model_validate(facts)
    if chain.hash != expected:
        raise ValueError(f"the relay tells of the chain {chain.hash}, and not of {expected}")
    return chain
