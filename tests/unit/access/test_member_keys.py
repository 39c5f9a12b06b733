"""Keys of members: within the grant, rotated with a grace, and dead with their person, project or terms."""

from datetime import timedelta

import pytest
from sqlalchemy import event, update

from tests.offices import ADA, BOB, EVE, INSTANT, OPERATOR
from transom.access.keys.callers import Caller
from transom.access.keys.issuing import DEFAULT_GRACE, MAX_KEYS
from transom.access.rights.trail import entries
from transom.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    MissingScope,
    NotFound,
    Suspended,
    TermsNotAccepted,
    Unauthenticated,
)
from transom.schema.budgets import Quotas
from transom.schema.projects import ProjectChange
from transom.services.people import keys, projects, suspensions, terms
from transom.storage.tables import keys as table
from transom.storage.tables import members

pytestmark = pytest.mark.anyio


@pytest.fixture
async def project(desk):
    return (await desk.project()).id


async def caller(desk, key):
    return await desk.office.keys.authenticate(key.key)


class TestScopes:
    async def test_a_scope_beyond_the_grant_is_refused_by_name(self, desk, project):
        desk.granted[project] = frozenset({"model:sample", "records:read"})
        with pytest.raises(MissingScope, match="model:logprobs") as refused:
            await desk.key(project, scopes=["model:sample", "model:logprobs"])
        assert refused.value.scope == "model:logprobs"
        assert (await desk.key(project, scopes=["model:sample"])).scopes == {"model:sample"}

    async def test_a_project_without_a_grant_makes_no_key(self, desk, project):
        desk.granted[project] = frozenset()
        for scopes in (None, ["model:sample"]):
            with pytest.raises(Conflict, match="no grant"):
                await desk.key(project, scopes=scopes)

    @pytest.mark.parametrize("scopes", [[], ["model:everything"], ["model:sample", "x'; DROP TABLE keys"]])
    async def test_what_is_no_scope_is_refused(self, desk, project, scopes):
        with pytest.raises(InvalidRequest) as refused:
            await desk.key(project, scopes=scopes)
        assert refused.value.param == "scopes"

    async def test_a_narrowed_key_is_a_narrowed_caller(self, desk, project):
        key = await desk.key(
            project, scopes=["model:sample"], quotas=Quotas(tokens_per_day=10, released_rank=0)
        )
        assert await caller(desk, key) == Caller(
            project,
            key.id,
            person_id=ADA.person_id,
            scopes=frozenset({"model:sample"}),
            key_quotas={"tokens_per_day": 10, "released_rank": 0},
        )
        assert (await caller(desk, await desk.key(project))).scopes is None


class TestMaking:
    async def test_a_stranger_makes_none(self, desk, project):
        with pytest.raises(NotFound):
            await desk.key(project, EVE)

    @pytest.mark.parametrize("project_id", ["local", "anonymous"])
    async def test_nobody_makes_one_for_the_servers_own_projects(self, desk, project, project_id):
        with pytest.raises(NotFound):
            await desk.key(project_id)

    async def test_an_expired_one_is_not_made_and_days_are_days(self, desk, project):
        key = await desk.key(project, days=1)
        desk.time.now += timedelta(days=1) - INSTANT
        assert (await caller(desk, key)).key_id == key.id
        desk.time.now += INSTANT
        with pytest.raises(Unauthenticated, match="expired"):
            await caller(desk, key)

    async def test_living_keys_of_a_person_are_bounded(self, desk, project, monkeypatch):
        monkeypatch.setattr("transom.access.keys.issuing.MAX_KEYS", 2)
        assert MAX_KEYS > 2
        first, _ = await desk.key(project), await desk.key(project)
        with pytest.raises(Conflict, match="2 keys"):
            await desk.key(project)
        await keys.revoke(desk.office, ADA, first.id)
        await desk.key(project)

    async def test_a_suspended_person_makes_none(self, desk, project):
        await suspensions.suspend(desk.office, OPERATOR, f"person:{ADA.person_id}", "It was misused.")
        with pytest.raises(Suspended):
            await desk.key(project)


