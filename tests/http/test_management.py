"""Projects, keys, terms and rights over HTTP: who is let in, what is answered, and what a key then may."""

from __future__ import annotations

import json
import re

import pytest

from tests.http.people import by_name, error_of, open_lobby
from tests.offices import ADA, BOB, OPERATOR
from transom.api import dependencies
from transom.services.people import suspensions, terms

pytestmark = pytest.mark.anyio

SCOPES = ["model:sample", "records:read"]
NOBODY = "prj_" + "0" * 22
DOORS = [
    ("POST", "/v1/projects", {"name": "Lenses"}),
    ("GET", "/v1/projects", None),
    ("GET", f"/v1/projects/{NOBODY}", None),
    ("PATCH", f"/v1/projects/{NOBODY}", {}),
    ("DELETE", f"/v1/projects/{NOBODY}?confirm=x", None),
    ("GET", f"/v1/projects/{NOBODY}/export", None),
    ("GET", f"/v1/projects/{NOBODY}/members", None),
    ("PUT", f"/v1/projects/{NOBODY}/members/per_1", {"role": "admin"}),
    ("DELETE", f"/v1/projects/{NOBODY}/members/per_1", None),
    ("POST", f"/v1/projects/{NOBODY}/transfer", {"person_id": "per_1"}),
    ("POST", f"/v1/projects/{NOBODY}/invitations", {"email": "bob@example.org"}),
    ("GET", f"/v1/projects/{NOBODY}/invitations", None),
    ("DELETE", f"/v1/projects/{NOBODY}/invitations/x", None),
    ("POST", "/v1/invitations/accept", {"invitation": "ti_x"}),
    ("POST", "/v1/invitations/decline", {"invitation": "ti_x"}),
    ("POST", "/v1/keys", {"project": NOBODY}),
    ("GET", "/v1/keys", None),
    ("POST", "/v1/keys/x/rotate", {}),
    ("DELETE", "/v1/keys/x", None),
    ("GET", "/v1/terms/standing", None),
    ("POST", "/v1/terms/terms-1/accept", None),
    ("GET", "/v1/trail", None),
]
IDS = [f"{method} {path}" for method, path, _ in DOORS]


@pytest.fixture
def lobby(own_door, monkeypatch):
    monkeypatch.setattr(dependencies, "person_of", by_name)
    return open_lobby(own_door)


@pytest.mark.parametrize(("method", "path", "body"), DOORS, ids=IDS)
async def test_a_key_is_no_session(door, method, path, body):
    """As long as there is no sign-in, the door is closed to everybody, and a key does not open it."""
    error_of(await door.client.request(method, path, json=body), 401)


@pytest.mark.parametrize(("method", "path", "body"), DOORS, ids=IDS)
async def test_a_session_of_nobody_is_refused_before_the_body_is_read(lobby, method, path, body):
    reply = await lobby.ask("mallory", method, path, content=b"{" if body is not None else None)
    error_of(reply, 401)


@pytest.mark.parametrize(("method", "path", "body"), DOORS, ids=IDS)
async def test_a_query_that_is_not_known_is_refused(lobby, method, path, body):
    joint = "&" if "?" in path else "?"
    reply = await lobby.ask("ada", method, f"{path}{joint}colour=red", json=body)
    assert error_of(reply, 400)["param"] == "colour"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [door for door in DOORS if NOBODY in door[1] and "/members/" not in door[1]],
    ids=[f"{method} {path}" for method, path, _ in DOORS if NOBODY in path and "/members/" not in path],
)
async def test_a_foreign_project_is_not_found(lobby, method, path, body):
    theirs = await lobby.project("bob")
    for project in (NOBODY, theirs):
        assert error_of(await lobby.ask("ada", method, path.replace(NOBODY, project), json=body), 404)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/projects", {}, "name"),
        ("/v1/projects", {"name": ""}, "name"),
        ("/v1/projects", {"name": " "}, "name"),
        ("/v1/projects", {"name": "a\nb"}, "name"),
        ("/v1/projects", {"name": "x" * 201}, "name"),
        ("/v1/projects", {"name": "Lenses", "embargo_months": 4}, "embargo_months"),
        ("/v1/projects", {"name": "Lenses", "embargo_months": True}, "embargo_months"),
        ("/v1/projects", {"name": "Lenses", "owner": "per_1"}, "owner"),
        ("/v1/keys", {"project": "x", "days": 0}, "days"),
        ("/v1/keys", {"project": "x", "scopes": "model:sample"}, "scopes"),
        ("/v1/keys", {"project": "x", "quotas": {"tokens": 1}}, "quotas.tokens"),
        ("/v1/keys", {"project": "x", "quotas": {"tokens_per_day": -1}}, "quotas.tokens_per_day"),
        ("/v1/keys", {"project": "x", "person_id": "per_1"}, "person_id"),
        ("/v1/keys/x/rotate", {"grace_seconds": -1}, "grace_seconds"),
        ("/v1/invitations/accept", {}, "invitation"),
    ],
)
async def test_a_wrong_field_is_named(lobby, path, body, param):
    assert error_of(await lobby.ask("ada", "POST", path, json=body), 400)["param"] == param


