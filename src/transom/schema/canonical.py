"""Canonical bytes, digests and commitments: the ground under every record.

Canonical JSON is RFC 8785 with one rule more: no floats. A number that matters is a digest, an integer
or a decimal string, so that two implementations can never disagree about its spelling.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import rfc8785

try:
    import orjson
except ImportError:  # a researcher's install, which checks a record now and then
    orjson = None  # type: ignore[assignment]

_CANONICAL = 0 if orjson is None else orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER
_LEAVES = frozenset({str, int, bool, type(None)})
_LISTS = frozenset({list, tuple})

CanonicalJson: TypeAlias = "bool | int | str | Sequence[CanonicalJson] | Mapping[str, CanonicalJson] | None"


def canonical_bytes(value: CanonicalJson) -> bytes:
    """The one spelling of `value`.

    Raises:
        ValueError: a float is in it, or an integer outside ±(2^53 - 1), or a key that is no string.
    """
    if orjson is not None and _is_plain(value):
        # Raised for what JSON cannot hold, which the careful way then names.
        with suppress(orjson.JSONEncodeError):
            return orjson.dumps(value, option=_CANONICAL)
    _refuse_floats(value, "$")
    return rfc8785.dumps(value)


def _is_plain(value: object) -> bool:
    """Whether orjson spells `value` as RFC 8785 does, or refuses it.

    Keys must be ASCII: RFC 8785 sorts them by UTF-16 code units, and orjson by code points. Types must be
    those of JSON to the letter, since orjson also takes dates, enumerations and floats. That an integer is
    beyond 2^53 - 1, or a surrogate has no other half, orjson sees by itself.
    """
    # Loops and not all(): this is the dearest part of a small record.
    if type(value) is dict:
        for key in value:
            if type(key) is not str or not key.isascii():
                return False
        return _are_plain(value.values())
    if type(value) in _LISTS:
        return _are_plain(value)  # type: ignore[arg-type]
    return type(value) in _LEAVES


def _are_plain(values: Iterable[object]) -> bool:
    for value in values:  # noqa: SIM110
        if type(value) not in _LEAVES and not _is_plain(value):
            return False
    return True


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
    return sha256(b"".join((_domain(kind), sized(salt), sized(data))))


@lru_cache(maxsize=64)
def _domain(kind: str) -> bytes:
    return sized(b"transom-commitment-v1") + sized(kind.encode())


def sized(part: bytes) -> bytes:
    """The bytes after their length, so that parts in a row can be told apart."""
    return len(part).to_bytes(8, "big") + part


def token_bytes(token_ids: Iterable[int]) -> bytes:
    """Token ids as little-endian unsigned 32-bit integers, as commitments take them."""
    return np.fromiter(token_ids, dtype="<u4").tobytes()


def float32_bytes(values: Iterable[float]) -> bytes:
    """Logprobs as little-endian float32, bit for bit as the engine computed them."""
    return np.fromiter(values, dtype="<f4").tobytes()
