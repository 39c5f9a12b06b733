"""Signing in by a mailed link: what a link and its code are good for, and how often one may ask."""

from __future__ import annotations

import asyncio

import pytest

from tests.databases import only_sqlite
from tests.http import guests
from tests.http.guests import ADA, SITE, code_in, error_of, token_in

pytestmark = pytest.mark.anyio

street = guests.street


class TestLinks:
    async def test_a_link_signs_in_and_makes_the_account_of_who_is_new(self, street):
        browser = street.browser()
        welcomed = await browser.sign_in(" Ada@Example.ORG ")
        assert welcomed["person"]["email"] == ADA
        assert welcomed["person"]["id"].startswith("per_")
        assert welcomed["token"] is None
        assert (await browser.me())["id"] == welcomed["person"]["id"]

    async def test_the_next_link_leads_to_the_same_account(self, street):
        first, second = await street.browser().sign_in(), await street.program().sign_in()
        assert first["person"] == second["person"]

    async def test_a_program_gets_a_bearer_token_and_no_cookie(self, street):
        program = street.program()
        welcomed = await program.sign_in()
        assert welcomed["token"].startswith("ts_")
        assert not program.client.cookies
        assert (await program.me())["email"] == ADA

    @pytest.mark.parametrize("spell", [str, str.lower, lambda code: code.replace("-", " ")])
    async def test_the_code_beside_the_link_does_the_same(self, street, spell):
        program = street.program()
        asked = (await program.ask()).json()
        code = spell(code_in(await street.last_mail()))
        assert (await program.redeem(request=asked["request"], code=code)).status_code == 200

    async def test_the_code_counts_only_with_the_id_that_the_asker_was_told(self, street):
        program = street.program()
        await program.ask()
        code = code_in(await street.last_mail())
        other = (await program.ask("eve@example.org")).json()
        assert (
            error_of(await program.redeem(request=other["request"], code=code), 401)["code"] == "invalid_link"
        )

    async def test_after_five_wrong_codes_the_right_one_is_refused_and_so_is_the_link(self, street):
        program = street.program()
        asked = (await program.ask()).json()
        mail = await street.last_mail()
        wrong = "0000-0000" if code_in(mail) != "0000-0000" else "1111-1111"
        for _ in range(5):
            error_of(await program.redeem(request=asked["request"], code=wrong), 401)
        error_of(await program.redeem(request=asked["request"], code=code_in(mail)), 401)
        error_of(await program.redeem(token=token_in(mail)), 401)

    async def test_a_link_works_once_and_its_code_with_it(self, street):
        program = street.program()
        asked = (await program.ask()).json()
        mail = await street.last_mail()
        assert (await program.redeem(token=token_in(mail))).status_code == 200
        error_of(await program.redeem(token=token_in(mail)), 401)
        error_of(await program.redeem(request=asked["request"], code=code_in(mail)), 401)

    async def test_of_many_that_come_at_once_one_gets_in(self, street):
        program = street.program()
        await program.ask()
        token = token_in(await street.last_mail())
        replies = await asyncio.gather(*(program.redeem(token=token) for _ in range(20)))
        assert sorted(reply.status_code for reply in replies) == [200] + [401] * 19

    async def test_a_newer_link_leaves_the_older_one_good_once(self, street):
        program = street.program()
        await program.ask()
        older = token_in(await street.last_mail())
        street.clock.forward(seconds=1)
        await program.ask()
        newer = token_in(await street.last_mail())
        assert older != newer
        assert [(await program.redeem(token=each)).status_code for each in (older, newer, older, newer)] == [
            200,
            200,
            401,
            401,
        ]

    async def test_a_link_ends_after_fifteen_minutes(self, street):
        program = street.program()
        await program.ask()
        token = token_in(await street.last_mail())
        street.clock.forward(minutes=15)
        error_of(await program.redeem(token=token), 401)

    async def test_a_link_is_good_until_then(self, street):
        program = street.program()
        await program.ask()
        token = token_in(await street.last_mail())
        street.clock.forward(minutes=14, seconds=59)
        assert (await program.redeem(token=token)).status_code == 200

    async def test_fetching_the_link_uses_nothing_up(self, street):
        browser = street.browser()
        await browser.ask()
        token = token_in(await street.last_mail())
        for _ in range(3):
            page = await street.program().get(f"/sign-in#{token}")
            assert page.status_code == 200
            assert "no-store" in page.headers["cache-control"]
        assert (await browser.redeem(token=token)).status_code == 200

    async def test_the_page_runs_its_own_script_and_nothing_else(self, street):
        page = await street.browser().get("/sign-in")
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert page.headers["referrer-policy"] == "no-referrer"

    async def test_where_to_go_afterwards_comes_back(self, street):
        browser = street.browser()
        await browser.ask(next="/projects/prj_1?tab=keys")
        reply = await browser.redeem(token=token_in(await street.last_mail()))
        assert reply.json()["next"] == "/projects/prj_1?tab=keys"

    @pytest.mark.parametrize(
        "email",
        [
            "",
            "ada",
            "ada@",
            "@example.org",
            "ada@example",
            "ada@@example.org",
            "ada@example.org, eve@example.org",
            "Ada <ada@example.org>",
            "ada@example.org\r\nBcc: eve@example.org",
            "ada@example.org\n",
            "ad\u0131@example.org",
            "ada@ex\u00e4mple.org",
            "\u212aada@example.org",
            ".ada@example.org",
            "ada@-example.org",
            "a" * 65 + "@example.org",
            "ada@" + "a" * 250 + ".org",
        ],
    )
    async def test_what_is_no_address_is_refused_by_the_name_of_its_field(self, street, email):
        assert error_of(await street.program().ask(email), 400)["param"] == "email"
        assert await street.mails() == []

    @pytest.mark.parametrize(
        "proof",
        [
            {},
            {"token": "x", "code": "ABCD-EFGH"},
            {"request": "x"},
            {"code": "ABCD-EFGH"},
            {"token": "x", "request": "x", "code": "ABCD-EFGH"},
        ],
    )
    async def test_a_proof_is_one_thing(self, street, proof):
        error_of(await street.program().redeem(**proof), 400)

    @only_sqlite
    async def test_the_database_holds_no_secret(self, street, tmp_path):
        program, browser = street.program(), street.browser()
        await program.ask()
        mail = await street.last_mail()
        session = (await program.sign_in())["token"]
        await browser.sign_in("eve@example.org")
        told = [token_in(mail), code_in(mail), session, browser.session_cookie]
        stored = b"".join(path.read_bytes() for path in tmp_path.glob("transom.db*"))
        for secret in told:
            parts = secret.split("_")[-1]
            assert parts.encode() not in stored
            assert parts[:43].encode() not in stored

    async def test_mails_are_for_the_operators_eyes(self, street, tmp_path):
        await street.program().ask()
        await street.mails()
        (file,) = (tmp_path / "mail").iterdir()
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.parent.stat().st_mode & 0o777 == 0o700


