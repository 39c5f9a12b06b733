"""What a server says of itself, held against its log: deployments, rules of access, records of a project."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from transom.client.failures import UnexpectedReply
from transom.client.observing.monitor import Alert
from transom.client.observing.monitor_state import Gap, MonitorState, Newest, OwnRecord
from transom.client.programme import programme
from transom.client.synchronous import Client
from transom.errors import NotFound, NotVerified
from transom.schema.programme import Programme, ProgrammeView
from transom.schema.record import MOST_RECORDS, RecordSummary
from transom.tlog.files import LogReader

SECONDS = 60.0
"""After which a record has to be in the log."""

_MOST_NAMED = 20

_PATIENCE = 1800.0
"""Seconds for all records of a project, which are read once."""


class ServerWatch:
    """Asks a server, with a key or without.

    Args:
        client: of the server.
        log: with its documents.
        state: of the log, which has been read to its end before.
        seconds: after which a record has to be in the log.
        clock: gives Unix seconds.
    """

    def __init__(
        self,
        client: Client,
        log: LogReader,
        state: MonitorState,
        seconds: float = SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._log = log
        self._state = state
        self._seconds = seconds
        self._clock = clock

    def deployments(self) -> list[Alert]:
        """Models that are served and whose deployments are not in the log.

        Raises:
            AccessDenied: they are told to those with a key only.
            NotFound: it is no server, but a copy of its log.
            ServerUnreachable: nobody is there.
        """
        try:
            served = self._client.models()
        except UnexpectedReply as error:  # the error page of whatever serves a copy
            raise NotFound(error.message) from error
        return [
            Alert(
                "unlogged-deployment",
                f"{model.id} is served as {model.digest}, which is not in the log.",
                {"model": model.id, "deployment": model.digest},
                may_pass=True,
            )
            for model in served
            if not self._state.has("deployment", model.digest)
        ]

    def policy(self) -> list[Alert]:
        """Whether the rules of access that are shown are those in the log.

        Raises:
            NotFound: it is no server, but a copy of its log.
            ServerUnreachable: nobody is there.
        """
        try:
            shown = self._client.send(programme())
        except UnexpectedReply as error:
            raise NotFound(error.message) from error
        wrong = self._unlike(shown)
        message = f"The rules of access are {shown.digest}, which {wrong}."
        return [Alert("unlogged-policy", message, {"policy": shown.digest}, may_pass=True)] if wrong else []

    def _unlike(self, shown: ProgrammeView) -> str | None:
        """In what way the log does not have these rules; None where it has them."""
        if not self._state.has("policy", shown.digest):
            return "is not in the log"
        try:
            content = self._log.document(shown.digest)
            logged = None if content is None else ProgrammeView.of(Programme.of(content))
        except (NotVerified, ValueError) as error:
            return f"cannot be read in the log: {str(error)[:200]}"
        if logged is None:
            return "the log names and does not show"
        # What scopes there are is no rule of this operator's, but of the version that is served.
        aside = {"scopes"}
        same = logged.model_dump(exclude=aside) == shown.model_dump(exclude=aside)
        return None if same else "are others in the log"

    def records(self) -> list[Alert]:
        """Records of the key's project that are missing, were changed, or are not in the log in time.

        Raises:
            AccessDenied: the key does not allow to read them.
            ServerUnreachable: nobody is there.
        """
        newest = next(iter(self._client.records(limit=1).data), None)
        if newest is None:
            gone = self._state.projects()
            return [Alert("gap", f"The records of {gone[0]} are gone.", {"project": gone[0]})] if gone else []
        project = newest.project
        alerts = list(self._follow(project, newest))
        gaps = self._state.gaps(project)
        if gaps:
            named = ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in gaps[:_MOST_NAMED])
            more = ", …" if len(gaps) > _MOST_NAMED else ""
            message = f"Records of {project} are missing: {named}{more}."
            alerts.append(Alert("gap", message, {"project": project}))
        return alerts + self._unlogged(project)

    def _follow(self, project: str, newest: RecordSummary) -> Iterator[Alert]:
        """Read back to the newest record that is known."""
        known = self._state.newest(project)
        if known is not None and newest.sequence < known.sequence:
            message = (
                f"The newest record of {project} is {newest.sequence}, and {known.sequence} has been seen."
            )
            yield Alert("gap", message, {"project": project})
            return
        fresh: list[OwnRecord] = []
        before, deadline = MOST_RECORDS, time.monotonic() + _PATIENCE
        for each in self._client.all_records():
            if each.sequence >= before or time.monotonic() > deadline:
                raise UnexpectedReply(f"The records of {project} come in no order, or to no end.")
            before = each.sequence
            if known is not None and each.sequence <= known.sequence:
                yield from self._compare(project, each, known)
                break
            fresh.append(OwnRecord(each.sequence, each.id, each.digest, self._since(each)))
        first = 1 if known is None else known.sequence + 1
        with self._state.changing():
            self._state.add_records(project, fresh, _missing(first, fresh))

    def _compare(self, project: str, record: RecordSummary, known: Newest) -> Iterator[Alert]:
        if (record.sequence, record.digest) != (known.sequence, known.digest):
            message = (
                f"Record {known.sequence} of {project} is not the one that has been seen: {known.digest}."
            )
            yield Alert("changed-record", message, {"project": project})

    def _since(self, record: RecordSummary) -> float:
        """When it was made; a time that is still to come, or is none, is not believed."""
        try:
            made = datetime.fromisoformat(record.created).replace(tzinfo=UTC).timestamp()
        except ValueError:
            return self._clock()
        return min(made, self._clock())

    def _unlogged(self, project: str) -> list[Alert]:
        alerts, found = [], []
        for record in self._state.pending(project):
            if self._state.has("record", record.digest):
                found.append(record.sequence)
            elif self._clock() - record.since > self._seconds:
                message = f"{record.id} is older than {self._seconds:.0f} seconds, and not in the log."
                facts: dict[str, str | int] = {"record": record.id, "digest": record.digest}
                alerts.append(Alert("unlogged-record", message, facts))
        with self._state.changing():
            self._state.found(project, found)
        return alerts


def _missing(first: int, fresh: list[OwnRecord]) -> Iterator[Gap]:
    """Numbers between `first` and the newest that are not there."""
    for number in sorted(record.sequence for record in fresh):
        if number > first:
            yield first, number - 1
        first = number + 1
