"""The house stays as it is drawn: short files, described modules, no package for odds and ends."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.documents import ROOT

SOURCE = ROOT / "src" / "transom"
MODULES = sorted(SOURCE.rglob("*.py"))
MOST_LINES = 400


def shown(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=shown)
def test_a_module_is_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", MODULES, ids=shown)
def test_a_module_says_what_it_is(path):
    source = path.read_text(encoding="utf-8")
    assert not source.strip() or ast.get_docstring(ast.parse(source))


def parts_at_the_top() -> list[str]:
    """Packages, and modules beside them; both stand on a floor."""
    packages = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    return sorted(packages | {path.stem for path in SOURCE.glob("*.py")} - {"__init__"})


@pytest.mark.parametrize("part", parts_at_the_top())
def test_the_architecture_page_names_every_part(part):
    page = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    assert f"`{part}`" in page


def test_no_package_is_for_odds_and_ends():
    names = {path.parent.name for path in SOURCE.rglob("__init__.py")}
    assert names & {"utils", "util", "common", "helpers", "core", "misc"} == set()


def test_no_module_is_for_odds_and_ends():
    assert [
        shown(path) for path in MODULES if path.stem in {"utils", "util", "common", "helpers", "misc"}
    ] == []


def test_only_the_parts_that_wire_the_house_read_settings():
    readers = {
        shown(path)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == "transom.config"
    }
    assert {name.split("/")[0] for name in readers} <= {"app.py", "cli"}