class TestSeeing:
    async def test_a_member_sees_their_own_and_who_leads_sees_all(self, desk, project):
        await desk.join(project, BOB, "admin")
        await desk.join(project, EVE)
        made = {}
        for person in (ADA, BOB, EVE):
            desk.time.forward(seconds=1)
            made[person] = (await desk.key(project, person)).id

        async def seen(person, project_id=project):
            return [key.id for key in await keys.list_visible(desk.office, person, project_id)]

        assert await seen(ADA) == await seen(BOB) == list(made.values())
        assert await seen(EVE) == await seen(EVE, None) == [made[EVE]]
        other = await desk.project(BOB)
        with pytest.raises(NotFound):
            await seen(EVE, other.id)


class TestRevoking:
    async def test_a_member_revokes_their_own_and_who_leads_any(self, desk, project):
        await desk.join(project, BOB)
        mine, theirs = await desk.key(project, ADA), await desk.key(project, BOB)
        with pytest.raises(Forbidden):
            await keys.revoke(desk.office, BOB, mine.id)
        await keys.revoke(desk.office, ADA, theirs.id)
        with pytest.raises(Unauthenticated, match="revoked"):
            await caller(desk, theirs)

    async def test_a_stranger_does_not_learn_that_there_is_a_key(self, desk, project):
        key = await desk.key(project)
        with pytest.raises(NotFound) as foreign:
            await keys.revoke(desk.office, EVE, key.id)
        with pytest.raises(NotFound) as absent:
            await keys.revoke(desk.office, EVE, "0" * 22)
        assert foreign.value.message.replace(key.id, "") == absent.value.message.replace("0" * 22, "")

    async def test_another_process_believes_it_for_a_second_at_most(self, desk, project):
        key, elsewhere = await desk.key(project), desk.elsewhere()
        await elsewhere.authenticate(key.key)
        await keys.revoke(desk.office, ADA, key.id)
        desk.time.forward(seconds=1)
        with pytest.raises(Unauthenticated, match="revoked"):
            await elsewhere.authenticate(key.key)

    async def test_an_operator_revokes_any_and_nobody_else_as_one(self, desk, project):
        key = await desk.key(project)
        with pytest.raises(Forbidden):
            await keys.revoke_as_operator(desk.office, ADA, key.id)
        await keys.revoke_as_operator(desk.office, OPERATOR, key.id)
        noted = desk.database.read_sync(entries)[0].entry
        assert (noted.actor, noted.action, noted.person_id) == ("operator:root", "key.revoke", ADA.person_id)


