"""Batches: many runs at once, told of as they end.

Theory of operation. A batch takes items and carries them out, each in a task of its own,
in one work of the client's root task. Its reader holds a `RunMap`, which the work does not
know: a reader that is dropped takes the work along. What was taken and not yet read counts
against the limit, so a slow reader stops the input. Nothing about runs is said here but
their outcome: how one item is carried out is told by whoever makes the batch.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar

import anyio
import anyio.lowlevel

from openai_runs._client.core.background import BackgroundTasks, Work
from openai_runs._client.flows.results import RunResult
from openai_runs._transport import is_cancelled
from openai_runs.config import CANCEL_GRACE
from openai_runs.errors import ConfigError, OpenAIRunsError

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

__all__ = ["Batch", "Items", "Outcome", "RunMap"]

K = TypeVar("K")
Outcome = RunResult | OpenAIRunsError
"""What came of an item."""
Items = Iterable[tuple[K, Mapping[str, Any]]] | AsyncIterable[tuple[K, Mapping[str, Any]]]
"""Pairs of a key, which is the caller's, and the arguments of a create."""
CarryOut = Callable[[K, Mapping[str, Any]], Awaitable[RunResult]]

_LOG: Final = logging.getLogger("openai_runs.client")
_END: Final = object()
_CARRIED_BY: Final[ContextVar[object]] = ContextVar("openai_runs.batch", default=None)
"""The batch that runs what asks."""
_CLOSING: Final = 2 * CANCEL_GRACE
"""Seconds for cancelling what runs, which cancels at the server, and for closing the input."""


class Batch(Generic[K]):
    """The items, what is going, and what was not read yet.

    Args:
        items: See `Items`; the input is asked for one at a time, in the event loop.
        carry_out: Returns what came of an item; an error of ours is an outcome as well.
        concurrency: Items that may be taken and not yet read.

    Raises:
        TypeError: The items cannot be iterated.
    """

    def __init__(self, items: Items[K], carry_out: CarryOut[K], concurrency: int) -> None:
        self._source = _Source(items)
        self._carry_out = carry_out
        self._concurrency = concurrency
        self._taken = 0
        """Items that were taken and not yet read."""
        self._room = anyio.Event()
        self._news = anyio.Event()
        self._jobs: TaskGroup | None = None
        self._taking: anyio.CancelScope | None = None
        self.pulled = self.running = self.done = self.failed = 0
        self.unread: deque[tuple[K, Outcome]] = deque()
        self.failure: BaseException | None = None
        """What the input or a function of the caller's raised; it ends the batch."""
        self.is_whole = False
        """Whether it has ended by itself."""
        self.is_over = False

    async def run(self) -> None:
        """Take items and carry them out, to the end of the input and of the last of them.

        Cancellation: cancels what is going, and closes the input.
        """
        _CARRIED_BY.set(self)
        try:
            async with anyio.create_task_group() as self._jobs:
                with anyio.CancelScope() as self._taking:
                    await self._take_all(self._jobs)
            self.is_whole = True
        finally:
            self._jobs = None
            self.is_over = True
            self._news.set()

    def read(self) -> tuple[K, Outcome]:
        """Return the oldest outcome that was not read, and make room for another item."""
        self._taken -= 1
        self._room.set()
        return self.unread.popleft()

    async def news(self) -> None:
        """Return once there may be something to read.

        Cancellation: loses nothing.
        """
        if self._news.is_set():
            self._news = anyio.Event()
        await self._news.wait()

    async def _take_all(self, jobs: TaskGroup) -> None:
        try:
            while True:
                await self._wait_for_room()
                item = await self._source.next()
                if item is _END:
                    return
                self.pulled += 1
                self._taken += 1
                key, arguments = _pair(item)
                jobs.start_soon(self._one, key, arguments)
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            self._stop(RuntimeError("the input of runs.map awaited something that was cancelled"))
        except Exception as error:
            self._stop(error)
        finally:
            await self._close_source()

    async def _wait_for_room(self) -> None:
        await anyio.lowlevel.checkpoint()  # an input that never waits must not hold others up
        while self._taken >= self._concurrency:
            self._room = anyio.Event()
            await self._room.wait()

    async def _close_source(self) -> None:
        with anyio.move_on_after(CANCEL_GRACE, shield=True):
            try:
                await self._source.aclose()
            except Exception as error:
                self._stop(error)

    async def _one(self, key: K, arguments: Mapping[str, Any]) -> None:
        self.running += 1
        try:
            result = await self._carry_out(key, arguments)
        except OpenAIRunsError as error:
            self.failed += 1
            self._tell(key, error)
        except asyncio.CancelledError:
            if is_cancelled():
                raise  # else a function of the caller's awaited something that was cancelled
            self._stop(RuntimeError(f"the item {key!r:.200} awaited something that was cancelled"))
        except Exception as error:
            error.add_note(f"raised while the item {key!r:.200} was carried out")
            self._stop(error)
        except BaseException as error:
            # The end of the program; the reader raises it, where the caller stands.
            self.unread.clear()
            self._stop(error)
            assert self._jobs is not None
            self._jobs.cancel_scope.cancel()
        else:
            self._tell(key, result)
        finally:
            self.running -= 1

    def _tell(self, key: K, outcome: Outcome) -> None:
        self.done += 1
        self.unread.append((key, outcome))
        self._news.set()

    def _stop(self, failure: BaseException) -> None:
        """Take nothing more; what is going goes on, and then `failure` is raised."""
        if self.failure is None:
            self.failure = failure
        if self._taking is not None:
            self._taking.cancel()


