"""`transom admin` on a home of its own: what it prints, what it notes, and what it never shows."""

from __future__ import annotations

import ast
import asyncio
import json
from contextlib import contextmanager
from pathlib import Path

import pytest
import typer
from sqlalchemy import text
from typer.testing import CliRunner

from tests.offices import ADA, Desk, Letters, Time, record
from transom import cli
from transom.access.rights.trail import entries
from transom.app import mailer_of, open_database, open_office
from transom.cli.main import app
from transom.config import Settings
from transom.schema.scopes import ALL_SCOPES
from transom.tlog.sequencing import set_published

CANARY = "a light in the window"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSOM_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def transom(home):
    def run(*arguments):
        return CliRunner().invoke(app, [*arguments], catch_exceptions=False)

    return run


@contextmanager
def premises():
    """The office of this home, with every scope granted."""
    settings = Settings()
    database = open_database(settings)
    office = open_office(settings, database, mailer_of(settings))
    office.grant_scopes = lambda *_: ALL_SCOPES
    office.mailer = Letters()
    try:
        yield Desk(office, Time(), office.mailer, {})
    finally:
        database.close()


@pytest.fixture
def made(home):
    """Ids of a project, a key in it, and a record."""

    async def make(desk):
        project = await desk.project()
        key = await desk.key(project.id)
        return project.id, key.id, (await record(desk, project.id, key.id, CANARY)).id

    with premises() as desk:
        return asyncio.run(make(desk))


def trail():
    with premises() as desk:
        return [each.entry for each in desk.database.read_sync(entries)]


def test_the_operators_keys_are_made_listed_and_revoked(transom):
    made = transom("admin", "key", "create", "--name", "laptop", "--days", "2")
    key = made.stdout.strip()
    assert (made.exit_code, key[:3]) == (0, "tr_")
    key_id = key.split("_")[1]
    row = transom("admin", "key", "list").stdout.split("\t")
    assert row[:2] == [key_id, "laptop"]
    assert "revoked" in transom("admin", "key", "revoke", key_id).stdout
    assert transom("admin", "key", "revoke", "absent").exit_code == 1
    assert [each.action for each in trail()] == ["key.revoke", "key.create"]


@pytest.mark.parametrize("command", [("suspend",), ("lift",), ("record", "show")])
@pytest.mark.parametrize("reason", [(), ("--reason", ""), ("--reason", "  ")])
def test_nothing_is_done_to_a_researcher_without_a_reason(transom, made, command, reason):
    project, _, record_id = made
    subject = record_id if command[0] == "record" else f"project:{project}"
    before = len(trail())
    done = transom("admin", *command, subject, *reason)
    assert done.exit_code == 2
    assert CANARY not in done.output
    assert len(trail()) == before


def test_a_suspension_says_who_could_not_be_told(transom, made):
    project, _, _ = made
    done = transom("admin", "suspend", f"project:{project}", "--reason", "It was misused.")
    assert done.exit_code == 0
    assert ADA.person_id in done.stderr
    assert transom("admin", "suspend", f"project:{project}", "--reason", "Again.").exit_code == 1
    assert transom("admin", "lift", f"project:{project}", "--reason", "A mistake.").exit_code == 0
    assert [each.action for each in trail()[:2]] == ["project.lift", "project.suspend"]
    assert trail()[0].actor.startswith("operator:")


def test_a_record_is_shown_with_a_reason_which_is_noted(transom, made):
    _, _, record_id = made
    done = transom("admin", "record", "show", record_id, "--reason", "They asked us to.")
    assert CANARY in json.dumps(json.loads(done.stdout)["openings"])
    assert (trail()[0].action, trail()[0].reason) == ("record.read", "They asked us to.")


OF_THE_PROGRAMME = {
    "admin decide",
    "admin end-grant",
    "admin programme init",
    "admin review",
    "admin role give",
    "admin role take",
}
"""Commands about applications and people, which know no records."""

READ_NOTHING = {
    ("operator.py", "transom.records.audit"),
    ("admin_vault.py", "transom.records.sealing"),
    ("admin_signing.py", "transom.records.signing"),
}
"""One counts records, one seals them, one has the keys that sign them."""


