"""Reference pages about the source as a whole: its modules, its tree, and the table of scopes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from scripts.markdown import NOTE, first_sentence, table
from transom.schema.scopes import SCOPES

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "transom"


def scopes() -> Iterator[str]:
    """`scopes.md`."""
    yield from ("# Scopes", "", NOTE, "")
    yield (
        "What a grant, and a key, can allow. The lowest tier that has a scope is the one below, unless the "
        "operator's [programme](../howto/run-a-programme.md) says otherwise; `GET /v1/programme` tells."
    )
    yield ""
    rows = [(f"`{each.name}`", each.allows, each.exposes, each.default_tier) for each in SCOPES.values()]
    yield from table(("scope", "what it allows", "what it exposes of the weights", "lowest tier"), rows)
    yield (
        "A request that needs a scope which its key has not is a 403, `insufficient_scope`; the message "
        "names the scope, and says how to get it."
    )


def modules() -> Iterator[str]:
    """`modules.md`."""
    yield from (
        "# Modules",
        "",
        NOTE,
        "",
        "Every module of `src/transom`, by the first sentence of its description.",
        "",
    )
    paths = sorted(path for path in SOURCE.rglob("*.py") if _sentence(path))
    yield from table(("module", "what it is"), [(f"`{_shown(path)}`", _sentence(path)) for path in paths])


def tree() -> Iterator[str]:
    """The block in the README: packages and modules at the top."""
    found = [path for path in SOURCE.glob("*.py") if path.stem != "__init__"]
    found += SOURCE.glob("*/__init__.py")
    yield from ("```text", "src/transom/")
    for path in sorted(found, key=lambda path: (path.name != "__init__.py", _shown(path))):
        yield f"  {_shown(path):<12} {_sentence(path)}"
    yield "```"


def _shown(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix().removesuffix("__init__.py") or "."


def _sentence(path: Path) -> str:
    return first_sentence(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "")
