"""Somebody else's programs read our log: tiles, proofs and cosigned checkpoints.

    python benchmarks/public_log/strangers.py FOLDER LOG_KEY WITNESS_KEY… --ours PROOFS.json

Needs nothing of ours, and reads with whichever of `tlog-scales` and `aics-tlog` is installed. Prints what was
accepted, and ends with 1 where anything was not. They make their own proofs from our tiles, too; ours must be
the same.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def main(arguments: Sequence[str]) -> int:
    """Let each of the programs that are installed read the log."""
    parser = argparse.ArgumentParser(prog="strangers.py", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("keys", nargs="+")
    parser.add_argument("--ours", type=Path, required=True, help="proofs of ours")
    options = parser.parse_args(arguments)
    ours = json.loads(options.ours.read_text("utf-8"))
    for name, read in READERS.items():
        if importlib.util.find_spec(name) is None:
            print(f"{name}: not installed")
            continue
        print(f"{name}: accepted {read(options.folder, options.keys, ours)}")
    return 0


def with_tlog_scales(folder: Path, keys: Sequence[str], ours: dict[str, Any]) -> str:
    """By https://pypi.org/project/tlog-scales."""
    from tlog_scales.backend import LocalBackend  # noqa: PLC0415
    from tlog_scales.reader import TilesReader  # noqa: PLC0415
    from tlog_scales.signing import Vkey, VkeySet  # noqa: PLC0415
    from tlog_scales.tiles import leaf_hash  # noqa: PLC0415
    from tlog_scales.tlog import ConsistencyProof, InclusionProof  # noqa: PLC0415

    reader = TilesReader(LocalBackend(folder))
    head = reader.get_checkpoint()
    signed = VkeySet(*map(Vkey.from_string, keys)).verify(head.signatures, head)
    _need(len(list(signed)) == len(keys), "a signature of the checkpoint")
    _need(reader.calculate_root_hash() == head.root_hash, "the root")
    for index, said in ours["inclusion"]:
        proof = [bytes.fromhex(each) for each in said]
        InclusionProof(index, head.size, proof).check(leaf_hash(reader.get_entry(index)), head.root_hash)
        _need(reader.get_inclusion_proof(index, head.size).node_hashes == proof, f"the proof of {index}")
    for old, new, before, after, said in ours["consistency"]:
        proof = [bytes.fromhex(each) for each in said]
        ConsistencyProof(old, new, proof).check(bytes.fromhex(before), bytes.fromhex(after))
        _need(reader.get_consistency_proof(old, new).node_hashes == proof, f"the proof of {old} in {new}")
    return _told(ours, len(keys), "")


def with_aics_tlog(folder: Path, keys: Sequence[str], ours: dict[str, Any]) -> str:
    """By https://pypi.org/project/aics-tlog."""
    import aics_tlog as theirs  # noqa: PLC0415
    from aics_tlog.verified import audit_tiles  # noqa: PLC0415

    log, *witnesses = map(theirs.parse_vkey, keys)
    note = theirs.parse_note((folder / "checkpoint").read_bytes())
    result = theirs.verify_checkpoint(note, log, witnesses, quorum=len(witnesses), expected_origin=log.name)
    _need(result.ok, f"the checkpoint: {result}")
    head = theirs.parse_checkpoint(note.text)
    reader = theirs.FileSystemTileReader(folder)
    size, root = head.size, head.root
    report = audit_tiles(reader, size, root)
    _need(theirs.tree_root_from_tiles(reader, size) == root, "the root")
    for index, said in ours["inclusion"]:
        proof = [bytes.fromhex(each) for each in said]
        leaf = theirs.leaf_hash(theirs.read_entry(reader, index, size))
        _need(theirs.verify_inclusion(leaf, index, size, proof, root), f"the proof of {index}")
        _need(theirs.inclusion_proof_from_tiles(reader, index, size) == proof, f"the proof of {index}")
    for old, new, before, after, said in ours["consistency"]:
        proof, roots = [bytes.fromhex(each) for each in said], (bytes.fromhex(before), bytes.fromhex(after))
        _need(theirs.verify_consistency(old, new, *roots, proof), f"the proof of {old} in {new}")
        found = theirs.consistency_proof_from_tiles(reader, old, new, size)
        _need(found == proof, f"the proof of {old} in {new}")
    return _told(ours, len(keys), f", an audit of all tiles ({report})")


def _need(holds: object, what: str) -> None:
    if not holds:
        raise SystemExit(f"not accepted: {what}")


def _told(ours: dict[str, Any], keys: int, more: str) -> str:
    return (
        f"{keys} signatures of the checkpoint, the root, {len(ours['inclusion'])} proofs of inclusion and "
        f"{len(ours['consistency'])} of consistency, each equal to its own{more}"
    )


READERS: dict[str, Callable[[Path, Sequence[str], dict[str, Any]], str]] = {
    "tlog_scales": with_tlog_scales,
    "aics_tlog": with_aics_tlog,
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
