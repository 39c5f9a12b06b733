"""Names of records, and cursors into their lists."""

from __future__ import annotations

import base64
import re
import secrets
import time

from transom.errors import InvalidRequest

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = tuple(first + second for first in _CROCKFORD for second in _CROCKFORD)
_RECORD_ID = re.compile(rf"rec_[{_CROCKFORD}]{{26}}")
_CURSOR_MARK = b"r1"


def new_record_id() -> str:
    """`rec_` and 26 characters: 48 bits of Unix milliseconds, then 80 random bits.

    Sorts by time, to the millisecond. The form is that of https://github.com/ulid/spec, in lower case.
    """
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return "rec_" + "".join([_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])


def is_record_id(text: str) -> bool:
    """Whether `text` could name a record."""
    return _RECORD_ID.fullmatch(text) is not None


def cursor_after(sequence: int) -> str:
    """The cursor that continues after the record with this number."""
    return base64.urlsafe_b64encode(_CURSOR_MARK + sequence.to_bytes(7, "big")).decode()


def sequence_of(cursor: str) -> int:
    """The number in a cursor.

    Raises:
        InvalidRequest: this server did not give it out.
    """
    try:
        raw = base64.b64decode(cursor, b"-_", validate=True)
    except ValueError:
        raw = b""
    if len(raw) != 9 or not raw.startswith(_CURSOR_MARK) or cursor_after(int.from_bytes(raw[2:])) != cursor:
        raise InvalidRequest(
            "This is not a cursor: pass the `after` of the page before, or leave it out.", param="after"
        )
    return int.from_bytes(raw[2:])
