"""Statements: written with SQLAlchemy Core, compiled once, executed by the driver itself.

Theory of operation. What SQLAlchemy does for each execution (looking the statement up,
wrapping cursor, rows and errors) costs several times what SQLite does for it. So it says
here what the SQL is, for the dialect at hand, and the driver is given that text with named
parameters; the driver keeps its own prepared statements by text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import Table, bindparam, insert, update

from openai_runs.server.store.damage import DamagedRow, is_undecodable, name_rows, name_table
from openai_runs.server.store.database import DIALECT, Connection, Cursor, Error

if TYPE_CHECKING:
    from sqlalchemy import Executable

__all__ = ["Statement", "inserting", "updating"]


class Statement:
    """A statement of Core, as the driver takes it."""

    def __init__(self, clause: Executable, columns: Iterable[str] | None = None) -> None:
        """Keep it; `columns` are those that an insert or update is given values for."""
        self._clause = clause
        self._columns = None if columns is None else list(columns)

    @cached_property
    def _compiled(self) -> tuple[str, dict[str, Any]]:
        """Return the SQL, and the parameters that are always the same."""
        compiled: Any = self._clause.compile(  # type: ignore[attr-defined]  # every clause has it
            dialect=DIALECT,
            column_keys=self._columns,
            compile_kwargs={"render_postcompile": True},
        )
        given = compiled.params.items()
        constants = {name: value for name, value in given if not compiled.binds[name].required}
        for column in compiled.insert_prefetch or ():
            constants[column.key] = column.default.arg
        return str(compiled), constants

    def run(self, connection: Connection, /, **parameters: Any) -> Cursor:
        """Execute it."""
        sql, constants = self._compiled
        return connection.execute(sql, {**constants, **parameters})

    def all(self, connection: Connection, /, **parameters: Any) -> list[Any]:
        """Return all rows.

        Raises:
            DamagedRow: A text in one is not UTF-8.
        """
        try:
            return self.run(connection, **parameters).fetchall()
        except Error as error:
            if not is_undecodable(error):
                raise
        raise self._damaged(parameters)

    def each(self, connection: Connection, /, **parameters: Any) -> Iterator[Any]:
        """Yield the rows, which are read one at a time.

        Raises:
            DamagedRow: A text in one is not UTF-8.
        """
        try:
            yield from self.run(connection, **parameters)
            return
        except Error as error:
            if not is_undecodable(error):
                raise
        raise self._damaged(parameters)

    def one(self, connection: Connection, /, **parameters: Any) -> Any:
        """Return the first row; None if there is none.

        Raises:
            DamagedRow: A text in it is not UTF-8.
        """
        try:
            return self.run(connection, **parameters).fetchone()
        except Error as error:
            if not is_undecodable(error):
                raise
        raise self._damaged(parameters)

    def _damaged(self, parameters: Mapping[str, Any]) -> DamagedRow:
        return DamagedRow(name_table(self._compiled[0]), name_rows(parameters), "it is not UTF-8")

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
