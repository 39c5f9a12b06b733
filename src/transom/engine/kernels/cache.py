"""The cache of keys and values: pages of PAGE tokens, in the form that the processor multiplies.

As numbers, or the bits of bfloat16: keys lie as [page, kv_head, dim, slot], so that the scores of a page's
slots are one vector that accumulates over `dim`; values as [page, kv_head, slot, dim], so that an output
accumulates vector by vector over slots in order.

In pairs of bfloat16, for `amx`: keys as [page, kv_head, pair of dims, slot], filled up with zeros to whole
blocks of pairs; values as [page, kv_head, pair of slots, dim].
"""

from __future__ import annotations

import numpy as np
from numba.core import types
from numba.extending import overload

from transom.engine.kernels import amx
from transom.engine.kernels.arrays import Floats, Ints, Panels
from transom.engine.kernels.bfloat16 import as_stored
from transom.engine.kernels.compile import kernel
from transom.engine.kernels.tile import LANES

PAGE = LANES
"""Tokens in a page of the cache: their scores are one vector."""

Cache = tuple[Panels, Panels]
"""Keys and values of a layer; uint32 where they are pairs."""


def whole_vectors(width: int) -> int:
    """The width that `width` numbers take when their last vector is filled up."""
    return -(-width // LANES) * LANES


def _whole_blocks(dim: int) -> int:
    """Pairs that a key takes."""
    return -(-dim // (2 * amx.STEP)) * amx.STEP


def numbers_per_token(kv_heads: int, dim: int, value_dim: int, *, half: bool = False) -> int:
    """Numbers that one token takes in the cache of a layer."""
    own = 2 * _whole_blocks(dim) if half and amx.HAS_AMX else dim
    return kv_heads * (own + whole_vectors(value_dim))


def empty_cache(pages: int, kv_heads: int, dim: int, value_dim: int, *, half: bool = False) -> Cache:
    """A layer's cache, in bfloat16 if `half`: in pairs where the processor multiplies these by squares."""
    padded = whole_vectors(value_dim)
    if half and amx.HAS_AMX:
        keys, values = (pages, kv_heads, _whole_blocks(dim), PAGE), (pages, kv_heads, PAGE // 2, padded)
        return np.zeros(keys, np.uint32), np.zeros(values, np.uint32)
    keys, values = (pages, kv_heads, dim, PAGE), (pages, kv_heads, PAGE, padded)
    if half:
        return np.zeros(keys, np.uint16), np.zeros(values, np.uint16)
    return np.zeros(keys, np.float32), np.zeros(values, np.float32)


def unpacked(cache: Cache, pages: Ints, dim: int) -> tuple[Floats, Floats]:
    """Keys [kv_heads, slots, dim] and values [kv_heads, slots, whole vectors of dims] of some pages."""
    keys, values = (part[pages] for part in cache)
    if keys.dtype == np.uint32:
        by_page, heads = keys.shape[:2]
        # [page, head, pair, slot, half] and [page, head, pair of slots, dim, half].
        keys = keys.view(np.uint16).reshape(*keys.shape, 2).transpose(0, 1, 2, 4, 3)
        keys = np.ascontiguousarray(keys).reshape(by_page, heads, -1, PAGE)
        values = values.view(np.uint16).reshape(*values.shape, 2).transpose(0, 1, 2, 4, 3)
        values = np.ascontiguousarray(values).reshape(by_page, heads, PAGE, -1)
    keys, values = (_numbers(part) for part in (keys, values))
    keys = keys.transpose(1, 0, 3, 2).reshape(keys.shape[1], -1, keys.shape[2])
    values = values.transpose(1, 0, 2, 3).reshape(values.shape[1], -1, values.shape[3])
    return np.ascontiguousarray(keys[..., :dim]), np.ascontiguousarray(values)


def _numbers(stored: Panels) -> Floats:
    """float32 as it is; the bits of bfloat16 as what they mean."""
    if stored.dtype == np.float32:
        return stored.view(np.float32)
    return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)


@kernel
def sees(position: int, first_page: int, window: int) -> tuple[int, int]:
    """The slots, counted from the first page, that a position sees: from the first up to the second."""
    low = max(0, position - window + 1 - first_page * PAGE) if window > 0 else 0
    return low, position + 1 - first_page * PAGE


def put_key(key: Floats, page: Panels, slot: int) -> None:
    """Write a key [dim] into a slot of a page of one head; for kernels."""
    raise NotImplementedError


@overload(put_key)
def _put_key(key, page, slot):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
    return _key_in_pairs if page.dtype == types.uint32 else _key_as_it_is


def _key_as_it_is(key, page, slot):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for d in range(key.shape[0]):
        page[d, slot] = as_stored(key[d], page)


def _key_in_pairs(key, page, slot):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    halves = page.view(np.uint16)
    for d in range(key.shape[0]):
        halves[d // 2, 2 * slot + d % 2] = as_stored(key[d], halves)


def put_value(value: Floats, page: Panels, slot: int) -> None:
    """Write a value [value_dim] into a slot of a page of one head, beside other threads; for kernels."""
    raise NotImplementedError


@overload(put_value)
def _put_value(value, page, slot):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
    return _value_in_pairs if page.dtype == types.uint32 else _value_as_it_is


def _value_as_it_is(value, page, slot):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for d in range(value.shape[0]):
        page[slot, d] = as_stored(value[d], page)


def _value_in_pairs(value, page, slot):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    halves = page.view(np.uint16)
    for d in range(value.shape[0]):
        halves[slot // 2, 2 * d + slot % 2] = as_stored(value[d], halves)
