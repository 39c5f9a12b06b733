"""A copy of a log: verified, incremental, and whole after whatever breaks."""

import random
import shutil

import httpx2
import pytest
from tlog_scales.backend import LocalBackend
from tlog_scales.reader import TilesReader

from tests.unit.client.served_log import ServedLog, entries
from tests.unit.tlog.growing import LOG, witness_signer
from transom.client.failures import ServerUnreachable, UnexpectedReply
from transom.client.observing import remote_log
from transom.client.observing.mirror import Mirror
from transom.client.observing.remote_log import RemoteLog
from transom.errors import InvalidRequest, NotVerified
from transom.schema.canonical import sha256
from transom.schema.merkle import root
from transom.tlog.checkpoints import open_checkpoint
from transom.tlog.entries import Entry
from transom.tlog.files import LogFiles, check_files
from transom.tlog.tiles import ENTRIES, Tile, tiles_between
from transom.tlog.verified import VerifiedLog
from transom.tlog.writer import LogWriter


@pytest.fixture
def served(tmp_path):
    return ServedLog(tmp_path / "served")


def remote(served, url="http://log.example"):
    return RemoteLog(LOG.verifier, url, served.transport)


def update(served, folder, step=lambda _name: None):
    with Mirror(folder, remote(served), step) as mirror:
        return mirror.update()


def check(folder, size):
    copy = LogFiles(folder, LOG.verifier)
    assert list(check_files(copy)) == []
    assert copy.checkpoint().size == size
    assert copy.checkpoint().root == root(entries(0, size))


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 66_000])
def test_a_copy_is_the_log(served, tmp_path, size):
    served.grow(size)
    assert update(served, tmp_path / "copy").size == size
    check(tmp_path / "copy", size)
    assert (tmp_path / "copy" / "checkpoint").read_bytes() == served.files.note()


def test_only_what_is_new_is_fetched(served, tmp_path):
    served.grow(2000)
    update(served, tmp_path / "copy")
    before = len(served.paths)
    update(served, tmp_path / "copy")
    # Where its checkpoint is, is found out by each process anew.
    assert len(served.paths) == before + 2
    served.grow(2010)
    update(served, tmp_path / "copy")
    tiles = [path for path in served.paths[before + 2 :] if "tile" in path]
    assert sorted(tiles) == [
        "/log/tile/0/007.p/218",
        "/log/tile/1/000.p/7",
        "/log/tile/entries/007.p/218",
    ]
    check(tmp_path / "copy", 2010)
    assert not (tmp_path / "copy" / "tile" / "0" / "006.p").exists()


def test_what_was_narrow_is_deleted_once_it_is_full(served, tmp_path):
    for size in (100, 200, 300):
        served.grow(size)
        update(served, tmp_path / "copy")
    assert not (tmp_path / "copy" / "tile" / "0" / "000.p").exists()
    check(tmp_path / "copy", 300)


def test_a_copy_can_be_copied_from_where_it_lies(served, tmp_path):
    served.grow(700)
    update(served, tmp_path / "copy")
    static = ServedLog(tmp_path / "copy", prefix="/mirrors/one")
    with Mirror(tmp_path / "second", remote(static, "http://mirror.example/mirrors/one")) as mirror:
        mirror.update()
    check(tmp_path / "second", 700)


# Documents.


def show(served, name, content):
    served.replies[f"/log/documents/{name}"] = lambda _request: httpx2.Response(200, content=content)


def test_public_documents_come_along(served, tmp_path):
    served.grow(300)
    served.add(Entry("verdict", sha256(b"late")).content, Entry("key", sha256(b"key")).content)
    show(served, sha256(b"key"), b"key")
    with Mirror(tmp_path / "copy", remote(served)) as mirror:
        assert mirror.update().size == 302
        assert list(mirror.lacking) == [sha256(b"late")]
        assert mirror.document(sha256(b"key")) == b"key"
        assert mirror.document(sha256(b"late")) is None
        # Nobody asked for what only owners may read, nor again for what is there.
        asked = [path for path in served.paths if "/documents/" in path]
        assert sorted(asked) == sorted(f"/log/documents/{sha256(name)}" for name in (b"late", b"key"))
        show(served, sha256(b"late"), b"late")
        assert mirror.update().size == 302
        assert (mirror.lacking, mirror.document(sha256(b"late"))) == ({}, b"late")
    assert len([path for path in served.paths if "/documents/" in path]) == 3


