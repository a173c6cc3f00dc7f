"""Waiting for many runs at once, by one caller and without a task for each."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import anyio

from openai_runs._client.arguments import WaitOptions
from openai_runs._client.core.background import Work
from openai_runs._client.polling.handle import WaitHandle
from openai_runs._client.polling.waiter import Waiter
from openai_runs.errors import OpenAIRunsError
from openai_runs.types.runs import Run

__all__ = ["Awaited", "CompletedRuns", "wait_for_all"]

Awaited = Run | tuple[str, str]
"""What is waited for: a run, or its ids as `(run_id, thread_id)`."""


class CompletedRuns:
    """Runs in the order in which their waits end; made by `runs.as_completed`.

    Each item is the settled `Run`, or the error its wait ended with, which carries the ids.
    The waits begin with the call. Who leaves the loop early lets go of the others with
    `aclose`, by leaving `async with`, or by dropping this object.
    """

    def __init__(self, waiter: Waiter, runs: Iterable[Awaited], plan: WaitOptions) -> None:
        """Wait for all of them from now on."""
        self._waiter = waiter
        self._plan = plan
        self._box = _Box()
        self._places: dict[WaitHandle, int] = {}
        self._done: deque[tuple[int, Run | Exception]] = deque()
        self._loop = asyncio.get_running_loop()
        self.cancels: list[Work] = []
        """What asks the server to cancel runs whose time was up."""
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
            ticket = self._waiter.enter(known, thread_id, self._plan, self._box)
            self._places[ticket] = self.total
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
            if self._plan.on_cancel == "cancel":
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
        """Wait until there is something to tell, and tell it."""
        late: list[WaitHandle] = []
        await self._box.filled()
        while (ticket := self._box.pop()) is not None:
            try:
                await ticket.report()
            except BaseException:
                self._box.put(ticket)  # what it still has to tell is told by the next call
                raise
            if ticket.outcome is not None and ticket in self._places:
                self._done.append((self._places.pop(ticket), ticket.outcome))
                ticket.leave()
                if ticket.timed_out and self._plan.on_timeout == "cancel":
                    late.append(ticket)
        if late:
            self.cancels.append(self._waiter.cancel_soon(late))
        self._box.wake()  # another reader, for what this one leaves

    def _unfinished(self) -> list[WaitHandle]:
        return [ticket for ticket in self._places if not ticket.is_over]

    def _leave(self) -> None:
        _leave_all([*self._places])
        self._places.clear()
        self._done.clear()

    async def aclose(self) -> None:
        """Wait no longer; the runs go on. A second call does nothing.

        Cancellation: has no effect; nothing is waited for.
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
        if cancelled and self._plan.on_cancel == "cancel":
            await self._waiter.cancel_all(self._unfinished())
        self._leave()

    def __del__(self) -> None:
        """Wait no longer, in the loop's own thread, whichever this happens in."""
        places = getattr(self, "_places", None)
        if places and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_leave_all, [*places])

    def __repr__(self) -> str:
        """Say how far it is."""
        return f"CompletedRuns({self.total - self.pending} of {self.total} returned)"


def _leave_all(tickets: list[WaitHandle]) -> None:
    for ticket in tickets:
        ticket.leave()


class _Box:
    """The tickets that have something to tell, in the order in which it came."""

    def __init__(self) -> None:
        self._tickets: dict[WaitHandle, None] = {}
        self._filled = anyio.Event()

    def put(self, ticket: WaitHandle) -> None:
        self._tickets[ticket] = None
        self._filled.set()

    async def filled(self) -> None:
        """Return once there may be a ticket in it."""
        if not self._tickets:
            if self._filled.is_set():
                self._filled = anyio.Event()
            await self._filled.wait()

    def wake(self) -> None:
        """Have all who wait look again."""
        self._filled.set()

    def pop(self) -> WaitHandle | None:
        """Return the ticket that was put first; None where there is none."""
        ticket = next(iter(self._tickets), None)
        if ticket is not None:
            del self._tickets[ticket]
        return ticket


def _pair(run: object) -> tuple[str, str]:
    match run:
        case (str(run_id), str(thread_id)):
            return run_id, thread_id
    msg = f"expected a Run or (run_id, thread_id), got {run!r}"
    raise TypeError(msg)


async def wait_for_all(
    waiter: Waiter, runs: Iterable[Awaited], plan: WaitOptions
) -> list[Run | OpenAIRunsError]:
    """Return what became of each run, in the order in which they were given."""
    async with CompletedRuns(waiter, runs, plan) as completed:
        outcomes: dict[int, Run | OpenAIRunsError] = {}
        while completed.pending:
            place, outcome = await completed.next_place()
            outcomes[place] = outcome
        for work in completed.cancels:
            await work.ended()
        return [outcomes[place] for place in range(completed.total)]
