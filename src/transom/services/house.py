"""What every use case works with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from transom.access.keys.callers import KeyStore
from transom.access.keys.entitlements import Entitlements
from transom.access.programme.desk import Desk
from transom.access.quotas import Quotas
from transom.access.sign_in.entrance import Entrance
from transom.access.weights.exposure import Exposure
from transom.backends.base import Backend
from transom.errors import EngineUnavailable, InvalidRequest, NotFound
from transom.records.challenges import Patience, Rules
from transom.records.seeds import SeedPromises
from transom.records.signing import SigningKeyFile
from transom.records.store import RecordStore
from transom.schema.deployment import ServedModel
from transom.services.office import Office
from transom.services.spool import Spool
from transom.tlog.files import LogFiles
from transom.tlog.policies import Policy
from transom.tlog.publishing import Progress

T = TypeVar("T")


def utc_now() -> datetime:
    """The time, by the server's clock."""
    return datetime.now(UTC)


@dataclass
class House:
    """The columns that use cases stand on, put together by `transom.app`."""

    backends: Mapping[str, Backend]
    records: RecordStore
    seeds: SeedPromises
    keys: KeyStore
    entrance: Entrance
    office: Office
    desk: Desk
    entitlements: Entitlements
    quotas: Quotas
    exposure: Exposure
    spool: Spool
    """Results on their way to whoever asked."""
    log: LogFiles
    """What is public of all records."""
    signing: SigningKeyFile
    """Who signs them."""
    rules: Rules
    """What the operator takes on in challenges."""
    now: Callable[[], datetime] = utc_now
    progress: Callable[[], Progress] = Progress
    """How far the log is published."""
    patience: Patience = field(default_factory=Patience)
    """With challenges that cannot be judged now."""
    witnesses: Policy | None = None
    """Who is asked to cosign the log; None for nobody."""
    draining: bool = False
    """Whether the server is going away: what runs may finish, and nothing new is taken."""
    _open: set[asyncio.Future[Any]] = field(default_factory=set)

    def backend(self, model: str | None) -> Backend:
        """The backend that serves `model`.

        Raises:
            InvalidRequest: no model was named.
            NotFound: no such model is served here.
        """
        known = ", ".join(sorted(self.backends))
        if not model:
            raise InvalidRequest(f"Name a model: one of {known}.", param="model", code="missing_parameter")
        if model not in self.backends:
            raise NotFound(
                f"The model {model[:100]!r} is not served here; served are: {known}.",
                param="model",
                code="model_not_found",
            )
        return self.backends[model]

    def tokenizing(self, model: str | None) -> Backend:
        """The backend whose tokenizer is meant: the only one, where no model is named.

        lm-eval asks for the tokenizer before it names a model.
        """
        return self.backend(model or (next(iter(self.backends)) if len(self.backends) == 1 else None))

    def served(self) -> list[ServedModel]:
        """The models that are up, by name; one that is loading, or was refused, is not among them."""
        found = []
        for name in sorted(self.backends):
            with suppress(EngineUnavailable):
                found.append(self.backends[name].served)
        return found

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start work that is finished even if whoever asked for it leaves."""
        task = asyncio.create_task(work)
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        return task

    @contextmanager
    def occupied(self) -> Iterator[None]:
        """`settle` waits for whoever is inside."""
        leaving = asyncio.get_running_loop().create_future()
        self._open.add(leaving)
        try:
            yield
        finally:
            self._open.discard(leaving)
            leaving.set_result(None)

    async def settle(self, seconds: float = 10.0) -> None:
        """Wait for the work that was started and not finished, but not for ever."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._open:
                    await asyncio.wait(self._open)

    async def drain(self, seconds: float) -> None:
        """Take nothing new, let what runs finish within `seconds`, and end what is left with an error."""
        self.draining = True
        await self.settle(seconds)
        await asyncio.gather(*(backend.stop() for backend in self.backends.values()))
