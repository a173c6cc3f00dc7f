"""Waiting for many runs at once, without a task for each.

Each run has a `WaitHandle`; all of them report in one `Inbox`, which the caller reads.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import anyio

from openai_runs._client.arguments import WaitOptions
from openai_runs._client.core.background import BackgroundTask
from openai_runs._client.polling.handle import HandleState, Inbox, WaitHandle
from openai_runs._client.polling.waiter import Waiter
from openai_runs._client.usage import NotAwaited
from openai_runs._protocol.spec import forgotten_await
from openai_runs.errors import OpenAIRunsError
from openai_runs.types.runs import Run

__all__ = ["Awaited", "CompletedRuns", "wait_for_all"]

Awaited = Run | tuple[str, str]
"""What is waited for: a run, or its ids as `(run_id, thread_id)`."""


class CompletedRuns(NotAwaited):
    """Runs in the order in which their waits end; made by `runs.as_completed`.

    Each item is a `Run` that is finished or requires action, or the error its wait ended with,
    which carries the ids. The waits begin with the call. To end the others after leaving the loop
    early, use `aclose` or `async with`, or drop this object.
    """

    _call = "client.runs.as_completed(...)"

    def __init__(self, waiter: Waiter, runs: Iterable[Awaited], options: WaitOptions) -> None:
        self._waiter = waiter
        self._options = options
        self._inbox = Inbox()
        self._places: dict[WaitHandle, int] = {}
        self._done: deque[tuple[int, Run | Exception]] = deque()
        self._loop = _running_loop()
        self.cancels: list[BackgroundTask] = []
        """Background tasks that cancel runs whose wait has timed out."""
        self.total = 0
        """How many runs were given."""
        try:
            for run in runs:
                self._add(run)
        except BaseException:
            self._leave()
            raise

    def _add(self, run: Awaited) -> None:
        known, thread_id = (run, None) if isinstance(run, Run) else _pair(run)
        if isinstance(known, Run) and known.is_terminal:
            self._done.append((self.total, known))
        else:
            handle = self._waiter.join(known, thread_id, self._options, self._inbox)
            self._places[handle] = self.total
        self.total += 1

    @property
    def pending(self) -> int:
        """Return how many runs were not returned yet."""
        return len(self._places) + len(self._done)

    def __aiter__(self) -> Self:
        """Return itself: there is one pass."""
        return self

    async def __anext__(self) -> Run | OpenAIRunsError:
        """Return the next run whose wait is over, or the error it ended with.

        Raises:
            StopAsyncIteration: All have been returned.
            Exception: What `on_status` or the callable that gives the key raised; all waits
                have ended with it.

        Cancellation: loses nothing, unless `on_cancel="cancel"`, which cancels all runs that
        are not over.
        """
        return (await self.next_place())[1]

    async def next_place(self) -> tuple[int, Run | OpenAIRunsError]:
        """Return the next outcome and its place among the runs that were given.

        Raises:
            StopAsyncIteration: Each run has had its outcome.

        Cancellation: loses no outcome; the runs go on, or are cancelled with `on_cancel`.
        """
        try:
            while not self._done:
                if not self._places:
                    raise StopAsyncIteration
                await self._collect()
        except anyio.get_cancelled_exc_class():
            if self._options.on_cancel == "cancel":
                await self._waiter.cancel_all(self._unfinished())
                self._leave()
            raise
        except Exception:
            self._leave()
            raise
        place, outcome = self._done.popleft()
        if isinstance(outcome, Run | OpenAIRunsError):
            return place, outcome
        self._leave()
        raise outcome

    async def _collect(self) -> None:
        """Wait until handles report, and keep the outcomes."""
        late: list[WaitHandle] = []
        await self._inbox.wait()
        while (handle := self._inbox.pop()) is not None:
            try:
                await handle.report()
            except BaseException:
                self._inbox.put(handle)  # the next call reports the rest
                raise
            if handle.outcome is not None and handle in self._places:
                self._done.append((self._places.pop(handle), handle.outcome))
                handle.leave()
                if handle.state is HandleState.TIMED_OUT and self._options.on_timeout == "cancel":
                    late.append(handle)
        if late:
            self.cancels.append(self._waiter.cancel_soon(late))
        self._inbox.wake()  # another reader, for the outcomes that are left

    def _unfinished(self) -> list[WaitHandle]:
        return [handle for handle in self._places if not handle.is_terminal]

    def _leave(self) -> None:
        _leave_all([*self._places])
        self._places.clear()
        self._done.clear()

    async def aclose(self) -> None:
        """Wait no longer; the runs go on. A second call does nothing.

        Cancellation: has no effect; nothing is awaited.
        """
        self._leave()

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait no longer; cancelled, with `on_cancel="cancel"`, cancel the runs that go on."""
        cancelled = isinstance(error, anyio.get_cancelled_exc_class())
        if cancelled and self._options.on_cancel == "cancel":
            await self._waiter.cancel_all(self._unfinished())
        self._leave()

    def __del__(self) -> None:
        """Wait no longer; in the thread of the event loop."""
        places = getattr(self, "_places", None)
        if places and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_leave_all, [*places])

    def __repr__(self) -> str:
        """Show the counts."""
        returned = f"{self.total - self.pending} of {self.total} returned"
        return f"<CompletedRuns: {returned}{'; use `async for`' if self.pending else ''}>"


def _leave_all(handles: list[WaitHandle]) -> None:
    for handle in handles:
        handle.leave()


def _running_loop() -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        msg = "client.runs.as_completed(...) needs a running event loop: call it in an `async def`"
        raise RuntimeError(msg) from None


def _pair(run: object) -> tuple[str, str]:
    match run:
        case (str(run_id), str(thread_id)):
            return run_id, thread_id
    msg = f"expected a Run or (run_id, thread_id), got {run!r}{forgotten_await(run)}"
    raise TypeError(msg)


async def wait_for_all(
    waiter: Waiter, runs: Iterable[Awaited], options: WaitOptions
) -> list[Run | OpenAIRunsError]:
    """Return the outcome of each wait, in the order in which the runs were given."""
    async with CompletedRuns(waiter, runs, options) as completed:
        outcomes: dict[int, Run | OpenAIRunsError] = {}
        while completed.pending:
            place, outcome = await completed.next_place()
            outcomes[place] = outcome
        for task in completed.cancels:
            await task.wait()
        return [outcomes[place] for place in range(completed.total)]
