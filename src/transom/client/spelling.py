"""A record in a file, in one of the two spellings in which it is printed, and in no other.

What a record's bytes mean is bound by digests and signatures. How they are spelled is not: JSON may have
spaces, numbers more digits, and a field another name where a default steps in. A reader that looked past
this would take a file that was changed for the one that was saved. So the file is spelled again from what
was read, and has to be the same.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from typing import Any

from pydantic_core import to_json

from transom.errors import NotVerified
from transom.schema.record import RecordView


def read_record(content: str) -> RecordView:
    """The record in a file of `transom record show --json`, or of `GET /v1/records/{id}`.

    Raises:
        NotVerified: there is none, or it is spelled in another way.
    """
    mark = secrets.token_hex(16)
    try:
        parsed = json.loads(
            content,
            object_pairs_hook=_only_once,
            parse_float=lambda text: mark + _as_we_spell(text),
            parse_constant=_no_number,
        )
        view = RecordView.model_validate_json(content)
    except (ValueError, RecursionError) as error:
        raise NotVerified(f"this is no record: {str(error)[:300]}") from None
    if content.removesuffix("\n") not in _spellings(parsed, mark):
        raise NotVerified(
            "this record is not spelled as it is printed: it was changed, or formatted by something else; "
            "save it again with `transom record show ID --json`"
        )
    if view.model_dump(mode="json") != json.loads(content):
        raise NotVerified(
            "this record has fields that this version does not know, or lacks some: it was changed, or a "
            "newer version printed it"
        )
    return view


def _spellings(parsed: object, mark: str) -> tuple[str, str]:
    """On one line, as servers answer and pipes have it; and indented, as it stands on a terminal."""
    line = json.dumps(parsed, ensure_ascii=False, separators=(",", ":"))
    floats = re.compile(f'"{mark}([^"]*)"')
    return floats.sub(r"\1", line), floats.sub(r"\1", json.dumps(parsed, indent=2))


def _only_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field stands there twice")
    return found


def _as_we_spell(text: str) -> str:
    """A float's text, which must be the shortest: as Python spells it, or as pydantic does."""
    value = float(text)
    if text != repr(value) and text != to_json(value).decode():
        raise ValueError(f"{text[:80]!r} is a number that nobody spells so")
    return text


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no JSON")
