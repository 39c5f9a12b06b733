"""Lies about the log: a record that is gone, one with an earlier time, and another log for somebody."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, Executable, delete, insert, select

from transom.app import open_database
from transom.client import Client
from transom.client.dating import misdated
from transom.client.observing.monitor_state import MonitorState
from transom.client.observing.server_watch import ServerWatch
from transom.config import Settings
from transom.schema.canonical import sha256
from transom.schema.record import rfc3339
from transom.storage.database import Database
from transom.storage.tables import records
from transom.tlog.checkpoints import Checkpoint
from transom.tlog.entries import Entry
from transom.tlog.files import LogFiles
from transom.tlog.notes import COSIGNATURE, Note, Signer
from transom.tlog.policies import Policy
from transom.tlog.submissions import Submission
from transom.tlog.witness import Refused, Witness
from transom.tlog.writer import LogWriter

Trial = Callable[[], bool]
"""Whether something was found."""

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
_LOG = Signer("log.example/1", Ed25519PrivateKey.from_private_bytes(b"l" * 32))
_WITNESSES = tuple(
    Signer(f"witness{n}.example", Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32), COSIGNATURE)
    for n in (1, 2)
)
_POLICY = Policy.parse(
    f"log {_LOG.verifier}\nwitness a {_WITNESSES[0].verifier}\nwitness b {_WITNESSES[1].verifier}\n"
    "group both all a b\nquorum both\n"
)


def deleted(home: Path, client: Client, trials: int, *, lie: bool) -> Iterator[bool]:
    """A record is taken out of the database; its owner looks at the numbers, and remembers none."""
    database = open_database(Settings(home=home))
    try:
        generator = random.Random(1)
        ids = database.read_sync(lambda connection: list(connection.execute(select(records.c.id)).scalars()))
        for _ in range(trials):
            with _without(database, generator.choice(ids) if lie else None):
                yield _sees_gap(client)
    finally:
        database.close()


class _without:  # noqa: N801  # reads as what it does
    """A record is gone for as long as this lasts."""

    def __init__(self, database: Database, record_id: str | None) -> None:
        self._database = database
        self._own = records.c.id == record_id

    def __enter__(self) -> None:
        query = select(records).where(self._own)
        self._rows = self._database.read_sync(
            lambda connection: [dict(row) for row in connection.execute(query).mappings()]
        )
        gone = delete(records).where(self._own)
        self._database.write_sync(partial(_execute, statement=gone))

    def __exit__(self, *_: object) -> None:
        for row in self._rows:
            again = insert(records).values(row)
            self._database.write_sync(partial(_execute, statement=again))


def _execute(connection: Connection, statement: Executable) -> None:
    connection.execute(statement)


def _sees_gap(client: Client) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        state = MonitorState(Path(folder), str(_LOG.verifier))
        try:
            return any(
                alert.alert == "gap"
                for alert in ServerWatch(client, LogFiles(Path(folder), _LOG.verifier), state).records()
            )
        finally:
            state.close()


def back_dated(trials: int, *, lie: bool) -> Iterator[bool]:
    """A record says that it was answered two minutes to a month before it was logged."""
    generator = random.Random(2)
    for _ in range(trials):
        index = generator.randrange(1, 1 << 20)
        logged = NOON + timedelta(seconds=generator.uniform(0, 1e6))
        heads = [
            _cosigned(generator.randint(0, index), logged - timedelta(seconds=generator.uniform(0, 2))),
            _cosigned(
                index + generator.randint(1, 1000), logged + timedelta(seconds=generator.uniform(1, 5))
            ),
        ]
        earlier = timedelta(seconds=generator.uniform(120, 30 * 86400) if lie else generator.uniform(0, 2))
        yield any(misdated(rfc3339(logged - earlier), index, heads, _POLICY))


def _cosigned(size: int, at: datetime) -> tuple[Checkpoint, Note]:
    head = Checkpoint(_LOG.name, size, size.to_bytes(32, "big"))
    clock = at.timestamp
    signatures = (replace(witness, clock=clock).sign(head.text) for witness in _WITNESSES)
    return head, head.signed(_LOG).signed(*signatures)


def forked(trials: int, *, lie: bool) -> Iterator[bool]:
    """A log grows in another way for somebody; they ask a witness, which has seen it grow."""
    generator = random.Random(3)
    for trial in range(trials):
        with tempfile.TemporaryDirectory() as folder:
            yield _fork(Path(folder), trial, generator, lie=lie)


def _fork(folder: Path, trial: int, generator: random.Random, *, lie: bool) -> bool:
    before, shared = generator.randint(1, 300), generator.randint(0, 300)
    entries = [_entry(trial, place) for place in range(before)]
    other = [_entry(trial, place) if place < shared or not lie else _entry(-1, place) for place in range(400)]
    if lie and other[:before] == entries:
        other[before - 1] = _entry(-1, before - 1)
    with Witness(folder / "witness", _WITNESSES[0], lambda: [_LOG.verifier]) as witness:
        with LogWriter(folder / "shown", _LOG) as log:
            note = log.append(entries)
        first = witness.add_checkpoint(str(Submission(0, (), str(note))).encode())
        if isinstance(first, Refused):
            raise SystemExit(f"the witness refused an honest log: {first}")
        with LogWriter(folder / "other", _LOG) as log:
            note = log.append(other)
            proof = tuple(log.consistency(before, len(other)))
        second = witness.add_checkpoint(str(Submission(before, proof, str(note))).encode())
    return isinstance(second, Refused)


def _entry(trial: int, place: int) -> bytes:
    return Entry("record", sha256(f"{trial}/{place}".encode())).content
