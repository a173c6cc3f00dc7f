"""URLs of PostgreSQL: what is read of them, what is shown, and what is said when it is refused."""

from __future__ import annotations

import aiohttp
import psycopg
import pytest
from psycopg import conninfo, errors

from openai_runs.errors import ConfigError
from openai_runs.server import LocalServer, ScriptedBackend
from openai_runs.server.store import is_url
from openai_runs.server.store.postgres.connection import (
    connect,
    connection_options,
    is_conflict,
    is_passing,
    place_of,
    unusable,
)
from tests.databases import execute
from tests.postgres import changed_url
from tests.server.store.postgres.proxying import PostgresProxy
from tests.server.support import Caller

SECRET = "s3cr3t"

SHOWN = {
    "postgresql://me:s3cr3t@db.example:5433/runs?sslmode=require": "db.example:5433/runs",
    "postgres://db.example/runs": "db.example/runs",
    "postgresql://db.example/runs?password=s3cr3t&user=me": "db.example/runs",
    "postgresql://me:s3cr3t%40x@[::1]:5432/runs": "::1:5432/runs",
    "postgresql:///runs?host=/run/postgresql&password=s3cr3t": "/run/postgresql/runs",
    "postgresql://me:s3cr3t@a:1,b:2/runs": "a,b:1,2/runs",
    "postgresql://": "/",
}


@pytest.mark.parametrize(("url", "place"), SHOWN.items(), ids=[str(n) for n in range(len(SHOWN))])
def test_place_is_shown_without_user_and_password(url: str, place: str) -> None:
    """What stands in messages and logs says where, and not by which secret."""
    assert place_of(url) == f"postgresql://{place}"


UNREADABLE = {
    "percent": "postgresql://me:s3cr3t%zz@h/db",
    "bracket": "postgresql://me:s3cr3t@[h/db",
    "slash": "postgresql://me:s3cr3t/x@h/db",
    "at": "postgresql://me:x@s3cr3t@h/db",
    "parameter": "postgresql://me@h/db?nonsense=s3cr3t",
    "no value": "postgresql://me@h/db?s3cr3t",
    "port": "postgresql://me@h:s3cr3t/db",
    "nul": "postgresql://me:\0s3cr3t@h/db",
    "sqlalchemy": "postgresql+psycopg://me:s3cr3t@h/db",
    "jdbc": "jdbc:postgresql://h/db?password=s3cr3t",
    "another database": "mysql://me:s3cr3t@h/db",
    "capitals": "POSTGRESQL://me:s3cr3t@h/db",
    "space": " postgresql://me:s3cr3t@h/db",
    "quotes": "'postgresql://me:s3cr3t@h/db'",
}


@pytest.mark.parametrize("url", UNREADABLE.values(), ids=UNREADABLE)
def test_url_that_cannot_be_read_is_refused_without_a_word_of_it(url: str) -> None:
    """The driver quotes what it cannot read, which is often a password with a `/` or `@` in it."""
    with pytest.raises(ConfigError) as refused:
        connection_options(url)

    assert SECRET not in str(refused.value)
    assert "postgresql://USER:PASSWORD@HOST:PORT/NAME" in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None


@pytest.mark.parametrize("url", UNREADABLE.values(), ids=UNREADABLE)
async def test_url_that_cannot_be_read_is_not_taken_for_a_file(url: str) -> None:
    """A file of that name would show the password."""
    with pytest.raises(ConfigError) as refused:
        await LocalServer(url).start()

    assert SECRET not in str(refused.value)
    assert "postgresql://USER:PASSWORD@HOST:PORT/NAME" in str(refused.value)


def test_options_of_the_url_come_after_ours() -> None:
    """Whoever names a schema or a limit in the URL gets it."""
    options = connection_options("postgresql://h/d?options=-csearch_path%3Dx&connect_timeout=60")

    assert options["connect_timeout"] == "60"
    assert options["options"] == "-csearch_path=x"


def setting(url: str, name: str) -> str:
    """Return a setting of a session of ours."""
    with connect(connection_options(url)) as raw:
        row = raw.execute("SELECT current_setting(%s)", (name,)).fetchone()
    assert row is not None
    return str(row[0])


OURS = {
    "idle_in_transaction_session_timeout": ("1h", "10s"),
    "lock_timeout": ("1h", "10s"),
    "idle_session_timeout": ("1s", "0"),
    "default_transaction_isolation": ("serializable", "read committed"),
}


@pytest.mark.parametrize("name", OURS)
def test_session_has_our_settings_whatever_the_database_has(
    new_postgres_db: str, name: str
) -> None:
    """Those are for programs of other kinds: one that listens is idle for hours."""
    theirs, ours = OURS[name]
    database = conninfo.conninfo_to_dict(new_postgres_db)["dbname"]
    execute(new_postgres_db, f"ALTER DATABASE {database} SET {name} = '{theirs}'")

    assert setting(new_postgres_db, name) == ours


def test_session_keeps_what_the_url_says(postgres_db: str) -> None:
    """Whoever writes it there means this program."""
    url = changed_url(postgres_db, options="-clock_timeout=7s")

    assert setting(url, "lock_timeout") == "7s"
    assert setting(url, "idle_in_transaction_session_timeout") == "10s"