def test_another_document_is_told_and_not_kept_and_holds_nothing_up(served, tmp_path):
    served.add(Entry("key", sha256(b"key")).content)
    show(served, sha256(b"key"), b"another")
    with Mirror(tmp_path / "copy", remote(served)) as mirror:
        assert mirror.update().size == 1
        assert "another document" in mirror.lacking[sha256(b"key")]
    assert not (tmp_path / "copy" / "documents").exists()


@pytest.mark.parametrize(
    "reply",
    [
        lambda _: httpx2.Response(500),
        lambda _: httpx2.Response(200, content=bytes(2 << 20)),
        lambda _: (_ for _ in ()).throw(httpx2.ReadError("gone")),
    ],
)
def test_a_document_that_does_not_come_holds_nothing_up_and_is_asked_for_again(served, tmp_path, reply):
    served.add(Entry("key", sha256(b"key")).content)
    served.replies[f"/log/documents/{sha256(b'key')}"] = reply
    for size in (1, 300):
        served.grow(size)
        with Mirror(tmp_path / "copy", remote(served)) as mirror:
            assert mirror.update().size == size
            assert mirror.lacking
            assert mirror.update().size == size
    show(served, sha256(b"key"), b"key")
    with Mirror(tmp_path / "copy", remote(served)) as mirror:
        mirror.update()
        assert (mirror.lacking, mirror.document(sha256(b"key"))) == ({}, b"key")
    assert list(check_files(LogFiles(tmp_path / "copy", LOG.verifier))) == []


@pytest.mark.parametrize("digest", ["../../checkpoint", "sha256:" + "A" * 64, "sha256:12"])
def test_a_digest_is_no_path(served, tmp_path, digest):
    served.add(Entry("key", digest).content)
    assert update(served, tmp_path / "copy").size == 1
    assert [path for path in served.paths if "documents" in path] == []


def test_another_implementation_reads_the_copy(served, tmp_path):
    served.grow(700)
    update(served, tmp_path / "copy")
    theirs = TilesReader(LocalBackend(tmp_path / "copy"))
    head = theirs.get_checkpoint()
    assert theirs.calculate_root_hash() == head.root_hash == root(entries(0, 700))
    assert theirs.get_entry(699) == entries(699, 700)[0]


def test_cosignatures_that_come_later_come_along_and_are_not_lost(served, tmp_path):
    served.grow(10)
    plain = served.files.note()
    update(served, tmp_path / "copy")
    signers = [witness_signer("a", 1), witness_signer("b", 2)]
    for signer in signers:
        with LogWriter(served.folder, LOG) as log:
            note = open_checkpoint(plain, LOG.verifier)[1]
            log.publish(note.signed(signer.sign(note.text)))
        update(served, tmp_path / "copy")
    note = open_checkpoint(LogFiles(tmp_path / "copy", LOG.verifier).note(), LOG.verifier)[1]
    keys = [signer.verifier for signer in signers]
    assert [key for key, _ in note.verified(keys)] == keys


# What does not fit.


def test_a_checkpoint_of_files_that_do_not_fit_is_not_put_in_place(served, tmp_path):
    served.grow(300)
    update(served, tmp_path / "copy")
    served.grow(600)
    chance = random.Random(3)
    for number, tile in enumerate(tiles_between(300, 600)):
        path = served.folder / tile.path
        whole = path.read_bytes()
        # What was copied before the file that does not fit is there for the next attempt.
        folder = shutil.copytree(tmp_path / "copy", tmp_path / f"copy{number}")
        for spoiled in (whole[:-1], b"", None, _flipped(whole, chance)):
            path.unlink() if spoiled is None else path.write_bytes(spoiled)
            with pytest.raises(NotVerified):
                update(served, folder)
            check(folder, 300)
        path.write_bytes(whole)
        update(served, folder)
        check(folder, 600)


def _flipped(content, chance):
    place = chance.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize(
    ("end", "reason"), [(400, "does not begin"), (300, "another root"), (299, "went back")]
)
def test_a_fork_and_a_rollback_leave_the_copy_as_it_was(served, tmp_path, end, reason):
    served.grow(300)
    update(served, tmp_path / "copy")
    shutil.rmtree(served.folder)
    served.grow(end, "forked")
    with pytest.raises(NotVerified, match=reason):
        update(served, tmp_path / "copy")
    check(tmp_path / "copy", 300)


