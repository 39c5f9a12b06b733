"""What a session may do and when it ends, and one's own account."""

from __future__ import annotations

import pytest

from tests.http import guests
from tests.http.guests import ADA, code_in, error_of, open_street, token_in
from transom.access.sign_in.sessions import IDLE, LIFETIME, RECENT

pytestmark = pytest.mark.anyio

street = guests.street


class TestSessions:
    async def test_the_cookie_is_for_this_host_alone(self, street):
        browser = street.browser()
        await browser.ask()
        reply = await browser.redeem(token=token_in(await street.last_mail()))
        (cookie,) = [c for c in reply.headers.get_list("set-cookie") if "session" in c]
        assert cookie.startswith("__Host-transom_session=ts_")
        assert {part.strip().lower() for part in cookie.split(";")[1:]} == {
            "httponly",
            "secure",
            "path=/",
            "samesite=lax",
            f"max-age={int(LIFETIME.total_seconds())}",
        }

    async def test_on_this_machine_it_goes_without_tls(self, tokenizer, tmp_path):
        async with open_street(tmp_path, tokenizer, site="http://localhost:8600") as street:
            browser = street.browser()
            await browser.sign_in()
            assert browser.client.cookies.get("transom_session", "").startswith("ts_")
            assert (await browser.me())["email"] == ADA

    async def test_signing_out_ends_it_on_the_server(self, street):
        browser = street.browser()
        await browser.sign_in()
        kept = browser.session_cookie
        assert (await browser.post("/v1/auth/sign-out")).status_code == 204
        assert not browser.session_cookie
        browser.client.cookies.set("__Host-transom_session", kept)
        error_of(await browser.get("/v1/account"), 401)

    @pytest.mark.parametrize("days", [IDLE.days])
    async def test_it_ends_when_it_is_not_used(self, street, days):
        browser = street.browser()
        await browser.sign_in()
        street.clock.forward(days=days, seconds=-1)
        await browser.me()
        street.clock.forward(days=days)
        error_of(await browser.get("/v1/account"), 401)

    async def test_it_ends_after_thirty_days_even_if_it_is_used(self, street):
        program = street.program()
        await program.sign_in()
        for _ in range(29):
            street.clock.forward(days=1)
            await program.me()
        street.clock.forward(days=1)
        error_of(await program.get("/v1/account"), 401)

    async def test_they_are_listed_and_ended_one_by_one(self, street):
        browser, program = street.browser(), street.program()
        await browser.sign_in()
        street.clock.forward(minutes=5)
        await program.sign_in()
        listed = (await browser.get("/v1/account/sessions")).json()
        assert [(each["session"], each["method"], each["current"]) for each in listed] == [
            ("token", "link", False),
            ("cookie", "link", True),
        ]
        assert [each["agent"] for each in listed] == ["program/1", "browser/1"]
        gone = await browser.client.delete(f"/v1/account/sessions/{listed[0]['id']}")
        assert gone.status_code == 204
        error_of(await program.get("/v1/account"), 401)
        await browser.me()

    async def test_they_are_ended_all_at_once(self, street):
        browser, program = street.browser(), street.program()
        await browser.sign_in()
        await program.sign_in()
        assert (await browser.client.delete("/v1/account/sessions")).status_code == 204
        for guest in (browser, program):
            error_of(await guest.get("/v1/account"), 401)

    async def test_somebody_elses_cannot_be_ended_nor_seen_to_exist(self, street):
        ada, eve = street.browser(), street.browser()
        await ada.sign_in()
        await eve.sign_in("eve@example.org")
        (session,) = (await ada.get("/v1/account/sessions")).json()
        told = error_of(await eve.client.delete(f"/v1/account/sessions/{session['id']}"), 404)
        unknown = error_of(await eve.client.delete(f"/v1/account/sessions/{'0' * 22}"), 404)
        assert told["message"].replace(session["id"], "0" * 22) == unknown["message"]
        await ada.me()

    async def test_last_seen_is_kept_to_the_minute(self, street):
        program = street.program()
        await program.sign_in()

        async def last_seen():
            return (await program.get("/v1/account/sessions")).json()[0]["last_seen"]

        first = await last_seen()
        street.clock.forward(seconds=59)
        assert await last_seen() == first
        street.clock.forward(seconds=1)
        await program.me()
        assert await last_seen() > first

    async def test_a_session_makes_one_for_a_program_shortly_after_the_sign_in(self, street):
        browser, program = street.browser(), street.program()
        await browser.sign_in()
        made = (await browser.post("/v1/account/sessions")).json()
        program.client.headers["authorization"] = f"Bearer {made['token']}"
        assert (await program.me())["email"] == ADA
        street.clock.forward(seconds=RECENT.total_seconds() + 1)
        assert error_of(await browser.post("/v1/account/sessions"), 403)["code"] == "recent_sign_in_needed"

    async def test_a_key_is_no_person(self, street):
        program = street.program(authorization=f"Bearer {street.door.key}")
        assert "API key" in error_of(await program.get("/v1/account"), 401)["message"]

    async def test_a_session_is_no_key(self, street):
        program = street.program()
        await program.sign_in()
        error_of(await program.get("/v1/models"), 401)


