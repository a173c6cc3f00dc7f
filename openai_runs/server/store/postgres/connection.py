"""Connections to PostgreSQL: the driver, the settings of a session, what its errors mean."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, LiteralString, TypeAlias

from openai_runs._extras import needs
from openai_runs.config import POSTGRES_SILENCE
from openai_runs.errors import ConfigError
from openai_runs.server.api_errors import invalid

try:
    import psycopg
    from psycopg import conninfo, errors

    from openai_runs.server.store.postgres.session import Session
except ImportError as error:
    raise ConfigError(needs("A database at postgresql://", error)) from error

if TYPE_CHECKING:
    from psycopg.rows import TupleRow

__all__ = [
    "Connection",
    "Raw",
    "configure",
    "connect",
    "connection_options",
    "is_conflict",
    "is_passing",
    "place_of",
    "problem_of",
    "setting_session",
    "unusable",
]

Raw: TypeAlias = "psycopg.Connection[TupleRow]"

_SESSION: Final = {
    # A process that is frozen or cut off must not keep its locks: others go on with its runs.
    "idle_in_transaction_session_timeout": "10s",
    "lock_timeout": "10s",
    # What the role or the database has for programs of other kinds.
    "idle_session_timeout": "0",  # who listens is idle for hours
    "default_transaction_isolation": "read committed",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10s",
    "jit": "off",  # every statement is short
}
_SET: Final = """
SELECT set_config(name, value, false)
FROM unnest(%(names)s::text[], %(values)s::text[]) AS ours (name, value)
JOIN pg_settings USING (name)
WHERE source <> 'client'
"""
"""What the URL or the environment says stays; what this version of PostgreSQL lacks is left out.

Not among the options of a connection: PgBouncer refuses those, and they hide PGOPTIONS.
"""
_CONNECTING: Final = {
    "application_name": "openai_runs",
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "client_encoding": "UTF8",
}
"""What the URL may say otherwise."""
_CONFLICTS: Final = (
    errors.DeadlockDetected,
    errors.SerializationFailure,
    errors.UniqueViolation,  # two added the same at once: now one sees what the other did
    errors.ForeignKeyViolation,  # what a row belongs to was deleted meanwhile
)
_PASSING: Final = (
    psycopg.OperationalError,  # the connection, the server, its resources
    psycopg.InterfaceError,  # the connection was closed
    errors.LockNotAvailable,  # whoever has the lock may be cut off
    errors.ReadOnlySqlTransaction,  # this is the standby of another by now
    errors.IdleInTransactionSessionTimeout,
)
_ADVICE: Final = {
    "08": "is PostgreSQL running there, and does the address say so?",
    "25": "name the primary: this is a standby, or the user may only read",
    "28": "check the user and the password",
    "3D": "create the database first, or name another",
    "3F": "create the schema that search_path names, or name another",
    "42": "the user needs rights to create tables in the schema, or the tables are another's",
    "53": "PostgreSQL has no space, memory or connections left",
    "SSL": "check sslmode and sslrootcert of the URL",
}
"""What to do, by the class of the SQLSTATE."""
_REFUSED: Final = (
    ("too many", "53"),  # for all, for a role, for a database
    ("remaining connection slots", "53"),
    ("password", "28"),
    ("authentication", "28"),
    ("role ", "28"),
    ("pg_hba", "28"),
    ("permission denied", "28"),  # to connect
    ("does not exist", "3D"),  # a database, since a role would be found above
)
"""The class of a refused connection, by the server's words: no SQLSTATE comes with those."""
_NOT_MADE: Final = (
    ("no password supplied", "28"),
    ("SSL", "SSL"),
    ("certificate", "SSL"),
)
"""The same of a connection that was not made, by the words of libpq."""
_PORTS: Final = re.compile(r"[\d,]*")


_UNREADABLE: Final = (
    "cannot read the database's URL: it has the form postgresql://USER:PASSWORD@HOST:PORT/NAME, "
    "where each character of a user or password that is no letter or digit is written as %XX"
)


def connection_options(url: str) -> dict[str, Any]:
    """Return what a connection is opened with.

    Raises:
        ConfigError: It is no URL of PostgreSQL.
    """
    try:
        given = conninfo.conninfo_to_dict(url) if "\0" not in url else None
    except psycopg.ProgrammingError:
        given = None
    if given is None or not _is_plausible(given):
        raise ConfigError(_UNREADABLE)  # no words of the driver, which quote it with the password
    return {**_CONNECTING, **given}


