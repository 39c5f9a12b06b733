"""Anybody does anything to an application, in any order; the table says what comes of it."""

import itertools
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from programme_stage import ADA, BEN, EVE, OLI, RIA, ROB, Stage

from transom.access.programme.states import TRANSITIONS, possible
from transom.errors import Conflict, Forbidden, NotFound

PARTY = {
    ADA: "applicant",
    BEN: "member",
    RIA: "reviewer",
    ROB: "reviewer",
    OLI: "reviewer",
    EVE: None,
}
TABLE = {(row.state, row.action, row.party): row.to for row in TRANSITIONS}
ACTIONS = ["edit", "submit", "withdraw", "review", "ask_changes", "approve", "decline", "appeal", "comment"]
NAMES = {"review": "start_review"}
numbers = itertools.count()


@pytest.fixture(scope="module")
def shared_stage():
    with TemporaryDirectory() as folder:
        stage = Stage(folder)
        yield stage
        stage.close()


class Applying(RuleBasedStateMachine):
    stage: Stage

    def __init__(self):
        super().__init__()
        self.project = self.stage.add_project(f"prj_{next(numbers)}", ADA, BEN)
        self.known = self.stage.draft(project=self.project)
        self.state, self.version, self.happened = "draft", 1, ["create"]
        self.was_submitted = False

    @rule(
        name=st.sampled_from(ACTIONS),
        # Whoever can get somewhere comes up more often.
        who=st.sampled_from([ADA, ADA, ADA, BEN, RIA, RIA, ROB, OLI, EVE]),
        stale=st.sampled_from([False, False, False, False, True]),
    )
    def act(self, name, who, stale):
        expected = self.expected(name, who, stale=stale)
        seen = self.known.model_copy(update={"version": self.version + 1}) if stale else self.known
        more = {"purpose": "another"} if name == "edit" else {}
        more |= {"text": "hm"} if name == "comment" else {}
        do = getattr(self.stage, name)
        if isinstance(expected, type):
            with pytest.raises(expected):
                do(seen, who, **more)
            return
        answer = do(seen, who, **more)
        self.follow(NAMES.get(name, name), expected, answer)

    def expected(self, name, who, *, stale):
        action, party = NAMES.get(name, name), PARTY[who]
        if party is None or (party == "reviewer" and not self.was_submitted):
            return NotFound
        if stale and action != "comment":
            return Conflict
        if (self.state, action, party) in TABLE:
            again = action == "appeal" and "appeal" in self.happened
            return Conflict if again else TABLE[self.state, action, party]
        able = any((state, done) == (self.state, action) for state, done, _ in TABLE)
        return Forbidden if able else Conflict

    def follow(self, action, to, answer):
        self.state, self.was_submitted = to, self.was_submitted or to == "submitted"
        self.happened.append(action)
        if action != "comment":
            self.version += 1
        if action == "appeal":
            assert (answer.kind, answer.state, answer.appeal_of) == ("appeal", "submitted", self.known.id)
        else:
            assert (answer.state, answer.version) == (to, self.version)

    @invariant()
    def is_as_the_model_has_it(self):
        self.known = self.stage.show(self.known)
        assert (self.known.state, self.known.version) == (self.state, self.version)
        assert [event.action for event in self.known.events] == self.happened
        assert [event.number for event in self.known.events] == [*range(1, len(self.happened) + 1)]
        assert self.known.events[-1].state == self.state
        assert self.known.may == possible(self.state, {"applicant"})

    @invariant()
    def a_grant_is_there_exactly_if_it_was_approved(self):
        grant = self.stage.grant(self.project)
        assert (grant is not None) == (self.state == "approved")
        assert grant is None or grant.application_id == self.known.id

    @invariant()
    def the_trail_has_each_event(self):
        mine = [row.action for row in self.stage.trail() if row.subject == self.known.id]
        assert mine == [f"application.{action}" for action in self.happened]


def test_an_application_moves_as_the_table_has_it_and_in_no_other_way(shared_stage):
    machine = type("Machine", (Applying,), {"stage": shared_stage})
    few = settings(
        max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    run_state_machine_as_test(machine, settings=few)
