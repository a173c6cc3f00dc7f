"""The coroutines by which everybody else reads and writes: each is one transaction."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio.to_thread
from sqlalchemy import bindparam, delete

from openai_runs.server.api_errors import busy_thread, not_found
from openai_runs.server.objects.builders import NewRun
from openai_runs.server.objects.transitions import Ending, Writing
from openai_runs.server.store import claims, event_log, idempotency, rows, runs, schema
from openai_runs.server.store.claims import Claim
from openai_runs.server.store.database import (
    READERS,
    Connection,
    open_reader,
    open_writer,
    prepare,
)
from openai_runs.server.store.event_pages import EventLog, StreamStart, as_leg
from openai_runs.server.store.idempotency import Once
from openai_runs.server.store.rows import NOUNS, PageQuery, add, find, page, rewrite, see
from openai_runs.server.store.runs import Counts, History, Unfinished
from openai_runs.server.store.sqlite.lock import FileLock
from openai_runs.server.store.sqlite.writer import (
    Change,
    Readers,
    Transaction,
    Writer,
)
from openai_runs.server.store.statements import Statement
from openai_runs.types.assistants import Assistant
from openai_runs.types.base import Deleted, Page
from openai_runs.types.messages import Message
from openai_runs.types.runs import Run, ToolOutput
from openai_runs.types.steps import RunStep
from openai_runs.types.threads import Thread

__all__ = ["Store"]

T = TypeVar("T")

_DELETE_ASSISTANT: Final = Statement(
    delete(schema.assistants).where(schema.assistants.c.id == bindparam("key"))
)
_DELETE_MESSAGE: Final = Statement(
    delete(schema.messages).where(schema.messages.c.id == bindparam("key"))
)


class Store:
    """One open database file. Refusals of its methods are answers of the API."""

    def __init__(
        self,
        path: Path,
        lock: FileLock,
        on_change: Callable[[Change], None],
        *,
        temporary: Path | None,
    ) -> None:
        """Open the locked file; blocks, so `open_store` does it in a worker thread."""
        self.path = path
        self.lock = lock
        self._temporary = temporary
        self._connections = [open_writer(path)]
        try:
            prepare(self._connections[0], path, schema.metadata, schema.SCHEMA_VERSION)
            self._connections += [open_reader(path) for _ in range(READERS)]
        except BaseException:
            self._disconnect()
            raise
        self._writer = Writer(self._connections[0], on_change)
        self._readers = Readers(self._connections[1:])
        self.log = EventLog(self._readers)

    async def aclose(self) -> None:
        """Finish what is queued, close the file and give up the lock."""
        self._writer.stop()
        await anyio.to_thread.run_sync(self._close)

    def _close(self) -> None:
        self._writer.join()
        self._readers.close()
        self._disconnect()
        self.lock.release()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _disconnect(self) -> None:
        for connection in reversed(self._connections):
            connection.close()

    async def _write(self, work: Callable[[Transaction], T], once: Once | None = None) -> T:
        return await self._writer.run(work, once)

    async def _read(self, read: Callable[[Connection], T]) -> T:
        return await self._readers.run(read)

    async def add_assistant(self, assistant: Assistant, once: Once | None) -> Assistant:
        """Store a new assistant."""

        def work(tx: Transaction) -> Assistant:
            add(tx.connection, assistant)
            return assistant

        return await self._write(work, once)

    async def get_assistant(self, assistant_id: str) -> Assistant:
        """Return the assistant."""
        return await self._read(lambda connection: find(connection, Assistant, assistant_id))

    async def update_assistant(
        self, assistant_id: str, changes: dict[str, Any], once: Once | None
    ) -> Assistant:
        """Change these fields of the assistant."""

        def work(tx: Transaction) -> Assistant:
            return rewrite(tx.connection, find(tx.connection, Assistant, assistant_id), **changes)

        return await self._write(work, once)

    async def delete_assistant(self, assistant_id: str) -> Deleted:
        """Delete the assistant; its runs stay readable."""

        def work(tx: Transaction) -> Deleted:
            if not _DELETE_ASSISTANT.run(tx.connection, key=assistant_id).rowcount:
                raise not_found(NOUNS[Assistant], assistant_id)
            return Deleted(id=assistant_id, object="assistant.deleted", deleted=True)

        return await self._write(work)

    async def list_assistants(self, query: PageQuery) -> Page[Assistant]:
        """Return a page of all assistants."""
        return await self._read(lambda connection: page(connection, Assistant, query))

    async def add_thread(
        self, thread: Thread, messages: list[Message], once: Once | None
    ) -> Thread:
        """Store a new thread with its first messages."""
        return await self._write(lambda tx: runs.add_thread(tx, thread, messages), once)

    async def get_thread(self, thread_id: str) -> Thread:
        """Return the thread."""
        return await self._read(lambda connection: find(connection, Thread, thread_id))

    async def update_thread(
        self, thread_id: str, changes: dict[str, Any], once: Once | None
    ) -> Thread:
        """Change these fields of the thread."""

        def work(tx: Transaction) -> Thread:
            return rewrite(tx.connection, find(tx.connection, Thread, thread_id), **changes)

        return await self._write(work, once)

    async def delete_thread(self, thread_id: str) -> Deleted:
        """Delete the thread with all that is on it, an active run included."""

        def work(tx: Transaction) -> Deleted:
            runs.delete_thread(tx, thread_id)
            return Deleted(id=thread_id, object="thread.deleted", deleted=True)

        return await self._write(work)

    async def add_message(self, message: Message, once: Once | None) -> Message:
        """Store a new message; refused while a run is active."""
        thread_id = message.thread_id

        def work(tx: Transaction) -> Message:
            see(tx.connection, Thread, thread_id)
            running = runs.active_run_id(tx.connection, thread_id)
            if running is not None:
                raise busy_thread(thread_id, running)
            add(tx.connection, message, thread_id=thread_id)
            return message

        return await self._write(work, once)

    async def get_message(self, thread_id: str, message_id: str) -> Message:
        """Return the message."""
        return await self._read(lambda connection: _message(connection, thread_id, message_id))

    async def update_message(
        self, thread_id: str, message_id: str, changes: dict[str, Any], once: Once | None
    ) -> Message:
        """Change these fields of the message."""

        def work(tx: Transaction) -> Message:
            return rewrite(tx.connection, _message(tx.connection, thread_id, message_id), **changes)

        return await self._write(work, once)

    async def delete_message(self, thread_id: str, message_id: str) -> Deleted:
        """Delete the message."""

        def work(tx: Transaction) -> Deleted:
            _message(tx.connection, thread_id, message_id)
            _DELETE_MESSAGE.run(tx.connection, key=message_id)
            return Deleted(id=message_id, object="thread.message.deleted", deleted=True)

        return await self._write(work)

    async def list_messages(
        self, thread_id: str, query: PageQuery, run_id: str | None
    ) -> Page[Message]:
        """Return a page of the thread's messages, of one run only if `run_id` is given."""

        def read(connection: Connection) -> Page[Message]:
            see(connection, Thread, thread_id)
            only = None if run_id is None else {"run_id": run_id}
            return page(connection, Message, query, thread_id=thread_id, only=only)

        return await self._read(read)

    async def _write_run(
        self, work: Callable[[Transaction], Run], once: Once | None, streamed: bool
    ) -> Run | StreamStart:
        return await self._write(as_leg(work) if streamed else work, once)

    async def add_run(
        self,
        thread_id: str,
        assistant_id: str,
        make: Callable[[Assistant], NewRun],
        once: Once | None,
        *,
        streamed: bool = False,
    ) -> Run | StreamStart:
        """Store the run that `make` builds from the assistant as it is at that moment.

        Return it, or where its events begin if it is to be streamed; so do the next two.
        """

        def work(tx: Transaction) -> Run:
            return runs.create(tx, thread_id, assistant_id, make)

        return await self._write_run(work, once, streamed)

    async def add_thread_and_run(
        self,
        thread: Thread,
        messages: list[Message],
        assistant_id: str,
        make: Callable[[Assistant], NewRun],
        *,
        once: Once | None,
        streamed: bool = False,
    ) -> Run | StreamStart:
        """Store both, or neither."""

        def work(tx: Transaction) -> Run:
            return runs.create_with_thread(tx, thread, messages, assistant_id, make)

        return await self._write_run(work, once, streamed)

    async def submit_outputs(
        self,
        thread_id: str,
        run_id: str,
        outputs: list[ToolOutput],
        now: int,
        *,
        once: Once | None,
        streamed: bool = False,
    ) -> Run | StreamStart:
        """Fill in the outputs the run waits for, and queue it."""

        def work(tx: Transaction) -> Run:
            return runs.submit(tx, thread_id, run_id, outputs, now)

        return await self._write_run(work, once, streamed)

    async def get_run(self, thread_id: str, run_id: str) -> Run:
        """Return the run."""
        return await self._read(lambda connection: runs.get(connection, thread_id, run_id))

    async def update_run(
        self, thread_id: str, run_id: str, changes: dict[str, Any], once: Once | None
    ) -> Run:
        """Change these fields of the run, finished or not."""
        return await self._write(lambda tx: runs.update_run(tx, thread_id, run_id, changes), once)

    async def list_runs(self, thread_id: str, query: PageQuery) -> Page[Run]:
        """Return a page of the thread's runs."""

        def read(connection: Connection) -> Page[Run]:
            see(connection, Thread, thread_id)
            return page(connection, Run, query, thread_id=thread_id)

        return await self._read(read)

    async def cancel_run(self, thread_id: str, run_id: str, now: int, once: Once | None) -> Run:
        """Move the run to `cancelling`."""
        return await self._write(lambda tx: runs.cancel(tx, thread_id, run_id, now), once)

    async def get_step(self, thread_id: str, run_id: str, step_id: str) -> RunStep:
        """Return the run step."""

        def read(connection: Connection) -> RunStep:
            runs.get(connection, thread_id, run_id)
            return find(connection, RunStep, step_id, run_id=run_id)

        return await self._read(read)

    async def list_steps(self, thread_id: str, run_id: str, query: PageQuery) -> Page[RunStep]:
        """Return a page of the run's steps."""

        def read(connection: Connection) -> Page[RunStep]:
            runs.get(connection, thread_id, run_id)
            return page(connection, RunStep, query, run_id=run_id)

        return await self._read(read)

    async def claim(self, run_id: str, now: int) -> Claim | None:
        """Take the run up for execution; None if there is nothing to execute."""
        return await self._write(lambda tx: claims.claim(tx, run_id, now))

    async def history(self, run: Run) -> History:
        """Return what the model is to see."""
        return await self._read(lambda connection: runs.history(connection, run))

    async def write(self, run: Run, epoch: int, writings: list[Writing], now: int) -> None:
        """Store what an execution of the run wrote since the last time."""
        await self._write(lambda tx: claims.write(tx, run, epoch, writings, now))

    async def require_action(
        self, run_id: str, epoch: int, writings: list[Writing], turn: Ending, now: int
    ) -> Run:
        """Have the run wait for the outputs of the turn's calls."""
        return await self._write(
            lambda tx: claims.require_action(tx, run_id, epoch, writings, turn=turn, now=now)
        )

    async def end_run(
        self,
        run_id: str,
        ending: Ending,
        now: int,
        *,
        writings: Iterable[Writing] = (),
        epoch: int | None = None,
    ) -> Run | None:
        """End the run; None if it was over before, or belongs to another execution."""
        return await self._write(
            lambda tx: claims.end(tx, run_id, ending, now, writings=list(writings), epoch=epoch)
        )

    async def put_back(self, run_id: str, epoch: int, now: int) -> Run:
        """Queue the run again, for the next server."""
        return await self._write(lambda tx: claims.put_back(tx, run_id, epoch, now))

    async def unfinished(self) -> list[Unfinished]:
        """Return the active runs, oldest first."""
        return await self._read(runs.unfinished)

    async def counts(self) -> Counts:
        """Return how many runs are active."""
        return await self._read(runs.count)

    async def prune(self, now: int) -> None:
        """Forget old idempotency keys, and the events of runs that ended long ago."""
        await self._write(lambda tx: idempotency.prune(tx.connection, now))
        while await self._write(lambda tx: event_log.prune(tx.connection, now)):
            pass

    async def probe(self, now: int) -> None:
        """Write something, to see whether that works.

        Raises:
            StoreUnavailable: It does not.
        """
        await self._write(lambda tx: rows.touch(tx.connection, now))


def _message(connection: Connection, thread_id: str, message_id: str) -> Message:
    see(connection, Thread, thread_id)
    return find(connection, Message, message_id, thread_id=thread_id)