def connect(options: Mapping[str, Any], silence: float = POSTGRES_SILENCE) -> Raw:
    """Return a connection that was opened with these options, with our settings of a session.

    Args:
        options: Those of the driver.
        silence: Seconds without a word of the server after which a statement fails.

    Raises:
        psycopg.Error: It cannot be opened.
    """
    raw = Session.connect(**options, autocommit=True)
    try:
        raw.silence = silence
        configure(raw)
    except BaseException:
        raw.close()
        raise
    return raw


def configure(raw: Raw) -> None:
    """Give a new session our settings."""
    raw.execute(*setting_session())


def setting_session(**more: str) -> tuple[LiteralString, dict[str, list[str]]]:
    """Return the statement that gives a session our settings and these, and its parameters."""
    settings = {**_SESSION, **more}
    return _SET, {"names": list(settings), "values": list(settings.values())}


def _is_plausible(given: Mapping[str, Any]) -> bool:
    """Return whether no part of a password was taken for something else."""
    host, port, name = (str(given.get(key) or "") for key in ("host", "port", "dbname"))
    return "@" not in host + name and _PORTS.fullmatch(port) is not None


def place_of(url: str) -> str:
    """Return the URL as it may be shown: without user, password and options.

    >>> place_of("postgresql://me:secret@db.example:5432/runs?sslmode=require")
    'postgresql://db.example:5432/runs'
    """
    known = connection_options(url)
    host = known.get("host", "") or ""
    port = f":{known['port']}" if "port" in known else ""
    return f"postgresql://{host}{port}/{known.get('dbname', '')}"


class Connection:
    """A connection as the store takes it."""

    dialect = "postgresql"
    Error = psycopg.Error

    def __init__(self, raw: Raw) -> None:
        """Execute on this one, for one transaction."""
        self._raw = raw
        self._cursors = 0

    def execute(self, sql: str, parameters: Mapping[str, Any] | None = None, /) -> Any:
        """Execute a statement; its rows are all read.

        Raises:
            Refusal: A text holds U+0000, which PostgreSQL cannot store.
        """
        query: Any = sql  # compiled from our own clauses
        try:
            return self._raw.execute(query, parameters)
        except psycopg.DataError as error:
            raise _explained(error) from None

    def each(self, sql: str, parameters: Mapping[str, Any] | None = None, /) -> Iterable[Any]:
        """Execute a query; its rows are read a few at a time.

        By a cursor of the server's, which ends with the transaction: between the rows, other
        statements are executed.
        """
        self._cursors += 1
        name = f"openai_runs_{self._cursors}"
        self.execute(f"DECLARE {name} NO SCROLL CURSOR FOR {sql}", parameters)
        fetch: Any = f"FETCH {_ROWS} FROM {name}"
        while True:
            rows = self._raw.execute(fetch).fetchall()
            yield from rows
            if len(rows) < _ROWS:
                return


_ROWS: Final = 16
"""Rows of a query that are held at once; one may be a megabyte."""


def _explained(error: psycopg.DataError) -> Exception:
    if "NUL" in str(error):
        return invalid("The request holds the character U+0000, which cannot be stored here.")
    return error


def is_conflict(error: Exception) -> bool:
    """Return whether the same work may succeed when it is begun again at once."""
    return isinstance(error, _CONFLICTS)


def is_passing(error: Exception) -> bool:
    """Return whether the database could not do it now, whatever the work was."""
    return isinstance(error, _PASSING)


def problem_of(error: Exception) -> str:
    """Return why the database could not do it now, in PostgreSQL's words if it has said any."""
    said = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return said or "the connection to it was lost"


def unusable(url: str, error: Exception) -> ConfigError:
    """Return the error of a database that cannot be used, in PostgreSQL's own words."""
    words = (str(error).strip() or "no answer").splitlines()[0].rstrip(".")
    _, refused, said = words.partition("FATAL:")
    if refused:
        state, words = _class_of(said, _REFUSED, "XX"), said.strip()
    else:
        known: str | None = getattr(error, "sqlstate", None)
        state = known[:2] if known else _class_of(words, _NOT_MADE, "08")
    advice = _ADVICE.get(state, "look at PostgreSQL's log")
    return ConfigError(f"cannot use database {place_of(url)}: {words}; {advice}")


def _class_of(words: str, classes: Iterable[tuple[str, str]], otherwise: str) -> str:
    return next((state for word, state in classes if word in words), otherwise)
