"""Reading one's own records."""

from __future__ import annotations

from transom.access.keys.callers import Caller
from transom.errors import Forbidden
from transom.schema.record import RecordPage, RecordView
from transom.services.house import House
from transom.services.metering import allow


async def show(house: House, caller: Caller, record_id: str) -> RecordView:
    """A whole record, for its project. Who sent no key reads by the id alone, which nobody else was told.

    Raises:
        MissingScope: the caller lacks `records:read`.
        NotFound: there is none, or it is another project's.
    """
    await allow(house, caller, "records:read")
    return (await house.records.get(record_id, caller.project_id)).view()


async def page(house: House, caller: Caller, after: str | None, limit: int) -> RecordPage:
    """The records of the caller's project, newest first.

    Raises:
        Forbidden: the caller has no project of its own, or lacks `records:read`.
    """
    if caller.anonymous:
        raise Forbidden("A list of records needs a key; without one, records are read by their ids.")
    await allow(house, caller, "records:read")
    return await house.records.page(caller.project_id, after, limit)
