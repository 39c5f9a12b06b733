"""What is asked of a backend and what it answers, one sequence at a time.

A *sequence* is one prompt and one continuation. A request of several prompts, or with `n` above 1, is
several sequences; none of them knows of the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from transom.schema.changes import Changes
from transom.schema.measures import Measured, Measures

Priority = Literal["interactive", "batch"]
"""Batch work runs when nothing interactive waits."""

FinishReason = Literal["stop", "length", "abort", "error"]

MAX_TOP_LOGPROBS = 20
MAX_SEED = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How one token is drawn from the model's distribution, and when to stop.

    The filters apply in the order of the fields `top_k`, `top_p`, `min_p`, to the distribution after
    penalties, bias and temperature; ties are broken by the lower token id.
    """

    seed: int
    """64-bit; with the position and the token id it keys all noise."""
    max_tokens: int
    temperature: float = 1.0
    """0 is greedy."""
    top_k: int = 0
    """Keep the k most likely tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of most likely tokens whose probability reaches this."""
    min_p: float = 0.0
    """Drop tokens less likely than this fraction of the most likely one."""
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    """(token id, bias added to its logit), sorted by token id."""
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    """How many of the most likely tokens to report with each generated one; None reports none."""
    prompt_logprobs: int | None = None
    """The same for each prompt token."""
    measures: Measures | None = None
    """What to measure with each generated token; None measures nothing."""
    prompt_measures: Measures | None = None
    """The same for each prompt token; `kl` is none of them, for nothing was drawn there."""
    distributions: tuple[int, ...] = ()
    """Generated tokens, counted from 0, whose whole distribution to report; rising."""
    prompt_distributions: tuple[int, ...] = ()
    """The same of the prompt's tokens. Nothing predicts the first one, so 0 is none of them."""

    @property
    def describes_tokens(self) -> bool:
        """Whether anything of the whole vocabulary is wanted with generated tokens."""
        return bool(self.measures or self.distributions)

    @property
    def scores_prompt(self) -> bool:
        """Whether anything is wanted of how the model predicts its prompt."""
        return bool(self.prompt_logprobs is not None or self.prompt_measures or self.prompt_distributions)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the sampler would have done where a token was known beforehand."""

    token_id: int
    """The token that it would have drawn there."""
    margin: float
    """How far the known token was from being drawn, in logits, as float32: 0 where it would have been,
    infinite where a filter had removed it.

    The highest of (logit + temperature x noise) less that of the known token, the logits being those after
    penalties and bias: Token-DiFR's score (Karvonen and others, "DiFR: Inference Verification Despite
    Nondeterminism", arXiv 2511.20621). At temperature 0 it is the difference of two logits.
    """


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token as the raw model distribution sees it (before penalties, bias, temperature, filters)."""

    token_id: int
    logprob: float
    """float32 log-softmax, exact as a float64."""
    rank: int
    """1 is the most likely token; ties count the lower token id first."""
    top: tuple[tuple[int, float], ...] = ()
    """The most likely tokens and their logprobs, best first."""
    measured: Measured | None = None
    distribution: bytes | None = None
    """Logprobs of the whole vocabulary by token id, as little-endian float32."""
    verdict: Verdict | None = None
    """Of a token that was forced; None for one that was drawn, or of a prompt."""

    @property
    def drawn(self) -> int:
        """The token that the sampler draws in this place."""
        return self.token_id if self.verdict is None else self.verdict.token_id

    def values(self, measures: Measures) -> list[float]:
        """What was asked for of it, in the order of `Measures.names`."""
        found = {"rank": self.rank, "surprisal": 0.0 - self.logprob}
        return [found[name] if name in found else getattr(self.measured, name) for name in measures.names]


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceRequest:
    """One prompt to continue."""

    sequence_id: str
    prompt_token_ids: tuple[int, ...]
    sampling: SamplingParams
    changes: Changes | None = None
    """What is written inside while it is computed."""
    forced: tuple[int, ...] | None = None
    """What follows the prompt, where that is known (teacher forcing). Nothing is generated then: all
    positions are computed as those of a prompt are, and each of these tokens comes as if it had been drawn,
    with a verdict. It ends where generating would have ended; with "abort" where these tokens end before."""
    choice: int = 0
    """Which of `n` draws this is; part of the key of the noise, so that choices differ under one seed."""
    project: str = ""
    """Whose turn it takes when the engine is shared, and whose cached prefixes it may use. Like `priority`,
    it decides when the answer comes and never what it is."""
    priority: Priority = "interactive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """What became known of a sequence since the last delta. The last one has a finish reason."""

    tokens: tuple[TokenLogprob, ...] = ()
    token_texts: tuple[str, ...] = ()
    """Spelling of each token on its own, special tokens included."""
    text: str = ""
    """Text that is certain now; held back while it could be the beginning of a stop string."""
    prompt_logprobs: tuple[TokenLogprob | None, ...] | None = None
    """Sent once, before the first token; None for the first prompt token, which nothing predicts."""
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    """The stop string or stop token that ended the sequence; None for end-of-sequence."""
    error: str | None = None
    param: str | None = None
    """The field of the request that the error is about; None where it is nobody's doing."""


@dataclass(slots=True)
class SequenceResult:
    """A whole sequence: the sum of its deltas."""

    tokens: list[TokenLogprob] = field(default_factory=list)
    token_texts: list[str] = field(default_factory=list)
    text: str = ""
    prompt_logprobs: tuple[TokenLogprob | None, ...] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    error: str | None = None
    param: str | None = None

    def add(self, delta: Delta) -> None:
        """Take one delta in."""
        self.tokens.extend(delta.tokens)
        self.token_texts.extend(delta.token_texts)
        self.text += delta.text
        if delta.prompt_logprobs is not None:
            self.prompt_logprobs = delta.prompt_logprobs
        self.finish_reason = delta.finish_reason or self.finish_reason
        self.stop_reason = delta.stop_reason if delta.stop_reason is not None else self.stop_reason
        self.error = delta.error or self.error
        self.param = delta.param or self.param

    @property
    def token_ids(self) -> list[int]:
        """Generated token ids, a final end-of-sequence token included."""
        return [token.token_id for token in self.tokens]

    @property
    def mean_logprob(self) -> float:
        """Mean logprob of a generated token, the order of `best_of`; 0 where nothing was generated."""
        return sum(token.logprob for token in self.tokens) / len(self.tokens) if self.tokens else 0.0
