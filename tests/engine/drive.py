"""Driving an engine in this process, and the plain model beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from transom.engine.core import Engine
from transom.engine.loader import LoadedEngine, load
from transom.engine.messages import EngineOptions
from transom.schema.generation import SamplingParams, SequenceRequest, TokenLogprob


@dataclass
class Result:
    tokens: list[TokenLogprob] = field(default_factory=list)
    prompt: list[TokenLogprob | None] | None = None
    finish: str | None = None

    @property
    def ids(self) -> list[int]:
        return [token.token_id for token in self.tokens]


def load_tiny(root: Path, **options) -> LoadedEngine:
    return load(EngineOptions(root=str(root), cache_bytes=16 << 20, **options))


def ask(name: str, prompt: Iterable[int], *, choice: int = 0, **sampling) -> SequenceRequest:
    params = SamplingParams(**{"seed": 0, "max_tokens": 8, "ignore_eos": True} | sampling)
    return SequenceRequest(sequence_id=name, prompt_token_ids=tuple(prompt), sampling=params, choice=choice)


def run(engine: Engine, requests: Iterable[SequenceRequest]) -> dict[str, Result]:
    """Submit all requests at once and step until the engine is idle."""
    results = {}
    for request in requests:
        engine.submit(request)
        results[request.sequence_id] = Result()
    while not engine.idle:
        for output in engine.step():
            result = results[output.sequence_id]
            result.tokens += output.tokens
            result.prompt = output.prompt_logprobs or result.prompt
            result.finish = output.finish_reason
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
