"""The commands of researcher and operator, against a running server and its own database."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from tests.http.door import settings
from tests.http.live import Live
from tests.http.people import by_name
from tests.http.programme_people import PROJECT, add_project
from transom.access.programme.programme import default_text, parse
from transom.api import dependencies
from transom.app import open_database
from transom.cli import output
from transom.cli.main import app as transom_app
from transom.client import Client
from transom.client.kept import KeptSessions
from transom.errors import Conflict

STUDY = f"""
project = "{PROJECT}"
tier = "research"
purpose = "Why do models stop?"
method = "Count."
conflicts = "none"
ethics = "none"
ends = 2099-12-31
"""


@pytest.fixture(scope="module")
def live(tokenizer, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dependencies, "person_of", by_name)
        with Live(home, tokenizer) as live:
            live.home = home
            yield live


@pytest.fixture
def project(live):
    """A project of the test's own; its id."""
    database = open_database(settings(live.home))
    live.projects = getattr(live, "projects", 0) + 1
    name = f"{PROJECT}{live.projects}"
    add_project(database, project_id=name)
    database.close()
    return name


@pytest.fixture(autouse=True)
def surroundings(live, monkeypatch):
    monkeypatch.setenv("TRANSOM_HOME", str(live.home))
    monkeypatch.setenv("TRANSOM_DATABASE_URL", settings(live.home).database)
    monkeypatch.setenv("TRANSOM_BASE_URL", live.url)
    monkeypatch.setenv("TRANSOM_SESSION", "ts_ada")
    for name in ("TRANSOM_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def transom(monkeypatch):
    """Run a command; what it printed, and its status."""

    def run(*arguments, session=None):
        if session is not None:
            monkeypatch.setenv("TRANSOM_SESSION", session)
        return CliRunner().invoke(transom_app, arguments, catch_exceptions=False)

    return run


@pytest.fixture(autouse=True)
def _plain(monkeypatch):
    from functools import partial

    from rich.console import Console

    made = partial(Console, highlight=False, markup=False, emoji=False, soft_wrap=True, force_terminal=False)
    monkeypatch.setattr(output, "out", made())
    monkeypatch.setattr(output, "err", made(stderr=True))


def well(result):
    assert result.exit_code == 0, result.output
    return result.stdout.rstrip("\n")


def test_the_template_is_a_file_that_apply_takes(transom, project, tmp_path):
    template = well(transom("apply", "--template"))
    file = tmp_path / "study.toml"
    file.write_text(template.replace("prj_…", project).replace('"""\n"""', '"Why?"'))
    application, state, grant = well(transom("apply", str(file))).split("\t")
    assert state == "approved"
    assert grant in well(transom("grant", "list", "--project", project))
    shown = well(transom("grant", "show", grant))
    assert "in_force" in shown
    assert "tokens_total" in shown
    assert application in well(transom("application", "list"))
    more = ("--kind", "supplement", "--grant", grant, "--purpose", "More.", "--quota", "tokens_total=1")
    refused = transom("apply", *more)
    assert "at most 2,000,000" in refused.stderr, "project and tier are those of the grant"


def test_from_a_file_to_a_decision_at_the_machine(transom, project, tmp_path):
    file = tmp_path / "study.toml"
    file.write_text(STUDY.replace(PROJECT, project).replace("2099-12-31", "2026-01-01"))
    refused = transom("apply", str(file))
    assert refused.exit_code == 2
    kept = refused.stderr.split("--change ")[1].strip().rstrip(".")
    file.write_text(STUDY.replace(PROJECT, project).replace("ends = 2099-12-31", ""))
    assert well(transom("apply", str(file), "--change", kept)).startswith(f"{kept}\tsubmitted")
    assert kept in well(transom("admin", "queue"))
    shown = well(transom("admin", "review", kept))
    assert "Why do models stop?" in shown
    assert "4. " in shown
    assert project not in shown, "the tier is reviewed blind"
    refused = transom("admin", "decide", kept, "approve", "--met", "1,2")
    assert (refused.exit_code, "Not ticked" in refused.stderr) == (2, True)
    decided = well(
        transom(
            "admin",
            "decide",
            kept,
            "approve",
            "--met",
            "all",
            "--quota",
            "tokens_total=7",
            "--reason",
            "a pilot",
        )
    )
    application, state, grant = decided.split("\t")
    assert (application, state) == (kept, "approved")
    assert json.loads(well(transom("grant", "show", grant, "--json")))["quotas"]["tokens_total"] == 7
    assert "a pilot" in well(transom("application", "show", kept))
    assert well(transom("admin", "end-grant", grant, "--reason", "over")).startswith(f"{grant}\tended")
    assert "over" in well(transom("grant", "show", grant))
    assert [line for line in well(transom("admin", "stats")).splitlines() if line.startswith("research\t")]


def test_a_declined_application_is_appealed_from_the_command_line(transom, project, tmp_path):
    file = tmp_path / "study.toml"
    file.write_text(STUDY.replace(PROJECT, project).replace("ends = 2099-12-31", ""))
    application = well(transom("apply", str(file))).split("\t")[0]
    assert transom("admin", "decide", application, "decline").exit_code == 2, "a reason is missing"
    well(transom("admin", "decide", application, "decline", "--reason", "not clear", "--met", "2"))
    appeal, state = well(transom("application", "appeal", application, "--reason", "look again")).split("\t")
    assert state == "submitted"
    refused = transom("admin", "decide", appeal, "approve", "--met", "all")
    assert (refused.exit_code, "somebody else" in refused.stderr) == (4, True)
    well(transom("application", "comment", appeal, "please"))
    assert well(transom("application", "withdraw", appeal)) == f"{appeal}\twithdrawn"


def test_options_stand_for_a_file_and_a_draft_stays_one(transom, project):
    made = well(transom("apply", "--project", project, "--tier", "open", "--purpose", "Why?", "--draft"))
    application, state = made.split("\t")
    assert state == "draft"
    assert well(transom("apply", "--change", application)).split("\t")[1] == "approved"


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("apply", "nowhere.toml"), 2, "cannot be read"),
        (("apply", "--tier", "open"), 2, "project: field required"),
        (("apply", "--project", "prj_x", "--tier", "open", "--quota", "tokens=5"), 2, "tokens_total"),
        (("apply", "--project", "prj_x", "--tier", "open"), 1, "prj_x"),
        (("application", "show", "grt_x"), 2, "app_"),
        (("grant", "show", "grt_x"), 1, "grt_x"),
        (("admin", "review", "app_x"), 1, "app_x"),
        (("admin", "decide", "app_x", "decline", "--reason", "x"), 1, "app_x"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, tuple) else str(part),
)
def test_what_cannot_be_done_says_why(transom, arguments, status, says):
    result = transom(*arguments)
    assert (result.exit_code, says in result.stderr) == (status, True), result.stderr


