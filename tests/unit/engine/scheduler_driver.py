"""An engine whose forward computes nothing and remembers everything: what each slot of the cache holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Literal
from zlib import crc32

from transom.engine.chunks import Chunk, scored_positions
from transom.engine.kernels.cache import PAGE
from transom.engine.pages import pages_of
from transom.engine.scheduler import Scheduler
from transom.engine.sequence import Sequence
from transom.schema.generation import SamplingParams, SequenceRequest, TokenLogprob

names = count()


def ask(prompt: Iterable[int], max_tokens=4, *, name=None, project="a", priority="interactive", **sampling):
    return SequenceRequest(
        sequence_id=name or f"s{next(names)}",
        prompt_token_ids=tuple(prompt),
        sampling=SamplingParams(**{"seed": 0, "max_tokens": max_tokens} | sampling),
        project=project,
        priority=priority,
    )


class Prefixes:
    """A number for every prefix, and a digest of it; no two prefixes have the same number."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[int, int], int] = {}
        self._digests = [0]

    def after(self, prefix: int, token: int) -> int:
        number = self._numbers.get((prefix, token))
        if number is None:
            number = self._numbers[prefix, token] = len(self._digests)
            self._digests.append(crc32(b"%d" % token, self._digests[prefix]))
        return number

    def of(self, tokens: Iterable[int]) -> list[int]:
        """The prefixes that end with each token."""
        found, prefix = [], 0
        for token in tokens:
            prefix = self.after(prefix, token)
            found.append(prefix)
        return found

    def draw(self, prefix: int, salt: int) -> int:
        return crc32(b"%d" % salt, self._digests[prefix])


prefixes = Prefixes()


def next_token(prefix: int, seed: int) -> int:
    # Few tokens, so that continuations meet as well.
    return prefixes.draw(prefix, seed) % 2


def score(prefix: int, token: int, top: int) -> TokenLogprob:
    """How the model takes `token` after a prefix."""
    noise = prefixes.draw(prefix, token + 1000)
    likely = tuple((prefixes.draw(prefix, i + 2000) % 97, -float(i)) for i in range(top))
    return TokenLogprob(token, -(noise % 1000) / 100, noise % 97, likely)


def generated_alone(request: SequenceRequest) -> list[int]:
    prefix, tokens = prefixes.of(request.prompt_token_ids)[-1], []
    for _ in range(request.sampling.max_tokens):
        tokens.append(next_token(prefix, request.sampling.seed))
        prefix = prefixes.after(prefix, tokens[-1])
    return tokens


def scores_alone(request: SequenceRequest) -> list[TokenLogprob | None]:
    prompt, top = request.prompt_token_ids, request.sampling.prompt_logprobs
    before = prefixes.of(prompt)
    return [None, *(score(p, token, top) for p, token in zip(before, prompt[1:], strict=False))]


@dataclass
class Answer:
    request: SequenceRequest
    arrived: float
    arrived_step: int
    tokens: list[int] = field(default_factory=list)
    scores: list[TokenLogprob | None] | None = None
    times: list[float] = field(default_factory=list)
    """When each token came."""
    moved: list[int] = field(default_factory=list)
    """The steps in which it was computed."""
    finished: bool = False
    resumed: bool = False


