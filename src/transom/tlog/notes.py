"""Signed notes and the keys that sign them (https://c2sp.org/signed-note).

A note is text and, after an empty line, one signature a line. Keys are named, so that a note can carry
signatures of several parties and of keys that a reader does not know.
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from transom.errors import NotVerified

ED25519, COSIGNATURE = 1, 4
"""Kinds of keys: of who signs the text, and of who signs the text and a time (cosignature/v1)."""

MOST_SIGNATURES = 64
"""More are not looked at."""

MOST_BYTES = 1 << 20
"""Longer notes are not read."""

_DASH = "\N{EM DASH}"
_NAME = re.compile(r"[^\s+]+")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_KEY_BYTES = 32
_SIGNATURE_BYTES = {ED25519: 64, COSIGNATURE: 8 + 64}


@dataclass(frozen=True, slots=True)
class Signature:
    """A line below the text of a note."""

    name: str
    key_id: int
    content: bytes
    """What the key's kind makes of it; of a cosignature, the time comes first."""

    @property
    def line(self) -> str:
        """As it stands in a note, without the end of the line."""
        return f"{_DASH} {self.name} {encode(self.key_id.to_bytes(4, 'big') + self.content)}"

    @property
    def time(self) -> int:
        """Unix seconds of a cosignature."""
        return int.from_bytes(self.content[:8], "big")

    @classmethod
    def parse(cls, line: str) -> Self:
        """Read a line.

        Raises:
            NotVerified: it is none.
        """
        parts = line.split(" ")
        if len(parts) != 3 or parts[0] != _DASH or not _NAME.fullmatch(parts[1]):
            raise NotVerified(f"{line[:80]!r} is no line with a signature")
        content = decode(parts[2], "a signature")
        if len(content) < 5:
            raise NotVerified(f"the signature of {parts[1][:80]!r} is too short")
        return cls(parts[1], int.from_bytes(content[:4], "big"), content[4:])


@dataclass(frozen=True, slots=True)
class Note:
    """Text and the signatures below it, none of which has been verified by being read."""

    text: str
    signatures: tuple[Signature, ...]

    def __str__(self) -> str:
        return self.text + "\n" + "".join(f"{signature.line}\n" for signature in self.signatures)

    @classmethod
    def parse(cls, content: str | bytes) -> Self:
        """Read a note.

        Raises:
            NotVerified: it is none.
        """
        text = _checked_text(content)
        head, between, tail = text.rpartition("\n\n")
        if not between or not head or not tail.endswith("\n"):
            raise NotVerified("this is no note: there is no text, empty line and signature in it")
        lines = tail[:-1].split("\n")
        if len(lines) > MOST_SIGNATURES:
            raise NotVerified(f"the note has {len(lines)} signatures; {MOST_SIGNATURES} are looked at")
        return cls(head + "\n", tuple(Signature.parse(line) for line in lines))

    def signed(self, *signatures: Signature) -> Note:
        """The same with more signatures; one of the same key takes the place of an older one."""
        keys = {(signature.name, signature.key_id) for signature in signatures}
        kept = (each for each in self.signatures if (each.name, each.key_id) not in keys)
        return replace(self, signatures=(*kept, *signatures))

    def verified(self, keys: Iterable[VerifierKey]) -> list[tuple[VerifierKey, Signature]]:
        """The known keys that have signed it, each with its signature.

        Raises:
            NotVerified: a signature of a known key is not one.
        """
        known = {(key.name, key.key_id): key for key in keys}
        found = []
        for signature in self.signatures:
            key = known.get((signature.name, signature.key_id))
            if key is not None:
                key.verify(self.text, signature)
                found.append((key, signature))
        return found


