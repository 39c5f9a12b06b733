"""What is told of weight matrices: counted for everybody who learns it, whole or not at all."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import select

from transom.access.weights.exposure import Exposure, Telling
from transom.errors import PolicyRefused
from transom.schema.changes import GLOBAL
from transom.schema.matrices import Matrices, place
from transom.schema.program import ModelPoint
from transom.storage.database import Database
from transom.storage.migrate import migrate
from transom.storage.tables import matrix_exposures

pytestmark = pytest.mark.anyio

WIDTH = 8
POINTS = (
    ModelPoint(name="resid_post", layers=(0, 1), heads=1, width=WIDTH),
    ModelPoint(name="z", layers=(0, 1), heads=2, width=4),
    ModelPoint(name="attn_out", layers=(0, 1), heads=1, width=WIDTH),
)
BOTH = {"z.1": WIDTH, "attn_out.1": WIDTH}
"""A row of both sides: an eighth of the matrix."""


def telling(numbers, percent=25, accounts=("project:a", "person:p"), root="root"):
    return Telling(accounts, root, Matrices.of(POINTS, 40, WIDTH), numbers, percent)


@pytest.fixture
def database(database_url):
    found = Database(database_url)
    migrate(found)
    yield found
    found.close()


@pytest.fixture
def exposure(database):
    return Exposure(database)


async def counted(database):
    rows = await database.read(lambda connection: connection.execute(select(matrix_exposures)).all())
    return {(row.account, row.place): row.numbers for row in rows}


async def test_both_sides_are_told_up_to_the_limit_and_no_further(exposure, database):
    await exposure.count(telling(BOTH))
    await exposure.count(telling(BOTH))
    before = await counted(database)
    with pytest.raises(PolicyRefused, match=r"38 % of the weight matrix o_proj\.1 \(25 % before\)"):
        await exposure.count(telling(BOTH))
    assert await counted(database) == before


async def test_what_comes_to_nothing_is_taken_back(exposure, database):
    await exposure.count(telling(BOTH))
    await exposure.take_back(telling(BOTH))
    assert set((await counted(database)).values()) == {0}
    await exposure.count(telling({name: 2 * count for name, count in BOTH.items()}))


async def test_a_person_is_counted_over_all_projects(exposure):
    await exposure.count(telling({name: 2 * count for name, count in BOTH.items()}))
    with pytest.raises(PolicyRefused, match="you, over all your projects"):
        await exposure.count(telling(BOTH, accounts=("project:b", "person:p")))
    await exposure.count(telling(BOTH, accounts=("project:b", "person:q")))


async def test_other_weights_are_counted_apart(exposure):
    full = {name: 2 * count for name, count in BOTH.items()}
    await exposure.count(telling(full))
    await exposure.count(telling(full, root="other"))


async def test_one_side_is_told_without_end_and_the_other_then_not_at_all(exposure):
    await exposure.count(telling({"z.1": 1_000_000}))
    await exposure.count(telling({"attn_out.1": 2 * WIDTH}))
    with pytest.raises(PolicyRefused):
        await exposure.count(telling({"attn_out.1": 1}))
    # Of other matrices, and of the side that is known, more can be told.
    await exposure.count(telling({"z.1": WIDTH, "resid_post.0": WIDTH}))


async def test_at_a_hundred_percent_it_is_counted_and_not_limited(exposure, database):
    await exposure.count(telling({name: 100 * count for name, count in BOTH.items()}, percent=100))
    assert (await counted(database))["project:a", "z.1"] == 100 * WIDTH
    with pytest.raises(PolicyRefused):
        await exposure.count(telling(BOTH))


async def test_several_servers_tell_no_more_than_one(database, database_url):
    other = Database(database_url)
    try:
        servers = [Exposure(database), Exposure(other)] * 8
        asked = [replace(telling(BOTH), accounts=("project:a",)) for _ in servers]
        found = await asyncio.gather(
            *(server.count(each) for server, each in zip(servers, asked, strict=True)), return_exceptions=True
        )
    finally:
        other.close()
    assert found.count(None) == 2
    assert sum(isinstance(each, PolicyRefused) for each in found) == len(servers) - 2


@pytest.mark.parametrize(
    ("point", "layer", "same", "other"),
    [
        ("resid_pre", 2, "resid_post", 1),
        ("attn_in", 2, "resid_post", 1),
        ("resid_pre", 0, "embeddings", GLOBAL),
        ("final_norm", GLOBAL, "resid_post", 3),
        ("q_rot", 1, "q", 1),
        ("attn_scores", 1, "attn_probs", 1),
        ("attn_out_post", 1, "attn_out", 1),
    ],
)
def test_points_whose_values_follow_from_each_other_are_one_place(point, layer, same, other):
    assert place(point, layer, 4) == place(same, other, 4)


def test_gradients_before_and_behind_a_norm_are_not_each_others():
    assert place("attn_in", 2, 4, "gradient") != place("resid_pre", 2, 4, "gradient")
