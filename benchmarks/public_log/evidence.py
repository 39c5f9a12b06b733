"""A record of the real store in a cosigned log, and all that its owner has of it, in files."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import insert

from transom.client.offline import Trust, read_evidence, verify_evidence
from transom.errors import InvalidRequest
from transom.records.identifiers import new_record_id
from transom.records.signing import SigningKeyFile
from transom.records.store import RecordStore
from transom.schema.envelopes import PublicKeys
from transom.schema.generation import SamplingParams, SequenceResult, TokenLogprob
from transom.schema.measures import Measured, Measures
from transom.schema.record import Answer
from transom.storage.database import Database
from transom.storage.master_keys import MasterKeys
from transom.storage.migrate import migrate
from transom.storage.tables import projects
from transom.storage.vault import Vault
from transom.tlog.checkpoints import open_checkpoint
from transom.tlog.entries import Entry
from transom.tlog.files import LogFiles, check_files
from transom.tlog.notes import COSIGNATURE, Signer
from transom.tlog.policies import Policy
from transom.tlog.proofs import Proof
from transom.tlog.publishing import Publisher
from transom.tlog.sequencing import add_entries
from transom.tlog.writer import LogWriter

_PROJECT = "measured"


def entries(start: int, end: int) -> list[bytes]:
    """Entries as records have them."""
    return [
        Entry("record", f"sha256:{hashlib.sha256(b'%d' % n).hexdigest()}").content for n in range(start, end)
    ]


def signers() -> tuple[Signer, tuple[Signer, ...]]:
    """A log and two witnesses."""
    log = Signer("log.example/measured", Ed25519PrivateKey.generate())
    names = ("witness.example/one", "witness.example/two")
    return log, tuple(Signer(name, Ed25519PrivateKey.generate(), COSIGNATURE) for name in names)


def policy_of(log: Signer, witnesses: tuple[Signer, ...]) -> Policy:
    """All of them must have signed."""
    lines = [f"witness w{index} {each.verifier}" for index, each in enumerate(witnesses)]
    names = " ".join(f"w{index}" for index in range(len(witnesses)))
    return Policy.parse(
        "\n".join([f"log {log.verifier}", *lines, f"group all-of-them all {names}", "quorum all-of-them"])
    )


@dataclass(frozen=True, slots=True)
class Evidence:
    """Files in a folder, and whom to trust."""

    folder: Path
    trust: Trust
    policy: Policy
    log: LogFiles

    @property
    def record(self) -> Path:
        """As `transom record show --json` prints it."""
        return self.folder / "answer.json"

    @property
    def receipt(self) -> Path:
        """As `transom receipt` prints it."""
        return self.folder / "answer.tlog-proof"

    def faults(self, changed: Path) -> Iterator[str]:
        """What verification says of the file that was changed, and of what belongs to it."""
        if changed in {self.record, self.receipt}:
            try:
                for finding in verify_evidence(read_evidence([self.record, self.receipt]), self.trust):
                    yield from finding.faults
            except InvalidRequest as error:
                yield error.message
        else:
            yield from check_files(self.log, policy=self.policy)


def make_evidence(folder: Path, size: int) -> Evidence:
    """Put a record somewhere into a log of `size` entries, cosigned by two witnesses."""
    log, witnesses = signers()
    keys = SigningKeyFile(folder / "signing.json")
    database = Database(f"sqlite:///{folder}/made.db")
    try:
        migrate(database)
        row = {"id": _PROJECT, "name": _PROJECT, "created": datetime.now(UTC), "last_sequence": 0}
        database.write_sync(lambda connection: connection.execute(insert(projects), [row]) and None)
        database.write_sync(lambda connection: add_entries(connection, entries(0, size // 3)))
        stored = asyncio.run(RecordStore(database, Vault(_MasterKeys()), keys.at).append(_answer()))
        database.write_sync(lambda connection: add_entries(connection, entries(size // 3, size - 1)))
        with LogWriter(folder / "log", log) as writer:
            publisher = Publisher(database, writer)
            while publisher.publish() is not None:
                pass
            _, note = open_checkpoint(writer.note() or b"", log.verifier)
            note = note.signed(*(witness.sign(note.text) for witness in witnesses))
            writer.publish(note)
            hashes = tuple(writer.inclusion(stored.log_index, size))
    finally:
        database.close()
    policy = policy_of(log, witnesses)
    public = PublicKeys(log=str(log.verifier), records=keys.public())
    found = Evidence(folder, Trust(public, policy), policy, LogFiles(folder / "log", log.verifier))
    found.record.write_text(stored.view().model_dump_json() + "\n", "utf-8")
    found.receipt.write_text(str(Proof(stored.log_index, hashes, str(note))), "utf-8")
    return found


class _MasterKeys:
    """Keys of a vault that is gone with the measurement."""

    place = "this process"

    def __init__(self) -> None:
        self.keys = MasterKeys.generate()

    def load(self) -> MasterKeys:
        """See `MasterKeySource`."""
        return self.keys

    def create(self) -> None:
        """See `MasterKeySource`."""

    def store(self, keys: MasterKeys) -> None:
        """See `MasterKeySource`."""
        self.keys = keys


def _answer() -> Answer:
    """An answer with something in each part of its evidence."""
    now = datetime.now(UTC)
    measured = Measured(entropy=1.2345678901234567, top_k_mass=1e-07)
    first = TokenLogprob(
        7, -0.10000000149011612, 1, ((7, -0.10000000149011612), (9, float("-inf"))), measured, b"\0\0\0\xbf"
    )
    tokens = [
        first,
        TokenLogprob(2, -2.25, 3, ((5, -1.100000023841858), (4, -1.401298464324817e-45)), measured),
    ]
    question = {"role": "user", "content": "Welche Farbe hat der Himmel? \U0001f600"}
    return Answer(
        record_id=new_record_id(),
        project_id=_PROJECT,
        key_id=None,
        model="measured",
        deployment="sha256:" + "cd" * 32,
        endpoint="/v1/chat/completions",
        received=now,
        answered=now,
        status="complete",
        request={"messages": [question], "temperature": 0.7, "seed": 7},
        messages=[question],
        prompts=[(1, 2, 3)],
        sampling=SamplingParams(
            seed=7,
            max_tokens=2,
            temperature=0.7,
            logprobs=2,
            stop=("\u00fc\n",),
            stop_token_ids=(5,),
            logit_bias=((3, 1e-05),),
            measures=Measures(entropy=True, top_k_mass=10),
            distributions=(0,),
        ),
        seed_source="explicit",
        n=1,
        sequences=[(0, 0, SequenceResult(tokens=tokens, text="Blau.\n", finish_reason="length"))],
        writes=[{"at": "z.0", "pos": "all", "op": "zero"}],
    )