def _checked_text(content: str | bytes) -> str:
    if len(content) > MOST_BYTES:
        raise NotVerified(f"the note is longer than {MOST_BYTES} bytes")
    try:
        text = content if isinstance(content, str) else content.decode()
    except UnicodeDecodeError:
        raise NotVerified("the note is no UTF-8") from None
    if _CONTROL.search(text):
        raise NotVerified("the note has a control character in it")
    return text


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key with its name, spelled `name+id+key` (a vkey)."""

    name: str
    kind: int
    public: bytes
    """32 bytes of Ed25519."""

    @property
    def key_id(self) -> int:
        """Tells it apart from others of the same name; no digest to rely on."""
        data = self.name.encode() + b"\n" + bytes([self.kind]) + self.public
        return int.from_bytes(hashlib.sha256(data).digest()[:4], "big")

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id:08x}+{encode(bytes([self.kind]) + self.public)}"

    @classmethod
    def parse(cls, spelled: str) -> Self:
        """Read a vkey.

        Raises:
            NotVerified: it is none, or of a kind that is not known here.
        """
        name, _, rest = spelled.partition("+")
        key_id, _, encoded = rest.partition("+")
        if not _NAME.fullmatch(name) or not re.fullmatch("[0-9a-f]{8}", key_id):
            raise NotVerified(f"{spelled[:120]!r} is no verifier key: name+8 hexadecimal digits+base64")
        content = decode(encoded, "a verifier key")
        if not content or content[0] not in _SIGNATURE_BYTES or len(content) != 1 + _KEY_BYTES:
            raise NotVerified(f"the key of {name[:80]!r} is none of Ed25519 that signs notes or cosigns")
        key = cls(name, content[0], content[1:])
        if key.key_id != int(key_id, 16):
            raise NotVerified(f"the key of {name[:80]!r} does not have the id {key_id}")
        return key

    def verify(self, text: str, signature: Signature) -> None:
        """Pass its signature of a note's text.

        Raises:
            NotVerified: it is not.
        """
        content = signature.content
        try:
            if len(content) != _SIGNATURE_BYTES[self.kind]:
                raise InvalidSignature  # noqa: TRY301  # said once, below
            message = text.encode() if self.kind == ED25519 else _timed(text, signature.time)
            Ed25519PublicKey.from_public_bytes(self.public).verify(content[-64:], message)
        except (InvalidSignature, ValueError):
            raise NotVerified(f"the signature of {self.name!r} does not fit the text") from None


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key with its name.

    Args:
        name: best a URL without its scheme.
        key: of Ed25519.
        kind: what it signs, `ED25519` or `COSIGNATURE`.
        clock: gives Unix seconds, for cosignatures.
    """

    name: str
    key: Ed25519PrivateKey
    kind: int = ED25519
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no name of a key: it has spaces or a plus sign")

    @property
    def verifier(self) -> VerifierKey:
        """Its public half."""
        return VerifierKey(self.name, self.kind, self.key.public_key().public_bytes_raw())

    def sign(self, text: str) -> Signature:
        """Sign the text of a note, which ends with a newline.

        Raises:
            ValueError: it does not, or has control characters.
        """
        if not text.endswith("\n") or _CONTROL.search(text):
            raise ValueError("a note's text ends with a newline and has no control characters")
        if self.kind == ED25519:
            return Signature(self.name, self.verifier.key_id, self.key.sign(text.encode()))
        now = int(self.clock())
        content = now.to_bytes(8, "big") + self.key.sign(_timed(text, now))
        return Signature(self.name, self.verifier.key_id, content)


def _timed(text: str, seconds: int) -> bytes:
    """What a cosigner signs (https://c2sp.org/tlog-cosignature)."""
    return f"cosignature/v1\ntime {seconds}\n{text}".encode()


def encode(data: bytes) -> str:
    """Base64 of RFC 4648, section 4."""
    return base64.b64encode(data).decode()


def decode(text: str, what: str) -> bytes:
    """The bytes of base64, which has one spelling only.

    Raises:
        NotVerified: it is none; calls it `what`.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        data = b""
    if encode(data) != text:
        raise NotVerified(f"{text[:80]!r}, {what}, is no base64")
    return data


def sign_note(text: str, signers: Sequence[Signer]) -> Note:
    """A note of a text that all of them sign."""
    return Note(text, tuple(signer.sign(text) for signer in signers))
