"""Whatever is asked, aborted, preempted, shared or broken: every row attends to its own past, every answer is
the one given alone, and every page comes back."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from scheduler_driver import StandInEngine, ask, generated_alone, scores_alone

# Few beginnings and few tokens, so that prefixes meet, part, and meet again.
lengths = st.sampled_from([1, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 96, 100])
endings = st.lists(st.integers(0, 1), max_size=3)


class House(RuleBasedStateMachine):
    @initialize(
        pages=st.integers(3, 24),
        seats=st.integers(1, 6),
        rows=st.sampled_from([1, 7, 16, 40, 100]),
        caching=st.sampled_from([True, True, True, False]),
    )
    def build(self, pages, seats, rows, caching):
        self.engine = StandInEngine(
            pages=pages, max_num_seqs=seats, max_num_batched_tokens=rows, prefix_caching=caching
        )

    @rule(
        kind=st.integers(0, 1),
        length=lengths,
        ending=endings,
        max_tokens=st.integers(0, 40),
        scores=st.sampled_from([None, None, 0, 0, 2, 3]),
        project=st.sampled_from("aab"),
        priority=st.sampled_from(["interactive", "interactive", "batch"]),
        count=st.integers(1, 3),
        resumed=st.sampled_from([False, False, True]),
    )
    def submit(self, kind, length, ending, max_tokens, scores, project, priority, count, resumed):
        for choice in range(count):
            prompt = [*([kind] * length), *ending, *([choice] * (choice > 0))][: self.engine.capacity]
            most = min(max_tokens, self.engine.capacity - len(prompt))
            request = ask(
                prompt, most, project=project, priority=priority, prompt_logprobs=scores, seed=choice % 2
            )
            done = generated_alone(request)[: most // 2] if resumed else []
            self.engine.submit(request, tuple(done))

    @rule(times=st.integers(1, 6))
    def step(self, times):
        for _ in range(times):
            self.engine.step()

    @rule(where=st.sampled_from(["forward", "later"]))
    def break_down(self, where):
        self.engine.step(breaks=where)

    @rule()
    def break_down_and_end_all(self):
        """As core.Engine does."""
        self.engine.step(breaks="forward")
        for sequence in self.engine.scheduler.sequences:
            self.engine.abort(sequence.sequence_id)

    @rule()
    def break_down_unheard(self):
        """A step that nobody answered for."""
        self.engine.scheduler.schedule()

    @precondition(lambda self: self.engine.scheduler.sequences)
    @rule(data=st.data())
    def abort(self, data):
        sequences = self.engine.scheduler.sequences
        self.engine.abort(sequences[data.draw(st.integers(0, len(sequences) - 1))].sequence_id)

    @invariant()
    def keeps_house(self):
        if not self.engine.scheduler._lengths:
            self.engine.check_house()

    def teardown(self):
        if not hasattr(self, "engine"):
            return
        self.engine.run()
        assert self.engine.scheduler.pages_used == 0
        assert self.engine.scheduler.idle
        for answer in self.engine.answers.values():
            assert answer.finished
            assert answer.tokens == generated_alone(answer.request)
            scores = answer.request.sampling.prompt_logprobs is not None and not answer.resumed
            assert answer.scores == (scores_alone(answer.request) if scores else None)


House.TestCase.settings = settings(
    max_examples=200, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.timeout(240)
class TestHouse(House.TestCase):
    pass
