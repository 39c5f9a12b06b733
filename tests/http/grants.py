"""People with projects, grants and keys, made as people make them, but for the mail."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

import httpx2

from tests.http.door import Door
from transom.access.people.persons import PersonCaller
from transom.access.sign_in.entrance import Visitor
from transom.access.sign_in.identities import Claim
from transom.schema.applications import Act, NewApplication
from transom.schema.keys import NewKeyBody
from transom.schema.projects import NewProject
from transom.services.people import keys, projects
from transom.services.programme import applications

PROGRAMME = """
name = "Test programme"
contact = "desk@example.org"
terms = "terms-1"

[tiers.open]
title = "Open"
review = false
scopes = ["model:sample", "model:logprobs", "model:score", "records:read"]
duration_days = 90
[tiers.open.quotas]
requests_per_minute = 5
tokens_per_minute = 300
requests_in_flight = 2
tokens_total = 400

[tiers.wide]
title = "Wide"
review = false
scopes = ["model:sample", "model:logprobs", "model:score", "model:bias", "records:read", "records:replay"]
duration_days = 90

[tiers.vectors]
title = "Whole distributions"
review = false
scopes = [
  "model:sample", "model:logprobs", "model:score", "model:bias", "model:distributions",
  "records:read", "records:replay",
]
duration_days = 90

[tiers.bare]
title = "Without a budget of information"
review = false
scopes = ["model:sample", "model:logprobs", "model:score", "model:bias", "model:distributions"]
duration_days = 90
[tiers.bare.quotas]
released_rank = 1_000_000_000

[tiers.elsewhere]
title = "Another model"
review = false
scopes = ["model:sample"]
models = ["another"]
duration_days = 90
"""
_numbers = count()


@dataclass
class Holder:
    """Somebody with a key in a project with a grant."""

    door: Door
    person: PersonCaller
    project: str
    grant: str | None
    key: str

    async def ask(self, path: str = "/v1/completions", **body) -> httpx2.Response:
        headers = {"authorization": f"Bearer {self.key}"}
        body = {"model": "fake", "prompt": "The light", "max_tokens": 2} | body
        return await self.door.client.post(path, json=body, headers=headers)

    async def get(self, path: str) -> httpx2.Response:
        return await self.door.client.get(path, headers={"authorization": f"Bearer {self.key}"})

    async def usage(self, budget: str, kind: str) -> int:
        limits = (await self.get("/v1/usage")).json()["limits"]
        (found,) = [
            each for each in limits if each["budget"] == budget and each["account"].startswith(kind + ":")
        ]
        return found["used"]

    async def another_key(self, **fields) -> Holder:
        made = await keys.create(
            self.door.house.office, self.person, NewKeyBody(project=self.project, **fields)
        )
        return Holder(self.door, self.person, self.project, self.grant, made.key)


async def holder(door: Door, tier: str | None = "open", person: PersonCaller | None = None) -> Holder:
    """A person, new unless one is given, with a project, its grant of a tier (or none), and a key."""
    house = door.house
    if person is None:
        claim = Claim("https://id.example.org", str(next(_numbers)))
        session = await house.entrance.by_claim(claim, Visitor(carrier="token"))
        person = PersonCaller(session.person.id)
    project = (await projects.create(house.office, person, NewProject(name="Lenses"))).id
    grant = None
    if tier is not None:
        asked = NewApplication(project=project, tier=tier, purpose="Why?")
        draft = await applications.create(house, person, asked)
        grant = (await applications.submit(house, person, draft.id, Act(version=draft.version))).grant
    made = await keys.create(house.office, person, NewKeyBody(project=project))
    return Holder(door, person, project, grant, made.key)
