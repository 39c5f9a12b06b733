"""The address that people's browsers know this server by: what links, cookies and passkeys are bound to."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from transom.errors import ConfigurationError
from transom.schema.addresses import is_loopback


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port (RFC 6454). It is a setting, and never what a request says of itself."""

    text: str
    """Such as `https://transom.example.org`, without a slash at the end."""
    host: str

    @classmethod
    def parse(cls, url: str) -> Origin:
        """The origin that `url` is.

        Raises:
            ConfigurationError: it is more or less than an origin, or plain HTTP beyond this machine.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise ConfigurationError(f"TRANSOM_PUBLIC_URL is no address: {error}.") from error
        bare = not (parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc)
        if parts.scheme not in {"http", "https"} or not host or not bare:
            raise ConfigurationError("TRANSOM_PUBLIC_URL is scheme and host, as https://transom.example.org.")
        if parts.scheme == "http" and not is_loopback(host):
            raise ConfigurationError("TRANSOM_PUBLIC_URL has to be https, unless its host is this machine.")
        usual = {"http": 80, "https": 443}[parts.scheme]
        name = f"[{host}]" if ":" in host else host
        text = f"{parts.scheme}://{name}" + ("" if port in {None, usual} else f":{port}")
        return cls(text, host)

    @property
    def secure(self) -> bool:
        """Whether browsers come by HTTPS."""
        return self.text.startswith("https:")

    @property
    def passkey_domain(self) -> str | None:
        """What passkeys are bound to (WebAuthn's RP ID); None where the host is a number, which cannot be."""
        return None if _is_number(self.host) else self.host


def is_safe_transport(url: str) -> bool:
    """Whether what is sent to `url` stays between us and whoever answers: HTTPS, or this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))


def _is_number(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
