"""Applications, reviews and grants by HTTP: from nothing to a grant, and who is turned away."""

from __future__ import annotations

import json

import pytest

from tests.http.people import by_name, session
from tests.http.programme_people import PROJECT, add_project
from tests.offices import ADA
from transom.access.programme.grants import grant_for
from transom.access.programme.programme import default_text, parse
from transom.api import dependencies
from transom.schema.scopes import SCOPES

pytestmark = pytest.mark.anyio

ASK = {"project": PROJECT, "tier": "open", "purpose": "Why is the sky blue?"}
STUDY = ASK | {
    "tier": "research",
    "method": "Ask a thousand times.",
    "conflicts": "none",
    "ethics": "none",
    "institution": "Telltale Institute",
}
CRITERIA = parse(default_text()).tier("research").criteria


class Hall:
    """Sends requests as people."""

    def __init__(self, door):
        self.door, self.seen = door, []

    async def ask(self, who, method, path, body=None):
        reply = await self.door.client.request(method, path, json=body, headers=session(who))
        self.seen.append((who, reply))
        return reply

    async def get(self, who, path):
        reply = await self.ask(who, "GET", path)
        assert reply.status_code == 200, reply.text
        return reply.json()

    async def draft(self, who="ada", **body):
        reply = await self.ask(who, "POST", "/v1/applications", ASK | body)
        assert reply.status_code == 201, reply.text
        return reply.json()

    async def act(self, who, application, what, status=200, **body):
        body = {"version": application["version"]} | body
        reply = await self.ask(who, "POST", f"/v1/applications/{application['id']}/{what}", body)
        assert reply.status_code == status, reply.text
        return reply.json()

    async def in_review(self, **body):
        application = await self.act("ada", await self.draft(**STUDY | body), "submit")
        return await self.act("ria", application, "start-review")


@pytest.fixture
async def hall(own_door, monkeypatch):
    monkeypatch.setattr(dependencies, "person_of", by_name)
    add_project(own_door.house.desk.database)
    return Hall(own_door)


async def test_from_nothing_to_a_grant_in_the_instant_tier(hall):
    draft = await hall.draft()
    assert (draft["state"], draft["may"]) == ("draft", ["edit", "submit", "withdraw"])
    granted = await hall.act("ada", draft, "submit")
    assert granted["state"] == "approved"
    grant = await hall.get("ben", f"/v1/grants/{granted['grant']}")
    assert (grant["state"], grant["tier"], grant["project"]) == ("in_force", "open", PROJECT)
    assert grant["quotas"]["tokens_total"] == 2_000_000
    assert (await hall.get("ada", "/v1/grants"))["data"] == [grant]
    found = await hall.door.house.desk.read(lambda c, occasion: grant_for(c, PROJECT, occasion.now))
    assert found.id == grant["id"]


