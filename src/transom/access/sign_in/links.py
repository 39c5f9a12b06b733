"""One-time links: a secret goes to an address, and who brings it back reads that address's mail.

A link is bound to where it was asked for. A browser that asks gets a cookie, and the link works in that
browser alone; a command line gets none, and the link yields a token, which no browser takes for a session.
So nobody can be signed in to somebody else's account by a link that was sent to them.

Beside the link there is a short code, for who reads mail on another machine than the one they sign in on. It
counts only together with the id that the asker was told, and for a few tries.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, delete, insert, select, update

from transom.access.credentials.keys import LINK, mint, parse
from transom.access.credentials.peppers import PepperSource
from transom.access.sign_in.sessions import Carrier
from transom.errors import Unauthenticated
from transom.storage.tables import sign_in_links as links

LIFETIME = timedelta(minutes=15)
MOST_WRONG_CODES = 5

_CODE_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32: no letter that looks like another, or like a digit."""
_CODE_LENGTH = 8
_MISREAD = str.maketrans("OIL", "011")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLink:
    """A link just made: the only moment at which its secrets exist on the server."""

    id: str
    """What the asker is told; it says nothing of the secrets."""
    token: str = field(repr=False)
    code: str = field(repr=False)
    expires: datetime


@dataclass(frozen=True, slots=True)
class Proof:
    """What somebody brings: the token of the link, or its id and the code."""

    token: str | None = field(default=None, repr=False)
    link_id: str | None = None
    code: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Proven:
    """What a link that was used up proves."""

    email: str
    person_id: str | None
    """Who wants the address as theirs; None for signing in."""
    next: str | None


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a link was not taken. Returned and not raised, so that the count of wrong codes is kept."""

    message: str
    code: str = LINK.code

    def error(self) -> Unauthenticated:
        """What to raise once the write is done."""
        return Unauthenticated(self.message, code=self.code)


_UNKNOWN = Refused("The link or code is wrong, used or too old: ask for a new one.")
_ELSEWHERE = Refused(
    "This link was asked for somewhere else. Open it in the browser that asked for it, or enter the code "
    "from the mail where you asked.",
    code="asked_elsewhere",
)


def _now() -> datetime:
    return datetime.now(UTC)


class LinkStore:
    """The links that are out. Its methods are steps of a write that somebody else began.

    Args:
        peppers: the keys of the hashes that are kept.
        clock: the time, in UTC.
    """

    def __init__(self, peppers: PepperSource, *, clock: Callable[[], datetime] = _now) -> None:
        self._peppers = peppers
        self._clock = clock

    def make(
        self,
        connection: Connection,
        email: str,
        *,
        browser: str | None,
        person_id: str | None = None,
        next_path: str | None = None,
    ) -> NewLink:
        """A new link for an address. Links that are out already stay good.

        Nothing is looked up: it is the same work for an address that is known here and one that is not.

        Args:
            connection: of the write.
            email: in its normal spelling.
            browser: the secret in the cookie of the browser that asks; None for a command line.
            person_id: who wants the address as theirs; None for signing in.
            next_path: where to go afterwards, on this site.
        """
        key, code = mint(LINK), "".join(secrets.choice(_CODE_LETTERS) for _ in range(_CODE_LENGTH))
        version, now = self._peppers.latest().current, self._clock()
        row = {
            "id": key.id,
            "email": email,
            "mac": self._peppers.latest().mac(key.body, version),
            "code_mac": self._peppers.latest().mac(_code_body(key.id, code), version),
            "browser_mac": None
            if browser is None
            else self._peppers.latest().mac(browser_body(browser), version),
            "pepper_version": version,
            "person_id": person_id,
            "next": next_path,
            "wrong_codes": 0,
            "expires": (expires := now + LIFETIME),
        }
        connection.execute(delete(links).where(links.c.expires <= now))
        connection.execute(insert(links).values(row))
        return NewLink(id=key.id, token=key.text, code=f"{code[:4]}-{code[4:]}", expires=expires)

    def redeem(
        self,
        connection: Connection,
        proof: Proof,
        *,
        carrier: Carrier,
        browser: str | None,
        person_id: str | None = None,
    ) -> Proven | Refused:
        """Use a link up, once.

        Args:
            connection: of the write.
            proof: what was brought.
            carrier: how the session is to travel: a link that a browser asked for makes cookies only, and
                one that a command line asked for tokens only.
            browser: the secret in the browser's cookie.
            person_id: who brings it, where it is to prove an address as theirs; None for signing in.

        Raises:
            Unauthenticated: the token is malformed.
        """
        key = None if proof.token is None else parse(proof.token, LINK)
        link_id = (proof.link_id or "") if key is None else key.id
        body = _code_body(link_id, _normal_code(proof.code or "")) if key is None else key.body
        row = connection.execute(select(links).where(links.c.id == link_id)).mappings().one_or_none()
        right = self._proves(row, "mac" if key else "code_mac", body)
        here = self._is_here(row, carrier, browser)
        if row is None or not right or not self._open(row) or row["person_id"] != person_id:
            self._count_wrong(connection, link_id)
            return _UNKNOWN
        if not here:
            return _ELSEWHERE
        return self._use(connection, row)

    def _use(self, connection: Connection, row: RowMapping) -> Proven | Refused:
        """The guard stands in the update: of two that come at once, one finds no row."""
        used = update(links).where(links.c.id == row["id"], self._unused()).values(used=self._clock())
        if connection.execute(used).rowcount != 1:
            return _UNKNOWN
        return Proven(row["email"], row["person_id"], row["next"])

    def _open(self, row: RowMapping) -> bool:
        return (
            row["used"] is None and self._clock() < row["expires"] and row["wrong_codes"] < MOST_WRONG_CODES
        )

    def _unused(self) -> ColumnElement[bool]:
        return and_(
            links.c.used.is_(None),
            links.c.expires > self._clock(),
            links.c.wrong_codes < MOST_WRONG_CODES,
        )

    def _count_wrong(self, connection: Connection, link_id: str) -> None:
        """Done whatever was wrong, a link that does not exist included: the same work for all."""
        more = update(links).where(links.c.id == link_id).values(wrong_codes=links.c.wrong_codes + 1)
        connection.execute(more)

    def _proves(self, row: RowMapping | None, column: str, body: str) -> bool:
        mac, version = (None, None) if row is None else (row[column], row["pepper_version"])
        return self._peppers.latest().proves(body, mac, version)

    def _is_here(self, row: RowMapping | None, carrier: Carrier, browser: str | None) -> bool:
        """Whether the link was asked for by this browser, or by a command line and this is one."""
        same = self._proves(row, "browser_mac", browser_body(browser or ""))
        bound = row is not None and row["browser_mac"] is not None
        return (same and carrier == "cookie") if bound else carrier == "token"


def browser_body(secret: str) -> str:
    """What is hashed of a browser's cookie."""
    return f"tb_{secret}"


def _code_body(link_id: str, code: str) -> str:
    return f"tl_code {link_id} {code}"


def _normal_code(text: str) -> str:
    """A code as it was made, from what people type: any case, with or without the dash."""
    return text.upper().replace("-", "").replace(" ", "").translate(_MISREAD)
