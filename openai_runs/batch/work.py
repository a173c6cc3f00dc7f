"""One start of a batch: lines are pulled, carried out side by side, and their outcomes written.

Theory of operation. For each line a thread is created, which belongs to this line alone, and then
one run on it, with keys made of job, custom id and attempt. What is about to be sent is in the
checkpoint before. After a crash a line goes on from its state: the same key gives the same thread
and run where the server remembers keys; on any other the run is looked for on the thread before
another is created, and a second thread may be left over. The batch's own assistant, where it has
one, is created with a key of job and settings; its id is written before the first thread is made.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence, Sized
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import anyio
import anyio.to_thread
import msgspec

from openai_runs import (
    ActiveRunError,
    APIStatusError,
    AsyncClient,
    ConfigError,
    LocalTool,
    NotFoundError,
    OpenAIRunsError,
    Progress,
    Run,
    RunFailed,
    RunResult,
    Thread,
)
from openai_runs.batch.checkpoint import Checkpoint, Row
from openai_runs.batch.errors import BatchError
from openai_runs.batch.inputs import Blanks, Items, Line, Lines, chunks
from openai_runs.batch.output import LineFile
from openai_runs.batch.results import ends_batch, error_line, error_of, how_to_retry, result_line
from openai_runs.config import (
    ADOPT_DELAY,
    BATCH_REJECTIONS,
    BATCH_RETRY_PAUSE,
    BATCH_WAITING,
    MAX_RETRY_AFTER,
)

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

__all__ = ["Settings", "Work"]

_logger = logging.getLogger("openai_runs.batch")
_OF_THREAD: Final = ("thread", "tool_resources")
"""Keys of a body that make the thread."""
_FIRST_OF_SERVER: Final = 500
"""Status from which on an answer says nothing about the request."""
_MAX_NAME: Final = 200
"""Characters of an assistant's name; the API takes 256."""
_FEATURES: Final = "openai-runs-features"


class Settings(NamedTuple):
    """How a batch is carried out."""

    client: AsyncClient
    name: str
    """By which people know the batch."""
    tools: Sequence[LocalTool[Any, Any]]
    concurrency: int
    retries: int
    max_failures: int | None
    stopping: anyio.Event
    """Set: no further line is begun."""
    progress: Progress
    on_progress: Callable[[Progress], object] | None
    assistant: dict[str, Any] | str | None
    """Of what to make the assistant of lines without `assistant_id`, or its id."""


