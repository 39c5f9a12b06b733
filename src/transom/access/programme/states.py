"""The states of an application, and every way from one to another: a table, and nothing beside it."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Literal, NamedTuple, TypeAlias

from transom.errors import Conflict, Forbidden
from transom.schema.applications import Action, State

Party: TypeAlias = Literal["applicant", "member", "reviewer", "operator", "system"]
"""As what somebody acts. `applicant` is whoever manages the project, `member` anybody else in it."""


class Transition(NamedTuple):
    """One row: in `state`, `party` may do `action`, which leads `to`."""

    state: State
    action: Action
    party: Party
    to: State


TRANSITIONS = (
    Transition("draft", "edit", "applicant", "draft"),
    Transition("draft", "submit", "applicant", "submitted"),
    Transition("draft", "withdraw", "applicant", "withdrawn"),
    Transition("draft", "expire", "system", "expired"),
    Transition("submitted", "withdraw", "applicant", "withdrawn"),
    Transition("submitted", "comment", "applicant", "submitted"),
    Transition("submitted", "comment", "member", "submitted"),
    Transition("submitted", "comment", "reviewer", "submitted"),
    Transition("submitted", "start_review", "reviewer", "in_review"),
    # An instant tier: the server decides, on submission.
    Transition("submitted", "approve", "system", "approved"),
    Transition("in_review", "withdraw", "applicant", "withdrawn"),
    Transition("in_review", "comment", "applicant", "in_review"),
    Transition("in_review", "comment", "member", "in_review"),
    Transition("in_review", "comment", "reviewer", "in_review"),
    Transition("in_review", "ask_changes", "reviewer", "changes_asked"),
    Transition("in_review", "approve", "reviewer", "approved"),
    Transition("in_review", "decline", "reviewer", "declined"),
    Transition("changes_asked", "edit", "applicant", "changes_asked"),
    Transition("changes_asked", "submit", "applicant", "submitted"),
    Transition("changes_asked", "withdraw", "applicant", "withdrawn"),
    Transition("changes_asked", "comment", "applicant", "changes_asked"),
    Transition("changes_asked", "comment", "member", "changes_asked"),
    Transition("changes_asked", "comment", "reviewer", "changes_asked"),
    Transition("changes_asked", "expire", "system", "expired"),
    # Makes an application of its own; the declined one stays what it is.
    Transition("declined", "appeal", "applicant", "declined"),
)

PENDING: frozenset[State] = frozenset({"submitted", "in_review", "changes_asked"})
"""Submitted, and neither decided nor given up."""

QUEUED: frozenset[State] = frozenset({"submitted", "in_review"})
"""Waits for a reviewer."""

OPEN: frozenset[State] = PENDING | {"draft"}
"""Something may still become of it."""

WHILE_PAUSED: frozenset[Action] = frozenset({"withdraw", "comment"})
"""Of what the table allows, what is possible while something stands against the application."""

DECIDED: frozenset[State] = frozenset({"approved", "declined"})

_WORDS: dict[Party, str] = {
    "applicant": "an owner or administrator of its project",
    "member": "a member of its project",
    "reviewer": "a reviewer",
    "operator": "the operator",
    "system": "the server itself",
}


def words(name: str) -> str:
    """A state or an action as people read it."""
    return name.replace("_", " ")


def possible(state: State, parties: AbstractSet[Party], *, paused: bool = False) -> list[Action]:
    """What these parties may do in `state`."""
    able = {row.action for row in TRANSITIONS if row.state == state and row.party in parties}
    return sorted(able & WHILE_PAUSED if paused else able)


def step(
    state: State, action: Action, parties: AbstractSet[Party], barred: str | None = None
) -> tuple[State, Party]:
    """Where `action` leads, and as which party it is done.

    Args:
        state: of the application now.
        action: what is to be done.
        parties: what the actor is to the application.
        barred: why the actor is no reviewer of this one, although they are of others.

    Raises:
        Forbidden: somebody else may do this now, but not this actor.
        Conflict: nobody may do this now; the message says what may be done.
    """
    able = [row for row in TRANSITIONS if (row.state, row.action) == (state, action)]
    for row in able:
        if row.party in parties:
            return row.to, row.party
    if able:
        if barred is not None and any(row.party == "reviewer" for row in able):
            raise Forbidden(barred)
        who = " or ".join(dict.fromkeys(_WORDS[row.party] for row in able))
        raise Forbidden(f"Only {who} may {words(action)} this application.")
    now = ", ".join(words(name) for name in possible(state, parties)) or "nothing"
    raise Conflict(
        f"This application is {words(state)}: it cannot be handled by {words(action)}. "
        f"Possible for you now: {now}."
    )
