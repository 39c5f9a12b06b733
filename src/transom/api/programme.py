"""`/v1/programme` and `/v1/scopes`: what is offered, and how it is decided; for everybody."""

from __future__ import annotations

from fastapi import APIRouter

from transom.api.dependencies import TheHouse
from transom.api.errors import documented
from transom.schema.programme import ProgrammeStatistics, ProgrammeView
from transom.schema.scopes import ScopeView
from transom.services.programme import programme

router = APIRouter(tags=["Access"])


@router.get("/programme", responses=documented(400))
async def get_programme(house: TheHouse) -> ProgrammeView:
    """What is offered: tiers, scopes, criteria, and within how many days it is decided."""
    return programme.offered(house)


@router.get("/programme/statistics", responses=documented(400))
async def get_statistics(house: TheHouse) -> ProgrammeStatistics:
    """How applications went: asked, granted, declined, pending, and the median days to decide, by tier."""
    return await programme.numbers(house)


@router.get("/scopes", responses=documented(400))
async def list_scopes() -> list[ScopeView]:
    """Every scope: what it allows, and what it exposes."""
    return programme.scopes()
