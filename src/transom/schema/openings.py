"""The private part of a record, and how the public part binds it.

A *claim* is a digest or commitment in the statement. Each claim is made from one part of the openings,
and everything in the openings is behind a claim: nothing private can be changed unnoticed.

    openings = {
      request:   {salt, json},                       the body, as JSON text
      messages:  {salt, json} | null,
      prompts:   [{salt, token_ids}],
      stop:           {salt, json} | null,           a list of texts
      stop_token_ids: {salt, token_ids} | null,
      logit_bias:     {salt, json} | null,           [[id, bias], …]
      writes:         {salt, json} | null,           [{at, pos, op, value, …}, …], a tensor as its digest
      sequences: [{token_ids: {salt, token_ids},
                   text: {salt, text},
                   logprobs: [x],                    of the generated tokens
                   top: [[[id, x], …]] | null,       most likely tokens, by position
                   prompt_logprobs: [[[id, x], …]] | null,   the actual token first; [] for the first
                   measures: [[x, …]] | null,        of the generated tokens, in the order of `Measures`
                   prompt_measures: [[x, …]] | null, [] for the first token
                   distributions: [[n, digest], …] | null,   place of a generated token, SHA-256 of its vector
                   prompt_distributions: [[n, digest], …] | null}],   place of a token of the prompt
      tensors:   {salt, json} | null,               [[name, type, shape, axes, digest], …], as read inside
      error:     {salt, text} | null,
    }

Null stands for what the request did not have. Records of version 1 lack `stop`, `stop_token_ids` and
`logit_bias`: there they stand in the statement. Those before version 3 lack measures and distributions, and
those before version 4 lack tensors, and those before version 5 lack writes.

Text is committed to as UTF-8, token ids as little-endian uint32. Logprobs are digested as little-endian
float32, the rest of the evidence as described at `ranked_bytes`, `measures_bytes` and `vectors_bytes`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from transom.schema.canonical import commit, digest, sha256, token_bytes
from transom.schema.record import (
    PREDICATE_TYPE,
    PREDICATE_TYPE_1,
    PREDICATE_TYPE_2,
    PREDICATE_TYPE_4,
    PREDICATE_TYPE_5,
)

Ranked: TypeAlias = "Sequence[Sequence[tuple[int, float]]]"
"""For each position some tokens with their logprobs."""

KINDS = {"json": "json", "text": "text", "token_ids": "token-ids"}
"""What an opening can hold, and the last part of its commitment's kind."""


def committed(what: str, opening: Mapping[str, Any]) -> str:
    """The commitment that `opening` opens.

    Args:
        what: its role, such as `prompt`; part of the kind, so that no commitment passes for another.
        opening: a salt in hexadecimal, and one of `json`, `text`, `token_ids`.

    Raises:
        KeyError, TypeError, ValueError, OverflowError: it is no opening.
    """
    (form,) = [name for name in opening if name != "salt"]
    value = opening[form]
    data = token_bytes(value) if form == "token_ids" else value.encode()
    return commit(f"{what}-{KINDS[form]}", bytes.fromhex(opening["salt"]), data)


def logprobs_digest(logprobs: Sequence[float]) -> str:
    """SHA-256 of logprobs as float32."""
    # struct and not numpy: what no float32 can hold is an error here, and not infinity and a warning.
    return sha256(struct.pack(f"<{len(logprobs)}f", *map(float, logprobs)))


def ranked_digest(ranked: Ranked) -> str:
    """SHA-256 of `ranked_bytes`."""
    return sha256(ranked_bytes(ranked))


def ranked_bytes(ranked: Ranked) -> bytes:
    """For each position: the number of tokens (uint32), their ids (uint32), their logprobs (float32)."""
    return b"".join(_position_bytes(pairs) for pairs in ranked)


def _position_bytes(pairs: Sequence[tuple[int, float]]) -> bytes:
    ids = [token_id for token_id, _ in pairs]
    logprobs = [float(value) for _, value in pairs]
    return struct.pack(f"<I{len(ids)}I{len(ids)}f", len(ids), *ids, *logprobs)


def measures_digest(measures: Sequence[Sequence[float]]) -> str:
    """SHA-256 of `measures_bytes`."""
    return sha256(measures_bytes(measures))


def measures_bytes(measures: Sequence[Sequence[float]]) -> bytes:
    """For each position: the number of measures (uint32), and their values (float64)."""
    return b"".join(struct.pack(f"<I{len(values)}d", len(values), *map(float, values)) for values in measures)


def vectors_digest(vectors: Sequence[tuple[int, str]]) -> str:
    """SHA-256 of `vectors_bytes`."""
    return sha256(vectors_bytes(vectors))


def vectors_bytes(vectors: Sequence[tuple[int, str]]) -> bytes:
    """For each vector: its position (uint32), and the SHA-256 of its logprobs as float32 (32 bytes).

    Raises:
        ValueError: one of the digests is none.
    """
    return b"".join(struct.pack("<I", position) + _hash(spelled) for position, spelled in vectors)


def _hash(spelled: str) -> bytes:
    found = bytes.fromhex(spelled.removeprefix("sha256:"))
    if len(found) != 32:
        raise ValueError(f"{spelled[:80]!r} is no SHA-256")
    return found