async def test_a_study_is_reviewed_changed_granted_in_part_and_reported_on(hall):
    application = await hall.in_review()
    application = await hall.act("ria", application, "ask-changes", reason="How many are a thousand?")
    path = f"/v1/applications/{application['id']}"
    reply = await hall.ask("ada", "PATCH", path, {"version": application["version"], "method": "1,000."})
    application = await hall.act("ada", reply.json(), "submit")
    (waiting,) = (await hall.get("rob", "/v1/reviews"))["data"]
    assert waiting["id"] == application["id"]
    application = await hall.act("rob", application, "start-review")
    refused = await hall.act("rob", application, "approve", 400, met=CRITERIA[:1])
    assert refused["error"]["param"] == "met"
    approved = await hall.act(
        "rob", application, "approve", met=CRITERIA, quotas={"tokens_total": 5}, reason="a pilot"
    )
    grant = await hall.get("ada", f"/v1/grants/{approved['grant']}")
    assert grant["quotas"]["tokens_total"] == 5
    reply = await hall.ask("ada", "POST", f"/v1/grants/{grant['id']}/progress", {"report": "done"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "conflict")
    reply = await hall.ask("oli", "POST", f"/v1/grants/{grant['id']}/end", {"reason": "over"})
    assert (reply.status_code, reply.json()["state"]) == (200, "ended")


async def test_two_who_decide_at_once_learn_it_by_409(hall):
    application = await hall.in_review()
    await hall.act("ria", application, "decline", reason="no")
    lost = await hall.act("rob", application, "approve", 409, met=CRITERIA)
    assert (lost["error"]["param"], lost["error"]["type"]) == ("version", "conflict_error")
    assert "declined" in lost["error"]["message"]


async def test_what_is_not_possible_says_what_is(hall):
    application = await hall.act("ada", await hall.draft(**STUDY), "submit")
    refused = await hall.act("rob", application, "approve", 403, met=CRITERIA)
    assert refused["error"]["code"] == "permission_denied"
    refused = await hall.act("rob", application, "decline", 409, reason="no")
    assert "start review" in refused["error"]["message"]


async def test_a_blind_reviewer_is_sent_no_byte_of_who_asks(hall):
    """Every reply to a reviewer, refusals and headers too, until the decision."""
    application = await hall.act("ada", await hall.draft(**STUDY), "submit")
    path = f"/v1/applications/{application['id']}"
    for who in ("ada", "ben"):
        await hall.act(who, application, "comment", version=None, text="about the pages")
    await hall.get("ria", "/v1/reviews")
    await hall.get("ria", path)
    taken = await hall.act("ria", application, "start-review")
    await hall.act("ria", taken, "comment", version=None, text="noted")
    for what, status, body in (
        ("approve", 409, {"version": 1}),
        ("approve", 400, {}),
        ("approve", 400, {"met": CRITERIA, "models": ["never asked"]}),
        ("approve", 400, {"met": CRITERIA, "quotas": {"tokens_total": 2**50}}),
        ("submit", 409, {}),
        ("withdraw", 403, {}),
        ("appeal", 409, {"reason": "x"}),
        ("decline", 400, {}),
    ):
        await hall.act("ria", taken, what, status, **body)
    await hall.ask("ria", "PATCH", path, {"version": taken["version"], "purpose": "x"})
    await hall.ask("ria", "GET", f"/v1/grants?project={PROJECT}")
    await hall.get("ria", "/v1/applications")
    await hall.get("ria", "/v1/programme/statistics")
    asked = await hall.act("ria", taken, "ask-changes", reason="pages?")
    reply = await hall.ask("ada", "PATCH", path, {"version": asked["version"], "funding": "a fund"})
    again = await hall.act("ada", reply.json(), "submit")
    last = await hall.act("ria", again, "start-review")
    sent = [repr(reply.headers.raw).encode() + reply.content for who, reply in hall.seen if who == "ria"]
    assert len(sent) == 18
    for secret in (ADA.person_id.encode(), b"per_ben", PROJECT.encode(), b"Telltale", b"telltale"):
        assert [body for body in sent if secret in body] == []
    decided = await hall.act("ria", last, "approve", met=CRITERIA)
    assert (decided["applicant"], decided["asked"]["institution"]) == (ADA.person_id, "Telltale Institute")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/applications", None),
        ("POST", "/v1/applications", ASK),
        ("GET", "/v1/applications/app_x", None),
        ("PATCH", "/v1/applications/app_x", {"version": 1}),
        ("POST", "/v1/applications/app_x/submit", {"version": 1}),
        ("POST", "/v1/applications/app_x/approve", {"version": 1}),
        ("GET", "/v1/reviews", None),
        ("GET", "/v1/grants", None),
        ("GET", "/v1/grants/grt_x", None),
        ("POST", "/v1/grants/grt_x/end", {"reason": "x"}),
    ],
)
async def test_a_key_or_nothing_opens_no_door_for_people(hall, method, path, body):
    for headers in ({}, {"authorization": ""}):
        reply = await hall.door.client.request(method, path, json=body, headers=headers)
        assert reply.status_code == 401, reply.text
        assert "app_x" not in reply.text


async def test_nobodys_body_is_read_before_they_are_known(hall):
    async def never():
        raise AssertionError("the body was read")
        yield b""

    headers = {"content-type": "application/json", "content-length": "9", "authorization": "Bearer no"}
    reply = await hall.door.client.post("/v1/applications", content=never(), headers=headers)
    assert reply.status_code == 401


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"tier": "platinum"}, "tier", "invalid_value"),
        ({"kind": "appeal"}, "kind", "invalid_value"),
        ({"embargo_months": 5}, "embargo_months", "invalid_value"),
        ({"ends": "31.12.2026"}, "ends", "invalid_value"),
        ({"ends": 1800000000}, "ends", "invalid_value"),
        ({"ends": "2026-02-30"}, "ends", "invalid_value"),
        ({"quotas": {"tokens": 5}}, "quotas.tokens", "unknown_parameter"),
        ({"quotas": {"tokens_total": "5"}}, "quotas.tokens_total", "invalid_value"),
        ({"quotas": {"tokens_total": -1}}, "quotas.tokens_total", "invalid_value"),
        ({"scopes": "some"}, "scopes", "invalid_value"),
        ({"purpose": "x" * 20_001}, "purpose", "invalid_value"),
        ({"proposal": "x"}, "proposal", "unknown_parameter"),
        ({"project": None}, "project", "missing_parameter"),
        ({"state": "approved"}, "state", "unknown_parameter"),
    ],
    ids=lambda part: str(part)[:40],
)
async def test_a_wrong_field_is_named(hall, body, param, code):
    reply = await hall.ask("ada", "POST", "/v1/applications", ASK | body)
    assert reply.status_code == 400, reply.text
    assert (reply.json()["error"]["param"], reply.json()["error"]["code"]) == (param, code)


