"""`/v1/trail`: what was done about you and your projects, and by whom."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from transom.api.dependencies import TheOffice, ThePerson
from transom.api.errors import documented
from transom.schema.projects import TrailPage
from transom.services.people import rights

router = APIRouter(prefix="/trail", tags=["Rights"])


@router.get("", responses=documented(400, 401))
async def read_trail(
    office: TheOffice,
    person: ThePerson,
    before: Annotated[int | None, Query(ge=1, le=2**53, description="`before` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> TrailPage:
    """The entries about you and your projects, newest first: the operator's looks at your data included."""
    return await rights.read_trail(office, person, before, limit)
