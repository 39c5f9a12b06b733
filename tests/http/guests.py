"""People at the door: browsers and programs, their mailbox, and a clock that moves when it is told to."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from tests.http.door import Door, open_door
from transom.access.people.mail import KeptMail, MailFolder

SITE = "https://transom.example.org"
ADA = "ada@example.org"


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **length: float) -> None:
        self.now += timedelta(**length)


class Guest:
    """Somebody with a client of their own: a browser keeps cookies and says where it is."""

    def __init__(self, street: Street, *, browser: bool, **headers: str) -> None:
        said = {"user-agent": "browser/1" if browser else "program/1"}
        if browser:
            said |= {"origin": street.site, "sec-fetch-site": "same-origin", "x-transom-csrf": "1"}
        transport = httpx2.ASGITransport(app=street.door.app, raise_app_exceptions=False)
        self.client = httpx2.AsyncClient(transport=transport, base_url=street.site, headers=said | headers)
        self.street = street
        self.carrier = "cookie" if browser else "token"

    async def post(self, path: str, body: Any = None, **more: Any) -> httpx2.Response:
        return await self.client.post(path, json=body, **more)

    async def get(self, path: str, **more: Any) -> httpx2.Response:
        return await self.client.get(path, **more)

    async def ask(self, email: str = ADA, **more: Any) -> httpx2.Response:
        return await self.post("/v1/auth/links", {"email": email, "session": self.carrier} | more)

    async def redeem(self, **proof: str) -> httpx2.Response:
        return await self.post("/v1/auth/links/redeem", {"session": self.carrier} | proof)

    async def sign_in(self, email: str = ADA) -> dict[str, Any]:
        """By a link; a program sends its session from then on."""
        assert (await self.ask(email)).status_code == 202
        reply = await self.redeem(token=token_in(await self.street.last_mail(email.strip().lower())))
        assert reply.status_code == 200, reply.text
        if self.carrier == "token":
            self.client.headers["authorization"] = f"Bearer {reply.json()['token']}"
        return reply.json()

    async def me(self) -> dict[str, Any]:
        reply = await self.get("/v1/account")
        assert reply.status_code == 200, reply.text
        return reply.json()

    @property
    def session_cookie(self) -> str | None:
        for name in ("__Host-transom_session", "transom_session"):
            if (value := self.client.cookies.get(name)) is not None:
                return value
        return None


class Street:
    """The door, and everybody before it."""

    def __init__(self, door: Door, clock: Clock, site: str, mails: MailFolder) -> None:
        self.door, self.clock, self.site, self._mails = door, clock, site, mails
        self._guests: list[Guest] = []

    def browser(self, **headers: str) -> Guest:
        return self._guest(browser=True, **headers)

    def program(self, **headers: str) -> Guest:
        return self._guest(browser=False, **headers)

    async def mails(self) -> list[KeptMail]:
        await self.door.house.settle()
        return self._mails.list_mails()

    async def last_mail(self, email: str = ADA) -> KeptMail:
        return [mail for mail in await self.mails() if mail.to == email][-1]

    def _guest(self, **more: Any) -> Guest:
        self._guests.append(Guest(self, **more))
        return self._guests[-1]

    async def leave(self) -> None:
        for guest in self._guests:
            await guest.client.aclose()


def token_in(mail: KeptMail) -> str:
    return re.search(r"#(tl_\w+)", mail.text)[1]


def code_in(mail: KeptMail) -> str:
    return re.search(r"^ {4}([0-9A-Z]{4}-[0-9A-Z]{4})$", mail.text, re.MULTILINE)[1]


def error_of(reply: httpx2.Response, status: int) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    return reply.json()["error"]


@asynccontextmanager
async def open_street(home, tokenizer, *, site: str = SITE, **more: Any) -> AsyncIterator[Street]:
    clock = Clock()
    async with open_door(home, tokenizer, clock=clock, public_url=site, **more) as door:
        mails = MailFolder(home / "mail", clock=clock)
        street = Street(door, clock, site, mails)
        yield street
        await street.leave()


@pytest.fixture
async def street(tokenizer, tmp_path):
    """A street of the test's own."""
    async with open_street(tmp_path, tokenizer) as street:
        yield street
