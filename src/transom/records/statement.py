"""An answer as an in-toto Statement v1, in RFC 8785 canonical JSON without floats.

https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md

The statement holds commitments and digests in the place of prompts and answers, and of the parameters that
could tell what was asked: stop strings, stop tokens, logit biases and writes. Its subject is the
answer: the record's id, with the digest of the predicate's `output`.

Commitments are salted, because prompts and short texts could be guessed. Evidence is not, so that two
records of the same request can be seen to agree. The price: whoever is shown a statement, guesses the
whole request and may ask the same deployment can confirm the guess. So a statement, unlike its digest,
is for its owner to show.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from transom.schema.canonical import CanonicalJson, canonical_bytes, decimal, digest, sha256
from transom.schema.generation import SamplingParams, SequenceResult, TokenLogprob
from transom.schema.measures import Measures
from transom.schema.openings import EVIDENCE, SAMPLING_KINDS, committed
from transom.schema.program import TensorInfo
from transom.schema.record import PREDICATE_TYPE, STATEMENT_TYPE, Answer, rfc3339

SALT_BYTES = 32

_LINE = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Draft:
    """An answer's statement but for its sequence number, which only the database can give."""

    record_id: str
    project_id: str
    openings: bytes
    """JSON, see `transom.schema.openings`."""
    _before: bytes
    _after: bytes

    def statement(self, sequence: int) -> bytes:
        """Canonical bytes of the whole statement."""
        return b"%b%d%b" % (self._before, sequence, self._after)


def draft(answer: Answer) -> Draft:
    """Salt, commit and digest everything in `answer`.

    Raises:
        ValueError: a time has no zone, or an integer parameter is above 2^53 - 1.
        OverflowError: a token id is no uint32.
    """
    openings = _openings(answer, _salts(answer))
    unnumbered = _unnumbered(answer, _predicate(answer, openings))
    # Quotes are escaped within text, so this is nowhere but in the object of the project, where the number
    # is the last field.
    before, _, after = unnumbered.partition(b'"sequence":0}')
    return Draft(
        record_id=answer.record_id,
        project_id=answer.project_id,
        openings=orjson.dumps(openings),
        _before=before + b'"sequence":',
        _after=b"}" + after,
    )


def _unnumbered(answer: Answer, predicate: Mapping[str, CanonicalJson]) -> bytes:
    """Canonical bytes of the statement, with 0 for its number: only that is left to the writer thread."""
    subject = digest(predicate["output"]).removeprefix("sha256:")
    project: dict[str, CanonicalJson] = {"id": answer.project_id, "sequence": 0}
    return canonical_bytes(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": answer.record_id, "digest": {"sha256": subject}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": {**predicate, "project": project},
        }
    )


def _salts(answer: Answer) -> Iterator[str]:
    """As many salts as the openings of `answer` may need, in hexadecimal.

    Drawn at once: each draw is a call of the operating system, during which another thread may take over.
    """
    most = 8 + len(answer.prompts) + 2 * len(answer.sequences)
    drawn = secrets.token_bytes(SALT_BYTES * most).hex()
    return (drawn[start : start + 2 * SALT_BYTES] for start in range(0, len(drawn), 2 * SALT_BYTES))


def _openings(answer: Answer, salts: Iterator[str]) -> dict[str, Any]:
    def opening(form: str, value: object) -> dict[str, Any]:
        return {"salt": next(salts), form: value}

    params = answer.sampling
    stop_tokens = list(params.stop_token_ids)
    return {
        "request": opening("json", _json(answer.request)),
        "messages": None if answer.messages is None else opening("json", _json(answer.messages)),
        "prompts": [opening("token_ids", list(prompt)) for prompt in answer.prompts],
        "stop": opening("json", _json(params.stop)) if params.stop else None,
        "stop_token_ids": opening("token_ids", stop_tokens) if stop_tokens else None,
        "logit_bias": opening("json", _json(params.logit_bias)) if params.logit_bias else None,
        "writes": None if answer.writes is None else opening("json", _json(answer.writes)),
        "sequences": [
            {
                "token_ids": opening("token_ids", result.token_ids),
                "text": opening("text", _encodable(result.text)),
                **evidence_openings(params, result),
            }
            for _, _, result in answer.sequences
        ],
        "tensors": None if answer.tensors is None else opening("json", _json(manifest(answer.tensors))),
        "error": None if answer.error is None else opening("text", _encodable(answer.error.message)),
    }


def manifest(tensors: Sequence[TensorInfo]) -> list[list[Any]]:
    """[name, type, shape, axes, SHA-256] of each tensor. The numbers are kept by nobody but who asked."""
    return [[t.name, t.dtype, list(t.shape), list(t.axes), f"sha256:{t.sha256}"] for t in tensors]