class Work:
    """One start of a batch."""

    def __init__(
        self, settings: Settings, checkpoint: Checkpoint, files: Mapping[str, LineFile]
    ) -> None:
        self._settings = settings
        self._client = settings.client
        self._progress = settings.progress
        self._stopping = settings.stopping
        self._checkpoint = checkpoint
        self._files = files
        self._slots = anyio.Semaphore(settings.concurrency)
        self._open = anyio.Semaphore(settings.concurrency + BATCH_WAITING)
        """For lines in progress and those that wait for a retry."""
        self._failure: Exception | None = None
        """What ends the batch."""
        self._last_reason: str | None = None
        """Of the last failure, once there are as many as may be."""
        self._rejections: list[str] | None = []
        """What the server has answered as long as it has rejected each line; None since it has
        accepted one, or two answers were not the same."""
        self._assistant_id = ""
        """Of lines that name none."""
        self._last_server = ""
        """Its address at the last start."""
        self._is_server_kept = False

    async def run(self, items: Lines | Items) -> None:
        """Carry out each line that has no outcome.

        Raises:
            Exception: What has ended the batch early; `BatchError` or `APIError` if it is ours.

        Cancellation: leaves what is in progress to the next start.
        """
        self._assistant_id = await anyio.to_thread.run_sync(self._checkpoint.kept_assistant)
        self._last_server = await anyio.to_thread.run_sync(self._checkpoint.last_server)
        if isinstance(items, Lines):
            await self._check(items)
        elif isinstance(items, Sized):
            self._progress.total = len(items)
        self._report()
        async with anyio.create_task_group() as jobs, anyio.create_task_group() as pulling:
            pulling.start_soon(self._stop_pulling, pulling)
            await self._pull(items, jobs)
            pulling.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure
        if self._last_reason is not None:
            failed = self._progress.failed
            count = f"{failed} {'failure' if failed == 1 else 'failures'}"
            msg = f"stopped after {count}, the last of them: {self._last_reason}"
            raise BatchError(msg)

    async def _check(self, lines: Lines) -> None:
        """Read all lines of a file: what is wrong with one is found before anything is sent."""
        await anyio.to_thread.run_sync(self._checkpoint.begin_pass)
        if lines.template is not None:
            checkpoint, name = self._checkpoint, lines.id_column
            await anyio.to_thread.run_sync(checkpoint.compare_template, lines.template)
            await anyio.to_thread.run_sync(checkpoint.keep_id_column, name)
        total, blanks = 0, Blanks()
        async with aclosing(chunks(lines)) as found:
            async for chunk in found:
                entered = await self._enter(chunk)
                total += len(chunk)
                self._progress.earlier += sum(row.is_over for _, row in entered)
                for line in (line for line, row in entered if not row.is_over):
                    blanks.add(line)
        self._progress.total = total
        for sentence in blanks.sentences() if total else ["the input has no lines"]:
            _logger.warning("%s", sentence)
        if lines.template is not None:
            await anyio.to_thread.run_sync(self._checkpoint.keep_template, lines.template)

    async def _enter(self, chunk: Sequence[Line]) -> list[tuple[Line, Row]]:
        for line in chunk:
            is_given = self._settings.assistant is not None or self._assistant_id
            if "assistant_id" not in line.body and not is_given:
                place = "rows have" if line.is_row else f"line {line.number} of the input: body has"
                way = (
                    "put one into the body, or give the batch an assistant (assistant=, "
                    "--assistant or --model)"
                )
                msg = f"{place} no assistant_id: {way}"
                raise BatchError(msg)
        return await self._checkpoint.enter(chunk, self._files["failed"])

    async def _get_assistant(self, wanted: dict[str, Any] | str) -> str:
        """Return the id of the batch's assistant: the one that is wanted, or that it has made."""
        digest = _digest(wanted)
        found = await anyio.to_thread.run_sync(self._checkpoint.assistant, wanted, digest)
        if found is not None:
            if self._progress.earlier != self._progress.total:
                await self._check_known(self._client.assistants.retrieve(found), found)
            return found
        if isinstance(wanted, str):
            await self._check_there(wanted)
            assistant_id = wanted
        else:
            assistant_id = await self._make_assistant(wanted)
        keep = self._checkpoint.keep_assistant
        await anyio.to_thread.run_sync(keep, assistant_id, wanted, digest)
        return assistant_id

    async def _check_there(self, assistant_id: str) -> None:
        try:
            await self._client.assistants.retrieve(assistant_id)
        except NotFoundError as error:
            msg = f"this server has no assistant {assistant_id}; assistants list shows those it has"
            raise BatchError(msg) from error

    async def _make_assistant(self, settings: Mapping[str, Any]) -> str:
        """Create the assistant once: killed before its id is written, with the same key again."""
        name = f"batch {self._settings.name}"[:_MAX_NAME]
        sent = {"name": name, **settings}
        key = f"batch_{self._checkpoint.job}_{_digest(sent)}"
        made = await self._client.assistants.create(
            model=sent["model"], extra_body=sent, idempotency_key=key
        )
        return made.id

    async def _stop_pulling(self, pulling: TaskGroup) -> None:
        await self._stopping.wait()
        pulling.cancel_scope.cancel()

    async def _pull(self, items: Lines | Items, jobs: TaskGroup) -> None:
        try:
            if self._settings.assistant is not None:
                self._assistant_id = await self._get_assistant(self._settings.assistant)
            await anyio.to_thread.run_sync(self._checkpoint.begin_pass)
            async with aclosing(chunks(items)) as found:
                async for chunk in found:
                    for line, row in await self._enter(chunk):
                        if row.is_over:
                            self._progress.earlier += not isinstance(items, Lines)
                            continue
                        await self._open.acquire()
                        await self._slots.acquire()
                        if self._stopping.is_set():
                            return
                        jobs.start_soon(self._one, line, row, jobs)
        except Exception as error:  # of the input: what is in progress is finished
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._stopping.set()

    async def _one(self, line: Line, row: Row, jobs: TaskGroup) -> None:
        """Carry a line out in its slot, which others have while it waits for a retry."""
        retries = self._settings.retries
        try:
            while True:
                self._progress.running += 1
                try:
                    error = await self._carry_out(line, row, may_retry=retries > 0)
                finally:
                    self._progress.running -= 1
                    self._slots.release()
                if error is None:
                    break
                retries -= 1
                row = Row("new", row.attempt + 1, None, None)
                if not await self._has_slot_again(error):
                    break
            self._report()
        except Exception as error:
            self._fail(error)
            jobs.cancel_scope.cancel()
        finally:
            self._open.release()

    def _report(self) -> None:
        if self._settings.on_progress is not None:
            self._settings.on_progress(self._progress)

    async def _carry_out(self, line: Line, row: Row, *, may_retry: bool) -> OpenAIRunsError | None:
        """Carry out one attempt; return the error after which another is due."""
        key = self._key(line, row)
        outcome = await self._attempt(line, row, key)
        result = outcome if isinstance(outcome, RunResult) else None
        error = error_of(outcome) if isinstance(outcome, RunResult) else outcome
        if error is None or not may_retry or how_to_retry(error) != "anew":
            await self._finish(line, key, result, error)
            return None
        tokens = _tokens(result)
        self._progress.tokens += tokens
        await self._checkpoint.restart(line.custom_id, tokens)
        return error

    async def _has_slot_again(self, error: OpenAIRunsError) -> bool:
        """Wait until the retry is due and has a slot; return False if the batch stops."""
        asked = error.retry_after if isinstance(error, RunFailed) else None
        pause = BATCH_RETRY_PAUSE if asked is None else min(asked, MAX_RETRY_AFTER)
        with anyio.move_on_after(pause):
            await self._stopping.wait()
        await self._slots.acquire()
        if self._stopping.is_set():
            self._slots.release()
            return False
        return True

    async def _finish(
        self, line: Line, key: str, result: RunResult | None, error: OpenAIRunsError | None
    ) -> None:
        if result is not None and error is None:
            text = result_line(key, line.custom_id, result)
            file = self._files["done"]
            tokens = _tokens(result)
            await self._checkpoint.finish(
                line.custom_id, "done", line=text, file=file, tokens=tokens
            )
            self._progress.add(result)
            self._rejections = None
            return
        assert error is not None
        self._note_rejection(error)
        reason = self._progress.add(result or error)
        await self._checkpoint.finish(
            line.custom_id,
            "failed",
            line=error_line(key, line.custom_id, error, result),
            file=self._files["failed"],
            tokens=_tokens(result),
            reason=reason,
            retry=how_to_retry(error),
        )
        failed, most = self._progress.failed, self._settings.max_failures
        if most is not None and failed >= most:  # several may have failed meanwhile
            self._last_reason = reason
            self._stopping.set()

    def _note_rejection(self, error: OpenAIRunsError) -> None:
        """End the batch if all that came of its first lines is the same answer of the server."""
        if (
            self._rejections is None
            or not isinstance(error, APIStatusError)
            or error.status_code >= _FIRST_OF_SERVER
        ):
            self._rejections = None
            return
        self._rejections.append(error.message)
        if len(set(self._rejections)) > 1:
            self._rejections = None
        elif len(self._rejections) >= BATCH_REJECTIONS:
            said = error.message.removesuffix(".")
            msg = (
                f"stopped, as the server has rejected each of the first {BATCH_REJECTIONS} lines "
                f"with the same answer: {said}; start again with the template or the lines put "
                "right: a line that has no run may change"
            )
            self._fail(BatchError(msg))

    async def _attempt(self, line: Line, row: Row, key: str) -> RunResult | OpenAIRunsError:
        """Return the result of the line's run, or why there is none.

        Raises:
            OpenAIRunsError: The batch must end.
        """
        thread_id = row.thread_id
        try:
            thread_id = thread_id or await self._create_thread(line, row, key)
            run_id = row.run_id or await self._create_run(line, row, key, thread_id)
            return await self._result(run_id, thread_id)
        except BatchError:
            raise
        except OpenAIRunsError as error:
            if ends_batch(error):
                raise
            if isinstance(error, NotFoundError):
                await self._check_server(thread_id)
            return error
        except (TypeError, ValueError, RecursionError) as error:
            return ConfigError(f"line {line.number} cannot be sent: {error}")

    async def _check_server(self, thread_id: str | None) -> None:
        """Raise what ends the batch if the server does not know what the batch has made on it."""
        if self._assistant_id:
            assistants = self._client.assistants
            await self._check_known(assistants.retrieve(self._assistant_id), self._assistant_id)
        if thread_id is not None:
            await self._check_known(self._client.threads.retrieve(thread_id), thread_id)

    async def _check_known(self, retrieved: Awaitable[object], made: str) -> None:
        """Retrieve what the batch has made.

        Raises:
            BatchError: The server does not know it.
        """
        try:
            await retrieved
        except NotFoundError as error:
            last = self._last_server
            where = f", then at {last}" if last and last != self._client.base_url else ""
            msg = f"this server does not know {made}; is it the one of the last start{where}?"
            if made.startswith("thread"):
                msg += " If the thread was deleted there, give its line another custom_id"
            raise BatchError(msg) from error

    async def _result(self, run_id: str, thread_id: str) -> RunResult:
        runs = self._client.runs
        if self._settings.tools:
            return await runs.resume(run_id, thread_id=thread_id, tools=self._settings.tools)
        return await runs.result(await runs.wait(run_id, thread_id=thread_id))

    async def _create_thread(self, line: Line, row: Row, key: str) -> str:
        await self._checkpoint.move(line.custom_id, "thread")
        sent = {**(line.body.get("thread") or {})}
        if line.body.get("tool_resources"):
            sent.setdefault("tool_resources", line.body["tool_resources"])
        thread = await self._client.threads.create(extra_body=sent, idempotency_key=f"{key}-thread")
        await self._checkpoint.move(line.custom_id, "run", thread_id=thread.id)
        if not self._is_server_kept:
            self._is_server_kept = True
            await self._checkpoint.keep_server(self._client.base_url or "")
        if row.state == "thread" and not _remembers_keys(thread):
            await self._checkpoint.count_orphan()
        return thread.id

    async def _create_run(self, line: Line, row: Row, key: str, thread_id: str) -> str:
        run_id = await self._find_run(thread_id) if row.state == "run" else None
        if run_id is None:
            run_id = await self._start_run(line, key, thread_id)
        await self._checkpoint.move(line.custom_id, "going", run_id=run_id)
        return run_id

    async def _find_run(self, thread_id: str) -> str | None:
        """Return the run that an earlier process has created, if it is there within a moment."""
        for poll in range(2):
            if poll:
                await anyio.sleep(ADOPT_DELAY)
            page = await self._client.runs.list(thread_id, limit=1, order="asc")
            if page.data:
                return page.data[0].id
        return None

    async def _start_run(self, line: Line, key: str, thread_id: str) -> str:
        settings = {name: value for name, value in line.body.items() if name not in _OF_THREAD}
        own: dict[str, Any] = {} if not self._settings.tools else {"tools": self._settings.tools}
        try:
            run: Run = await self._client.runs.create(
                thread_id,
                assistant_id=line.body.get("assistant_id", self._assistant_id),
                extra_body=settings,
                idempotency_key=key,
                **own,
            )
        except ActiveRunError as error:  # a create of a killed process that arrived late
            if error.blocking_run_id is None:
                raise
            return error.blocking_run_id
        return run.id

    def _key(self, line: Line, row: Row) -> str:
        """Return what makes the creates of this attempt the same in every process."""
        facts = f"{self._checkpoint.job}\n{row.attempt}\n{line.custom_id}"
        return f"batch_req_{hashlib.sha256(facts.encode()).hexdigest()[:32]}"


def _digest(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()[:32]


def _tokens(result: RunResult | None) -> int:
    usage = None if result is None else result.usage
    return 0 if usage is None else usage.total_tokens


def _remembers_keys(thread: Thread) -> bool:
    features = "" if thread.http is None else thread.http.headers.get(_FEATURES, "")
    return "idempotency" in features
