"""Applying for access, and deciding who gets it."""

from __future__ import annotations

from functools import partial

from transom.access.people.persons import PersonCaller
from transom.access.programme import applying, deciding, reading
from transom.schema.applications import (
    Act,
    ApplicationPage,
    ApplicationSummary,
    ApplicationView,
    Approval,
    Changes,
    Comment,
    NewApplication,
    ReasonedAct,
    Refusal,
)
from transom.services.house import House


async def create(house: House, caller: PersonCaller, body: NewApplication) -> ApplicationView:
    """Make a draft; see `access.programme.applying.create`."""
    return await house.desk.write(partial(applying.create, caller=caller, body=body))


async def page(house: House, caller: PersonCaller, after: str | None, limit: int) -> ApplicationPage:
    """The applications of the caller's projects; see `access.programme.reading.page`."""
    return await house.desk.read(partial(reading.page, caller=caller, after=after, limit=limit))


async def show(house: House, caller: PersonCaller, application_id: str) -> ApplicationView:
    """An application, as the caller may see it; see `access.programme.reading.show`."""
    return await house.desk.read(partial(reading.show, caller=caller, application_id=application_id))


async def edit(house: House, caller: PersonCaller, application_id: str, body: Changes) -> ApplicationView:
    """Replace what is asked for; see `access.programme.applying.edit`."""
    return await house.desk.write(
        partial(applying.edit, caller=caller, application_id=application_id, body=body)
    )


async def submit(house: House, caller: PersonCaller, application_id: str, body: Act) -> ApplicationView:
    """Hand an application in; see `access.programme.applying.submit`."""
    return await house.desk.write(
        partial(applying.submit, caller=caller, application_id=application_id, body=body)
    )


async def withdraw(house: House, caller: PersonCaller, application_id: str, body: Act) -> ApplicationView:
    """Give an application up; see `access.programme.applying.withdraw`."""
    return await house.desk.write(
        partial(applying.withdraw, caller=caller, application_id=application_id, body=body)
    )


async def comment(house: House, caller: PersonCaller, application_id: str, body: Comment) -> ApplicationView:
    """Say something that the other side reads; see `access.programme.applying.comment`."""
    return await house.desk.write(
        partial(applying.comment, caller=caller, application_id=application_id, body=body)
    )


async def appeal(
    house: House, caller: PersonCaller, application_id: str, body: ReasonedAct
) -> ApplicationView:
    """Ask for another decision; see `access.programme.applying.appeal`."""
    return await house.desk.write(
        partial(applying.appeal, caller=caller, application_id=application_id, body=body)
    )


async def queue(house: House, caller: PersonCaller) -> list[ApplicationSummary]:
    """What waits for this reviewer; see `access.programme.deciding.queue`."""
    return await house.desk.read(partial(deciding.queue, caller=caller))


async def start_review(house: House, caller: PersonCaller, application_id: str, body: Act) -> ApplicationView:
    """Take an application up; see `access.programme.deciding.start_review`."""
    return await house.desk.write(
        partial(deciding.start_review, caller=caller, application_id=application_id, body=body)
    )


async def ask_changes(
    house: House, caller: PersonCaller, application_id: str, body: ReasonedAct
) -> ApplicationView:
    """Give an application back; see `access.programme.deciding.ask_changes`."""
    return await house.desk.write(
        partial(deciding.ask_changes, caller=caller, application_id=application_id, body=body)
    )


async def approve(house: House, caller: PersonCaller, application_id: str, body: Approval) -> ApplicationView:
    """Say yes; see `access.programme.deciding.approve`."""
    return await house.desk.write(
        partial(deciding.approve, caller=caller, application_id=application_id, body=body)
    )


async def decline(house: House, caller: PersonCaller, application_id: str, body: Refusal) -> ApplicationView:
    """Say no; see `access.programme.deciding.decline`."""
    return await house.desk.write(
        partial(deciding.decline, caller=caller, application_id=application_id, body=body)
    )
