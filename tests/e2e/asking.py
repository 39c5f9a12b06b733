"""Asking a server of the tiny model, in pieces: what came until now, and what comes after."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.server import Server

LONG = {
    "model": "tiny",
    "prompt": [[5 + 7 * i, 9, 40 + i] for i in range(4)],
    "max_tokens": 480,
    "seed": 3,
    "logprobs": 2,
    "ignore_eos": True,
}
"""Long enough to be caught in the middle."""


def whole(server: Server, **more: Any) -> dict[str, Any]:
    reply = httpx2.post(f"{server.url}/v1/completions", json=LONG | more, timeout=120)
    assert reply.status_code == 200, reply.text
    return reply.json()


class Stream:
    """A stream of `LONG`, and what was read of it."""

    def __init__(self, response: httpx2.Response) -> None:
        self.record = response.headers["x-transom-record"]
        self.tokens: list[list[str]] = [[] for _ in LONG["prompt"]]
        self.logprobs: list[list[float]] = [[] for _ in LONG["prompt"]]
        self.error: dict[str, Any] | None = None
        self.done = False
        self._lines = response.iter_lines()

    def read(self, tokens: int | None = None) -> Stream:
        """Read on, to the end or until the first choice has so many tokens."""
        for line in self._lines:
            self._take(line)
            if tokens is not None and len(self.tokens[0]) >= tokens:
                break
        return self

    def _take(self, line: str) -> None:
        if line == "data: [DONE]":
            self.done = True
        elif line.startswith("data: "):
            data = json.loads(line.removeprefix("data: "))
            self.error = data.get("error", self.error)
            for choice in data.get("choices", ()):
                if choice["logprobs"] is not None:
                    self.tokens[choice["index"]] += choice["logprobs"]["tokens"]
                    self.logprobs[choice["index"]] += choice["logprobs"]["token_logprobs"]

    def is_same_as(self, answer: dict[str, Any]) -> bool:
        """Whether it is, to the bit, what was answered in one piece."""
        told = [choice["logprobs"] for choice in answer["choices"]]
        return self.tokens == [each["tokens"] for each in told] and self.logprobs == [
            each["token_logprobs"] for each in told
        ]


@contextmanager
def streaming(server: Server, **more: Any) -> Iterator[Stream]:
    body = LONG | {"stream": True} | more
    url = f"{server.url}/v1/completions"
    with httpx2.stream("POST", url, json=body, timeout=120) as response:
        assert response.status_code == 200
        yield Stream(response)


def metric(server: Server, name: str, **labels: str) -> float:
    """One sample of the server's metrics."""
    text = httpx2.get(f"{server.url}/metrics", timeout=10).text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
    raise AssertionError(f"there is no {name}")
