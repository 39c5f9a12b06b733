"""The benchmark of lies: what it makes is a lie, what is honest is not taken for one, how its page looks."""

import pytest

from benchmarks.detecting import log_lies
from benchmarks.detecting.claims import SYSTEM
from benchmarks.detecting.lies import ASKED, questions
from benchmarks.detecting.page import SCENARIO, page
from benchmarks.load.rows import Row

MACHINE = {"cpu": "a processor", "cores": 2, "memory_gib": 8, "isa": "avx2"}


@pytest.mark.parametrize("way", [log_lies.back_dated, log_lies.forked])
def test_a_lie_about_the_log_is_found_and_an_honest_log_is_not_one(way):
    assert all(way(10, lie=True))
    assert not any(way(10, lie=False))


def test_questions_differ_and_each_lie_changes_them():
    asked = questions(20, 1)
    assert len({question.seed for question in asked}) == len(asked)
    assert len({question.messages[-1]["content"] for question in asked}) == len(asked)
    assert all(question.messages[0]["content"] == SYSTEM for question in asked)
    for lie in ASKED:
        assert all(lie.change(question) != question for question in asked), lie.name
    assert questions(20, 1) == asked
    assert {question.seed for question in questions(20, 100)}.isdisjoint(question.seed for question in asked)


def row(lie, **figures):
    return Row(
        run="1",
        date="2026-11-28T12:00:00+00:00",
        commit="c" * 40,
        dirty=False,
        machine=MACHINE,
        server={"label": "ours", "version": "", "dtype": "float32", "model": "tiny", "reference": True},
        scenario=SCENARIO,
        settings={"lie": lie, "trials": 100, "tokens": 64},
        rounds=[figures],
        median=figures,
    )


def test_the_page_has_a_line_for_each_lie_and_the_newest_counts():
    rows = [
        row("another seed", found=1.0, found_with_faked_logprobs=1.0, false_alarms=0.0),
        row(
            "another seed",
            found=100.0,
            found_with_faked_logprobs=98.0,
            false_alarms=0.0,
            tokens=1.0,
            tokens_most=4.0,
        ),
        row("a log forked", found=100.0, false_alarms=0.0),
        row("honest, under full load", answers=1000.0, false_alarms=0.0),
    ]
    lines = list(page(rows))
    assert "| another seed | 100 of 100 | 1, at most 4 | 98 of 100 |  | 0 of 100 |" in lines
    assert "| a log forked | 100 of 100 | 0 of 100 |" in lines
    assert "Of 1,000 honest answers under full load, 0 were found to be lies." in lines
    assert sum("another seed" in line for line in lines) == 1
