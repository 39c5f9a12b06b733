"""`transom monitor` and `transom mirror`: watch a log from outside, and keep a copy of it."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import httpx2
import typer

from transom.cli import output
from transom.cli.evidence import Keys, read_keys, trusted_policy
from transom.cli.output import ExitCode, exit_on_error
from transom.cli.researcher import ApiKey
from transom.client import Client, ServerUnreachable, UnexpectedReply
from transom.client.connection import Connection
from transom.client.observing.challenge_watch import ChallengeWatch
from transom.client.observing.mirror import Mirror
from transom.client.observing.monitor import Alert, Claim, Monitor
from transom.client.observing.monitor_state import MonitorState
from transom.client.observing.remote_log import RemoteLog
from transom.client.observing.server_watch import ServerWatch
from transom.errors import (
    AccessDenied,
    InvalidRequest,
    NotFound,
    NotVerified,
    StorageError,
    TransomError,
)
from transom.schema.drand import QUICKNET
from transom.schema.record import rfc3339
from transom.tlog.notes import VerifierKey
from transom.tlog.proofs import HEADER, Proof

Url = Annotated[str, typer.Argument(metavar="URL", help="A server's address, or the prefix of a log.")]

_AGAIN = 1.0
"""Seconds until what may pass is looked at again."""

_TIMEOUT = httpx2.Timeout(30, connect=5)
_MOST_SECONDS = 120.0
"""How long one reply may take, all in all: who lets bytes trickle must not hold up who watches."""

_HOSTS = ("http://", "https://")


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    app.command()(monitor)
    app.command()(mirror)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a monitor was asked to look at."""

    url: str
    key: VerifierKey
    compare: tuple[str, ...]
    """Files and addresses of checkpoints that others have."""
    with_records: bool
    """Whether there is a key to ask for a project's records with."""


@exit_on_error
def monitor(  # noqa: PLR0913, PLR0917  # one for each option
    url: Url,
    keys: Keys,
    policy: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Who must have cosigned (c2sp.org/tlog-policy)."),
    ] = None,
    state: Annotated[
        Path | None, typer.Option(file_okay=False, help="Where it remembers; else in ~/.local/state.")
    ] = None,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 10.0,
    once: Annotated[
        bool, typer.Option("--once", help="Look once, and end with 1 if anything is wrong.")
    ] = False,
    compare: Annotated[
        list[str] | None,
        typer.Option(help="Checkpoint or receipt that others have: a file or an address. May be repeated."),
    ] = None,
    beacon: Annotated[
        list[str] | None,
        typer.Option(help="Name of a beacon that lots may be drawn by; else drand's quicknet. Repeatable."),
    ] = None,
    standstill: Annotated[
        float | None, typer.Option(min=0, help="Alert when the checkpoint is older than so many seconds.")
    ] = None,
    record_seconds: Annotated[
        float, typer.Option(min=0, help="Your records have to be in the log after so many seconds.")
    ] = 60.0,
    patience: Annotated[
        float, typer.Option(min=0, help="Seconds that witnesses and a new model have to show up.")
    ] = 10.0,
    api_key: ApiKey = None,
) -> None:
    """Follow a log, and tell as lines of JSON what is wrong with it.

    It alerts on a rollback, a split view, files that do not fit, a missing quorum, a deployment or rules of
    access that are not in the log, and challenges that were missed, refuted, or not left to chance; with a
    key, also on records of your project that are missing, changed, or late.
    """
    key, api_key = _log_key(keys), _key_for(url, api_key)
    believed = None if policy is None else trusted_policy(policy)
    with _watching(url, key, state, api_key) as (log, kept, client):
        look = _Look(
            Monitor(log, kept, believed, standstill),
            ServerWatch(client, log, kept, record_seconds),
            ChallengeWatch(log, kept, believed, beacon or (QUICKNET,)),
            kept,
            Asked(url, key, tuple(compare or ()), bool(api_key)),
        )
        if once:
            alerts = look.patiently(patience)
            for alert in alerts:
                _tell(alert)
            output.note(look.summary)
            raise typer.Exit(ExitCode.NO if alerts else ExitCode.OK)
        with suppress(KeyboardInterrupt):
            _go_on(look, every, patience)


