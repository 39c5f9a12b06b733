"""The compose example names commands, options and settings that there are."""

from __future__ import annotations

import pytest
import typer
import yaml

from tests.documents import ROOT
from transom.cli.main import app
from transom.config import Settings

COMPOSE = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8"))
SERVICES = COMPOSE["services"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_runs_a_command_that_there_is(name):
    words = list(SERVICES[name]["command"])
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    assert command.make_context(name, [_there(word) for word in words]).params


def _there(word: str) -> str:
    """A file that exists here in the place of one that exists there."""
    return str(ROOT / "README.md") if word.startswith("/policy/") else word


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_settings_and_folders_that_there_are(name):
    service = SERVICES[name]
    known = {f"TRANSOM_{field.upper()}" for field in Settings.model_fields}
    assert service.get("environment", {}).keys() <= known
    kept = {volume.partition(":")[0] for volume in service["volumes"]} - {"./policy"}
    assert kept <= COMPOSE["volumes"].keys()


def test_no_two_services_share_what_they_have_seen():
    kept = [volume for service in SERVICES.values() for volume in service["volumes"] if "/data" in volume]
    assert len(kept) == len(set(kept)) == 3
