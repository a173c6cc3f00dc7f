"""One PostgreSQL database as a `Database`: its connections, and the threads that use them.

Theory of operation. Each piece of work is one transaction at READ COMMITTED, on a connection of the
pool, in a thread; several go on at once, and PostgreSQL commits those together that come together.
`moves` says why they do not tread on each other. What the database could not do, or what met
another transaction, is begun again, for some seconds: nothing of it was committed.

A commit whose answer is lost may have been done. So each transaction that writes asks for its
number before the commit, and when the connection breaks there, PostgreSQL itself is asked what
became of it (`pg_xact_status`). That alone would not do: after a crash, numbers of which nothing
had reached the disk are given again, to transactions of others. So each leaves its number in a row
of its thread as well, and only one that is found there was committed. Nothing is written twice, nor
counts as written that is not.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio.to_thread
import msgspec
import psycopg
from psycopg import errors
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from openai_runs.config import POSTGRES_READERS, POSTGRES_WRITERS
from openai_runs.server.api_errors import OutcomeUnknown, Refusal, Replay, StoreUnavailable
from openai_runs.server.store import idempotency
from openai_runs.server.store.damage import DamagedRow
from openai_runs.server.store.database import Jobs
from openai_runs.server.store.idempotency import Once
from openai_runs.server.store.postgres import jobs
from openai_runs.server.store.postgres.connection import (
    Connection,
    Raw,
    configure,
    connect,
    connection_options,
    is_conflict,
    is_passing,
    problem_of,
    unusable,
)
from openai_runs.server.store.postgres.listener import CHANNEL, Listener
from openai_runs.server.store.postgres.opening import COMMITS, prepare
from openai_runs.server.store.postgres.session import Session
from openai_runs.server.store.transaction import (
    Change,
    Moved,
    Outdated,
    Removed,
    RunState,
    Transaction,
)
from openai_runs.types.runs import RunStatus

__all__ = ["PostgresDatabase"]

T = TypeVar("T")
Work = Callable[[Transaction], T]

_PATIENCE: Final = 5.0
"""Seconds for which work is begun again while the database cannot be used."""
_RETRY_PAUSE: Final = 0.1
_CONFLICTS: Final = 12
"""Times that work is begun again that met another transaction; more would be a fault of ours."""
_CONFLICT_PAUSE: Final = 0.02
"""Seconds to wait before, at most, times how often it was."""
_ASKED_AGAIN: Final = 0.5
"""Seconds after which the pool is asked again for a connection."""
_ENDED: Final = ("08", "57P")
"""How the SQLSTATE begins of errors that end a connection."""
_RESOLVE_TIME: Final = 30.0
"""Seconds for which a commit without an answer is asked for."""

_NOTIFY: Final = f"""
WITH marked AS (
    INSERT INTO {COMMITS} (writer, number, at)
    SELECT %(writer)s, pg_current_xact_id_if_assigned()::text::bigint, now()
    WHERE pg_current_xact_id_if_assigned() IS NOT NULL
    ON CONFLICT (writer) DO UPDATE SET number = excluded.number, at = excluded.at
    RETURNING number
)
SELECT (SELECT number FROM marked),
       (SELECT count(pg_notify(%(channel)s, %(process)s || ' ' || id))
        FROM unnest(%(ids)s::text[]) AS id)
