"""A witness over HTTP: each status of https://c2sp.org/tlog-witness, and bodies that do not end."""

from __future__ import annotations

import asyncio

import httpx2
import pytest

from tests.unit.tlog.growing import LOG, OTHER, STRANGER, note, submission, witness_signer
from transom.api import witness as door
from transom.api.witness import create_witness
from transom.tlog.notes import Note
from transom.tlog.submissions import Submission, read_signatures
from transom.tlog.witness import Witness

pytestmark = pytest.mark.anyio


@pytest.fixture
def witness(tmp_path):
    with Witness(tmp_path, witness_signer(), lambda: [LOG.verifier]) as made:
        yield made


@pytest.fixture
async def client(witness):
    transport = httpx2.ASGITransport(create_witness(witness))
    async with httpx2.AsyncClient(transport=transport, base_url="http://witness") as made:
        yield made


async def send(client, content):
    return await client.post("/add-checkpoint", content=content)


async def test_a_log_that_grows_is_cosigned(client, witness):
    for old, new in [(0, 3), (3, 700)]:
        reply = await send(client, submission(old, new))
        assert reply.status_code == 200
        assert reply.text.startswith("— w.example/1 ")
        (signature,) = read_signatures(reply.content)
        witness.key.verify(Note.parse(note(new)).text, signature)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"old 0\n\nno note", 400),
        (submission(0, 3).replace(b"old 0", b"old 4"), 400),
        (submission(0, 3, signer=STRANGER), 403),
        (submission(0, 3, signer=OTHER), 404),
        (submission(0, 12), 409),
        (submission(10, 10, "forked"), 409),
        (submission(10, 12, "forked"), 422),
        (str(Submission(10, (), note(12))).encode(), 422),
        (b"x" * (1 << 16), 400),
        (b"x" * ((1 << 16) + 1), 413),
    ],
)
async def test_whatever_is_wrong_has_its_status(client, witness, content, status):
    assert (await send(client, submission(0, 10))).status_code == 200
    reply = await send(client, content)
    assert reply.status_code == status
    if status == 409:
        assert reply.headers["content-type"] == "text/x.tlog.size"
        assert reply.content == b"10\n"
    else:
        assert reply.headers["content-type"] == "text/plain; charset=utf-8"
        assert reply.text.endswith("\n")
        assert len(reply.text) > 20
    assert witness.newest(LOG.name).size == 10


async def test_there_is_nothing_else(client):
    assert (await client.get("/add-checkpoint")).status_code == 405
    for path in ("/", "/add-checkpoint/", "/docs"):
        assert (await client.post(path, content=b"")).status_code == 404


async def test_a_body_without_end_is_not_kept(client):
    sent = 0

    async def pieces():
        nonlocal sent
        while True:
            sent += 1
            yield b"x" * 4096

    assert (await send(client, pieces())).status_code == 413
    assert sent < 30


async def test_a_body_that_does_not_come_is_not_waited_for(client, monkeypatch):
    monkeypatch.setattr(door, "_BODY_SECONDS", 0.05)

    async def pieces():
        yield b"old 0\n"
        await asyncio.Event().wait()

    assert (await send(client, pieces())).status_code == 408


async def test_what_cannot_be_kept_is_not_cosigned_and_said_so(tmp_path):
    def step(name):
        raise OSError(28, "No space left on device")

    with Witness(tmp_path, witness_signer(), lambda: [LOG.verifier], step) as full:
        transport = httpx2.ASGITransport(create_witness(full))
        async with httpx2.AsyncClient(transport=transport, base_url="http://witness") as client:
            reply = await send(client, submission(0, 3))
    assert reply.status_code == 500
    assert "does not cosign" in reply.text
    assert "No space" not in reply.text
