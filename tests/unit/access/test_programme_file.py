"""The programme's file: read strictly, and known by its digest."""

import pytest
from programme_stage import PROGRAMME
from sqlalchemy import select

from transom.access.programme.programme import adopt, adopted, default_text, load, parse
from transom.errors import ConfigurationError
from transom.schema.programme import ProgrammeView
from transom.schema.scopes import SCOPES
from transom.storage.tables import trail


def refusal(text):
    with pytest.raises(ConfigurationError) as refused:
        parse(text)
    return refused.value.message


def test_the_default_programme_is_one_and_follows_the_table_of_scopes():
    programme = parse(default_text())
    tiers = list(programme.tiers)
    assert tiers == ["open", "research", "extended"]
    for scope in SCOPES.values():
        lowest = next(name for name in tiers if scope.name in programme.tiers[name].scopes)
        assert lowest == scope.default_tier, scope.name
    assert not programme.tier("open").review


def test_where_there_is_no_file_the_default_counts(tmp_path):
    assert load(tmp_path / "programme.toml").digest == parse(default_text()).digest


def test_a_file_is_read(tmp_path):
    path = tmp_path / "programme.toml"
    path.write_text(PROGRAMME)
    assert load(path).name == "Test programme"


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "programme.toml"
    path.write_bytes(b'name = "\xff"')
    with pytest.raises(ConfigurationError, match=r"programme\.toml cannot be read"):
        load(path)


@pytest.mark.parametrize(
    ("before", "after", "line", "says"),
    [
        ("draft_days = 90", "draft_days = 90\ndraft_dyas = 5", 6, "draft_dyas is not known here"),
        ("draft_days = 90", 'draft_days = "90"', 5, "draft_days input should be a valid integer"),
        ("draft_days = 90", "draft_days = 0", 5, "draft_days input should be greater"),
        ("duration_days = 90", "", 8, "tiers.open.duration_days field required"),
        ('"model:bias"]', '"model:magic"]', 23, "tiers.research.scopes has no scopes model:magic"),
        ("decision_days = 14", "", 19, "tiers.research is reviewed, and so needs decision_days"),
        ("review = false", "review = false\nblind = true", 8, "tiers.open is not reviewed"),
        ("tokens_total = 1500", "tokens_total = 999", 8, "tiers.open grants more than its `most` allows"),
        ("tokens_total = 1500", "tokens_total = -1", 17, "tiers.open.most.tokens_total input should be"),
        ("requests_per_minute = 60", "requests_per_hour = 60", 14, "requests_per_hour is not known here"),
        ("[pools.tier.open]", "[pools.tier.vip]", None, "has a pool of a tier that it does not offer: vip"),
        ("[pools.key]", "[pools.secret]", 55, "pools.secret is not known here"),
        ("[tiers.open]", '[tiers."No Good"]', 8, "tiers.No Good"),
        (
            'models = ["small", "large"]',
            "models = 5",
            24,
            "tiers.research.models must be `all`, or a list of names",
        ),
        ('terms = "terms-1"', "", None, "terms field required"),
    ],
    ids=str,
)
def test_a_mistake_is_named_by_key_and_line(before, after, line, says):
    assert before in PROGRAMME
    message = refusal(PROGRAMME.replace(before, after, 1))
    assert says in message
    assert (f"line {line}:" in message) if line else ("line" not in message.partition(":")[0])


def test_what_is_not_toml_is_said_with_its_line():
    assert "line 2" in refusal('name = "x"\nthis is no toml')


def test_no_tiers_are_no_programme():
    assert "tiers" in refusal('name = "x"\ncontact = "y"\nterms = "z"\n[tiers]\n')


def test_the_digest_is_of_what_is_said_and_not_of_how():
    digest = parse(PROGRAMME).digest
    assert parse("# a comment\n" + PROGRAMME.replace("= 90", "=    90")).digest == digest
    assert parse(PROGRAMME.replace("= 1500", "= 1501")).digest != digest
    swapped = PROGRAMME.replace("[tiers.open", "[tiers.X").replace("[tiers.research", "[tiers.open")
    assert parse(swapped.replace("[tiers.X", "[tiers.research")).digest != digest


def test_the_order_of_tiers_is_part_of_it():
    head, first, second = "name='x'\ncontact='x'\nterms='x'\n", "", ""
    tier = '[tiers.{}]\ntitle="t"\nreview=false\nscopes=["model:sample"]\nduration_days=1\n'
    first, second = tier.format("a"), tier.format("b")
    assert parse(head + first + second).digest != parse(head + second + first).digest


def test_each_version_is_noted_once_whole(stage):
    programme = stage.desk.programme
    assert not stage.desk.open(), "noted when the stage was set"
    changed = parse(PROGRAMME.replace("Test programme", "Another programme"))
    for version, is_new in ((changed, True), (changed, False), (programme, True)):
        assert stage.database.write_sync(lambda c, v=version: adopt(c, v, stage.now)) == is_new
    assert stage.database.read_sync(adopted) == programme.digest
    notes = stage.look(select(trail).where(trail.c.action == "programme.adopt").order_by(trail.c.number))
    assert [note.subject for note in notes] == [programme.digest, changed.digest, programme.digest]
    assert '"name":"Another programme"' in notes[1].details


def test_a_grant_cites_the_version_under_which_it_was_given(stage):
    first = stage.approved(tier="open")
    digest = stage.desk.programme.digest
    stage.under(PROGRAMME.replace("Test programme", "Another programme"))
    assert stage.shown_grant(first.grant).programme == digest != stage.desk.programme.digest
    assert stage.approved(tier="research").state == "approved"
    assert stage.grant().programme == stage.desk.programme.digest


def test_what_is_shown_to_everybody_says_how_far_a_tier_goes():
    view = ProgrammeView.of(parse(PROGRAMME))
    (opened, *_) = view.tiers
    assert (opened.name, opened.quotas.tokens_total, opened.most.tokens_total) == ("open", 1000, 1500)
    assert opened.most.requests_per_minute == 60
    assert {scope.name for scope in view.scopes} == set(SCOPES)
    assert "pools" not in view.model_dump()
