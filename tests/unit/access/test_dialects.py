"""The life of a project, its people and keys, on each database."""

import json
import re
from datetime import timedelta

import pytest

from tests.offices import ADA, BOB, OPERATOR, open_desk, record
from transom.access.projects.roles import Role
from transom.access.rights import export, trail
from transom.errors import Suspended, Unauthenticated
from transom.schema.projects import ProjectChange
from transom.services.people import keys, projects, rights, suspensions, terms

pytestmark = pytest.mark.anyio


@pytest.fixture
def desk(database_url):
    with open_desk(database_url) as desk:
        yield desk


async def test_from_its_making_to_its_deletion(desk):
    office = desk.office
    project = (await desk.project(description="Wörter \U0001f600", embargo_months=12)).id
    await projects.invite(office, ADA, project, "bob@example.org", Role.ADMIN)
    (secret,) = re.findall(r"ti_\w+", desk.letters.kept[0].text)
    assert (await projects.accept(office, BOB, secret)).role == "admin"
    await projects.transfer(office, ADA, project, BOB.person_id)
    changed = await projects.change(office, BOB, project, ProjectChange(embargo_months=0))
    assert (changed.role, changed.embargo_months) == ("owner", 0)

    old = await desk.key(project, scopes=["model:sample"], quotas={"tokens_per_day": 5}, days=30)
    new = await keys.rotate(office, ADA, old.id, timedelta(hours=1))
    for key in (old, new):
        caller = await office.keys.authenticate(key.key)
        assert (caller.person_id, caller.key_quotas) == (ADA.person_id, {"tokens_per_day": 5})
    desk.time.forward(hours=1)
    with pytest.raises(Unauthenticated, match="replaced"):
        await office.keys.authenticate(old.key)

    for subject in (f"key:{new.id}", f"person:{ADA.person_id}", f"project:{project}"):
        await suspensions.suspend(office, OPERATOR, subject, "It was misused.")
        with pytest.raises(Suspended):
            await office.keys.authenticate(new.key)
        await suspensions.lift(office, OPERATOR, subject, "A mistake.")
    await terms.publish(office, OPERATOR, "terms", "Be kind.")
    assert (await office.keys.authenticate(new.key)).unaccepted == "terms-1"
    await terms.accept(office, ADA, "terms-1")
    assert (await office.keys.authenticate(new.key)).unaccepted is None

    made = await record(desk, project, new.id, "a light")
    assert (await rights.read_record(office, OPERATOR, made.id, "They asked.")).openings != {}
    stream = await rights.export_project(office, BOB, project)
    kinds = [json.loads(line)["kind"] async for line in stream]
    assert {"project", "member", "embargo", "invitation", "key", "trail", "record"} == set(kinds)
    assert len(desk.database.read_sync(lambda c: export.person(c, ADA.person_id))["keys"]) == 2

    await projects.remove(office, ADA, project, ADA.person_id)
    with pytest.raises(Unauthenticated):
        await office.keys.authenticate(new.key)
    assert (await rights.delete_project(office, BOB, project, "Lenses")).openings == 1
    assert desk.database.read_sync(lambda c: list(trail.broken(c))) == []
    assert desk.database.read_sync(trail.entries)[0].entry.action == "project.delete"
