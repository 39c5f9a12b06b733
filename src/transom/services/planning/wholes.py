"""Whether what is asked about the whole vocabulary can be answered whole, by the model at hand."""

from __future__ import annotations

from collections.abc import Sequence

from transom.backends.base import Backend
from transom.errors import InvalidRequest
from transom.schema.completions import CompletionRequest
from transom.schema.wire import SamplingBody

MAX_BYTES = 16 << 20
"""Most bytes of distributions in one answer; on the wire they are a third more."""


def check_wholes(
    backend: Backend, body: SamplingBody, prompts: Sequence[tuple[int, ...]], max_tokens: int, candidates: int
) -> None:
    """Pass a request all of whose positions exist, and whose distributions fit one answer.

    Raises:
        InvalidRequest: one does not, or they do not; names the field and what would.
    """
    _check_measures(body, backend.tokenizer.vocab_size)
    if not body.distributions and not body.prompt_distributions:
        return
    _check_positions(body, prompts, max_tokens)
    if isinstance(body, CompletionRequest) and body.best_of is not None and body.best_of > body.n:
        raise InvalidRequest(
            "Distributions are charged as they are made, and best_of above n leaves some out; ask for n.",
            param="best_of",
        )
    each = 4 * backend.tokenizer.vocab_size
    wanted = len(prompts) * candidates * (len(body.distributions) + len(body.prompt_distributions))
    if wanted * each > MAX_BYTES:
        raise InvalidRequest(
            f"{wanted} distributions of {each} bytes do not fit one answer; {MAX_BYTES // each} do. "
            "Ask for fewer at once.",
            param="distributions" if body.distributions else "prompt_distributions",
        )


def _check_measures(body: SamplingBody, vocabulary: int) -> None:
    for field, asked in (("measures", body.measures), ("prompt_measures", body.prompt_measures)):
        if asked is not None and (asked.top_k_mass or 0) > vocabulary:
            raise InvalidRequest(
                f"top_k_mass is {asked.top_k_mass}, and the vocabulary has {vocabulary}.",
                param=f"{field}.top_k_mass",
            )


def _check_positions(body: SamplingBody, prompts: Sequence[tuple[int, ...]], max_tokens: int) -> None:
    if body.distributions and body.distributions[-1] >= max_tokens:
        raise InvalidRequest(
            f"Position {body.distributions[-1]} is beyond the {max_tokens} tokens that are generated at "
            "most, counted from 0.",
            param="distributions",
        )
    asked = body.prompt_distributions
    if asked and asked[0] == 0:
        raise InvalidRequest(
            "Nothing predicts the first token of a prompt; ask for positions from 1.",
            param="prompt_distributions",
        )
    shortest = min(map(len, prompts))
    if asked and asked[-1] >= shortest:
        raise InvalidRequest(
            f"Position {asked[-1]} is beyond the prompt's {shortest} tokens; what follows the prompt is "
            "position 0 of `distributions`.",
            param="prompt_distributions",
        )