def _key_for(url: str, given: str | None) -> str:
    """The key to send: one that is given, or that of the environment where it is for that server.

    Whoever serves a copy of a log, or another log, has no business with it.
    """
    if given is not None:
        return given
    own = Connection.find()
    if own.api_key is None or own.base_url == Connection.find(url).base_url:
        return own.api_key or ""
    output.note(f"your key is for {own.base_url}, and not sent to {url}; --api-key sends one")
    return ""


def _log_key(path: Path) -> VerifierKey:
    try:
        return VerifierKey.parse(read_keys(path).log)
    except NotVerified as error:
        raise InvalidRequest(f"{path} holds no key of a log: {error.message}", param="keys") from None


@contextmanager
def _watching(
    url: str, key: VerifierKey, state: Path | None, api_key: str | None
) -> Iterator[tuple[RemoteLog, MonitorState, Client]]:
    with (
        closing(RemoteLog(key, url)) as log,
        closing(MonitorState(state or _usual_state(key), str(key))) as kept,
        Client(url, api_key, _TIMEOUT, most_seconds=_MOST_SECONDS) as client,
    ):
        yield log, kept, client


def _usual_state(key: VerifierKey) -> Path:
    # The XDG Base Directory Specification.
    folder = os.environ.get("XDG_STATE_HOME")
    above = Path(folder) if folder else Path.home() / ".local" / "state"
    return above / "transom" / "monitor" / hashlib.sha256(str(key).encode()).hexdigest()[:16]


class _Look:
    """Everything that is looked at, once or again and again."""

    def __init__(
        self, log: Monitor, server: ServerWatch, challenges: ChallengeWatch, kept: MonitorState, asked: Asked
    ) -> None:
        self._log = log
        self._server = server
        self._challenges = challenges
        self._kept = kept
        self._asked = asked
        self._noted: set[str] = set()

    @property
    def summary(self) -> str:
        """What is known of the log."""
        head, challenges = self._log.head, self._challenges.summary
        if head is None:
            return "nothing is known of the log"
        told = f"{head.size} entries of {head.origin}"
        return f"{told}; challenges: {challenges}" if challenges else told

    def patiently(self, seconds: float) -> list[Alert]:
        """What is wrong, and stays wrong for so long where it may pass."""
        deadline = time.monotonic() + seconds
        lasting: dict[str, Alert] = {}
        while True:
            try:
                alerts = self._once()
            except TransomError as error:
                if not lasting:
                    raise
                # What was found before is not to be lost with the connection.
                alerts = [Alert("unreachable", error.message)]
            lasting |= {_identity(alert): alert for alert in alerts if not alert.may_pass}
            passing = [alert for alert in alerts if alert.may_pass]
            if not passing or time.monotonic() >= deadline:
                return [*lasting.values(), *passing]
            time.sleep(_AGAIN)

    def _once(self) -> list[Alert]:
        alerts = self._log.look([_claim(each, self._asked.key) for each in self._asked.compare])
        alerts += self._ask(self._server.deployments, "deployments")
        alerts += self._ask(self._server.policy, "policy")
        if self._asked.with_records:
            alerts += self._ask(self._server.records, "records")
        return alerts + self._ask(self._check_challenges, "challenges")

    def _check_challenges(self) -> list[Alert]:
        try:
            verified = self._log.verified
            if verified is None:
                return []
            alerts = self._challenges.look(verified, self._log.began)
        except NotVerified as error:  # such as tiles of another history, which is told before
            return [Alert("not-verified", error.message, may_pass=True)]
        for each in self._challenges.notes:
            self._note(each)
        return alerts

    def _ask(self, question: Callable[[], list[Alert]], what: str) -> list[Alert]:
        """What a question brings; one that was answered once, and is not now, is an alert of its own.

        What else was found is told in any case: whoever is asked cannot silence it.
        """
        asked = f"{what} {self._asked.url}"
        try:
            alerts = question()
        except (AccessDenied, NotFound) as error:
            if self._kept.has_answered(asked):
                return [_unanswered(what, error.message)]
            self._note(f"{what}: not checked here. {error.message}")
            return []
        except StorageError:
            raise
        except TransomError as error:
            return [_unanswered(what, error.message)]
        if not self._kept.has_answered(asked):
            with self._kept.changing():
                self._kept.answers(asked)
        return alerts

    def _note(self, message: str) -> None:
        if message not in self._noted:
            self._noted.add(message)
            output.note(message)


