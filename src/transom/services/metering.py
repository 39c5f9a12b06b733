"""May they, and how much: asked before work begins, and settled in the transaction of its record."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from transom.access.keys.callers import Caller
from transom.access.quotas import VECTOR, Amounts, Reservation, Settlement, Standing
from transom.backends.base import Backend
from transom.schema.generation import SamplingParams, SequenceResult
from transom.schema.measures import Measures
from transom.services.house import House

ENGINE_US_PER_TOKEN = 50_000
"""Engine time that is held for each token. A request that takes longer is charged no more, and its row of the
ledger says so."""


class Metered(Protocol):
    """What a request asks of a model, in what is metered."""

    @property
    def backend(self) -> Backend:
        """Of the model."""
        ...

    @property
    def scopes(self) -> list[str]:
        """What it needs."""
        ...

    @property
    def demand(self) -> Amounts:
        """The most that it can use."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a request for tokens asks of a model."""

    backend: Backend
    prompts: Sequence[Sequence[int]]
    sampling: SamplingParams
    candidates: int
    """Sequences drawn from each prompt."""
    is_steered: bool = False
    """Whether anything is written inside."""
    judged: int = 0
    """Tokens at the end of the prompts of which it is told whether they would have been drawn."""

    @property
    def scopes(self) -> list[str]:
        """What it needs."""
        params, needed = self.sampling, []
        if params.max_tokens or self.judged or not params.scores_prompt:
            needed.append("model:sample")
        if params.logprobs is not None or params.measures:
            needed.append("model:logprobs")
        if params.prompt_logprobs is not None or params.prompt_measures:
            needed.append("model:score")
        if params.distributions or params.prompt_distributions:
            needed.append("model:distributions")
        if params.logit_bias:
            needed.append("model:bias")
        if self.is_steered:
            needed.append("internals:write")
        return needed

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts, each once."""
        return sum(map(len, self.prompts))

    @property
    def demand(self) -> Amounts:
        """The most that it can use."""
        sequences = len(self.prompts) * self.candidates
        generated = sequences * self.sampling.max_tokens
        tokens = self.prompt_tokens + generated
        return Amounts(
            tokens=tokens,
            engine_us=ENGINE_US_PER_TOKEN * tokens,
            released_rank=self._released(
                generated, sequences * len(self.sampling.distributions), len(self.prompts)
            ),
        )

    def numbers_told(self, prompt: Sequence[int]) -> int:
        """How many logits or logprobs are told of one sequence of a prompt, at most."""
        params, vocabulary = self.sampling, self.backend.tokenizer.vocab_size
        whole = len(params.distributions) + len(params.prompt_distributions)
        of_prompt = len(prompt) * _numbers(params.prompt_logprobs, params.prompt_measures)
        return vocabulary * whole + of_prompt + params.max_tokens * _numbers(params.logprobs, params.measures)

    def used(self, results: Sequence[SequenceResult], seconds: float) -> Amounts:
        """What it used, as the serving tokenizer counts, however it ended."""
        generated = sum(len(result.tokens) for result in results)
        whole, prompts = 0, len(self.prompts)
        if self.sampling.distributions:
            whole = sum(token.distribution is not None for result in results for token in result.tokens)
        if self.sampling.prompt_distributions:
            known = enumerate(result.prompt_logprobs is not None for result in results)
            prompts = len({index // self.candidates for index, is_known in known if is_known})
        return Amounts(
            tokens=self.prompt_tokens + generated,
            engine_us=round(1e6 * seconds),
            released_rank=self._released(generated, whole, prompts),
        )

    def _released(self, generated: int, whole: int, prompts: int) -> int:
        """What is told about the output matrix, in millionths of vectors over the vocabulary.

        A distribution is a vector. Where a bias decides which token is drawn, its logprob is any logit that
        whoever asks would like to know, and enough such questions about one position read out its whole row
        of logits (Carlini and others, "Stealing Part of a Production Language Model", arXiv 2403.06634): each
        counts as a whole one. Other logprobs count as what they are, single numbers of a row. So does the
        margin of a judged token, which is the difference of two logits.

        Args:
            generated: tokens.
            whole: those of them that have a distribution.
            prompts: those whose distributions are told.
        """
        params = self.sampling
        of_token = _numbers(params.logprobs, params.measures)
        if params.logit_bias and (params.logprobs is not None or _steerable(params.measures)):
            vectors, numbers = generated, 0
        else:
            vectors, numbers = whole, generated * of_token
        if params.logit_bias:
            vectors += self.judged
        else:
            numbers += self.judged
        vectors += prompts * len(params.prompt_distributions)
        numbers += self.prompt_tokens * _numbers(params.prompt_logprobs, params.prompt_measures)
        return VECTOR * vectors - (-VECTOR * numbers // self.backend.tokenizer.vocab_size)


def _numbers(logprobs: int | None, measures: Measures | None) -> int:
    """How many numbers of a row of logits are told with each token."""
    if measures is None:
        return 0 if logprobs is None else 1 + logprobs
    alone = int(measures.surprisal) if logprobs is None else 1 + logprobs
    return alone + measures.numbers


def _steerable(measures: Measures | None) -> bool:
    """Whether a bias decides what they tell."""
    return measures is not None and (measures.surprisal or measures.kl)


@dataclass(slots=True)
class Meter:
    """What is held for one request, until it is settled."""

    reservation: Reservation
    standings: list[Standing]
    """The limits that it stands under and that come back with time, for whoever tells the client."""
    _began: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Since it was held."""
        return time.perf_counter() - self._began

    def settlement(self, used: Amounts) -> Settlement:
        """The charge for what was used; see `Settlement`."""
        return self.reservation.settlement(used)

    async def settle(self, used: Amounts) -> None:
        """Charge it without a record."""
        await self.reservation.settle(used)

    async def release(self) -> None:
        """Charge nothing: no work was done."""
        await self.reservation.release()


async def allow(house: House, caller: Caller, scope: str) -> None:
    """Pass a caller who has a scope.

    Raises:
        MissingScope: they have not.
    """
    (await house.entitlements.of(caller)).require(scope)


async def reserve(house: House, caller: Caller, work: Metered, request_id: str) -> Meter:
    """Hold what a request may use.

    Raises:
        TermsNotAccepted, Conflict: the caller may ask nothing new.
        MissingScope: the request needs a scope that the caller has not.
        Forbidden: the grant does not open the model.
        QuotaExceeded: a limit does not allow it; nothing is held.
        QuotaUnavailable: nobody can say whether one does; nothing is held.
    """
    caller.require_open()
    entitlement = await house.entitlements.of(caller)
    model = work.backend.served.name
    for scope in work.scopes:
        entitlement.require(scope)
    entitlement.require_model(model)
    allowance = entitlement.allowance(model, work.backend.hidden_size)
    reservation = await house.quotas.reserve(request_id, allowance.charged, allowance.limits, work.demand)
    return Meter(reservation, house.quotas.standing_now(allowance.charged, allowance.returning))
