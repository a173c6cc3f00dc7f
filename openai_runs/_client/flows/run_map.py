"""Many runs at once: `runs.map`, from its items to their results.

Theory of operation. A `Batch` pulls items from the input and carries each out in a task of its
own, all within one background task of the client. The caller holds a `RunMap`, to which the
background task has no reference: the task is cancelled when the `RunMap` is garbage collected.
Items that were pulled and whose outcome was not read yet count against `concurrency`, so a slow
reader stops the input. `MapJob` carries out one item.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sized,
)
from contextlib import ExitStack
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar

import anyio
import anyio.lowlevel
import msgspec

from openai_runs._aio import is_cancelled
from openai_runs._client.arguments import (
    Arguments,
    MapCall,
    MapItemCall,
    MapThreadItemCall,
    StartOptions,
    Tools,
    follow_up_options,
    parse,
)
from openai_runs._client.core.background import BackgroundTask, BackgroundTasks
from openai_runs._client.core.deadline import Deadline
from openai_runs._client.core.pipeline import Pipeline
from openai_runs._client.flows.create_run import CreateRunFlow
from openai_runs._client.flows.results import RunResult, run_to_result
from openai_runs._client.flows.run_progress import Progress
from openai_runs._client.flows.tool_loop import ToolLoop, local_tools
from openai_runs._client.polling.waiter import Waiter
from openai_runs._client.usage import NotAwaited, unexpected_keyword
from openai_runs._log_ids import ids_of
from openai_runs._protocol.endpoints import CREATE_RUN, CREATE_THREAD_AND_RUN, GET_ASSISTANT
from openai_runs._protocol.spec import check_header, check_id, encode_body
from openai_runs.config import CANCEL_GRACE, check_count
from openai_runs.errors import APIError, ConfigError, OpenAIRunsError

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

__all__ = ["Items", "Outcome", "RunMap", "map_runs"]

K = TypeVar("K")
Outcome = RunResult | OpenAIRunsError
"""The outcome of an item."""
Items = Iterable[tuple[K, Mapping[str, Any]]] | AsyncIterable[tuple[K, Mapping[str, Any]]]
"""Pairs of a key, which is the caller's, and the arguments of a create."""
CarryOut = Callable[[K, Mapping[str, Any]], Awaitable[RunResult]]

_NAME: Final = "runs.map"
_IDS: Final = ("thread_id", "assistant_id")
"""Arguments of an item that the methods of a create take by name."""
_LOG: Final = logging.getLogger("openai_runs.client")
_END: Final = object()
_CURRENT_BATCH: Final[ContextVar[object]] = ContextVar("openai_runs.batch", default=None)
"""The token of the batch whose task is running.

Not the batch itself: a connection keeps the context that it was opened in while it is open.
"""
_CLOSING: Final = 2 * CANCEL_GRACE
"""Seconds for cancelling what runs, which cancels at the server, and for closing the input."""


