"""Who takes their project along takes along what it applied for, and what became of it."""

from programme_stage import ADA, BEN, EVE

from transom.access.rights import export


def lines(stage, project):
    found = stage.database.read_sync(lambda connection: list(export.project_lines(connection, project)))
    return {
        kind: [line for line in found if line["kind"] == kind] for kind in {line["kind"] for line in found}
    }


def test_nothing_of_another_project_is_in_it(stage):
    other = stage.add_project("prj_other", EVE)
    stage.submit(stage.draft(EVE, project=other, tier="open"), EVE)
    assert not lines(stage, stage.project).keys() & {
        "application",
        "application_event",
        "grant",
        "grant_change",
    }
    assert len(lines(stage, other)["grant"]) == 1


def test_applications_events_grants_and_changes_are_in_it_with_all_that_was_said(stage):
    application = stage.approved(tier="extended", funding="a foundation")
    stage.progress(application.grant, report="half of it is done")
    declined = stage.declined()
    found = lines(stage, stage.project)
    asked = {line["id"]: line["asked"] for line in found["application"]}
    assert asked.keys() == {application.id, declined.id}
    assert asked[application.id]["funding"] == "a foundation"
    assert {line["application_kind"] for line in found["application"]} == {"new"}
    assert [
        line["action"] for line in found["application_event"] if line["application_id"] == declined.id
    ] == [
        "create",
        "submit",
        "start_review",
        "decline",
    ]
    (grant,) = found["grant"]
    assert (grant["id"], grant["quotas"]["tokens_total"]) == (application.grant, 100_001)
    (change,) = found["grant_change"]
    assert (change["grant_change_kind"], change["reason"]) == ("progress", "half of it is done")


def test_a_person_takes_along_what_they_applied_for(stage):
    application = stage.draft()
    for person, expected in ((ADA, [application.id]), (BEN, [])):
        found = stage.database.read_sync(lambda c, person=person: export.person(c, person.person_id))
        assert [line["id"] for line in found["applications"]] == expected
