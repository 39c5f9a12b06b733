"""Logs that grow in memory and on disk, with what their witnesses are sent."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from transom.schema.merkle import leaf_hash, node_hash, root
from transom.tlog.checkpoints import Checkpoint
from transom.tlog.notes import COSIGNATURE, Signer
from transom.tlog.submissions import Submission
from transom.tlog.tree import prove_consistency

LOG = Signer("log.example/one", Ed25519PrivateKey.from_private_bytes(b"l" * 32))
STRANGER = Signer("log.example/one", Ed25519PrivateKey.from_private_bytes(b"s" * 32))
OTHER = Signer("other.example", Ed25519PrivateKey.from_private_bytes(b"o" * 32))


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.5

    def __call__(self) -> float:
        return self.now


def witness_signer(name: str = "w.example/1", seed: int = 7, clock=None) -> Signer:
    return Signer(
        name, Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32), COSIGNATURE, clock or Clock()
    )


def entries(start: int, end: int, history: str = "") -> list[bytes]:
    """Entries of a log; those of another history differ from the first on."""
    return [f"entry {index} {history}".encode() for index in range(start, end)]


def hashes(history: str = ""):
    """Of complete subtrees over such entries; see `tree.Hashes`."""

    def at(height: int, index: int) -> bytes:
        if height == 0:
            return leaf_hash(entries(index, index + 1, history)[0])
        return node_hash(at(height - 1, 2 * index), at(height - 1, 2 * index + 1))

    return at


def note(size: int, history: str = "", signer: Signer = LOG) -> str:
    return str(Checkpoint(signer.name, size, root(entries(0, size, history))).signed(signer))


def submission(old: int, new: int, history: str = "", signer: Signer = LOG) -> bytes:
    proof = prove_consistency(hashes(history), old, new)
    return str(Submission(old, tuple(proof), note(new, history, signer))).encode()
