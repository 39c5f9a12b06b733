"""Who is let in: only keys that are whole, known and alive, and nobody else unless the operator says so."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.http.door import HELLO, MODEL, open_door
from transom.access.credentials.keys import NO_KEY, mint

pytestmark = pytest.mark.anyio

DOORS = [
    ("POST", "/v1/completions", {"model": MODEL, "prompt": "hi", "max_tokens": 1}),
    ("POST", "/v1/chat/completions", {"model": MODEL, "messages": HELLO, "max_tokens": 1}),
    ("POST", "/tokenize", {"model": MODEL, "prompt": "hi"}),
    ("POST", "/detokenize", {"model": MODEL, "tokens": [5]}),
    ("GET", "/tokenizer_info", None),
    ("GET", "/v1/models", None),
    ("GET", f"/v1/models/{MODEL}", None),
    ("GET", "/v1/records", None),
    ("GET", "/v1/records/rec_" + "0" * 26, None),
    ("POST", "/v1/records/rec_" + "0" * 26 + "/replay", None),
    ("POST", "/v1/records/replay", {"ids": ["rec_" + "0" * 26]}),
    ("POST", "/v1/score", {"model": MODEL, "prompt": "hi", "completion": "ho"}),
]
DOORS += [(method, f"/models/{MODEL}{path}", body) for method, path, body in DOORS]


async def knock(door, authorization: str | None, method="POST", path="/tokenize", body=None):
    body = body or ({"model": MODEL, "prompt": "hi"} if path.endswith("/tokenize") else None)
    door.client.headers.pop("authorization", None)
    headers = {} if authorization is None else {"authorization": authorization}
    try:
        return await door.client.request(method, path, json=body, headers=headers)
    finally:
        door.client.headers["authorization"] = f"Bearer {door.key}"


def assert_refused(reply) -> str:
    assert reply.status_code == 401, reply.text
    assert reply.headers["www-authenticate"] == "Bearer"
    error = reply.json()["error"]
    assert (error["code"], error["layer"]) == ("invalid_api_key", "access")
    assert error["type"] == "authentication_error"
    return error["message"]


@pytest.mark.parametrize(("method", "path", "body"), DOORS, ids=[f"{m} {p}" for m, p, _ in DOORS])
async def test_without_a_key_every_path_but_the_service_ones_is_closed(door, method, path, body):
    assert_refused(await knock(door, None, method, path, body))


@pytest.mark.parametrize("path", ["/health", "/ready", "/openapi.json"])
async def test_the_services_own_paths_need_no_key(door, path):
    assert (await knock(door, None, "GET", path)).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        "Basic dXNlcjpwYXNz",
        "Token tr_abc",
        "tr_" + "a" * 22 + "_" + "b" * 49,
        "BearerX tr_abc",
        "Negotiate",
    ],
)
async def test_another_scheme_is_refused_by_its_form(door, header):
    assert "Bearer" in assert_refused(await knock(door, header))


@pytest.mark.parametrize(
    "text",
    [
        "sk-12345",
        "tr_",
        "tr_short_short",
        "tr_" + "a" * 22 + "_" + "b" * 48,
        "tr_" + "a" * 22 + "_" + "b" * 50,
        "tr_" + "!" * 22 + "_" + "b" * 49,
        "x" * 4000,
        "empty",
        "\xe9\xff",
    ],
)
async def test_a_malformed_key_is_refused(door, text):
    assert "malformed" in assert_refused(await knock(door, b"Bearer " + text.encode("latin-1")))


async def test_a_mistyped_key_is_told_so(door):
    last = "1" if door.key[-1] == "0" else "0"
    assert "checksum" in assert_refused(await knock(door, f"Bearer {door.key[:-1]}{last}"))


async def test_an_unknown_key_is_refused(door):
    assert "unknown" in assert_refused(await knock(door, f"Bearer {mint().text}"))


async def test_the_anonymous_schemes_do_not_pass_where_there_is_no_anonymous_tier(door):
    for text in ["", *(f"Bearer {word}" for word in sorted(NO_KEY))]:
        assert_refused(await knock(door, text))


async def test_a_revoked_key_is_refused_at_once(own_door):
    assert (await knock(own_door, f"Bearer {own_door.key}")).status_code == 200
    await own_door.house.keys.revoke(own_door.key.split("_")[1])
    assert "revoked" in assert_refused(await knock(own_door, f"Bearer {own_door.key}"))


async def test_an_expired_key_is_refused(own_door):
    past = datetime.now(UTC) - timedelta(seconds=1)
    key = (await own_door.house.keys.create(expires_at=past)).text
    assert "expired" in assert_refused(await knock(own_door, f"Bearer {key}"))


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_a_good_key_is_let_in_however_the_scheme_is_spelled(door, scheme):
    assert (await knock(door, f"{scheme} {door.key}")).status_code == 200


async def test_a_refused_request_leaves_no_record(own_door):
    method, path, body = DOORS[0]
    assert_refused(await knock(own_door, None, method, path, body))
    assert own_door.backend.taken == []
    assert (await own_door.client.get("/v1/records")).json()["data"] == []


class TestAnonymousTier:
    @pytest.fixture
    async def open_house(self, tokenizer, tmp_path):
        async with open_door(tmp_path, tokenizer, allow_anonymous=True) as door:
            yield door

    @pytest.mark.parametrize("header", [None, *(f"Bearer {word}".strip() for word in sorted(NO_KEY))])
    async def test_who_sends_no_key_is_answered(self, open_house, header):
        assert (await knock(open_house, header, *DOORS[0])).status_code == 200

    @pytest.mark.parametrize("header", ["Basic x", "Bearer sk-1", "Bearer {minted}"])
    async def test_a_key_that_is_wrong_is_still_refused(self, open_house, header):
        assert_refused(await knock(open_house, header.format(minted=mint().text)))

    async def test_records_are_read_by_their_id_and_never_listed(self, open_house):
        reply = await knock(open_house, None, *DOORS[0])
        record = reply.headers["x-transom-record"]
        shown = await knock(open_house, None, "GET", f"/v1/records/{record}")
        assert shown.json()["project"] == "anonymous"
        listed = await knock(open_house, None, "GET", "/v1/records")
        assert listed.status_code == 403
        assert listed.json()["error"]["layer"] == "access"

    async def test_the_records_of_a_project_stay_its_own(self, open_house):
        answer = await open_house.complete(max_tokens=1)
        assert (await knock(open_house, None, "GET", f"/v1/records/{answer['id']}")).status_code == 404
        reply = await knock(open_house, None, "POST", f"/v1/records/{answer['id']}/replay")
        assert reply.status_code == 404


async def test_a_body_is_not_read_before_its_key(door):
    headers = {"authorization": "Bearer wrong", "content-type": "text/plain"}
    assert_refused(await door.client.post("/v1/completions", content=b"{", headers=headers))
