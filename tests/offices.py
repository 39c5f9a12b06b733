"""An office over a database of the test's own, with a clock that is moved and letters that are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from sqlalchemy import Connection

from tests.vaults import make_vault, signing
from transom.access.credentials.peppers import PepperSource, generate
from transom.access.keys.callers import KeyStore
from transom.access.people.persons import PersonCaller, at_the_machine
from transom.access.projects import members
from transom.access.projects.roles import Role
from transom.artifacts.arrival import Arrivals, Limits
from transom.artifacts.store import ArtifactStore
from transom.errors import ConfigurationError
from transom.records.identifiers import new_record_id
from transom.records.store import RecordStore, StoredRecord
from transom.schema.generation import SamplingParams, SequenceResult, TokenLogprob
from transom.schema.keys import NewKeyBody, NewKeyView
from transom.schema.projects import NewProject, ProjectView
from transom.schema.record import Answer
from transom.schema.scopes import ALL_SCOPES
from transom.services.office import Office
from transom.services.people import keys, projects
from transom.storage.blobs import Blobs
from transom.storage.database import Database
from transom.storage.migrate import migrate

ADA, BOB, EVE = (PersonCaller(f"per_{name:0>22}") for name in ("ada", "bob", "eve"))
OPERATOR = at_the_machine("root")
ADDRESSES = {
    ADA.person_id: "ada@example.org",
    BOB.person_id: "bob@example.org",
    EVE.person_id: "eve@example.org",
}
START = datetime(2026, 1, 31, 12, tzinfo=UTC)
INSTANT = timedelta(microseconds=1)


@dataclass
class Time:
    """A clock that moves when it is told to."""

    now: datetime = START
    seconds: float = 0.0

    def forward(self, **duration: float) -> None:
        step = timedelta(**duration)
        self.now += step
        self.seconds += step.total_seconds()


@dataclass(frozen=True)
class Letter:
    to: str
    subject: str
    text: str


@dataclass
class Letters:
    """A mailer that keeps what it is given."""

    kept: list[Letter] = field(default_factory=list)
    broken: bool = False

    async def send(self, to: str, subject: str, text: str) -> None:
        if self.broken:
            raise ConfigurationError("The mail server is away.")
        self.kept.append(Letter(to, subject, text))


@dataclass
class Desk:
    """An office, and what moves it."""

    office: Office
    time: Time
    letters: Letters
    granted: dict[str, frozenset[str]]
    """Scopes by project; every scope where there is none."""

    @property
    def database(self) -> Database:
        return self.office.database

    async def project(self, owner: PersonCaller = ADA, **fields: Any) -> ProjectView:
        return await projects.create(self.office, owner, NewProject(**{"name": "Lenses"} | fields))

    async def join(self, project_id: str, person: PersonCaller, role: str = "member") -> None:
        """Make somebody a member, past invitations."""
        await self.office.database.write(
            lambda c: members.add(c, project_id, person.person_id, Role(role), now=self.time.now)
        )

    async def key(self, project_id: str, owner: PersonCaller = ADA, **fields: Any) -> NewKeyView:
        return await keys.create(self.office, owner, NewKeyBody(project=project_id, **fields))

    def elsewhere(self) -> KeyStore:
        """The keys, as another process has them."""
        return _key_store(self.office.database, self.office.peppers, self.time)


@contextmanager
def open_desk(url: str, peppers: PepperSource | None = None) -> Iterator[Desk]:
    database = Database(url)
    migrate(database)
    time, letters, own = Time(), Letters(), peppers or generate()
    granted: dict[str, frozenset[str]] = {}

    def grant_scopes(_connection: Connection, project_id: str, _now: datetime) -> frozenset[str]:
        return granted.get(project_id, ALL_SCOPES)

    office = office_over(database, own, time, letters, grant_scopes)
    try:
        yield Desk(office, time, letters, granted)
    finally:
        database.close()


def office_over(
    database: Database,
    peppers: PepperSource,
    time: Time,
    letters: Letters,
    grant_scopes: Callable[[Connection, str, datetime], frozenset[str]] = lambda *_: ALL_SCOPES,
) -> Office:
    vault = make_vault()
    arrivals = Arrivals(Path(gettempdir()), Limits(each=1 << 20, total=4 << 20))
    return Office(
        database=database,
        records=RecordStore(database, vault, signing),
        artifacts=ArtifactStore(database, vault, Blobs("memory:///"), arrivals, lambda: time.now),
        keys=_key_store(database, peppers, time),
        peppers=peppers,
        mailer=letters,
        email_of=lambda _connection, person_id: ADDRESSES.get(person_id),
        grant_scopes=grant_scopes,
        now=lambda: time.now,
    )


def _key_store(database: Database, peppers: PepperSource, time: Time) -> KeyStore:
    return KeyStore(database, peppers, clock=lambda: time.now, ticks=lambda: time.seconds)


async def record(desk: Desk, project_id: str, key_id: str | None, prompt: str) -> StoredRecord:
    """A record of one answer to `prompt`."""
    sequence = SequenceResult(tokens=[TokenLogprob(7, -0.5, 1)], text=f"re: {prompt}", finish_reason="length")
    answer = Answer(
        record_id=new_record_id(),
        project_id=project_id,
        key_id=key_id,
        model="tiny",
        deployment="sha256:" + "d" * 64,
        endpoint="/v1/completions",
        received=desk.time.now,
        answered=desk.time.now,
        status="complete",
        request={"prompt": prompt},
        messages=None,
        prompts=[(5, 6)],
        sampling=SamplingParams(seed=1, max_tokens=1),
        seed_source="server",
        n=1,
        sequences=[(0, 0, sequence)],
    )
    return await desk.office.records.append(answer)