class StandInEngine:
    """What core.Engine does around the scheduler, with a clock of its own.

    `step_time` gives the seconds that a step of so many rows takes. With `check`, every step is checked: each
    row stores its prefix in its slot, all rows first, and then each row must find its own past in the slots
    before it.
    """

    def __init__(self, *, check=True, step_time: Callable[[int], float] = lambda n: 1 + n / 16, **options):
        self.options = {"pages": 40, "max_num_seqs": 8, "max_num_batched_tokens": 64} | options
        self.scheduler = Scheduler(**self.options)
        self.answers: dict[str, Answer] = {}
        self.slots: dict[tuple[int, int], int | None] = {}
        """The prefix that each slot of each page holds; None for garbage."""
        self.check = check
        self._pasts: dict[Sequence, list[int]] = {}
        self.step_time = step_time
        self.now = 0.0
        self.steps = 0
        self.rows: list[dict[str, int]] = []
        """For each step, the rows of each project."""

    @property
    def capacity(self) -> int:
        return (self.options["pages"] - 1) * PAGE

    def submit(self, request: SequenceRequest, generated: tuple[int, ...] = ()) -> str:
        self.answers[request.sequence_id] = Answer(
            request, self.now, self.steps, list(generated), resumed=bool(generated)
        )
        self.scheduler.add(Sequence(request, generated))
        return request.sequence_id

    def abort(self, name: str) -> None:
        sequence = self.scheduler.find(name)
        if sequence is not None:
            self.scheduler.remove(sequence)
            del self.answers[name]

    def step(self, *, breaks: Literal["forward", "later"] | None = None) -> list[Chunk]:
        """One step; it may break in the forward, or when half of the scores are recorded."""
        chunks = self.scheduler.schedule()
        self.check_step(chunks)
        if breaks is not None:
            # Of what a broken forward stored only this is sure: slots that were right are right still.
            self._store(chunks, garbage=breaks == "forward")
            for chunk in chunks[: len(chunks) // 2 + 1] if breaks == "later" else ():
                self._score(chunk)
            self.scheduler.failed_step(chunks)
            self.check_house()
            return chunks
        self._store(chunks)
        self._attend(chunks)
        self._answer(chunks)
        self.check_house()
        return chunks

    def run(self, most_steps=10_000) -> None:
        start = self.steps
        while not self.scheduler.idle:
            assert self.steps - start < most_steps, "it does not come to an end"
            self.step()

    def _store(self, chunks: list[Chunk], *, garbage=False) -> None:
        for chunk in chunks if self.check else ():
            past = self._past(chunk.sequence)
            for position in range(chunk.start, chunk.end):
                slot = chunk.sequence.pages[position // PAGE], position % PAGE
                if not garbage or self.slots.get(slot) != past[position]:
                    self.slots[slot] = None if garbage else past[position]

    def _attend(self, chunks: list[Chunk]) -> None:
        for chunk in chunks if self.check else ():
            past, pages = self._past(chunk.sequence), chunk.sequence.pages
            found = [self.slots[pages[p // PAGE], p % PAGE] for p in range(chunk.end)]
            assert found == past[: chunk.end]

    def _past(self, sequence: Sequence) -> list[int]:
        past = self._pasts.setdefault(sequence, [])
        for token in sequence.tokens[len(past) :]:
            past.append(prefixes.after(past[-1] if past else 0, token))
        return past

    def _answer(self, chunks: list[Chunk]) -> None:
        rows = sum(chunk.length for chunk in chunks)
        seconds = self.step_time(rows)
        self.now += seconds
        self.steps += 1
        by_project: dict[str, int] = {}
        drawn = []
        for chunk in chunks:
            sequence = chunk.sequence
            if self.check:
                self._score(chunk)
            if chunk.completes:
                drawn.append(sequence)
            self.answers[sequence.sequence_id].moved.append(self.steps)
            project = sequence.request.project
            by_project[project] = by_project.get(project, 0) + chunk.length
        self.rows.append(by_project)
        self.scheduler.finished_step(chunks, seconds)
        for sequence in drawn:
            self._publish(sequence)

    def _score(self, chunk: Chunk) -> None:
        sequence = chunk.sequence
        past, top = self._past(sequence), sequence.sampling.prompt_logprobs or 0
        scored = scored_positions(chunk)
        sequence.record_scores([score(past[p], sequence.tokens[p + 1], top) for p in scored])

    def _publish(self, sequence: Sequence) -> None:
        answer = self.answers[sequence.sequence_id]
        if sequence.finished_prompt_logprobs and sequence.generated == 0:
            answer.scores = sequence.prompt_logprobs
        if sequence.wants_token:
            token = next_token(self._past(sequence)[-1], sequence.sampling.seed) if self.check else 0
            sequence.append(token)
            answer.tokens.append(token)
            answer.times.append(self.now)
        if not sequence.wants_token:
            answer.finished = True
            self.scheduler.remove(sequence)

    def check_step(self, chunks: list[Chunk]) -> None:
        assert chunks or self.scheduler.idle
        assert sum(chunk.length for chunk in chunks) <= self.options["max_num_batched_tokens"]
        assert len({chunk.sequence for chunk in chunks}) == len(chunks) <= self.options["max_num_seqs"]
        for chunk in chunks:
            sequence = chunk.sequence
            assert chunk.start == sequence.computed
            assert chunk.start < chunk.end <= sequence.target <= self.capacity
            assert len(sequence.pages) * PAGE >= chunk.end
            assert 0 not in sequence.pages

    def check_house(self) -> None:
        """No page is lost, none is given out twice, and nobody who waits holds any."""
        if not self.check:
            return
        scheduler, pool = self.scheduler, self.scheduler._cache.pool
        running = [s for lane in scheduler._lanes for s in lane.running]
        waiting = [s for lane in scheduler._lanes for s in lane.waiting]
        assert (scheduler.running, scheduler.waiting) == (len(running), len(waiting))
        assert scheduler._lanes.interactive_waiting == sum(
            s.request.priority == "interactive" for s in waiting
        )
        assert scheduler.running <= self.options["max_num_seqs"]
        assert not any(s.pages or s.claimed or s.computed or s.chain for s in waiting)
        assert all(len(s.pages) + s.claimed <= pages_of(s.target) for s in running)
        holders: dict[int, int] = {}
        for sequence in running:
            assert len(set(sequence.pages)) == len(sequence.pages)
            for number in sequence.pages:
                holders[number] = holders.get(number, 0) + 1
        free, idle = set(pool._free), set(pool._idle)
        assert len(free) == len(pool._free)
        assert free | idle | set(holders) == set(range(1, self.options["pages"]))
        assert len(free) + len(idle) + len(holders) == pool.total
        for number, page in pool._by_number.items():
            assert page.number == number
            assert page.ref_count == holders.get(number, 0)
            assert page.promised == -1
        assert all(n == 1 or number in pool._by_number for number, n in holders.items())
        assert all(pool._by_number[page.number] is page for page in pool._by_key.values())
        assert all(pool._by_key[pool._idle[number].key].number == number for number in idle)
        assert scheduler._cache._claimed == sum(s.claimed for s in running)
        assert scheduler.pages_used == len(holders)
        assert scheduler.pages_cached == len(idle)
