"""The entrance: every way in. Each ends with a new session, in one transaction with what it used up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import Connection

from transom.access.credentials.peppers import PepperSource
from transom.access.people.mail import Mailer
from transom.access.people.origin import Origin
from transom.access.people.own_data import OwnData
from transom.access.people.people import PeopleStore, Person, one, retried
from transom.access.sign_in.challenges import Challenge, ChallengeStore
from transom.access.sign_in.identities import Claim, IdentityStore
from transom.access.sign_in.links import LinkStore, NewLink, Proof, Proven, Refused
from transom.access.sign_in.oidc import PURPOSE, STATE_LIFETIME, Answer, Providers
from transom.access.sign_in.passkeys import CHALLENGE_LIFETIME, REGISTER, SIGN_IN, Credential, PasskeyStore
from transom.access.sign_in.providers import Provider
from transom.access.sign_in.sessions import Carrier, Method, NewSession, SessionStore
from transom.access.sign_in.throttle import Pace, Throttle, network_of
from transom.errors import Unauthenticated
from transom.storage.database import Database

T = TypeVar("T")

MAILS_TO = Pace("mails to an address", 5, timedelta(minutes=5))
MAILS_FROM = Pace("mails asked for from a network", 30, timedelta(seconds=30))
ATTEMPTS = Pace("attempts from a network", 60, timedelta(seconds=5))


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """What a request says of where it comes from."""

    carrier: Carrier
    """How a session would travel."""
    browser: str | None = field(default=None, repr=False)
    """The secret in the browser's cookie that binds the steps of a sign-in to it."""
    brought: str | None = field(default=None, repr=False)
    """A session that it came with, which ends when another begins."""
    address: str | None = None
    """IP address."""
    agent: str = ""


