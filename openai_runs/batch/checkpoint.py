"""The checkpoint of a batch: what is about to be done for each line, and what came of it.

Theory of operation. One SQLite file has a row for each custom id. A row moves from `new` over
`thread` (a thread is about to be created), `run` (a run is about to be created on it) and `going`
(the run exists) to `done` or `failed`; each move is committed before the request that follows
it. Moves that come while a commit is under way are committed together by the next one. The
result is a line, kept with its place in the output: the output files can be written anew.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import anyio
import anyio.to_thread
import msgspec

from openai_runs.batch.changes import assistant_change, line_change
from openai_runs.batch.errors import BatchError
from openai_runs.batch.inputs import Line
from openai_runs.batch.lock import Lock, make_private
from openai_runs.batch.output import LineFile
from openai_runs.batch.status import APPLICATION, BatchStatus, status_in

__all__ = ["Checkpoint", "Row"]

_SCHEMA: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE items (
    custom_id TEXT PRIMARY KEY,
    line INTEGER NOT NULL,      -- of the input, when last read
    digest BLOB NOT NULL,       -- of the body
    pass INTEGER NOT NULL,      -- number of the reading in which it was last seen
    state TEXT NOT NULL DEFAULT 'new',
    attempt INTEGER NOT NULL DEFAULT 1,
    thread_id TEXT,
    run_id TEXT,
    tokens INTEGER NOT NULL DEFAULT 0,
    reason TEXT,                -- why it failed
    retry TEXT,                 -- 'anew', 'later' or 'resume' if it may be retried
    place INTEGER,              -- of the result among all results
    result BLOB                 -- a line of the output
);
CREATE INDEX results ON items (place) WHERE place IS NOT NULL;
CREATE INDEX states ON items (state);
"""
_RESTART: Final = """
UPDATE items SET state = 'new', attempt = attempt + 1, thread_id = NULL, run_id = NULL,
    reason = NULL, retry = NULL, place = NULL, result = NULL
"""
_RESUME: Final = """
UPDATE items SET state = CASE WHEN run_id IS NOT NULL THEN 'going'
    WHEN thread_id IS NOT NULL THEN 'run' ELSE 'thread' END,
    reason = NULL, retry = NULL, place = NULL, result = NULL
"""


class Row(NamedTuple):
    """What is known of one line."""

    state: str
    attempt: int
    thread_id: str | None
    run_id: str | None

    @property
    def is_over(self) -> bool:
        """Return whether there is an outcome."""
        return self.state in {"done", "failed"}

    @property
    def may_change(self) -> bool:
        """Return whether nothing was begun, or it failed without a run."""
        return self.state == "new" or (self.state == "failed" and self.run_id is None)


class _Pending:
    """What the next commit writes."""

    def __init__(self) -> None:
        self.statements: list[tuple[str, Sequence[object]]] = []
        self.lines: list[tuple[LineFile, bytes]] = []
        self.is_written = False


