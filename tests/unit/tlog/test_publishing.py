"""From the database into the files: what is published once is never contradicted."""

import shutil
import time
from functools import partial

import pytest
from sqlalchemy import delete

from tests.unit.tlog.test_log_files import LOG, entries, faults
from transom.errors import ConfigurationError, LogBroken
from transom.schema.canonical import sha256
from transom.storage.database import Database
from transom.storage.migrate import migrate
from transom.storage.tables import log_entries, log_head
from transom.tlog.documents import documents_of, find_document, log_document
from transom.tlog.entries import Entry
from transom.tlog.files import LogFiles
from transom.tlog.publishing import Publication, Publisher, find_departures
from transom.tlog.sequencing import (
    add_entries,
    bind_keys,
    published_size,
    read_entries,
    set_published,
)
from transom.tlog.writer import LogWriter


@pytest.fixture
def database(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/test.db")
    migrate(database)
    yield database
    database.close()


def add(database, start, end):
    return database.write_sync(lambda connection: add_entries(connection, entries(start, end)))


def published(folder):
    return LogFiles(folder, LOG.verifier).checkpoint().size


def publish(database, folder):
    with LogWriter(folder, LOG) as writer:
        Publisher(database, writer).publish()


def test_what_is_in_the_database_is_published_in_its_order(database, tmp_path):
    assert add(database, 0, 300) == 0
    publish(database, tmp_path / "log")
    assert add(database, 300, 310) == 300
    publish(database, tmp_path / "log")
    log = LogFiles(tmp_path / "log", LOG.verifier)
    assert log.entries(0, 310) == entries(0, 310)
    assert faults(log) == []
    assert database.read_sync(published_size) == 310


def go_back(database, size):
    def write(connection):
        connection.execute(delete(log_entries).where(log_entries.c.place >= size))
        connection.execute(log_head.update().values(size=size, published=min(size, 5)))

    database.write_sync(write)


def test_a_database_that_went_back_is_not_continued_though_the_server_runs(database, tmp_path):
    add(database, 0, 10)
    with LogWriter(tmp_path / "log", LOG) as writer:
        publisher = Publisher(database, writer)
        publisher.publish()
        go_back(database, 5)
        with pytest.raises(LogBroken, match="older copy"):
            publisher.publish()
        add(database, 100, 108)
        with pytest.raises(LogBroken, match="entry 9"):
            publisher.publish()
    assert published(tmp_path / "log") == 10


@pytest.mark.parametrize("lost", ["all", "checkpoint", "newest"])
def test_lost_files_are_not_written_again_unless_somebody_says_so(database, tmp_path, lost):
    folder = tmp_path / "log"
    add(database, 0, 10)
    publish(database, folder)
    shutil.copytree(folder, tmp_path / "older")
    add(database, 10, 12)
    publish(database, folder)
    before = LogFiles(folder, LOG.verifier).checkpoint()
    if lost == "checkpoint":
        (folder / "checkpoint").unlink()
    else:
        shutil.rmtree(folder)
    if lost == "newest":
        shutil.copytree(tmp_path / "older", folder)
    add(database, 12, 14)
    with pytest.raises(LogBroken, match="rebuild"):
        publish(database, folder)
    database.write_sync(lambda connection: set_published(connection, 0))
    publish(database, folder)
    log = LogFiles(folder, LOG.verifier)
    assert log.checkpoint().size == 14
    assert log.entries(0, before.size) == entries(0, before.size)
    assert faults(log) == []


def test_a_thread_publishes_until_it_is_told_to_end_and_then_once_more(database, tmp_path):
    add(database, 0, 3)
    publication = Publication(database, tmp_path / "log", LOG, pytest.fail)
    until((tmp_path / "log" / "checkpoint").exists)
    add(database, 3, 5)
    publication.close()
    assert published(tmp_path / "log") == 5


def test_a_thread_outlives_an_error_and_an_error_that_cannot_be_told(database, tmp_path):
    told = []

    def tell(error):
        told.append(error)
        raise OSError("no room to say so")

    add(database, 0, 3)
    (tmp_path / "log").write_text("no folder")
    publication = Publication(database, tmp_path / "log", LOG, tell)
    until(lambda: told)
    assert publication.progress.stands == str(told[0])
    (tmp_path / "log").unlink()
    until((tmp_path / "log" / "checkpoint").exists)
    until(lambda: publication.progress.published == 3)
    assert publication.progress.stands is None
    publication.close()
    assert len(told) == 1
    assert published(tmp_path / "log") == 3


def test_who_waits_for_another_process_says_nothing_and_knows_how_far_it_is(database, tmp_path):
    add(database, 0, 3)
    with LogWriter(tmp_path / "log", LOG) as writer:
        Publisher(database, writer).publish()
        add(database, 3, 5)
        publication = Publication(database, tmp_path / "log", LOG, pytest.fail)
        until(lambda: publication.progress.kept == 5)
        assert (publication.progress.published, publication.progress.stands) == (3, None)
    until(lambda: publication.progress.published == 5)
    publication.close()


def test_files_are_compared_with_the_database(database, tmp_path):
    add(database, 0, 300)
    publish(database, tmp_path / "log")
    add(database, 300, 303)
    log = LogFiles(tmp_path / "log", LOG.verifier)
    assert list(find_departures(database, log)) == []
    other = log_entries.update().where(log_entries.c.place == 7).values(content=entries(8, 9)[0])
    database.write_sync(lambda connection: connection.execute(other) and None)
    assert list(find_departures(database, log)) == ["entry 7 of the log is published with another content"]
    go_back(database, 299)
    (fewer, _) = find_departures(database, log)
    assert fewer == "300 entries are published, and the database has 299"


def test_a_log_that_grows_meanwhile_is_at_odds_with_nothing(database, tmp_path):
    add(database, 0, 3)
    publish(database, tmp_path / "log")

    class Growing(LogFiles):
        def checkpoint(self):
            found = super().checkpoint()
            add(database, 3, 5)
            publish(database, tmp_path / "log")
            return found

    assert list(find_departures(database, Growing(tmp_path / "log", LOG.verifier))) == []


def test_a_database_keeps_to_the_keys_that_it_began_with(database):
    def bind(log_key, record_key):
        database.write_sync(lambda connection: bind_keys(connection, log_key, record_key))

    bind("log+1", "sha256:1")
    bind("log+1", "sha256:1")
    with pytest.raises(ConfigurationError, match=r"log\.key.*copy log\.key from another"):
        bind("log+2", "sha256:1")
    with pytest.raises(ConfigurationError, match=r"signing\.json"):
        bind("log+1", "sha256:2")


def test_a_document_is_logged_once_and_found_by_its_digest(database):
    add(database, 0, 3)
    log_it = partial(log_document, kind="deployment", content=b"{}")
    assert [database.write_sync(log_it) for _ in range(2)] == [3, 3]
    assert database.read_sync(lambda connection: find_document(connection, sha256(b"{}"))) == b"{}"
    assert database.read_sync(lambda connection: find_document(connection, sha256(b"[]"))) is None
    (entry,) = database.read_sync(lambda connection: read_entries(connection, 3, 9))
    assert Entry.parse(entry) == Entry("deployment", sha256(b"{}"))
    assert database.read_sync(lambda connection: documents_of(connection, "deployment")) == [
        (3, sha256(b"{}"), b"{}")
    ]


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
