"""One sequence inside the engine: its tokens, its pages, its scores, and how far the cache has got."""

from __future__ import annotations

from collections.abc import Iterable

from transom.engine.kernels.cache import PAGE
from transom.engine.pages import CachedPage, Link
from transom.engine.penalties import Penalties
from transom.internals.taps import Taps
from transom.schema.generation import SequenceRequest, TokenLogprob


class Sequence:
    """A prompt, what was generated after it, and which of its positions are in the cache.

    A position is *computed* once its keys and values are in the cache. The last token is never computed
    before the next one is wanted.

    What follows the prompt of a *forced* sequence is known beforehand, and is judged instead of generated.

    Args:
        request: what is asked.
        generated: tokens that it has from before, of an engine that died; of a forced one, those judged.
        taps: what is read and written inside.
    """

    def __init__(
        self, request: SequenceRequest, generated: tuple[int, ...] = (), taps: Taps | None = None
    ) -> None:
        self.request = request
        self.taps = taps
        """What is read and written inside, if anything."""
        self.sampling = request.sampling
        self.is_forced = request.forced is not None
        self.tokens = [*request.prompt_token_ids, *(generated if request.forced is None else request.forced)]
        self.prompt_length = len(request.prompt_token_ids)
        self.generated = len(generated)
        """Number of generated tokens, or of judged ones."""
        self._penalties = Penalties(request.sampling, generated)
        # A resumed sequence has sent its prompt logprobs before.
        wanted = request.sampling.scores_prompt and not generated
        self.prompt_logprobs: list[TokenLogprob | None] | None = [None] if wanted else None
        # Kept by the cache manager.
        self.computed = self.beginning
        self.pages: list[int] = []
        self.claimed = 0
        """Pages set aside for it and not yet given to it."""
        self.chain: list[int] = []
        """Serials of the registered pages that hold the same as its own full pages, page by page."""
        self.fresh: list[CachedPage] = []
        """Pages that it registered for the step about to run, or running."""
        self.settled = 0
        """Length of `chain` before that step."""
        self.took_hits = False
        """Whether it took over shared pages for that step."""
        # Kept by the scheduler.
        self.arrival = 0
        self.moved = 0
        """The step that last computed part of it."""
        self.generated_before = 0
        """Tokens that it had generated when it was admitted last."""
        # Scores: what it will find on the pages of others, and what it will leave on its own.
        self._borrowed: list[tuple[int, CachedPage]] = []
        self._promises: list[tuple[int, CachedPage]] = []

    @property
    def sequence_id(self) -> str:
        """Name given by the server."""
        return self.request.sequence_id

    @property
    def target(self) -> int:
        """How many positions must be computed before the next token can be drawn, or the last one judged."""
        if self.is_forced:
            return max(self.prompt_length, len(self.tokens) - 1)
        return len(self.tokens)

    @property
    def decodes(self) -> bool:
        """Whether all that is left to compute is the row of the token that was drawn last."""
        return self.target - self.computed == 1 and not self.is_forced

    @property
    def is_full(self) -> bool:
        """Whether it has as many tokens as it may."""
        return self.generated >= self.sampling.max_tokens

    @property
    def wants_token(self) -> bool:
        """Whether a token is to be drawn: not for a request that only scores what there is."""
        return not (self.is_forced or self.is_full)

    @property
    def finished_prompt_logprobs(self) -> bool:
        """Whether every prompt token has its logprob."""
        return self.prompt_logprobs is not None and len(self.prompt_logprobs) == self.prompt_length

    @property
    def wanted_scores(self) -> int | None:
        """How many most likely tokens the scores of its prompt are to list; None if it wants none now."""
        if self.prompt_logprobs is None or len(self.prompt_logprobs) == self.prompt_length:
            return None
        return self.sampling.prompt_logprobs or 0

    @property
    def shares_scores(self) -> bool:
        """Whether the scores of its prompt are like those of others: tokens, and the likeliest beside them.

        Measures and distributions are not kept on pages, where each k would be one more set of them.
        """
        return not (self.sampling.prompt_measures or self.sampling.prompt_distributions)

    @property
    def beginning(self) -> int:
        """The position that it computes first; what comes before is given to it."""
        return 0 if self.taps is None or self.taps.restart is None else self.taps.restart.position

    @property
    def borrowable(self) -> int:
        """How many of its pages, at most, may be those of others.

        A position that it reads or writes inside is its own to compute, and so is the one whose logits are
        wanted next.
        """
        last = self.prompt_length + self.generated - 1
        return (last if self.taps is None else min(last, self.taps.first_touched)) // PAGE

    @property
    def shareable(self) -> int:
        """Up to which position its keys and values are what anybody's are with the same tokens."""
        return len(self.tokens) if self.taps is None else min(len(self.tokens), self.taps.first_written)

    def append(self, token_id: int) -> None:
        """Take the next token: one that was generated, or judged."""
        if not self.is_forced:
            self.tokens.append(token_id)
            self._penalties.count(token_id)
        self.generated += 1

    def penalties_before(self, position: int) -> Penalties:
        """What is taken from the logits of the token at a position after the prompt."""
        if self.is_forced:
            self._penalties = self._penalties.after(self.tokens[self.prompt_length : position])
        return self._penalties

    def page_tokens(self, index: int) -> list[int]:
        """The tokens of its page `index`."""
        return self.tokens[index * PAGE : (index + 1) * PAGE]

    def link(self, index: int) -> Link:
        """What its page `index` hangs on."""
        # Prefixes are shared inside a project only: else the time to the first token would tell anybody who
        # guesses a prompt whether another project has asked it.
        return self.chain[index - 1] if index else self.request.project

    def borrow_scores(self, index: int, page: CachedPage) -> None:
        """Its page `index` is somebody's; so are the scores of that page's tokens.

        They may only be promised yet. They are read when this sequence records its own, and the chunk that
        brings them stands before this sequence's in the same step.
        """
        self._borrowed.append((index, page))

    def promise_scores(self, index: int, page: CachedPage) -> None:
        """Leave the scores of page `index` on a registered page of the same contents, once they are known.

        While scores are wanted nothing has been generated: a full page is a page of the prompt, but where
        what follows is known.
        """
        top = self.wanted_scores if (index + 1) * PAGE <= self.prompt_length else None
        if top is not None and self.shares_scores and not page.has_scores(top):
            page.promised = top
            self._promises.append((index, page))

    def record_scores(self, scores: list[TokenLogprob]) -> None:
        """Take the scores of the tokens after each of `scored_positions` of a chunk, in order.

        To be called once for each chunk of a step, in the order of the chunks.
        """
        if self.prompt_logprobs is None or not scores:
            return
        top = self.sampling.prompt_logprobs or 0
        for index, page in self._borrowed:
            known = len(self.prompt_logprobs) - index * PAGE
            self.prompt_logprobs.extend(_cut(page.scores[known:], top))
        self.prompt_logprobs.extend(scores)
        for index, page in self._promises:
            page.keep_scores(self.prompt_logprobs[index * PAGE : (index + 1) * PAGE], top)
        self._borrowed.clear()
        self._promises.clear()

    def forget_step(self) -> None:
        """The step has failed: no scores come of it, and those that were recorded will be recorded again."""
        self._break_promises()
        if self.prompt_logprobs is not None and not self.generated:
            self.prompt_logprobs = self.prompt_logprobs[: self.computed + 1]

    def rewind(self) -> None:
        """Forget the cache, as preemption does. Tokens and finished results stay."""
        self.computed, self.claimed, self.settled = self.beginning, 0, 0
        self.took_hits = False
        self.pages, self.chain, self.fresh = [], [], []
        self._borrowed.clear()
        self._break_promises()
        if self.wanted_scores is not None:
            self.prompt_logprobs = [None]

    def _break_promises(self) -> None:
        for _, page in self._promises:
            page.promised = -1
        self._promises.clear()


def _cut(scores: Iterable[TokenLogprob | None], top: int) -> Iterable[TokenLogprob | None]:
    """The same scores with only the first `top` most likely tokens: the list of fewer is a prefix of it."""
    return (
        TokenLogprob(score.token_id, score.logprob, score.rank, score.top[:top])
        if score is not None and len(score.top) > top
        else score
        for score in scores
    )
