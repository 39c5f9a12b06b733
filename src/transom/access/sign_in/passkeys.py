"""Passkeys: WebAuthn level 2, with credentials that the authenticator can find by itself.

Checking what an authenticator says is py_webauthn's work; here stands what has to be remembered for it.
User verification is required, so a passkey alone is two factors. No attestation is asked for: which make of
authenticator somebody uses is their business.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import webauthn
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Connection, RowMapping, delete, func, insert, select, update
from webauthn.helpers import base64url_to_bytes, bytes_to_base64url, encode_cbor, parse_client_data_json
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from transom.access.credentials.keys import random_id
from transom.access.people.origin import Origin
from transom.access.people.people import Person, refuse_locked_out, retried
from transom.access.sign_in.challenges import Challenge
from transom.errors import Conflict, NotFound, Unauthenticated
from transom.storage.database import Database
from transom.storage.tables import passkeys

T = TypeVar("T")

CHALLENGE_LIFETIME = timedelta(minutes=5)
MOST_PASSKEYS = 20

REGISTER, SIGN_IN = "passkey-new", "passkey"
"""What a challenge is for."""

Credential = Mapping[str, Any]
"""What `PublicKeyCredential.toJSON()` gives in the browser."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passkey:
    """What may be shown of a passkey."""

    id: str
    name: str
    created: datetime
    last_used: datetime | None


@dataclass(frozen=True, slots=True)
class Verified:
    """An assertion that holds for what was stored when it was checked."""

    passkey_id: str
    person_id: str
    stored_count: int
    new_count: int


def _now() -> datetime:
    return datetime.now(UTC)


class PasskeyStore:
    """The passkeys of all people.

    Args:
        database: where their public keys are kept; they are no secrets.
        origin: what passkeys are bound to.
        clock: the time, in UTC.
    """

    def __init__(self, database: Database, origin: Origin, *, clock: Callable[[], datetime] = _now) -> None:
        self._database = database
        self._origin = origin
        self._clock = clock
        self._decoy = _decoy()

    async def list_of(self, person_id: str) -> list[Passkey]:
        """A person's passkeys, oldest first."""
        query = select(passkeys).where(passkeys.c.person_id == person_id).order_by(passkeys.c.created)
        rows = await self._database.read(lambda connection: connection.execute(query).mappings().all())
        return [_passkey(row) for row in rows]

    async def remove(self, person_id: str, passkey_id: str) -> None:
        """Take a passkey from a person.

        Raises:
            NotFound: they have no such passkey.
            Conflict: it is the only way in that they have.
        """
        gone = delete(passkeys).where(passkeys.c.id == passkey_id, passkeys.c.person_id == person_id)

        def write(connection: Connection) -> None:
            if connection.execute(gone).rowcount == 0:
                raise NotFound(f"You have no passkey {passkey_id[:40]!r}.")
            refuse_locked_out(connection, person_id)

        await self._database.write(write)

    async def creation_options(self, person: Person) -> dict[str, Any]:
        """What `navigator.credentials.create()` takes, with a fresh challenge.

        Raises:
            Conflict: this server's address is one that passkeys cannot be bound to.
        """
        query = select(passkeys.c.credential).where(passkeys.c.person_id == person.id)
        known = await self._database.read(lambda connection: connection.execute(query).scalars().all())
        options = webauthn.generate_registration_options(
            rp_id=self._domain(),
            rp_name="Transom",
            user_id=person.id.encode(),
            user_name=person.email or person.name or person.id,
            user_display_name=person.name or person.email or person.id,
            timeout=_milliseconds(CHALLENGE_LIFETIME),
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.REQUIRED,
                user_verification=UserVerificationRequirement.REQUIRED,
            ),
            exclude_credentials=[
                PublicKeyCredentialDescriptor(id=base64url_to_bytes(each)) for each in known
            ],
        )
        return _as_json(options)

    def request_options(self) -> dict[str, Any]:
        """What `navigator.credentials.get()` takes, with a fresh challenge, for whoever it may be.

        Raises:
            Conflict: this server's address is one that passkeys cannot be bound to.
        """
        options = webauthn.generate_authentication_options(
            rp_id=self._domain(),
            timeout=_milliseconds(CHALLENGE_LIFETIME),
            user_verification=UserVerificationRequirement.REQUIRED,
        )
        return _as_json(options)

    async def add(self, challenge: Challenge, person_id: str, credential: Credential, name: str) -> Passkey:
        """Keep a passkey that answers `challenge`, which has been used up.

        Raises:
            Unauthenticated: it does not answer it.
            Conflict: it is known already, or the person has very many.
        """
        verified = _checked(
            lambda: webauthn.verify_registration_response(
                credential=dict(credential),
                expected_challenge=base64url_to_bytes(challenge.data["challenge"]),
                expected_rp_id=self._domain(),
                expected_origin=self._origin.text,
                require_user_verification=True,
            )
        )
        _refuse_embedded(credential)
        known_as = bytes_to_base64url(verified.credential_id)
        row = {
            "id": "pky_" + random_id(),
            "person_id": person_id,
            "credential": known_as,
            "public_key": verified.credential_public_key,
            "sign_count": verified.sign_count,
            "name": name,
            "created": self._clock(),
        }

        def write(connection: Connection) -> Passkey:
            theirs = select(func.count()).where(passkeys.c.person_id == person_id)
            if _by_credential(connection, known_as) is not None:
                raise Conflict("This passkey is known here already.")
            if connection.execute(theirs).scalar_one() >= MOST_PASSKEYS:
                raise Conflict(f"You have {MOST_PASSKEYS} passkeys; remove one first.")
            connection.execute(insert(passkeys).values(row))
            stored = _by_credential(connection, known_as)
            assert stored is not None  # noqa: S101  # inserted a line ago
            return _passkey(stored)

        return await retried(self._database, write)

    async def verify(self, challenge: Challenge, credential: Credential) -> Verified:
        """Whose passkey answers `challenge`, which has been used up.

        A credential that nobody here has costs the same work as one with a wrong signature.

        Raises:
            Unauthenticated: it does not answer it, or its counter did not move on, as a copy's would not.
        """
        wanted = str(credential.get("id"))[:1364]
        row = await self._database.read(lambda connection: _by_credential(connection, wanted))
        public_key, count = (self._decoy, 0) if row is None else (row["public_key"], row["sign_count"])
        verified = _checked(
            lambda: webauthn.verify_authentication_response(
                credential=dict(credential),
                expected_challenge=base64url_to_bytes(challenge.data["challenge"]),
                expected_rp_id=self._domain(),
                expected_origin=self._origin.text,
                credential_public_key=public_key,
                credential_current_sign_count=count,
                require_user_verification=True,
            )
        )
        _refuse_embedded(credential)
        if row is None or _user_handle(credential) != row["person_id"].encode():
            raise _refusal()
        return Verified(row["id"], row["person_id"], count, verified.new_sign_count)

    def use(self, connection: Connection, verified: Verified) -> None:
        """Move the counter on, as a step of the write that the sign-in is.

        Raises:
            Unauthenticated: the passkey was used or removed since it was checked.
        """
        unchanged = (passkeys.c.id == verified.passkey_id, passkeys.c.sign_count == verified.stored_count)
        moved = update(passkeys).where(*unchanged)
        moved = moved.values(sign_count=verified.new_count, last_used=self._clock())
        if connection.execute(moved).rowcount != 1:
            raise _refusal()

    def _domain(self) -> str:
        domain = self._origin.passkey_domain
        if domain is None:
            raise Conflict(
                "Passkeys are bound to a name, and this server goes by a number: its operator would have to "
                "set TRANSOM_PUBLIC_URL."
            )
        return domain


