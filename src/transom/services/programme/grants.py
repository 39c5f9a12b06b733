"""Having a grant."""

from __future__ import annotations

from functools import partial

from transom.access.people.persons import PersonCaller
from transom.access.programme import holding
from transom.schema.grants import Ending, GrantPage, GrantView, ProgressReport
from transom.services.house import House


async def page(house: House, caller: PersonCaller, project: str | None) -> GrantPage:
    """The grants of the caller's projects; see `access.programme.holding.list_grants`."""
    return await house.desk.read(partial(holding.list_grants, caller=caller, project=project))


async def show(house: House, caller: PersonCaller, grant_id: str) -> GrantView:
    """A grant; see `access.programme.holding.show_grant`."""
    return await house.desk.read(partial(holding.show_grant, caller=caller, grant_id=grant_id))


async def report_progress(
    house: House, caller: PersonCaller, grant_id: str, body: ProgressReport
) -> GrantView:
    """Say what was done so far; see `access.programme.holding.report_progress`."""
    return await house.desk.write(
        partial(holding.report_progress, caller=caller, grant_id=grant_id, body=body)
    )


async def end(house: House, caller: PersonCaller, grant_id: str, body: Ending) -> GrantView:
    """End a grant before its time; see `access.programme.holding.end_grant`."""
    return await house.desk.write(partial(holding.end_grant, caller=caller, grant_id=grant_id, body=body))
