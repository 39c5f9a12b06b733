"""Reconstructing weight matrices through plans: it works with the policy off, and is stopped by it.

Each attack is a real one on a real engine, over HTTP: it gathers pairs of what a matrix is given and what it
makes of it, and solves for the matrix.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import httpx2
import numpy as np
import pytest
import structlog
from safetensors.numpy import load_file
from sqlalchemy import select

from tests.http.door import settings
from tests.http.grants import holder
from tests.internals.thieves import (
    ATTACKS,
    LAYER,
    MODEL,
    NEURONS,
    PERCENT,
    WIDTH,
    Thief,
    both_sides,
    columns_by_scores,
    norm_of,
    prompt,
    solved,
    unembedded,
    unit,
)
from transom.app import create_app
from transom.backends.library import ModelLibrary
from transom.engine.convert import convert
from transom.storage.tables import matrix_exposures

pytestmark = pytest.mark.anyio

TIER = """
[tiers.{name}]
title = "{name}"
review = false
scopes = [
  "model:sample", "model:logprobs", "model:score", "model:distributions",
  "internals:read", "internals:write", "internals:grad",
]
duration_days = 90
matrix_percent = {percent}
[tiers.{name}.quotas]
released_rank = 1_000_000
"""
PROGRAMME = """
name = "Test programme"
contact = "desk@example.org"
terms = "terms-1"
""" + "".join(
    TIER.format(name=name, percent=percent) for name, percent in (("bare", 100), ("usual", PERCENT))
)


@dataclass
class Door:
    """As much of the other tests' door as people need."""

    house: object
    client: httpx2.AsyncClient


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="module")
def weights(tiny_root):
    return load_file(tiny_root("llama") / "model.safetensors")


@pytest.fixture(scope="module")
async def door(tiny_root, tmp_path_factory):
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()]
    )
    home = tmp_path_factory.mktemp("home")
    (home / "programme.toml").write_text(PROGRAMME)
    given = settings(home, cache_mib=16, max_model_len=64)
    ModelLibrary(given.library).add(str(tiny_root("llama")), MODEL, convert=convert)
    app = create_app(given)
    async with app.router.lifespan_context(app):
        async with asyncio.timeout(120):
            while not app.state.house.served():  # noqa: ASYNC110  # it tells nobody
                await asyncio.sleep(0.05)
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://door", timeout=120) as client:
            yield Door(app.state.house, client)
    structlog.reset_defaults()


@pytest.fixture
async def thief(door, request):
    return Thief(await holder(door, request.param))


EVERY = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)


@EVERY
@pytest.mark.parametrize("thief", ["bare"], indirect=True)
async def test_with_the_policy_off_the_matrix_is_reconstructed(thief, weights, attack):
    found, _ = solved(*await attack(thief))
    assert thief.refusal is None
    if attack is unembedded:
        found = found - found[:1]  # only differences are told
        rows = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
        true = (rows - rows[:1]) @ await norm_of(thief, weights)
    else:
        true = ATTACKS[attack](weights)
    assert np.abs(found - true).max() < 2e-3 * np.abs(true).max()


@EVERY
@pytest.mark.parametrize("thief", ["usual"], indirect=True)
async def test_with_the_policy_on_it_is_not(thief, weights, attack):
    given, told = await attack(thief)
    assert (thief.refusal["code"], thief.refusal["layer"]) == ("policy_refused", "policy")
    if not given:
        return  # the first plan was for more than all that may be told
    found, left = solved(given, told)
    assert np.linalg.matrix_rank(left) <= PERCENT / 100 * left.shape[1]
    if attack is unembedded:
        return  # what is known are so many of its rows, and no others
    true = ATTACKS[attack](weights)
    # Three quarters of what there is to know are missing.
    assert np.linalg.norm(found - true) > 0.7 * np.linalg.norm(true)


@pytest.mark.parametrize("thief", ["bare"], indirect=True)
async def test_with_the_policy_off_scores_under_writes_tell_a_matrix(thief, weights):
    found = (await columns_by_scores(thief, weights))[:, 1:]
    true = weights["model.layers.2.mlp.down_proj.weight"].T[:, 1:]
    assert np.abs(found - true).max() < 2e-3 * np.abs(true).max()


@pytest.mark.parametrize("thief", ["usual"], indirect=True)
async def test_with_the_policy_on_scores_under_writes_are_stopped(thief, weights):
    found = await columns_by_scores(thief, weights)
    assert (thief.refusal["code"], thief.refusal["layer"]) == ("policy_refused", "policy")
    assert 0 < len(found) <= NEURONS * PERCENT / 100


