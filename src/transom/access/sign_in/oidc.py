"""Signing in with a provider: the authorization code flow of OpenID Connect, or of OAuth 2 alone.

What is done against whom (RFC 9700, OpenID Connect Core 3.1):

    another browser is led to the callback     state is bound to a cookie, and good once
    a code is stolen on its way                PKCE, S256 (RFC 7636)
    an ID token of another sign-in is put in   nonce
    one provider's answer is given to another  a callback for each provider, and `iss` (RFC 9207)
    a token is forged, or meant for others     signature by a key of the issuer's, algorithms from a list,
                                               iss, aud, azp, exp, iat, at_hash

Verifier and nonce are derived from the secret in the browser's cookie and never stored.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client

from transom.access.people.origin import Origin
from transom.access.people.people import normal_email
from transom.access.sign_in.id_tokens import IdTokens, Untrue
from transom.access.sign_in.identities import Claim
from transom.access.sign_in.metadata import Metadata, MetadataStore, Unusable, fetch_json
from transom.access.sign_in.providers import Provider
from transom.errors import InvalidRequest, NotFound, SignInUnavailable, Unauthenticated

STATE_LIFETIME = timedelta(minutes=15)
PURPOSE = "provider"
"""What the challenge behind a state is for."""

_TIMEOUT = httpx2.Timeout(10)
_ERROR_CODE = re.compile(r"[a-z_]{1,40}")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a provider's redirect brought to the callback."""

    code: str | None
    issuer: str | None
    error: str | None


def _now() -> datetime:
    return datetime.now(UTC)


class Providers:
    """The providers, and what is known of them.

    Args:
        providers: by the name of their table.
        origin: where their redirects lead.
        clock: the time, in UTC; decides whether an ID token has expired.
    """

    def __init__(
        self, providers: Mapping[str, Provider], origin: Origin, *, clock: Callable[[], datetime] = _now
    ) -> None:
        self._providers = providers
        self._origin = origin
        self._metadata = MetadataStore(clock)
        self._id_tokens = IdTokens(self._metadata, clock)

    def names(self) -> dict[str, str]:
        """What people see, by id."""
        return {provider_id: provider.name for provider_id, provider in self._providers.items()}

    def get(self, provider_id: str) -> Provider:
        """A provider.

        Raises:
            NotFound: the operator has configured none of that id.
        """
        if provider_id not in self._providers:
            known = ", ".join(sorted(self._providers)) or "none"
            raise NotFound(f"There is no provider {provider_id[:40]!r}; there are: {known}.")
        return self._providers[provider_id]

    async def authorization_url(self, provider_id: str, state: str, browser: str) -> str:
        """Where to send the browser.

        Raises:
            SignInUnavailable: the provider says nothing usable about itself.
        """
        provider = self.get(provider_id)
        metadata = await self._know(provider)
        async with self._client(provider_id) as client:
            more = {"nonce": _derived(browser, state, "nonce")} if provider.kind == "oidc" else {}
            url, _ = client.create_authorization_url(
                metadata.authorization_endpoint,
                state=state,
                code_verifier=_derived(browser, state, "pkce"),
                **more,
            )
        return str(url)

    async def claim(self, provider_id: str, state: str, answer: Answer, browser: str) -> Claim:
        """Who the provider says has come back. The state has been used up.

        Raises:
            Unauthenticated: the provider refused, or what it says does not hold.
            SignInUnavailable: it cannot be reached.
        """
        provider = self.get(provider_id)
        metadata = await self._know(provider)
        _check_issuer(provider, metadata, answer)
        if answer.code is None:
            reason = answer.error if answer.error and _ERROR_CODE.fullmatch(answer.error) else "no code"
            raise _refusal(provider, reason)
        try:
            return await self._exchange(provider_id, metadata, state, answer.code, browser)
        except (OAuthError, Untrue, ValueError) as error:
            reason = error.error if isinstance(error, OAuthError) else str(error)
            raise _refusal(provider, reason if _ERROR_CODE.fullmatch(str(reason)) else "invalid") from error
        except (httpx2.HTTPError, Unusable) as error:
            raise _unavailable(provider) from error

    async def _exchange(
        self, provider_id: str, metadata: Metadata, state: str, code: str, browser: str
    ) -> Claim:
        provider = self.get(provider_id)
        async with self._client(provider_id) as client:
            token = await client.fetch_token(
                metadata.token_endpoint,
                grant_type="authorization_code",
                code=code,
                code_verifier=_derived(browser, state, "pkce"),
            )
        if not isinstance(token.get("access_token"), str):
            raise Untrue("no_token")
        if provider.kind == "oauth2":
            return _claim_of_user(provider, await self._user(metadata, token))
        nonce = _derived(browser, state, "nonce")
        claims = await self._id_tokens.verified(provider, metadata, token, nonce)
        if provider.trust_email and "email" not in claims and metadata.userinfo_endpoint is not None:
            told = await self._user(metadata, token)
            if told.get("sub") != claims["sub"]:  # OpenID Connect Core 5.3.2
                raise Untrue("other_subject")
            claims = told | claims
        return _claim_of_token(provider, claims)

    async def _user(self, metadata: Metadata, token: Mapping[str, Any]) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {token['access_token']}", "accept": "application/json"}
        assert metadata.userinfo_endpoint is not None  # noqa: S101  # asked by who knows that there is one
        return await fetch_json(metadata.userinfo_endpoint, headers)

    async def _know(self, provider: Provider) -> Metadata:
        try:
            return await self._metadata.of(provider)
        except (httpx2.HTTPError, ValueError, Unusable) as error:
            raise _unavailable(provider) from error

    def _client(self, provider_id: str) -> AsyncOAuth2Client:
        provider = self.get(provider_id)
        return AsyncOAuth2Client(
            client_id=provider.client_id,
            client_secret=provider.secret,
            token_endpoint_auth_method=provider.client_auth,
            scope=provider.scope or None,
            redirect_uri=f"{self._origin.text}/v1/auth/providers/{provider_id}/callback",
            code_challenge_method="S256",
            timeout=_TIMEOUT,
            follow_redirects=False,
        )


