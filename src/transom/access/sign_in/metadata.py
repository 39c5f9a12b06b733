"""What providers of identity publish of themselves: endpoints and keys, fetched, checked and kept a while."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx2
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from transom.access.people.origin import is_safe_transport
from transom.access.sign_in.providers import Provider
from transom.schema.addresses import is_loopback

KEPT = timedelta(hours=1)
KEYS_AGAIN = timedelta(seconds=30)
"""How soon keys may be fetched again because of one that is not among them."""

_MOST_BYTES = 1 << 20
_TIMEOUT = httpx2.Timeout(10)


class Unusable(Exception):
    """What a provider publishes cannot be used."""


class Metadata(BaseModel):
    """The part of OpenID Connect Discovery 1.0, section 3, that is used here."""

    model_config = ConfigDict(frozen=True)

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str | None = None
    userinfo_endpoint: str | None = None
    names_issuer: bool = Field(
        default=False, validation_alias="authorization_response_iss_parameter_supported"
    )


@dataclass(frozen=True, slots=True)
class _Kept:
    metadata: Metadata
    fetched: datetime


@dataclass(frozen=True, slots=True)
class _KeptKeys:
    keys: KeySet
    fetched: datetime


class MetadataStore:
    """What was fetched, for an hour."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._metadata: dict[str, _Kept] = {}
        self._keys: dict[str, _KeptKeys] = {}

    async def of(self, provider: Provider) -> Metadata:
        """A provider's endpoints: as configured, or as it publishes them.

        Raises:
            Unusable: they are not those of this issuer, or not safe to use.
            HTTPError: they cannot be had.
        """
        if provider.kind == "oauth2":
            return Metadata.model_validate(provider.model_dump(exclude_none=True))
        kept = self._metadata.get(provider.issuer)
        if kept is None or self._clock() - kept.fetched >= KEPT:
            kept = _Kept(await _discover(provider.issuer), self._clock())
            self._metadata[provider.issuer] = kept
        return kept.metadata

    async def keys(self, metadata: Metadata, *, missed: bool = False) -> KeySet | None:
        """An issuer's keys.

        Args:
            metadata: the issuer's.
            missed: whether a key was not among those that were given before.

        Returns:
            None where a key was missed, and it is too soon to look again.

        Raises:
            Unusable: what was fetched is no key set.
            HTTPError: it cannot be had.
        """
        kept = self._keys.get(metadata.issuer)
        age = timedelta.max if kept is None else self._clock() - kept.fetched
        if kept is not None and age < (KEYS_AGAIN if missed else KEPT):
            return None if missed else kept.keys
        kept = _KeptKeys(await _fetch_keys(metadata), self._clock())
        self._keys[metadata.issuer] = kept
        return kept.keys


async def fetch_json(url: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The JSON object at `url`; no redirect is followed, and no more than a mebibyte read.

    Raises:
        Unusable: it is none, or too long.
        HTTPError: it cannot be had.
    """
    local = is_loopback(urlsplit(url).hostname or "")
    client = httpx2.AsyncClient(timeout=_TIMEOUT, follow_redirects=False, trust_env=not local)
    content = b""
    async with client, client.stream("GET", url, headers=headers) as response:
        response.raise_for_status()
        async for chunk in response.aiter_bytes():
            content += chunk
            if len(content) > _MOST_BYTES:
                raise Unusable("too long")
    try:
        document = json.loads(content)
    except ValueError as error:
        raise Unusable("no JSON") from error
    if not isinstance(document, dict):
        raise Unusable("no JSON object")
    return document


async def _discover(issuer: str) -> Metadata:
    document = await fetch_json(issuer.rstrip("/") + "/.well-known/openid-configuration")
    try:
        metadata = Metadata.model_validate(document)
    except ValidationError as error:
        raise Unusable("endpoints are missing") from error
    if metadata.issuer != issuer:
        raise Unusable("it is another issuer's")
    places = (metadata.authorization_endpoint, metadata.token_endpoint, metadata.jwks_uri)
    if metadata.jwks_uri is None or not all(
        _is_safe(url, issuer) for url in (*places, metadata.userinfo_endpoint) if url
    ):
        raise Unusable("an endpoint is missing, or not https")
    return metadata


def _is_safe(url: str, issuer: str) -> bool:
    """HTTPS; an issuer on this machine may use what is on this machine, and nobody else may."""
    return urlsplit(url).scheme == "https" or (issuer.startswith("http:") and is_safe_transport(url))


async def _fetch_keys(metadata: Metadata) -> KeySet:
    document = await fetch_json(str(metadata.jwks_uri))
    try:
        return KeySet.import_key_set({"keys": document["keys"]})
    except (JoseError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise Unusable("no key set") from error
