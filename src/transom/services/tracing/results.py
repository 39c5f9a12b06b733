"""Results that are kept to be fetched: finding one, and giving one back."""

from __future__ import annotations

import asyncio

from transom.access.keys.callers import Caller
from transom.services.house import House
from transom.services.metering import allow
from transom.services.spool import Kept


async def find(house: House, caller: Caller, record_id: str) -> Kept:
    """A result that is kept.

    Raises:
        NotFound: there is none of that name, its time is over, or it is another project's.
        MissingScope: the plan needed a scope that the caller has not.
    """
    kept = house.spool.find(record_id, caller.project_id)
    for scope in kept.scopes:
        await allow(house, caller, scope)
    return kept


async def discard(house: House, caller: Caller, record_id: str) -> None:
    """Delete a result before its time; raises as `find`."""
    kept = await find(house, caller, record_id)
    await asyncio.to_thread(house.spool.discard, kept)
