"""The file of a result is deleted once it was sent, or could not be."""

from __future__ import annotations

import pytest

from transom.api.traces import _Result

pytestmark = pytest.mark.anyio

SCOPE = {"type": "http", "method": "POST", "headers": [], "asgi": {"spec_version": "2.4"}}
LENGTH = 3 * _Result.chunk_size


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "rec.safetensors"
    path.write_bytes(b"x" * LENGTH)
    return path


async def receive():
    return {"type": "http.disconnect"}


async def test_it_is_sent_whole_and_then_gone(file):
    sent = []

    async def send(message):
        sent.append(message)

    await _Result(file)(SCOPE, receive, send)
    assert sum(len(message.get("body", b"")) for message in sent) == LENGTH
    assert not file.exists()


@pytest.mark.parametrize("after", [0, 1, 2])
async def test_it_is_gone_when_the_client_is(file, after):
    sent = []

    async def send(message):
        if len(sent) == after:
            raise OSError("nobody is there")
        sent.append(message)

    with pytest.raises(OSError, match="nobody"):
        await _Result(file)(SCOPE, receive, send)
    assert not file.exists()