class TestRotation:
    async def test_the_old_key_ends_with_the_grace_to_the_microsecond(self, desk, project):
        old = await desk.key(project)
        new = await keys.rotate(desk.office, ADA, old.id, DEFAULT_GRACE)
        desk.time.now += DEFAULT_GRACE - INSTANT
        assert (await caller(desk, old)).retires == desk.time.now + INSTANT
        desk.time.now += INSTANT
        with pytest.raises(Unauthenticated, match=f"replaced by the key {new.id}"):
            await caller(desk, old)
        assert (await caller(desk, new)).retires is None

    async def test_it_ends_on_time_even_where_it_was_just_verified(self, desk, project):
        old = await desk.key(project)
        elsewhere = desk.elsewhere()
        await keys.rotate(desk.office, ADA, old.id, timedelta(seconds=0.5))
        await elsewhere.authenticate(old.key)
        desk.time.forward(seconds=0.5)
        with pytest.raises(Unauthenticated, match="replaced"):
            await elsewhere.authenticate(old.key)

    async def test_without_grace_the_old_key_ends_at_once(self, desk, project):
        old = await desk.key(project)
        await keys.rotate(desk.office, ADA, old.id, timedelta())
        with pytest.raises(Unauthenticated):
            await caller(desk, old)

    async def test_the_new_key_has_the_settings_of_the_old(self, desk, project):
        quotas = Quotas(requests_in_flight=2)
        old = await desk.key(project, name="notebook", scopes=["model:sample"], quotas=quotas, days=9)
        new = await keys.rotate(desk.office, ADA, old.id, DEFAULT_GRACE)
        own = {"id", "key", "created"}
        assert new.model_dump(exclude=own) == old.model_dump(exclude=own)
        assert new.id != old.id

    async def test_a_key_is_rotated_once(self, desk, project):
        old = await desk.key(project)
        new = await keys.rotate(desk.office, ADA, old.id, DEFAULT_GRACE)
        with pytest.raises(Conflict, match=new.id):
            await keys.rotate(desk.office, ADA, old.id, DEFAULT_GRACE)

    async def test_a_key_that_has_ended_is_not_rotated(self, desk, project):
        revoked, expired = await desk.key(project), await desk.key(project, days=1)
        await keys.revoke(desk.office, ADA, revoked.id)
        desk.time.forward(days=1)
        for key in (revoked, expired):
            with pytest.raises(Conflict, match="ended"):
                await keys.rotate(desk.office, ADA, key.id, DEFAULT_GRACE)

    async def test_only_whose_it_is_rotates_it(self, desk, project):
        await desk.join(project, BOB, "admin")
        key = await desk.key(project)
        with pytest.raises(NotFound):
            await keys.rotate(desk.office, BOB, key.id, DEFAULT_GRACE)

    @pytest.mark.parametrize("grace", [-INSTANT, timedelta(days=7) + INSTANT])
    async def test_the_grace_is_bounded(self, desk, project, grace):
        key = await desk.key(project)
        with pytest.raises(InvalidRequest) as refused:
            await keys.rotate(desk.office, ADA, key.id, grace)
        assert refused.value.param == "grace_seconds"


class TestOutcasts:
    async def test_the_key_of_a_person_who_left_is_refused_everywhere_within_a_second(self, desk, project):
        await desk.join(project, BOB)
        key, elsewhere = await desk.key(project, BOB), desk.elsewhere()
        await elsewhere.authenticate(key.key)
        await projects.remove(desk.office, BOB, project, BOB.person_id)
        with pytest.raises(Unauthenticated):
            await caller(desk, key)
        desk.time.forward(seconds=1)
        with pytest.raises(Unauthenticated):
            await elsewhere.authenticate(key.key)

    async def test_it_stays_refused_should_they_come_back(self, desk, project):
        await desk.join(project, BOB)
        key = await desk.key(project, BOB)
        await projects.remove(desk.office, BOB, project, BOB.person_id)
        await desk.join(project, BOB)
        with pytest.raises(Unauthenticated, match="revoked"):
            await caller(desk, key)

    async def test_without_membership_a_key_is_nothing_whatever_its_row_says(self, desk, project):
        key = await desk.key(project)
        gone = members.delete().where(members.c.person_id == ADA.person_id)
        desk.database.write_sync(lambda c: c.execute(gone).rowcount)
        with pytest.raises(Unauthenticated, match="left the project"):
            await caller(desk, key)

    @pytest.mark.parametrize("kind", ["key", "person", "project"])
    async def test_a_suspension_is_told_with_its_reason_everywhere_within_a_second(self, desk, project, kind):
        key, elsewhere = await desk.key(project), desk.elsewhere()
        await elsewhere.authenticate(key.key)
        name = {"key": key.id, "person": ADA.person_id, "project": project}[kind]
        await suspensions.suspend(desk.office, OPERATOR, f"{kind}:{name}", "It was on a public page.")
        with pytest.raises(Suspended, match="It was on a public page"):
            await caller(desk, key)
        desk.time.forward(seconds=1)
        with pytest.raises(Suspended, match=f"This {kind} was suspended"):
            await elsewhere.authenticate(key.key)
        await suspensions.lift(desk.office, OPERATOR, f"{kind}:{name}", "It was another one.")
        assert (await caller(desk, key)).key_id == key.id
        desk.time.forward(seconds=1)
        await elsewhere.authenticate(key.key)

    async def test_a_suspension_touches_nobody_else(self, desk, project):
        other = await desk.project(BOB)
        mine, theirs = await desk.key(project), await desk.key(other.id, BOB)
        await suspensions.suspend(desk.office, OPERATOR, f"project:{project}", "It was misused.")
        with pytest.raises(Suspended):
            await caller(desk, mine)
        await caller(desk, theirs)

    async def test_a_wrong_secret_learns_nothing_of_a_suspension(self, desk, project):
        from transom.access.credentials.keys import Key, mint

        key = await desk.key(project)
        await suspensions.suspend(desk.office, OPERATOR, f"key:{key.id}", "It was misused.")
        with pytest.raises(Unauthenticated, match="unknown"):
            await desk.office.keys.authenticate(Key(key.id, mint().secret).text)

    async def test_an_archived_project_is_read_and_not_asked(self, desk, project):
        key = await desk.key(project)
        await projects.change(desk.office, ADA, project, ProjectChange(archived=True))
        desk.time.forward(seconds=1)
        found = await caller(desk, key)
        with pytest.raises(Conflict, match="archived"):
            found.require_open()


