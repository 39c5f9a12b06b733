"""The own key of a log, or of a witness, in a file for its operator's eyes only.

One line, as the tools of the field keep it: `PRIVATE+KEY+name+id+key`
(https://pkg.go.dev/golang.org/x/mod/sumdb/note#hdr-Generating_Keys).
"""

from __future__ import annotations

import re
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from transom.errors import ConfigurationError, NotVerified
from transom.storage.secret_file import create_secret, read_secret
from transom.tlog.notes import COSIGNATURE, ED25519, Signer, decode, encode

_PREFIX = "PRIVATE+KEY+"
_OWNERS = {ED25519: "log", COSIGNATURE: "witness"}
_SAID = {ED25519: " (TRANSOM_LOG_ORIGIN)", COSIGNATURE: " (--name)"}
_NAME = re.compile(r"[^\s+\x00-\x1f\x7f]{1,255}")


def open_key(path: Path, name: str | None, kind: int = ED25519) -> Signer:
    """The key in a file, which is made where there is none.

    Args:
        path: of the file.
        name: of the log or witness; None for one that no other will have, of a new key.
        kind: what it signs, `ED25519` for a log and `COSIGNATURE` for a witness.

    Raises:
        ConfigurationError: others can read the file, it holds no key, or one of another name or kind; or the
            name is none that a note can carry.
    """
    if name is not None and not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} cannot be the name of a {_OWNERS[kind]}{_SAID[kind]}: it has 1 to 255 characters, "
            "and no spaces, control characters or plus signs."
        )
    try:
        return _named(read_secret(path), path, name, kind)
    except FileNotFoundError:
        key = Ed25519PrivateKey.generate()
        own = f"transom.invalid/{key.public_key().public_bytes_raw()[:8].hex()}"
        create_secret(path, spell_key(Signer(name or own, key, kind)).encode() + b"\n")
        return _named(read_secret(path), path, name, kind)


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
    if not line.startswith(_PREFIX) or len(content) != 33 or content[0] not in _OWNERS:
        raise NotVerified("it is no private key of Ed25519 that signs notes or cosigns")
    try:
        signer = Signer(name, Ed25519PrivateKey.from_private_bytes(content[1:]), content[0])
    except ValueError as error:
        raise NotVerified(str(error)) from None
    if f"{signer.verifier.key_id:08x}" != key_id:
        raise NotVerified("its id is that of another key")
    return signer


def _named(content: bytes, path: Path, name: str | None, kind: int) -> Signer:
    owner = _OWNERS[kind]
    try:
        signer = read_key(content.decode().strip())
    except (NotVerified, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} holds no key of a {owner}: {error}") from None
    if signer.kind != kind:
        raise ConfigurationError(f"{path} holds the key of a {_OWNERS[signer.kind]}, and not of a {owner}.")
    if name is not None and signer.name != name:
        raise ConfigurationError(
            f"{path} holds the key of the {owner} {signer.name!r}, and {name!r} was named; a {owner} cannot "
            f"be renamed. Set it back, or begin another {owner} with another file and folder."
        )
    return signer
