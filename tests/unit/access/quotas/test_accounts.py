"""Accounts, the columns that name them, and limits that make sense."""

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transom.access.quotas import Amounts, Charged, Limit
from transom.access.quotas.accounts import KINDS, Cell, kind_of, values_of
from transom.access.quotas.budgets import RESOURCES

IDS = st.text(st.characters(codec="utf-8", exclude_characters=":", min_codepoint=33), min_size=1, max_size=8)
NAMES = st.text(st.characters(codec="utf-8", min_codepoint=33), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("account", "budget", "limit", "message"),
    [
        ("planet:earth", "tokens_total", 5, "is no account"),
        ("project", "words_per_hour", 5, "is no budget"),
        ("project:p", "words_per_hour", 5, "is no budget"),
        ("project:p", "tokens_total", -1, "less than nothing"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(account, budget, limit, message):
    with pytest.raises(ValueError, match=message):
        Limit(account, budget, limit)


@given(st.builds(Charged, **{each.name: NAMES if each.name == "model" else IDS for each in fields(Charged)}))
def test_every_account_leads_back_to_the_columns_that_name_it(charged):
    accounts = charged.accounts()
    assert [kind_of(account) for account in accounts] == list(KINDS)
    for account in accounts:
        assert values_of(account).items() <= charged.columns().items()
        assert tuple(values_of(account)) == KINDS[kind_of(account)]


def test_what_is_unknown_is_not_charged():
    assert Charged(project_id="anonymous", model="tiny").accounts() == (
        "project:anonymous",
        "project_model:anonymous:tiny",
        "model:tiny",
    )
    assert Charged().accounts() == ()


def test_rows_are_locked_from_the_key_to_the_pool():
    accounts = Charged(key_id="z", person_id="y", project_id="x", tier="b", model="a").accounts()
    cells = [Cell(account, budget, 0) for account in accounts for budget in ("a", "b")]
    backwards = list(reversed(cells))
    assert sorted(backwards, key=lambda cell: cell.order) == cells


def test_seconds_of_a_limit_are_microseconds_of_its_resource():
    assert Limit("project:p", "engine_seconds", 3).most == 3_000_000
    assert Limit("project:p", "tokens_total", 3).most == 3


def test_amounts_name_every_resource_in_the_order_of_the_ledger():
    amounts = Amounts(requests=1, tokens=2, engine_us=3, internals_bytes=4, released_rank=5)
    assert list(amounts.by_resource().items()) == [(each, amounts.of(each)) for each in RESOURCES]
