"""What is about to be told of the weights inside: counted before it is, and taken back where nothing came."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from transom.access.keys.callers import Caller
from transom.access.weights.exposure import Telling
from transom.backends.base import Backend
from transom.schema.matrices import Matrices
from transom.services.house import House


def matrices_of(backend: Backend) -> Matrices:
    """The linear maps of a model."""
    return Matrices.of(tuple(backend.points), backend.tokenizer.vocab_size, backend.hidden_size)


async def count_told(
    house: House, caller: Caller, backend: Backend, tell: Callable[[], Mapping[str, int]]
) -> Telling | None:
    """Count what is about to be told of the weights; None where nobody counts.

    Args:
        house: keeps the counts.
        caller: is told.
        backend: of the model.
        tell: says how many numbers of each place, at most; it may take a while.

    Raises:
        PolicyRefused: it would be too much; nothing is counted.
    """
    if caller.is_operators:
        return None
    numbers = await asyncio.to_thread(tell)
    if not numbers:
        return None
    accounts = [f"project:{caller.project_id}"]
    if caller.person_id is not None:
        accounts.append(f"person:{caller.person_id}")
    telling = Telling(
        accounts=tuple(accounts),
        root=backend.served.deployment.model.digest,
        matrices=matrices_of(backend),
        numbers=numbers,
        percent=(await house.entitlements.of(caller)).matrix_percent,
    )
    await house.exposure.count(telling)
    return telling


async def take_back(house: House, telling: Telling | None) -> None:
    """Nothing of it was told."""
    if telling is not None:
        await house.exposure.take_back(telling)
