"""`/v1/terms`: what the operator asks people to accept."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from transom.api.dependencies import TheOffice, ThePerson
from transom.api.errors import documented
from transom.schema.projects import Id
from transom.schema.terms import AcceptanceView, Standing, TermsList, TermsView
from transom.services.people import terms

router = APIRouter(prefix="/terms", tags=["Terms"])

Version = Annotated[Id, Path(description="Such as `privacy-2`")]


@router.get("", responses=documented(400))
async def list_terms(office: TheOffice) -> TermsList:
    """The versions in force; anybody may read them."""
    return TermsList(data=tuple(await terms.list_in_force(office)))


@router.get("/standing", responses=documented(400, 401))
async def get_standing(office: TheOffice, person: ThePerson) -> Standing:
    """What you have accepted, and what is still asked of you."""
    return await terms.standing(office, person)


@router.get("/{version}", responses=documented(400, 404))
async def get_terms(version: Version, office: TheOffice) -> TermsView:
    """One version, in force or not."""
    return await terms.show(office, version)


@router.post("/{version}/accept", responses=documented(400, 401, 404, 409))
async def accept_terms(version: Version, office: TheOffice, person: ThePerson) -> AcceptanceView:
    """Accept a version that is in force."""
    return await terms.accept(office, person, version)
