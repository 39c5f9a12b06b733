"""What a challenge and a verdict have to be, for themselves and beside the log that they are in."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from transom.client.observing.challenge_state import KnownChallenge
from transom.errors import NotVerified
from transom.schema.challenges import Challenge, Verdict
from transom.tlog.checkpoints import open_checkpoint
from transom.tlog.entries import Entry
from transom.tlog.files import LogReader
from transom.tlog.tiles import WIDTH
from transom.tlog.verified import VerifiedLog

DAY = 86400.0

SLACK = 300.0
"""Seconds by which clocks may differ, and that a log may take to show what it has."""

_BAD = {"OUTSIDE", "MISSING"}
"""Levels that tell of a record that is not what the log says."""

_REPLAYED = {"EXACT", "WITHIN"}


def wrong(
    known: KnownChallenge, challenge: Challenge, log: LogReader, verified: VerifiedLog, larger: int
) -> Iterator[str]:
    """Ways in which a challenge is not one.

    Args:
        known: when and where its entry was seen.
        challenge: its document.
        log: that it is in.
        verified: the entries of that log.
        larger: how many entries the log is known to have had some time before the challenge was there.

    Raises:
        NotVerified: its checkpoint is none of the log's, or it names a time that is none.
    """
    head = open_checkpoint(challenge.checkpoint, log.key)[0]
    if head.size > known.place or not verified.begins_with(head):
        yield "The log does not have the checkpoint that the challenge names."
    elif head.size < max(larger, 1):
        yield f"Its checkpoint has {head.size} entries, and the log had {larger} before."
    if (challenge.index is None) == (challenge.lot is None):
        yield "It has to name either an entry or a lot."
    if challenge.index is not None and not 0 <= challenge.index < head.size:
        yield f"It names the entry {challenge.index} of {head.size}."
    if seconds(challenge.deadline) - seconds(challenge.opened) > DAY + SLACK:
        yield "Its deadline is more than a day away."
    if seconds(challenge.opened) > known.seen + SLACK:
        yield "It says that it was opened after it was seen in the log."


def misreported(verdict: Verdict, verified: VerifiedLog) -> Iterator[str]:
    """Entries that are not in the log as a verdict has them."""
    for found in verdict.found:
        if not 0 <= found.index < verified.head.size:
            yield f"The log has no entry {found.index}."
            continue
        entry = Entry.parse(verified.entries(found.index // WIDTH)[found.index % WIDTH])
        is_record = entry.kind == "record"
        if is_record != (found.level != "NO RECORD") or (is_record and found.digest != entry.digest):
            yield f"The log has {entry.kind} {entry.digest} at {found.index}, and the verdict says otherwise."


def bad_levels(verdict: Verdict) -> Iterator[str]:
    """Records that a verdict tells bad things of."""
    for found in verdict.found:
        if found.level in _BAD:
            reason = "" if found.reason is None else f", {found.reason}"
            yield f"Entry {found.index} was replayed: {found.level}{reason}."


def is_replayed(verdict: Verdict) -> bool:
    """Whether anything was replayed at all."""
    return any(found.level in _REPLAYED for found in verdict.found)


def seconds(spelled: str) -> float:
    """Unix seconds of a time in UTC (RFC 3339).

    Raises:
        NotVerified: it is none, or does not say where.
    """
    try:
        time = datetime.fromisoformat(spelled)
        if time.tzinfo is not None:
            return time.timestamp()
    except ValueError:
        pass
    raise NotVerified(f"{spelled[:40]!r} is no time")
