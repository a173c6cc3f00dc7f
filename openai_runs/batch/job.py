"""A durable batch: its settings, and its files from the lock to the last line."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

import anyio
import anyio.to_thread

from openai_runs import AsyncClient, LocalTool, Progress, RetryPolicy, tool
from openai_runs.batch.checkpoint import Checkpoint
from openai_runs.batch.errors import BatchError
from openai_runs.batch.inputs import Items, Lines, plain_body
from openai_runs.batch.output import LineFile
from openai_runs.batch.status import BatchStatus
from openai_runs.batch.work import Settings, Work
from openai_runs.config import BATCH_CONCURRENCY, BATCH_PATIENCE, BATCH_RETRIES, check_count

__all__ = ["Batch"]

_TABLES: Final = {".csv", ".tsv", ".xls", ".xlsx"}
"""Ends of the names of tables; a program would read what is no table."""


class Batch:
    """Many runs from lines, with a checkpoint; one object is one start.

    Args:
        client: What to send with; each request is retried for 60 s after its first failure.
        checkpoint: The file that knows what was done; made if it is not there. One process at a
            time works on it.
        tools: Functions that answer the tool calls of each run, sent with it unless its body has
            `tools`. After a crash, calls that were under way are made again, once per crash.
        concurrency: Lines in progress at most.
        retry_failed: Whether to retry what failed for a reason that may pass (see
            `RunFailed.retryable`): lines of earlier starts at once, others after
            `RunFailed.retry_after`, twice at most.
        max_failures: Failures in one start after which no further line is begun.
        progress: Called with the `Progress` once the lines of a file are checked, and each time
            one ends, its outcome written. What it raises ends the batch.
        assistant: Of lines without `assistant_id`: the id of one that is there; or the body of a
            `POST /assistants`, with `model`, of one that is created once for the checkpoint, and
            named after it unless the body has a `name`.

    Raises:
        BatchError: `assistant` cannot be sent.
        TypeError: `progress` is not callable.
        ValueError: `concurrency` or `max_failures` is less than 1; `assistant` has no `model`.
    """

    def __init__(
        self,
        client: AsyncClient,
        *,
        checkpoint: str | Path,
        tools: Iterable[Callable[..., Any]] = (),
        concurrency: int = BATCH_CONCURRENCY,
        retry_failed: bool = False,
        max_failures: int | None = None,
        progress: Callable[[Progress], object] | None = None,
        assistant: Mapping[str, Any] | str | None = None,
    ) -> None:
        if progress is not None and not callable(progress):
            msg = f"progress must be callable, got {progress!r}"
            raise TypeError(msg)
        if isinstance(assistant, Mapping) and not isinstance(assistant.get("model"), str):
            msg = "assistant has no model"
            raise ValueError(msg)
        self._path = Path(checkpoint)
        self.progress = Progress()
        """How far this start has come."""
        self._settings = Settings(
            client=client.with_options(retry=RetryPolicy(patience=BATCH_PATIENCE)),
            name=self._path.stem.encode(errors="replace").decode(),
            tools=[one if isinstance(one, LocalTool) else tool(one) for one in tools],
            concurrency=check_count("concurrency", concurrency),
            retries=BATCH_RETRIES if retry_failed else 0,
            max_failures=max_failures and check_count("max_failures", max_failures),
            stopping=anyio.Event(),
            progress=self.progress,
            on_progress=progress,
            assistant=None if assistant is None else plain_body(assistant, "assistant"),
        )

    def __repr__(self) -> str:
        return f"<Batch in {str(self._path)!r}: {self.progress}>"

    def stop(self) -> None:
        """Begin no further line; `run` returns once those in progress are done."""
        self._settings.stopping.set()

    @property
    def is_stopping(self) -> bool:
        """Return whether no further line is begun."""
        return self._settings.stopping.is_set()

    @contextmanager
    def stop_on_interrupt(self) -> Iterator[None]:
        """Let the first Ctrl-C stop the batch; a second one ends the program as without this.

        For a coroutine of `asyncio.run` in the main thread, around `await batch.run(...)`.

        Raises:
            ValueError: This is not the main thread, which alone receives signals.
        """
        loop = asyncio.get_running_loop()
        before = signal.getsignal(signal.SIGINT)

        def interrupt(number: int, frame: FrameType | None) -> None:
            signal.signal(signal.SIGINT, before)
            loop.call_soon_threadsafe(self.stop)  # which wakes the loop

        signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            if signal.getsignal(signal.SIGINT) is interrupt:
                signal.signal(signal.SIGINT, before)

    async def run(
        self,
        items: Lines | Items,
        *,
        out: str | Path,
        errors: str | Path | None = None,
    ) -> BatchStatus:
        """Carry out all lines that have no outcome yet, and return how far the batch has come.

        Args:
            items: The lines of a file, by `read_csv` or `read_jsonl`; or pairs of a custom id and
                the body of a `POST /threads/runs`, as an iterable or async iterable. In place of a
                body may stand a prompt alone, for the assistant of the batch.
            out: The file for the lines of completed runs, in the form of the vendor's Batch API.
            errors: The file for those of all others; None: beside `out`, as `NAME.errors.jsonl`.

        Raises:
            BatchError: A line is wrong, changed or doubled; another process works on the
                checkpoint; a file cannot be written; there were `max_failures`.
            APIError: The server is unreachable, or rejects the key.
            TypeError: An item is no pair, or `items` is a path.

        Cancellation: leaves runs in progress to the server; the same call goes on with them.
        """
        if isinstance(items, str | Path):
            msg = f"items must be lines or pairs: read {str(items)!r} by read_csv or read_jsonl"
            raise TypeError(msg)
        out = Path(out)
        errors = Path(errors) if errors else out.with_name(f"{out.stem}.errors.jsonl")
        files = {"done": LineFile(out), "failed": LineFile(errors)}
        with ExitStack() as stack:
            for file in files.values():
                stack.callback(file.close)
            retry = bool(self._settings.retries)
            checkpoint = await anyio.to_thread.run_sync(_opened, self._path, files, retry)
            stack.callback(checkpoint.close)
            await Work(self._settings, checkpoint, files).run(items)
            return await anyio.to_thread.run_sync(checkpoint.status)


def _opened(path: Path, files: Mapping[str, LineFile], retry: bool) -> Checkpoint:
    """Return the checkpoint, its files as it has them."""
    paths = [path, *(file.path for file in files.values())]
    if len({one.resolve() for one in paths}) < len(paths):
        msg = f"{', '.join(map(str, paths))}: checkpoint, results and errors need a file each"
        raise BatchError(msg)
    for file in files.values():
        if file.path.suffix.lower() in _TABLES:
            msg = (
                f"{file.path}: results are lines of JSON and no table: name it "
                f"{file.path.stem}.jsonl, and make a table of what read_results yields"
            )
            raise BatchError(msg)
    for one in paths:
        if not one.parent.is_dir():
            msg = f"{one}: there is no folder {one.parent}: make it, or name another"
            raise BatchError(msg)
    checkpoint = Checkpoint(path)
    try:
        if retry:
            checkpoint.retry_failed()
        for name, file in files.items():
            checkpoint.adopt_file(name, file)
    except BaseException:
        checkpoint.close()
        raise
    return checkpoint
