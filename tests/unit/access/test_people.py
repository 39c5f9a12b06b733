"""People, their roles, what is theirs, and the peppers behind their sessions."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from tests import databases
from transom.access.credentials.peppers import Peppers, generate
from transom.access.people.mail import MailFolder
from transom.access.people.origin import Origin
from transom.access.people.people import give_role, normal_email, person_by_email, take_role, with_role
from transom.access.sign_in.entrance import Entrance, Visitor
from transom.access.sign_in.identities import Claim
from transom.access.sign_in.links import Proof
from transom.errors import Conflict, InvalidRequest, NotFound, Unauthenticated
from transom.storage.database import Database
from transom.storage.tables import people, person_roles

pytestmark = pytest.mark.anyio

PROGRAM = Visitor(carrier="token", address="192.0.2.7", agent="test")


@pytest.fixture
def anyio_backend():
    return "asyncio"


class Time:
    def __init__(self):
        self.now = datetime(2026, 1, 31, tzinfo=UTC)

    def __call__(self):
        return self.now


@pytest.fixture
def database(tmp_path):
    database = Database(databases.fresh(tmp_path))
    yield database
    database.close()


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def open_entrance(database, time, tmp_path):
    def make(peppers):
        origin = Origin.parse("https://transom.example.org")
        return Entrance(database, peppers, origin, MailFolder(tmp_path / "mail"), {}, clock=time)

    return make


@pytest.fixture
def entrance(open_entrance):
    return open_entrance(generate())


async def arrive(entrance, email="ada@example.org"):
    link = await entrance.new_link(email, PROGRAM)
    session, _ = await entrance.by_link(Proof(link.token), PROGRAM)
    return session


class TestRoles:
    async def test_they_are_given_and_taken_and_it_is_kept_by_whom(self, entrance, database, time):
        person = (await arrive(entrance)).person
        assert person.roles == frozenset()
        given = await give(database, person.id, "reviewer", "operator:root", time)
        assert given.roles == {"reviewer"}
        assert [each.id for each in database.read_sync(lambda c: with_role(c, "reviewer"))] == [person.id]
        (row,) = database.read_sync(lambda c: c.execute(select(person_roles)).all())
        assert (row.given_by, row.given) == ("operator:root", time.now)
        taken = await database.write(lambda c: take_role(c, person.id, "reviewer"))
        assert taken.roles == frozenset()
        assert database.read_sync(lambda c: with_role(c, "reviewer")) == []

    async def test_a_second_time_changes_nothing(self, entrance, database, time):
        person = (await arrive(entrance)).person
        for by in ("operator:root", "operator:eve"):
            await give(database, person.id, "operator", by, time)
        (row,) = database.read_sync(lambda c: c.execute(select(person_roles)).all())
        assert row.given_by == "operator:root"

    async def test_nobody_has_none(self, database, time):
        with pytest.raises(NotFound):
            await give(database, "per_nobody", "operator", "x", time)

    async def test_a_person_is_found_by_any_spelling_of_the_address(self, entrance, database):
        person = (await arrive(entrance)).person
        assert database.read_sync(lambda c: person_by_email(c, " ADA@Example.org")).id == person.id
        with pytest.raises(NotFound):
            database.read_sync(lambda c: person_by_email(c, "eve@example.org"))


async def give(database, person_id, role, by, time):
    return await database.write(lambda c: give_role(c, person_id, role, by=by, now=time.now))


class TestLeaving:
    async def test_only_the_bare_id_stays(self, entrance, database, time):
        person = (await arrive(entrance)).person
        await give(database, person.id, "operator", "x", time)
        await entrance.own_data.leave(person.id)
        (row,) = database.read_sync(lambda c: c.execute(select(people)).mappings().all())
        assert dict(row) == {
            "id": person.id,
            "email": None,
            "name": "",
            "created": person.created,
            "deleted": time.now,
        }
        assert database.read_sync(lambda c: c.execute(select(person_roles)).all()) == []
        with pytest.raises(NotFound):
            await entrance.people.get(person.id)

    async def test_a_column_that_objects_keeps_all_of_it(self, entrance):
        new = await arrive(entrance)

        def object_(connection, person_id, now):
            raise Conflict("You own a project; hand it over first.")

        entrance.own_data.on_delete(object_)
        with pytest.raises(Conflict):
            await entrance.own_data.leave(new.person.id)
        assert (await entrance.sessions.resolve(new.text, "token")).person == new.person

    async def test_links_that_are_out_go_too(self, entrance):
        new = await arrive(entrance)
        link = await entrance.new_link("ada@example.org", PROGRAM)
        await entrance.own_data.leave(new.person.id)
        with pytest.raises(Unauthenticated):
            await entrance.by_link(Proof(link.token), PROGRAM)


class TestIdentities:
    async def test_an_identity_outlives_a_change_of_what_it_claims(self, entrance):
        first = await entrance.by_claim(Claim("https://i", "s", "Ada", "ada@example.org"), PROGRAM)
        second = await entrance.by_claim(Claim("https://i", "s", "Eve", "eve@example.org"), PROGRAM)
        assert second.person == first.person

    async def test_after_leaving_it_is_somebody_new(self, entrance):
        claim = Claim("https://i", "s")
        first = await entrance.by_claim(claim, PROGRAM)
        await entrance.own_data.leave(first.person.id)
        assert (await entrance.by_claim(claim, PROGRAM)).person.id != first.person.id


class TestPeppers:
    async def test_sessions_live_on_under_an_old_pepper(self, open_entrance):
        old = generate()
        new = await arrive(open_entrance(old))
        rotated = Peppers({**old.versions, 2: b"n" * 32}, 2)
        assert (await open_entrance(rotated).sessions.resolve(new.text, "token")).person == new.person

    async def test_without_it_they_are_refused(self, open_entrance):
        new = await arrive(open_entrance(generate()))
        with pytest.raises(Unauthenticated):
            await open_entrance(generate()).sessions.resolve(new.text, "token")

    async def test_a_link_of_one_kind_is_no_session(self, entrance):
        link = await entrance.new_link("ada@example.org", PROGRAM)
        for text in (link.token, link.token.replace("tl_", "ts_")):
            with pytest.raises(Unauthenticated):
                await entrance.sessions.resolve(text, "token")


async def test_nothing_secret_is_shown_by_accident(entrance):
    link = await entrance.new_link("ada@example.org", PROGRAM)
    new = await arrive(entrance)
    shown = repr(
        (link, new, Proof(link.token, link.id, link.code), Visitor(carrier="cookie", browser="b" * 43))
    )
    assert link.token not in shown
    assert link.code not in shown
    assert new.text not in shown
    assert "b" * 43 not in shown


async def test_what_is_over_is_swept_away(entrance, database, time):
    from transom.storage.tables import sessions, sign_in_links

    for number in range(3):
        await arrive(entrance, f"u{number}@example.org")
    time.now += timedelta(days=31)
    await arrive(entrance)
    for table in (sessions, sign_in_links):
        assert len(database.read_sync(lambda c, table=table: c.execute(select(table)).all())) == 1


@given(st.emails())
def test_an_address_has_one_spelling(email):
    try:
        once = normal_email(email)
    except InvalidRequest:
        return
    assert normal_email(once) == once == once.lower()
    assert once.isascii()
    assert not set(once) & set(' \r\n\t,;:<>"()[]\\\0')
    assert once.count("@") == 1


@given(st.text(max_size=30))
def test_no_address_holds_what_a_header_could_end_with(text):
    for email in (text, f"{text}@example.org", f"ada@{text}.org"):
        with suppress(InvalidRequest):
            assert not set(normal_email(email)) & set(' \r\n\t,;:<>"()[]\\\0')