async def test_from_a_project_to_an_answer(lobby):
    project = await lobby.project(embargo_months=3)
    key = await lobby.key(project, name="notebook", scopes=SCOPES, quotas={"tokens_per_day": 9})
    assert key["key"].startswith(f"tr_{key['id']}_")
    assert (key["project_id"], key["person_id"]) == (project, ADA.person_id)
    answer = await lobby.complete(key["key"])
    assert answer.status_code == 200
    record = answer.headers["x-transom-record"]
    shown = await lobby.door.client.get(
        f"/v1/records/{record}", headers={"authorization": f"Bearer {key['key']}"}
    )
    assert shown.json()["project"] == project
    (listed,) = (await lobby.ask("ada", "GET", "/v1/keys")).json()["data"]
    assert listed.keys() == key.keys() - {"key"}
    assert (sorted(listed["scopes"]), listed["quotas"]) == (SCOPES, {"tokens_per_day": 9})


async def test_a_key_is_in_no_cache(lobby):
    project = await lobby.project()
    made = await lobby.ask("ada", "POST", "/v1/keys", json={"project": project})
    rotated = await lobby.ask("ada", "POST", f"/v1/keys/{made.json()['id']}/rotate", json={})
    for reply in (made, rotated):
        assert reply.headers["cache-control"] == "no-store"


async def test_a_key_that_was_rotated_says_when_it_ends_in_every_answer(lobby):
    key = await lobby.key(await lobby.project())
    assert "x-transom-key-retires" not in (await lobby.complete(key["key"])).headers
    body = {"grace_seconds": 60}
    new = (await lobby.ask("ada", "POST", f"/v1/keys/{key['id']}/rotate", json=body)).json()
    (old, _) = (await lobby.ask("ada", "GET", "/v1/keys")).json()["data"]
    assert (old["successor"], old["id"]) == (new["id"], key["id"])
    answer = await lobby.complete(key["key"])
    assert (answer.status_code, answer.headers["x-transom-key-retires"]) == (200, old["retires"])
    headers = {"authorization": f"Bearer {key['key']}"}
    refused = await lobby.door.client.post("/v1/completions", json={"colour": 1}, headers=headers)
    assert (refused.status_code, refused.headers["x-transom-key-retires"]) == (400, old["retires"])
    assert "x-transom-key-retires" not in (await lobby.complete(new["key"])).headers


async def test_a_revoked_key_is_refused_at_once(lobby):
    key = await lobby.key(await lobby.project())
    assert (await lobby.complete(key["key"])).status_code == 200
    revoked = await lobby.ask("ada", "DELETE", f"/v1/keys/{key['id']}")
    assert revoked.json()["revoked"] is not None
    assert error_of(await lobby.complete(key["key"]), 401)["code"] == "invalid_api_key"


