"""The loop is three calls: schedule, run, publish."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import chain, islice

from transom.engine.chunks import Chunk, judged_positions, scored_positions
from transom.engine.messages import Output, Stats
from transom.engine.quarantine import Quarantine
from transom.engine.runner import Runner, wanted_positions
from transom.engine.sampler import Read, read
from transom.engine.scheduler import Scheduler
from transom.engine.sequence import Sequence
from transom.internals.taps import Taps
from transom.schema.generation import FinishReason, SequenceRequest, TokenLogprob


@dataclass
class _Work:
    """What was done since the engine started; see `Stats`."""

    steps: int = 0
    step_seconds: float = 0.0
    batch_sequences: int = 0
    batch_tokens: int = 0
    layer_rows: int = 0
    prefill_tokens: int = 0
    decode_tokens: int = 0
    scored_tokens: int = 0


@dataclass(frozen=True, slots=True)
class _News:
    """What a step has found out about a sequence."""

    sequence: Sequence
    tokens: list[TokenLogprob]
    """Its next token, if it wanted one; or those that were judged."""
    is_whole: bool
    """Whether nothing of it is left to compute."""


class Engine:
    """Turns submitted sequences into outputs, one step at a time. Not thread-safe; one loop drives it."""

    def __init__(self, runner: Runner, scheduler: Scheduler, eos_token_ids: frozenset[int]) -> None:
        self._runner = runner
        self._scheduler = scheduler
        self._eos_token_ids = eos_token_ids
        self._quarantine = Quarantine(scheduler)
        self._work = _Work()

    @property
    def idle(self) -> bool:
        """Whether a step would do nothing."""
        return self._scheduler.idle and not self._quarantine.active

    def submit(
        self, request: SequenceRequest, generated: tuple[int, ...] = (), taps: Taps | None = None
    ) -> None:
        """Queue a sequence, which may read and write inside."""
        self._quarantine.add(Sequence(request, generated, taps))

    def abort(self, sequence_id: str) -> None:
        """Forget a sequence; one that is unknown or already finished is no error."""
        self._quarantine.remove(sequence_id)

    def stats(self) -> Stats:
        """Counters since the start, and the state now."""
        scheduler, work = self._scheduler, self._work
        return Stats(
            waiting=scheduler.waiting,
            running=scheduler.running,
            pages=scheduler.pages,
            pages_used=scheduler.pages_used,
            pages_cached=scheduler.pages_cached,
            prefix_queries=scheduler.prefix_queries,
            prefix_hits=scheduler.prefix_hits,
            preemptions=scheduler.preemptions,
            **vars(work),
        )

    def step(self) -> list[Output]:
        """Move every scheduled sequence by its chunk; the news of it.

        Should a step break, memory running out for one, its sequences are tried one by one, and only the one
        that breaks a step of its own is failed; see `Quarantine`.
        """
        self._quarantine.next()
        chunks = self._scheduler.schedule()
        if not chunks:
            return []
        started = time.perf_counter()
        try:
            finished = self._run(chunks)
        except Exception as error:  # noqa: BLE001  # whatever broke, everyone who waits must hear of it
            self._scheduler.failed_step(chunks)
            return self._fail(self._quarantine.blame(chunks), error)
        seconds = time.perf_counter() - started
        is_whole = all(self._runner.layers_of(chunk) == self._runner.layers for chunk in chunks)
        self._scheduler.finished_step(chunks, seconds, is_whole=is_whole)
        self._count(chunks, seconds)
        outputs = [self._publish(news) for news in finished]
        self._quarantine.passed([news.sequence for news in finished])
        return outputs

    def _fail(self, sequence: Sequence | None, error: Exception) -> list[Output]:
        if sequence is None:
            return []
        self._scheduler.remove(sequence)
        reason = f"{type(error).__name__}: {error}"
        return [Output(sequence.sequence_id, finish_reason="error", error=reason)]

    def _run(self, chunks: list[Chunk]) -> list[_News]:
        """Compute the chunks; the news of each sequence that got further."""
        reads = [_reads(chunk) for chunk in chunks]
        hidden = self._runner.run(chunks)
        tokens = iter(read(self._runner.logits, hidden, list(chain.from_iterable(reads))))
        finished: list[_News] = []
        for chunk, wanted in zip(chunks, reads, strict=True):
            scores = list(islice(tokens, len(scored_positions(chunk))))
            found = list(islice(tokens, len(wanted) - len(scores)))
            chunk.sequence.record_scores(scores)
            self._work.scored_tokens += len(scores) + len(judged_positions(chunk))
            if chunk.completes or found:
                finished.append(_News(chunk.sequence, found, is_whole=chunk.completes))
        return finished

    def _count(self, chunks: list[Chunk], seconds: float) -> None:
        work = self._work
        work.steps += 1
        work.step_seconds += seconds
        work.batch_sequences += len(chunks)
        for chunk in chunks:
            work.batch_tokens += chunk.length
            work.layer_rows += chunk.length * self._runner.layers_of(chunk)
            known = chunk.end if chunk.sequence.is_forced else chunk.sequence.prompt_length
            prompt = max(0, min(chunk.end, known) - chunk.start)
            work.prefill_tokens += prompt
            work.decode_tokens += chunk.length - prompt

    def _publish(self, news: _News) -> Output:
        sequence, prompt_logprobs = news.sequence, None
        if sequence.finished_prompt_logprobs and sequence.generated == 0:
            prompt_logprobs = sequence.prompt_logprobs
        tokens: list[TokenLogprob] = []
        reason, stop_token = (None, None) if news.tokens else self._finish(sequence, None)
        for token in news.tokens:
            sequence.append(token.token_id)
            tokens.append(token)
            reason, stop_token = self._finish(sequence, token)
            if reason is not None:
                break
        if sequence.is_forced and news.is_whole and reason is None:
            reason = "abort"
        if reason is not None:
            self._scheduler.remove(sequence)
        return Output(
            sequence.sequence_id,
            tokens=tokens,
            prompt_logprobs=prompt_logprobs,
            finish_reason=reason,
            stop_token=stop_token,
        )

    def _finish(
        self, sequence: Sequence, token: TokenLogprob | None
    ) -> tuple[FinishReason | None, int | None]:
        params = sequence.sampling
        if token is not None and token.token_id in params.stop_token_ids:
            return "stop", token.token_id
        if token is not None and token.token_id in self._eos_token_ids and not params.ignore_eos:
            return "stop", None
        return ("length" if sequence.is_full else None), None


def _reads(chunk: Chunk) -> list[Read]:
    """What each of the chunk's `wanted_positions` is wanted for."""
    sequence = chunk.sequence
    positions = wanted_positions(chunk)
    known = len(scored_positions(chunk)) + len(judged_positions(chunk))
    reads = [Read(sequence, sequence.tokens[position + 1], position + 1) for position in positions[:known]]
    return reads if known == len(positions) else [*reads, Read(sequence)]
