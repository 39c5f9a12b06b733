"""What other parts of the API stand on: who is signed in, and what they may do for the operator."""

from __future__ import annotations

import pytest

from tests.http.guests import error_of, open_street
from tests.offices import OPERATOR
from transom.api.dependencies import ThePerson
from transom.app import create_app
from transom.config import Settings
from transom.errors import ConfigurationError, Forbidden
from transom.services.people import roles

pytestmark = pytest.mark.anyio


@pytest.fixture
async def street(tokenizer, tmp_path):
    async with open_street(tmp_path, tokenizer) as street:

        @street.door.app.get("/for-people")
        async def for_people(person: ThePerson) -> str:
            return person.person_id

        @street.door.app.post("/for-reviewers")
        async def for_reviewers(person: ThePerson) -> str:
            if not person.reviews:
                raise Forbidden("This is for reviewers.", code="role_needed")
            return person.person_id

        yield street


async def test_only_people_pass_where_a_person_is_wanted(street):
    program = street.program()
    reply = await program.get("/for-people")
    assert error_of(reply, 401)["layer"] == "access"
    assert reply.headers["www-authenticate"] == "Bearer"
    person = (await program.sign_in())["person"]
    assert (await program.get("/for-people")).json() == person["id"]


async def test_only_those_with_the_role_pass_where_one_is_wanted(street):
    browser = street.browser()
    error_of(await browser.post("/for-reviewers"), 401)
    person = (await browser.sign_in())["person"]
    office = street.door.house.office
    assert error_of(await browser.post("/for-reviewers"), 403)["code"] == "role_needed"
    await roles.give(office, OPERATOR, person["email"], "reviewer")
    assert (await browser.post("/for-reviewers")).json() == person["id"]
    await roles.take(office, OPERATOR, person["email"], "reviewer")
    error_of(await browser.post("/for-reviewers"), 403)


async def test_a_cookie_needs_its_proof_there_too(street):
    browser = street.browser()
    person = (await browser.sign_in())["person"]
    await roles.give(street.door.house.office, OPERATOR, person["email"], "reviewer")
    del browser.client.headers["x-transom-csrf"]
    assert error_of(await browser.post("/for-reviewers"), 403)["code"] == "cross_site_request"


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"public_url": "http://transom.example.org"}, "TRANSOM_PUBLIC_URL"),
        ({"smtp_url": "smtp://mail.example.org"}, "TRANSOM_MAIL_FROM"),
        ({"smtp_url": "http://mail.example.org", "mail_from": "a@example.org"}, "TRANSOM_SMTP_URL"),
        ({"smtp_url": "smtp://mail.example.org", "mail_from": "nobody"}, "TRANSOM_MAIL_FROM"),
    ],
)
def test_a_setting_that_is_wrong_is_named_before_anything_is_opened(tmp_path, wrong, named):
    with pytest.raises(ConfigurationError, match=named):
        create_app(Settings(home=tmp_path / "home", **wrong), backends={})
    assert not (tmp_path / "home").exists()


def test_a_password_is_in_no_printed_settings():
    assert "hush" not in repr(Settings(smtp_url="smtps://ada:hush@mail.example.org"))
