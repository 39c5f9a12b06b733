"""Statements of the hottest paths, compiled once for each dialect, and said to the driver itself."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, TypeAlias

from sqlalchemy import Connection, CursorResult, Dialect, TextClause
from sqlalchemy.sql.expression import UpdateBase

from transom.errors import StorageError

_COUNTED = {"preserve_rowcount": True}

Values: TypeAlias = Mapping[str, object]
Order: TypeAlias = Callable[[Values], tuple[object, ...]]


class Prepared:
    """A statement whose text never changes.

    SQLAlchemy finds the compiled form of a statement anew in each execution, which takes longer than SQLite
    takes to execute it. Values go to the driver as they are, so a moment is given as its microseconds. Its
    methods are for writes: nothing begins a transaction here.

    Args:
        statement: every value in it is a named parameter or a constant; no expanding ones.
    """

    def __init__(self, statement: UpdateBase | TextClause) -> None:
        self._statement = statement
        self._texts: dict[str, tuple[str, Order | None]] = {}

    def execute(self, connection: Connection, values: Values) -> int:
        """Execute it; the number of rows that it touched.

        Raises:
            KeyError: a parameter has no value.
            StorageError, SQLAlchemyError: the database refuses it.
        """
        text, order = self._text(connection.dialect)
        return say(connection, text, _in_order(values, order)).rowcount

    def execute_each(self, connection: Connection, rows: Sequence[Values]) -> int:
        """Execute it for each of one or more rows of values; the number of rows that all of them touched.

        Raises:
            As `execute`.
        """
        text, order = self._text(connection.dialect)
        return say(connection, text, [_in_order(values, order) for values in rows]).rowcount

    def returned(self, connection: Connection, values: Values) -> Any:  # noqa: ANN401
        """Execute it; what it returned of the one row that it touched, and None where it touched none.

        Raises:
            As `execute`.
        """
        text, order = self._text(connection.dialect)
        row = say(connection, text, _in_order(values, order)).fetchone()
        return None if row is None else row[0]

    def rows(self, connection: Connection, values: Values) -> Sequence[Any]:
        """Execute a SELECT; its rows, as tuples.

        Raises:
            As `execute`.
        """
        text, order = self._text(connection.dialect)
        return say(connection, text, _in_order(values, order)).fetchall()

    def _text(self, dialect: Dialect) -> tuple[str, Order | None]:
        """The text, and what puts its parameters in order where they have places and no names."""
        found = self._texts.get(dialect.name)
        if found is None:
            compiled = self._statement.compile(dialect=dialect)
            names = getattr(compiled, "positiontup", None)
            found = self._texts[dialect.name] = str(compiled), _order(names)
        return found


def say(
    connection: Connection,
    text: str,
    parameters: Any = (),  # noqa: ANN401
) -> CursorResult[Any] | sqlite3.Cursor:
    """Execute a statement as it is spelled, within a transaction.

    On SQLite by the driver alone: what SQLAlchemy does around each statement costs more than the statement.

    Args:
        connection: of a write.
        text: in the driver's words.
        parameters: a tuple or dictionary; or a list of them, to execute it for each.

    Raises:
        StorageError, SQLAlchemyError: the database refuses it.
    """
    if connection.dialect.name != "sqlite":
        # SQLAlchemy finds out whether the server is gone.
        return connection.exec_driver_sql(text, parameters or None, _COUNTED)
    cursor: Any = connection.connection.cursor()
    run = cursor.executemany if isinstance(parameters, list) else cursor.execute
    try:
        said: sqlite3.Cursor = run(text, parameters)
    except sqlite3.Error as error:
        raise StorageError(f"The database refuses a write: {error}") from error
    return said


def _order(names: Sequence[str] | None) -> Order | None:
    if names is None:
        return None
    if len(names) > 1:
        return itemgetter(*names)
    return lambda values: tuple([values[name] for name in names])


def _in_order(values: Values, order: Order | None) -> Any:  # noqa: ANN401
    return dict(values) if order is None else order(values)
