"""Reading `programme.toml`, and noting in the trail which version of it is in use."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from datetime import datetime
from importlib.resources import files
from pathlib import Path

from pydantic import ValidationError
from sqlalchemy import Connection, select

from transom.access.rights.trail import SYSTEM, Entry, note
from transom.errors import ConfigurationError
from transom.schema.canonical import CanonicalJson
from transom.schema.programme import Programme
from transom.storage.tables import trail

_ADOPT = "programme.adopt"

_TABLE = re.compile(r"\s*\[([^\[\]]+)\]\s*(?:#.*)?$")
_KEY = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r"""[\w-]+|"[^"]*"|'[^']*'""")


def default_text() -> str:
    """A programme to begin with, with comments."""
    return files("transom.access.programme").joinpath("programme.toml").read_text(encoding="utf-8")


def load(path: Path) -> Programme:
    """The programme in `path`, or the default one where there is no such file.

    Raises:
        ConfigurationError: the file cannot be read, or is no programme.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return parse(default_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    return parse(text, str(path))


def parse(text: str, source: str = "programme.toml") -> Programme:
    """The programme in `text`.

    Args:
        text: TOML.
        source: what to call it in errors.

    Raises:
        ConfigurationError: it is no programme; the message names the key, and the line where there is one.
    """
    try:
        return Programme.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{source} is not TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        # A union names in brackets which of its members it tried.
        path = [str(part) for part in first["loc"] if "[" not in str(part)]
        line = _line_of(text, path)
        where = f"{source}, line {line}" if line else source
        what = "is not known here" if first["type"] == "extra_forbidden" else first["msg"]
        raise ConfigurationError(
            f"{where}: {'.'.join(path) or 'the file'} {what[:1].lower()}{what[1:]}"
        ) from error


def _line_of(text: str, path: Sequence[str]) -> int | None:
    """The line that sets the deepest part of `path` which the text spells out."""
    found, depth = None, 0
    table: tuple[str, ...] = ()
    place: tuple[str, ...]
    for number, line in enumerate(text.splitlines(), 1):
        if header := _TABLE.match(line):
            place = table = _parts(header[1])
        elif key := _KEY.match(line):
            place = (*table, *_parts(key[1]))
        else:
            continue
        if len(place) > depth and place == tuple(path[: len(place)]):
            found, depth = number, len(place)
    return found


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in _PART.findall(dotted))


def adopted(connection: Connection) -> str | None:
    """Digest of the programme that was last noted."""
    query = select(trail.c.subject).where(trail.c.action == _ADOPT).order_by(trail.c.number.desc()).limit(1)
    return connection.execute(query).scalar()


def adopt(connection: Connection, programme: Programme, now: datetime) -> bool:
    """Note the programme in the trail, whole, unless it is the one that was noted last.

    Returns:
        Whether it is a new one.
    """
    if adopted(connection) == programme.digest:
        return False
    details: dict[str, CanonicalJson] = {"programme": programme.document, "order": list(programme.tiers)}
    note(connection, Entry(at=now, actor=SYSTEM, action=_ADOPT, subject=programme.digest, details=details))
    return True