def evidence_openings(params: SamplingParams, result: SequenceResult) -> dict[str, Any]:
    """What is behind each part of the evidence about one sequence; None for what was not asked for."""
    known = result.prompt_logprobs
    scored = None if params.prompt_logprobs is None else known
    found = {
        "logprobs": [_number(token.logprob) for token in result.tokens],
        "top": None if params.logprobs is None else [_ranked(token.top) for token in result.tokens],
        "prompt_logprobs": None if scored is None else [_actual_first(token) for token in scored],
        "measures": _measured(params.measures, result.tokens),
        "prompt_measures": None,
        "distributions": _digests(result.tokens) if params.distributions else None,
        "prompt_distributions": None,
    }
    if known is not None:
        found["prompt_measures"] = _measured(params.prompt_measures, known)
        found["prompt_distributions"] = _digests(known) if params.prompt_distributions else None
    return found


def _measured(
    measures: Measures | None, tokens: Sequence[TokenLogprob | None]
) -> list[list[float | str]] | None:
    if measures is None:
        return None
    return [[] if token is None else [_number(x) for x in token.values(measures)] for token in tokens]


def _digests(tokens: Sequence[TokenLogprob | None]) -> list[list[int | str]]:
    """(position, digest) of each distribution. The vectors themselves are kept by nobody but who asked."""
    return [
        [position, sha256(token.distribution)]
        for position, token in enumerate(tokens)
        if token is not None and token.distribution is not None
    ]


def _actual_first(token: TokenLogprob | None) -> list[Any]:
    return [] if token is None else _ranked([(token.token_id, token.logprob), *token.top])


def _ranked(pairs: Sequence[tuple[int, float]]) -> list[Any]:
    return [[token_id, _number(logprob)] for token_id, logprob in pairs]


def _number(value: float) -> float | str:
    """JSON has no infinity; `float` reads these strings back."""
    return value if math.isfinite(value) else repr(value)


def _json(value: object) -> str:
    """One line of ASCII: even a lone surrogate or an integer of any size survives it.

    One value may be spelled in two ways, as numbers are. What is committed to is the text that was kept, so
    nobody has to spell it again.
    """
    with suppress(orjson.JSONEncodeError):  # it cannot spell all that the other one can
        line = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        if line.isascii():
            return line.decode()
    return _LINE.encode(value)


def _encodable(text: str) -> str:
    """Text that UTF-8 can hold."""
    return text.encode("utf-8", "replace").decode()


def _predicate(answer: Answer, openings: Mapping[str, Any]) -> dict[str, CanonicalJson]:
    return {
        "record": answer.record_id,
        "model": answer.model,
        "deployment": answer.deployment,
        "time": {"received": rfc3339(answer.received), "answered": rfc3339(answer.answered)},
        "request": _request(answer, openings),
        "randomness": {
            "seed": str(answer.sampling.seed),
            "source": answer.seed_source,
            "joint": None if answer.joint is None else dict(answer.joint),
        },
        "output": [
            _output(*sequence, opening)
            for sequence, opening in zip(answer.sequences, openings["sequences"], strict=True)
        ],
        "evidence": [_evidence(opening) for opening in openings["sequences"]],
        "tensors": None if openings["tensors"] is None else committed("tensors", openings["tensors"]),
        "status": answer.status,
        "error": None
        if answer.error is None
        else {"code": answer.error.code, "message": committed("error", openings["error"])},
    }


def _request(answer: Answer, openings: Mapping[str, Any]) -> dict[str, CanonicalJson]:
    messages, writes = openings["messages"], openings["writes"]
    return {
        "endpoint": answer.endpoint,
        "n": answer.n,
        "sampling": _sampling(answer.sampling, openings),
        "body": committed("body", openings["request"]),
        "messages": None if messages is None else committed("messages", messages),
        "writes": None if writes is None else committed("writes", writes),
        "prompts": [committed("prompt", prompt) for prompt in openings["prompts"]],
    }


def _sampling(params: SamplingParams, openings: Mapping[str, Any]) -> dict[str, CanonicalJson]:
    """Every field but the seed, which stands under `randomness`."""
    private = {
        name: None if openings[name] is None else committed(kind, openings[name])
        for name, kind in SAMPLING_KINDS.items()
    }
    return {
        **private,
        "max_tokens": params.max_tokens,
        "temperature": decimal(params.temperature),
        "top_k": params.top_k,
        "top_p": decimal(params.top_p),
        "min_p": decimal(params.min_p),
        "frequency_penalty": decimal(params.frequency_penalty),
        "presence_penalty": decimal(params.presence_penalty),
        "ignore_eos": params.ignore_eos,
        "logprobs": params.logprobs,
        "prompt_logprobs": params.prompt_logprobs,
        "measures": None if params.measures is None else asdict(params.measures),
        "prompt_measures": None if params.prompt_measures is None else asdict(params.prompt_measures),
        "distributions": params.distributions,
        "prompt_distributions": params.prompt_distributions,
    }


def _output(
    prompt_index: int, choice: int, result: SequenceResult, opening: Mapping[str, Any]
) -> dict[str, CanonicalJson]:
    return {
        "prompt_index": prompt_index,
        "choice": choice,
        "tokens": len(result.tokens),
        "token_ids": committed("output", opening["token_ids"]),
        "text": committed("output", opening["text"]),
        "finish_reason": result.finish_reason,
    }


def _evidence(opening: Mapping[str, Any]) -> dict[str, CanonicalJson]:
    return {
        name: None if opening[name] is None else digested(opening[name])
        for name, digested in EVIDENCE.items()
    }