def _unanswered(what: str, message: str) -> Alert:
    return Alert("unanswered", message, {"question": what}, may_pass=True)


def _claim(where: str, key: VerifierKey) -> Claim:
    """A checkpoint that somebody else was shown.

    Raises:
        InvalidRequest: there is none.
        ServerUnreachable: nobody is there.
    """
    if where.startswith(_HOSTS):
        with closing(RemoteLog(key, where.removesuffix("/checkpoint"))) as log:
            content = (log.note() or b"").decode(errors="replace")
    else:
        try:
            content = Path(where).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"{where} cannot be read: {error}", param="compare") from None
    try:
        return Claim(where, Proof.parse(content).checkpoint if content.startswith(HEADER) else content)
    except NotVerified as error:
        raise InvalidRequest(f"{where} is no receipt: {error.message}", param="compare") from None


def _go_on(look: _Look, every: float, patience: float) -> None:
    """Look again and again; what goes on is told once."""
    told: set[str] = set()
    while True:
        began = time.monotonic()
        try:
            alerts = look.patiently(patience)
        except (ServerUnreachable, UnexpectedReply) as error:
            alerts = [Alert("unreachable", error.message)]
        except TransomError as error:
            alerts = [_unanswered("log", error.message)]
        for alert in alerts:
            if _identity(alert) not in told:
                _tell(alert)
        told = {_identity(alert) for alert in alerts}
        time.sleep(max(0.0, every - (time.monotonic() - began)))


def _identity(alert: Alert) -> str:
    # Of one challenge several things may be wrong; other messages have numbers that change.
    more = [alert.message] if "challenge" in alert.facts else []
    return json.dumps([alert.alert, alert.facts, *more])


def _tell(alert: Alert) -> None:
    line = {"time": rfc3339(datetime.now(UTC)), "alert": alert.alert, "message": alert.message, **alert.facts}
    output.write(json.dumps(line, ensure_ascii=False))


@exit_on_error
def mirror(
    url: Url,
    folder: Annotated[
        Path, typer.Argument(file_okay=False, help="For the copy; any web server can serve it.")
    ],
    keys: Keys,
    every: Annotated[
        float | None, typer.Option(min=0.1, help="Go on, with so many seconds between two looks.")
    ] = None,
) -> None:
    """Copy what is new of a log into a folder, each file verified (1 if anything does not fit).

    Public documents that its entries name come along, as far as they are shown.
    """
    key = _log_key(keys)
    with closing(RemoteLog(key, url)) as log, Mirror(folder, log) as copy, suppress(KeyboardInterrupt):
        if every is None:
            output.note(f"{copy.update().size} entries of {key.name} in {folder}")
            for reason in copy.lacking.values():
                output.note(f"without a document: {reason}")
            return
        told: set[str] = set()
        while True:
            try:
                copy.update()
                for reason in set(copy.lacking.values()) - told:
                    output.note(f"without a document: {reason}")
                told = set(copy.lacking.values())
            except (TransomError, OSError) as error:
                output.fail(str(error))
            time.sleep(every)
