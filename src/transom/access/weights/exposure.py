"""Counting what is told of each weight matrix, before it is told, and refusing what would be too much."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from transom.errors import PolicyRefused
from transom.schema.matrices import Matrices, Matrix
from transom.storage.database import Database
from transom.storage.tables import matrix_exposures

_T = matrix_exposures.c
_KEY = (_T.account, _T.root, _T.place)


@dataclass(frozen=True, slots=True)
class Telling:
    """What a request is about to tell, and of whose matrices."""

    accounts: tuple[str, ...]
    """Who learns it: a project, and a person over all their projects."""
    root: str
    """Digest of the model root: the same weights under another profile are the same weights."""
    matrices: Matrices
    numbers: Mapping[str, int]
    """Of each place, how many are told at most."""
    percent: int
    """Most of a matrix that may be told, in hundredths; 100 is no limit."""


class Exposure:
    """What everybody has been told. Counts only grow, but for what came to nothing.

    Consistency: all places of a request are counted in one write or none, and writes come one after the
    other, so that requests side by side are told no more than one after the other. Durability: counted
    before anything runs; a server that is killed has counted what it may have told. Whoever can modify the
    database can reset the counts.

    Args:
        database: where counts are.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def count(self, telling: Telling) -> None:
        """Count what is about to be told.

        Raises:
            PolicyRefused: it would be too much of a matrix; nothing is counted.
            StorageError: it was not counted, and so may not be told.
        """
        await self._database.write(lambda connection: _count(connection, telling))

    async def take_back(self, telling: Telling) -> None:
        """Nothing of it was told.

        Raises:
            StorageError: it stays counted.
        """
        await self._database.write(lambda connection: _add(connection, telling, -1))


def _count(connection: Connection, telling: Telling) -> None:
    _add(connection, telling, 1)
    if telling.percent >= 100:
        return
    touched = list(telling.matrices.touched(frozenset(telling.numbers)))
    for account in telling.accounts:
        numbers = _numbers(connection, telling.root, account, touched)
        for matrix in touched:
            _check(matrix, numbers, telling, account)


def _add(connection: Connection, telling: Telling, sign: int) -> None:
    rows = [
        {"account": account, "root": telling.root, "place": place, "numbers": sign * count}
        for account in telling.accounts
        for place, count in telling.numbers.items()
    ]
    dialect: Any = postgresql if connection.dialect.name == "postgresql" else sqlite
    insert = dialect.insert(matrix_exposures)
    more = {"numbers": _T.numbers + insert.excluded.numbers}
    connection.execute(insert.on_conflict_do_update(index_elements=_KEY, set_=more), rows)


def _numbers(connection: Connection, root: str, account: str, matrices: Sequence[Matrix]) -> dict[str, int]:
    places = sorted({place for matrix in matrices for place in matrix.places})
    query = select(_T.place, _T.numbers).where(_T.account == account, _T.root == root, _T.place.in_(places))
    return {row.place: row.numbers for row in connection.execute(query)}


def _check(matrix: Matrix, numbers: Mapping[str, int], telling: Telling, account: str) -> None:
    share = matrix.share(numbers)
    if 100 * share <= telling.percent:
        return
    before = {place: count - telling.numbers.get(place, 0) for place, count in numbers.items()}
    if matrix.share(before) == share:
        return  # what is over the limit was told before, and this tells no more of it
    whom = "the project" if account.startswith("project:") else "you, over all your projects,"
    raise PolicyRefused(
        f"With this plan, {whom} could work out up to {100 * share:.0f} % of the weight matrix {matrix.name} "
        f"({100 * matrix.share(before):.0f} % before); the limit is {telling.percent} %. What counts is what "
        "all plans together tell both of what the matrix is given and of what it makes of it; this one tells "
        f"of {_listed(matrix.places & telling.numbers.keys())}. Read one of both sides, fewer positions or "
        "units, or a reduction of them; or ask the operator for more."
    )


def _listed(places: Iterable[str]) -> str:
    return ", ".join(sorted(place.removeprefix("first ") for place in places))
