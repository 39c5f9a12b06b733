"""Terms: put in force by the operator, read by anybody, accepted by a person."""

from __future__ import annotations

from sqlalchemy import Connection

from transom.access.people.persons import PersonCaller
from transom.access.rights import terms
from transom.schema.terms import AcceptanceView, Standing, TermsView
from transom.services.office import Office


async def publish(office: Office, caller: PersonCaller, kind: str, text: str) -> TermsView:
    """Put a text in force: until they accept it, people's keys ask nothing new.

    Raises:
        InvalidRequest, Conflict: as `access.rights.terms.publish`.
    """
    now = office.now()
    made = await office.database.write(
        lambda connection: terms.publish(connection, kind, text, actor=caller.person_id, now=now)
    )
    office.keys.forget()
    return TermsView.model_validate(made)


async def list_in_force(office: Office) -> list[TermsView]:
    """The versions that are asked for."""
    return [TermsView.model_validate(each) for each in await office.database.read(terms.in_force)]


async def show(office: Office, version: str) -> TermsView:
    """One version, in force or not.

    Raises:
        NotFound: there is none.
    """
    return TermsView.model_validate(
        await office.database.read(lambda connection: terms.get(connection, version))
    )


async def accept(office: Office, caller: PersonCaller, version: str) -> AcceptanceView:
    """Accept a version that is in force; raises as `access.rights.terms.accept` does."""
    now = office.now()
    accepted = await office.database.write(
        lambda connection: terms.accept(connection, caller.person_id, version, now=now)
    )
    office.keys.forget()
    return AcceptanceView.model_validate(accepted)


async def standing(office: Office, caller: PersonCaller) -> Standing:
    """What the caller has accepted, and what is still asked of them."""

    def read(connection: Connection) -> Standing:
        accepted = terms.accepted(connection, caller.person_id)
        known = {each.version for each in accepted}
        return Standing(
            accepted=tuple(AcceptanceView.model_validate(each) for each in accepted),
            asked=tuple(each.version for each in terms.in_force(connection) if each.version not in known),
        )

    return await office.database.read(read)
