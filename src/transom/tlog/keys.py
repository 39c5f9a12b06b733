"""The log's own key, in a file for its operator's eyes only.

One line, as the tools of the field keep it: `PRIVATE+KEY+name+id+key`
(https://pkg.go.dev/golang.org/x/mod/sumdb/note#hdr-Generating_Keys).
"""

from __future__ import annotations

import re
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from transom.errors import ConfigurationError, NotVerified
from transom.storage.secret_file import create_secret, read_secret
from transom.tlog.notes import ED25519, Signer, decode, encode

_PREFIX = "PRIVATE+KEY+"
_NAME = re.compile(r"[^\s+\x00-\x1f\x7f]{1,255}")


def open_key(path: Path, name: str | None) -> Signer:
    """The key in a file, which is made where there is none.

    Args:
        path: of the file.
        name: of the log; None for one that no other log will have, of a new key.

    Raises:
        ConfigurationError: others can read the file, it holds no key, or one of another name; or the name is
            none that a note can carry.
    """
    if name is not None and not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} cannot be the name of a log (TRANSOM_LOG_ORIGIN): it has 1 to 255 characters, and no "
            "spaces, control characters or plus signs."
        )
    try:
        return _named(read_secret(path), path, name)
    except FileNotFoundError:
        key = Ed25519PrivateKey.generate()
        own = f"transom.invalid/{key.public_key().public_bytes_raw()[:8].hex()}"
        create_secret(path, spell_key(Signer(name or own, key)).encode() + b"\n")
        return _named(read_secret(path), path, name)


def spell_key(signer: Signer) -> str:
    """The line of a private key."""
    private = encode(bytes([signer.kind]) + signer.key.private_bytes_raw())
    return f"{_PREFIX}{signer.name}+{signer.verifier.key_id:08x}+{private}"


def read_key(line: str) -> Signer:
    """The private key in a line.

    Raises:
        NotVerified: there is none.
    """
    name, _, rest = line.removeprefix(_PREFIX).partition("+")
    key_id, _, encoded = rest.partition("+")
    content = decode(encoded, "a private key")
    if not line.startswith(_PREFIX) or len(content) != 33 or content[0] != ED25519:
        raise NotVerified("it is no private key of Ed25519 that signs notes")
    try:
        signer = Signer(name, Ed25519PrivateKey.from_private_bytes(content[1:]))
    except ValueError as error:
        raise NotVerified(str(error)) from None
    if f"{signer.verifier.key_id:08x}" != key_id:
        raise NotVerified("its id is that of another key")
    return signer


def _named(content: bytes, path: Path, name: str | None) -> Signer:
    try:
        signer = read_key(content.decode().strip())
    except (NotVerified, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} holds no key of a log: {error}") from None
    if name is not None and signer.name != name:
        raise ConfigurationError(
            f"{path} holds the key of the log {signer.name!r}, and the setting names {name!r}; a log cannot "
            "be renamed. Set it back, or begin another log with another file and folder."
        )
    return signer
