"""A log on disk: as it grows, as others read it, and whatever breaks while it does."""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tlog_scales.backend import LocalBackend
from tlog_scales.reader import TilesReader
from tlog_scales.signing import Vkey, VkeySet

from transom.errors import LogBroken, NotVerified
from transom.schema.merkle import leaf_hash, root
from transom.tlog.checkpoints import open_checkpoint
from transom.tlog.files import LogFiles, check_files
from transom.tlog.notes import COSIGNATURE, Signer
from transom.tlog.proofs import Proof
from transom.tlog.tiles import Tile, tile_at, tiles_between
from transom.tlog.tree import root_of, verify_consistency, verify_inclusion
from transom.tlog.writer import LogWriter

LOG = Signer("log.example/one", Ed25519PrivateKey.from_private_bytes(b"l" * 32))
WITNESS = Signer("w.example", Ed25519PrivateKey.from_private_bytes(b"w" * 32), COSIGNATURE)


def entries(start, end):
    return [b"entry %d " % index + b"x" * (index % 7) for index in range(start, end)]


def grown(folder, *sizes):
    with LogWriter(folder, LOG) as log:
        for size in sizes:
            log.append(entries(log.size, size))
    return LogFiles(folder, LOG.verifier)


def faults(log):
    return list(check_files(log))


SIZES = [0, 1, 2, 255, 256, 257, 512, 600, 70_000]


@pytest.mark.parametrize("size", SIZES)
def test_a_log_of_any_size_has_the_root_of_its_entries(tmp_path, size):
    log = grown(tmp_path, size)
    assert log.checkpoint().size == size
    assert log.checkpoint().root == root(entries(0, size))
    assert faults(log) == []
    assert log.entries(0, size) == entries(0, size)


def test_the_files_do_not_depend_on_the_steps_in_which_it_grew(tmp_path):
    at_once = grown(tmp_path / "a", 70_000)
    sizes = sorted({*SIZES, *random.Random(1).sample(range(70_000), 40)})
    in_steps = grown(tmp_path / "b", *sizes)
    assert at_once.checkpoint() == in_steps.checkpoint()
    for tile in tiles_between(0, 70_000):
        assert at_once.read(tile) == in_steps.read(tile)


def test_the_tiles_are_those_of_the_specification():
    tiles = list(tiles_between(0, 70_000))
    by_level = {level: [tile.width for tile in tiles if tile.level == level] for level in range(-1, 4)}
    assert by_level[0] == by_level[-1] == [256] * 273 + [112]
    assert (by_level[1], by_level[2], by_level[3]) == ([256, 17], [1], [])
    assert Tile(0, 1234067).path == "tile/0/x001/x234/067"
    assert Tile(-1, 5, 7).path == "tile/entries/005.p/7"
    with pytest.raises(NotVerified, match="no tile"):
        tile_at(0, 274, 70_000)


@pytest.mark.parametrize("tile", [Tile(0, 0), Tile(-1, 999, 255), Tile(63, 1000), Tile(12, 123456789, 1)])
def test_a_path_is_read_as_it_was_spelled(tile):
    assert Tile.parse(tile.path) == tile


@pytest.mark.parametrize(
    "path",
    [
        *("tile/0/0", "tile/64/000", "tile/00/000", "tile/0/x000/001", "tile/0/001.p/256", "tile/0/001.p/0"),
        *(
            "tile/0/001.p/01",
            "tile/0/../001",
            "tile/entries/1000",
            "tile/0/001/",
            "/tile/0/001",
            "tile/-1/001",
        ),
    ],
)
def test_what_is_no_path_of_a_tile_is_none(path):
    assert Tile.parse(path) is None


def test_proofs_hold_between_all_sizes_that_it_had(tmp_path):
    log = grown(tmp_path, *SIZES)
    new = log.checkpoint()
    for old in SIZES:
        proof = log.consistency(old, new.size)
        verify_consistency(proof, old, new.size, root(entries(0, old)), new.root)
    for index in (0, 255, 256, 65_535, 65_536, 69_999):
        (entry,) = log.entries(index, index + 1)
        verify_inclusion(log.inclusion(index, new.size), index, new.size, leaf_hash(entry), new.root)


