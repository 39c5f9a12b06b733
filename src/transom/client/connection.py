"""Where the server is, and what opens it: from arguments, else from the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2

from transom import __version__
from transom.client.failures import ServerUnreachable
from transom.errors import Unauthenticated
from transom.schema.addresses import is_loopback

DEFAULT_BASE_URL = "http://127.0.0.1:8600"

DEFAULT_TIMEOUT = httpx2.Timeout(600, connect=5)
"""A long answer takes minutes; a server that is there accepts a connection at once."""

_KEY_PREFIX = "tr_"


@dataclass(frozen=True, slots=True)
class Connection:
    """An address and a key."""

    base_url: str
    api_key: str | None = field(default=None, repr=False)

    @classmethod
    def find(
        cls, base_url: str | None = None, api_key: str | None = None, environ: Mapping[str, str] = os.environ
    ) -> Connection:
        """Take what is given, else `TRANSOM_BASE_URL` and `TRANSOM_API_KEY`, else `OPENAI_*`.

        Raises:
            ServerUnreachable: the address is none.
            Unauthenticated: the key could not even be sent.
        """
        given = base_url or environ.get("TRANSOM_BASE_URL")
        openai = None if given else environ.get("OPENAI_BASE_URL")
        key = api_key if api_key is not None else environ.get("TRANSOM_API_KEY")
        if key is None:
            key = _openai_key(environ, paired=openai is not None)
        return cls(_checked_url(given or openai or DEFAULT_BASE_URL), _checked_key(key))

    def options(self, timeout: float | httpx2.Timeout) -> dict[str, Any]:
        """Arguments for either kind of HTTP client."""
        headers = {"user-agent": f"transom/{__version__}"}
        if self.api_key is not None:
            headers["authorization"] = f"Bearer {self.api_key}"
        return {
            "base_url": self.base_url,
            "headers": headers,
            "timeout": timeout,
            # A proxy named in the environment cannot reach this machine's own loopback.
            "trust_env": not is_loopback(httpx2.URL(self.base_url).host),
        }


def _openai_key(environ: Mapping[str, str], *, paired: bool) -> str | None:
    """`OPENAI_API_KEY`, unless that would hand somebody's OpenAI secret to another server."""
    key = environ.get("OPENAI_API_KEY")
    return key if key is not None and (paired or key.startswith(_KEY_PREFIX)) else None


def _checked_url(base_url: str) -> str:
    """The address without a trailing `/v1`, which OpenAI's clients want and every path here brings along."""
    try:
        url = httpx2.URL(base_url)
    except httpx2.InvalidURL as error:
        raise ServerUnreachable(f"{base_url!r} is no address: {error}.") from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise ServerUnreachable(f"{base_url!r} is no address; write it like {DEFAULT_BASE_URL}.")
    return base_url.rstrip("/").removesuffix("/v1").rstrip("/")


def _checked_key(key: str | None) -> str | None:
    """The key without the line end that a file may have left on it; None for no key."""
    key = (key or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise Unauthenticated("The key holds characters that no key has; copy it again, whole.")
    return key or None
