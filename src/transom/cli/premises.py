"""The server's own parts, for commands that are run on its machine."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from transom.config import Settings

if TYPE_CHECKING:
    from transom.access.people.persons import PersonCaller
    from transom.services.office import Office

T = TypeVar("T")


@contextmanager
def opened_office() -> Iterator[Office]:
    """The office of this home; the server may be running beside it."""
    # Here and not above: `transom --help` should not load the server.
    from transom.app import mailer_of, open_database, open_office

    settings = Settings()
    database = open_database(settings)
    try:
        yield open_office(settings, database, mailer_of(settings))
    finally:
        database.close()


def in_office(work: Callable[[Office, PersonCaller], Awaitable[T]]) -> T:
    """Open the office, do `work` in it as whoever runs the command, and close it again."""
    from transom.access.people.persons import at_the_machine

    with opened_office() as office:
        return asyncio.run(_await(work(office, at_the_machine(getpass.getuser()))))


async def _await(work: Awaitable[T]) -> T:
    return await work