class Checkpoint:
    """A checkpoint that this process works on."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it; blocks.

        Raises:
            BatchError: Another process works on it, it is no checkpoint, or cannot be used.
        """
        self._path = path
        self._file_lock = Lock(path)
        try:
            with self._explained():
                make_private(path)
                self._database = sqlite3.connect(
                    path, isolation_level=None, check_same_thread=False
                )
                self._prepare()
        except BaseException:
            self._file_lock.release()
            raise
        self._pending = _Pending()
        self._lock = anyio.Lock()
        self._guard = threading.Lock()
        """Held by the thread that writes, which a cancelled task may have left behind."""
        self._failure: BatchError | None = None
        self.job = self._meta("job")
        self._pass = int(self._meta("pass"))
        (last,) = self._one("SELECT coalesce(max(place), 0) FROM items")
        self._place: int = last
        self._other_template: str | None = None
        """That of the last start, where no earlier one had the template of this one."""
        self._has_stale = False
        """Whether the file of errors has lines that begin anew."""

    def _prepare(self) -> None:
        if self._one("PRAGMA application_id")[0] != APPLICATION:
            if self._one("SELECT count(*) FROM sqlite_schema")[0]:
                msg = f"{self._path} is no checkpoint of a batch"
                raise BatchError(msg)
            job = uuid.uuid4().hex
            rows = f"('job', '{job}'), ('pass', '0'), ('orphans', '0')"
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.executescript(
                f"BEGIN; {_SCHEMA} INSERT INTO meta VALUES {rows};"
                f"PRAGMA application_id = {APPLICATION}; COMMIT"
            )
        self._database.execute("PRAGMA synchronous = FULL")

    def close(self) -> None:
        """Close the file, and release its lock, once no thread writes any more."""
        with self._guard:
            self._database.close()
            self._file_lock.release()

    def status(self) -> BatchStatus:
        """Return how far the batch has come; blocks."""
        with self._explained():
            return status_in(self._database, self._path, None)

    def begin_pass(self) -> None:
        """Begin to read the input: a custom id may be seen once from now on; blocks."""
        self._pass += 1
        with self._transaction() as database:
            database.execute("UPDATE meta SET value = ? WHERE name = 'pass'", [self._pass])

    async def enter(self, lines: Iterable[Line], errors: LineFile) -> list[tuple[Line, Row]]:
        """Return what is known of each line; new ones are entered.

        A line of which no run can have been created may change: its error, if there is one, is
        taken out of the file `errors`, and it begins anew.

        Raises:
            BatchError: A custom id comes twice, or its body is another than before.

        Cancellation: is delayed while the file is written.
        """
        async with self._lock:
            return await anyio.to_thread.run_sync(self._enter_all, lines, errors)

    def _enter_all(self, lines: Iterable[Line], errors: LineFile) -> list[tuple[Line, Row]]:
        with self._guard:
            self._has_stale = False
            with self._transaction() as database:
                entered = [(line, self._enter(database, line)) for line in lines]
            if self._has_stale:
                with self._explained():
                    errors.replace(self._results("failed"))
            return entered

    def _results(self, state: str) -> Iterator[bytes]:
        query = "SELECT result FROM items WHERE place IS NOT NULL AND state = ? ORDER BY place"
        return (result for (result,) in self._database.execute(query, [state]))

    def _enter(self, database: sqlite3.Connection, line: Line) -> Row:
        query = (
            "SELECT line, digest, pass, retry, state, attempt, thread_id, run_id FROM items "
            "WHERE custom_id = ?"
        )
        found = database.execute(query, [line.custom_id]).fetchone()
        if found is None:
            values = [line.custom_id, line.number, line.digest, self._pass]
            insert = "INSERT INTO items (custom_id, line, digest, pass) VALUES (?, ?, ?, ?)"
            database.execute(insert, values)
            return Row("new", 1, None, None)
        number, digest, seen, retry, *known = found
        if seen == self._pass:
            msg = (
                f"lines {number} and {line.number} of the input have the same custom_id "
                f"{line.custom_id!r:.100}"
            )
            raise BatchError(msg)
        row = Row(*known)
        if digest != line.digest:
            if row.may_change and retry != "resume":
                self._has_stale = self._has_stale or row.is_over
                change = f"{_RESTART}, digest = ?, line = ?, pass = ? WHERE custom_id = ?"
                database.execute(change, [line.digest, line.number, self._pass, line.custom_id])
                return Row("new", row.attempt + 1, None, None)
            raise BatchError(line_change(line, number, self._other_template))
        update = "UPDATE items SET line = ?, pass = ? WHERE custom_id = ?"
        database.execute(update, [line.number, self._pass, line.custom_id])
        return row

    def compare_template(self, template: object) -> None:
        """Note whether the rows of earlier starts were filled into others; blocks."""
        query = "SELECT name, value FROM meta WHERE name LIKE 'template %' ORDER BY rowid"
        with self._explained():
            known = dict(self._database.execute(query).fetchall())
        if known and _template_row(template)[0] not in known:
            self._other_template = list(known.values())[-1]

    def last_server(self) -> str:
        """Return the address of the server of the last start; "" if there is none yet; blocks."""
        return self._meta("server")

    async def keep_server(self, url: str) -> None:
        """Write that the server there knows what the batch has made.

        Cancellation: is delayed while the file is written.
        """
        await self._write("INSERT OR REPLACE INTO meta VALUES ('server', ?)", [url])

    def kept_assistant(self) -> str:
        """Return the id of the batch's assistant; "" if there is none yet; blocks."""
        return self._meta("assistant").partition(" ")[0]

    def assistant(self, wanted: dict[str, Any] | str, digest: str) -> str | None:
        """Return the id of the batch's assistant, None if there is none yet; blocks.

        Raises:
            BatchError: It was made of other settings, or is another.
        """
        found, _, made_of = self._meta("assistant").partition(" ")
        if found and made_of != digest:
            known = msgspec.json.decode(self._meta("assistant wanted"))
            raise BatchError(assistant_change(found, known, wanted))
        return found or None

    def keep_assistant(self, assistant_id: str, wanted: dict[str, Any] | str, digest: str) -> None:
        """Write that this is the assistant, of settings or an id with this digest; blocks."""
        made_of = msgspec.json.encode(wanted).decode()
        with self._transaction() as database:
            rows = ("assistant", f"{assistant_id} {digest}", "assistant wanted", made_of)
            database.execute("INSERT INTO meta VALUES (?, ?), (?, ?)", rows)

    def keep_id_column(self, name: str | None) -> None:
        """Write, before the first row, which column has the ids, and check it later; blocks.

        Raises:
            BatchError: They have not: each row would be carried out again under another id.
        """
        known = self._meta("id column") or None
        if not self._one("SELECT count(*) FROM items")[0]:
            with self._transaction() as database:
                row = ("id column", name or "")
                database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", row)
        elif known != name:
            of = "the ids of earlier starts are "
            of += f"those of the column {known!r}" if known else "not those of a column by name"
            with_it = f"with id_column={known!r} (--id-column)" if known else "without --id-column"
            msg = f"{of}: go on {with_it}, or begin with another checkpoint and output"
            raise BatchError(msg)

    def keep_template(self, template: object) -> None:
        """Write into what the rows of a file are filled, for who compares them later; blocks."""
        with self._transaction() as database:
            database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", _template_row(template))

    def retry_failed(self) -> None:
        """Begin those lines anew, or go on with them, that failed for what may pass; blocks."""
        with self._transaction() as database:
            database.execute(f"{_RESTART} WHERE state = 'failed' AND retry IN ('anew', 'later')")
            database.execute(f"{_RESUME} WHERE state = 'failed' AND retry = 'resume'")

    def adopt_file(self, name: str, file: LineFile) -> None:
        """Make the file hold the results of the state `name`; blocks.

        Raises:
            BatchError: It exists and is not of this checkpoint, or cannot be written.
        """
        path = os.path.relpath(file.path, self._path.parent)  # the folder may be moved
        if self._meta(f"file {name}") != path:
            if not file.is_free() and not self._meta(f"past {name} {path}"):
                msg = (
                    f"{file.path} exists already, and was not written from {self._path}: name "
                    "another file, or move it away"
                )
                raise BatchError(msg)
            with self._transaction() as database:
                rows = (f"file {name}", path, f"past {name} {path}", "1")
                database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?), (?, ?)", rows)
        with self._explained():
            lines = self._results(name)
            if name == "done":
                file.repair(lines)
            elif self._one("SELECT count(*) FROM items WHERE state = 'failed'")[0]:
                file.replace(lines)
            elif not file.is_free():  # those of earlier starts are being retried
                file.replace([])

    async def move(
        self, custom_id: str, state: str, *, thread_id: str | None = None, run_id: str | None = None
    ) -> None:
        """Write that the line has come this far.

        Cancellation: is delayed while the file is written.
        """
        ids = "thread_id = coalesce(?, thread_id), run_id = coalesce(?, run_id)"
        update = f"UPDATE items SET state = ?, {ids} WHERE custom_id = ?"
        await self._write(update, [state, thread_id, run_id, custom_id])

    async def restart(self, custom_id: str, tokens: int) -> None:
        """Write that the line begins anew with another attempt; `tokens` were used by the last.

        Cancellation: is delayed while the file is written.
        """
        statement = f"{_RESTART}, tokens = tokens + ? WHERE custom_id = ?"
        await self._write(statement, [tokens, custom_id])

    async def count_orphan(self) -> None:
        """Write that a thread may exist that no run is on.

        Cancellation: is delayed while the file is written.
        """
        await self._write("UPDATE meta SET value = value + 1 WHERE name = 'orphans'", [])

    async def finish(
        self,
        custom_id: str,
        state: str,
        *,
        line: bytes,
        file: LineFile,
        tokens: int = 0,
        reason: str | None = None,
        retry: str | None = None,
    ) -> None:
        """Write the outcome, first here, then to its file.

        Cancellation: is delayed while the files are written.
        """
        self._place += 1
        values = [state, tokens, reason, retry, self._place, line, custom_id]
        update = (
            "UPDATE items SET state = ?, tokens = tokens + ?, reason = ?, retry = ?, place = ?, "
            "result = ? WHERE custom_id = ?"
        )
        self._pending.lines.append((file, line))
        await self._write(update, values)

    async def _write(self, statement: str, values: Sequence[object]) -> None:
        pending = self._pending
        pending.statements.append((statement, values))
        async with self._lock:
            if not pending.is_written:
                if pending is self._pending:
                    self._pending = _Pending()
                await anyio.to_thread.run_sync(self._commit, pending)

    def _commit(self, pending: _Pending) -> None:
        with self._guard:
            self._commit_guarded(pending)

    def _commit_guarded(self, pending: _Pending) -> None:
        if self._failure is not None:  # what comes now must not get before what was not written
            raise self._failure
        try:
            with self._transaction() as database:
                for statement, values in pending.statements:
                    database.execute(statement, values)
            pending.is_written = True
            for file in dict.fromkeys(file for file, _ in pending.lines):
                file.append(line for its, line in pending.lines if its is file)
        except BatchError as error:
            self._failure = error
            raise

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._explained():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            msg = (
                f"{self._path}: the checkpoint cannot be used: {error}; nothing is lost: once it "
                "can be, the same command goes on"
            )
            raise BatchError(msg) from error

    def _one(self, query: str) -> tuple[Any, ...]:
        found: tuple[Any, ...] = self._database.execute(query).fetchone()
        return found

    def _meta(self, name: str) -> str:
        query = "SELECT value FROM meta WHERE name = ?"
        with self._explained():
            found = self._database.execute(query, [name]).fetchone()
        return "" if found is None else str(found[0])


def _template_row(template: object) -> tuple[str, str]:
    """Return name and value of a template in the table `meta`."""
    text = msgspec.json.encode(template, order="sorted").decode()
    return f"template {hashlib.sha256(text.encode()).hexdigest()[:32]}", text