async def test_null_is_absent(hall):
    nothing = dict.fromkeys(("method", "scopes", "models", "quotas", "starts", "ends", "embargo_months"))
    draft = await hall.draft(**nothing)
    assert (draft["asked"]["scopes"], draft["asked"]["method"]) == ("all", "")


@pytest.mark.parametrize("who", ["eve", "ria"])
async def test_other_peoples_projects_are_not_there(hall, who):
    reply = await hall.ask(who, "POST", "/v1/applications", ASK)
    unknown = await hall.ask(who, "POST", "/v1/applications", ASK | {"project": "prj_nowhere"})
    assert reply.status_code == unknown.status_code == 404
    told = unknown.text.replace("prj_nowhere", PROJECT)
    assert reply.text == told
    draft = await hall.draft()
    reply = await hall.ask(who, "GET", f"/v1/applications/{draft['id']}")
    unknown = await hall.ask(who, "GET", "/v1/applications/app_nothing")
    assert reply.status_code == unknown.status_code == 404
    assert reply.text == unknown.text.replace("app_nothing", draft["id"])


async def test_a_list_is_paged_newest_first(hall):
    made = [(await hall.draft())["id"] for _ in range(5)]
    seen, after = [], None
    while True:
        page = await hall.get("ben", "/v1/applications?limit=2" + (f"&after={after}" if after else ""))
        seen += [each["id"] for each in page["data"]]
        after = page["after"]
        if after is None:
            break
    assert seen == made[::-1]
    assert (await hall.get("eve", "/v1/applications"))["data"] == []
    reply = await hall.ask("eve", "GET", f"/v1/applications?after={made[0]}")
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "after")


async def test_an_appeal_answers_with_the_appeal(hall):
    declined = await hall.act("ria", await hall.in_review(), "decline", reason="no")
    appeal = await hall.act("ada", declined, "appeal", 201, reason="look again")
    assert (appeal["kind"], appeal["appeal_of"], appeal["state"]) == ("appeal", declined["id"], "submitted")
    refused = await hall.act("ria", appeal, "start-review", 403)
    assert "somebody else" in refused["error"]["message"]


async def test_everybody_may_read_what_is_offered(own_door):
    bare = {"authorization": ""}
    offered = (await own_door.client.get("/v1/programme", headers=bare)).json()
    assert [tier["name"] for tier in offered["tiers"]] == ["open", "research", "extended"]
    assert offered["tiers"][1]["criteria"] == CRITERIA
    assert offered["digest"] == parse(default_text()).digest
    scopes = (await own_door.client.get("/v1/scopes", headers=bare)).json()
    assert scopes == offered["scopes"]
    assert [scope["name"] for scope in scopes] == list(SCOPES)
    assert scopes[0]["allows"] == SCOPES["model:sample"].allows


async def test_everybody_may_read_the_numbers_and_nobody_is_in_them(hall):
    await hall.act("ada", await hall.draft(), "submit")
    await hall.act("ria", await hall.in_review(), "decline", reason="no")
    reply = await hall.door.client.get("/v1/programme/statistics", headers={"authorization": ""})
    tiers = {tier["tier"]: tier for tier in reply.json()["tiers"]}
    assert (tiers["open"]["asked"], tiers["open"]["granted"]) == (1, 1)
    assert (tiers["research"]["asked"], tiers["research"]["declined"]) == (1, 1)
    assert tiers["research"]["median_days_to_decide"] == "0.00"
    for secret in ("per_", "prj_", "app_", "grt_", "Telltale"):
        assert secret not in json.dumps(reply.json())


async def test_without_sign_in_the_doors_for_people_are_shut(own_door):
    reply = await own_door.client.get("/v1/applications", headers=session("ada"))
    assert reply.status_code == 401


async def test_the_programmes_version_is_in_the_trail_from_the_start(own_door):
    from transom.access.programme.programme import adopted

    assert await own_door.house.desk.database.read(adopted) == own_door.house.desk.programme.digest
