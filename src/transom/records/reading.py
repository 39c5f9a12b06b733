"""Reading a statement back: the other direction of `transom.records.statement`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transom.schema.generation import SamplingParams
from transom.schema.measures import Measures
from transom.schema.openings import EVIDENCE, SAMPLING_KINDS
from transom.schema.record import PREDICATE_TYPE_1


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedSequence:
    """One sequence of a record, with its openings."""

    prompt_index: int
    choice: int
    finish_reason: str | None
    token_ids: list[int]
    text: str
    logprobs: list[float]
    evidence: dict[str, Any]
    """The other parts of the evidence by name, as the openings have them; None for what there is not."""

    @property
    def scored_prompt(self) -> bool:
        """Whether anything is known of how the model predicted the prompt."""
        return any(self.evidence[name] is not None for name in self.evidence if name.startswith("prompt_"))


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRequest:
    """What a replay needs of a record."""

    endpoint: str
    body: dict[str, Any]
    messages: list[dict[str, Any]] | None
    prompts: list[tuple[int, ...]]
    sampling: SamplingParams
    sequences: list[RecordedSequence]
    tensors: list[list[Any]] | None
    """[name, type, shape, axes, digest] of each tensor read inside; None where none was asked for."""
    writes: list[dict[str, Any]] | None
    """What was written inside every sequence, as it is on record; None where nothing was."""

    @property
    def generated(self) -> int:
        """Tokens of all sequences together."""
        return sum(len(sequence.token_ids) for sequence in self.sequences)


def read_request(statement: Mapping[str, Any], openings: Mapping[str, Any]) -> RecordedRequest:
    """What was asked and answered, from a statement and its openings (verified before)."""
    predicate = statement["predicate"]
    messages = openings["messages"]
    return RecordedRequest(
        endpoint=predicate["request"]["endpoint"],
        body=json.loads(openings["request"]["json"]),
        messages=None if messages is None else json.loads(messages["json"]),
        prompts=[tuple(prompt["token_ids"]) for prompt in openings["prompts"]],
        sampling=_sampling(statement, openings),
        # By the statement: in openings of earlier records, nothing would bind these two.
        tensors=None if predicate.get("tensors") is None else json.loads(openings["tensors"]["json"]),
        writes=None if predicate["request"].get("writes") is None else json.loads(openings["writes"]["json"]),
        sequences=[
            RecordedSequence(
                prompt_index=said["prompt_index"],
                choice=said["choice"],
                finish_reason=said["finish_reason"],
                token_ids=opened["token_ids"]["token_ids"],
                text=opened["text"]["text"],
                logprobs=[float(value) for value in opened["logprobs"]],
                # Records before version 3 have fewer parts.
                evidence={name: opened.get(name) for name in EVIDENCE if name != "logprobs"},
            )
            for said, opened in zip(predicate["output"], openings["sequences"], strict=True)
        ],
    )


def _sampling(statement: Mapping[str, Any], openings: Mapping[str, Any]) -> SamplingParams:
    predicate = statement["predicate"]
    said = predicate["request"]["sampling"]
    private = said if statement["predicateType"] == PREDICATE_TYPE_1 else _private_sampling(openings)
    return SamplingParams(
        seed=int(predicate["randomness"]["seed"]),
        max_tokens=said["max_tokens"],
        temperature=float(said["temperature"]),
        top_k=said["top_k"],
        top_p=float(said["top_p"]),
        min_p=float(said["min_p"]),
        frequency_penalty=float(said["frequency_penalty"]),
        presence_penalty=float(said["presence_penalty"]),
        logit_bias=tuple((token_id, float(bias)) for token_id, bias in private["logit_bias"]),
        stop=tuple(private["stop"]),
        stop_token_ids=tuple(private["stop_token_ids"]),
        ignore_eos=said["ignore_eos"],
        logprobs=said["logprobs"],
        prompt_logprobs=said["prompt_logprobs"],
        measures=_measures(said.get("measures")),
        prompt_measures=_measures(said.get("prompt_measures")),
        distributions=tuple(said.get("distributions", ())),
        prompt_distributions=tuple(said.get("prompt_distributions", ())),
    )


def _measures(said: Mapping[str, Any] | None) -> Measures | None:
    return None if said is None else Measures(**said)


def _private_sampling(openings: Mapping[str, Any]) -> dict[str, list[Any]]:
    stop, tokens, bias = (openings[name] for name in SAMPLING_KINDS)
    return {
        "stop": json.loads(stop["json"]) if stop else [],
        "stop_token_ids": tokens["token_ids"] if tokens else [],
        "logit_bias": json.loads(bias["json"]) if bias else [],
    }