class RunMap(Generic[K]):
    """The outcomes of a batch, as they come; made by `runs.map`.

    An `async for` over it gives `(key, outcome)`. Leaving it early ends the batch, also by a
    plain `break`; with `async with`, or after `aclose()`, it has ended when the next line runs.
    """

    def __init__(self, batch: Batch[K], background: BackgroundTasks) -> None:
        self._work: Work | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._batch = batch
        self._supervisor = background
        self._closed = False

    @property
    def pulled(self) -> int:
        """Return how many items were taken from the input."""
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
                that was going has been returned.

        Cancellation: ends the batch, as `aclose` does.
        """
        self._begin()
        batch = self._batch
        try:
            while self._closed or not batch.unread:
                if self._closed or batch.is_over:
                    raise self._end()
                await batch.news()
        except anyio.get_cancelled_exc_class():
            await self.aclose()
            raise
        return batch.read()

    async def aclose(self) -> None:
        """End the batch: nothing more is taken, and what is going is cancelled.

        Runs that were started are left alone, or cancelled with `on_cancel="cancel"`.
        Outcomes that were not read are dropped.

        A tool of the batch may call it too; then it does not wait for the end.

        Cancellation: is held off until that is done, for at most 10 s.
        """
        self._closed = True
        self._batch.unread.clear()
        if self._work is not None:
            self._work.cancel()
            if _CARRIED_BY.get() is not self._batch:  # a tool of it would wait for itself
                with anyio.move_on_after(_CLOSING, shield=True):
                    await self._work.ended()
        failure, self._batch.failure = self._batch.failure, None
        if failure is not None:
            _LOG.warning("runs.map was left before it could raise this", exc_info=failure)

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
        """End the batch of a reader that was dropped, in whichever thread that happens."""
        if self._work is None or self._loop is None or self._batch.is_over:
            return
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._work.cancel)

    def __repr__(self) -> str:
        """Show how far it is."""
        counts = f"pulled={self.pulled}, running={self.running}, done={self.done}"
        return f"RunMap({counts}, failed={self.failed})"

    def _begin(self) -> None:
        if self._work is None and not self._closed:
            self._loop = asyncio.get_running_loop()
            self._work = self._supervisor.start(self._batch.run, name="runs.map")

    def _end(self) -> BaseException:
        """Return what to raise when nothing is left to read."""
        batch = self._batch
        failure, batch.failure = batch.failure, None
        if failure is not None:
            return failure
        if batch.is_whole or self._closed:
            return StopAsyncIteration()
        message = "the client was closed before runs.map had carried out all items"
        return ConfigError(message)


class _Source(Generic[K]):
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
