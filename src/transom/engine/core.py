"""The loop is three calls: schedule, run, publish."""

from __future__ import annotations

import torch
from torch import Tensor

from transom.engine.messages import Output
from transom.engine.runner import Runner, scored_positions
from transom.engine.sampler import Score, draw_tokens, look_up
from transom.engine.scheduler import Chunk, Scheduler
from transom.engine.sequence import Sequence
from transom.schema.generation import FinishReason, SequenceRequest, TokenLogprob


class Engine:
    """Turns submitted sequences into outputs, one step at a time. Not thread-safe; one loop drives it."""

    def __init__(self, runner: Runner, scheduler: Scheduler, eos_token_ids: frozenset[int]) -> None:
        self._runner = runner
        self._scheduler = scheduler
        self._eos_token_ids = eos_token_ids

    @property
    def idle(self) -> bool:
        """Whether a step would do nothing."""
        return self._scheduler.idle

    def submit(self, request: SequenceRequest, generated: tuple[int, ...] = ()) -> None:
        """Queue a sequence."""
        self._scheduler.add(Sequence(request, generated))

    def abort(self, sequence_id: str) -> None:
        """Forget a sequence; one that is unknown or already finished is no error."""
        sequence = self._scheduler.find(sequence_id)
        if sequence is not None:
            self._scheduler.remove(sequence)

    def fail_all(self, error: str) -> list[Output]:
        """End every sequence with an error, after a step that broke."""
        outputs = []
        for sequence in self._scheduler.sequences:
            self._scheduler.remove(sequence)
            outputs.append(Output(sequence.sequence_id, finish_reason="error", error=error))
        return outputs

    def step(self) -> list[Output]:
        """Move every scheduled sequence by its chunk; the news of it."""
        chunks = self._scheduler.schedule()
        if not chunks:
            return []
        logits = self._runner.run(chunks)
        for chunk, rows in zip(chunks, logits, strict=True):
            _score_prompt(chunk, rows)
        drawn = self._draw(chunks, logits)
        complete = [chunk.sequence for chunk in chunks if chunk.completes]
        return [self._publish(sequence, drawn.get(id(sequence))) for sequence in complete]

    def _draw(self, chunks: list[Chunk], logits: list[Tensor]) -> dict[int, TokenLogprob]:
        """The next token of each sequence that is ready for one, drawn from the last row of its chunk."""
        ready = [
            (chunk.sequence, rows[-1])
            for chunk, rows in zip(chunks, logits, strict=True)
            if chunk.completes and chunk.sequence.wants_token
        ]
        if not ready:
            return {}
        sequences, rows = zip(*ready, strict=True)
        tokens = draw_tokens(torch.stack(rows), sequences)
        return {id(sequence): token for sequence, token in zip(sequences, tokens, strict=True)}

    def _publish(self, sequence: Sequence, token: TokenLogprob | None) -> Output:
        prompt_logprobs = None
        if sequence.finished_prompt_logprobs and sequence.generated == 0:
            prompt_logprobs = sequence.prompt_logprobs
        if token is not None:
            sequence.append(token.token_id)
        reason, stop_token = self._finish(sequence, token)
        if reason is not None:
            self._scheduler.remove(sequence)
        return Output(
            sequence.sequence_id,
            tokens=[token] if token else [],
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
        return ("length" if not sequence.wants_token else None), None


def _score_prompt(chunk: Chunk, logits: Tensor) -> None:
    """Look up the prompt tokens that the chunk's positions predict."""
    positions, sequence = scored_positions(chunk), chunk.sequence
    if positions and sequence.prompt_logprobs is not None:
        count = sequence.sampling.prompt_logprobs or 0
        scores = [Score(sequence.tokens[position + 1], count) for position in positions]
        sequence.prompt_logprobs.extend(look_up(logits[: len(scores)], scores))
