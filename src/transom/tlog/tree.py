"""Proofs in a Merkle tree: that an entry is in it, and that it grew out of a smaller one.

(RFC 9162, section 2.1; https://www.rfc-editor.org/rfc/rfc9162#section-2.1. The tree is that of RFC 6962.)

The tree over n entries is split after the largest power of two below n, and so on on both sides. Proofs are
made and verified by the same walk down this division; what a proof says depends on nothing but the sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from transom.errors import NotVerified
from transom.schema.merkle import EMPTY_ROOT, node_hash

Hashes: TypeAlias = Callable[[int, int], bytes]
"""(height, index) to the hash of the complete subtree over entries index·2^height .. (index+1)·2^height."""


def root_of(hashes: Hashes, size: int) -> bytes:
    """Root (32 bytes) of the tree over the first `size` entries."""
    return range_hash(hashes, 0, size) if size else EMPTY_ROOT


def range_hash(hashes: Hashes, start: int, end: int) -> bytes:
    """Hash of the part of the tree over the entries start .. end, which must be one of its parts."""
    length = end - start
    if length & (length - 1) == 0 and start % length == 0:
        height = length.bit_length() - 1
        return hashes(height, start >> height)
    middle = start + _left(length)
    return node_hash(range_hash(hashes, start, middle), range_hash(hashes, middle, end))


def _left(length: int) -> int:
    """Entries of the left part: the largest power of two below `length`, which is at least 2."""
    return 1 << (length - 1).bit_length() - 1


Part: TypeAlias = "tuple[int, int]"
"""Entries start .. end."""


def _to_entry(index: int, size: int) -> Iterator[tuple[Part, bool]]:
    """From the root down to an entry: the part beside the way, and whether it lies on the left."""
    start, end = 0, size
    while end - start > 1:
        middle = start + _left(end - start)
        if index < middle:
            yield (middle, end), False
            end = middle
        else:
            yield (start, middle), True
            start = middle


def _to_old_edge(old: int, new: int) -> tuple[list[tuple[Part, bool]], Part]:
    """From the root down to the part where a smaller tree ends: the parts beside the way, and that part."""
    start, end = 0, new
    beside: list[tuple[Part, bool]] = []
    while old != end:
        middle = start + _left(end - start)
        if old <= middle:
            beside.append(((middle, end), False))
            end = middle
        else:
            beside.append(((start, middle), True))
            start = middle
    return beside, (start, end)


def prove_inclusion(hashes: Hashes, index: int, size: int) -> list[bytes]:
    """The hashes beside the way from an entry up to the root of the tree over `size` entries.

    Raises:
        ValueError: there is no such entry.
    """
    if not 0 <= index < size:
        raise ValueError(f"entry {index} is not in a tree of {size}")
    return [range_hash(hashes, *part) for part, _ in _to_entry(index, size)][::-1]


def verify_inclusion(proof: Sequence[bytes], index: int, size: int, leaf: bytes, root: bytes) -> None:
    """Pass a proof that the entry with this leaf hash (32 bytes) is at `index` of the tree with this root.

    Raises:
        NotVerified: it is none.
    """
    if not 0 <= index < size:
        raise NotVerified(f"entry {index} is not in a tree of {size}")
    sides = [left for _, left in _to_entry(index, size)][::-1]
    if len(proof) != len(sides):
        raise NotVerified(
            f"a proof for entry {index} of {size} has {len(sides)} hashes, and not {len(proof)}"
        )
    found = leaf
    for beside, left in zip(proof, sides, strict=True):
        found = node_hash(beside, found) if left else node_hash(found, beside)
    if found != root:
        raise NotVerified(f"the proof for entry {index} does not lead to the root of the checkpoint")


def prove_consistency(hashes: Hashes, old: int, new: int) -> list[bytes]:
    """The hashes that show that the tree over `new` entries begins with the one over `old`.

    Raises:
        ValueError: the old tree is larger.
    """
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {old} does not grow into one of {new}")
    if old in {0, new}:
        return []
    beside, (start, end) = _to_old_edge(old, new)
    # The old tree's verifier has its root; where the edge is the whole old tree, that is the hash needed.
    edge = [] if start == 0 else [range_hash(hashes, start, end)]
    return edge + [range_hash(hashes, *part) for part, _ in reversed(beside)]


def verify_consistency(proof: Sequence[bytes], old: int, new: int, old_root: bytes, new_root: bytes) -> None:
    """Pass a proof that the tree of `new` entries with one root begins with the one of `old` with the other.

    Raises:
        NotVerified: it is none.
    """
    if not 0 <= old <= new:
        raise NotVerified(f"a log of {old} entries does not grow into one of {new}")
    if old == 0:
        _need(not proof and old_root == EMPTY_ROOT, "an empty log needs no proof, and has the empty root")
        return
    if old == new:
        _need(not proof and old_root == new_root, f"there are two roots of the same {old} entries")
        return
    beside, (start, _) = _to_old_edge(old, new)
    given = list(proof)
    _need(len(given) == len(beside) + (start > 0), "the proof does not have as many hashes as it must")
    before = after = given.pop(0) if start else old_root
    for (_, left), sibling in zip(reversed(beside), given, strict=True):
        if left:
            before = node_hash(sibling, before)
            after = node_hash(sibling, after)
        else:
            after = node_hash(after, sibling)
    _need(before == old_root, f"the log of {new} entries does not begin with the {old} that were seen before")
    _need(after == new_root, "the proof does not lead to the root of the newer checkpoint")


def _need(holds: bool, reason: str) -> None:
    if not holds:
        raise NotVerified(reason)
