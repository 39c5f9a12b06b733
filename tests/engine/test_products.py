"""Matrix products: what they compute, and that a row does not know its company."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transom.engine import linear
from transom.engine.kernels import amx
from transom.engine.kernels.bfloat16 import round_rows, round_to_pairs
from transom.engine.kernels.tile import HAS_BFLOAT16_DOT
from transom.engine.linear import Product, Weight

FORMATS = [
    pytest.param(torch.float32, "numbers", id="float32"),
    pytest.param(torch.bfloat16, "numbers", id="bfloat16"),
    pytest.param(
        torch.bfloat16,
        "pairs",
        id="bfloat16 in pairs",
        marks=pytest.mark.skipif(not HAS_BFLOAT16_DOT, reason="this processor does not multiply pairs"),
    ),
    pytest.param(
        torch.bfloat16,
        "squares",
        id="bfloat16 by squares",
        marks=pytest.mark.skipif(not amx.HAS_AMX, reason="this processor does not multiply squares"),
    ),
]


def weight(out, depth, dtype, *, bias=True):
    layer = torch.nn.Linear(depth, out, bias=bias).to(dtype)
    return Weight.of(layer)


def product(found, monkeypatch, way):
    """By the best instructions, or by worse ones, as on a processor that has no better."""
    monkeypatch.setattr(linear, "HAS_BFLOAT16_DOT", way != "numbers")
    monkeypatch.setattr(linear, "HAS_AMX", way == "squares")
    return Product(found)


@pytest.mark.parametrize(("dtype", "way"), FORMATS)
@pytest.mark.parametrize("shape", [(80, 48), (48, 1), (1, 37), (99, 5000), (49, 64), (33, 31)], ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_a_product_is_the_product(dtype, way, shape, bias, monkeypatch):
    given_weight = weight(*shape, dtype, bias=bias)
    multiply = product(given_weight, monkeypatch, way)
    rows = np.random.default_rng(1).standard_normal((13, shape[1])).astype(np.float32)
    exact = torch.from_numpy(rows).to(dtype).double() @ given_weight.matrix.double().T
    exact += given_weight.bias.double() if bias else 0
    found = multiply(rows)
    assert found.shape == (13, shape[0])
    assert np.abs(found - exact.numpy()).max() < 1e-5


@pytest.mark.parametrize(("dtype", "way"), FORMATS)
def test_a_row_is_multiplied_alike_in_every_company(dtype, way, monkeypatch):
    multiply = product(weight(147, 3000, dtype), monkeypatch, way)
    rows = np.random.default_rng(2).standard_normal((150, 3000)).astype(np.float32)
    whole = multiply(rows)
    for first, count in [
        (0, 1),
        (149, 1),
        (3, 2),
        (5, 7),
        (0, 8),
        (1, 9),
        (0, 16),
        (7, 17),
        (40, 32),
        (9, 33),
        (63, 2),
        (30, 65),
        (22, 128),
    ]:
        assert np.array_equal(multiply(rows[first : first + count]), whole[first : first + count])


def test_one_thread_multiplies_like_two(monkeypatch):
    import numba

    given_weight = weight(480, 300, torch.float32)
    rows = np.random.default_rng(3).standard_normal((70, 300)).astype(np.float32)
    both = Product(given_weight)(rows)
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        assert np.array_equal(Product(given_weight)(rows), both)
    finally:
        numba.set_num_threads(threads)


def test_stacked_layers_give_their_outputs_side_by_side():
    layers = [torch.nn.Linear(48, 16), torch.nn.Linear(48, 8, bias=False), torch.nn.Linear(48, 24)]
    rows = torch.randn(4, 48)
    found = Product(Weight.stacked(layers))(rows.numpy())
    assert np.allclose(found, torch.cat([layer(rows) for layer in layers], dim=1).detach(), atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=9),
    st.integers(1, 3),
)
def test_rounding_to_bfloat16_is_torchs(numbers, copies):
    rows = np.array([numbers] * copies, np.float32)
    expected = torch.from_numpy(rows).to(torch.bfloat16)
    assert np.array_equal(round_rows(rows), expected.float().numpy())
    pairs = round_to_pairs(rows).view(np.uint16)
    assert np.array_equal(pairs[:, : len(numbers)], expected.view(torch.int16).numpy().view(np.uint16))
    assert not pairs[:, len(numbers) :].any()


def test_many_rows_are_rounded_like_few():
    rows = np.random.default_rng(4).standard_normal((600, 333)).astype(np.float32)
    whole = round_to_pairs(rows)
    assert np.array_equal(np.concatenate([round_to_pairs(rows[i : i + 1]) for i in range(600)]), whole)