def _derived(browser: str, state: str, purpose: str) -> str:
    """A secret of this state that only the browser's cookie leads to: 43 characters, as PKCE wants them."""
    digest = hmac.digest(browser.encode(), f"{purpose} {state}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _check_issuer(provider: Provider, metadata: Metadata, answer: Answer) -> None:
    """RFC 9207: an answer that names another issuer was meant for another client of ours."""
    named = answer.issuer is not None
    if (named and answer.issuer != provider.issuer) or (metadata.names_issuer and not named):
        raise _refusal(provider, "other_issuer")


def _claim_of_token(provider: Provider, claims: Mapping[str, Any]) -> Claim:
    email = None
    if provider.trust_email and claims.get("email_verified") is True:
        email = _email(claims.get("email"))
    return Claim(provider.issuer, claims["sub"], _name(claims.get("name")), email)


def _claim_of_user(provider: Provider, user: Mapping[str, Any]) -> Claim:
    subject = user.get(provider.subject)
    if isinstance(subject, bool) or not isinstance(subject, str | int) or not 0 < len(str(subject)) <= 255:
        raise Untrue("no_subject")
    return Claim(provider.issuer, str(subject), _name(user.get("name")))


def _email(text: object) -> str | None:
    try:
        return normal_email(text) if isinstance(text, str) else None
    except InvalidRequest:
        return None


def _name(text: object) -> str:
    """A name as it may be shown: nothing that turns the line around it, or breaks it."""
    return _UNPRINTABLE.sub("", text)[:200].strip() if isinstance(text, str) else ""


def _refusal(provider: Provider, reason: str) -> Unauthenticated:
    return Unauthenticated(
        f"Signing in with {provider.name} did not work ({reason}); begin again.", code="sign_in_failed"
    )


def _unavailable(provider: Provider) -> SignInUnavailable:
    return SignInUnavailable(
        f"{provider.name} cannot be reached, or answers nothing usable; sign in another way, or later."
    )
