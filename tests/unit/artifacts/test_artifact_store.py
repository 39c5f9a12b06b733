"""Artifacts where something breaks: between blob and row, in the store, and across keys."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime

import numpy as np
import pytest
from safetensors.numpy import save

from tests import databases
from tests.vaults import make_vault
from transom.access.projects.projects import ensure_project
from transom.artifacts.arrival import Arrivals, Limits
from transom.artifacts.store import ArtifactStore
from transom.errors import ConfigurationError, NotFound, PayloadTooLarge, QuotaExceeded, StorageError
from transom.storage.blobs import Blobs
from transom.storage.database import Database
from transom.storage.migrate import migrate

pytestmark = pytest.mark.anyio

LATER = datetime(2126, 1, 1, tzinfo=UTC)


@pytest.fixture
def database(tmp_path):
    database = Database(databases.fresh(tmp_path))
    migrate(database)
    for project in ("prj_a", "prj_b"):
        database.write_sync(lambda connection, project=project: ensure_project(connection, project))
    yield database
    database.close()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "arriving").mkdir()
    return tmp_path


def store_in(folder, database, *, clock=lambda: LATER, vault=None, limits=None):
    arrivals = Arrivals(folder / "arriving", limits or Limits(each=1 << 22, total=1 << 23))
    return ArtifactStore(database, vault or make_vault(), Blobs(str(folder / "blobs")), arrivals, clock)


def vector(*numbers):
    return save({"v": np.array(numbers, np.float32)})


async def put(store, content, project="prj_a"):
    async def stream():
        yield content[:5]
        yield content[5:]

    return await store.put(project, stream())


def blobs(folder):
    return sorted(path.name for path in (folder / "blobs").iterdir())


async def test_a_blob_whose_row_was_never_written_is_swept_once_it_is_old(folder, database, monkeypatch):
    store = store_in(folder, database)
    kept, _ = await put(store, vector(1))
    monkeypatch.setattr(database, "write", cut_off)
    with pytest.raises(StorageError):
        await put(store, vector(2))
    monkeypatch.undo()
    assert len(blobs(folder)) == 2
    assert store_in(folder, database, clock=lambda: datetime.now(UTC)).sweep() == 0
    assert store.sweep() == 1
    assert b"".join(kept.content.read(0, kept.content.size)) == vector(1)


async def cut_off(_write):
    raise StorageError("The power is out.")


async def test_what_a_cut_off_write_leaves_in_the_folder_is_swept(folder, database):
    store = store_in(folder, database)
    left = folder / "blobs" / "deadbeef#1"
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    store.sweep()
    assert not left.exists()


async def test_a_row_whose_blob_is_missing_is_an_error_and_no_answer(folder, database):
    store = store_in(folder, database)
    kept, _ = await put(store, vector(1))
    (folder / "blobs" / blobs(folder)[0]).unlink()
    with pytest.raises(StorageError):
        list(kept.content.read(0, kept.content.size))


@pytest.mark.parametrize("change", ["first", "last", "short", "long block", "swapped"])
async def test_a_blob_that_was_changed_does_not_open(folder, database, change):
    content = save({"v": np.random.default_rng(0).normal(size=200_000).astype(np.float32)})
    kept, _ = await put(store_in(folder, database), content)
    (path,) = (folder / "blobs").iterdir()
    sealed = bytearray(path.read_bytes())
    block = (1 << 18) + 16
    match change:
        case "first" | "last":
            sealed[0 if change == "first" else -1] ^= 1
        case "short":
            del sealed[-5:]
        case "long block":
            del sealed[block:]
        case "swapped":
            sealed[:block], sealed[block : 2 * block] = sealed[block : 2 * block], sealed[:block]
    path.write_bytes(sealed)
    with pytest.raises(StorageError):
        list(kept.content.read(0, kept.content.size))


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 1), (7, 9), (262143, 262145), (262144, 262144 * 9), (799_990, 800_000)]
)
async def test_any_part_is_read_alone(folder, database, start, stop):
    content = save({"v": np.random.default_rng(0).normal(size=800_000).astype(np.float32)})
    kept, _ = await put(store_in(folder, database), content)
    assert b"".join(kept.content.read(start, stop)) == content[start:stop]


async def test_it_is_found_after_its_project_has_a_new_data_key(folder, database):
    vault = make_vault(most_seals=2)
    store = store_in(folder, database, vault=vault)
    kept = [await put(store, vector(number)) for number in range(5)]
    for artifact, is_new in kept:
        assert is_new
        assert (await store.get("prj_a", artifact.sha256)).sha256 == artifact.sha256
    assert not (await put(store, vector(0)))[1]
    assert len((await store.page("prj_a")).data) == 5


async def test_once_the_data_key_is_destroyed_it_is_not_there(folder, database):
    vault = make_vault()
    store = store_in(folder, database, vault=vault)
    kept, _ = await put(store, vector(1))
    await database.write(lambda connection: vault.destroy(connection, "prj_a"))
    with pytest.raises(NotFound):
        await store.get("prj_a", kept.sha256)
    assert (await store.page("prj_a")).data == ()
    assert (await put(store, vector(1)))[1]


async def test_names_of_equal_content_differ_between_projects(folder, database):
    vault = make_vault()
    store = store_in(folder, database, vault=vault)
    for project in ("prj_a", "prj_b"):
        await put(store, vector(1), project)
    names = [
        database.read_sync(lambda c, project=project: vault.names(c, project, "artifacts.name", b"x"))
        for project in ("prj_a", "prj_b")
    ]
    assert names[0] != names[1]


async def test_many_uploads_at_once_take_no_more_room_than_a_project_has(folder, database):
    store = store_in(folder, database, limits=Limits(each=3 << 20, total=4 << 20))
    half = asyncio.Event()

    async def slow(number):
        yield save({"v": np.full(1 << 19, number, np.float32)})[: 2 << 20]
        half.set()
        await asyncio.sleep(0)
        yield b""

    results = await asyncio.gather(
        *(store.put("prj_a", slow(number)) for number in range(4)), return_exceptions=True
    )
    assert any(isinstance(result, QuotaExceeded) for result in results)
    assert not list((folder / "arriving").iterdir())


async def test_what_says_that_it_is_too_large_is_not_received(folder, database):
    async def never():
        raise AssertionError("it was read")
        yield b""

    with pytest.raises(PayloadTooLarge):
        await store_in(folder, database).put("prj_a", never(), declared=1 << 30)


async def test_a_project_that_there_is_not_keeps_nothing(folder, database):
    with pytest.raises(NotFound):
        await put(store_in(folder, database), vector(1), "prj_none")
    assert blobs(folder) == []


@pytest.mark.parametrize("place", ["bogus://x", "s3://"])
def test_a_place_that_is_none_is_refused(place):
    with pytest.raises(ConfigurationError, match="TRANSOM_ARTIFACTS_URL"):
        Blobs(place)


def test_a_folder_may_be_given_as_a_url(tmp_path):
    place = Blobs((tmp_path / "with space").as_uri())
    place.put("x", [b"a", b"b"])
    assert (tmp_path / "with space" / "x").read_bytes() == b"ab"
    assert place.read("x", 1, 1) == b"b"
    place.delete(["x", "x"])
    assert list((tmp_path / "with space").iterdir()) == []