async def test_a_suspended_key_is_refused_with_the_reason_and_the_project_shows_it(lobby):
    project = await lobby.project()
    key = await lobby.key(project)
    await suspensions.suspend(lobby.door.house.office, OPERATOR, f"key:{key['id']}", "It was public.")
    error = error_of(await lobby.complete(key["key"]), 403)
    assert (error["code"], error["layer"]) == ("suspended", "access")
    assert "It was public." in error["message"]
    (shown,) = (await lobby.ask("ada", "GET", f"/v1/projects/{project}")).json()["suspensions"]
    assert (shown["subject"], shown["reason"]) == (f"key:{key['id']}", "It was public.")
    assert [letter.to for letter in lobby.letters.kept] == ["ada@example.org"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"model": "fake", "prompt": "hi", "max_tokens": 1}),
        ("/v1/chat/completions", {"model": "fake", "messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/records/{record}/replay", None),
    ],
)
async def test_until_terms_are_accepted_nothing_new_is_asked_and_what_was_is_read(lobby, path, body):
    key = await lobby.key(await lobby.project())
    record = (await lobby.complete(key["key"])).headers["x-transom-record"]
    await terms.publish(lobby.door.house.office, OPERATOR, "terms", "Be kind.")
    headers = {"authorization": f"Bearer {key['key']}"}

    async def ask():
        return await lobby.door.client.post(path.format(record=record), json=body, headers=headers)

    error = error_of(await ask(), 403)
    assert (error["code"], error["layer"]) == ("terms_not_accepted", "access")
    assert "/v1/terms/terms-1/accept" in error["message"]
    assert (await lobby.door.client.get(f"/v1/records/{record}", headers=headers)).status_code == 200
    assert (await lobby.ask("ada", "GET", "/v1/terms/standing")).json()["asked"] == ["terms-1"]
    assert (await lobby.ask("bob", "POST", "/v1/terms/terms-1/accept")).status_code == 200
    error_of(await ask(), 403)
    assert (await lobby.ask("ada", "POST", "/v1/terms/terms-1/accept")).status_code == 200
    assert (await ask()).status_code == 200


async def test_terms_are_read_by_everybody(lobby):
    made = await terms.publish(lobby.door.house.office, OPERATOR, "terms", "Be kind.")
    for path in ("/v1/terms/terms-1", "/v1/terms"):
        reply = await lobby.ask("mallory", "GET", path)
        found = reply.json() if path.endswith("1") else reply.json()["data"][0]
        assert (found["text"], found["digest"]) == ("Be kind.", made.digest)
    error_of(await lobby.ask("mallory", "GET", "/v1/terms/terms-9"), 404)


async def test_an_invitation_is_accepted_from_the_letter(lobby):
    project = await lobby.project()
    body = {"email": "bob@example.org", "role": "admin"}
    made = await lobby.ask("ada", "POST", f"/v1/projects/{project}/invitations", json=body)
    assert made.status_code == 201
    (secret,) = re.findall(r"ti_\w+", lobby.letters.kept[0].text)
    assert secret not in made.text
    (listed,) = (await lobby.ask("ada", "GET", f"/v1/projects/{project}/invitations")).json()["data"]
    assert listed == made.json()
    error_of(await lobby.ask("eve", "POST", "/v1/invitations/accept", json={"invitation": secret}), 404)
    joined = await lobby.ask("bob", "POST", "/v1/invitations/accept", json={"invitation": secret})
    assert (joined.json()["id"], joined.json()["role"]) == (project, "admin")
    members = (await lobby.ask("bob", "GET", f"/v1/projects/{project}/members")).json()["data"]
    assert [(each["person_id"], each["role"]) for each in members] == [
        (ADA.person_id, "owner"),
        (BOB.person_id, "admin"),
    ]


