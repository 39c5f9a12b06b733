"""The trail: nothing changes it, and where somebody goes around the database, it shows."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from transom.access.rights.trail import Entry, broken, entries, note
from transom.storage.database import Database
from transom.storage.migrate import migrate

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def entry(count=0, **more):
    fields = {
        "at": NOON + timedelta(seconds=count),
        "actor": "operator:root",
        "action": "key.suspend",
        "subject": f"key{count}",
        "project_id": "prj_1",
        "person_id": "per_1",
        "reason": "It was found on a public page.",
        "details": {"count": count},
    }
    return Entry(**fields | more)


@pytest.fixture
def database(database_url):
    database = Database(database_url)
    migrate(database)
    yield database
    database.close()


def append(database, *new):
    return [database.write_sync(lambda connection, each=each: note(connection, each)) for each in new]


def execute(database, statement, **values):
    database.write_sync(lambda connection: connection.execute(text(statement), values).rowcount)


def problems(database):
    return database.read_sync(lambda connection: list(broken(connection)))


@pytest.fixture
def five(database):
    append(database, *(entry(count) for count in range(5)))
    assert problems(database) == []
    return database


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE trail SET reason = 'another' WHERE number = 3",
        "UPDATE trail SET number = 9 WHERE number = 5",
        "UPDATE trail SET reason = reason",
        "DELETE FROM trail WHERE number = 5",
        "DELETE FROM trail",
        "UPDATE trail_head SET number = 4",
        "UPDATE trail_head SET digest = 'another'",
        "UPDATE trail_head SET id = 2, number = 6",
        "DELETE FROM trail_head",
        "INSERT INTO trail_head VALUES (2, 5, 'another')",
        "INSERT INTO trail SELECT * FROM trail WHERE number = 3",
    ],
)
def test_the_database_refuses_to_change_the_trail(five, statement):
    with pytest.raises(DBAPIError):
        execute(five, statement)
    assert problems(five) == []
    assert len(five.read_sync(entries)) == 5


def test_sqlite_refuses_to_replace_an_entry_in_the_course_of_an_insert(five):
    if "sqlite" not in str(five._writing.url):
        pytest.skip("only SQLite has INSERT OR REPLACE")
    with pytest.raises(DBAPIError, match="append-only"):
        execute(
            five,
            "INSERT OR REPLACE INTO trail SELECT number, at, actor, action, subject, project_id, person_id, "
            "'nothing happened', details, 'sha256:made-up' FROM trail WHERE number = 3",
        )
    assert problems(five) == []


def test_postgresql_refuses_to_empty_the_trail(five):
    if "sqlite" in str(five._writing.url):
        pytest.skip("SQLite has no TRUNCATE")
    for table in ("trail", "trail_head"):
        with pytest.raises(DBAPIError, match="append-only"):
            execute(five, f"TRUNCATE {table}")


def unguard(database):
    """Drop the triggers, as somebody would who goes around them."""
    if "sqlite" in str(database._writing.url):
        names = database.read_sync(
            lambda c: c.execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).scalars().all()
        )
        assert len(names) >= 6
        for name in names:
            execute(database, f"DROP TRIGGER {name}")
    else:
        execute(database, "ALTER TABLE trail DISABLE TRIGGER USER")
        execute(database, "ALTER TABLE trail_head DISABLE TRIGGER USER")


EDITS = {
    "another time": ("UPDATE trail SET at = at + 1 WHERE number = 3", "entry 3 of the trail was changed"),
    "another actor": (
        "UPDATE trail SET actor = 'per_2' WHERE number = 3",
        "entry 3 of the trail was changed",
    ),
    "another act": ("UPDATE trail SET action = 'x' WHERE number = 3", "entry 3 of the trail was changed"),
    "another subject": (
        "UPDATE trail SET subject = 'x' WHERE number = 3",
        "entry 3 of the trail was changed",
    ),
    "another project": (
        "UPDATE trail SET project_id = NULL WHERE number = 3",
        "entry 3 of the trail was changed",
    ),
    "another person": (
        "UPDATE trail SET person_id = NULL WHERE number = 3",
        "entry 3 of the trail was changed",
    ),
    "another reason": (
        "UPDATE trail SET reason = 'none' WHERE number = 3",
        "entry 3 of the trail was changed",
    ),
    "no reason": ("UPDATE trail SET reason = NULL WHERE number = 3", "entry 3 of the trail was changed"),
    "other details": ("UPDATE trail SET details = '{}' WHERE number = 3", "entry 3 of the trail was changed"),
    "no JSON": ("UPDATE trail SET details = '{' WHERE number = 3", "entry 3 of the trail was changed"),
    "another digest": (
        "UPDATE trail SET digest = 'sha256:x' WHERE number = 3",
        "entry 3 of the trail was changed",
    ),
    "the first one gone": ("DELETE FROM trail WHERE number = 1", "entry 1 of the trail is missing"),
    "one in the middle gone": ("DELETE FROM trail WHERE number = 3", "entry 3 of the trail is missing"),
    "the last one gone": ("DELETE FROM trail WHERE number = 5", "the trail ends with entry 4, and had 5"),
    "all gone": ("DELETE FROM trail", "the trail ends with entry 0, and had 5"),
    "the head gone": ("DELETE FROM trail_head", "the head of the trail is missing"),
    "the head elsewhere": (
        "UPDATE trail_head SET number = 4",
        "the head of the trail is not that of its latest entry",
    ),
}


@pytest.mark.parametrize(("statement", "finding"), list(EDITS.values()), ids=list(EDITS))
def test_whoever_goes_around_the_database_is_found(five, statement, finding):
    unguard(five)
    execute(five, statement)
    assert finding in problems(five)


def test_entries_that_changed_places_are_found(five):
    unguard(five)
    for before, after in ((2, 90), (3, 2), (90, 3)):
        execute(five, "UPDATE trail SET number = :after WHERE number = :before", before=before, after=after)
    assert problems(five)[:2] == ["entry 2 of the trail was changed", "entry 3 of the trail was changed"]


def test_an_entry_that_is_put_in_is_found(five):
    unguard(five)
    execute(
        five,
        "INSERT INTO trail SELECT 6, at, actor, action, subject, project_id, person_id, reason, details, "
        "'sha256:made-up' FROM trail WHERE number = 5",
    )
    assert problems(five) == [
        "entry 6 of the trail was changed",
        "the head of the trail is not that of its latest entry",
    ]


def test_numbers_go_on_without_a_gap_where_an_act_is_undone(database):
    append(database, entry(0))

    def fail(connection):
        note(connection, entry(1))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        database.write_sync(fail)
    (second,) = append(database, entry(2))
    assert second.number == 2
    assert problems(database) == []


def test_an_act_and_its_entry_are_one(five):
    """No entry without its act, and no act without its entry."""

    def act(connection):
        connection.execute(text("UPDATE trail_head SET id = 1 WHERE id = 0"))
        note(connection, entry(5, details={"rank": 0.5}))  # no canonical JSON: noting fails

    with pytest.raises(ValueError, match="float"):
        five.write_sync(act)
    assert problems(five) == []


def test_who_reads_gets_what_is_about_them_and_their_projects_newest_first(database):
    append(
        database,
        entry(0, project_id="prj_1", person_id=None),
        entry(1, project_id="prj_2", person_id=None),
        entry(2, project_id=None, person_id="per_1"),
        entry(3, project_id="prj_2", person_id="per_2"),
        entry(4, project_id=None, person_id=None),
    )

    def numbers(**who):
        return [noted.number for noted in database.read_sync(lambda c: entries(c, **who))]

    assert numbers(project_ids=("prj_1",), person_id="per_1") == [3, 1]
    assert numbers(project_ids=(), person_id="per_1") == [3]
    assert numbers(project_ids=(), person_id="per_9") == []
    assert numbers() == [5, 4, 3, 2, 1]
    assert numbers(before=4, limit=2) == [3, 2]


def test_an_entry_comes_back_as_it_was_noted(database):
    noted = append(database, entry(1, at=NOON + timedelta(microseconds=1), reason="Wörter\n\U0001f600"))
    assert database.read_sync(entries) == noted
