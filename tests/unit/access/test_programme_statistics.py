"""Public numbers: each submitted application counts once, and nobody can be told from them."""

from programme_stage import ADA, EVE, PROGRAMME, ROB

from transom.access.programme.statistics import statistics


def counts(stage):
    found = stage.do(lambda connection, occasion: statistics(connection, occasion.programme))
    return {tier.tier: tier for tier in found.tiers}


def row(tier):
    return (tier.asked, tier.granted, tier.declined, tier.pending, tier.closed, tier.appeals)


def test_an_empty_programme_has_a_row_of_noughts_for_each_tier(stage):
    found = counts(stage)
    assert list(found) == ["open", "research", "extended"]
    assert {row(tier) for tier in found.values()} == {(0,) * 6}
    assert {tier.median_days_to_decide for tier in found.values()} == {None}


def test_each_application_counts_once_where_it_stands(stage):
    stage.draft()
    stage.withdraw(stage.draft())
    stage.approved(tier="open")
    stage.withdraw(stage.submitted())
    stage.submitted()
    stage.review(stage.submitted())
    stage.ask_changes(stage.review(stage.submitted()))
    declined = stage.declined()
    stage.decline(stage.review(stage.appeal(stage.show(declined)), ROB), ROB)
    stage.approved()
    found = counts(stage)
    assert row(found["open"]) == (1, 1, 0, 0, 0, 0)
    assert row(found["research"]) == (7, 1, 2, 3, 1, 1)
    for tier in found.values():
        assert tier.asked == tier.granted + tier.declined + tier.pending + tier.closed


def test_the_median_counts_from_the_first_submission_to_the_decision(stage):
    other = stage.add_project("prj_second", EVE)
    third = stage.add_project("prj_third", ADA)
    one = stage.review(stage.submitted())
    two = stage.review(stage.submit(stage.draft(EVE, project=other), EVE))
    three = stage.review(stage.submitted(project=third))
    stage.forward(days=1, hours=6)
    stage.approve(one)
    stage.forward(days=1)
    given_back = stage.ask_changes(three)
    again = stage.submit(stage.edit(stage.show(given_back), purpose="better"))
    stage.forward(days=1)
    stage.decline(two)
    assert counts(stage)["research"].median_days_to_decide == "2.25"
    stage.forward(days=6, hours=18)
    stage.approve(stage.review(again))
    assert counts(stage)["research"].median_days_to_decide == "3.25"


def test_a_tier_that_is_no_longer_offered_keeps_its_numbers(stage):
    stage.approved()
    stage.under(PROGRAMME.replace("[tiers.research", "[tiers.study"))
    found = counts(stage)
    assert list(found) == ["open", "study", "extended", "research"]
    assert row(found["research"]) == (1, 1, 0, 0, 0, 0)
    assert row(found["study"]) == (0,) * 6
