"""A sequence in flight, seen from the server: what the engine said of it so far, as text that is certain."""

from __future__ import annotations

import asyncio

from transom.backends.activity import Latencies
from transom.backends.text import StopText
from transom.backends.tokenizer import LocalTokenizer
from transom.engine.messages import Output, Submit
from transom.errors import TransomError
from transom.schema.generation import Delta, FinishReason, SequenceRequest


class Flight:
    """One sequence, from when it was taken to its end; it lives through the deaths of engines."""

    def __init__(self, request: SequenceRequest, tokenizer: LocalTokenizer, latencies: Latencies) -> None:
        self.request = request
        self.deaths = 0
        """Engines that died while it was with them."""
        self._outputs: asyncio.Queue[Output | TransomError] = asyncio.Queue()
        self._generated: list[int] = []
        self._tokenizer = tokenizer
        self._text = StopText(tokenizer.stream(request.prompt_token_ids), request.sampling.stop)
        self._latencies = latencies
        self._taken = self._newest = asyncio.get_running_loop().time()

    @property
    def sequence_id(self) -> str:
        """Name given by the service."""
        return self.request.sequence_id

    def submission(self) -> Submit:
        """What a new engine has to know to go on at the next token."""
        return Submit(self.request, tuple(self._generated))

    def receive(self, output: Output) -> None:
        """The engine has news."""
        if self.request.forced is None:
            self._observe(len(output.tokens), ended=output.finish_reason in {"stop", "length"})
        self._generated.extend(token.token_id for token in output.tokens)
        self._outputs.put_nowait(output)

    def fail(self, error: TransomError) -> None:
        """Nothing more will come, and this is why."""
        self._outputs.put_nowait(error)

    async def news(self) -> Delta:
        """The next delta; the last one has a finish reason.

        Raises:
            TransomError: what `fail` was told.
        """
        output = await self._outputs.get()
        if isinstance(output, TransomError):
            raise output
        return self._absorb(output)

    def _absorb(self, output: Output) -> Delta:
        """The output as text; a stop string makes it the last."""
        text, tokens = "", output.tokens
        for count, token in enumerate(output.tokens, 1):
            text += self._text.push(token.token_id)
            if self._text.stopped_by is not None:
                # There is more than one only where they were known; nothing would have come after this one.
                tokens = output.tokens[:count]
                break
        reason: FinishReason | None = output.finish_reason
        stop: str | int | None = output.stop_token
        if reason is not None:
            text += self._text.finish()
        if self._text.stopped_by is not None:
            reason, stop = "stop", self._text.stopped_by
        return Delta(
            tokens=tuple(tokens),
            token_texts=tuple(self._tokenizer.token_text(token.token_id) for token in tokens),
            text=text,
            prompt_logprobs=None if output.prompt_logprobs is None else tuple(output.prompt_logprobs),
            finish_reason=reason,
            stop_reason=stop,
            error=output.error,
            param=output.param,
        )

    def _observe(self, tokens: int, *, ended: bool) -> None:
        now = asyncio.get_running_loop().time()
        if tokens and not self._generated:
            self._latencies.first_token.observe(now - self._taken)
            tokens, self._newest = tokens - 1, now
        if tokens:
            self._latencies.between_tokens.observe((now - self._newest) / tokens, tokens)
            self._newest = now
        if ended:
            self._latencies.whole.observe(now - self._taken)