"""

_logger = logging.getLogger("openai_runs.server")


class _Outcome(msgspec.Struct, frozen=True):
    value: Any = None
    error: Exception | None = None
    changes: list[Change] = []


class _Aborted(Exception):  # noqa: N818 - an outcome
    """The connection broke, and the transaction was not committed."""


class PostgresDatabase:
    """The database, checked and ready for use."""

    def __init__(
        self, url: str, on_change: Callable[[Change], None], loop: asyncio.AbstractEventLoop
    ) -> None:
        """Open it; `on_change` is called in this event loop. Blocks.

        Raises:
            ConfigError: It cannot be used.
        """
        self.path: Path | None = None
        self._url = url
        self._on_change = on_change
        self._loop = loop
        self._closed = False
        self._process = secrets.token_hex(8)
        options = connection_options(url)
        try:
            with connect(options, silence=math.inf) as first:  # an upgrade may take long
                prepare(first, url)
                self.version = f"PostgreSQL {first.info.parameter_status('server_version')}"
        except psycopg.Error as error:
            raise unusable(url, error) from error
        self._pool: ConnectionPool[Raw] = ConnectionPool(
            kwargs={**options, "autocommit": True},
            configure=configure,
            connection_class=Session,
            min_size=1,
            max_size=POSTGRES_WRITERS + POSTGRES_READERS,
            max_idle=60.0,
            reconnect_timeout=1.0,
            name="openai_runs",
            open=False,
        )
        self._writers = ThreadPoolExecutor(POSTGRES_WRITERS, "openai_runs.writer")
        self._readers = ThreadPoolExecutor(POSTGRES_READERS, "openai_runs.reader")
        self.jobs: Jobs | None = jobs.JobQueue(options)
        self._listener = Listener(url, options, self._process, self._hear)
        try:
            self._pool.open(wait=True, timeout=10.0)
            self._listener.start(self._notify)
        except (psycopg.Error, PoolTimeout) as error:
            self._close()
            raise unusable(url, error) from error
        except BaseException:
            self._close()
            raise

    def _notify(self, payload: str) -> None:
        with self._pool.connection() as raw:
            raw.execute("SELECT pg_notify(%s, %s)", (CHANNEL, payload))

    def _hear(self, run_id: str | None) -> None:
        with suppress(RuntimeError):  # the event loop is closed
            self._loop.call_soon_threadsafe(self._on_change, Outdated(run_id, elsewhere=True))

    async def read(self, read: Callable[[Connection], T]) -> T:
        """Return what `read` returns, in a transaction that sees a single state."""
        if self._closed:
            raise StoreUnavailable(_STOPPING)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self._read, read, _deadline())

    async def write(self, work: Work[T], once: Once | None = None) -> T:
        """Return what `work` returns, once it is committed.

        Raises:
            OutcomeUnknown: The connection broke in the commit, and the database does not come back.

        Cancellation: the work is done all the same.
        """
        if self._closed:
            raise StoreUnavailable(_STOPPING)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._writers.submit(self._serve, work, once, answer, _deadline())
        try:
            return await answer
        finally:
            del answer  # it holds the error, whose traceback holds this frame: a request for long

    def _serve(
        self, work: Work[Any], once: Once | None, answer: asyncio.Future[Any], deadline: float
    ) -> None:
        outcome = self._write(work, once, deadline)
        try:
            answer.get_loop().call_soon_threadsafe(self._deliver, outcome, answer)
        except RuntimeError:  # the loop is gone, and whoever waited in it
            _logger.warning("the event loop was closed before the server")

    def _deliver(self, outcome: _Outcome, answer: asyncio.Future[Any]) -> None:
        for change in outcome.changes:
            self._on_change(change)
        if answer.done():  # the caller was cancelled
            return
        if outcome.error is not None:
            answer.set_exception(outcome.error)
        else:
            answer.set_result(outcome.value)

    def publish(self, url: str) -> None:
        """Do nothing: other processes are given the address of this server, or the database's."""

    def prove(self, nonce: str) -> str:
        """Return nothing: there is no file that names this server."""
        return ""

    async def aclose(self) -> None:
        """Finish what is queued, and close all connections."""
        self._closed = True
        await anyio.to_thread.run_sync(self._close)

    def _close(self) -> None:
        self._writers.shutdown()
        self._readers.shutdown()
        self._listener.stop()
        self._pool.close()

    def _read(self, read: Callable[[Connection], T], deadline: float) -> T:
        while True:
            try:
                with self._connected(deadline) as raw:
                    raw.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    found = read(Connection(raw))
                    raw.execute("COMMIT")
                    return found
            except DamagedRow as damaged:
                _logger.error("the database is damaged: %s", str(damaged))
                raise
            except psycopg.Error as error:
                if not is_passing(error):
                    raise
                self._pause(error, deadline)

    def _write(self, work: Work[Any], once: Once | None, deadline: float) -> _Outcome:
        """Do the work, whatever comes in its way, and return what came of it."""
        conflicts = 0
        while True:
            try:
                return self._carry_out(work, once, deadline)
            except idempotency.KeyReused as reused:
                return _Outcome(error=reused.refusal)
            except Exception as caught:
                error = caught
            try:
                if is_conflict(error):
                    conflicts += 1
                    if conflicts > _CONFLICTS:
                        return _Outcome(error=error)
                    time.sleep(random.uniform(0, _CONFLICT_PAUSE * conflicts))
                elif isinstance(error, _Aborted) or is_passing(error):
                    self._pause(error, deadline)
                else:
                    return self._failed(error)
            except StoreUnavailable as unavailable:
                return _Outcome(error=unavailable)

    def _failed(self, error: Exception) -> _Outcome:
        if isinstance(error, DamagedRow):
            _logger.error("the database is damaged: %s", str(error))
        if isinstance(error, Refusal | Replay):
            error.__traceback__ = None  # its frames hold the work, and so the request, for long
        return _Outcome(error=error)

    def _pause(self, error: Exception, deadline: float) -> None:
        """Wait a moment before the same is done again.

        Raises:
            StoreUnavailable: It was done again for long enough.
        """
        if self._closed or time.monotonic() + _RETRY_PAUSE > deadline:
            words = problem_of(error)
            _logger.warning("the database cannot be used: %s", words)
            raise StoreUnavailable(words) from None
        time.sleep(_RETRY_PAUSE)

    def _take_connection(self, deadline: float) -> Raw:
        while True:
            rest = max(_RETRY_PAUSE, deadline - time.monotonic())
            try:
                return self._pool.getconn(timeout=min(rest, _ASKED_AGAIN))
            except (PoolTimeout, PoolClosed) as error:
                # A pool that could not connect tries again for who asks, not for who waits.
                if rest <= _ASKED_AGAIN or isinstance(error, PoolClosed):
                    words = "there is no connection to it"
                    _logger.warning("the database cannot be used: %s", words)
                    raise StoreUnavailable(words) from None

    @contextmanager
    def _connected(self, deadline: float) -> Iterator[Raw]:
        """Yield a connection; one that is left in a transaction is rolled back or closed.

        Raises:
            StoreUnavailable: There is none.
        """
        raw = self._take_connection(deadline)
        try:
            yield raw
        except BaseException:
            with suppress(psycopg.Error):
                raw.rollback()
            raise
        finally:
            self._pool.putconn(raw)

    def _carry_out(self, work: Work[Any], once: Once | None, deadline: float) -> _Outcome:
        try:
            with self._connected(deadline) as raw:
                return self._transact(raw, lambda tx: _do(tx, work, once))
        except Refusal as refusal:
            if once is None or isinstance(refusal, StoreUnavailable):
                raise
            kept, said = once, refusal
        with self._connected(deadline) as raw:
            self._transact(
                raw,
                lambda tx: idempotency.keep(tx.connection, kept, said.status_code, said.encode()),
            )
        return self._failed(said)

    def _transact(self, raw: Raw, work: Work[Any]) -> _Outcome:
        connection = Connection(raw)
        raw.execute("BEGIN")
        tx = Transaction(connection)
        value = work(tx)
        tx.write_log()
        changes = _announced(tx.changes)
        moves = {change.id: change.status for change in tx.changes if isinstance(change, Moved)}
        if queued := [run_id for run_id, status in moves.items() if status == RunStatus.QUEUED]:
            jobs.defer(connection, queued)
        if begun := [run_id for run_id, status in moves.items() if status == RunStatus.IN_PROGRESS]:
            jobs.remove(connection, begun)
        ids = [change.run_id for change in changes if isinstance(change, Outdated)]
        parameters = {"channel": CHANNEL, "process": self._process, "ids": ids}
        parameters["writer"] = self._writer()
        number = connection.execute(_NOTIFY, parameters).fetchone()[0]
        self._commit(raw, number)
        return _Outcome(value=value, changes=changes)

    def _writer(self) -> str:
        """Return the name of this thread, in which one transaction is under way at a time."""
        return f"{self._process}-{threading.get_ident()}"

    def _commit(self, raw: Raw, number: int | None) -> None:
        """Commit.

        Raises:
            psycopg.Error: It was not committed.
            _Aborted: The same, as the database says of a commit without an answer.
            OutcomeUnknown: The database does not say.
        """
        try:
            raw.execute("COMMIT")
        except psycopg.Error as error:
            # PostgreSQL may say that it ends the connection before the connection is closed.
            ended = raw.closed or (error.sqlstate or "08").startswith(_ENDED)
            if number is None or not ended:
                raise
            if not self._was_committed(number):
                raise _Aborted from None

    def _was_committed(self, number: int) -> bool:
        _logger.warning(
            "the connection was lost in a commit; the database is asked what became of it"
        )
        deadline = time.monotonic() + _RESOLVE_TIME
        while time.monotonic() < deadline:
            try:
                with self._connected(deadline) as raw:
                    row = raw.execute("SELECT pg_xact_status(%s::text::xid8)", (number,)).fetchone()
                    if row is not None and row[0] == "aborted":
                        return False
                    if row is not None and row[0] != "in progress":
                        # Or this number was given again: then it is not in our row.
                        query = f"SELECT FROM {COMMITS} WHERE writer = %s AND number = %s"
                        mark = (self._writer(), number)
                        return raw.execute(query, mark).fetchone() is not None
            except StoreUnavailable:
                break
            except errors.InvalidParameterValue:  # the number was not given, or is to be again
                return False
            except psycopg.OperationalError:
                pass
            time.sleep(_RETRY_PAUSE)
        raise OutcomeUnknown


def _deadline() -> float:
    """Return until when work is begun again; what waits for a thread meanwhile is done once."""
    return time.monotonic() + _PATIENCE


_STOPPING: Final = "the server is shutting down"


def _do(tx: Transaction, work: Work[Any], once: Once | None) -> Any:
    if once is not None:
        idempotency.reserve(tx.connection, once)
    value = work(tx)
    if once is not None:
        idempotency.answer(tx.connection, once, value)
    return value


def _announced(changes: list[Change]) -> list[Change]:
    """Return what is announced here: what runs moved, and first which are to be read again."""
    ids = dict.fromkeys(
        change.run_id if not isinstance(change, RunState) else change.id for change in changes
    )
    outdated: list[Change] = [Outdated(run_id) for run_id in ids]
    return outdated + [change for change in changes if isinstance(change, Moved | Removed)]
