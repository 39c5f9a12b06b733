"""Signing in, by a link, a passkey or a provider; and signing out."""

from __future__ import annotations

from dataclasses import dataclass

from transom.access.people.people import Person, normal_email
from transom.access.sign_in.entrance import Visitor
from transom.access.sign_in.links import Proof
from transom.access.sign_in.oidc import Answer
from transom.access.sign_in.sessions import NewSession, SignedIn
from transom.errors import Forbidden
from transom.schema.account import (
    LinkAsked,
    LinkProof,
    LinkRequest,
    PasskeyAnswer,
    PasskeyChallenge,
    PersonView,
    ProviderStart,
    ProviderView,
    Welcomed,
)
from transom.services.house import House
from transom.services.people import mails


@dataclass(frozen=True, slots=True)
class Arrival:
    """What came of a provider's answer: a new session, or an identity more for the one that is there."""

    session: NewSession | None
    next: str | None


async def ask_link(house: House, asked: LinkRequest, visitor: Visitor) -> LinkAsked:
    """Mail a link to an address. Whether somebody here has it changes neither the reply nor the work.

    Raises:
        InvalidRequest: it is no address.
        QuotaExceeded: too many links were asked for.
    """
    email = normal_email(asked.email)
    link = await house.entrance.new_link(email, visitor, next_path=asked.next)
    mails.post(house, mails.sign_in_mail(house.entrance.origin.text, email, link))
    return LinkAsked(request=link.id, expires=link.expires)


async def redeem_link(house: House, proof: LinkProof, visitor: Visitor) -> tuple[NewSession, str | None]:
    """Sign in by a link or its code; whoever is new gets an account.

    Raises:
        Unauthenticated: it is wrong, used, too old, or was asked for elsewhere.
    """
    return await house.entrance.by_link(proof_of(proof), visitor)


async def ask_passkey(house: House, visitor: Visitor) -> PasskeyChallenge:
    """A challenge for whoever has a passkey."""
    challenge, options = await house.entrance.passkey_request(visitor)
    return PasskeyChallenge(challenge=challenge, options=options)


async def by_passkey(house: House, answer: PasskeyAnswer, visitor: Visitor) -> NewSession:
    """Sign in by a passkey.

    Raises:
        Unauthenticated: the answer is not good.
    """
    return await house.entrance.by_passkey(answer.challenge, answer.credential, visitor)


def providers(house: House) -> list[ProviderView]:
    """The providers that the operator has configured."""
    return [ProviderView(id=each, name=name) for each, name in house.entrance.providers.names().items()]


async def start_provider(
    house: House, provider: str, start: ProviderStart, visitor: Visitor, linking: SignedIn | None
) -> str:
    """Where to send a browser that wants to sign in with a provider, or to add an identity to an account.

    Args:
        house: what it stands on.
        provider: which.
        start: what was asked.
        visitor: from where.
        linking: the account that the identity is to be added to; None for signing in.

    Raises:
        Forbidden: an identity is to be added, and the sign-in was not a moment ago.
    """
    if linking is not None:
        house.entrance.sessions.refuse_old(linking.session)
    person_id = None if linking is None else linking.person.id
    return await house.entrance.provider_url(provider, visitor, next_path=start.next, person_id=person_id)


async def finish_provider(
    house: House,
    provider: str,
    state: str,
    answer: Answer,
    visitor: Visitor,
    signed_in: SignedIn | None,
) -> Arrival:
    """Sign in whom a provider names, or add the identity to the account that asked for it.

    Raises:
        Unauthenticated: this browser did not ask, or the answer does not hold.
        Forbidden: an identity is to be added to an account that is signed in no more.
    """
    claim, challenge = await house.entrance.provider_answer(provider, state, answer, visitor)
    going: str | None = challenge.data["next"]
    if challenge.person_id is None:
        return Arrival(await house.entrance.by_claim(claim, visitor), going)
    if signed_in is None or signed_in.person.id != challenge.person_id:
        raise Forbidden("The account that asked for this identity is not signed in here any more.")
    await house.entrance.link_claim(claim, challenge.person_id)
    return Arrival(None, going)


async def sign_out(house: House, signed_in: SignedIn) -> None:
    """End the session that asks."""
    await house.entrance.sessions.end(signed_in.person.id, signed_in.session.id)


def proof_of(proof: LinkProof) -> Proof:
    """What was brought, as access takes it."""
    return Proof(proof.token, proof.request, proof.code)


def welcome(new: NewSession, going: str | None = None) -> Welcomed:
    """What somebody is told who has signed in. A program gets its session here, a browser in a cookie."""
    return Welcomed(
        person=view(new.person),
        expires=new.session.expires,
        token=new.text if new.session.carrier == "token" else None,
        next=going,
    )


def view(person: Person) -> PersonView:
    """A person, as they see themselves."""
    return PersonView(
        id=person.id,
        email=person.email,
        name=person.name,
        created=person.created,
        roles=sorted(person.roles),
    )
