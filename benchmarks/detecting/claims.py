"""What an operator did, and what the record says of it: put into the database of an honest server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from transom.app import mailer_of, open_database, open_office
from transom.config import Settings
from transom.records.identifiers import new_record_id
from transom.records.store import RecordStore
from transom.schema.generation import SamplingParams, SequenceResult, TokenLogprob
from transom.schema.record import Answer

Messages = tuple[dict[str, str], ...]

SYSTEM = "You are a careful assistant who answers at length."
"""What the record says that the model was told."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a record claims to answer."""

    messages: Messages
    seed: int
    temperature: float = 1.0

    def body(self, model: str, tokens: int) -> dict[str, Any]:
        """The request."""
        return {
            "model": model,
            "messages": list(self.messages),
            "seed": self.seed,
            "temperature": self.temperature,
            "max_tokens": tokens,
            "ignore_eos": True,
        }


@dataclass(frozen=True, slots=True)
class Given:
    """What was answered."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Claim:
    """A question, and an answer that is said to be one to it."""

    question: Question
    prompt: tuple[int, ...]
    """The question's messages, as the model that is named renders them."""
    given: Given

    def under(self, logprobs: Sequence[float]) -> Claim:
        """The same with other logprobs: those that the model which is named would have computed."""
        return replace(self, given=replace(self.given, logprobs=tuple(logprobs)))


class Forger:
    """An operator who writes what they like into their own database, signed and logged as everything is.

    Args:
        home: of the server that is said to have answered.
        model: by its name.
        deployment: its digest.
    """

    def __init__(self, home: Path, model: str, deployment: str) -> None:
        self._settings = Settings(home=home)
        self._model = model
        self._deployment = deployment

    def record(self, claims: Sequence[Claim]) -> list[str]:
        """Make records of claims; their ids."""
        return asyncio.run(self._record(claims))

    async def _record(self, claims: Sequence[Claim]) -> list[str]:
        database = open_database(self._settings)
        try:
            office = open_office(self._settings, database, mailer_of(self._settings))
            return [await self._append(office.records, claim) for claim in claims]
        finally:
            await asyncio.to_thread(database.close)

    async def _append(self, store: RecordStore, claim: Claim) -> str:
        question, given, now = claim.question, claim.given, datetime.now(UTC)
        pairs = zip(given.token_ids, given.logprobs, strict=True)
        tokens = [TokenLogprob(token_id, logprob, 1) for token_id, logprob in pairs]
        answer = Answer(
            record_id=new_record_id(),
            project_id="local",
            key_id=None,
            model=self._model,
            deployment=self._deployment,
            endpoint="/v1/chat/completions",
            received=now,
            answered=now,
            status="complete",
            request=question.body(self._model, len(tokens)),
            messages=list(question.messages),
            prompts=[claim.prompt],
            sampling=SamplingParams(
                seed=question.seed,
                max_tokens=len(tokens),
                temperature=question.temperature,
                ignore_eos=True,
            ),
            seed_source="explicit",
            n=1,
            sequences=[(0, 0, SequenceResult(tokens=tokens, text=given.text, finish_reason="length"))],
        )
        return (await store.append(answer)).id
