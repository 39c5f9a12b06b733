"""Merkle tree hash of RFC 6962, section 2.1 (https://www.rfc-editor.org/rfc/rfc6962#section-2.1).

Leaves and nodes are hashed under different prefixes, so that neither can be passed off as the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

EMPTY_ROOT = hashlib.sha256(b"").digest()
"""Root of the tree without leaves."""


def leaf_hash(leaf: bytes) -> bytes:
    """SHA-256 of 0x00 and the leaf's bytes."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256 of 0x01 and the hashes of both children."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(leaves: Iterable[bytes]) -> bytes:
    """Root hash (32 bytes) over `leaves` in their order; takes one pass and a stack of log2(n) hashes."""
    # Each entry is (number of leaves below, hash); sizes on the stack are falling powers of two, the
    # binary digits of the number of leaves so far, and equal neighbours merge as a carry does.
    stack: list[tuple[int, bytes]] = []
    for leaf in leaves:
        size, current = 1, leaf_hash(leaf)
        while stack and stack[-1][0] == size:
            current = node_hash(stack.pop()[1], current)
            size *= 2
        stack.append((size, current))
    return _fold(stack)


def _fold(stack: list[tuple[int, bytes]]) -> bytes:
    """Joins the complete subtrees that remain, smallest first."""
    if not stack:
        return EMPTY_ROOT
    current = stack.pop()[1]
    while stack:
        current = node_hash(stack.pop()[1], current)
    return current
