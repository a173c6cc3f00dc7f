"""The one writer thread, and the two readers.

Theory of operation. Work is queued by coroutines and done in a thread of its own. What was
queued while a commit was under way goes into the next transaction together, so that the disk
is waited for once for all of it. Where a piece of work refuses or fails, the transaction is
rolled back and all of it is done again, each piece in a savepoint of its own, so that one piece
does not undo the others: work may be called twice. After the commit, the event loop is called
once: it emits the changes of each piece, then answers its caller. A caller that is cancelled
does not withdraw its work, which is in the queue.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

import msgspec

from openai_runs.server.api_errors import Refusal, Replay, StoreUnavailable
from openai_runs.server.log_filter import safe_words
from openai_runs.server.store import idempotency
from openai_runs.server.store.damage import DamagedRow
from openai_runs.server.store.idempotency import Once
from openai_runs.server.store.sqlite.connection import (
    Connection,
    Error,
    IntegrityError,
    savepoint,
    transaction,
)
from openai_runs.server.store.transaction import Change, Transaction

__all__ = ["Readers", "Writer"]

T = TypeVar("T")

_LARGEST_BATCH: Final = 256
"""Pieces of work in one transaction; more would make the first one wait too long."""

_logger = logging.getLogger("openai_runs.server")


Work = Callable[[Transaction], T]


class _Job(msgspec.Struct, frozen=True):
    work: Work[Any]
    once: Once | None
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Any]


class _Outcome(msgspec.Struct, frozen=True):
    value: Any = None
    error: Exception | None = None
    changes: list[Change] = []


class Writer:
    """Runs pieces of work, one transaction after the other, in a thread of its own."""

    def __init__(self, connection: Connection, on_change: Callable[[Change], None]) -> None:
        """Start the thread; `on_change` is called in the event loop after each commit."""
        self._connection = connection
        self._on_change = on_change
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._closed = False
        # A daemon: a program that forgets to close the server must still be able to end.
        self._thread = threading.Thread(target=self._serve, name="openai_runs.writer", daemon=True)
        self._thread.start()

    async def run(self, work: Work[T], once: Once | None = None) -> T:
        """Return what `work` returns, once it is on disk.

        Raises:
            Refusal: The work refused; nothing of it was written.
            Replay: The work was done before under the same `once`.
            StoreUnavailable: SQLite could not write.

        Cancellation: the work is done all the same.
        """
        if self._closed:
            message = "the server is shutting down"
            raise StoreUnavailable(message)
        loop = asyncio.get_running_loop()
        job = _Job(work, once, loop, loop.create_future())
        self._jobs.put(job)
        try:
            result: T = await job.answer
        finally:
            del job  # it holds the error, whose traceback holds this frame: a request for long
        return result

    def stop(self) -> None:
        """Take no more work; call it in the event loop, so that nothing slips in behind."""
        self._closed = True
        self._jobs.put(None)

    def join(self) -> None:
        """Wait until what is queued is done; blocks."""
        self._thread.join()

    def _serve(self) -> None:
        while (first := self._jobs.get()) is not None:
            last = self._carry_out_batch(first)
            del first  # else it is kept, with its request, until the next one comes
            if last:
                return

    def _carry_out_batch(self, first: _Job) -> bool:
        """Do this piece of work and those behind it; return whether they are the last ones."""
        batch, last = self._gather(first)
        self._deliver(batch, self._commit(batch))
        return last

    def _gather(self, first: _Job) -> tuple[list[_Job], bool]:
        batch = [first]
        while len(batch) < _LARGEST_BATCH:
            try:
                job = self._jobs.get_nowait()
            except Empty:
                break
            if job is None:
                return batch, True
            batch.append(job)
        return batch, False

    def _commit(self, batch: list[_Job]) -> list[_Outcome]:
        begun = False
        try:
            with transaction(self._connection, writing=True):
                begun = True
                return [_do(self._connection, job) for job in batch]
        except Error as error:
            if not begun:
                return self._unavailable(batch, error)
        except Exception:  # of one piece; below, each has its own verdict
            _logger.debug("a piece of work refused, so all are done apart")
        return self._commit_apart(batch)

    def _unavailable(self, batch: list[_Job], error: Exception) -> list[_Outcome]:
        _logger.warning("the database cannot be written: %s", error)
        return [_Outcome(error=StoreUnavailable(safe_words(error))) for _ in batch]

    def _commit_apart(self, batch: list[_Job]) -> list[_Outcome]:
        """Do the same where a piece refuses, or the disk does."""
        begun = False
        try:
            with transaction(self._connection, writing=True):
                begun = True
                return [_carry_out(self._connection, job) for job in batch]
        except Error as error:
            if begun and len(batch) > 1:
                # SQLite may have rolled back everything, so no savepoint counts. Alone, each
                # piece gets its own verdict.
                return [outcome for job in batch for outcome in self._commit_apart([job])]
            return self._unavailable(batch, error)
        except Exception as error:
            # The thread must outlive whatever it is, or everybody would wait for ever.
            _logger.exception("a transaction failed")
            return [_Outcome(error=error) for _ in batch]

    def _deliver(self, batch: list[_Job], outcomes: list[_Outcome]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Job, _Outcome]]] = {}
        for job, outcome in zip(batch, outcomes, strict=True):
            by_loop.setdefault(job.loop, []).append((job, outcome))
        for loop, answers in by_loop.items():
            try:
                loop.call_soon_threadsafe(self._answer, answers)
            except RuntimeError:  # the loop is gone, and whoever waited in it
                _logger.warning("the event loop was closed before the server")

    def _answer(self, answers: list[tuple[_Job, _Outcome]]) -> None:
        for job, outcome in answers:
            for change in outcome.changes:
                self._on_change(change)
            if job.answer.done():  # the caller was cancelled
                continue
            if outcome.error is not None:
                if isinstance(outcome.error, Refusal | Replay):
                    # Its frames hold the job, which holds it: a cycle with the request in it.
                    outcome.error.__traceback__ = None
                job.answer.set_exception(outcome.error)
            else:
                job.answer.set_result(outcome.value)


def _do(connection: Connection, job: _Job) -> _Outcome:
    tx = Transaction(connection)
    if job.once is not None:
        idempotency.reserve(connection, job.once)
    value = job.work(tx)
    tx.write_log()
    if job.once is not None:
        idempotency.answer(connection, job.once, value)
    return _Outcome(value=value, changes=tx.changes)


def _carry_out(connection: Connection, job: _Job) -> _Outcome:
    """Do one piece of work in a savepoint of its own."""
    try:
        return _do_or_refuse(connection, job)
    except idempotency.KeyReused as refused:
        return _Outcome(error=refused.refusal)
    except Replay as replay:
        return _Outcome(error=replay)
    except IntegrityError as error:  # ours: a bug, and nobody else's trouble
        return _Outcome(error=error)
    except Error:
        raise
    except DamagedRow as damaged:
        _logger.error("the database is damaged: %s", str(damaged))
        return _Outcome(error=damaged)
    except Exception as error:
        return _Outcome(error=error)


def _do_or_refuse(connection: Connection, job: _Job) -> _Outcome:
    try:
        with savepoint(connection):
            return _do(connection, job)
    except Refusal as refusal:
        if job.once is not None:
            idempotency.keep(connection, job.once, refusal.status_code, refusal.encode())
        return _Outcome(error=refusal)


class Readers:
    """Runs reads in a few threads, each read in one transaction that cannot write."""

    def __init__(self, connections: Sequence[Connection]) -> None:
        """Make the pool, of a thread for each connection; they start when first needed."""
        self._free = deque(connections)
        self._threads = ThreadPoolExecutor(
            len(connections), thread_name_prefix="openai_runs.reader"
        )

    async def read(self, read: Callable[[Connection], T]) -> T:
        """Return what `read` returns.

        Raises:
            Refusal: The read found nothing, or a wrong cursor.
            StoreUnavailable: SQLite could not read.
            DamagedRow: A row is damaged.
        """
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, self._read, read)
        except Error as error:
            _logger.warning("the database cannot be read: %s", error)
            raise StoreUnavailable(safe_words(error)) from error
        except DamagedRow as damaged:
            _logger.error("the database is damaged: %s", str(damaged))
            raise

    def _read(self, read: Callable[[Connection], T]) -> T:
        connection = self._free.pop()  # there is one for each thread
        try:
            with transaction(connection, writing=False):
                return read(connection)
        finally:
            self._free.append(connection)

    def close(self) -> None:
        """Finish what is queued, then end the threads; blocks."""
        self._threads.shutdown()
