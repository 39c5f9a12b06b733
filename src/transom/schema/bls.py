"""BLS signatures on BLS12-381 with signatures in G1, for whoever has the extra `beacon`.

(https://datatracker.ietf.org/doc/draft-irtf-cfrg-bls-signature, minimal-signature-size, hashing by RFC 9380)
"""

from __future__ import annotations

import hashlib
import sys
from typing import Any

_limit = sys.getrecursionlimit()

from py_ecc.bls.g2_primitives import subgroup_check  # noqa: E402
from py_ecc.bls.hash_to_curve import hash_to_G1  # noqa: E402
from py_ecc.bls.point_compression import decompress_G1, decompress_G2  # noqa: E402
from py_ecc.fields import optimized_bls12_381_FQ12 as FQ12  # noqa: E402
from py_ecc.optimized_bls12_381.optimized_curve import G2, is_inf, neg  # noqa: E402
from py_ecc.optimized_bls12_381.optimized_pairing import final_exponentiate, pairing  # noqa: E402

# The package lets this process recurse 100,000 deep, more than its stack holds: from then on, JSON that is
# nested deep enough would end it. What is used here needs a few hundred at most.
sys.setrecursionlimit(_limit)

_DOMAIN = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_"

_hash: Any = hashlib.sha256


def is_signed(key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether e(signature, generator) = e(hash of the message, key). Takes a third of a second.

    Args:
        key: a point of G2, compressed, 96 bytes.
        message: what was signed.
        signature: a point of G1, compressed, 48 bytes.
    """
    compressed: Any = int.from_bytes(signature, "big")
    halves: Any = int.from_bytes(key[:48], "big"), int.from_bytes(key[48:], "big")
    try:
        signed, known = decompress_G1(compressed), decompress_G2(halves)
    except ValueError:
        return False
    if is_inf(signed) or is_inf(known) or not (subgroup_check(signed) and subgroup_check(known)):
        return False
    hashed = hash_to_G1(message, _DOMAIN, _hash)
    left = pairing(G2, signed, final_exponentiate=False)
    right = pairing(neg(known), hashed, final_exponentiate=False)
    return bool(final_exponentiate(left * right) == FQ12.one())