class Batch(Generic[K]):
    """The items, the tasks that carry them out, and the outcomes that were not read yet.

    Args:
        items: See `Items`; pulled one at a time, in the event loop.
        carry_out: Returns the result of an item; an error of ours is an outcome as well.
        concurrency: Items that may be pulled and not yet read.

    Raises:
        TypeError: The items cannot be iterated.
    """

    def __init__(self, items: Items[K], carry_out: CarryOut[K], concurrency: int) -> None:
        self.token: Final = object()
        self._input = _Input(items)
        self._carry_out = carry_out
        self._concurrency = concurrency
        self._pending = 0
        """Items that were pulled and not yet read."""
        self._may_pull = anyio.Event()
        self._changes = anyio.Event()
        self._jobs: TaskGroup | None = None
        self._pulling: anyio.CancelScope | None = None
        self.pulled = self.running = self.done = self.failed = 0
        self.unread: deque[tuple[K, Outcome]] = deque()
        self.failure: BaseException | None = None
        """What the input or a function of the caller's raised; ends the batch."""
        self.is_whole = False
        """Whether it has ended without being cancelled."""
        self.is_finished = False

    async def run(self) -> None:
        """Pull items and carry them out, until the input and the last of them have ended.

        Cancellation: cancels the items in progress, and closes the input.
        """
        _CURRENT_BATCH.set(self.token)
        try:
            async with anyio.create_task_group() as self._jobs:
                with anyio.CancelScope() as self._pulling:
                    await self._pull_all(self._jobs)
            self.is_whole = True
        finally:
            self._jobs = None
            self.is_finished = True
            self._changes.set()

    def read(self) -> tuple[K, Outcome]:
        """Return the oldest outcome that was not read; another item may be pulled."""
        self._pending -= 1
        self._may_pull.set()
        return self.unread.popleft()

    async def changed(self) -> None:
        """Return once there may be an outcome to read.

        Cancellation: loses nothing.
        """
        if self._changes.is_set():
            self._changes = anyio.Event()
        await self._changes.wait()

    async def _pull_all(self, jobs: TaskGroup) -> None:
        try:
            while True:
                await self._wait_until_read()
                item = await self._input.next()
                if item is _END:
                    return
                self.pulled += 1
                self._pending += 1
                key, arguments = _pair(item)
                jobs.start_soon(self._one, key, arguments)
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            self._stop(RuntimeError("the input of runs.map awaited something that was cancelled"))
        except Exception as error:
            self._stop(error)
        finally:
            await self._close_input()

    async def _wait_until_read(self) -> None:
        await anyio.lowlevel.checkpoint()  # an input that never awaits must not block other tasks
        while self._pending >= self._concurrency:
            self._may_pull = anyio.Event()
            await self._may_pull.wait()

    async def _close_input(self) -> None:
        with anyio.move_on_after(CANCEL_GRACE, shield=True):
            try:
                await self._input.aclose()
            except Exception as error:
                self._stop(error)

    async def _one(self, key: K, arguments: Mapping[str, Any]) -> None:
        self.running += 1
        try:
            result = await self._carry_out(key, arguments)
        except OpenAIRunsError as error:
            self.failed += 1
            self._finish(key, error)
        except asyncio.CancelledError:
            if is_cancelled():
                raise  # else a function of the caller's awaited something that was cancelled
            self._stop(RuntimeError(f"the item {key!r:.200} awaited something that was cancelled"))
        except Exception as error:
            error.add_note(f"raised while the item {key!r:.200} was carried out")
            self._stop(error)
        except BaseException as error:
            # Such as KeyboardInterrupt; raised by the reader, in the caller's task.
            self.unread.clear()
            self._stop(error)
            assert self._jobs is not None
            self._jobs.cancel_scope.cancel()
        else:
            self._finish(key, result)
        finally:
            self.running -= 1

    def _finish(self, key: K, outcome: Outcome) -> None:
        self.done += 1
        self.unread.append((key, outcome))
        self._changes.set()

    def _stop(self, failure: BaseException) -> None:
        """Pull no further items; those in progress finish, and then `failure` is raised."""
        if self.failure is None:
            self.failure = failure
        if self._pulling is not None:
            self._pulling.cancel()


