"""Driving an engine in this process, and the plain model beside it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from transom.engine.core import Engine
from transom.engine.loader import LoadedEngine, load
from transom.engine.messages import EngineOptions, Output
from transom.schema.generation import SamplingParams, SequenceRequest, TokenLogprob


@dataclass
class Result:
    tokens: list[TokenLogprob] = field(default_factory=list)
    prompt: list[TokenLogprob | None] | None = None
    finish: str | None = None
    error: str | None = None
    param: str | None = None

    def add(self, output: Output) -> None:
        self.tokens += output.tokens
        self.prompt = output.prompt_logprobs or self.prompt
        self.finish = output.finish_reason
        self.error = output.error
        self.param = output.param

    @property
    def ids(self) -> list[int]:
        return [token.token_id for token in self.tokens]


def load_tiny(root: Path, **options) -> LoadedEngine:
    return load(EngineOptions(**{"root": str(root), "cache_bytes": 16 << 20} | options))


def ask(
    name: str, prompt: Iterable[int], *, choice: int = 0, project: str = "", **sampling
) -> SequenceRequest:
    params = SamplingParams(**{"seed": 0, "max_tokens": 8, "ignore_eos": True} | sampling)
    return SequenceRequest(
        sequence_id=name, prompt_token_ids=tuple(prompt), sampling=params, choice=choice, project=project
    )


def forced(request: SequenceRequest, tokens: Iterable[int]) -> SequenceRequest:
    """The same request with what follows its prompt known beforehand."""
    return replace(request, forced=tuple(tokens))


def unjudged(result: Result) -> Result:
    """What came out of a forced sequence, but for the verdicts."""
    return replace(result, tokens=[replace(token, verdict=None) for token in result.tokens])


def run(engine: Engine, requests: Iterable[SequenceRequest]) -> dict[str, Result]:
    """Submit all requests at once and step until the engine is idle."""
    names = []
    for request in requests:
        engine.submit(request)
        names.append(request.sequence_id)
    results = collect(engine)
    return {name: results[name] for name in names}


def collect(engine: Engine) -> dict[str, Result]:
    """Step until the engine is idle."""
    results: dict[str, Result] = defaultdict(Result)
    while not engine.idle:
        for output in engine.step():
            results[output.sequence_id].add(output)
    return results


class PlainModel:
    """The model as transformers runs it: eager attention, one prompt at a time, no cache."""

    def __init__(self, root: Path) -> None:
        self._model = AutoModelForCausalLM.from_pretrained(
            root, dtype=torch.float32, attn_implementation="eager", local_files_only=True
        ).eval()

    def logprobs(self, ids: list[int]) -> torch.Tensor:
        """[tokens, vocabulary]"""
        with torch.inference_mode():
            logits = self._model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
        return torch.log_softmax(logits.float(), -1)

    def greedy(self, prompt: list[int], count: int) -> list[int]:
        ids = list(prompt)
        for _ in range(count):
            ids.append(int(self.logprobs(ids)[-1].argmax()))
        return ids[len(prompt) :]
