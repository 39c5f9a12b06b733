"""A key with everything that a researcher's key has: an own limit, a person, a project, a grant, pools.

The operator's own key has no limits, and would leave out what a gateway spends most on.
"""

from __future__ import annotations

from transom.access.people.persons import PersonCaller
from transom.access.sign_in.entrance import Visitor
from transom.access.sign_in.identities import Claim
from transom.app import create_app
from transom.backends.base import Backend
from transom.config import Settings
from transom.schema.applications import Act, NewApplication
from transom.schema.budgets import Quotas
from transom.schema.keys import NewKeyBody
from transom.schema.projects import NewProject
from transom.services.house import House
from transom.services.people import keys, projects
from transom.services.programme import applications

# The tier and the pools of the programme that the server comes with, with room for all that is sent.
PROGRAMME = """
name = "Benchmark"
contact = "nobody"
terms = "none"

[tiers.open]
title = "Open"
review = false
scopes = ["model:sample", "model:logprobs", "model:score", "records:read", "records:replay"]
duration_days = 90
[tiers.open.quotas]
requests_per_minute = 10_000_000
tokens_per_minute = 10_000_000_000
tokens_per_day = 100_000_000_000
requests_in_flight = 100_000
tokens_total = 1_000_000_000_000
engine_seconds = 1_000_000_000
internals_bytes = 1_000_000
released_rank = 64

[pools.tier.open]
tokens_per_minute = 10_000_000_000

[pools.model.{model}]
requests_in_flight = 100_000

[pools.person]
requests_in_flight = 100_000
"""
_OF_THE_KEY = Quotas(requests_per_minute=5_000_000)


async def make_key(settings: Settings, backend: Backend) -> str:
    """A key in a project with a grant, made as people make one; writes the programme into the home folder."""
    settings.home.mkdir(parents=True, exist_ok=True)
    model = backend.served.name
    settings.programme_file.write_text(PROGRAMME.format(model=model), encoding="utf-8")
    app = create_app(settings, backends={model: backend})
    async with app.router.lifespan_context(app):
        return await _apply(app.state.house)


async def _apply(house: House) -> str:
    claim = Claim("https://id.example.org", "somebody")
    somebody = PersonCaller((await house.entrance.by_claim(claim, Visitor(carrier="token"))).person.id)
    project = (await projects.create(house.office, somebody, NewProject(name="Benchmark"))).id
    asked = NewApplication(project=project, tier="open", purpose="How fast is it?")
    draft = await applications.create(house, somebody, asked)
    await applications.submit(house, somebody, draft.id, Act(version=draft.version))
    return (await keys.create(house.office, somebody, NewKeyBody(project=project, quotas=_OF_THE_KEY))).key