@pytest.mark.parametrize("thief", ["usual"], indirect=True)
async def test_a_steered_conversation_is_told_without_end(thief):
    """A direction that is added to the stream is what people come for, with logprobs and all."""
    write = {"at": "resid_post.1", "op": "add", "value": unit(3, WIDTH), "scale": 2.0}
    body = {"model": MODEL, "prompt": [5, 6, 7], "max_tokens": 24, "logprobs": 5, "ignore_eos": True}
    headers = {"authorization": f"Bearer {thief.holder.key}"}
    for number in range(40):
        asked = body | {"seed": number, "transom": {"write": [write]}}
        reply = await thief.holder.door.client.post("/v1/completions", json=asked, headers=headers)
        assert reply.status_code == 200, reply.text


@pytest.mark.parametrize("thief", ["usual"], indirect=True)
async def test_several_projects_of_one_person_are_told_no_more(thief, door):
    first, _ = await both_sides(thief)
    other = Thief(await holder(door, "usual", thief.holder.person))
    assert first
    assert await both_sides(other) == ([], [])
    assert "you, over all your projects" in other.refusal["message"]


@pytest.mark.parametrize("thief", ["usual"], indirect=True)
async def test_plans_at_once_are_told_no_more_than_one_after_the_other(thief):
    read = {"z": {"at": f"z.{LAYER}"}, "out": {"at": f"attn_out.{LAYER}"}}
    runs = {"a": {"input": prompt(1), "read": read}}
    found = await asyncio.gather(*(thief.take(runs, "a.z", "a.out") for _ in range(16)))
    assert sum(each is not None for each in found) == WIDTH * PERCENT // 100 // 4


@pytest.mark.parametrize("thief", ["usual"], indirect=True)
async def test_one_side_alone_is_told_without_end(thief):
    """Activation datasets, patterns, patching and attribution are what researchers come for."""
    for number in range(40):
        runs = {
            "a": {
                "input": prompt(number, 16),
                "read": {"x": {"at": "resid_post.*"}, "n": {"at": "mlp_act.*"}},
            }
        }
        assert await thief.take(runs, "a.x", "a.n") is not None, thief.refusal
    clean, corrupt = prompt(1, 8), prompt(2, 8)
    for _ in range(20):
        write = [{"at": "resid_post.{layer}", "pos": "{pos}", "op": "swap", "value": {"run": "clean"}}]
        runs = {
            "clean": {"input": clean},
            "patched": {
                "input": corrupt,
                "write": write,
                "read": {"x": {"at": "lm_head", "pos": "last", "unit": [5, 6]}},
            },
        }
        sweep = {"layer": "all", "pos": "all"}
        assert await thief.take(runs, "patched.x", sweep=sweep) is not None, thief.refusal
        grad = {
            "of": {"logit_diff": [5, 6]},
            "wrt": {"g": {"at": "resid_post.0-1"}},
            "mode": {"grad_x_delta": "a"},
        }
        runs = {"a": {"input": clean}, "b": {"input": corrupt, "grad": grad}}
        assert await thief.take(runs, "b.g") is not None, thief.refusal


@pytest.mark.parametrize("thief", ["usual"], indirect=True)
async def test_a_plan_that_fails_or_is_refused_is_not_counted(thief, door):
    async def counted():
        query = select(matrix_exposures.c.place).where(
            matrix_exposures.c.account == f"project:{thief.holder.project}", matrix_exposures.c.numbers != 0
        )
        read = door.house.office.database.read
        return await read(lambda connection: connection.execute(query).scalars().all())

    huge = [{"at": "resid_post.0", "op": "add", "value": 3e38, "scale": 3e38}]
    read = {"z": {"at": f"z.{LAYER}"}, "out": {"at": f"attn_out.{LAYER}"}}
    body = {
        "model": MODEL,
        "runs": {"a": {"input": prompt(1), "write": huge, "read": read}},
        "return": ["a.z"],
    }
    headers = {"authorization": f"Bearer {thief.holder.key}"}
    failed = await door.client.post("/v1/traces", json=body, headers=headers)
    assert failed.json()["error"]["code"] == "plan_failed"
    assert await counted() == []
    runs = {"a": {"input": prompt(1, 40), "read": read}}
    assert await thief.take(runs, "a.z", "a.out") is None
    assert await counted() == []
    usage = await door.client.get("/v1/usage", headers=headers)
    assert all(limit["used"] == 0 for limit in usage.json()["limits"] if limit["budget"] == "internals_bytes")


async def test_the_operators_own_keys_have_no_limit(door):
    key = (await door.house.keys.create(name="operator")).text
    body = {
        "model": MODEL,
        "runs": {"a": {"input": prompt(1, 40), "read": {"z": {"at": "z.1"}, "out": {"at": "attn_out.1"}}}},
        "return": ["a.z", "a.out"],
    }
    reply = await door.client.post("/v1/traces", json=body, headers={"authorization": f"Bearer {key}"})
    assert reply.status_code == 200