EVIDENCE_2: Mapping[str, Callable[[Any], str]] = {
    "logprobs": logprobs_digest,
    "top": ranked_digest,
    "prompt_logprobs": ranked_digest,
}
"""How each part of the evidence is digested, in records before version 3."""

EVIDENCE: Mapping[str, Callable[[Any], str]] = {
    **EVIDENCE_2,
    "measures": measures_digest,
    "prompt_measures": measures_digest,
    "distributions": vectors_digest,
    "prompt_distributions": vectors_digest,
}
"""The same in those since."""


@dataclass(frozen=True, slots=True)
class _Claim:
    name: str
    stated: object
    recompute: Callable[[], object]

    def holds(self) -> bool:
        try:
            return self.recompute() == self.stated
        except (KeyError, IndexError, TypeError, ValueError, OverflowError, AttributeError, struct.error):
            return False  # what cannot be read opens nothing


def verify_openings(statement: Mapping[str, Any], openings: Mapping[str, Any]) -> list[str]:
    """Names of the claims that `openings` does not bear out, such as `output[1].text`; empty when all hold.

    Needs nothing but the two: no server, no database, no model.

    Args:
        statement: a well-formed statement whose digest is already trusted.
        openings: what somebody says is behind it; may be anything.

    Raises:
        KeyError: the statement is not well-formed.
    """
    return [claim.name for claim in _claims(statement, openings) if not claim.holds()]


def _claims(statement: Mapping[str, Any], openings: Mapping[str, Any]) -> Iterator[_Claim]:
    predicate = statement["predicate"]
    request, output, error = predicate["request"], predicate["output"], predicate["error"]
    subject = statement["subject"][0]["digest"]["sha256"]
    yield _Claim("subject", f"sha256:{subject}", lambda: digest(output))
    yield _Claim("request.body", request["body"], lambda: committed("body", openings["request"]))
    yield _Claim("request.messages", request["messages"], lambda: _optional(openings["messages"], "messages"))
    yield _Claim("request.prompts", len(request["prompts"]), lambda: len(openings["prompts"]))
    for index, stated in enumerate(request["prompts"]):
        yield _Claim(f"request.prompts[{index}]", stated, _prompt(openings, index))
    if statement["predicateType"] != PREDICATE_TYPE_1:
        yield from _sampling_claims(request["sampling"], openings)
    yield _Claim("output", len(output), lambda: len(openings["sequences"]))
    digested = EVIDENCE_2 if statement["predicateType"] in (PREDICATE_TYPE_1, PREDICATE_TYPE_2) else EVIDENCE
    for index, (said, seen) in enumerate(zip(output, predicate["evidence"], strict=True)):
        yield from _sequence_claims(index, said, openings)
        for name, how in digested.items():
            yield _Claim(f"evidence[{index}].{name}", seen[name], _evidence(openings, index, name, how))
    if statement["predicateType"] in (PREDICATE_TYPE_5, PREDICATE_TYPE):
        yield _Claim("request.writes", request["writes"], lambda: _optional(openings["writes"], "writes"))
    if statement["predicateType"] in (PREDICATE_TYPE_4, PREDICATE_TYPE_5, PREDICATE_TYPE):
        yield _Claim("tensors", predicate["tensors"], lambda: _optional(openings["tensors"], "tensors"))
    yield _Claim("error", error and error["message"], lambda: _optional(openings["error"], "error"))


SAMPLING_KINDS = {"stop": "stop", "stop_token_ids": "stop", "logit_bias": "logit-bias"}
"""Sampling parameters that are private, and the first part of their commitment's kind."""


def _sampling_claims(sampling: Mapping[str, Any], openings: Mapping[str, Any]) -> Iterator[_Claim]:
    for name in SAMPLING_KINDS:
        yield _Claim(f"request.sampling.{name}", sampling[name], _parameter(openings, name))


def _parameter(openings: Mapping[str, Any], name: str) -> Callable[[], object]:
    return lambda: _optional(openings[name], SAMPLING_KINDS[name])


def _prompt(openings: Mapping[str, Any], index: int) -> Callable[[], object]:
    return lambda: committed("prompt", openings["prompts"][index])


def _optional(opening: Mapping[str, Any] | None, what: str) -> str | None:
    return None if opening is None else committed(what, opening)


def _evidence(
    openings: Mapping[str, Any], index: int, name: str, digested: Callable[[Any], str]
) -> Callable[[], object]:
    def recompute() -> str | None:
        value = openings["sequences"][index][name]
        return None if value is None else digested(value)

    return recompute


def _sequence_claims(index: int, said: Mapping[str, Any], openings: Mapping[str, Any]) -> Iterator[_Claim]:
    def opened(part: str) -> Any:  # noqa: ANN401
        return openings["sequences"][index][part]

    output = f"output[{index}]"
    yield _Claim(f"{output}.tokens", said["tokens"], lambda: len(opened("token_ids")["token_ids"]))
    yield _Claim(f"{output}.token_ids", said["token_ids"], lambda: committed("output", opened("token_ids")))
    yield _Claim(f"{output}.text", said["text"], lambda: committed("output", opened("text")))
