"""Every way from one state of an application to another, and that there is no other."""

import itertools
from typing import get_args

import pytest

from transom.access.programme.states import TRANSITIONS, Party, possible, step, words
from transom.errors import Conflict, Forbidden
from transom.schema.applications import Action, State

ALLOWED = {
    "draft": {
        "applicant": {"edit": "draft", "submit": "submitted", "withdraw": "withdrawn"},
        "system": {"expire": "expired"},
    },
    "submitted": {
        "applicant": {"withdraw": "withdrawn", "comment": "submitted"},
        "member": {"comment": "submitted"},
        "reviewer": {"start_review": "in_review", "comment": "submitted"},
        "system": {"approve": "approved"},
    },
    "in_review": {
        "applicant": {"withdraw": "withdrawn", "comment": "in_review"},
        "member": {"comment": "in_review"},
        "reviewer": {
            "approve": "approved",
            "ask_changes": "changes_asked",
            "comment": "in_review",
            "decline": "declined",
        },
    },
    "changes_asked": {
        "applicant": {
            "comment": "changes_asked",
            "edit": "changes_asked",
            "submit": "submitted",
            "withdraw": "withdrawn",
        },
        "member": {"comment": "changes_asked"},
        "reviewer": {"comment": "changes_asked"},
        "system": {"expire": "expired"},
    },
    "declined": {"applicant": {"appeal": "declined"}},
    "approved": {},
    "withdrawn": {},
    "expired": {},
}

EVERY = list(itertools.product(get_args(State), get_args(Action), get_args(Party)))


def leads(state, action, party):
    return ALLOWED[state].get(party, {}).get(action)


def test_the_table_has_nothing_twice_and_knows_every_state():
    assert len({row[:3] for row in TRANSITIONS}) == len(TRANSITIONS)
    assert ALLOWED.keys() == set(get_args(State))
    assert {row.to for row in TRANSITIONS} | {"draft"} == set(get_args(State))


@pytest.mark.parametrize(("state", "action", "party"), EVERY, ids="-".join)
def test_a_step_is_taken_or_refused_as_the_table_has_it(state, action, party):
    to = leads(state, action, party)
    if to is not None:
        assert step(state, action, {party}) == (to, party)
        return
    others = [each for each in get_args(Party) if leads(state, action, each)]
    with pytest.raises(Forbidden if others else Conflict) as refused:
        step(state, action, {party})
    assert words(action) in refused.value.message
    if not others:
        for able in ALLOWED[state].get(party, {}):
            assert words(able) in refused.value.message


@pytest.mark.parametrize("state", get_args(State))
def test_what_is_possible_is_what_the_table_has(state):
    for party in get_args(Party):
        assert possible(state, {party}) == sorted(ALLOWED[state].get(party, {}))
    assert possible(state, frozenset()) == []


def test_nobody_at_all_may_do_anything():
    for state, action in itertools.product(get_args(State), get_args(Action)):
        with pytest.raises((Forbidden, Conflict)):
            step(state, action, frozenset())


def test_who_is_barred_from_reviewing_is_told_why():
    with pytest.raises(Forbidden, match="it is your own"):
        step("in_review", "approve", {"applicant"}, "it is your own")


def test_a_bar_from_reviewing_is_no_answer_to_what_reviewers_cannot_do():
    with pytest.raises(Forbidden, match="owner or administrator"):
        step("draft", "submit", frozenset(), "it is your own")
