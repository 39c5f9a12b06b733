"""Asking a server many questions at once, as the one who answers and as the one who replays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from benchmarks.detecting.claims import Given, Messages, Question
from benchmarks.load.homes import serving_home
from transom.client import Client
from transom.schema.record import ReplayReport

AT_ONCE = 32
_PART = 256
"""Records that are replayed, or answers that are scored, in one request."""


class Asker:
    """A server, and what it is asked."""

    def __init__(self, client: Client, model: str, tokens: int) -> None:
        self.client = client
        self.model = model
        self._tokens = tokens

    @property
    def deployment(self) -> str:
        """Its digest."""
        return next(model.digest for model in self.client.models() if model.id == self.model)

    def answers(self, questions: Sequence[Question]) -> list[Given]:
        """Ask all of them."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(self._answer, questions))

    def _answer(self, question: Question) -> Given:
        reply = self.client.chat(
            question.messages,
            model=self.model,
            seed=question.seed,
            temperature=question.temperature,
            max_tokens=self._tokens,
            ignore_eos=True,
            logprobs=True,
            return_token_ids=True,
        )
        (choice,) = reply.choices
        scored = () if choice.logprobs is None else choice.logprobs.content
        logprobs = tuple(token.logprob for token in scored)
        return Given(choice.text, tuple(choice.token_ids or ()), logprobs)

    def ids(self, questions: Sequence[Question]) -> list[str]:
        """Ask all of them; the ids of the server's own records."""
        with ThreadPoolExecutor(AT_ONCE * 2) as pool:
            return list(pool.map(self._id, questions))

    def _id(self, question: Question) -> str:
        return self.client.chat(
            question.messages,
            model=self.model,
            seed=question.seed,
            temperature=question.temperature,
            max_tokens=self._tokens,
            ignore_eos=True,
        ).id

    def rendered(self, messages: Messages) -> tuple[int, ...]:
        """The prompt of a conversation."""
        return tuple(self.client.tokenize(messages, model=self.model).tokens)

    def scored(self, questions: Sequence[Question], given: Sequence[Given]) -> list[list[float]]:
        """Logprobs of answers, as this server's model sees them after these questions."""
        found: list[list[float]] = []
        for start in range(0, len(questions), _PART):
            pairs = zip(questions[start : start + _PART], given[start : start + _PART], strict=True)
            items = [
                {"messages": list(question.messages), "completion": list(answer.token_ids)}
                for question, answer in pairs
            ]
            scores = self.client.score(items, model=self.model)
            found += [[token.logprob for token in item.tokens] for item in scores.items]
        return found

    def replayed(self, ids: Sequence[str]) -> list[ReplayReport]:
        """Replay records."""
        reports: list[ReplayReport] = []
        for start in range(0, len(ids), _PART):
            reports += self.client.replay_all(ids[start : start + _PART])
        return reports


@contextmanager
def serving(home: Path, model: str, port: int, tokens: int) -> Iterator[Asker]:
    """Start a server over a home folder, and end it."""
    with serving_home(home, port, {}) as (address, key), Client(address, key, timeout=3600) as client:
        yield Asker(client, model, tokens)