def _by_credential(connection: Connection, credential: str) -> RowMapping | None:
    query = select(passkeys).where(passkeys.c.credential == credential)
    return connection.execute(query).mappings().one_or_none()


def _checked(verify: Callable[[], T]) -> T:
    try:
        return verify()
    except Exception as error:  # a parser of CBOR and keys, fed by strangers, may raise anything
        raise _refusal() from error


def _refusal() -> Unauthenticated:
    return Unauthenticated(
        "The passkey is unknown here, or its answer is not good: begin again.", code="invalid_passkey"
    )


def _refuse_embedded(credential: Credential) -> None:
    """Refuse what was signed inside another site's frame (WebAuthn level 3, section 13.4.9)."""
    client = parse_client_data_json(base64url_to_bytes(credential["response"]["clientDataJSON"]))
    if client.cross_origin:
        raise _refusal()


def _user_handle(credential: Credential) -> bytes | None:
    handle = credential["response"].get("userHandle")
    return base64url_to_bytes(handle) if isinstance(handle, str) else None


def _as_json(options: Any) -> dict[str, Any]:  # noqa: ANN401  # of either kind
    document: dict[str, Any] = json.loads(webauthn.options_to_json(options))
    return document


def _milliseconds(length: timedelta) -> int:
    return length // timedelta(milliseconds=1)


def _decoy() -> bytes:
    """The public half of a key that nobody has, as COSE (RFC 9053) spells one on P-256."""
    point = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()
    x, y = point.x.to_bytes(32, "big"), point.y.to_bytes(32, "big")
    return encode_cbor({1: 2, 3: -7, -1: 1, -2: x, -3: y})


def _passkey(row: RowMapping) -> Passkey:
    return Passkey(id=row["id"], name=row["name"], created=row["created"], last_used=row["last_used"])
