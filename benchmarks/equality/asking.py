"""Asks a server over HTTP: one request alone, and many in the middle of other people's."""

from __future__ import annotations

import base64
import itertools
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any, Self

import httpx2
import numpy as np
from safetensors.numpy import load

from benchmarks.equality.experiment import Experiment, Found

COMPANY = 8
"""Others who ask without a pause while experiments run."""

_TEXTS = (
    "The weather on the coast changes quickly, and",
    "Once upon a time there was a window above a door that",
    "1, 2, 3, 5, 8, 13,",
    "Dear Sir or Madam,\n\nI am writing to",
)


class Server:
    """A server of one model; to be used as a context.

    Args:
        url: of the server, without a path.
        key: with all scopes of the experiments.
        model: its name; the first that is served, where none is given.
    """

    def __init__(self, url: str, key: str | None, model: str | None = None) -> None:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._http = httpx2.Client(
            base_url=url, headers=headers, timeout=900, limits=httpx2.Limits(max_connections=64)
        )
        self.model = model or str(self._http.get("/v1/models").json()["data"][0]["id"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._http.close()

    def ask(self, path: str, body: dict[str, Any]) -> Found:
        """What one request answers, as arrays.

        Raises:
            OSError: it is refused.
        """
        response = self._http.post(path, json={"model": self.model} | body)
        if response.status_code != 200:
            raise OSError(f"{path}: {response.status_code} {response.text[:500]}")
        return dict(load(response.content)) if path == "/v1/traces" else _arrays(response.json())

    def answer(self, experiment: Experiment) -> Found:
        """What all requests of an experiment answer; names begin with the number of the request."""
        answers = [self.ask(*request) for request in experiment.requests]
        return {f"{i}.{name}": value for i, found in enumerate(answers) for name, value in found.items()}


def _arrays(reply: dict[str, Any]) -> Found:
    """Tokens, logprobs and distributions of the choices of a completion."""
    found: Found = {}
    for choice in reply["choices"]:
        index, logprobs = choice["index"], choice["logprobs"]
        found[f"{index}.tokens"] = np.asarray(choice["token_ids"], np.int64)
        found[f"{index}.logprobs"] = np.asarray(logprobs["token_logprobs"], np.float32)
        for name in ("distributions", "prompt_distributions"):
            rows = [np.frombuffer(base64.b64decode(each["b64"]), "<f4") for each in choice.get(name) or ()]
            if rows:
                found[f"{index}.{name}"] = np.stack(rows)
    return found


@dataclass(frozen=True, slots=True)
class Accompanied:
    """What an experiment answered, and how many others were under way meanwhile."""

    found: Found
    company: int


class Traffic:
    """Others, who generate and send plans one after the other until they are told to stop."""

    def __init__(self, server: Server, many: int = COMPANY) -> None:
        self._server = server
        self._many = many
        self._over = threading.Event()
        self._begun = threading.Barrier(many + 1)
        self.spans: list[tuple[float, float]] = []
        """When each of their requests began and ended."""

    @contextmanager
    def flowing(self) -> Iterator[None]:
        """Until the block ends; all have asked something when it begins."""
        with ThreadPoolExecutor(self._many) as pool:
            others = [pool.submit(self._ask_on, number) for number in range(self._many)]
            self._begun.wait()
            try:
                yield
            finally:
                self._over.set()
        for other in others:
            other.result()

    def _ask_on(self, number: int) -> None:
        self._begun.wait()
        for count in itertools.count():
            began = monotonic()
            self._server.ask(*_something(number, count))
            self.spans.append((began, monotonic()))
            if self._over.is_set():
                return


def in_traffic(server: Server, experiments: Sequence[Experiment]) -> list[Accompanied]:
    """All experiments at once, and others beside them."""
    traffic = Traffic(server)

    def ask(experiment: Experiment) -> tuple[Found, tuple[float, float]]:
        began = monotonic()
        return server.answer(experiment), (began, monotonic())

    with traffic.flowing(), ThreadPoolExecutor(len(experiments)) as pool:
        answers = list(pool.map(ask, experiments))
    # A request that another overlaps is in its company; an experiment is not in its own.
    spans = traffic.spans + [span for _, span in answers]
    return [
        Accompanied(found, sum(began < end and begin < ended for began, ended in spans) - 1)
        for found, (begin, end) in answers
    ]


def _something(number: int, count: int) -> tuple[str, dict[str, Any]]:
    """What one of the others asks: every second one generates, every second one sends plans."""
    text = _TEXTS[(number + count) % len(_TEXTS)]
    seed = 1000 * number + count
    if number % 2:
        body = {"prompt": text, "max_tokens": 24, "temperature": 1.0, "seed": seed, "ignore_eos": True}
        return "/v1/completions", body | {"logprobs": 1, "return_token_ids": True}
    write = [
        {"at": f"mlp_act.{seed % 30}", "op": "noise", "scale": 2.0},
        {"at": f"z.{(seed + 7) % 30}", "head": [seed % 9], "op": "zero"},
        {"at": f"resid_post.{(seed + 3) % 30}", "pos": 1, "op": "swap", "value": {"run": "a"}},
    ]
    lens = {"at": "resid_post.*", "pos": "last", "reduce": {"unembed": {"topk": 2}}}
    runs = {
        "a": {"input": text},
        "b": {"input": text, "write": write, "generate": {"max_tokens": 8}, "read": {"x": lens}},
    }
    return "/v1/traces", {"runs": runs, "return": ["b.x", "b.tokens"], "seed": seed}
