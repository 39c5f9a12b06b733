"""Who runs in the next step, and how many tokens of each.

A step is made in three turns. Sequences that grew get their pages; where there are none left, the youngest of
the most served project starts over later. Then those who wait and are entitled to what others hold take it.
Then the rows of the step are dealt: first the least served project all that it needs, then the others in the
order of what they were served, as far as that does not make the step much longer. Interactive work comes
before batch work throughout, and inside a project prompts come first.

None of it can change an answer: a row's arithmetic knows nothing of the batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush, heapreplace, nsmallest
from itertools import count

from transom.engine.chunks import Chunk, service_of
from transom.engine.fairness import GENTLE, SHORT, TOKEN_COST, Lane, Lanes, StepTimes
from transom.engine.kernels.cache import PAGE
from transom.engine.kv_cache import KVCacheManager
from transom.engine.pages import pages_of
from transom.engine.preemption import PreemptionPolicy
from transom.engine.sequence import Sequence

_PATIENCE = 4
"""A sequence that generates is moved in every so many steps, whatever prompts its project has."""

_GUEST_SECONDS = 10.0
"""How long a house reckons with another project's return."""

_CALM = 64
"""Steps between two in which the rows of one project make those wait who generate."""

_CANDIDATES = 4
"""Waiting projects that are looked at in a step for what they are entitled to. The others' turn comes, since
the counters of those before them rise."""


