"""The text of a key: `tr_<22 characters: id>_<43: secret><6: checksum>`, all base62.

The prefix lets scanners find leaked keys; the checksum lets them, and us, tell a key from a typing error
without asking a database. It protects against nothing else.
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
_KEY = re.compile(r"tr_([0-9A-Za-z]{22})_([0-9A-Za-z]{43})([0-9A-Za-z]{6})")

NO_KEY = frozenset({"", "EMPTY", "DUMMY_KEY", "none"})
"""What clients send that must send something."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key in its parts."""

    id: str
    """128 random bits; not secret, and the name under which the key is listed."""
    secret: str = field(repr=False)
    """256 random bits."""

    @property
    def body(self) -> str:
        """All of the key but its checksum."""
        return f"tr_{self.id}_{self.secret}"

    @property
    def text(self) -> str:
        """The key as its owner keeps it."""
        return self.body + checksum(self.body)


def mint() -> Key:
    """A new key, from the operating system's randomness."""
    return Key(
        base62(secrets.randbits(128), _ID_LENGTH),
        base62(secrets.randbits(256), _SECRET_LENGTH),
    )


def parse(text: str) -> Key:
    """The parts of a key.

    Raises:
        Unauthenticated: this is no key, or not all of one.
    """
    match = _KEY.fullmatch(text)
    if match is None:
        raise Unauthenticated("The API key is malformed: a key is tr_, 22 characters, _ and 49 characters.")
    key = Key(match[1], match[2])
    if match[3] != checksum(key.body):
        raise Unauthenticated("The API key is mistyped or cut off: its checksum does not match.")
    return key


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