def test_session_keeps_what_the_environment_says(
    postgres_db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PGOPTIONS is read, as by PostgreSQL's own tools."""
    with monkeypatch.context() as patched:
        patched.setenv("PGOPTIONS", "-csearch_path=theirs -clock_timeout=7s")
        found = [setting(postgres_db, name) for name in ("search_path", "lock_timeout")]

    assert found == ["theirs", "7s"]


async def test_server_is_opened_through_a_pool_that_refuses_options(proxy: PostgresProxy) -> None:
    """PgBouncer takes few parameters at the start of a connection, and no options."""
    proxy.cut_at("options\0", answered=False)

    server = LocalServer(proxy.url, ScriptedBackend(["Hi!"]))
    async with server, aiohttp.ClientSession() as session:
        caller = Caller(session, server.url)
        run = await caller.settled(await caller.start())

    assert run["status"] == "completed"
    assert proxy.cuts == 0


@pytest.mark.parametrize("db", ["postgresql://h/d", "postgres://h/d", "POSTGRESQL://h/d"])
def test_url_is_told_from_a_file(db: str) -> None:
    """Any spelling that PostgreSQL's own tools take."""
    assert is_url(db)
    assert not is_url(f"./{db}")


ERRORS: dict[str, tuple[Exception, str, str]] = {
    "server away": (
        psycopg.OperationalError('connection to server at "h", port 1 failed: refused\n\tIs it?'),
        "port 1 failed: refused",
        "is PostgreSQL running there",
    ),
    "no answer": (psycopg.OperationalError(), "no answer", "is PostgreSQL running there"),
    "no database": (
        psycopg.OperationalError('connection failed: FATAL:  database "x" does not exist'),
        ': database "x" does not exist;',
        "create the database first",
    ),
    "password": (
        psycopg.OperationalError('failed: FATAL:  password authentication failed for user "x"'),
        ": password authentication failed",
        "check the user and the password",
    ),
    "role": (
        psycopg.OperationalError('failed: FATAL:  role "x" is not permitted to log in'),
        'role "x"',
        "check the user and the password",
    ),
    "full": (
        psycopg.OperationalError("failed: FATAL:  sorry, too many clients already"),
        "too many clients",
        "connections left",
    ),
    "full for the role": (
        psycopg.OperationalError('failed: FATAL:  too many connections for role "x"'),
        "too many connections",
        "connections left",
    ),
    "may not connect": (
        psycopg.OperationalError('failed: FATAL:  permission denied for database "x"\nDETAIL: no'),
        "permission denied",
        "check the user",
    ),
    "no password": (
        psycopg.OperationalError('to "h", port 1 failed: fe_sendauth: no password supplied'),
        "no password supplied",
        "check the user and the password",
    ),
    "no tls": (
        psycopg.OperationalError("failed: server does not support SSL, but SSL was required"),
        "does not support SSL",
        "check sslmode",
    ),
    "no root": (
        psycopg.OperationalError('failed: root certificate file "/x.pem" does not exist\nEither'),
        "root certificate file",
        "check sslmode and sslrootcert",
    ),
    "no schema": (
        errors.InvalidSchemaName("no schema has been selected to create in"),
        "no schema",
        "create the schema",
    ),
    "standby": (
        errors.ReadOnlySqlTransaction("cannot execute DELETE in a read-only transaction"),
        "read-only",
        "name the primary",
    ),
    "setting": (
        psycopg.OperationalError('failed: FATAL:  unrecognized parameter "x"'),
        "unrecognized",
        "look at PostgreSQL's log",
    ),
    "rights": (errors.InsufficientPrivilege("permission denied"), "denied", "rights to create"),
    "odd": (errors.InternalError_("what?"), "what?", "look at PostgreSQL's log"),
}


@pytest.mark.parametrize(("error", "words", "advice"), ERRORS.values(), ids=ERRORS)
def test_refusal_says_what_to_do(error: Exception, words: str, advice: str) -> None:
    """One sentence: the place, PostgreSQL's words, the remedy."""
    sentence = str(unusable(f"postgresql://me:{SECRET}@h/d", error))

    assert sentence.startswith("cannot use database postgresql://h/d: ")
    assert words in sentence
    assert advice in sentence
    assert SECRET not in sentence
    assert "\n" not in sentence


KINDS = {
    errors.DeadlockDetected: (True, True),
    errors.SerializationFailure: (True, True),
    errors.LockNotAvailable: (False, True),
    errors.UniqueViolation: (True, False),
    errors.ForeignKeyViolation: (True, False),
    errors.AdminShutdown: (False, True),
    errors.DiskFull: (False, True),
    errors.TooManyConnections: (False, True),
    errors.ReadOnlySqlTransaction: (False, True),
    errors.IdleInTransactionSessionTimeout: (False, True),
    psycopg.InterfaceError: (False, True),
    errors.SyntaxError: (False, False),
    errors.RaiseException: (False, False),
    errors.UndefinedTable: (False, False),
    ValueError: (False, False),
}


@pytest.mark.parametrize(("kind", "known"), KINDS.items(), ids=[k.__name__ for k in KINDS])
def test_errors_are_told_apart(kind: type[Exception], known: tuple[bool, bool]) -> None:
    """What met another transaction, what the database cannot do now, and what is a fault."""
    error = kind()

    assert (is_conflict(error), is_passing(error)) == known
