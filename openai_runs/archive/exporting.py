"""`export`: everything that a server of this API has, into a folder.

Theory of operation. Threads come from the server's own list, or from the caller, and a few are
fetched at a time. A thread's file is written when all of it is there, so a kill loses what was
under way and nothing else. An export that was cut short goes on: it takes the files that it wrote
as they are, by their times. One that was finished is brought up to date by the next: that fetches
thread, messages and runs again, but takes the steps of runs that were over and are the same from
the file, since those never change; a thread that is the same is not written. So the archive is the
same whether it was made at once or in ten pieces. The manifest is written last.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import anyio
import anyio.to_thread
import msgspec

from openai_runs import AsyncClient
from openai_runs.archive import folders, left_out
from openai_runs.archive.folders import FileEntry, Manifest, RunLines, ThreadEntry, ThreadLines
from openai_runs.archive.left_out import LeftOut
from openai_runs.archive.requests import RawObject, Source, id_of, status_of
from openai_runs.config import ARCHIVE_CONCURRENCY, ARCHIVE_FAILURES, RetryPolicy, check_count
from openai_runs.errors import (
    APIResponseValidationError,
    APIStatusError,
    AuthenticationError,
    ConfigError,
    NotFoundError,
    PermissionDeniedError,
)
from openai_runs.types import ACTIVE_STATUSES

if TYPE_CHECKING:
    from anyio.abc import ObjectReceiveStream

__all__ = ["ExportProgress", "ExportReport", "export"]

_GONE: Final = "the server has it no more; it is kept as it was at an earlier export"
_NO_LIST: Final = {404, 405}
_RESULTS: Final = "step_details.tool_calls[*].file_search.results[*].content"
"""What a search found; left out unless it is asked for (OpenAPI: listRunSteps, `include`)."""


class ExportProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far an export is, after a thread."""

    threads: int
    """Threads that are done."""
    total: int | None
    """Of how many; None: the server lists them, and does not say how many there are."""
    unchanged: int
    """Of those done, the ones that were there and are the same."""
    messages: int


class ExportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an export."""

    folder: Path
    counts: dict[str, int]
    """Assistants, threads, messages, runs and steps in the archive."""
    written: int
    """Threads that are new, or are not what they were."""
    unchanged: int
    """Threads that were there and are the same."""
    failed: list[LeftOut]
    """Threads that could not be fetched; another export tries them again."""
    left_out: list[LeftOut]
    """What is not in the archive, and why; those that failed included."""


async def export(
    client: AsyncClient,
    folder: str | Path,
    *,
    threads: Iterable[str] | None = None,
    concurrency: int = ARCHIVE_CONCURRENCY,
    retry: RetryPolicy | None = None,
    on_progress: Callable[[ExportProgress], None] | None = None,
) -> ExportReport:
    """Write all that the server has into a folder, as it came, and return what became of it.

    Assistants, threads, messages, runs and steps; `openai_runs.archive` says how they lie there.
    An export that was cut short goes on when it is started again with the same folder; one that
    was finished is brought up to date.

    Args:
        client: Of any server of this API.
        folder: Made if it is not there.
        threads: Ids of the threads; None: those that the server lists (`GET /threads`).
        concurrency: Threads that are fetched at the same time.
        retry: How failed requests are repeated; None: each for up to `ARCHIVE_PATIENCE` seconds.
        on_progress: Called after each thread.

    Raises:
        TypeError: `threads` is one text, or `concurrency` no number.
        ConfigError: The server lists no threads, or the folder cannot be used.
        AuthenticationError: The key was refused; a callable was asked for another one before.
        APIError: The server cannot be reached.
        OSError: The files cannot be written.

    Cancellation: threads that are whole stay; another export goes on from there.
    """
    if isinstance(threads, str):
        message = "threads must be a list of ids, not one of them"
        raise TypeError(message)
    ids = None if threads is None else list(dict.fromkeys(threads))
    work = _Export(Source(client, retry), Path(folder), on_progress)
    return await work.run(ids, check_count("concurrency", concurrency))


class _Done(msgspec.Struct, frozen=True):
    """A thread that is in the archive."""

    entry: ThreadEntry
    left_out: list[LeftOut]


class _Export:
    def __init__(
        self,
        source: Source,
        folder: Path,
        on_progress: Callable[[ExportProgress], None] | None,
    ) -> None:
        self._source = source
        self._folder = folder
        self._on_progress = on_progress
        self._done: dict[int, _Done] = {}
        """By place in the server's list."""
        self._failed: dict[int, LeftOut] = {}
        self._gone: dict[int, LeftOut] = {}
        self._failures = 0
        """In a row."""
        self._written = 0
        self._messages = 0
        self._total: int | None = None
        self._error: Exception | None = None
        self._since = 0

    async def run(self, ids: list[str] | None, concurrency: int) -> ExportReport:
        there, self._since = await anyio.to_thread.run_sync(folders.begin, self._folder)
        self._total = None if ids is None else len(ids)
        assistants, notes = await self._assistants()
        send, receive = anyio.create_memory_object_stream[tuple[int, str, bytes | None]](0)
        try:
            async with anyio.create_task_group() as group:
                for _ in range(concurrency):
                    group.start_soon(self._work, receive.clone(), group.cancel_scope)
                receive.close()
                try:
                    number = 0
                    async with aclosing(self._threads(ids)) as found:
                        async for thread_id, raw in found:
                            await send.send((number, thread_id, raw))
                            number += 1
                except Exception as error:  # raised below, and not in a group
                    self._stop(error, group.cancel_scope)
                send.close()
        finally:
            send.close()
            receive.close()
        if self._error is not None:
            raise self._error
        return await anyio.to_thread.run_sync(self._finish, assistants, notes, there)

    def _stop(self, error: Exception, scope: anyio.CancelScope) -> None:
        """End the export with this error, the first there was."""
        if self._error is None:
            self._error = error
        scope.cancel()

    async def _assistants(self) -> tuple[bytes, list[LeftOut]]:
        """Return the lines of the file, and what is left out."""
        try:
            items = await self._source.list("/assistants")
        except (APIStatusError, APIResponseValidationError) as error:
            if error.status_code in {401, 403, 429} or (error.status_code or 0) >= 500:
                raise
            return b"", [LeftOut(what="assistants", id="", why=str(error))]
        notes = [note for item in items for note in left_out.in_assistant(item)]
        return folders.lines_of("assistant", items), notes

    async def _threads(self, ids: list[str] | None) -> AsyncGenerator[tuple[str, bytes | None]]:
        """Yield the threads to fetch, with their JSON where the list has it.

        Raises:
            ConfigError: The server lists none.
        """
        if ids is not None:
            for thread_id in ids:
                yield thread_id, None
            return
        try:
            async with aclosing(self._source.walk("/threads")) as found:
                async for item in found:
                    yield _identified(item), item.json
        except APIStatusError as error:
            if error.status_code not in _NO_LIST:
                raise
            message = (
                "this server does not list its threads (GET /threads): say which ones, by "
                "`threads=`, --thread or --threads-file"
            )
            raise ConfigError(message) from error

    async def _work(
        self,
        receive: ObjectReceiveStream[tuple[int, str, bytes | None]],
        scope: anyio.CancelScope,
    ) -> None:
        async with receive:
            async for number, thread_id, raw in receive:
                try:
                    await self._one(number, thread_id, raw)
                except Exception as error:  # raised by `run`, and not in a group
                    self._stop(error, scope)
                    return

    async def _one(self, number: int, thread_id: str, raw: bytes | None) -> None:
        """Fetch a thread and write its file, unless it is the same.

        Raises:
            APIError: It makes no sense to go on.
            OSError: The file cannot be written.
        """
        path = self._folder / folders.thread_path(thread_id)
        known = await anyio.to_thread.run_sync(_verified, path, self._since, thread_id)
        if known is not None:
            self._add(number, known)
            return
        before = await anyio.to_thread.run_sync(folders.read_if_there, path)
        try:
            lines = await self._fetch(thread_id, raw, await _known_steps(before))
        except (AuthenticationError, PermissionDeniedError, ConfigError):
            raise
        except NotFoundError as error:
            note = LeftOut(what="thread", id=thread_id, why=str(error))
            self._gone[number] = note
            self._notify()
        except (APIStatusError, APIResponseValidationError, ValueError) as error:
            self._failures += 1
            if self._failures >= ARCHIVE_FAILURES:
                raise
            self._failed[number] = LeftOut(what="thread", id=thread_id, why=str(error))
            self._notify()
        else:
            self._failures = 0
            data, done = await anyio.to_thread.run_sync(_finished, thread_id, lines)
            if data != before:
                await anyio.to_thread.run_sync(folders.write_whole, path, data)
                self._written += 1
            else:
                await anyio.to_thread.run_sync(folders.mark_verified, path)
            self._add(number, done)

    def _add(self, number: int, done: _Done) -> None:
        self._done[number] = done
        self._messages += done.entry.messages
        self._notify()

    async def _fetch(
        self, thread_id: str, raw: bytes | None, known: dict[bytes, list[bytes]]
    ) -> ThreadLines:
        """Return the thread and all that is on it; `known` has steps of runs that are over."""
        place = f"/threads/{quote(thread_id, safe='')}"
        thread = await self._source.get(place) if raw is None else raw
        messages = await self._source.list(f"{place}/messages")
        runs = []
        for run in await self._source.list(f"{place}/runs"):
            steps = known.get(run)
            if steps is None:
                steps = await self._steps(place, id_of(run))
            runs.append(RunLines(run, steps))
        return ThreadLines(thread=thread, messages=messages, runs=runs)

    async def _steps(self, place: str, run_id: str) -> list[bytes]:
        if not run_id:  # an item that nobody can ask for
            return []
        path = f"{place}/runs/{quote(run_id, safe='')}/steps"
        return await self._source.list(path, include=_RESULTS)

    def _notify(self) -> None:
        if self._on_progress is not None:
            self._on_progress(
                ExportProgress(
                    threads=len(self._done) + len(self._gone) + len(self._failed),
                    total=self._total,
                    unchanged=len(self._done) - self._written,
                    messages=self._messages,
                )
            )

    def _finish(self, assistants: bytes, notes: list[LeftOut], there: list[str]) -> ExportReport:
        """Write the other files, the manifest last; blocking."""
        listed = [self._done[number] for number in sorted(self._done)]
        mine = {done.entry.file for done in listed}
        kept = [self._kept(file) for file in there if file not in mine]
        every = [*listed, *(done for done in kept if done is not None)]
        failed = [self._failed[number] for number in sorted(self._failed)]
        notes = [*notes, *failed, *(self._gone[number] for number in sorted(self._gone))]
        for done in every:
            notes += done.left_out
        first: dict[tuple[str, str], LeftOut] = {}
        for note in notes:
            first.setdefault((note.what, note.id), note)
        unique = list(first.values())
        left = b"".join(msgspec.json.encode(note) + b"\n" for note in unique)
        counts = {
            "assistants": assistants.count(b"\n"),
            "threads": len(every),
            "messages": sum(done.entry.messages for done in every),
            "runs": sum(done.entry.runs for done in every),
            "steps": sum(done.entry.steps for done in every),
        }
        folders.write_whole(self._folder / folders.ASSISTANTS, assistants)
        folders.write_whole(self._folder / folders.LEFT_OUT, left)
        manifest = Manifest(
            format=folders.FORMAT,
            counts=counts,
            assistants=FileEntry(file=folders.ASSISTANTS, sha256=folders.digest(assistants)),
            left_out=FileEntry(file=folders.LEFT_OUT, sha256=folders.digest(left)),
            threads=[done.entry for done in every],
        )
        folders.write_manifest(self._folder, manifest)
        folders.finish(self._folder)
        return ExportReport(
            folder=self._folder,
            counts=counts,
            written=self._written,
            unchanged=len(self._done) - self._written,
            failed=failed,
            left_out=unique,
        )

    def _kept(self, file: str) -> _Done | None:
        """Return a thread of an earlier export that this one did not ask for, or not find."""
        data = folders.read_if_there(self._folder / file)
        try:
            lines = folders.decode_thread(data or b"")
        except ValueError:  # no file of ours
            return None
        thread_id = id_of(lines.thread)
        if folders.thread_path(thread_id) != file:
            return None
        _, done = _finished(thread_id, lines)
        if self._total is not None:  # it was not asked for
            return done
        note = LeftOut(what="thread", id=thread_id, why=_GONE)
        return _Done(done.entry, [note, *done.left_out])