class RunMap(NotAwaited, Generic[K]):
    """The outcomes of a batch, in the order in which its items end; made by `runs.map`.

    An `async for` over it gives `(key, outcome)`. Leaving it early ends the batch, also by a
    plain `break`; with `async with`, or after `aclose()`, it has ended when the next line runs.
    """

    _call = "client.runs.map(...)"

    def __init__(
        self,
        batch: Batch[K],
        background: BackgroundTasks,
        progress: Progress,
        on_progress: Callable[[Progress], object] | None,
    ) -> None:
        self._progress = progress
        self._on_progress = on_progress
        self._work: BackgroundTask | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._batch = batch
        self._background = background
        self._closed = False

    @property
    def pulled(self) -> int:
        """Return how many items were pulled from the input."""
        return self._batch.pulled

    @property
    def running(self) -> int:
        """Return how many items are being carried out."""
        return self._batch.running

    @property
    def done(self) -> int:
        """Return how many items have an outcome, read or not."""
        return self._batch.done

    @property
    def failed(self) -> int:
        """Return how many of these are errors; a run that ended as failed is a result."""
        return self._batch.failed

    def __aiter__(self) -> AsyncIterator[tuple[K, Outcome]]:
        """Return itself: there is one input, and each outcome comes once."""
        return self

    async def __anext__(self) -> tuple[K, Outcome]:
        """Return the next key and outcome; the first call begins the batch.

        Raises:
            StopAsyncIteration: All items are done.
            ConfigError: The client was closed before that.
            BaseException: What the input raised, or a function of the caller's, once all
                items in progress have ended and been returned.

        Cancellation: ends the batch, as `aclose` does.
        """
        self._begin()
        batch = self._batch
        try:
            while self._closed or not batch.unread:
                if self._closed or batch.is_finished:
                    raise self._end()
                await batch.changed()
        except anyio.get_cancelled_exc_class():
            await self.aclose()
            raise
        key, outcome = batch.read()
        self._progress.running = batch.running
        self._progress.add(outcome)
        if self._on_progress is not None:
            self._on_progress(self._progress)
        return key, outcome

    async def aclose(self) -> None:
        """End the batch: nothing more is pulled, and items in progress are cancelled.

        Runs that were started are left alone, or cancelled with `on_cancel="cancel"`.
        Outcomes that were not read are dropped.

        A tool of the batch may call it too; then it does not wait for the end.

        Cancellation: is delayed until that is done, for at most 10 s.
        """
        self._closed = True
        self._batch.unread.clear()
        if self._work is not None:
            self._work.cancel()
            # A tool of this batch would wait for itself.
            if _CURRENT_BATCH.get() is not self._batch.token:
                with anyio.move_on_after(_CLOSING, shield=True):
                    await self._work.wait()
        failure, self._batch.failure = self._batch.failure, None
        if failure is not None:
            words = "runs.map was left before it could raise this"
            _LOG.warning(words, exc_info=failure, extra=ids_of(failure))

    async def __aenter__(self) -> Self:
        """Begin the batch."""
        self._begin()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the batch."""
        await self.aclose()

    def __del__(self) -> None:
        """End the batch when it is garbage collected, in any thread."""
        if self._work is None or self._loop is None or self._batch.is_finished:
            return
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._work.cancel)

    def __repr__(self) -> str:
        """Show the counts."""
        if self._work is None and not self._closed:
            return "<RunMap: not begun; use `async with` and `async for`>"
        counts = f"{self.pulled} pulled, {self.running} running, {self.done} done"
        return f"<RunMap: {counts}, {self.failed} failed>"

    def _begin(self) -> None:
        if self._work is None and not self._closed:
            self._loop = asyncio.get_running_loop()
            self._work = self._background.start(self._batch.run, name="runs.map")

    def _end(self) -> BaseException:
        """Return what to raise once all outcomes were read."""
        batch = self._batch
        failure, batch.failure = batch.failure, None
        if failure is not None:
            return failure
        if batch.is_whole or self._closed:
            return StopAsyncIteration()
        message = "the client was closed before runs.map had carried out all items"
        return ConfigError(message)


class _Input(Generic[K]):
    """The input, sync or async."""

    def __init__(self, items: Items[K]) -> None:
        self._async = items.__aiter__() if isinstance(items, AsyncIterable) else None
        self._sync = iter(items) if not isinstance(items, AsyncIterable) else None

    async def next(self) -> Any:
        """Return the next item, or `_END`.

        Cancellation: cancels an async input.
        """
        if self._sync is not None:
            return next(self._sync, _END)
        assert self._async is not None
        return await anext(self._async, _END)

    async def aclose(self) -> None:
        """Close an async generator; other inputs need no closing."""
        close = getattr(self._async, "aclose", None)
        self._sync = self._async = None
        if close is not None:
            await close()


def _pair(item: Any) -> tuple[Any, Mapping[str, Any]]:
    try:
        key, arguments = item
    except (TypeError, ValueError):
        msg = f"items must be pairs of a key and arguments, got {type(item).__name__}"
        raise TypeError(msg) from None
    return key, arguments


def map_runs(
    pipeline: Pipeline,
    waiter: Waiter,
    items: Items[K],
    *,
    concurrency: int,
    tools: Tools | None,
    progress: Callable[[Progress], object] | None,
    given: Mapping[str, Any],
) -> RunMap[K]:
    """Return the results of many runs; nothing is sent before the first is awaited.

    Raises:
        TypeError: An argument is of the wrong kind, or a function cannot be a tool.
        ValueError: An argument is out of bounds.
    """
    limit = check_count("concurrency", concurrency)
    if progress is not None and not callable(progress):
        msg = f"progress must be callable, got {progress!r}"
        raise TypeError(msg)
    job = MapJob(pipeline, waiter, tools, given)
    total = len(items) if isinstance(items, Sized) else None
    counted = Progress(total, pipeline.settings.runtime.monotonic)
    batch = Batch(items, job.carry_out, limit)
    return RunMap(batch, pipeline.state.background, counted, progress)


class MapJob:
    """Carries out the items of one `runs.map`; `given` are the defaults of each item."""

    def __init__(
        self, pipeline: Pipeline, waiter: Waiter, tools: Tools | None, given: Mapping[str, Any]
    ) -> None:
        if "idempotency_key" in given:  # one key, one run
            call = f"client.{_NAME}"
            raise unexpected_keyword(call, "idempotency_key")
        own = {} if tools is None else {"tools": tools}
        checked = parse(_NAME, MapCall, given, pipeline.settings.poll, **own)
        ToolLoop(checked.tools or (), checked.tool)  # checks the options
        for name, value in (checked.call.get("extra_headers") or {}).items():
            check_header(name, value)
        if "assistant_id" in given:
            check_id("assistant_id", given["assistant_id"])
        # As parsed, since a generator among them can be read only once.
        self._given = {**given, **checked.body, **checked.start}
        if tools is not None:
            self._given["tools"] = checked.tools
        if "response_format" in given:  # its type is the type of the results' `parsed`
            self._given["response_format"] = given["response_format"]
        self._pipeline = _with_patience(pipeline, checked.wait.policy.max_outage)
        self._waiter = waiter.with_pipeline(self._pipeline)
        self._learning = anyio.Lock()
        self._has_asked = False

    async def carry_out(self, key: object, item: Mapping[str, Any]) -> RunResult:
        """Return the result of the item.

        Raises:
            ConfigError: Its arguments cannot be sent.
            OpenAIRunsError: Something else went wrong.

        Cancellation: leaves the run alone, or cancels it with `on_cancel="cancel"`.
        """
        with ExitStack() as spans:
            return await self._carry_out(key, item, spans)

    async def _carry_out(self, key: object, item: Mapping[str, Any], spans: ExitStack) -> RunResult:
        try:
            thread_id, given = self._parsed(item)
            tools = local_tools(given)
            deadline = Deadline(self._pipeline.settings.runtime, given.call, given.wait)
            endpoint = CREATE_THREAD_AND_RUN if thread_id is None else CREATE_RUN
            flow = CreateRunFlow(self._pipeline, self._waiter, endpoint, given, thread_id=thread_id)
            if thread_id is None:
                encode_body(given.body)  # what cannot be sent is an error before anything is
                with anyio.move_on_after(deadline.seconds_left()):
                    await self._learn_features(given)
            span = spans.enter_context(self._pipeline.invocation(given.body, thread_id))
            run = await flow.make_within(deadline)
        except (TypeError, ValueError, RecursionError) as error:
            if isinstance(error, OpenAIRunsError):
                raise
            msg = f"the item {key!r:.200} cannot be sent: {error}"
            raise ConfigError(msg) from error
        return await run_to_result(
            self._pipeline,
            self._waiter,
            deadline,
            run,
            run.thread_id,
            tools=tools,
            response_format=given.response_format,
            span=span,
        )

    def _parsed(self, item: object) -> tuple[str | None, Arguments]:
        """Return the item's thread, None for one of its own, and the arguments of its create."""
        if not isinstance(item, Mapping):
            msg = f"its arguments must be a mapping, got {type(item).__name__}"
            raise TypeError(msg)
        merged = {**self._given, **item}
        thread_id: str | None = merged.get("thread_id")
        kind: type = MapItemCall
        dropped: set[str] = {*_IDS}
        if thread_id is None:  # a thread that is created with its run is never busy
            kind = MapThreadItemCall
            dropped |= StartOptions.__annotations__.keys() - item.keys()
        given = {name: value for name, value in merged.items() if name not in dropped}
        own = {"assistant_id": merged.get("assistant_id")}
        return thread_id, parse(_NAME, kind, given, self._pipeline.settings.poll, **own)

    async def _learn_features(self, given: Arguments) -> None:
        """Retrieve the assistant, where no answer has shown yet if this server remembers keys.

        Until that is known, an ambiguous create of thread and run cannot be sent again.
        """
        async with self._learning:
            features = self._pipeline.state.features
            base = self._pipeline.settings.base_url
            if self._has_asked or base is None or base in features:
                return
            ids = {"assistant_id": given.body["assistant_id"]}
            options = follow_up_options(given.call)
            try:
                spec = self._pipeline.build_request(GET_ASSISTANT, ids, options)
                await self._pipeline.send(spec, options)
            except APIError as error:  # the create fails too, and raises it
                words = "the features of the server are unknown: %s"
                _LOG.debug(words, error, extra={**ids_of(error), **ids})
            self._has_asked = True


def _with_patience(pipeline: Pipeline, patience: float) -> Pipeline:
    """Return the same pipeline, but one that retries for `patience` seconds."""
    settings = pipeline.settings
    if settings.retry.patience is not None:
        return pipeline
    retry = msgspec.structs.replace(settings.retry, patience=patience)
    return Pipeline(msgspec.structs.replace(settings, retry=retry), pipeline.state)