class Entrance:
    """Ways in, and the stores behind them.

    Args:
        database: where all of it is kept.
        peppers: keys of the hashes that are kept in the place of secrets.
        origin: the address that people's browsers know this server by.
        mailer: where mails go.
        providers: of identity, by id.
        clock: the time, in UTC.
    """

    def __init__(
        self,
        database: Database,
        peppers: PepperSource,
        origin: Origin,
        mailer: Mailer,
        providers: dict[str, Provider],
        *,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self.origin = origin
        self.mailer = mailer
        self.people = PeopleStore(database, clock=clock)
        self.identities = IdentityStore(database, self.people, clock=clock)
        self.sessions = SessionStore(database, peppers, clock=clock)
        self.passkeys = PasskeyStore(database, origin, clock=clock)
        self.providers = Providers(providers, origin, clock=clock)
        self.own_data = OwnData(database, clock=clock)
        self._database = database
        self._links = LinkStore(peppers, clock=clock)
        self._challenges = ChallengeStore(peppers, clock=clock)
        self._throttle = Throttle(peppers, clock=clock)

    async def new_link(
        self, email: str, visitor: Visitor, *, next_path: str | None = None, person_id: str | None = None
    ) -> NewLink:
        """A link for an address in its normal spelling. Whether anybody has it is not looked up.

        Raises:
            QuotaExceeded: too many were asked for, for this address or from this network.
        """
        steps = [(MAILS_TO, email), (MAILS_FROM, network_of(visitor.address))]

        def write(connection: Connection) -> NewLink:
            self._throttle.step(connection, steps)
            return self._links.make(
                connection, email, browser=visitor.browser, person_id=person_id, next_path=next_path
            )

        return await retried(self._database, write)

    async def by_link(self, proof: Proof, visitor: Visitor) -> tuple[NewSession, str | None]:
        """Sign in whoever reads the mail; for an address that is new here, as a new person.

        Returns:
            The session, and where to go.

        Raises:
            Unauthenticated: the link or code is wrong, used, too old, or was asked for elsewhere.
        """

        def write(connection: Connection) -> tuple[NewSession, str | None] | Refused:
            proven = self._prove(connection, proof, visitor)
            if isinstance(proven, Refused):
                return proven
            person = self.people.by_email(connection, proven.email)
            return self._begin(connection, person, "link", visitor), proven.next

        return _or_raise(await retried(self._database, write))

    async def take_email(self, proof: Proof, visitor: Visitor, person_id: str) -> Person:
        """Give a person the address whose mail they read.

        Raises:
            Unauthenticated: as `by_link`.
            Conflict: it is somebody else's.
        """

        def write(connection: Connection) -> Person | Refused:
            proven = self._prove(connection, proof, visitor, person_id)
            if isinstance(proven, Refused):
                return proven
            return self.people.take_email(connection, person_id, proven.email)

        return _or_raise(await retried(self._database, write))

    async def passkey_request(self, visitor: Visitor) -> tuple[str, dict[str, Any]]:
        """A challenge to sign in by a passkey: its id, and options for the browser.

        Raises:
            QuotaExceeded: too many were asked for from this network.
        """
        options = self.passkeys.request_options()
        return await self._ask(SIGN_IN, {"challenge": options["challenge"]}, visitor), options

    async def by_passkey(self, challenge_id: str, credential: Credential, visitor: Visitor) -> NewSession:
        """Sign in whoever has the passkey.

        Raises:
            Unauthenticated: there is no such challenge, or the answer to it is not good.
        """
        challenge = await self._take(SIGN_IN, challenge_id, visitor.browser)
        verified = await self.passkeys.verify(challenge, credential)

        def write(connection: Connection) -> NewSession:
            self.passkeys.use(connection, verified)
            person = one(connection, verified.person_id)
            return self._begin(connection, person, "passkey", visitor)

        return await self._database.write(write)

    async def passkey_creation(self, person: Person, visitor: Visitor) -> tuple[str, dict[str, Any]]:
        """A challenge to make a passkey: its id, and options for the browser."""
        options = await self.passkeys.creation_options(person)
        data = {"challenge": options["challenge"]}
        return await self._ask(REGISTER, data, visitor, person_id=person.id), options

    async def take_creation(self, challenge_id: str, person_id: str) -> Challenge:
        """Use up a challenge to make a passkey.

        Raises:
            Unauthenticated: there is none, or it is another person's.
        """
        challenge = await self._take(REGISTER, challenge_id, None)
        if challenge.person_id != person_id:
            raise Unauthenticated("This challenge is another account's; begin again.", code="stale_challenge")
        return challenge

    async def provider_url(
        self, provider_id: str, visitor: Visitor, *, next_path: str | None, person_id: str | None = None
    ) -> str:
        """Where to send a browser that wants to sign in with a provider.

        Args:
            provider_id: which.
            visitor: from whom; its browser's cookie is part of what binds the answer.
            next_path: where to go afterwards, on this site.
            person_id: who wants the identity as theirs; None for signing in.

        Raises:
            NotFound: there is no such provider.
            SignInUnavailable: it cannot be reached.
            QuotaExceeded: too many were asked for from this network.
        """
        assert visitor.browser is not None  # noqa: S101  # providers are for browsers
        self.providers.get(provider_id)
        data = {"provider": provider_id, "next": next_path}
        state = await self._ask(
            PURPOSE,
            data,
            visitor,
            lifetime=STATE_LIFETIME,
            person_id=person_id,
            browser=visitor.browser,
        )
        return await self.providers.authorization_url(provider_id, state, visitor.browser)

    async def provider_answer(
        self, provider_id: str, state: str, answer: Answer, visitor: Visitor
    ) -> tuple[Claim, Challenge]:
        """Who a provider says has come back, and what they were asked for.

        Raises:
            NotFound: there is no such provider.
            Unauthenticated: this browser did not ask, or the answer does not hold.
            SignInUnavailable: the provider cannot be reached.
        """
        self.providers.get(provider_id)
        browser = visitor.browser or ""
        challenge = await self._take(PURPOSE, state, browser)
        if challenge.data["provider"] != provider_id:
            raise Unauthenticated(
                "This answer belongs to another provider; begin again.", code="stale_challenge"
            )
        return await self.providers.claim(provider_id, state, answer, browser), challenge

    async def by_claim(self, claim: Claim, visitor: Visitor) -> NewSession:
        """Sign in whom a provider's claim means; see `transom.access.sign_in.identities` for the rule."""

        def write(connection: Connection) -> NewSession:
            person = self.identities.person_by_claim(connection, claim)
            return self._begin(connection, person, "provider", visitor)

        return await retried(self._database, write)

    async def link_claim(self, claim: Claim, person_id: str) -> Person:
        """Give a person an identity that they asked for from within their session.

        Raises:
            Conflict: it is somebody else's.
        """
        return await retried(
            self._database, lambda connection: self.identities.link(connection, claim, person_id)
        )

    async def another_session(self, person: Person, agent: str) -> NewSession:
        """A token session for somebody who is signed in, to use where there is no browser."""
        return await self._database.write(
            lambda connection: self.sessions.open(
                connection, person.id, carrier="token", method="session", agent=agent
            )
        )

    def _prove(
        self, connection: Connection, proof: Proof, visitor: Visitor, person_id: str | None = None
    ) -> Proven | Refused:
        return self._links.redeem(
            connection, proof, carrier=visitor.carrier, browser=visitor.browser, person_id=person_id
        )

    def _begin(self, connection: Connection, person: Person, method: Method, visitor: Visitor) -> NewSession:
        self.sessions.end_brought(connection, visitor.brought)
        return self.sessions.open(
            connection, person.id, carrier=visitor.carrier, method=method, agent=visitor.agent
        )

    async def _ask(
        self,
        purpose: str,
        data: dict[str, Any],
        visitor: Visitor,
        *,
        lifetime: timedelta = CHALLENGE_LIFETIME,
        person_id: str | None = None,
        browser: str | None = None,
    ) -> str:
        """A new challenge's id, if this network has not asked for too many."""

        def write(connection: Connection) -> str:
            self._throttle.step(connection, [(ATTEMPTS, network_of(visitor.address))])
            return self._challenges.make(
                connection, purpose, lifetime=lifetime, data=data, person_id=person_id, browser=browser
            )

        return await retried(self._database, write)

    async def _take(self, purpose: str, challenge_id: str, browser: str | None) -> Challenge:
        return await self._database.write(
            lambda connection: self._challenges.take(connection, purpose, challenge_id, browser=browser)
        )


def _or_raise(result: T | Refused) -> T:
    """What a write returned. A refusal is raised only now, when what it changed is on disk."""
    if isinstance(result, Refused):
        raise result.error()
    return result
