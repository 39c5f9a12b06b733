"""A server that answers the researcher's commands as it is told, and what they print to."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx2
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner, Result

from transom.cli import output, researcher
from transom.client import Client

DEPLOYMENT = "sha256:" + "ab" * 32
MODEL = {"id": "smol", "created": 7, "owned_by": "operator", "digest": DEPLOYMENT, "deployment": {}}


@dataclass
class Server:
    """Answers `METHOD /path` with what was laid out for it."""

    replies: dict[str, Callable[[], httpx2.Response]] = field(default_factory=dict)
    requests: list[httpx2.Request] = field(default_factory=list)

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        return self.replies[f"{request.method} {request.url.path}"]()

    def lay(self, request: str, body: Any, status: int = 200, **headers: str) -> None:
        self.replies[request] = lambda: httpx2.Response(status, json=body, headers=headers)

    def lay_stream(self, request: str, *events: bytes) -> None:
        headers = {"content-type": "text/event-stream"}
        self.replies[request] = lambda: httpx2.Response(200, content=b"".join(events), headers=headers)

    @property
    def asked(self) -> Any:
        return json.loads(self.requests[-1].content)


@pytest.fixture
def server(monkeypatch) -> Server:
    standin = Server()
    standin.lay("GET /v1/models", {"object": "list", "data": [MODEL | {"max_model_len": 8192}]})
    monkeypatch.setattr(researcher, "Client", partial(Client, transport=httpx2.MockTransport(standin)))
    for name in ("TRANSOM_BASE_URL", "TRANSOM_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return standin


@pytest.fixture(autouse=True)
def pipe(monkeypatch) -> None:
    """Neither stream is a terminal, whatever the environment says of colours."""
    attach(monkeypatch, force_terminal=False)


@pytest.fixture
def terminal(monkeypatch) -> None:
    """Both streams are terminals."""
    attach(monkeypatch, force_terminal=True, color_system="standard", width=100)


def attach(monkeypatch, **options: Any) -> None:
    made = partial(Console, highlight=False, markup=False, emoji=False, soft_wrap=True, **options)
    monkeypatch.setattr(output, "out", made())
    monkeypatch.setattr(output, "err", made(stderr=True))


def transom(*arguments: str) -> Result:
    app = typer.Typer()
    researcher.register(app)
    return CliRunner().invoke(app, arguments, catch_exceptions=False)
