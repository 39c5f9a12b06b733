"""`GET /v1/usage`: what was used, and what is left."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from transom.api.dependencies import TheCaller, TheHouse
from transom.api.errors import documented
from transom.schema.usage import UsageView
from transom.services.programme import usage

router = APIRouter(tags=["Usage"])


@router.get("/usage", responses=documented(400, 401, 403, 503))
async def get_usage(
    house: TheHouse,
    caller: TheCaller,
    days: Annotated[int, Query(ge=1, le=366, description="How far back")] = 30,
) -> UsageView:
    """What the key's project used, day by day, and where the limits of the key stand."""
    return await usage.usage(house, caller, days)
