"""Proofs against trees that are hashed as RFC 6962 defines them, for all sizes up to some."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transom.errors import NotVerified
from transom.schema.merkle import EMPTY_ROOT, leaf_hash
from transom.tlog.tree import (
    prove_consistency,
    prove_inclusion,
    root_of,
    verify_consistency,
    verify_inclusion,
)

SIZES = range(1, 66)
LEAVES = [leaf_hash(bytes([index])) for index in range(200)]


def plain(leaves):
    """MTH of RFC 6962, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + plain(leaves[:k]) + plain(leaves[k:])).digest()


def hashes(height, index):
    return plain(LEAVES[index << height : (index + 1) << height])


def test_the_root_is_that_of_the_definition():
    assert root_of(hashes, 0) == EMPTY_ROOT
    assert [root_of(hashes, size) for size in SIZES] == [plain(LEAVES[:size]) for size in SIZES]


@pytest.mark.parametrize("size", SIZES)
def test_each_entry_is_proven_and_nothing_else(size):
    root = plain(LEAVES[:size])
    for index in range(size):
        proof = prove_inclusion(hashes, index, size)
        verify_inclusion(proof, index, size, LEAVES[index], root)
        for other in {0, index - 1, index + 1, size - 1, size, -1} - {index}:
            with pytest.raises(NotVerified):
                verify_inclusion(proof, other, size, LEAVES[index], root)
        with pytest.raises(NotVerified):
            verify_inclusion(proof, index, size, LEAVES[150], root)
        with pytest.raises(NotVerified):
            verify_inclusion([*proof, root], index, size, LEAVES[index], root)
        if proof:
            with pytest.raises(NotVerified):
                verify_inclusion(proof[:-1], index, size, LEAVES[index], root)


@pytest.mark.parametrize("new", SIZES)
def test_each_older_tree_is_proven_and_no_other(new):
    root = plain(LEAVES[:new])
    for old in range(new + 1):
        before = plain(LEAVES[:old])
        proof = prove_consistency(hashes, old, new)
        verify_consistency(proof, old, new, before, root)
        with pytest.raises(NotVerified):
            verify_consistency(proof, old, new, LEAVES[150], root)
        with pytest.raises(NotVerified):
            verify_consistency([*proof, root], old, new, before, root)
        if old:
            with pytest.raises(NotVerified):
                verify_consistency(proof, old, new, before, LEAVES[150])
        if proof:
            with pytest.raises(NotVerified):
                verify_consistency(proof[:-1], old, new, before, root)


def test_a_log_does_not_shrink():
    with pytest.raises(NotVerified, match="does not grow"):
        verify_consistency([], 2, 1, LEAVES[0], LEAVES[0])
    with pytest.raises(ValueError, match="does not grow"):
        prove_consistency(hashes, 2, 1)
    with pytest.raises(ValueError, match="not in a tree"):
        prove_inclusion(hashes, 3, 3)


@given(st.integers(1, 150), st.integers(0, 149), st.data())
def test_a_flipped_bit_anywhere_in_a_proof_is_found(size, index, data):
    index %= size
    proof = prove_inclusion(hashes, index, size)
    if proof:
        place, bit = data.draw(st.integers(0, len(proof) - 1)), data.draw(st.integers(0, 255))
        number = int.from_bytes(proof[place], "big") ^ 1 << bit
        proof[place] = number.to_bytes(32, "big")
        with pytest.raises(NotVerified):
            verify_inclusion(proof, index, size, LEAVES[index], plain(LEAVES[:size]))
