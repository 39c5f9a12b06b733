"""Challenges of a log, held against it: whether each was met in time, and by what chance has chosen.

Nothing that a server says of itself is asked: what counts are the log's entries and the documents that have
their digests; see `transom.schema.challenges`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from transom.client.challenge_state import KnownChallenge, Outcome
from transom.client.chance import undated, wrong_choice
from transom.client.monitor import Alert
from transom.client.monitor_state import MonitorState
from transom.errors import NotFound, NotVerified
from transom.schema.challenges import Challenge, Judged, Verdict
from transom.tlog.checkpoints import open_checkpoint
from transom.tlog.entries import Entry
from transom.tlog.files import LogReader
from transom.tlog.policies import Policy
from transom.tlog.tiles import WIDTH
from transom.tlog.verified import VerifiedLog

_Any = TypeVar("_Any", bound=BaseModel)

DAY = 86400.0

_SLACK = 300.0
"""Seconds that a challenge may be open beyond a day, and clocks may differ."""

_BAD = {"OUTSIDE", "MISSING"}
"""Levels that tell of a record that is not what the log says."""


class ChallengeWatch:
    """Looks at what is new in a log that has been read to its end.

    Args:
        log: with its documents.
        state: of the monitor of that log.
        policy: whose witnesses date checkpoints; None for nobody's.
        clock: gives Unix seconds.
    """

    def __init__(
        self,
        log: LogReader,
        state: MonitorState,
        policy: Policy | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._log = log
        self._state = state
        self._policy = policy
        self._clock = clock
        self._withheld: dict[str, Alert] = {}

    def look(self, verified: VerifiedLog) -> list[Alert]:
        """What is wrong with challenges and verdicts.

        Raises:
            NotFound: whoever shows this log has never shown a document of it.
            NotVerified: files of the log do not fit its checkpoint.
            ServerUnreachable: nobody is there.
        """
        began = self._clock()
        self._withheld.clear()
        alerts = [*self._read_verdicts(), *self._settled(), *self._judge(verified), *self._misses_days()]
        with self._state.changing():
            self._state.challenges.looked(began)
        if self._withheld and not self._shows_documents():
            raise NotFound(f"the log's documents, such as {next(iter(self._withheld))}, are not there")
        return [*alerts, *self._withheld.values()]

    @property
    def summary(self) -> str:
        """How many challenges came to what."""
        return ", ".join(f"{count} {outcome}" for outcome, count in self._state.challenges.outcomes())

    def _read_verdicts(self) -> Iterator[Alert]:
        for known in self._state.challenges.unread():
            try:
                verdict = self._document(known.digest, Verdict)
            except NotVerified as error:
                yield Alert("unreadable-verdict", error.message, {"verdict": known.digest})
                continue
            except NotFound as error:
                self._withhold(known.digest, error)
                continue
            with self._state.changing():
                self._state.challenges.read(known.digest, verdict.challenge)

    def _settled(self) -> Iterator[Alert]:
        for digest, place, alert, message in self._state.challenges.faults():
            yield Alert(alert, message, {"challenge": digest, "place": place})

    def _judge(self, verified: VerifiedLog) -> Iterator[Alert]:
        for known in self._state.challenges.unsettled():
            facts: dict[str, str | int] = {"challenge": known.digest, "place": known.place}
            try:
                challenge = self._document(known.digest, Challenge)
                opened, is_drawn = _seconds(challenge.opened), challenge.lot is not None
                with self._state.changing():
                    self._state.challenges.opened(known.digest, opened, is_drawn=is_drawn)
                outcome, faults = self._outcome(known, challenge, verified)
            except NotVerified as error:
                yield Alert("unreadable-challenge", error.message, facts)
                continue
            except NotFound as error:
                self._withhold(known.digest, error)
                continue
            yield from (Alert(alert, message, facts) for alert, message in faults)
            if outcome is not None:
                with self._state.changing():
                    self._state.challenges.settle(known.digest, outcome, faults)

    def _outcome(
        self, known: KnownChallenge, challenge: Challenge, verified: VerifiedLog
    ) -> tuple[Outcome | None, list[tuple[str, str]]]:
        """What came of it, and what is wrong with it: kinds of alerts and their messages."""
        wrong = [("wrong-challenge", message) for message in _wrong(known, challenge, self._log, verified)]
        deadline = _seconds(challenge.deadline)
        if known.verdict is None:
            if self._clock() <= deadline:
                return None, wrong
            return "missed", [
                *wrong,
                ("challenge-missed", f"There was no verdict until {challenge.deadline}."),
            ]
        verdict = self._document(known.verdict, Verdict)
        absent = self._state.challenges.verdict(known.verdict).absent
        if _seconds(verdict.judged) > deadline or (absent is not None and absent > deadline):
            message = f"The verdict came after the deadline, {challenge.deadline}."
            return "missed", [*wrong, ("challenge-missed", message)]
        wrong += [("wrong-verdict", message) for message in wrong_choice(challenge, verdict)]
        late = undated(known, challenge, verdict, verified, self._policy)
        wrong += [("undated-challenge", message) for message in late]
        wrong += [("wrong-verdict", message) for message in _misreported(verdict, verified)]
        wrong += [("challenge-failed", _told(found)) for found in verdict.found if found.level in _BAD]
        return ("refuted" if wrong else "met"), wrong

    def _misses_days(self) -> Iterator[Alert]:
        newest = self._state.challenges.newest_draw()
        if newest is not None and self._clock() - newest > 2 * DAY:
            days = (self._clock() - newest) / DAY
            yield Alert("no-lots", f"For {days:.0f} days no lots have been drawn.")

    def _withhold(self, digest: str, error: NotFound) -> None:
        facts: dict[str, str | int] = {"document": digest}
        self._withheld[digest] = Alert("withheld-document", error.message, facts, may_pass=True)

    def _shows_documents(self) -> bool:
        """Whether documents are shown at all, as those are of which no challenge can be told."""
        if self._state.challenges.were_shown():
            return True
        deployment = self._state.any_of("deployment")
        try:
            return deployment is not None and self._log.document(deployment) is not None
        except NotVerified:
            return True

    def _document(self, digest: str, kind: type[_Any]) -> _Any:
        """What an entry names.

        Raises:
            NotFound: it is not shown.
            NotVerified: it is something else.
        """
        content = self._log.document(digest)
        if content is None:
            raise NotFound(f"The log names the {kind.__name__.lower()} {digest}, and does not show it.")
        try:
            return kind.model_validate_json(content)
        except ValidationError as error:
            raise NotVerified(f"{digest} is no {kind.__name__.lower()}: {error.errors()[0]['msg']}") from None


def _wrong(
    known: KnownChallenge, challenge: Challenge, log: LogReader, verified: VerifiedLog
) -> Iterator[str]:
    """Ways in which a challenge is not one."""
    head = open_checkpoint(challenge.checkpoint, log.key)[0]
    if head.size > known.place or not verified.begins_with(head):
        yield "The log does not have the checkpoint that the challenge names."
    if (challenge.index is None) == (challenge.lot is None):
        yield "It has to name either an entry or a lot."
    if challenge.index is not None and challenge.index >= head.size:
        yield f"It names the entry {challenge.index} of {head.size}."
    if _seconds(challenge.deadline) - _seconds(challenge.opened) > DAY + _SLACK:
        yield "Its deadline is more than a day away."
    if _seconds(challenge.opened) > known.seen + _SLACK:
        yield "It says that it was opened after it was seen in the log."


def _misreported(verdict: Verdict, verified: VerifiedLog) -> Iterator[str]:
    """Entries that are not in the log as a verdict has them."""
    for found in verdict.found:
        if not 0 <= found.index < verified.head.size:
            yield f"The log has no entry {found.index}."
            continue
        entry = Entry.parse(verified.entries(found.index // WIDTH)[found.index % WIDTH])
        is_record = entry.kind == "record"
        if is_record != (found.level != "NO RECORD") or (is_record and found.digest != entry.digest):
            yield f"The log has {entry.kind} {entry.digest} at {found.index}, and the verdict says otherwise."


def _told(found: Judged) -> str:
    reason = "" if found.reason is None else f", {found.reason}"
    return f"Entry {found.index} was replayed: {found.level}{reason}."


def _seconds(spelled: str) -> float:
    try:
        return datetime.fromisoformat(spelled).timestamp()
    except ValueError:
        raise NotVerified(f"{spelled[:40]!r} is no time") from None
