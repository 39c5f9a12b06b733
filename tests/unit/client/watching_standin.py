"""An OpenAI-compatible API that is told what to take, what to refuse and how to differ."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2

MODEL = "some-model"
URL = "http://api.example/v1"

TOP = (("Yes", -0.5), ("No", -1.5), (" no", -3.25), ("\ufffd", -4.0), ("\ufffd", -5.0))


def refuse(status: int, message: str, code: str | None = None, **headers: str) -> httpx2.Response:
    body = {"error": {"message": message, "type": "error", "param": None, "code": code}}
    return httpx2.Response(status, json=body, headers=headers)


@dataclass
class Api:
    """Takes logprobs on both endpoints, unless it is told otherwise."""

    shift: float = 0.0
    said: str = "An owl."
    most: int = 20
    """Of logprobs."""
    silent: bool = False
    """Whether it leaves logprobs out without a word."""
    refuses: Callable[[str, dict[str, Any]], httpx2.Response | None] = lambda path, body: None
    fingerprint: str | None = "fp_1"
    asked: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    then: Callable[[int], httpx2.Response | None] = lambda number: None
    """What it answers to the request of that number, whatever it says."""

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path
        self.keys.append(request.headers.get("authorization"))
        if path == "/v1/models":
            return httpx2.Response(200, json={"object": "list", "data": [{"id": MODEL}, {"id": "other"}]})
        body = json.loads(request.content)
        self.asked.append(body)
        self.paths.append(path)
        return self.then(len(self.asked)) or self._refusal(path, body) or self._answer(path, body)

    def _refusal(self, path: str, body: dict[str, Any]) -> httpx2.Response | None:
        if body["model"] != MODEL:
            return refuse(404, f"The model `{body['model']}` does not exist", "model_not_found")
        wanted = body.get("top_logprobs", body.get("logprobs")) or 0
        if wanted > self.most:
            return refuse(400, f"logprobs: at most {self.most}" if self.most else "logprobs are not given")
        return self.refuses(path, body)

    def _answer(self, path: str, body: dict[str, Any]) -> httpx2.Response:
        chat = path == "/v1/chat/completions"
        choice: dict[str, Any] = {"message": {"content": self.said}} if chat else {"text": self.said}
        wanted = 0 if self.silent else body.get("top_logprobs", body.get("logprobs")) or 0
        if wanted:
            choice["logprobs"] = self._chat(wanted) if chat else self._completion(wanted)
        reply = {"model": MODEL, "choices": [choice], "usage": {"total_tokens": 7}}
        return httpx2.Response(200, json=reply | {"system_fingerprint": self.fingerprint})

    def _chat(self, wanted: int) -> dict[str, Any]:
        likely = [
            {"token": token, "logprob": value + self.shift, "bytes": [255 - place]}
            for place, (token, value) in enumerate(TOP[:wanted])
        ]
        # Some servers say of what cannot come that it has a logprob of none, or next to none.
        likely += [{"token": "never", "logprob": None}, {"token": "hardly", "logprob": -9999.0}]
        return {"content": [{"token": "Yes", "logprob": -0.5, "top_logprobs": likely}]}

    def _completion(self, wanted: int) -> dict[str, Any]:
        top = {token: value + self.shift for token, value in TOP[:wanted]}
        return {"tokens": ["Yes"], "top_logprobs": [top | {"drawn": -9.0}], "token_logprobs": [-0.5]}


def no_logprobs(path: str, body: dict[str, Any]) -> httpx2.Response | None:
    """Refuses whoever asks for them."""
    return refuse(400, "logprobs are not given here") if body.get("logprobs") else None
