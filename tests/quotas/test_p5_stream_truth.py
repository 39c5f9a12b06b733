"""P5, as far as quotas go: what is charged is what was counted, and never more than was held without a flag.

That the count is the serving tokenizer's, chunk by chunk, is tested with the doors.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.quotas.gateway import EVERYBODY, limits
from transom.access.quotas import Amounts

pytestmark = pytest.mark.anyio

PROMPT = 5


async def charges_what_was_generated(bench):
    """For every length at which a client can leave: prompt and generated tokens, up to what was reserved."""
    [limit] = bound = limits(project__tokens_total=10**6)
    gateway, expected = bench.gateway(), 0
    for generated in (0, 1, 7, 20, 21, 400):
        reservation = await gateway.reserve(f"g{generated}", EVERYBODY, bound, Amounts(tokens=PROMPT + 20))
        await reservation.settle(Amounts(tokens=PROMPT + generated))
        expected += PROMPT + min(generated, 20)
        assert bench.count(limit).used == expected
    assert {row.request_id: row.short for row in bench.ledger()} == {
        f"g{generated}": generated > 20 for generated in (0, 1, 7, 20, 21, 400)
    }


async def test_what_was_generated_is_charged_and_more_than_was_reserved_is_flagged(bench):
    await charges_what_was_generated(bench)


async def test_believing_any_usage_charges_more_than_was_reserved(naive):
    with pytest.raises(AssertionError):
        await charges_what_was_generated(naive)


@given(st.integers(max_value=-1), st.sampled_from(["requests", "tokens", "engine_us", "internals_bytes"]))
def test_less_than_nothing_is_refused(amount, resource):
    with pytest.raises(ValueError, match="less than nothing"):
        Amounts(**{resource: amount})


async def test_a_resource_without_a_limit_is_in_the_ledger_all_the_same(bench):
    gateway = bench.gateway()
    reservation = await gateway.reserve("r", EVERYBODY, limits(project__tokens_total=100), Amounts(tokens=10))
    await reservation.settle(Amounts(tokens=10, engine_us=2_500_000, internals_bytes=70))
    [row] = bench.ledger()
    assert (row.engine_us, row.internals_bytes, row.short) == (2_500_000, 70, False)


async def test_a_limited_resource_that_was_not_reserved_is_not_charged_past_its_limit(bench):
    [limit] = bound = limits(project__engine_seconds=10)
    gateway = bench.gateway()
    reservation = await gateway.reserve("r", EVERYBODY, bound, Amounts(engine_us=0))
    await reservation.settle(Amounts(engine_us=11_000_000))
    assert bench.count(limit) == (0, 0)
    assert [(row.engine_us, row.short) for row in bench.ledger()] == [(0, True)]