def _identified(item: RawObject) -> str:
    """Return the thread's id.

    Raises:
        ConfigError: It has none, so nothing of it can be asked for.
    """
    if not item.id:
        message = f"the server lists a thread without an id: {item.json[:100]!r}"
        raise ConfigError(message)
    return item.id


def _finished(thread_id: str, lines: ThreadLines) -> tuple[bytes, _Done]:
    """Return the contents of the thread's file, and its place in the manifest."""
    data = folders.encode_thread(lines)
    entry = ThreadEntry(
        id=thread_id,
        file=folders.thread_path(thread_id),
        sha256=folders.digest(data),
        messages=len(lines.messages),
        runs=len(lines.runs),
        steps=lines.steps,
    )
    return data, _Done(entry, left_out.in_thread(lines))


def _verified(path: Path, since: int, thread_id: str) -> _Done | None:
    """Return the thread if this export has its file already; blocking."""
    data = folders.verified(path, since)
    try:
        lines = None if data is None else folders.decode_thread(data)
    except ValueError:  # damaged: it is written anew
        return None
    if lines is None or id_of(lines.thread) != thread_id:
        return None
    return _finished(thread_id, lines)[1]


async def _known_steps(before: bytes | None) -> dict[bytes, list[bytes]]:
    """Return the steps of the runs that were over, by the run's JSON."""
    if before is None:
        return {}
    try:
        lines = await anyio.to_thread.run_sync(folders.decode_thread, before)
    except ValueError:  # damaged: it is written anew
        return {}
    return {run.run: run.steps for run in lines.runs if status_of(run.run) not in ACTIVE_STATUSES}
