"""Statements of the hottest paths, compiled once for each dialect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, Dialect
from sqlalchemy.sql.expression import UpdateBase

_COUNTED = {"preserve_rowcount": True}


class Prepared:
    """An INSERT, UPDATE or DELETE whose text never changes.

    SQLAlchemy finds the compiled form of a statement anew in each execution, which takes longer than SQLite
    takes to execute it. Values go to the driver as they are, so a moment is given as its microseconds.

    Args:
        statement: every value in it is a named parameter or a constant; no expanding ones.
    """

    def __init__(self, statement: UpdateBase) -> None:
        self._statement = statement
        self._texts: dict[str, tuple[str, Sequence[str] | None]] = {}

    def execute(self, connection: Connection, values: Mapping[str, object]) -> int:
        """Execute it; the number of rows that it touched.

        Raises:
            KeyError: a parameter has no value.
        """
        text, order = self._texts.get(connection.dialect.name) or self._compile(connection.dialect)
        parameters = dict(values) if order is None else tuple([values[name] for name in order])
        return connection.exec_driver_sql(text, parameters, _COUNTED).rowcount

    def _compile(self, dialect: Dialect) -> tuple[str, Sequence[str] | None]:
        compiled = self._statement.compile(dialect=dialect)
        order = getattr(compiled, "positiontup", None)
        self._texts[dialect.name] = str(compiled), order
        return self._texts[dialect.name]
