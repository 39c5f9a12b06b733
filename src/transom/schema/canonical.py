"""Canonical bytes, digests and commitments: the ground under every record.

Canonical JSON is RFC 8785 with one rule more: no floats. A number that matters is a digest, an integer
or a decimal string, so that two implementations can never disagree about its spelling.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import rfc8785

CanonicalJson: TypeAlias = "bool | int | str | Sequence[CanonicalJson] | Mapping[str, CanonicalJson] | None"


def canonical_bytes(value: CanonicalJson) -> bytes:
    """The one spelling of `value`.

    Raises:
        ValueError: a float is in it, or an integer outside ±(2^53 - 1), or a key that is no string.
    """
    _refuse_floats(value, "$")
    return rfc8785.dumps(value)


def _refuse_floats(value: object, path: str) -> None:
    if isinstance(value, float):
        raise ValueError(f"{path} is a float; canonical JSON holds decimal strings instead")  # noqa: TRY004
    if isinstance(value, Mapping):
        for key, item in value.items():
            _refuse_floats(item, f"{path}.{key}")
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for index, item in enumerate(value):
            _refuse_floats(item, f"{path}[{index}]")


def sha256(data: bytes) -> str:
    """Digest in the spelling used everywhere: `sha256:` and 64 hexadecimal digits."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest(value: CanonicalJson) -> str:
    """SHA-256 of the canonical bytes."""
    return sha256(canonical_bytes(value))


def decimal(value: float) -> str:
    """Shortest decimal string that reads back to the same float64."""
    return repr(float(value))


def commit(kind: str, salt: bytes, data: bytes) -> str:
    """Salted commitment: hides `data`, and binds whoever publishes it to exactly that data.

    SHA-256 over length-prefixed (kind, salt, data), so that no two triples share their bytes.

    Args:
        kind: what is committed to, such as `prompt-token-ids`; separates the domains.
        salt: 32 random bytes, kept with the opening.
        data: the bytes committed to.
    """
    if len(salt) != 32:
        raise ValueError(f"a salt has 32 bytes, not {len(salt)}")
    parts = (b"transom-commitment-v1", kind.encode(), salt, data)
    return sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts))


def token_bytes(token_ids: Iterable[int]) -> bytes:
    """Token ids as little-endian unsigned 32-bit integers, as commitments take them."""
    return np.fromiter(token_ids, dtype="<u4").tobytes()


def float32_bytes(values: Iterable[float]) -> bytes:
    """Logprobs as little-endian float32, bit for bit as the engine computed them."""
    return np.fromiter(values, dtype="<f4").tobytes()
