"""Terms: versions that take each other's place, and a proof of who accepted what."""

import pytest
from sqlalchemy import select

from tests.offices import ADA, BOB, OPERATOR
from transom.access.rights.trail import entries
from transom.errors import Conflict, InvalidRequest, NotFound
from transom.schema.canonical import sha256
from transom.services.people import terms
from transom.storage.tables import acceptances

pytestmark = pytest.mark.anyio


async def publish(desk, text="Be kind.", kind="terms"):
    desk.time.forward(seconds=1)
    return await terms.publish(desk.office, OPERATOR, kind, text)


@pytest.mark.parametrize("kind", ["", "Terms", "terms 1", "1", "x" * 17, "terms'; --"])
async def test_a_kind_is_a_short_word(desk, kind):
    with pytest.raises(InvalidRequest) as refused:
        await publish(desk, kind=kind)
    assert refused.value.param == "kind"


@pytest.mark.parametrize("text", ["", " \n", "x" * 200_001])
async def test_a_text_is_something_that_can_be_read(desk, text):
    with pytest.raises(InvalidRequest) as refused:
        await publish(desk, text)
    assert refused.value.param == "text"


async def test_the_text_in_force_is_not_published_again(desk):
    await publish(desk)
    with pytest.raises(Conflict, match="terms-1"):
        await publish(desk)
    await publish(desk, "Be kinder.")
    assert (await publish(desk)).version == "terms-3"


async def test_the_tenth_version_follows_the_ninth(desk):
    for number in range(1, 12):
        assert (await publish(desk, f"Be kind, {number}.")).version == f"terms-{number}"
    (current,) = await terms.list_in_force(desk.office)
    assert current.version == "terms-11"


async def test_a_version_is_kept_with_its_digest_and_each_kind_has_its_own(desk):
    first = await publish(desk, "Be kind.\n")
    privacy = await publish(desk, "We see little.", "privacy")
    second = await publish(desk, "Be kinder.")
    assert first.digest == sha256(b"Be kind.\n")
    assert await terms.list_in_force(desk.office) == [privacy, second]
    assert await terms.show(desk.office, "terms-1") == first


async def test_what_is_not_in_force_is_not_accepted(desk):
    await publish(desk)
    await publish(desk, "Be kinder.")
    with pytest.raises(Conflict, match="terms-2"):
        await terms.accept(desk.office, ADA, "terms-1")
    with pytest.raises(NotFound):
        await terms.accept(desk.office, ADA, "terms-3")


async def test_accepting_twice_keeps_the_first_time_even_of_a_version_that_is_gone(desk):
    await publish(desk)
    first = await terms.accept(desk.office, ADA, "terms-1")
    await publish(desk, "Be kinder.")
    assert await terms.accept(desk.office, ADA, "terms-1") == first
    assert first.accepted == "2026-01-31T12:00:01.000000Z"


async def test_an_acceptance_holds_person_version_digest_and_time(desk):
    text = await publish(desk)
    await terms.accept(desk.office, ADA, "terms-1")
    row = desk.database.read_sync(lambda c: c.execute(select(acceptances)).one())
    assert tuple(row) == (ADA.person_id, "terms-1", text.digest, desk.time.now)


async def test_each_person_stands_for_themselves(desk):
    await publish(desk)
    await publish(desk, "We see little.", "privacy")
    await terms.accept(desk.office, ADA, "terms-1")
    mine, theirs = [await terms.standing(desk.office, each) for each in (ADA, BOB)]
    assert ([each.version for each in mine.accepted], mine.asked) == (["terms-1"], ("privacy-1",))
    assert (theirs.accepted, theirs.asked) == ((), ("privacy-1", "terms-1"))


async def test_publishing_is_in_the_trail(desk):
    text = await publish(desk)
    (noted,) = desk.database.read_sync(entries)
    assert (noted.entry.action, noted.entry.subject) == ("terms.publish", "terms-1")
    assert noted.entry.details == {"digest": text.digest}
