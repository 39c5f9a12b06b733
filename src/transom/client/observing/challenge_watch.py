"""Challenges of a log, held against it: whether each was met in time, and by what chance has chosen.

Nothing that a server says of itself is asked: what counts are the log's entries and the documents that have
their digests; see `transom.schema.challenges`. Whoever writes these may lie in each, and withhold any.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from transom.client.observing.challenge_rules import (
    DAY,
    SLACK,
    bad_levels,
    is_replayed,
    misreported,
    seconds,
    wrong,
)
from transom.client.observing.challenge_state import Fault, KnownChallenge, KnownVerdict, Outcome
from transom.client.observing.chance import undated, wrong_choice
from transom.client.observing.documents import Documents
from transom.client.observing.monitor import Alert
from transom.client.observing.monitor_state import MonitorState
from transom.errors import NotFound, NotInstalled, NotVerified
from transom.schema.challenges import Challenge, Verdict
from transom.schema.drand import QUICKNET
from transom.tlog.files import LogReader
from transom.tlog.policies import Policy
from transom.tlog.verified import VerifiedLog

_Any = TypeVar("_Any", bound=BaseModel)


class ChallengeWatch:
    """Looks at what is new in a log that has been read to its end.

    Args:
        log: with its documents.
        state: of the monitor of that log.
        policy: whose witnesses date checkpoints; None for nobody's.
        beacons: names of those that chance is taken from.
        clock: gives Unix seconds.
    """

    def __init__(
        self,
        log: LogReader,
        state: MonitorState,
        policy: Policy | None = None,
        beacons: Collection[str] = (QUICKNET,),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._log = log
        self._state = state
        self._policy = policy
        self._beacons = beacons
        self._clock = clock
        self._withheld: dict[str, Alert] = {}
        self._documents = Documents(log)
        self.notes: list[str] = []
        """What could not be told at the last look, for want of something here."""

    def look(self, verified: VerifiedLog, began: float | None = None) -> list[Alert]:
        """What is wrong with challenges and verdicts.

        Args:
            verified: the log.
            began: Unix seconds before its checkpoint was asked for; left out, now.
        """
        now = self._clock() if began is None else began
        self._withheld.clear()
        self._documents, self.notes = Documents(self._log), []
        alerts = [
            *self._read_verdicts(),
            *self._settled(),
            *self._judge(verified, now),
            *self._other_beacons(),
            *self._misses_days(now),
        ]
        if self._is_whole(verified):
            with self._state.changing():
                self._state.challenges.looked(now, verified.head.size)
        if self._withheld and not self._shows_documents():
            example = next(iter(self._withheld))
            self.notes.append(f"challenges: not checked here. Documents, such as {example}, are not there.")
            return alerts
        return [*alerts, *self._withheld.values()]

    @property
    def summary(self) -> str:
        """How many challenges came to what."""
        return ", ".join(f"{count} {outcome}" for outcome, count in self._state.challenges.outcomes())

    def _is_whole(self, verified: VerifiedLog) -> bool:
        """Whether all entries were read: else what seems not to be there may be in the rest."""
        return self._state.read >= verified.head.size

    def _read_verdicts(self) -> Iterator[Alert]:
        for known in self._state.challenges.unread():
            try:
                verdict = self._document(known.digest, Verdict)
            except NotVerified as error:
                yield Alert("unreadable-verdict", error.message, {"verdict": known.digest})
            except NotFound as error:
                self._withhold(known.digest, error)
            else:
                with self._state.changing():
                    if not self._state.challenges.read(known.digest, verdict.challenge):
                        message = f"There is more than one verdict: {known.digest} is another."
                        self._state.challenges.add_fault(verdict.challenge, ("wrong-verdict", message))

    def _settled(self) -> Iterator[Alert]:
        for digest, place, alert, message in self._state.challenges.faults():
            yield Alert(alert, message, {"challenge": digest, "place": place})

    def _judge(self, verified: VerifiedLog, now: float) -> Iterator[Alert]:
        # A verdict that cannot be read may be on any of them.
        may_settle = self._is_whole(verified) and not self._state.challenges.unread()
        for known in self._state.challenges.unsettled():
            facts: dict[str, str | int] = {"challenge": known.digest, "place": known.place}
            try:
                challenge = self._document(known.digest, Challenge)
                opened, lot = seconds(challenge.opened), challenge.lot
                with self._state.changing():
                    self._state.challenges.opened(known.digest, opened, None if lot is None else lot.beacon)
                outcome, is_final, faults = self._outcome(known, challenge, verified, now)
            except NotVerified as error:
                yield Alert("unreadable-challenge", error.message, facts)
                continue
            except NotFound as error:
                self._withhold(known.digest, error)
                continue
            except NotInstalled as error:
                self.notes.append(f"the lot of {known.digest} is not checked: {error.message}")
                continue
            yield from (Alert(alert, message, facts) for alert, message in faults)
            with self._state.changing():
                self._state.challenges.judge(known.digest, outcome)
                if may_settle and is_final:
                    self._state.challenges.settle(known.digest, faults)

    def _outcome(
        self, known: KnownChallenge, challenge: Challenge, verified: VerifiedLog, now: float
    ) -> tuple[Outcome | None, bool, list[Fault]]:
        """What came of it, whether for good, and what is wrong with it."""
        larger = 0 if known.absent is None else self._state.challenges.size_before(known.absent - SLACK)
        faults = [("wrong-challenge", each) for each in wrong(known, challenge, self._log, verified, larger)]
        deadline = seconds(challenge.deadline)
        if known.verdict is None:
            if now <= deadline + SLACK or not self._is_whole(verified):
                return None, False, faults
            message = f"There was no verdict until {challenge.deadline}."
            return "missed", False, [*faults, ("challenge-missed", message)]
        verdict, entry = self._document(known.verdict, Verdict), self._state.challenges.verdict(known.verdict)
        if seconds(verdict.judged) > deadline or (entry.absent or 0) > deadline + SLACK:
            message = f"The verdict came after the deadline, {challenge.deadline}."
            return "missed", True, [*faults, ("challenge-missed", message)]
        if faults:  # what it would draw from is not what it says
            return "refuted", True, faults
        faults = list(_told(known, challenge, entry, verdict, verified))
        late = [
            ("undated-challenge", each) for each in undated(known, challenge, verdict, verified, self._policy)
        ]
        if faults or late:
            # Another policy, whose witnesses are believed, may date it yet.
            return "refuted", not late, faults + late
        return ("met" if is_replayed(verdict) else "unreplayed"), True, []

    def _other_beacons(self) -> Iterator[Alert]:
        for beacon in self._state.challenges.beacons():
            if beacon not in self._beacons:
                message = f"Lots are drawn by {beacon}; say by --beacon if you take chance from it."
                yield Alert("unknown-beacon", message, {"beacon": beacon})

    def _misses_days(self, now: float) -> Iterator[Alert]:
        newest = self._state.challenges.newest_draw()
        if newest is not None and now - newest > 2 * DAY:
            yield Alert("no-lots", f"For {(now - newest) / DAY:.0f} days no lots have been drawn.")

    def _withhold(self, digest: str, error: NotFound) -> None:
        facts: dict[str, str | int] = {"document": digest}
        self._withheld[digest] = Alert("withheld-document", error.message, facts, may_pass=True)

    def _shows_documents(self) -> bool:
        """Whether documents are shown at all, as those are of which no challenge can be told."""
        if self._state.challenges.were_shown():
            return True
        deployment = self._state.any_of("deployment")
        if deployment is None:
            return False
        with suppress(NotVerified):  # another document is shown
            try:
                Documents(self._log).fetch(deployment)
            except NotFound:
                return False
        return True

    def _document(self, digest: str, kind: type[_Any]) -> _Any:
        """What an entry names.

        Raises:
            NotFound: it is not shown.
            NotVerified: it is something else.
        """
        try:
            content = self._documents.fetch(digest)
        except NotFound as error:
            named = f"the {kind.__name__.lower()} {digest}"
            raise NotFound(f"The log names {named}, and does not show it: {error.message}.") from None
        try:
            return kind.model_validate_json(content)
        except ValidationError as error:
            raise NotVerified(f"{digest} is no {kind.__name__.lower()}: {error.errors()[0]['msg']}") from None


def _told(
    known: KnownChallenge, challenge: Challenge, entry: KnownVerdict, verdict: Verdict, verified: VerifiedLog
) -> Iterator[Fault]:
    """What is wrong with a verdict, and what it tells that is wrong with records."""
    if entry.place < known.place:
        yield "wrong-verdict", "The verdict stands before its challenge in the log."
    yield from (("wrong-verdict", each) for each in wrong_choice(challenge, verdict))
    yield from (("wrong-verdict", each) for each in misreported(verdict, verified))
    yield from (("challenge-failed", each) for each in bad_levels(verdict))
