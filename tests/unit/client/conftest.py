from __future__ import annotations

import pytest

from transom import AsyncClient, Client


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=[Client, AsyncClient])
def kind(request) -> type[Client | AsyncClient]:
    """Either client: what one does the other does."""
    return request.param


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch) -> None:
    for name in ("TRANSOM_BASE_URL", "TRANSOM_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
