"""`/v1/applications` and `/v1/reviews`: asking for access, and deciding who gets it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from transom.api.body import PersonRoute
from transom.api.dependencies import TheHouse, ThePerson
from transom.api.errors import documented
from transom.schema.applications import (
    Act,
    ApplicationPage,
    ApplicationView,
    Approval,
    Changes,
    Comment,
    NewApplication,
    ReasonedAct,
    Refusal,
)
from transom.services.programme import applications

router = APIRouter(prefix="/applications", tags=["Access"], route_class=PersonRoute)
reviews = APIRouter(prefix="/reviews", tags=["Access"], route_class=PersonRoute)

ApplicationId = Annotated[str, Path(alias="id", description="An application's id, `app_…`")]

_READ = documented(400, 401, 404)
_ACT = documented(400, 401, 403, 404, 409, 413, 415)


@router.post("", status_code=201, responses=documented(400, 401, 403, 404, 413, 415))
async def create_application(body: NewApplication, house: TheHouse, person: ThePerson) -> ApplicationView:
    """Make a draft, for a project that you manage."""
    return await applications.create(house, person, body)


@router.get("", responses=documented(400, 401))
async def list_applications(
    house: TheHouse,
    person: ThePerson,
    after: Annotated[str | None, Query(max_length=64, description="`after` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> ApplicationPage:
    """The applications of your projects, newest first."""
    return await applications.page(house, person, after, limit)


@router.get("/{id}", responses=_READ)
async def get_application(
    application_id: ApplicationId, house: TheHouse, person: ThePerson
) -> ApplicationView:
    """An application with its events; in a blind review without who asks."""
    return await applications.show(house, person, application_id)


@router.patch("/{id}", responses=_ACT)
async def change_application(
    application_id: ApplicationId, body: Changes, house: TheHouse, person: ThePerson
) -> ApplicationView:
    """Replace fields of a draft, or of what was given back to be changed."""
    return await applications.edit(house, person, application_id, body)


@router.post("/{id}/submit", responses=_ACT)
async def submit_application(
    application_id: ApplicationId, body: Act, house: TheHouse, person: ThePerson
) -> ApplicationView:
    """Hand it in. In an instant tier it comes back approved, with its grant."""
    return await applications.submit(house, person, application_id, body)


@router.post("/{id}/withdraw", responses=_ACT)
async def withdraw_application(
    application_id: ApplicationId, body: Act, house: TheHouse, person: ThePerson
) -> ApplicationView:
    """Give it up."""
    return await applications.withdraw(house, person, application_id, body)


@router.post("/{id}/comment", responses=_ACT)
async def comment_on_application(
    application_id: ApplicationId, body: Comment, house: TheHouse, person: ThePerson
) -> ApplicationView:
    """Say something that the other side reads."""
    return await applications.comment(house, person, application_id, body)


@router.post("/{id}/appeal", status_code=201, responses=_ACT)
async def appeal_application(
    application_id: ApplicationId, body: ReasonedAct, house: TheHouse, person: ThePerson
) -> ApplicationView:
    """Ask, once, for another reviewer's decision on what was declined. Replies with the appeal."""
    return await applications.appeal(house, person, application_id, body)


@router.post("/{id}/start-review", responses=_ACT)
async def start_review(
    application_id: ApplicationId, body: Act, house: TheHouse, person: ThePerson
) -> ApplicationView:
    """Take it up, as a reviewer."""
    return await applications.start_review(house, person, application_id, body)


@router.post("/{id}/ask-changes", responses=_ACT)
async def ask_changes(
    application_id: ApplicationId, body: ReasonedAct, house: TheHouse, person: ThePerson
) -> ApplicationView:
    """Give it back to be changed; the decision clock stands meanwhile."""
    return await applications.ask_changes(house, person, application_id, body)


@router.post("/{id}/approve", responses=_ACT)
async def approve_application(
    application_id: ApplicationId, body: Approval, house: TheHouse, person: ThePerson
) -> ApplicationView:
    """Grant it, as asked or less."""
    return await applications.approve(house, person, application_id, body)


@router.post("/{id}/decline", responses=_ACT)
async def decline_application(
    application_id: ApplicationId, body: Refusal, house: TheHouse, person: ThePerson
) -> ApplicationView:
    """Say no, and why."""
    return await applications.decline(house, person, application_id, body)


@reviews.get("", responses=documented(401, 403))
async def list_reviews(house: TheHouse, person: ThePerson) -> ApplicationPage:
    """What waits for you as a reviewer; what was promised first stands first."""
    return ApplicationPage(data=await applications.queue(house, person), after=None)