def test_no_other_command_shows_what_was_asked(transom, made, tmp_path):
    """Every command of `transom admin` but the one, over a record with a prompt that is easy to find."""
    project, key_id, _ = made
    terms = tmp_path / "terms.txt"
    terms.write_text("Be kind.")
    arguments = {
        "admin key create": (),
        "admin key list": (),
        "admin key revoke": (key_id,),
        "admin pepper rotate": (),
        "admin pepper retire": ("1",),
        "admin suspend": (f"project:{project}", "--reason", "A test."),
        "admin lift": (f"project:{project}", "--reason", "A test."),
        "admin trail": (),
        "admin terms publish": (str(terms), "--kind", "terms"),
        "admin terms list": (),
        "admin reconcile": (),
        "admin role list": (),
        "admin queue": (),
        "admin stats": (),
        "admin programme show": (),
        "admin programme check": (),
        "admin log status": (),
        "admin log rebuild": (),
        "admin log key": (),
        "admin signing-key list": (),
        "admin signing-key rotate": (),
        "admin vault status": (),
        "admin vault rotate": (),
        "admin vault seal": (),
        "admin vault forget": (),
    }
    commands = set()

    def walk(name, command):
        for child, each in getattr(command, "commands", {}).items():
            commands.add(f"{name} {child}") if not getattr(each, "commands", None) else None
            walk(f"{name} {child}", each)

    walk("admin", typer.main.get_command(app).commands["admin"])
    assert commands == arguments.keys() | OF_THE_PROGRAMME | {"admin record show", "admin log calibrate"}
    for command, given in arguments.items():
        done = transom(*command.split(), *given)
        assert done.exit_code == 0 or command == "admin pepper retire", done.output
        assert CANARY not in done.output
    assert "record.read" not in {each.action for each in trail()}


def test_the_command_line_reads_openings_through_one_function():
    """No module of the command line has records at hand, but for looking for gaps."""
    found = set()
    for path in Path(cli.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("transom.records"):
                found.add((path.name, node.module))
            if isinstance(node, ast.Attribute) and node.attr == "records":
                found.add((path.name, ast.unparse(node)))
    # The researcher's own come over HTTP, or lie in files.
    over_http = {("researcher.py", "client.records"), ("researcher.py", "operations.records")}
    over_http |= {("evidence.py", "evidence.records"), ("bundling.py", "gatherer.records")}
    over_http.add(("evidence.py", "read_evidence(loose).records"))
    over_http.add(("observers.py", "self._server.records"))
    assert found <= READ_NOTHING | over_http


def test_the_trail_is_printed_and_verified(transom, made):
    done = transom("admin", "trail", "--limit", "1")
    assert done.stdout.split("\t")[3] == "key.create"
    assert "holds" in transom("admin", "trail", "--check").stdout
    assert transom("check").exit_code == 0


def test_a_trail_that_was_tampered_with_fails_both_checks(transom, made):
    with premises() as desk:
        for statement in (
            "DROP TRIGGER trail_is_not_changed",
            "UPDATE trail SET actor = 'per_x' WHERE number = 1",
        ):
            desk.database.write_sync(lambda c, statement=statement: c.execute(text(statement)).rowcount)
    for command in (("admin", "trail", "--check"), ("check",)):
        done = transom(*command)
        assert done.exit_code == 1
        assert "entry 1 of the trail was changed" in done.output


def test_a_statement_that_was_changed_is_found(transom, made):
    with premises() as desk:
        change = text(
            "UPDATE records SET statement = CAST(replace(statement, 'predicate', 'predicatf') AS BLOB)"
        )
        assert desk.database.write_sync(lambda c: c.execute(change).rowcount)
    done = transom("check")
    assert done.exit_code == 1
    assert "was changed" in done.output


def test_a_log_whose_files_are_gone_is_found(transom, made):
    with premises() as desk:
        desk.database.write_sync(lambda c: set_published(c, 1))
    done = transom("check")
    assert done.exit_code == 1
    assert "1 entries were published, and the files of the log have 0" in done.output


def test_where_there_is_no_database_none_is_made_and_called_sound(transom, home):
    done = transom("check")
    assert done.exit_code == 1
    assert f"There is no database in {home}" in " ".join(done.output.split())
    assert list(home.iterdir()) == []


def test_what_is_no_database_ends_in_one_line(transom, home):
    (home / "transom.db").write_bytes(b"nonsense" * 1000)
    done = transom("check")
    assert done.exit_code == 1
    assert "cannot be read" in done.output


def test_terms_are_published_from_a_file(transom, home, tmp_path):
    file = tmp_path / "terms.md"
    file.write_text("Be kind.")
    assert "terms-1" in transom("admin", "terms", "publish", str(file), "--kind", "terms").stdout
    assert transom("admin", "terms", "list").stdout.startswith("terms-1\t")
    assert transom("admin", "terms", "publish", str(file), "--kind", "terms").exit_code == 1
    assert transom("admin", "terms", "publish", str(tmp_path / "absent"), "--kind", "terms").exit_code == 2
    file.write_bytes(b"\xff")
    assert transom("admin", "terms", "publish", str(file), "--kind", "terms").exit_code == 2


def test_a_pepper_in_use_is_not_retired(transom, home):
    transom("admin", "key", "create")
    assert "pepper 2" in transom("admin", "pepper", "rotate").stdout
    refused = transom("admin", "pepper", "retire", "1")
    assert refused.exit_code == 1
    assert "1 keys" in refused.output
