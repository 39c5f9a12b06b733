"""A log that grows to a size: how fast, how long proofs take, and what it weighs."""

from __future__ import annotations

import random
import resource
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.load.figures import Figures, percentile
from benchmarks.public_log.evidence import entries, policy_of, signers
from transom.schema.merkle import leaf_hash
from transom.tlog.checkpoints import open_checkpoint
from transom.tlog.entries import Entry
from transom.tlog.files import LogFiles, check_files
from transom.tlog.policies import Policy
from transom.tlog.tree import root_of, verify_consistency, verify_inclusion
from transom.tlog.writer import LogWriter


class GrownLog:
    """A log in a folder, through the real writer: every file and folder is synced.

    Args:
        folder: where it lies.
        size: entries that it grows to.
        growth: entries of a checkpoint, on average; each has from 1 to twice as many.
        seed: of what is drawn.
    """

    def __init__(self, folder: Path, size: int, growth: int, seed: int) -> None:
        self.signer, self.witnesses = signers()
        self.files = LogFiles(folder, self.signer.verifier)
        self.size = size
        self._growth = growth
        self._chance = random.Random(seed)

    def grow(self) -> Figures:
        """Append; then let the witnesses cosign the newest checkpoint."""
        times, appended = [], 0
        with LogWriter(self.files.folder, self.signer) as writer:
            while writer.size < self.size:
                end = min(self.size, writer.size + self._chance.randint(1, 2 * self._growth))
                added = entries(writer.size, end)
                began = perf_counter()
                writer.append(added)
                times.append(perf_counter() - began)
                appended += len(added)
            _, note = open_checkpoint(writer.note() or b"", self.signer.verifier)
            writer.publish(note.signed(*(witness.sign(note.text) for witness in self.witnesses)))
        return {
            "append_entries_per_s": appended / sum(times),
            "growth_p50_ms": 1e3 * percentile(times, 50),
            "growth_p99_ms": 1e3 * percentile(times, 99),
            "growths": float(len(times)),
        }

    def prove_entries(self, times: int) -> Figures:
        """Prove and verify the inclusion of random entries, each with nothing read before."""
        head = self.files.checkpoint()
        proving, verifying, longest = [], [], 0
        for _ in range(times):
            index = self._chance.randrange(head.size)
            began = perf_counter()
            proof = self.files.inclusion(index, head.size)
            proven = perf_counter()
            verify_inclusion(proof, index, head.size, leaf_hash(entries(index, index + 1)[0]), head.root)
            verifying.append(perf_counter() - proven)
            proving.append(proven - began)
            longest = max(longest, len(proof))
        return {
            **_times("inclusion_proof", proving),
            **_times("inclusion_verification", verifying),
            "inclusion_hashes": float(longest),
            "inclusions": float(times),
        }

    def prove_growth(self, times: int) -> Figures:
        """The same for consistency between two random sizes."""
        size = self.files.checkpoint().size
        proving, verifying, longest = [], [], 0
        for _ in range(times):
            old, new = sorted(self._chance.randint(1, size) for _ in range(2))
            before, after = (root_of(self.files.hashes(each), each) for each in (old, new))
            began = perf_counter()
            proof = self.files.consistency(old, new)
            proven = perf_counter()
            verify_consistency(proof, old, new, before, after)
            verifying.append(perf_counter() - proven)
            proving.append(proven - began)
            longest = max(longest, len(proof))
        return {
            **_times("consistency_proof", proving),
            **_times("consistency_verification", verifying),
            "consistency_hashes": float(longest),
            "consistencies": float(times),
        }

    def check(self) -> Figures:
        """Check every file, and that each entry is one.

        Raises:
            ValueError: something is wrong.
        """
        began = perf_counter()
        found = list(check_files(self.files, lambda _, content: Entry.parse(content), policy=self.policy))
        if found:
            raise ValueError(f"the log is not whole: {found[:3]}")
        return {"check_s": perf_counter() - began}

    @property
    def policy(self) -> Policy:
        """The log and both witnesses must have signed."""
        return policy_of(self.signer, self.witnesses)

    def some_proofs(self, times: int) -> dict[str, list[list[Any]]]:
        """Proofs of random entries and sizes, for others to verify; hashes in hexadecimal."""
        size = self.files.checkpoint().size
        found: dict[str, list[list[Any]]] = {"inclusion": [], "consistency": []}
        for _ in range(times):
            index, (old, new) = self._chance.randrange(size), sorted(self._chance.sample(range(1, size), 2))
            found["inclusion"].append([index, [each.hex() for each in self.files.inclusion(index, size)]])
            roots = [root_of(self.files.hashes(each), each).hex() for each in (old, new)]
            proof = [each.hex() for each in self.files.consistency(old, new)]
            found["consistency"].append([old, new, *roots, proof])
        return found

    def weigh(self) -> Figures:
        """Bytes of the files, what they take on disk, and the most memory that this process had."""
        sizes = [path.stat() for path in _files(self.files.folder)]
        return {
            "files": float(len(sizes)),
            "bytes_per_entry": sum(each.st_size for each in sizes) / self.size,
            "disk_mib": sum(each.st_blocks for each in sizes) * 512 / (1 << 20),
            "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }


def _times(name: str, seconds: list[float]) -> Figures:
    return {f"{name}_p{percent}_us": 1e6 * percentile(seconds, percent) for percent in (50, 99)}


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())
