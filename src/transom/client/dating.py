"""When a record was logged, by the clocks of witnesses, and not by that of the operator.

A witness that cosigns a checkpoint says that the log had so many entries then. An entry beyond them was
logged later, and one among them earlier.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from transom.errors import NotVerified
from transom.tlog.checkpoints import Checkpoint, cosigners
from transom.tlog.notes import Note, VerifierKey
from transom.tlog.policies import Policy

_FORM = "%Y-%m-%dT%H:%M:%S.%fZ"

PROMISED = 60.0
"""Seconds from an answer to its place under a cosigned checkpoint; also what clocks may differ by."""


def misdated(
    answered: str, index: int, heads: Iterable[tuple[Checkpoint, Note]], policy: Policy
) -> Iterator[str]:
    """Why a record cannot have been answered when it says.

    Args:
        answered: RFC 3339, UTC.
        index: of its entry.
        heads: checkpoints of its log that are believed, each with its note.
        policy: whose quorum is believed.
    """
    try:
        said = datetime.strptime(answered, _FORM).replace(tzinfo=UTC).timestamp()
    except ValueError:
        yield f"it was answered at {answered[:40]!r}, which is no time of a record"
        return
    later: list[int] = []
    earlier: list[int] = []
    for head, note in heads:
        times = _times(note, policy)
        if head.size <= index:
            later += _agreed(policy, times, from_newest=True)
        else:
            earlier += _agreed(policy, times, from_newest=False)
    if later and said < max(later) - PROMISED:
        yield (
            f"it was answered at {answered}, it says, and was not in the log at {_spelled(max(later))}: it "
            "is dated back, or was logged later than promised"
        )
    if earlier and said > min(earlier) + PROMISED:
        yield f"it was answered at {answered}, it says, and was in the log by {_spelled(min(earlier))}"


def _times(note: Note, policy: Policy) -> dict[VerifierKey, int]:
    try:
        return cosigners(note, [witness.key for witness in policy.witnesses.values()])
    except NotVerified:
        return {}


def _agreed(policy: Policy, times: dict[VerifierKey, int], *, from_newest: bool) -> Iterator[int]:
    """The time on whose one side a quorum lies; nothing where there is no quorum, or none is asked for.

    So nobody but a quorum together can put a record in the wrong.
    """
    seen: list[VerifierKey] = []
    for key, time in sorted(times.items(), key=lambda each: each[1], reverse=from_newest):
        seen.append(key)
        if policy.has_quorum(seen):
            yield time
            return


def _spelled(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds")
