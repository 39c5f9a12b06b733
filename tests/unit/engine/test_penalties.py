"""Penalties and bias, as arrays, against OpenAI's formula token by token."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from transom.engine.penalties import Penalties
from transom.schema.generation import SamplingParams

VOCABULARY = 300

tokens = st.integers(0, VOCABULARY - 1)
amounts = st.sampled_from([-2.0, -0.3, 0.0, 0.1, 1.7, 2.0])


def expected(line, params, generated):
    line = line.copy()
    for token, count in Counter(generated).items():
        line[token] -= np.float32(count * params.frequency_penalty + params.presence_penalty)
    for token, bias in params.logit_bias:
        line[token] += np.float32(bias)
    return line


@settings(max_examples=60, deadline=None)
@given(
    st.lists(tokens, max_size=200),
    st.lists(tokens, max_size=80),
    st.dictionaries(tokens, st.floats(-100, 100, width=32), max_size=20),
    amounts,
    amounts,
)
def test_they_are_openais_formula_to_the_bit(before, after, bias, frequency, presence):
    params = SamplingParams(
        seed=0,
        max_tokens=1,
        frequency_penalty=frequency,
        presence_penalty=presence,
        logit_bias=tuple(bias.items()),
    )
    penalties = Penalties(params, before)
    for token in after:
        penalties.count(token)
    line = np.random.default_rng(len(before)).standard_normal(VOCABULARY).astype(np.float32)
    wanted = expected(line, params, before + after)
    if penalties:
        penalties.apply(line)
    assert np.array_equal(line, wanted)


def test_nothing_is_counted_for_nobody():
    penalties = Penalties(SamplingParams(seed=0, max_tokens=1), [1, 2, 3])
    penalties.count(4)
    assert not penalties
