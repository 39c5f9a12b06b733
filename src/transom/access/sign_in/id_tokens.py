"""ID tokens: whether what stands in one was said by the issuer, to us, now (OpenID Connect Core 3.1.3.7)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError

from transom.access.sign_in.metadata import Metadata, MetadataStore
from transom.access.sign_in.providers import Provider

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
"""Signatures that are taken. Neither `none` nor HMAC: a client's secret is no proof of the issuer."""

LEEWAY_SECONDS = 60
"""How far clocks may be apart."""


class Untrue(Exception):
    """What a provider sent does not hold. The message is a word for the reason."""


class IdTokens:
    """Checks ID tokens, with the keys that their issuers publish."""

    def __init__(self, metadata: MetadataStore, clock: Callable[[], datetime]) -> None:
        self._metadata = metadata
        self._clock = clock

    async def verified(
        self, provider: Provider, metadata: Metadata, token: Mapping[str, Any], nonce: str
    ) -> dict[str, Any]:
        """The claims of the ID token in a token response.

        Raises:
            Untrue: there is none, or it does not hold.
            HTTPError: the issuer's keys cannot be had.
        """
        text = token.get("id_token")
        if not isinstance(text, str):
            raise Untrue("no_id_token")
        try:
            signed = await self._decode(metadata, text)
            claims = CodeIDToken(
                signed.claims,
                signed.header,
                options={
                    "iss": {"essential": True, "value": provider.issuer},
                    "aud": {"essential": True, "value": provider.client_id},
                },
                params={
                    "nonce": nonce,
                    "client_id": provider.client_id,
                    "access_token": token["access_token"],
                },
            )
            claims.validate(now=int(self._clock().timestamp()), leeway=LEEWAY_SECONDS)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise Untrue("invalid_id_token") from error
        if not isinstance(claims["sub"], str) or not 0 < len(claims["sub"]) <= 255:
            raise Untrue("no_subject")
        return dict(claims)

    async def _decode(self, metadata: Metadata, text: str) -> jwt.Token:
        """The signed parts. An issuer changes its keys: one that is unknown is looked for again, once."""
        keys = await self._metadata.keys(metadata)
        assert keys is not None  # noqa: S101  # only for keys that were missed
        try:
            return jwt.decode(text, keys, algorithms=ALGORITHMS)
        except InvalidKeyIdError:
            fresh = await self._metadata.keys(metadata, missed=True)
            if fresh is None:
                raise
            return jwt.decode(text, fresh, algorithms=ALGORITHMS)
