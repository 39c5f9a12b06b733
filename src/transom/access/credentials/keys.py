"""The text of a key: `tr_<22 characters: id>_<43: secret><6: checksum>`, all base62.

The prefix lets scanners find leaked keys; the checksum lets them, and us, tell a key from a typing error
without asking a database. It protects against nothing else. Sessions (`ts_…`) and the secrets in sign-in
links (`tl_…`) are spelled in the same way.
"""

from __future__ import annotations

import re
import secrets
import string
import zlib
from dataclasses import dataclass, field

from transom.errors import Unauthenticated

_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_ID_LENGTH, _SECRET_LENGTH, _CHECKSUM_LENGTH = 22, 43, 6
_KEY = re.compile(r"(t[a-z])_([0-9A-Za-z]{22})_([0-9A-Za-z]{43})([0-9A-Za-z]{6})")
_SPELLED = re.compile(rb"t[lrs]_[0-9A-Za-z]{22}_[0-9A-Za-z]{49}")

NO_KEY = frozenset({"", "EMPTY", "DUMMY_KEY", "none"})
"""What clients send that must send something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a secret is for; one of one kind never passes for another."""

    prefix: str
    name: str
    code: str
    """Code of the error where it is malformed."""


API_KEY = Kind(prefix="tr", name="API key", code="invalid_api_key")
SESSION = Kind(prefix="ts", name="session token", code="invalid_session")
LINK = Kind(prefix="tl", name="sign-in link", code="invalid_link")


@dataclass(frozen=True, slots=True)
class Key:
    """A key in its parts."""

    id: str
    """128 random bits; not secret, and the name under which the key is listed."""
    secret: str = field(repr=False)
    """256 random bits."""
    kind: Kind = API_KEY

    @property
    def body(self) -> str:
        """All of the key but its checksum."""
        return f"{self.kind.prefix}_{self.id}_{self.secret}"

    @property
    def text(self) -> str:
        """The key as its owner keeps it."""
        return self.body + checksum(self.body)


def mint(kind: Kind = API_KEY) -> Key:
    """A new key, from the operating system's randomness."""
    return Key(random_id(), base62(secrets.randbits(256), _SECRET_LENGTH), kind)


def random_id() -> str:
    """128 random bits as 22 characters: the part of an id behind its prefix."""
    return base62(secrets.randbits(128), _ID_LENGTH)


def parse(text: str, kind: Kind = API_KEY) -> Key:
    """The parts of a key.

    Raises:
        Unauthenticated: this is no key, or not all of one.
    """
    match = _KEY.fullmatch(text)
    if match is None or match[1] != kind.prefix:
        form = f"{kind.prefix}_, 22 characters, _ and 49 characters"
        raise Unauthenticated(f"The {kind.name} is malformed: it is {form}.", code=kind.code)
    key = Key(match[2], match[3], kind)
    if match[4] != checksum(key.body):
        raise Unauthenticated(
            f"The {kind.name} is mistyped or cut off: its checksum does not match.", code=kind.code
        )
    return key


def holds_secret(text: bytes) -> bool:
    """Whether a key, a session or a link's secret stands somewhere in `text`."""
    return _SPELLED.search(text) is not None


def checksum(body: str) -> str:
    """CRC-32 (IEEE 802.3) in base62."""
    return base62(zlib.crc32(body.encode()), _CHECKSUM_LENGTH)


def base62(number: int, length: int) -> str:
    """`number` in digits 0-9, A-Z, a-z, filled up with zeros to `length`.

    Raises:
        ValueError: it does not fit, or is negative.
    """
    if not 0 <= number < 62**length:
        raise ValueError(f"{number} is not a base62 number of {length} digits")
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_BASE62[digit])
    return "".join(reversed(digits))