async def test_members_are_changed_removed_and_leave(lobby):
    project = await lobby.project()
    for name in ("bob", "eve"):
        body = {"email": f"{name}@example.org"}
        await lobby.ask("ada", "POST", f"/v1/projects/{project}/invitations", json=body)
        secret = re.findall(r"ti_\w+", lobby.letters.kept[-1].text)[0]
        await lobby.ask(name, "POST", "/v1/invitations/accept", json={"invitation": secret})
    path = f"/v1/projects/{project}/members/{BOB.person_id}"
    error_of(await lobby.ask("bob", "PUT", path, json={"role": "owner"}), 403)
    error_of(await lobby.ask("eve", "DELETE", path), 403)
    assert (await lobby.ask("ada", "PUT", path, json={"role": "admin"})).status_code == 200
    error_of(await lobby.ask("ada", "DELETE", f"/v1/projects/{project}/members/{ADA.person_id}"), 409)
    handed = await lobby.ask(
        "ada", "POST", f"/v1/projects/{project}/transfer", json={"person_id": BOB.person_id}
    )
    assert handed.json()["role"] == "admin"
    gone = await lobby.ask("ada", "DELETE", f"/v1/projects/{project}/members/{ADA.person_id}")
    assert (gone.status_code, gone.content) == (204, b"")
    error_of(await lobby.ask("ada", "GET", f"/v1/projects/{project}"), 404)


async def test_a_project_is_changed_archived_exported_and_deleted(lobby):
    project = await lobby.project()
    key = await lobby.key(project)
    await lobby.complete(key["key"])
    changed = await lobby.ask("ada", "PATCH", f"/v1/projects/{project}", json={"archived": True})
    assert changed.json()["archived"] is not None
    # What has been verified is believed for a second.
    lobby.door.house.keys.forget()
    assert error_of(await lobby.complete(key["key"]), 409)["code"] == "conflict"
    export = await lobby.ask("ada", "GET", f"/v1/projects/{project}/export")
    assert export.headers["content-type"].startswith("application/x-ndjson")
    lines = [json.loads(line) for line in export.text.splitlines()]
    assert [line["kind"] for line in lines].count("record") == 1
    error_of(await lobby.ask("ada", "DELETE", f"/v1/projects/{project}"), 400)
    error_of(await lobby.ask("ada", "DELETE", f"/v1/projects/{project}?confirm=lenses"), 400)
    gone = await lobby.ask("ada", "DELETE", f"/v1/projects/{project}?confirm=Lenses")
    assert gone.json() == {"id": project, "openings": 1, "artifacts": 0}
    error_of(await lobby.complete(key["key"]), 401)
    assert (await lobby.ask("ada", "GET", "/v1/projects")).json() == {"data": []}


async def test_the_trail_is_read_in_pages(lobby):
    project = await lobby.project()
    for _ in range(3):
        await lobby.key(project)
    first = (await lobby.ask("ada", "GET", "/v1/trail?limit=3")).json()
    assert [each["action"] for each in first["data"]] == ["key.create"] * 3
    second = (await lobby.ask("ada", "GET", f"/v1/trail?limit=3&before={first['before']}")).json()
    assert [each["action"] for each in second["data"]] == [
        "application.approve",
        "grant.create",
        "application.submit",
    ]
    third = (await lobby.ask("ada", "GET", f"/v1/trail?before={second['before']}")).json()
    assert (third["data"][-1]["action"], third["before"]) == ("project.create", None)
    assert third["data"][0]["number"] < second["data"][-1]["number"]
    assert (await lobby.ask("eve", "GET", "/v1/trail")).json() == {"data": [], "before": None}


@pytest.mark.parametrize("name", ["ada'; DROP TABLE projects; --", '"><script>', "\u202eevil", "\U0001f600"])
async def test_a_name_is_a_name_and_nothing_more(lobby, name):
    project = await lobby.project(name=name)
    assert (await lobby.ask("ada", "GET", f"/v1/projects/{project}")).json()["name"] == name


@pytest.mark.parametrize(
    "address",
    ["/v1/models?api_key={key}", "/v1/keys/{key}", "/nowhere?x={spelled}", "/v1/records/{key}?x=1"],
)
async def test_a_key_in_an_address_is_refused_whatever_else_is_right_and_not_told_again(lobby, address):
    key = (await lobby.key(await lobby.project()))["key"]
    path = address.format(key=key, spelled=key.replace("_", "%5F"))
    error = error_of(await lobby.door.client.get(path), 400)
    assert error["code"] == "secret_in_url"
    assert "revoke" in error["message"]
    assert key.split("_")[2] not in json.dumps(error)
