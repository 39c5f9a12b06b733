"""Who is let in, and above all who is not."""

import asyncio
import hmac
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, select

from tests import databases
from transom.access.credentials.keys import Key, mint
from transom.access.credentials.peppers import Peppers, generate
from transom.access.keys import callers
from transom.access.keys.callers import Caller, KeyStore
from transom.errors import NotFound, Unauthenticated
from transom.storage.database import Database
from transom.storage.tables import keys, projects

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


class Time:
    """A clock that moves when it is told to."""

    def __init__(self):
        self.now, self.seconds = datetime(2026, 1, 31, tzinfo=UTC), 0.0

    def forward(self, seconds):
        self.now += timedelta(seconds=seconds)
        self.seconds += seconds


@pytest.fixture
def database(tmp_path):
    database = Database(databases.fresh(tmp_path))
    yield database
    database.close()


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def peppers():
    return generate()


@pytest.fixture
def open_store(database, peppers, time):
    def open_one(peppers=peppers, **options):
        return KeyStore(database, peppers, clock=lambda: time.now, ticks=lambda: time.seconds, **options)

    return open_one


@pytest.fixture
def store(open_store):
    return open_store()


@pytest.fixture
def statements(database):
    """SQL as it is executed."""
    seen = []
    for engine in (database._reading, database._writing):
        event.listen(engine, "before_cursor_execute", lambda *arguments: seen.append(arguments[2]))
    return seen


async def refusal(store, text):
    with pytest.raises(Unauthenticated) as refused:
        await store.authenticate(text)
    return refused.value.message


async def test_a_revoked_key_is_refused_at_once_here_and_within_a_second_elsewhere(store, open_store, time):
    elsewhere = open_store()
    new = await store.create()
    await store.authenticate(new.text)
    await elsewhere.authenticate(new.text)
    await store.revoke(new.info.id)
    assert "revoked on 2026-01-31" in await refusal(store, new.text)
    time.forward(1)
    assert "revoked" in await refusal(elsewhere, new.text)


async def test_a_key_revoked_while_it_is_being_checked_is_believed_for_a_second_at_most(
    store, time, database
):
    new = await store.create()
    checked = asyncio.create_task(store.authenticate(new.text))
    await asyncio.sleep(0)  # the second begins here
    time.forward(0.9)
    await checked
    await KeyStore(database, generate()).revoke(new.info.id)
    time.forward(0.1)
    assert "revoked" in await refusal(store, new.text)


async def test_an_expired_key_is_refused_even_where_it_was_just_verified(store, time):
    new = await store.create(expires_at=time.now + timedelta(seconds=0.5))
    await store.authenticate(new.text)
    time.forward(0.5)
    assert "expired on 2026-01-31" in await refusal(store, new.text)


async def test_an_unknown_id_and_a_wrong_secret_are_told_the_same(store):
    new = await store.create()
    wrong_secret = Key(new.info.id, mint().secret).text
    assert await refusal(store, wrong_secret) == await refusal(store, mint().text)


async def test_a_wrong_secret_learns_nothing_of_a_revoked_key(store):
    new = await store.create()
    await store.revoke(new.info.id)
    assert "revoked" not in await refusal(store, Key(new.info.id, mint().secret).text)


async def test_an_unknown_id_costs_the_same_hashing_as_a_wrong_secret(store, monkeypatch):
    work = []
    digest, compare = hmac.digest, hmac.compare_digest
    monkeypatch.setattr(hmac, "digest", lambda *a: work.append(("mac", len(a[0]), len(a[1]))) or digest(*a))
    monkeypatch.setattr(
        hmac, "compare_digest", lambda a, b: work.append(("compare", len(a), len(b))) or compare(a, b)
    )
    new = await store.create()
    work.clear()
    await refusal(store, Key(new.info.id, mint().secret).text)
    for_wrong_secret = work.copy()
    work.clear()
    await refusal(store, mint().text)
    assert work == for_wrong_secret == [("mac", 32, 88), ("compare", 32, 32)]


async def test_a_mistyped_key_is_refused_without_a_look_at_the_database(store, statements):
    text = mint().text
    assert "checksum" in await refusal(store, text[:-1] + ("0" if text[-1] != "0" else "1"))
    assert "malformed" in await refusal(store, "sk-something-else")
    assert statements == []