class TestTerms:
    async def test_nothing_published_asks_nothing(self, desk, project):
        (await caller(desk, await desk.key(project))).require_open()

    async def test_a_new_version_asks_again(self, desk, project):
        key = await desk.key(project)
        for number in (1, 2):
            await terms.publish(desk.office, OPERATOR, "terms", f"Be kind, {number}.")
            with pytest.raises(TermsNotAccepted, match=f"terms-{number}/accept"):
                (await caller(desk, key)).require_open()
            await terms.accept(desk.office, ADA, f"terms-{number}")
            (await caller(desk, key)).require_open()

    async def test_every_kind_is_asked_and_every_person(self, desk, project):
        await desk.join(project, BOB)
        mine, theirs = await desk.key(project), await desk.key(project, BOB)
        for kind in ("terms", "privacy"):
            await terms.publish(desk.office, OPERATOR, kind, "Be kind.")
        await terms.accept(desk.office, ADA, "terms-1")
        assert (await caller(desk, mine)).unaccepted == "privacy-1"
        await terms.accept(desk.office, ADA, "privacy-1")
        assert (await caller(desk, mine)).unaccepted is None
        assert (await caller(desk, theirs)).unaccepted == "privacy-1"

    async def test_the_operators_own_key_is_asked_nothing(self, desk):
        key = await desk.office.keys.create()
        await terms.publish(desk.office, OPERATOR, "terms", "Be kind.")
        (await desk.office.keys.authenticate(key.text)).require_open()


async def test_all_that_stands_against_a_key_is_one_round_trip(desk, project):
    key = await desk.key(project)
    await desk.office.keys.authenticate(key.key)  # and notes its use
    seen = []
    for engine in (desk.database._reading, desk.database._writing):
        event.listen(engine, "before_cursor_execute", lambda *arguments: seen.append(arguments[2]))
    desk.office.keys.forget()
    await desk.office.keys.authenticate(key.key)
    # SQLite is told to begin; the driver of PostgreSQL begins with the first statement.
    assert [statement.split()[0] for statement in seen if statement != "BEGIN"] == ["SELECT"]


async def test_making_rotating_and_revoking_are_in_the_trail_without_the_secret(desk, project):
    old = await desk.key(project)
    new = await keys.rotate(desk.office, ADA, old.id, DEFAULT_GRACE)
    await keys.revoke(desk.office, ADA, new.id)
    await keys.revoke(desk.office, ADA, new.id)  # changes nothing
    noted = [each.entry for each in desk.database.read_sync(entries)]
    assert [(each.action, each.subject) for each in noted[:3]] == [
        ("key.revoke", new.id),
        ("key.rotate", old.id),
        ("key.create", old.id),
    ]
    for key in (old, new):
        assert key.key.split("_")[2] not in repr(noted)


async def test_a_row_that_was_moved_to_another_person_opens_nothing_where_they_are_not_in(desk, project):
    key = await desk.key(project)
    moved = update(table).where(table.c.id == key.id).values(person_id=EVE.person_id)
    desk.database.write_sync(lambda c: c.execute(moved).rowcount)
    desk.office.keys.forget()
    with pytest.raises(Unauthenticated, match="left"):
        await caller(desk, key)
