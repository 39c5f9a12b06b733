"""People at the door: signed in by their names, with letters that are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx2
from fastapi import Request

from tests.http.door import Door
from tests.offices import ADA, ADDRESSES, BOB, EVE, Letters
from transom.access.people.persons import PersonCaller
from transom.errors import Unauthenticated
from transom.schema.scopes import ALL_SCOPES

BEN = PersonCaller("per_ben")
PEOPLE = {
    "ada": ADA,
    "bob": BOB,
    "eve": EVE,
    "ben": BEN,
    "ria": PersonCaller("per_ria", frozenset({"reviewer"})),
    "rob": PersonCaller("per_rob", frozenset({"reviewer"})),
    "oli": PersonCaller("per_oli", frozenset({"operator"})),
}


async def by_name(request: Request) -> PersonCaller:
    """The person behind `Bearer ts_<name>`, in the place of sign-in."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    name = token.removeprefix("ts_")
    if scheme != "Bearer" or name == token or name not in PEOPLE:
        raise Unauthenticated("Nobody is signed in.")
    return PEOPLE[name]


def session(name: str) -> dict[str, str]:
    """The headers of somebody's requests."""
    return {"authorization": f"Bearer ts_{name}"}


@dataclass
class Lobby:
    """A door, and the people before it."""

    door: Door
    letters: Letters

    async def ask(self, who: str, method: str, path: str, **more: Any) -> httpx2.Response:
        headers = session(who) | more.pop("headers", {})
        return await self.door.client.request(method, path, headers=headers, **more)

    async def project(self, who: str = "ada", **fields: Any) -> str:
        reply = await self.ask(who, "POST", "/v1/projects", json={"name": "Lenses"} | fields)
        assert reply.status_code == 201, reply.text
        project = reply.json()["id"]
        # The tier that is granted at once.
        asked = {"project": project, "tier": "open", "purpose": "Is there a light?"}
        draft = (await self.ask(who, "POST", "/v1/applications", json=asked)).json()
        act = {"version": draft["version"]}
        granted = await self.ask(who, "POST", f"/v1/applications/{draft['id']}/submit", json=act)
        assert granted.json()["grant"], granted.text
        return project

    async def key(self, project: str, who: str = "ada", **fields: Any) -> dict[str, Any]:
        reply = await self.ask(who, "POST", "/v1/keys", json={"project": project} | fields)
        assert reply.status_code == 201, reply.text
        return reply.json()

    async def complete(self, key: str) -> httpx2.Response:
        body = {"model": "fake", "prompt": "The light", "max_tokens": 1}
        headers = {"authorization": f"Bearer {key}"}
        return await self.door.client.post("/v1/completions", json=body, headers=headers)


def open_lobby(door: Door) -> Lobby:
    letters, office = Letters(), door.house.office
    office.mailer = letters
    office.email_of = lambda _connection, person_id: ADDRESSES.get(person_id)
    office.grant_scopes = lambda _connection, _project_id, _now: ALL_SCOPES
    return Lobby(door, letters)


def error_of(reply: httpx2.Response, status: int) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    return reply.json()["error"]
