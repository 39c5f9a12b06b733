"""What is looked up by its path is answered as what the router finds: the two differ in speed alone."""

from __future__ import annotations

import pytest

from tests.http.door import HELLO, MODEL
from transom.api import chat, completions
from transom.api.body import AskRoute
from transom.api.express import Express

pytestmark = pytest.mark.anyio

GOOD = {"/v1/completions": {"prompt": "The light"}, "/v1/chat/completions": {"messages": HELLO}}

MISTAKES = {
    "no json": {"content": b"{"},
    "nan": {"content": b'{"temperature": NaN}'},
    "empty": {"content": b""},
    "a list": {"content": b"[]"},
    "form": {"headers": {"content-type": "application/x-www-form-urlencoded"}},
    "no content type": {"headers": {"content-type": ""}},
    "wrong key": {"headers": {"authorization": "Bearer tr_wrong"}},
    "basic": {"headers": {"authorization": "Basic x"}},
    "unknown field": {"json": {"nonsense": 1}},
    "wrong type": {"json": {"temperature": "1"}},
    "unsupported": {"json": {"suffix": "x", "tools": []}},
    "nothing": {"json": {}},
    "unknown parameter": {"params": {"x": "1"}},
    "unknown parameter without a value": {"params": {"": ""}},
    "unknown parameter and no json": {"params": {"x": "1"}, "content": b"{"},
}


@pytest.mark.parametrize("path", GOOD)
@pytest.mark.parametrize("mistake", MISTAKES)
async def test_a_mistake_is_answered_alike(door, path, mistake):
    sent = {"json": GOOD[path] | {"model": MODEL}} | MISTAKES[mistake]
    if "content" in sent:
        del sent["json"]
        sent["headers"] = {"content-type": "application/json"}
    replies = [await door.client.post(start + path, **sent) for start in ("", f"/models/{MODEL}")]
    quick, routed = [(reply.status_code, reply.json()) for reply in replies]
    assert quick == routed
    assert quick[0] in (400, 401, 415)


@pytest.mark.parametrize("path", GOOD)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
async def test_another_method_is_left_to_the_router(door, path, method):
    reply = await door.client.request(method, path)
    assert reply.status_code == 405
    assert reply.json()["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize("path", GOOD)
async def test_an_answer_is_the_same(door, path):
    body = GOOD[path] | {"max_tokens": 4, "seed": 5}
    replies = [
        await door.client.post(path, json=body | {"model": MODEL}),
        await door.client.post(f"/models/{MODEL}{path}", json=body),
    ]
    quick, routed = [reply.json() for reply in replies]
    assert quick["choices"] == routed["choices"]
    assert quick.keys() == routed.keys()
    assert replies[0].headers.keys() == replies[1].headers.keys()


@pytest.mark.parametrize("path", ["/v1/chat/completions/", "/v1//chat/completions", "/v1/chat%2Fcompletions"])
async def test_a_path_that_is_nearly_right_takes_no_lane(door, path):
    reply = await door.client.post(path, json=GOOD["/v1/chat/completions"])
    assert reply.status_code == 404 or path.endswith("%2Fcompletions")


async def test_an_error_that_nobody_expected_is_a_500_without_its_words(own_door, monkeypatch):
    def explode(*_):
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(own_door.backend, "admit", explode)
    reply = await own_door.post("/v1/completions", GOOD["/v1/completions"] | {"model": MODEL})
    assert reply.status_code == 500
    assert reply.json()["error"]["code"] == "internal_error"
    assert "secret" not in reply.text


def test_every_path_that_generates_has_a_lane():
    express = Express(lambda *_: None, (completions.router, chat.router), "/v1")
    assert express._lanes.keys() == {("POST", path) for path in GOOD}
    assert all(isinstance(route, AskRoute) for route, _ in express._lanes.values())