async def test_a_key_under_a_pepper_that_is_gone_is_refused(store, open_store):
    new = await store.create()
    assert "unknown" in await refusal(open_store(peppers=generate()), new.text)
    assert "unknown" in await refusal(open_store(peppers=Peppers({2: bytes(32)}, 2)), new.text)


async def test_a_key_outlives_a_change_of_the_pepper(store, open_store, peppers):
    new = await store.create()
    rotated = open_store(peppers=Peppers({**peppers.versions, 2: bytes(32)}, 2))
    assert (await rotated.authenticate(new.text)).key_id == new.info.id
    assert (await store.authenticate(new.text)).key_id == new.info.id


@pytest.mark.parametrize("text", [None, "", "EMPTY", "DUMMY_KEY", "none"])
async def test_no_key_is_anonymous_where_that_is_allowed_and_refused_elsewhere(open_store, database, text):
    assert "No API key" in await refusal(open_store(), text)
    caller = await open_store(allow_anonymous=True).authenticate(text)
    assert caller == Caller("anonymous", None)
    assert caller.anonymous
    assert database.read_sync(lambda c: c.execute(select(projects.c.id)).scalars().all()) == ["anonymous"]


async def test_a_bad_key_is_never_anonymous(open_store):
    assert "malformed" in await refusal(open_store(allow_anonymous=True), "empty")
    assert "unknown" in await refusal(open_store(allow_anonymous=True), mint().text)


async def test_a_good_key_is_its_projects_caller(store):
    new = await store.create(name="laptop")
    caller = await store.authenticate(new.text)
    assert caller == Caller("local", new.info.id)
    assert not caller.anonymous


async def test_a_verified_key_needs_no_sql_for_a_second(store, time, statements):
    new = await store.create()
    await store.authenticate(new.text)
    statements.clear()
    time.forward(0.999)
    await store.authenticate(new.text)
    assert statements == []
    time.forward(0.001)
    await store.authenticate(new.text)
    assert len(statements) > 0


async def test_the_cache_is_bounded_and_holds_no_key(store, monkeypatch):
    monkeypatch.setattr(callers, "CACHE_ENTRIES", 3)
    made = [await store.create() for _ in range(8)]
    for new in made:
        await store.authenticate(new.text)
    assert 0 < len(store._verified) <= 3
    assert not any(new.text in repr(store._verified) for new in made)


async def test_last_use_is_noted_once_a_minute_however_many_ask(store, time, statements):
    new = await store.create()

    async def updates_of_ten_requests():
        statements.clear()
        await asyncio.gather(*(store.authenticate(new.text) for _ in range(10)))
        return sum(statement.startswith("UPDATE") for statement in statements)

    assert await updates_of_ten_requests() == 1
    time.forward(59)
    assert await updates_of_ten_requests() == 0
    time.forward(1)
    assert await updates_of_ten_requests() == 1
    (info,) = await store.list_keys()
    assert info.last_used == time.now


@databases.only_sqlite
async def test_a_key_is_shown_once_and_stored_only_as_a_keyed_hash(store, database, tmp_path):
    new = await store.create(name="laptop")
    secret = new.text.split("_")[2]
    assert secret not in repr(new)
    database.close()
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert new.info.id.encode() in stored
    assert secret[:43].encode() not in stored


async def test_keys_are_listed_by_project_oldest_first(store, time):
    first = await store.create(name="first")
    time.forward(1)
    second = await store.create(name="second")
    await store.create("prj_other", "elsewhere")
    revoked = await store.revoke(first.info.id)
    assert await store.list_keys() == [revoked, second.info]
    assert await store.list_keys("nobody") == []


async def test_revoking_twice_keeps_the_first_date_and_an_unknown_key_is_not_found(store, time):
    new = await store.create()
    first = await store.revoke(new.info.id)
    time.forward(3600)
    assert await store.revoke(new.info.id) == first
    with pytest.raises(NotFound):
        await store.revoke("nobody")


async def test_a_stolen_row_moved_to_another_id_opens_nothing(store, database):
    """The keyed hash covers the id too."""
    mine, theirs = await store.create(), await store.create()
    row = database.read_sync(
        lambda c: c.execute(select(keys.c.mac).where(keys.c.id == mine.info.id)).scalar()
    )
    database.write_sync(
        lambda c: c.execute(keys.update().where(keys.c.id == theirs.info.id).values(mac=row)) and None
    )
    secret = mine.text.split("_")[2][:43]
    assert "unknown" in await refusal(store, Key(theirs.info.id, secret).text)