def test_who_is_not_signed_in_is_told_how(transom, live, monkeypatch, tmp_path):
    monkeypatch.delenv("TRANSOM_SESSION")
    monkeypatch.setenv("TRANSOM_SESSION_FILE", str(tmp_path / "sessions.json"))
    result = transom("grant", "list")
    assert (result.exit_code, "TRANSOM_SESSION" in result.stderr) == (4, True)
    KeptSessions().keep(live.url, "ts_ada")
    assert transom("grant", "list").exit_code == 0


def test_a_session_that_is_over_is_said_to_be(transom):
    result = transom("grant", "list", session="tr_nonsense")
    assert result.exit_code == 4
    assert "TRANSOM_SESSION" in result.stderr
    assert "TRANSOM_API_KEY" not in result.stderr


def test_the_programme_is_written_checked_and_shown(transom, monkeypatch, tmp_path):
    monkeypatch.setenv("TRANSOM_HOME", str(tmp_path))
    monkeypatch.setenv("TRANSOM_DATABASE_URL", settings(tmp_path).database)
    path = tmp_path / "programme.toml"
    assert well(transom("admin", "programme", "init")) == str(path)
    assert path.read_text() == default_text()
    again = transom("admin", "programme", "init")
    assert (again.exit_code, "left as it is" in again.stderr) == (1, True)
    checked = transom("admin", "programme", "check")
    assert checked.stdout.strip() == parse(default_text()).digest
    assert "next start" in checked.stderr
    path.write_text(default_text().replace("duration_days = 90", "duration_days = 0"))
    refused = transom("admin", "programme", "check")
    assert (refused.exit_code, "duration_days" in refused.stderr) == (1, True)
    assert "line " in refused.stderr
    path.unlink()
    assert json.loads(well(transom("admin", "programme", "show")))["digest"] == parse(default_text()).digest


def test_the_client_raises_a_conflict_as_one(live, project):
    from transom.client import programme

    with Client(live.url, "ts_ada") as client:
        body = {"project": project, "tier": "open", "purpose": "Why?"}
        draft = client.send(programme.create(body))
        assert client.send(programme.act(draft.id, "submit", {"version": 1})).state == "approved"
        with pytest.raises(Conflict, match="moved on"):
            client.send(programme.act(draft.id, "submit", {"version": 1}))
        assert client.send(programme.programme()).tiers[0].name == "open"
        assert client.send(programme.statistics()).tiers[0].granted >= 1
