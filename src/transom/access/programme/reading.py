"""Reading applications.

Each function is one step in the sense of `access.programme.desk`.
"""

from __future__ import annotations

from sqlalchemy import Connection, and_, or_, select

from transom.access.people.persons import PersonCaller
from transom.access.programme.applications import from_row, load
from transom.access.programme.desk import Occasion
from transom.access.programme.views import summary, view
from transom.errors import InvalidRequest
from transom.schema.applications import ApplicationPage, ApplicationView
from transom.storage.tables import applications, members


def show(
    connection: Connection, occasion: Occasion, *, caller: PersonCaller, application_id: str
) -> ApplicationView:
    """An application, for its project or a reviewer.

    Raises:
        NotFound: the caller may not know of it.
    """
    return view(connection, load(connection, application_id), caller, occasion.now)


def page(
    connection: Connection, occasion: Occasion, *, caller: PersonCaller, after: str | None, limit: int
) -> ApplicationPage:
    """The applications of the caller's projects, newest first.

    Raises:
        InvalidRequest: `after` is no application of theirs.
    """
    mine = select(members.c.project_id).where(members.c.person_id == caller.person_id)
    query = select(applications).where(applications.c.project_id.in_(mine))
    if after is not None:
        last = connection.execute(
            select(applications.c.created, applications.c.id).where(
                applications.c.id == after, applications.c.project_id.in_(mine)
            )
        ).one_or_none()
        if last is None:
            raise InvalidRequest("Pass the `after` of the page before, or leave it out.", param="after")
        older = applications.c.created < last.created
        same = and_(applications.c.created == last.created, applications.c.id < last.id)
        query = query.where(or_(older, same))
    query = query.order_by(applications.c.created.desc(), applications.c.id.desc()).limit(limit + 1)
    found = [from_row(row) for row in connection.execute(query).mappings().all()]
    return ApplicationPage(
        data=[summary(connection, each, caller, occasion.now) for each in found[:limit]],
        after=found[limit - 1].id if len(found) > limit else None,
    )
