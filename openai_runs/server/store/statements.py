"""Statements: written with SQLAlchemy Core, compiled once a dialect, executed by the driver itself.

Theory of operation. What SQLAlchemy does for each execution (looking the statement up,
wrapping cursor, rows and errors) costs several times what SQLite does for it. So it says
here what the SQL is, for the dialect of the connection, and the driver is given that text with
named parameters; the driver keeps its own prepared statements by text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from sqlalchemy import Table, bindparam, insert, update
from sqlalchemy.dialects import postgresql, sqlite

from openai_runs.server.store.damage import DamagedRow, is_undecodable, name_rows, name_table
from openai_runs.server.store.database import DIALECTS, Connection, Cursor

if TYPE_CHECKING:
    from sqlalchemy import Executable

__all__ = ["Statement", "inserting", "updating"]

Insert: TypeAlias = Callable[[Table], Any]

_INSERTS: Final[Mapping[str, Insert]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}


class Statement:
    """A statement of Core, as the driver takes it."""

    def __init__(
        self,
        clause: Executable | Callable[[Insert], Executable],
        columns: Iterable[str] | None = None,
    ) -> None:
        """Keep it; `columns` are those that an insert or update is given values for.

        A function makes the clause with the `insert` of the dialect: both have `on_conflict`, which
        is in no standard.
        """
        self._clause = clause
        self._columns = None if columns is None else list(columns)
        self._compiled: dict[str, tuple[str, dict[str, Any]]] = {}

    def _compile(self, dialect: str) -> tuple[str, dict[str, Any]]:
        """Return the SQL, and the parameters that are always the same."""
        clause: Any = self._clause
        if not hasattr(clause, "compile"):
            clause = clause(_INSERTS[dialect])
        compiled = clause.compile(
            dialect=DIALECTS[dialect],
            column_keys=self._columns,
            compile_kwargs={"render_postcompile": True},
        )
        given = compiled.params.items()
        constants = {name: value for name, value in given if not compiled.binds[name].required}
        for column in compiled.insert_prefetch or ():
            constants[column.key] = column.default.arg
        self._compiled[dialect] = found = str(compiled), constants
        return found

    def run(self, connection: Connection, /, **parameters: Any) -> Cursor:
        """Execute it."""
        dialect = connection.dialect
        sql, constants = self._compiled.get(dialect) or self._compile(dialect)
        return connection.execute(sql, {**constants, **parameters})

    def all(self, connection: Connection, /, **parameters: Any) -> list[Any]:
        """Return all rows.

        Raises:
            DamagedRow: A text in one is not UTF-8.
        """
        try:
            return self.run(connection, **parameters).fetchall()
        except connection.Error as error:
            if not is_undecodable(error):
                raise
        raise self._damaged(connection, parameters)

    def each(self, connection: Connection, /, **parameters: Any) -> Iterator[Any]:
        """Yield the rows, which are read one at a time.

        Raises:
            DamagedRow: A text in one is not UTF-8.
        """
        try:
            dialect = connection.dialect
            sql, constants = self._compiled.get(dialect) or self._compile(dialect)
            yield from connection.each(sql, {**constants, **parameters})
            return
        except connection.Error as error:
            if not is_undecodable(error):
                raise
        raise self._damaged(connection, parameters)

    def one(self, connection: Connection, /, **parameters: Any) -> Any:
        """Return the first row; None if there is none.

        Raises:
            DamagedRow: A text in it is not UTF-8.
        """
        try:
            return self.run(connection, **parameters).fetchone()
        except connection.Error as error:
            if not is_undecodable(error):
                raise
        raise self._damaged(connection, parameters)

    def _damaged(self, connection: Connection, parameters: Mapping[str, Any]) -> DamagedRow:
        sql, _ = self._compiled[connection.dialect]
        return DamagedRow(name_table(sql), name_rows(parameters), "it is not UTF-8")

    def value(self, connection: Connection, /, **parameters: Any) -> Any:
        """Return the first column of the first row; None if there is none."""
        row = self.one(connection, **parameters)
        return None if row is None else row[0]


@lru_cache
def inserting(table: Table, *columns: str) -> Statement:
    """Return the insert of a row with values for these columns; the others have defaults."""
    return Statement(insert(table), columns)


@lru_cache
def updating(table: Table, *columns: str) -> Statement:
    """Return the update of these columns in the row whose `id` is the parameter `key`."""
    return Statement(update(table).where(table.c.id == bindparam("key")), columns)
