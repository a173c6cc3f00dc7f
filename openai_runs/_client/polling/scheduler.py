"""When to poll which run: one heap of due times for all runs that a client waits for.

Theory of operation. A background task (`_run`) lives as long as there are waits. It sleeps until
the first entry of the heap is due: a `RunPoller`, which then queues for a poll, or a `WaitHandle`
at its deadline. The queue is served in the order in which the polls were due, as far as
the rate limiter gives permits and the share of connections for polls allows; so ordinary calls
find a connection, and held polls, which take long, leave some for the others. Where the first in
the queue cannot be sent, those behind it cannot either: the whole queue is blocked, and the
deadlines in it are kept by timers.

A task runs one poll after the other, since a new task for each costs a tenth of a poll. Each task
has one cancel scope, which lasts until it is used: `cut_off` cancels the poll in progress with it,
and the task goes on with a new scope. A poll that depends on the context of its caller gets a task
of its own, in that context.

The heap is never searched: an entry whose `due` has changed is dropped when its old time comes.

When the next poll of a run is due is decided in `poller`.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final

import anyio
import anyio.lowlevel

from openai_runs._client.core.background import BackgroundTasks
from openai_runs._client.core.rate_limiter import Permit, RateLimiter
from openai_runs._client.polling.handle import WaitHandle
from openai_runs._client.polling.poller import PollerState, RunPoller
from openai_runs._client.settings import Runtime
from openai_runs.config import HELD_SHARE, HINTED_POLLS, MAX_POLL_HINT, POLL_SHARE

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

__all__ = ["Scheduler"]

_NEVER: Final = math.inf
_MANY: Final = 100
"""Waits from which on those that are due at almost the same time are polled together."""
_MIN_SLEEP: Final = 5e-6
"""Seconds between two wake-ups for each of many waits: 5 ms at 1,000."""
_STALE: Final = 1000
"""Entries pushed between two checks whether most of the heap is stale."""
_Job = tuple[RunPoller, int, Permit]
"""A poller, the seconds to hold its poll, and the permit to send it."""


class Scheduler:
    """Polls for one client and its copies, while there are waits."""

    def __init__(
        self,
        background: BackgroundTasks,
        limiter: RateLimiter,
        runtime: Runtime,
        max_connections: int,
    ) -> None:
        """Share `max_connections` and the permits of `limiter` with the client's other calls."""
        self._background = background
        self._limiter = limiter
        limiter.on_change = self._on_limits_changed
        self._now = runtime.monotonic
        self._sleep = runtime.sleep
        self._heap: list[tuple[float, int, RunPoller | WaitHandle]] = []
        self._pushed = 0
        self._pollers: dict[Hashable, RunPoller] = {}
        self._queue: deque[RunPoller] = deque()
        self._group: TaskGroup | None = None
        """Where polls run; None while `_run` does not."""
        self._is_running = False
        self._wakes_at = -_NEVER
        """When the sleep of `_run` ends."""
        self._sleep_scope: anyio.CancelScope | None = None
        self._woken: asyncio.Future[None] | None = None
        """Ends a sleep that has no due time."""
        self._permit_due = _NEVER
        """When the limiter may permit the next poll."""
        self._max_held = int(max_connections * HELD_SHARE)
        self._max_polls = max(1, int(max_connections * POLL_SHARE))
        self._held = self._polls = 0
        """Polls in progress that may be held, and others."""
        self._idle: list[asyncio.Future[_Job]] = []
        """Futures of the tasks that wait for a poll."""
        self._scopes: dict[RunPoller, anyio.CancelScope] = {}
        """Poller -> the cancel scope of its poll in progress."""
        self._demand, self._rate = 0.0, _NEVER
        """Polls a second that all pollers together need, and that the limiter permits."""

    # --- the pollers

    def find(self, key: Hashable) -> RunPoller | None:
        """Return the poller with this key."""
        return self._pollers.get(key)

    def add(self, poller: RunPoller) -> None:
        """Poll for `poller` from now on, as soon as it is due.

        Raises:
            ConfigError: The client is closed, or belongs to another event loop.
        """
        if not self._is_running:
            self._background.start(self._run, name="waiting for runs")
            self._is_running = True
        self._pollers[poller.key] = poller

    def remove(self, poller: RunPoller) -> None:
        """Poll for `poller` no longer."""
        if self._pollers.pop(poller.key, None) is not None:
            poller.due = None
            self._demand -= poller.demand
            poller.demand = 0.0
        if not self._pollers:
            self._demand = 0.0  # what rounding has left
            self._wake()

    def cut_off(self, poller: RunPoller) -> None:
        """Cancel the poll of `poller` that is in progress."""
        scope = self._scopes.get(poller)
        if scope is not None:
            scope.cancel()

    def schedule(self, entry: RunPoller | WaitHandle, when: float) -> None:
        """Call `entry.on_due` at that time, and no longer at the time scheduled before."""
        if when in {_NEVER, entry.due}:
            return
        entry.due = when
        self._pushed += 1
        heappush(self._heap, (when, self._pushed, entry))
        if not self._pushed % _STALE:
            self._drop_stale()
        if when < self._wakes_at:
            self._wake()

    def enqueue(self, poller: RunPoller) -> None:
        """Poll for `poller` after those that have been due for longer."""
        self._queue.append(poller)

    # --- the pace

    @property
    def may_hold(self) -> bool:
        """Return whether another poll may be held."""
        return self._held < self._max_held

    def pace(self, poller: RunPoller, pause: float, *, hinted: bool = False) -> float:
        """Return the pause of a poller that would pause for `pause` seconds if it were alone.

        All pauses are stretched by the same factor where together they need more than the limiter
        permits.
        A server's hint is meant for one run: the hints for many are stretched to HINTED_POLLS.
        """
        demand = 1.0 / pause if pause > 0 else 0.0
        self._demand += demand - poller.demand
        poller.demand = demand
        self._rate = self._permitted_rate() if self._limiter.is_active else _NEVER
        rate = min(self._rate, HINTED_POLLS) if hinted else self._rate
        return pause if self._demand <= rate else self._stretched(pause, rate)

    def _permitted_rate(self) -> float:
        rate = self._limiter.poll_rate()
        return _NEVER if rate is None else rate

    def _stretched(self, pause: float, rate: float) -> float:
        if self._demand <= rate:
            return pause
        longest = max(pause, MAX_POLL_HINT)
        return longest if rate <= 0 else min(pause * self._demand / rate, longest)

    def _on_limits_changed(self) -> None:
        """Poll earlier where the limiter permits more than it did."""
        if self._permit_due < _NEVER:
            self._wake()
        rate = self._permitted_rate()
        if rate > 2 * self._rate:
            self._rate = rate
            for poller in self._pollers.values():
                if poller.due is not None and poller.demand > 0:
                    due = self._now() + self._stretched(1 / poller.demand, rate)
                    self.schedule(poller, min(due, poller.due))

    # --- the background task

    async def _run(self) -> None:
        try:
            while self._pollers:
                self._held = self._polls = 0
                async with anyio.create_task_group() as group:
                    self._group = group
                    try:
                        while self._pollers:
                            self._call_due()
                            if self._queue:
                                self._start_polls()
                            await self._sleep_until_due()
                    finally:
                        self._group = None  # a cancelled task must not start another poll
                        self._idle.clear()
                        group.cancel_scope.cancel()
        finally:
            self._is_running = False
            for poller in [*self._pollers.values()]:
                poller.close()
            self._pollers.clear()
            self._heap.clear()
            self._queue.clear()

    def _call_due(self) -> None:
        now, heap = self._now(), self._heap
        while heap and (heap[0][0] <= now or heap[0][2].due != heap[0][0]):
            when, _, entry = heappop(heap)
            if entry.due == when:
                entry.due = None
                entry.on_due()

    def _drop_stale(self) -> None:
        """Drop the entries of waits that are over, where they may be most of the heap."""
        if len(self._heap) > _STALE + 4 * len(self._pollers):
            self._heap[:] = [one for one in self._heap if one[2].due == one[0]]
            heapify(self._heap)

    async def _sleep_until_due(self) -> None:
        """Sleep until an entry or a permit is due, or until something changes."""
        if not self._pollers:
            return
        self._wakes_at = self._heap[0][0] if self._heap else _NEVER
        if self._queue:
            self._wakes_at = min(self._wakes_at, self._permit_due)
        try:
            if self._wakes_at == _NEVER:
                self._woken = asyncio.get_running_loop().create_future()
                await self._woken
                return
            pause = self._wakes_at - self._now()
            if len(self._pollers) > _MANY:  # a wake-up costs as much as a tenth of a poll
                pause = max(pause, len(self._pollers) * _MIN_SLEEP)
            if pause > 0:
                with anyio.CancelScope() as self._sleep_scope:
                    await self._sleep(pause)
            else:
                await anyio.lowlevel.checkpoint()  # let other tasks run
        finally:
            self._sleep_scope = self._woken = None
            self._wakes_at = -_NEVER

    def _wake(self) -> None:
        if self._sleep_scope is not None:
            self._sleep_scope.cancel()
        elif self._woken is not None and not self._woken.done():
            self._woken.set_result(None)
        self._wakes_at = -_NEVER

    # --- the polls

    def _start_polls(self) -> None:
        """Start the polls in the queue for which there is a connection and a permit."""
        self._permit_due = _NEVER
        while self._queue and self._group is not None:
            poller = self._queue[0]
            hold = poller.next_hold()
            if hold is None:
                self._queue.popleft()
                continue
            if hold and self._held >= self._max_held:
                hold = 0
            is_full = not hold and 0 < self._polls >= self._max_polls - self._held
            permit = None if is_full else self._acquire_permit()
            if permit is None:
                self._block_queue()
                return
            self._queue.popleft()
            self._held += hold > 0
            self._polls += not hold
            self._start_poll(self._group, (poller, hold, permit))

    def _acquire_permit(self) -> Permit | None:
        """Return the permit for a poll; None before it is due: then `_run` wakes up for it."""
        permit = self._limiter.try_acquire_poll()
        if isinstance(permit, Permit):
            return permit
        self._permit_due = self._now() + permit
        if self._permit_due < self._wakes_at:
            self._wake()
        return None

    def _block_queue(self) -> None:
        for poller in reversed(self._queue):
            if poller.state is PollerState.BLOCKED:
                return
            poller.block()

    def _start_poll(self, group: TaskGroup, job: _Job) -> None:
        context = job[0].context
        if context is not None:
            context.run(group.start_soon, self._run_polls, job)
            return
        while self._idle:
            idle = self._idle.pop()
            if not idle.done():  # else its task was cancelled from outside
                idle.set_result(job)
                return
        group.start_soon(self._run_polls, job)

    async def _run_polls(self, first: _Job) -> None:
        """Poll, then wait for the next poll."""
        job: _Job | None = first
        poller = first[0]
        while True:
            with anyio.CancelScope() as scope:
                while not scope.cancel_called:
                    if job is None:
                        idle = self._next_job(poller)
                        if idle is None:
                            return
                        job = await idle
                    (poller, hold, permit), job = job, None
                    self._scopes[poller] = scope
                    try:
                        await poller.poll(hold, permit)
                    finally:
                        del self._scopes[poller]
                        self._held -= hold > 0
                        self._polls -= not hold

    def _next_job(self, polled: RunPoller) -> asyncio.Future[_Job] | None:
        """Start the queued polls that have a connection now; one may run in this task.

        Returns:
            The future of the task's next poll; None if the task was made for one context.
        """
        idle: asyncio.Future[_Job] | None = None
        if polled.context is None:
            idle = asyncio.get_running_loop().create_future()
            self._idle.append(idle)
        if self._queue:
            self._start_polls()
        return idle
