"""`/v1/grants`: what a project may do, and until when."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from transom.api.body import PersonRoute
from transom.api.dependencies import TheHouse, ThePerson
from transom.api.errors import documented
from transom.schema.grants import Ending, GrantPage, GrantView, ProgressReport
from transom.services.programme import grants

router = APIRouter(prefix="/grants", tags=["Access"], route_class=PersonRoute)

GrantId = Annotated[str, Path(alias="id", description="A grant's id, `grt_…`")]

_ACT = documented(400, 401, 403, 404, 409, 413, 415)


@router.get("", responses=documented(400, 401))
async def list_grants(
    house: TheHouse,
    person: ThePerson,
    project: Annotated[str | None, Query(max_length=64, description="Only those of this project")] = None,
) -> GrantPage:
    """The grants of your projects, past ones too, newest first."""
    return await grants.page(house, person, project)


@router.get("/{id}", responses=documented(400, 401, 404))
async def get_grant(grant_id: GrantId, house: TheHouse, person: ThePerson) -> GrantView:
    """A grant as it stands now, and all that was done to it."""
    return await grants.show(house, person, grant_id)


@router.post("/{id}/progress", responses=_ACT)
async def report_progress(
    grant_id: GrantId, body: ProgressReport, house: TheHouse, person: ThePerson
) -> GrantView:
    """Say what was done so far; releases what is held back."""
    return await grants.report_progress(house, person, grant_id, body)


@router.post("/{id}/end", responses=_ACT)
async def end_grant(grant_id: GrantId, body: Ending, house: TheHouse, person: ThePerson) -> GrantView:
    """End it before its time; its project is told."""
    return await grants.end(house, person, grant_id, body)
