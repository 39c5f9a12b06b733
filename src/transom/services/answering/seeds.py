"""Seeds: given, drawn, or made by both sides."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from transom.access.keys.callers import Caller
from transom.errors import Forbidden, InvalidRequest
from transom.schema.generation import MAX_SEED
from transom.schema.randomness import JointSeed, Promises
from transom.schema.record import SeedSource
from transom.schema.steering import SteeredBody
from transom.schema.wire import DrawingBody
from transom.services.house import House
from transom.services.metering import allow


@dataclass(frozen=True, slots=True)
class Seed:
    """A seed, and who picked it."""

    value: int
    source: SeedSource
    joint: JointSeed | None = None


async def promise(house: House, caller: Caller, count: int) -> Promises:
    """Commit to secrets for the caller's next requests.

    Raises:
        Forbidden: the caller has no project of its own.
        MissingScope: the caller may not sample, and so needs none.
        Conflict: too many wait already.
    """
    if caller.anonymous:
        raise Forbidden("Commitments are kept for a project; without a key there is none.")
    await allow(house, caller, "model:sample")
    return await house.seeds.make(caller.project_id, count)


def own_seed(body: DrawingBody) -> Seed:
    """The seed that was sent, or one that the server draws."""
    given = body.seed
    return Seed(secrets.randbelow(MAX_SEED), "server") if given is None else Seed(given, "explicit")


@asynccontextmanager
async def seed_of(house: House, caller: Caller, body: SteeredBody) -> AsyncIterator[Seed]:
    """The seed of a request. If what is done with it raises, a promise was not used.

    Raises:
        InvalidRequest: there are two seeds, or the commitment is none that waits for its request.
    """
    asked = body.joint_seed
    if asked is None:
        yield own_seed(body)
        return
    if body.seed is not None:
        raise InvalidRequest("Give seed or transom.seed, not both.", param="seed")
    taken = await house.seeds.take(caller.project_id, asked)
    try:
        yield Seed(taken.joint.seed, "joint", taken.joint)
    except BaseException:
        await house.seeds.give_back(caller.project_id, taken)
        raise
