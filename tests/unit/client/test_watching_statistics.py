"""The permutation test: as often wrong as it says, never more, and right where something changed."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest

from transom.client.watching.permutation import attainable, contrasts, permutation_test
from transom.client.watching.shifts import LogprobShift, TextDiscrepancy, observed

TOKENS = ("a", "b", "c", "d")


def generator(seed=0):
    return np.random.default_rng(seed)


def p_value(statistic, before, after, **options):
    return permutation_test(statistic, before, after, generator=generator(), **options).p_value


def rounds_of(values):
    """Rounds of two prompts, out of [rounds, 2, tokens]."""
    return [[dict(zip(TOKENS, map(float, each), strict=True)) for each in answers] for answers in values]


def noisy(random, count, shift=0.0, noise=1e-3):
    means = np.array([-0.5, -1.5, -3.0, -4.0]) + shift
    return rounds_of(means + noise * random.standard_normal((count, 2, 4)))


def batched(random, count):
    """A server whose last bits depend on one of three sizes of batch: many rounds are tied."""
    return rounds_of(
        np.array([-0.5, -1.5, -3.0, -4.0]) + 1e-4 * random.integers(3, size=(count, 1, 1)) * np.ones((2, 1))
    )


def worded(random, count, weights=(0.5, 0.3, 0.2)):
    """Texts of a server that takes no seed."""
    return random.choice(["an owl", "an ox", "a bee"], size=(count, 3), p=weights).tolist()


NULLS = {
    "noise": lambda random, count: LogprobShift.of(noisy(random, count)),
    "batches": lambda random, count: LogprobShift.of(batched(random, count)),
    "words": lambda random, count: TextDiscrepancy.of(worded(random, count)),
}


@pytest.mark.parametrize("null", NULLS)
def test_false_alarms_are_as_rare_as_is_said(null):
    random, trials = generator(1), 400
    found = [p_value(NULLS[null](random, 9), 6, 3) for _ in range(trials)]
    for alpha in (0.02, 0.05, 0.2):
        # Four standard errors above what is promised: by chance once in ten thousand times.
        bound = alpha + 4 * (alpha * (1 - alpha) / trials) ** 0.5
        assert np.mean(np.array(found) <= alpha) <= bound


def test_noise_alone_gives_p_values_that_are_spread_evenly():
    random = generator(2)
    found = [p_value(NULLS["noise"](random, 9), 6, 3) for _ in range(400)]
    assert 0.43 < np.mean(found) < 0.59


def test_a_shift_is_found():
    random = generator(3)
    found = [p_value(LogprobShift.of(noisy(random, 8) + noisy(random, 4, 3e-3)), 8, 4) for _ in range(50)]
    assert np.mean(np.array(found) <= 0.01) > 0.9


def test_other_words_are_found():
    random = generator(4)
    changed = (0.05, 0.15, 0.8)
    found = [
        p_value(TextDiscrepancy.of(worded(random, 10) + worded(random, 5, changed)), 10, 5) for _ in range(50)
    ]
    assert np.mean(np.array(found) <= 0.01) > 0.8


def by_hand(rounds, before, distance):
    """The p-value by its definition, with exact ties, over sets of rounds."""
    count, after = len(rounds), len(rounds) - before
    divisions = list(combinations(range(count), after))
    found = {}
    for chosen in divisions:
        rest = [i for i in range(count) if i not in chosen]
        found[chosen] = round(distance([rounds[i] for i in rest], [rounds[i] for i in chosen]), 9)
    own = found[tuple(range(before, count))]
    return sum(each >= own for each in found.values()) / len(divisions)


def logprob_distance(before, after):
    def mean(rounds, prompt, token):
        return sum(answers[prompt][token] for answers in rounds) / len(rounds)

    moved = [abs(mean(before, p, t) - mean(after, p, t)) for p in range(2) for t in TOKENS]
    return sum(moved) / len(moved)


def text_distance(before, after):
    width = max(len(text) for answers in before + after for text in answers)

    def agree(one, other):
        pairs = zip(one.ljust(width, "\0"), other.ljust(width, "\0"), strict=True)
        return sum(a == b for a, b in pairs) / width

    def kernel(some, others, prompt):
        return sum(agree(a[prompt], b[prompt]) for a in some for b in others) / (len(some) * len(others))

    return sum(
        kernel(before, before, p) + kernel(after, after, p) - 2 * kernel(before, after, p) for p in range(3)
    )


@pytest.mark.parametrize("sizes", [(4, 2), (3, 3), (1, 4), (5, 1)], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_logprobs_give_the_p_value_of_the_definition(sizes, seed):
    rounds = batched(generator(seed), sum(sizes))
    expected = by_hand(rounds, sizes[0], logprob_distance)
    assert p_value(LogprobShift.of(rounds), *sizes) == pytest.approx(expected)


@pytest.mark.parametrize("sizes", [(4, 2), (3, 3), (1, 4), (5, 1)], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_texts_give_the_p_value_of_the_definition(sizes, seed):
    rounds = worded(generator(seed), sum(sizes))
    # The width is that of the whole sample, as the test has it.
    rounds[0] = ["a kangaroo"] * 3
    rounds = [[text.ljust(10, "\0") for text in answers] for answers in rounds]
    expected = by_hand(rounds, sizes[0], text_distance)
    assert p_value(TextDiscrepancy.of(rounds), *sizes) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["logprobs", "texts"])
def test_a_server_that_is_exact_and_the_same_is_never_accused(kind):
    rounds = noisy(generator(), 1) * 12 if kind == "logprobs" else [["an owl", "an ox"]] * 12
    found = LogprobShift.of(rounds) if kind == "logprobs" else TextDiscrepancy.of(rounds)
    assert p_value(found, 8, 4) == 1


@pytest.mark.parametrize("sizes", [(8, 3), (5, 5), (20, 2), (1, 1)], ids=str)
@pytest.mark.parametrize("kind", ["logprobs", "texts"])
def test_any_difference_of_an_exact_server_gives_the_smallest_p_value_there_is(kind, sizes):
    before, after = sizes
    if kind == "logprobs":
        same, other = noisy(generator(0), 1), noisy(generator(0), 1, 1e-12)
        found = LogprobShift.of(same * before + other * after)
    else:
        found = TextDiscrepancy.of([["an owl", "an ox"]] * before + [["an owl", "an oy"]] * after)
    assert p_value(found, before, after) == pytest.approx(attainable(before, after))


def test_where_not_all_divisions_are_tried_the_p_value_is_never_below_one_in_as_many():
    same, other = noisy(generator(0), 1), noisy(generator(0), 1, 1.0)
    found = permutation_test(LogprobShift.of(same * 12 + other * 8), 12, 8, generator=generator(), most=500)
    assert (found.p_value, found.divisions, found.exact) == (1 / 500, 500, False)
    assert attainable(12, 8, most=500) == 1 / 500


def test_drawn_divisions_agree_with_all_of_them():
    statistic = LogprobShift.of(noisy(generator(5), 10))
    whole = p_value(statistic, 6, 4)
    assert comb(10, 4) > 200
    drawn = [
        permutation_test(statistic, 6, 4, generator=generator(seed), most=200).p_value for seed in range(20)
    ]
    assert np.mean(drawn) == pytest.approx(whole, abs=0.05)


def test_drawn_divisions_raise_no_more_false_alarms_either():
    random = generator(6)
    found = [p_value(NULLS["noise"](random, 12), 8, 4, most=100) for _ in range(300)]
    assert np.mean(np.array(found) <= 0.05) <= 0.05 + 4 * (0.05 * 0.95 / 300) ** 0.5


def test_what_a_tolerance_allows_does_not_count():
    rounds = noisy(generator(0), 1) * 8 + noisy(generator(0), 1, 0.01) * 4
    assert p_value(LogprobShift.of(rounds), 8, 4) < 0.01
    assert p_value(LogprobShift.of(rounds, tolerance=0.02), 8, 4) == 1
    assert p_value(LogprobShift.of(rounds, tolerance=0.005), 8, 4) < 0.01


def test_a_token_that_a_round_did_not_see_counts_with_the_smallest_that_it_saw():
    shift = LogprobShift.of([[{"a": -1.0, "b": -2.0}], [{"a": -1.0, "c": -3.0}]])
    assert shift.tokens == (("a", "b", "c"),)
    assert shift.values[0].tolist() == [[-1.0, -2.0, -2.0], [-1.0, -3.0, -3.0]]
    assert shift(observed(1, 1)).tolist() == [pytest.approx(2 / 3)]


def test_the_tokens_that_moved_furthest_are_named_first():
    shift = LogprobShift.of([[{"a": -1.0, "b": -2.0, "c": -3.0}], [{"a": -1.0, "b": -2.1, "c": -2.5}]])
    assert [(each.token, each.before, each.after) for each in shift.moved(0, 1, 3)] == [
        ("c", -3.0, -2.5),
        ("b", -2.0, -2.1),
    ]
    assert len(shift.moved(0, 1, 1)) == 1


def test_prompts_count_alike():
    rounds = [
        [{"a": -1.0}, {"a": -1.0, "b": -2.0, "c": -3.0}],
        [{"a": -2.0}, {"a": -1.0, "b": -2.0, "c": -3.0}],
    ]
    shift = LogprobShift.of(rounds)
    assert [each.tolist() for each in shift.by_prompt(observed(1, 1))] == [[1.0], [0.0]]
    assert shift(observed(1, 1)).tolist() == [0.5]


def test_contrasts_add_up_to_nothing():
    weights = contrasts(np.array([[0, 1], [2, 4]]), 5)
    assert weights.sum(axis=1) == pytest.approx([0, 0])
    assert weights[1].tolist() == pytest.approx([-1 / 3, -1 / 3, 0.5, -1 / 3, 0.5])


def test_an_empty_text_is_a_text():
    assert p_value(TextDiscrepancy.of([[""]] * 6), 4, 2) == 1
    assert p_value(TextDiscrepancy.of([[""]] * 4 + [["x"]] * 2), 4, 2) == pytest.approx(1 / 15)