class TestPace:
    async def test_an_address_gets_five_mails_and_then_one_each_five_minutes(self, street):
        for _ in range(5):
            assert (await street.program().ask()).status_code == 202
        reply = await street.program().ask()
        assert error_of(reply, 429)["code"] == "rate_limit_exceeded"
        assert len(await street.mails()) == 5
        street.clock.forward(seconds=int(reply.headers["retry-after"]) - 1)
        error_of(await street.program().ask(), 429)
        street.clock.forward(seconds=1)
        assert (await street.program().ask()).status_code == 202

    async def test_it_is_the_same_for_an_address_that_nobody_has(self, street):
        await street.program().sign_in()
        street.clock.forward(hours=1)
        known = [(await street.program().ask()).status_code for _ in range(7)]
        unknown = [(await street.program().ask("nobody@example.org")).status_code for _ in range(7)]
        assert known == unknown == [202] * 5 + [429] * 2

    async def test_a_network_is_slowed_down_whatever_it_asks_for(self, street):
        statuses = [(await street.program().ask(f"u{n}@example.org")).status_code for n in range(32)]
        assert statuses == [202] * 30 + [429] * 2

    async def test_a_refused_request_does_not_lengthen_the_wait(self, street):
        for _ in range(5):
            await street.program().ask()
        waits = [int((await street.program().ask()).headers["retry-after"]) for _ in range(10)]
        assert set(waits) == {300}


async def test_mails_name_the_site(street):
    await street.browser().ask()
    assert f"{SITE}/sign-in#tl_" in (await street.last_mail()).text