def test_what_a_tile_was_is_deleted_once_it_is_full_and_can_still_be_read(tmp_path):
    log = grown(tmp_path, 100, 200, 256)
    assert [path.parent.name for path in tmp_path.glob("tile/*/000.p")] == ["1"]
    assert log.read(Tile(0, 0, 100)) == b"".join(leaf_hash(entry) for entry in entries(0, 100))
    verify_inclusion(log.inclusion(7, 100), 7, 100, leaf_hash(entries(7, 8)[0]), root(entries(0, 100)))


def test_a_tree_of_a_size_that_was_never_published_is_read_out_of_a_larger_one(tmp_path):
    log = grown(tmp_path, 200, 70_000)
    for size in (100, 201, 65_600):
        assert root_of(log.hashes(size), size) == root(entries(0, size))
        proof = log.consistency(size, 70_000)
        verify_consistency(proof, size, 70_000, root(entries(0, size)), log.checkpoint().root)
    with pytest.raises(NotVerified, match="is not there"):
        log.read(Tile(0, 273, 113))


# Other people's tools.


def reader(folder):
    found = TilesReader(LocalBackend(folder))
    found.get_checkpoint()
    return found


def test_another_implementation_reads_tiles_proofs_and_cosigned_checkpoints(tmp_path):
    log = grown(tmp_path, 300, 66_000)
    with LogWriter(tmp_path, LOG) as writer:
        _, note = open_checkpoint(log.note(), LOG.verifier)
        writer.publish(note.signed(WITNESS.sign(note.text)))
    theirs = reader(tmp_path)
    head = theirs.get_checkpoint()
    keys = VkeySet(*(Vkey.from_string(str(signer.verifier)) for signer in (LOG, WITNESS)))
    assert {key.name for key, _ in keys.verify(head.signatures, head)} == {"log.example/one", "w.example"}
    assert theirs.calculate_root_hash() == head.root_hash == log.checkpoint().root
    for index in (0, 299, 300, 65_999):
        theirs.get_inclusion_proof(index, head.size).check(
            leaf_hash(entries(index, index + 1)[0]), head.root_hash
        )
        assert theirs.get_inclusion_proof(index, head.size).node_hashes == log.inclusion(index, head.size)
        assert theirs.get_entry(index) == entries(index, index + 1)[0]
    theirs.get_consistency_proof(300, head.size).check(root(entries(0, 300)), head.root_hash)
    assert theirs.get_consistency_proof(300, head.size).node_hashes == log.consistency(300, head.size)


# Faults.


class Broken(Exception):
    pass


def steps_of(folder, start, end):
    """The names of the steps of one growth."""
    names = []
    with LogWriter(folder, LOG, names.append) as log:
        log.append(entries(start, end))
    return names


@pytest.mark.parametrize(("start", "end"), [(0, 3), (250, 260), (300, 515)])
def test_a_growth_that_breaks_at_any_step_is_finished_by_the_next(tmp_path, start, end):
    grown(tmp_path / "whole", start, end)
    steps = steps_of(shutil.copytree(grown(tmp_path / "old", start).folder, tmp_path / "count"), start, end)
    assert len(steps) > 10
    for broken in range(len(steps)):
        folder = shutil.copytree(tmp_path / "old", tmp_path / f"at{broken}")
        left = iter(range(broken))

        def step(_name, left=left):
            if next(left, None) is None:
                raise Broken

        with pytest.raises(Broken), LogWriter(folder, LOG, step) as log:
            log.append(entries(start, end))
        # What is published is the old or the new log, whole.
        published = LogFiles(folder, LOG.verifier)
        assert published.checkpoint().size in {start, end}
        assert faults(published) == []
        # Meanwhile one more came.
        grown(folder, end + 1)
        assert faults(published) == []
        assert published.checkpoint().root == root(entries(0, end + 1))


_CHILD = """
import os, sys
from pathlib import Path
from tests.unit.tlog.test_log_files import LOG, entries
from transom.tlog.writer import LogWriter

left = int(sys.argv[2])

def step(name):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), 9)

with LogWriter(Path(sys.argv[1]), LOG, step) as log:
    log.append(entries(250, 260))
"""


@pytest.mark.parametrize("steps", [0, 1, 2, 7, 13, 19])
def test_a_process_that_is_killed_leaves_a_log_that_can_be_continued(tmp_path, steps):
    grown(tmp_path, 250)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", _CHILD, tmp_path, str(steps)], env=environment, check=False)
    assert done.returncode == -9
    assert faults(grown(tmp_path, 270)) == []


