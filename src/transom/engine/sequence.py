"""One sequence inside the engine: its tokens, its pages, and how far the cache has got."""

from __future__ import annotations

from collections import Counter

from transom.engine.kernels.attention import PAGE
from transom.schema.generation import SequenceRequest, TokenLogprob


class Sequence:
    """A prompt, what was generated after it, and which of its positions are in the cache.

    A position is *computed* once its keys and values are in the cache. The last token is never computed
    before the next one is wanted.
    """

    def __init__(self, request: SequenceRequest, generated: tuple[int, ...] = ()) -> None:
        self.request = request
        self.sampling = request.sampling
        self.tokens = [*request.prompt_token_ids, *generated]
        self.prompt_length = len(request.prompt_token_ids)
        self.computed = 0
        self.pages: list[int] = []
        self.counts = Counter(generated)
        # A resumed sequence has sent its prompt logprobs before.
        wanted = request.sampling.prompt_logprobs is not None and not generated
        self.prompt_logprobs: list[TokenLogprob | None] | None = [None] if wanted else None

    @property
    def sequence_id(self) -> str:
        """Name given by the server."""
        return self.request.sequence_id

    @property
    def generated(self) -> int:
        """Number of generated tokens."""
        return len(self.tokens) - self.prompt_length

    @property
    def target(self) -> int:
        """How many positions must be computed before the next token can be drawn."""
        return len(self.tokens)

    @property
    def wants_token(self) -> bool:
        """False for a request that only scores its prompt (`max_tokens` 0)."""
        return self.generated < self.sampling.max_tokens

    @property
    def finished_prompt_logprobs(self) -> bool:
        """Whether every prompt token has its logprob."""
        return self.prompt_logprobs is not None and len(self.prompt_logprobs) == self.prompt_length

    def pages_for(self, positions: int) -> int:
        """How many more pages hold the first `positions` positions."""
        return max(0, -(-positions // PAGE) - len(self.pages))

    def append(self, token_id: int) -> None:
        """Take a generated token."""
        self.tokens.append(token_id)
        self.counts[token_id] += 1

    def rewind(self) -> list[int]:
        """Forget the cache, as preemption does; gives the pages back. Tokens and results stay."""
        pages, self.pages, self.computed = self.pages, [], 0
        if self.prompt_logprobs is not None and not self.finished_prompt_logprobs:
            self.prompt_logprobs = [None]
        return pages