def test_what_a_fork_left_half_copied_is_not_taken_for_the_log(served, tmp_path):
    served.grow(600, "forked", tmp_path / "fork")
    fork = ServedLog(tmp_path / "fork")
    left = iter(range(12))

    def step(name):
        if next(left, None) is None:
            raise Broken

    with pytest.raises(Broken):
        update(fork, tmp_path / "copy", step)
    assert (tmp_path / "copy" / "tile" / "entries" / "000").is_file()
    served.grow(600)
    update(served, tmp_path / "copy")
    check(tmp_path / "copy", 600)


class Broken(Exception):
    pass


def test_a_copy_that_breaks_at_any_step_is_finished_by_the_next(served, tmp_path):
    served.grow(250)
    update(served, tmp_path / "old")
    served.grow(520)
    steps = []
    update(served, shutil.copytree(tmp_path / "old", tmp_path / "count"), steps.append)
    assert len(steps) > 20
    for broken in range(len(steps)):
        folder = shutil.copytree(tmp_path / "old", tmp_path / f"at{broken}")
        left = iter(range(broken))

        def step(_name, left=left):
            if next(left, None) is None:
                raise Broken

        with pytest.raises(Broken):
            update(served, folder, step)
        copy = LogFiles(folder, LOG.verifier)
        assert copy.checkpoint().size in {250, 520}
        assert list(check_files(copy)) == []
        update(served, folder)
        check(folder, 520)


def test_two_do_not_write_one_copy(served, tmp_path):
    with Mirror(tmp_path, remote(served)), pytest.raises(InvalidRequest, match="Another process"):
        Mirror(tmp_path, remote(served))


# What a server may answer.


def test_a_server_without_a_checkpoint_is_no_log(served, tmp_path):
    with pytest.raises(NotVerified, match="no checkpoint"):
        update(served, tmp_path / "copy")


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (lambda _: httpx2.Response(500), UnexpectedReply),
        (lambda _: httpx2.Response(302, headers={"location": "http://elsewhere.example"}), UnexpectedReply),
        (lambda _: httpx2.Response(200, content=b"x" * (1 << 20) + b"x"), UnexpectedReply),
        (lambda _: httpx2.Response(200, content=b"x"), NotVerified),
    ],
)
def test_whatever_else_a_server_answers_is_an_error(served, tmp_path, reply, error):
    served.replies["/log/checkpoint"] = reply
    with pytest.raises(error):
        update(served, tmp_path / "copy")


def test_a_server_that_trickles_is_not_waited_for(served, tmp_path, monkeypatch):
    monkeypatch.setattr(remote_log, "_SECONDS", -1.0)
    served.grow(3)
    with pytest.raises(ServerUnreachable, match="did not arrive"):
        update(served, tmp_path / "copy")


# Verified files.


def test_a_full_tile_is_taken_from_whoever_has_it_right(served):
    served.grow(70_000)
    head = served.files.checkpoint()
    wrong = []

    def broken(tile):
        wrong.append(tile)
        return b"h" * 32 * tile.width

    log = VerifiedLog(head, broken, served.files.read)
    for tile in (Tile(0, 17), Tile(1, 0), Tile(ENTRIES, 272), Tile(ENTRIES, 273, 112)):
        assert log.read(tile) == served.files.read(tile)
    assert {tile.level for tile in wrong} == {-1, 0, 1}
    assert log.root_at(66_000) == root(entries(0, 66_000))
    with pytest.raises(NotVerified):
        VerifiedLog(head, served.files.read, broken)
    alone = VerifiedLog(head, served.files.read)
    alone._sources = (broken,)
    with pytest.raises(NotVerified, match=r"tile/./... does not fit"):
        alone.read(Tile(0, 100))


@pytest.mark.parametrize("tile", [Tile(0, 2, 187), Tile(0, 3), Tile(3, 0), Tile(ENTRIES, 3)])
def test_a_log_has_no_other_tiles(served, tile):
    served.grow(700)
    with pytest.raises(NotVerified):
        VerifiedLog(served.files.checkpoint(), served.files.read).read(tile)