def test_there_is_one_writer(tmp_path):
    with LogWriter(tmp_path, LOG) as log:
        with pytest.raises(LogBroken, match="another process"):
            LogWriter(tmp_path, LOG)
        log.append(entries(0, 3))
    assert grown(tmp_path, 5).checkpoint().size == 5


def test_a_full_disk_publishes_nothing_and_loses_nothing(tmp_path):
    def step(name):
        if name.startswith("sync tile/1"):
            raise OSError(28, "No space left on device")

    grown(tmp_path, 250)
    with LogWriter(tmp_path, LOG, step) as log:
        with pytest.raises(OSError, match="No space"):
            log.append(entries(250, 260))
        assert log.size == 250
    assert LogFiles(tmp_path, LOG.verifier).checkpoint().size == 250
    assert faults(grown(tmp_path, 260)) == []


def test_other_entries_in_the_place_of_published_ones_stop_the_log(tmp_path):
    grown(tmp_path / "a", 250)
    folder = shutil.copytree(tmp_path / "a", tmp_path / "b")
    grown(tmp_path / "a", 260)
    # Its tiles were written, and its checkpoint was not.
    shutil.copytree(tmp_path / "a" / "tile", folder / "tile", dirs_exist_ok=True)
    with LogWriter(folder, LOG) as log, pytest.raises(LogBroken, match="with other entries"):
        log.append([b"another"] * 10)
    assert LogFiles(folder, LOG.verifier).checkpoint().size == 250


def test_a_checkpoint_that_is_not_of_these_tiles_stops_the_log(tmp_path):
    grown(tmp_path / "a", 10)
    with LogWriter(tmp_path / "b", LOG) as log:
        log.append([b"another"] * 10)
    shutil.copy(tmp_path / "a" / "checkpoint", tmp_path / "b" / "checkpoint")
    with pytest.raises(LogBroken, match="do not have the root"):
        LogWriter(tmp_path / "b", LOG)
    with pytest.raises(LogBroken, match="no signature"):
        LogWriter(tmp_path / "a", Signer(LOG.name, Ed25519PrivateKey.from_private_bytes(b"z" * 32)))


def test_only_the_published_checkpoint_gets_more_signatures(tmp_path):
    with LogWriter(tmp_path, LOG) as log:
        old = log.append(entries(0, 3))
        log.append(entries(3, 4))
        with pytest.raises(LogBroken, match="the one that is published"):
            log.publish(old)


def test_an_empty_growth_changes_nothing_but_begins_a_log(tmp_path):
    with LogWriter(tmp_path, LOG) as log:
        assert log.append([]) is not None
        assert log.append([]) is None
        with pytest.raises(ValueError, match="65535"):
            log.append([b"x" * 65_536])
        assert log.size == 0


# Tampering.


def test_any_byte_that_is_changed_is_found(tmp_path):
    log = grown(tmp_path, 300, 1000)
    chance = random.Random(5)
    published = {tmp_path / "checkpoint", *(tmp_path / tile.path for tile in tiles_between(0, 1000))}
    for path in chance.choices(sorted(published), k=250):
        whole = path.read_bytes()
        place = chance.randrange(len(whole))
        path.write_bytes(
            whole[:place] + bytes([whole[place] ^ 1 << chance.randrange(8)]) + whole[place + 1 :]
        )
        assert faults(log), f"{path} at {place}"
        path.write_bytes(whole)
    assert faults(log) == []


@pytest.mark.parametrize("change", ["delete", "cut", "empty"])
def test_a_file_that_is_not_whole_is_found(tmp_path, change):
    log = grown(tmp_path, 1000)
    for tile in tiles_between(0, 1000):
        path: Path = tmp_path / tile.path
        whole = path.read_bytes()
        if change == "delete":
            path.unlink()
        else:
            path.write_bytes(whole[:-1] if change == "cut" else b"")
        assert faults(log), tile.path
        path.write_bytes(whole)
    assert faults(log) == []


def test_a_proof_out_of_the_log_holds_by_itself(tmp_path):
    log = grown(tmp_path, 1000)
    proof = Proof(777, tuple(log.inclusion(777, 1000)), log.note().decode())
    assert Proof.parse(str(proof)).verify(entries(777, 778)[0], LOG.verifier)[0].size == 1000