class Scheduler:
    """Owns the queues and the pages; the runner and the sampler never see them.

    Each list of chunks that `schedule` returns is to be answered by `finished_step` or `failed_step` before
    anything else is asked. One that was not answered counts as failed.
    """

    def __init__(
        self, *, pages: int, max_num_seqs: int, max_num_batched_tokens: int, prefix_caching: bool = True
    ) -> None:
        self._cache = KVCacheManager(pages, prefix_caching=prefix_caching)
        self._max_num_seqs = max_num_seqs
        self._max_num_batched_tokens = max_num_batched_tokens
        self._sequences: dict[str, Sequence] = {}
        self._lanes = Lanes()
        self._times = StepTimes()
        self._policy = PreemptionPolicy(self._lanes, self._cache, max_num_seqs)
        self._arrivals = count()
        self._step = 0
        self._seconds = 0.0
        """Time of all steps."""
        self._guests_until = 0.0
        """Until then steps are kept short for whoever may come."""
        self._lengths: dict[Sequence, int] = {}
        """Rows of each sequence in the step that is made or runs, in the order of the chunks."""
        self._along: set[Sequence] = set()
        """Those in the step who were brought along."""
        self._blocked = False
        """Whether somebody waits for pages, which those behind it shall not take."""
        self.preemptions = 0
        """Sequences that had to start over."""

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._sequences

    @property
    def sequences(self) -> list[Sequence]:
        """Every sequence in the house, running ones first."""
        lanes = list(self._lanes)
        return [s for lane in lanes for s in lane.running] + [s for lane in lanes for s in lane.waiting]

    @property
    def waiting(self) -> int:
        """Sequences that hold no pages."""
        return len(self._sequences) - self._lanes.running

    @property
    def running(self) -> int:
        """Sequences that hold a seat, at most `max_num_seqs`."""
        return self._lanes.running

    @property
    def pages(self) -> int:
        """Pages of the cache, the scratch page aside."""
        return self._cache.pool.total

    @property
    def pages_used(self) -> int:
        """Pages that a sequence holds."""
        return self._cache.pool.used

    @property
    def pages_cached(self) -> int:
        """Pages that no sequence holds and whose contents may be used again."""
        return self._cache.pool.cached

    @property
    def prefix_queries(self) -> int:
        """Tokens looked up in the prefix cache, at each admission of a sequence."""
        return self._cache.queries

    @property
    def prefix_hits(self) -> int:
        """Tokens found there, which were not computed again."""
        return self._cache.hits

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence behind the others of its project and class.

        Raises:
            ValueError: one of that name is here.
        """
        if sequence.sequence_id in self._sequences:
            raise ValueError(f"sequence {sequence.sequence_id} is here already")
        self._sequences[sequence.sequence_id] = sequence
        sequence.arrival = next(self._arrivals)
        self._lanes.add(sequence)

    def remove(self, sequence: Sequence) -> None:
        """A sequence is finished, failed or aborted; its pages are free again, and may be found."""
        del self._sequences[sequence.sequence_id]
        self._lengths.pop(sequence, None)
        self._cache.free(sequence)
        self._lanes.remove(sequence)

    def find(self, sequence_id: str) -> Sequence | None:
        """The sequence of that name, if it is still here."""
        return self._sequences.get(sequence_id)

    def schedule(self) -> list[Chunk]:
        """The chunks of the next step, at most `max_num_batched_tokens` rows in all.

        Raises:
            RuntimeError: a sequence is longer than the whole cache, which `max_model_len` should prevent.
        """
        self._undo(list(self._lengths))
        self._step += 1
        self._blocked = False
        self._along = set()
        if len(self._lanes) > 1:
            self._guests_until = self._seconds + _GUEST_SECONDS
        # Nobody is preempted once rows are dealt: a page that one sequence is about to fill may by then be
        # part of another.
        self._grow()
        self._make_room()
        self._deal()
        return [Chunk(sequence, sequence.computed, rows) for sequence, rows in self._lengths.items()]

    def finished_step(self, chunks: list[Chunk], seconds: float, *, is_whole: bool = True) -> None:
        """The step has run: what it computed is in the cache. To be called before any token is appended.

        Args:
            chunks: as `schedule` returned them.
            seconds: how long the step took, from which the scheduler learns.
            is_whole: whether all rows went through all layers; the others would teach that rows are cheap.
        """
        for chunk in chunks:
            if chunk.sequence not in self._along:
                self._lanes.of(chunk.sequence).counter += service_of(chunk)
            chunk.sequence.computed = chunk.end
            self._cache.settle(chunk.sequence)
        self._seconds += seconds
        if is_whole:
            self._times.observe(sum(chunk.length for chunk in chunks), seconds)
        self._lengths.clear()

    def failed_step(self, chunks: list[Chunk]) -> None:
        """The step has broken: nothing of it may be relied on. To be called before anything is removed.

        Sequences keep what they had computed before; those that shared pages for this step wait again.
        """
        self._undo([chunk.sequence for chunk in chunks])

    def _undo(self, sequences: list[Sequence]) -> None:
        for sequence in self._cache.undo(sequences):
            self._lanes.put_back(sequence)
        self._lengths.clear()

    # Pages for those who run.

    def _grow(self) -> None:
        """Claim pages for the tokens that were appended; from here on every chunk finds its pages."""
        for lane in self._lanes:
            for sequence in lane.running:
                if sequence.target > (len(sequence.pages) + sequence.claimed) * PAGE:
                    self._cache.claim_all(sequence)
        while self._cache.unclaimed < 0 and (victim := self._policy.next_victim()) is not None:
            self._preempt(victim)

    def _preempt(self, victim: Sequence) -> None:
        self._lanes.put_back(victim)
        self._cache.free(victim)
        self.preemptions += 1

    # Room for those who wait.

    def _make_room(self) -> None:
        """Admit those who are entitled to what others hold, as many as the step could have rows for."""
        if len(self._lanes) < 2 or not self.waiting:
            return
        rows = self._max_num_batched_tokens
        waiting = (lane for lane in self._lanes if self._may_admit(lane))
        for lane in nsmallest(_CANDIDATES, waiting, key=lambda lane: lane.order):
            while rows > 0 and lane.waiting and self._admit_by_right(lane):
                rows -= lane.running[-1].target - lane.running[-1].computed

    def _admit_by_right(self, lane: Lane) -> bool:
        sequence = lane.waiting[0]
        missing = self._cache.shortage(sequence, self._cache.get_computed_pages(sequence))
        free_seats = self._max_num_seqs - self._lanes.running
        if free_seats > 0 >= missing:
            # Nobody has to give way; it is admitted when rows are dealt.
            return False
        victims = self._policy.victims(lane, free_seats=free_seats, missing_pages=missing)
        if victims is None:
            return False
        for victim in victims:
            self._preempt(victim)
        return self._admit(lane)

    def _may_admit(self, lane: Lane) -> bool:
        return bool(lane.waiting) and not (lane.is_batch and self._lanes.interactive_waiting)

    def _admit(self, lane: Lane) -> bool:
        """Seat the first that waits in `lane` if there is room now; an empty house takes anybody."""
        free_seats = self._max_num_seqs - self._lanes.running
        if self._blocked or not self._may_admit(lane) or free_seats <= self._owed_seats(lane):
            return False
        sequence = lane.waiting[0]
        hits = self._cache.get_computed_pages(sequence)
        if self._cache.shortage(sequence, hits) > 0 and self._lanes.running:
            self._blocked = True
            return False
        if pages_of(sequence.target) > self.pages:
            raise RuntimeError(f"a sequence of {sequence.target} tokens is longer than the whole cache")
        self._lanes.seat(lane)
        sequence.generated_before = sequence.generated
        self._cache.admit(sequence, hits)
        return True

    def _owed_seats(self, lane: Lane) -> int:
        """Seats that a project with its share leaves to those who wait and have less than theirs."""
        lanes = [other for other in self._lanes if other.is_batch <= lane.is_batch]
        share = self._max_num_seqs // len(lanes)
        if len(lane.running) < max(1, share):
            return 0
        return sum(min(len(other.waiting), max(0, share - len(other.running))) for other in lanes)

    # Rows for those who have room.

    def _deal(self) -> None:
        """Deal out the rows of the step.

        A step takes longer the more rows it has; everybody in it waits for all of them, and who comes while
        it runs waits for its end. So where projects share the engine, or have lately, the least served gets
        what it needs up to the rows of a short step, or of a gentle one where others generate, and the others
        no more than lets the step take STRETCH times as long: the flood of one does not multiply the latency
        of another. Those who generate come along where they are few.
        """
        seats = self._lanes.running < self._max_num_seqs
        heap = [(*lane.order, lane) for lane in self._lanes if seats or lane.running]
        heapify(heap)
        rows = 0
        while heap and not rows:
            batch, counter, held, number, lane = heappop(heap)
            rows, service = self._serve(lane)
        if rows and heap:
            left = self._times.most_rows(rows, self._max_num_batched_tokens) - rows
            left -= self._bring_along(lane, self._max_num_batched_tokens - rows)
            # Where a short step did not hold all that it needs, it takes part in the sharing.
            heappush(heap, (batch, counter + service, held, number, lane))
            self._share(heap, left)

    def _serve(self, lane: Lane) -> tuple[int, int]:
        """Give a project all the rows that it needs and a step can have; how many, and what they count."""
        gentle, most = self._bounds(lane)
        left, service = most, 0
        for sequence in self._work(lane):
            decodes = sequence.decodes
            rows = self._take(sequence, left)
            left -= rows
            service += TOKEN_COST if decodes else rows
            if not left:
                break
        if most - left > gentle:
            lane.hurried = self._step
        return most - left, service

    def _bounds(self, lane: Lane) -> tuple[int, int]:
        """How many rows a project may have in a step that it is the first in: mostly, and now.

        While others generate, their next tokens wait for its rows. It may be in a hurry now and then: whoever
        has come with a question is answered soon, and a flood of prompts is cut small.
        """
        whole = self._max_num_batched_tokens
        if self._seconds >= self._guests_until:
            return whole, whole
        short = self._times.most_rows(1, whole, SHORT)
        others = sum(1 for _ in self._generating(lane))
        if not others:
            return short, short
        decoding = others + sum(sequence.decodes for sequence in lane.running)
        gentle = self._times.most_rows(decoding, whole, GENTLE) - others
        gentle = max(1, min(gentle, short))
        is_calm = self._step - lane.hurried >= _CALM
        return gentle, short if is_calm else gentle

    def _generating(self, lane: Lane) -> Iterator[Sequence]:
        """Sequences of others that generate, and need not give way to it altogether."""
        for other in self._lanes:
            if other is not lane and other.is_batch <= lane.is_batch:
                yield from (sequence for sequence in other.running if sequence.decodes)

    def _bring_along(self, lane: Lane, most: int) -> int:
        """Move those who generate beside a project if they are few; how many there were.

        A step is hardly longer for them, and they would wait for a whole one more; so it does not count, or
        they would have to wait for it later. Projects of which many generate take turns by what they were
        served.
        """
        others = list(self._generating(lane))
        few = self._times.seconds(len(others)) <= GENTLE * self._times.seconds(1)
        if not few or len(others) > most:
            return 0
        self._along = {sequence for sequence in others if self._take(sequence, 1)}
        return len(others)

    def _share(self, heap: list[tuple[bool, int, int, int, Lane]], left: int) -> None:
        """Deal `left` rows to projects, a few at a time and each time to the least served."""
        hands: dict[Lane, Iterator[Sequence]] = {}
        while left > 0 and heap:
            batch, counter, held, number, lane = heap[0]
            hand = hands.get(lane) or hands.setdefault(lane, self._hand(lane))
            sequence = next(hand, None)
            if sequence is None:
                heappop(heap)
                continue
            decodes = sequence.decodes
            rows = self._take(sequence, min(left, PAGE))
            left -= rows
            counter += TOKEN_COST if decodes else rows
            heapreplace(heap, (batch, counter, held, number, lane))

    def _hand(self, lane: Lane) -> Iterator[Sequence]:
        """Each sequence of a project as often as it can take another portion."""
        for sequence in self._work(lane):
            while sequence.computed + self._lengths.get(sequence, 0) < sequence.target:
                yield sequence

    def _work(self, lane: Lane) -> Iterator[Sequence]:
        """The sequences of a project in the order of their turn; who waits is admitted as it comes to it.

        Prompts come first, so that one is done before the next begins: somebody waits for its first token
        and has nothing to read. But nobody who generates gives way for more than a few steps; then the one
        that was moved least recently comes before the others.
        """
        decoding: list[Sequence] = []
        prompts: list[Sequence] = []
        for sequence in lane.running:
            (decoding if sequence.decodes else prompts).append(sequence)
        decoding.sort(key=lambda sequence: sequence.moved)
        waited = sum(self._step - sequence.moved >= _PATIENCE for sequence in decoding)
        yield from decoding[:waited]
        yield from prompts
        while self._admit(lane):
            yield lane.running[-1]
        yield from decoding[waited:]

    def _take(self, sequence: Sequence, rows: int) -> int:
        """Add up to `rows` rows of `sequence` to the step; how many there were."""
        taken = self._lengths.get(sequence, 0)
        if not taken:
            sequence.moved = self._step
            if sequence.target - sequence.computed > 1:
                self._cache.match(sequence)
        rows = min(rows, sequence.target - sequence.computed - taken)
        self._lengths[sequence] = taken + rows
        self._cache.allocate_slots(sequence, sequence.computed + taken + rows)
        return rows
