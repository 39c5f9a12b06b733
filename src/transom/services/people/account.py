"""One's own account."""

from __future__ import annotations

from typing import Any

from transom.access.people.people import normal_email
from transom.access.sign_in.entrance import Visitor
from transom.access.sign_in.sessions import NewSession, Session, SignedIn
from transom.schema.account import (
    AccountChange,
    EmailRequest,
    IdentityView,
    LinkAsked,
    LinkProof,
    PasskeyChallenge,
    PasskeyNew,
    PasskeyView,
    PersonView,
    SessionView,
)
from transom.services.house import House
from transom.services.people import mails
from transom.services.people.sign_in import proof_of, view


async def change(house: House, me: SignedIn, changed: AccountChange) -> PersonView:
    """Change what may be changed by oneself."""
    return view(await house.entrance.people.rename(me.person.id, changed.name))


async def export(house: House, me: SignedIn) -> dict[str, Any]:
    """Everything about oneself, from every part of the server that keeps anything."""
    return await house.entrance.own_data.export(me.person.id)


async def leave(house: House, me: SignedIn) -> None:
    """Delete one's account.

    Raises:
        Forbidden: the sign-in was not a moment ago.
    """
    house.entrance.sessions.refuse_old(me.session)
    await house.entrance.own_data.leave(me.person.id)


async def ask_email(house: House, me: SignedIn, asked: EmailRequest, visitor: Visitor) -> LinkAsked:
    """Mail a code to an address that is to be one's own.

    Raises:
        Forbidden: the sign-in was not a moment ago.
        QuotaExceeded: too many were asked for.
    """
    house.entrance.sessions.refuse_old(me.session)
    email = normal_email(asked.email)
    link = await house.entrance.new_link(email, visitor, person_id=me.person.id)
    mails.post(house, mails.new_address_mail(house.entrance.origin.text, email, link))
    return LinkAsked(request=link.id, expires=link.expires)


async def confirm_email(house: House, me: SignedIn, proof: LinkProof, visitor: Visitor) -> PersonView:
    """Take an address for one's own, by the code that was mailed there.

    Raises:
        Unauthenticated: the code is wrong, used or too old.
        Conflict: the address is somebody else's.
    """
    return view(await house.entrance.take_email(proof_of(proof), visitor, me.person.id))


async def sessions(house: House, me: SignedIn) -> list[SessionView]:
    """Where one is signed in."""
    found = await house.entrance.sessions.list_of(me.person.id)
    return [_session(each, me.session.id) for each in found]


async def another_session(house: House, me: SignedIn, agent: str) -> NewSession:
    """A session for a program, made from within one's own.

    Raises:
        Forbidden: the sign-in was not a moment ago.
    """
    house.entrance.sessions.refuse_old(me.session)
    return await house.entrance.another_session(me.person, agent)


async def end_session(house: House, me: SignedIn, session_id: str) -> None:
    """Sign out elsewhere.

    Raises:
        NotFound: there is no such session of one's own.
    """
    await house.entrance.sessions.end(me.person.id, session_id)


async def end_sessions(house: House, me: SignedIn) -> None:
    """Sign out everywhere, here included."""
    await house.entrance.sessions.end_all(me.person.id)


async def passkeys(house: House, me: SignedIn) -> list[PasskeyView]:
    """One's passkeys."""
    found = await house.entrance.passkeys.list_of(me.person.id)
    return [
        PasskeyView(id=each.id, name=each.name, created=each.created, last_used=each.last_used)
        for each in found
    ]


async def ask_new_passkey(house: House, me: SignedIn, visitor: Visitor) -> PasskeyChallenge:
    """A challenge to make a passkey.

    Raises:
        Forbidden: the sign-in was not a moment ago.
    """
    house.entrance.sessions.refuse_old(me.session)
    challenge, options = await house.entrance.passkey_creation(me.person, visitor)
    return PasskeyChallenge(challenge=challenge, options=options)


async def add_passkey(house: House, me: SignedIn, new: PasskeyNew) -> PasskeyView:
    """Keep a passkey that answers the challenge.

    Raises:
        Forbidden: the sign-in was not a moment ago.
        Unauthenticated: it does not answer it.
    """
    house.entrance.sessions.refuse_old(me.session)
    challenge = await house.entrance.take_creation(new.challenge, me.person.id)
    made = await house.entrance.passkeys.add(challenge, me.person.id, new.credential, new.name)
    return PasskeyView(id=made.id, name=made.name, created=made.created, last_used=made.last_used)


async def remove_passkey(house: House, me: SignedIn, passkey_id: str) -> None:
    """Forget a passkey.

    Raises:
        NotFound: there is no such passkey of one's own.
        Conflict: it is the only way in.
    """
    await house.entrance.passkeys.remove(me.person.id, passkey_id)


async def identities(house: House, me: SignedIn) -> list[IdentityView]:
    """One's accounts elsewhere."""
    found = await house.entrance.identities.list_of(me.person.id)
    return [
        IdentityView(
            id=each.id,
            issuer=each.issuer,
            subject=each.subject,
            added=each.added,
            last_used=each.last_used,
        )
        for each in found
    ]


async def remove_identity(house: House, me: SignedIn, identity_id: str) -> None:
    """Forget an account elsewhere.

    Raises:
        NotFound: there is no such identity of one's own.
        Conflict: it is the only way in.
    """
    await house.entrance.identities.unlink(me.person.id, identity_id)


def _session(session: Session, current: str) -> SessionView:
    return SessionView(
        id=session.id,
        method=session.method,
        session=session.carrier,
        agent=session.agent,
        created=session.created,
        last_seen=session.last_seen,
        expires=session.expires,
        current=session.id == current,
    )
