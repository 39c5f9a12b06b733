"""What anybody may know of the programme."""

from __future__ import annotations

from transom.access.programme.statistics import statistics
from transom.schema.programme import ProgrammeStatistics, ProgrammeView
from transom.schema.scopes import SCOPES, ScopeView
from transom.services.house import House


def offered(house: House) -> ProgrammeView:
    """The tiers, their criteria and promises."""
    return ProgrammeView.of(house.desk.programme)


def scopes() -> list[ScopeView]:
    """The one table of scopes."""
    return [ScopeView.of(scope) for scope in SCOPES.values()]


async def numbers(house: House) -> ProgrammeStatistics:
    """How applications went."""
    return await house.desk.read(lambda connection, occasion: statistics(connection, occasion.programme))
