"""Lots: everybody computes the same, and each entry is as likely as another."""

import hashlib
from collections import Counter

import pytest

from transom.schema.challenges import drawn

ROOT, VALUE = b"r" * 32, b"v" * 32


def test_lots_are_the_hashes_that_the_format_says():
    def sized(*parts):
        return b"".join(len(part).to_bytes(8, "big") + part for part in parts)

    expected: list[int] = []
    for number in range(100):
        parts = (b"transom-challenge-v1", ROOT, VALUE, number.to_bytes(8, "big"))
        index = int.from_bytes(hashlib.sha256(sized(*parts)).digest(), "big") % 1000
        if index not in expected and len(expected) < 8:
            expected.append(index)
    assert list(drawn(ROOT, VALUE, 1000, 8)) == expected


@pytest.mark.parametrize(("size", "count", "found"), [(0, 8, 0), (1, 8, 1), (5, 8, 5), (8, 3, 3)])
def test_no_entry_is_drawn_twice_and_none_that_is_not_there(size, count, found):
    indices = list(drawn(ROOT, VALUE, size, count))
    assert len(indices) == len(set(indices)) == found
    assert all(0 <= index < size for index in indices)


def test_another_root_or_another_word_of_the_beacon_draws_others():
    first = list(drawn(ROOT, VALUE, 1 << 40, 8))
    assert set(first).isdisjoint(drawn(b"R" * 32, VALUE, 1 << 40, 8))
    assert set(first).isdisjoint(drawn(ROOT, b"V" * 32, 1 << 40, 8))


def test_all_entries_are_as_likely():
    seen = Counter(
        index for number in range(2000) for index in drawn(ROOT, number.to_bytes(32, "big"), 10, 2)
    )
    # 4,000 draws over 10 entries: four standard deviations of a binomial around 400 are 72.
    assert all(abs(seen[index] - 400) < 72 for index in range(10))