class TestAccount:
    async def test_a_name_is_changed(self, street):
        program = street.program()
        await program.sign_in()
        reply = await program.client.patch("/v1/account", json={"name": "Ada Lovelace "})
        assert reply.json()["name"] == "Ada Lovelace"
        assert (await program.me())["name"] == "Ada Lovelace"

    @pytest.mark.parametrize("name", ["a\nb", "\x1b[31m", "x" * 201, 5])
    async def test_a_name_is_one_short_line(self, street, name):
        program = street.program()
        await program.sign_in()
        assert (
            error_of(await program.client.patch("/v1/account", json={"name": name}), 400)["param"] == "name"
        )

    async def test_an_export_has_all_about_oneself_and_no_secret(self, street):
        program = street.program()
        token = (await program.sign_in())["token"]
        reply = await program.get("/v1/account/export")
        account = reply.json()["account"]
        assert account["email"] == ADA
        assert [each["method"] for each in account["sessions"]] == ["link"]
        assert token not in reply.text
        assert "mac" not in reply.text

    async def test_other_columns_take_part_in_export_and_farewell(self, street):
        own_data, left = street.door.house.entrance.own_data, []
        own_data.on_export("elsewhere", lambda connection, person_id: {"of": person_id})
        own_data.on_delete(lambda connection, person_id, now: left.append((person_id, now)))
        program = street.program()
        person = (await program.sign_in())["person"]
        assert (await program.get("/v1/account/export")).json()["elsewhere"] == {"of": person["id"]}
        assert (await program.client.delete("/v1/account")).status_code == 204
        assert left == [(person["id"], street.clock.now)]

    async def test_who_leaves_is_forgotten_but_for_the_id(self, street, tmp_path):
        browser, program = street.browser(), street.program()
        before = (await browser.sign_in())["person"]["id"]
        await program.sign_in()
        assert (await program.client.delete("/v1/account")).status_code == 204
        for guest in (browser, program):
            error_of(await guest.get("/v1/account"), 401)
        again = (await street.browser().sign_in())["person"]["id"]
        assert again != before

    async def test_leaving_needs_a_recent_sign_in(self, street):
        program = street.program()
        await program.sign_in()
        street.clock.forward(seconds=RECENT.total_seconds() + 1)
        assert error_of(await program.client.delete("/v1/account"), 403)["code"] == "recent_sign_in_needed"
        await program.me()

    async def test_an_address_is_changed_by_who_reads_its_mail(self, street):
        program = street.program()
        await program.sign_in()
        asked = (await program.post("/v1/account/email", {"email": "ada@new.example.org"})).json()
        code = code_in(await street.last_mail("ada@new.example.org"))
        proof = {"request": asked["request"], "code": code}
        reply = await program.post("/v1/account/email/confirm", proof)
        assert reply.json()["email"] == "ada@new.example.org"
        error_of(await program.post("/v1/account/email/confirm", proof), 401)

    async def test_a_code_for_an_address_signs_nobody_in_and_serves_nobody_else(self, street):
        ada, eve = street.program(), street.program()
        await ada.sign_in()
        await eve.sign_in("eve@example.org")
        asked = (await ada.post("/v1/account/email", {"email": "new@example.org"})).json()
        proof = {"request": asked["request"], "code": code_in(await street.last_mail("new@example.org"))}
        error_of(await ada.redeem(**proof), 401)
        error_of(await eve.post("/v1/account/email/confirm", proof), 401)
        assert (await ada.post("/v1/account/email/confirm", proof)).status_code == 200

    async def test_an_address_that_somebody_has_is_not_taken_from_them(self, street):
        ada, eve = street.program(), street.program()
        await ada.sign_in()
        await eve.sign_in("eve@example.org")
        asked = (await eve.post("/v1/account/email", {"email": ADA})).json()
        street.clock.forward(seconds=1)
        proof = {"request": asked["request"], "code": code_in(await street.last_mail(ADA))}
        error_of(await eve.post("/v1/account/email/confirm", proof), 409)
        assert (await ada.me())["email"] == ADA


async def test_what_is_answered_about_people_is_kept_in_no_cache(street):
    program = street.program()
    await program.sign_in()
    for path in ("/v1/account", "/v1/account/export", "/v1/account/sessions", "/v1/auth/providers"):
        assert (await program.get(path)).headers["cache-control"] == "no-store", path
