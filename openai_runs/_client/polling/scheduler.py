"""When to poll what: one heap of due times for all runs that a client waits for.

Who is due longest goes first. How many polls are under way is bounded, so that ordinary
calls find a connection, and held ones, which take long, leave room for the others.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Hashable
from contextvars import Context
from functools import partial
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final, Protocol

import anyio
import anyio.lowlevel

from openai_runs._client.core.background import BackgroundTasks
from openai_runs._client.core.rate_limiter import Permit, RateLimiter
from openai_runs._client.settings import Runtime
from openai_runs.config import HELD_SHARE, HINTED_POLLS, MAX_POLL_HINT, POLL_SHARE

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

__all__ = ["Entry", "Polling", "Scheduler"]

_NEVER: Final = math.inf
_MANY: Final = 100
"""Waits from which on those that are due at almost the same time are polled together."""
_NAP: Final = 5e-6
"""Seconds between two looks at who is due, for each of many waits: 5 ms at 1,000."""


class Entry(Protocol):
    """Something that has a time."""

    due: float | None
    """When it shall ring; None: it shall not."""

    def ring(self) -> None:
        """Do what is to be done at that time, without waiting."""
        ...


class Polling(Entry, Protocol):
    """A run that is polled for those who wait for it."""

    context: Context | None
    """Where it must be polled; None: anywhere."""
    demand: float
    """Polls a second it asks for by its own pace, as `pace` was last told."""

    is_guarded: bool
    """Whether the deadlines of those who wait are kept while it waits for its turn."""

    def guard(self) -> None:
        """See to it that those who wait are told when their time is up, poll or no poll."""
        ...

    def wanted_hold(self) -> int | None:
        """Return the seconds the next poll shall be held; None: nobody wants a poll."""
        ...

    async def look(self, hold: int, turn: Permit) -> None:
        """Poll once, tell those who wait, and come back to be scheduled; raises nothing."""
        ...

    def close(self) -> None:
        """Tell those who wait that there will be no more polls."""
        ...


_Job = tuple[Polling, int, Permit]


class Scheduler:
    """Polls for one client and its copies; at work while anybody waits."""

    def __init__(
        self,
        background: BackgroundTasks,
        limiter: RateLimiter,
        runtime: Runtime,
        max_connections: int,
    ) -> None:
        """Share `max_connections`, and what `limiter` allows, with the client's other calls."""
        self._supervisor = background
        self._limiter = limiter
        limiter.on_change = self._look_again
        self._now = runtime.monotonic
        self._sleep = runtime.sleep
        self._heap: list[tuple[float, int, Entry]] = []
        self._pushed = 0
        self._ready: deque[Polling] = deque()
        self._watches: dict[Hashable, Polling] = {}
        self._group: TaskGroup | None = None
        self._nap: anyio.CancelScope | None = None
        self._wakes_at = -_NEVER
        self._turn_comes = _NEVER
        """When the limiter may let the next poll go."""
        self._is_at_work = False
        self._max_held = int(max_connections * HELD_SHARE)
        self._max_polls = max(1, int(max_connections * POLL_SHARE))
        self._held = self._polls = 0
        self._idle: list[asyncio.Future[_Job]] = []
        """What the pollers that have nothing to do wait for."""
        self._demand = 0.0
        self._granted = _NEVER
        """Polls a second, as the limiter last told."""

    # --- who is polled

    def find(self, key: Hashable) -> Polling | None:
        """Return what is polled under `key`."""
        return self._watches.get(key)

    def add(self, key: Hashable, watch: Polling) -> None:
        """Poll `watch` from now on, as soon as it is due.

        Raises:
            ConfigError: The client is closed, or belongs to another event loop.
        """
        if not self._is_at_work:
            self._supervisor.start(self._work, name="waiting for runs")
            self._is_at_work = True
        self._watches[key] = watch

    def remove(self, key: Hashable) -> None:
        """Poll no longer what is polled under `key`."""
        watch = self._watches.pop(key, None)
        if watch is not None:
            watch.due = None
            self._demand -= watch.demand
            watch.demand = 0.0
        if not self._watches:
            self._demand = 0.0  # rid of what rounding has left
            self._wake()

    def schedule(self, entry: Entry, when: float) -> None:
        """Have `entry` ring then, and at no other time it was told before."""
        if when in {_NEVER, entry.due}:
            return
        entry.due = when
        self._pushed += 1
        heappush(self._heap, (when, self._pushed, entry))
        if when < self._wakes_at:
            self._wake()

    def enqueue(self, watch: Polling) -> None:
        """Poll `watch` as soon as those who have been due for longer are under way."""
        self._ready.append(watch)

    # --- the pace

    @property
    def has_room_to_hold(self) -> bool:
        """Return whether another poll may be held."""
        return self._held < self._max_held

    def pace(self, watch: Polling, pause: float, *, hinted: bool = False) -> float:
        """Return how long `watch` shall pause that would pause for `pause` seconds.

        All pauses are stretched alike where together they ask for more than the limiter grants.
        A server's hint is meant for one run: the hints for many are stretched to HINTED_POLLS.
        """
        demand = 1.0 / pause if pause > 0 else 0.0
        self._demand += demand - watch.demand
        watch.demand = demand
        self._granted = self._grant()
        rate = min(self._granted, HINTED_POLLS) if hinted else self._granted
        return self._stretched(pause, rate)

    def _grant(self) -> float:
        """Return the polls a second that the limiter grants."""
        rate = self._limiter.poll_rate()
        return _NEVER if rate is None else rate

    def _stretched(self, pause: float, rate: float) -> float:
        if self._demand <= rate:
            return pause
        longest = max(pause, MAX_POLL_HINT)
        return longest if rate <= 0 else min(pause * self._demand / rate, longest)

    # --- the work

    async def _work(self) -> None:
        try:
            while self._watches:
                self._held = self._polls = 0
                async with anyio.create_task_group() as group:
                    self._group = group
                    try:
                        while self._watches:
                            self._ring()
                            self._launch()
                            await self._rest()
                    finally:
                        self._group = None  # what is cancelled now starts nothing in its place
                        self._idle.clear()
                        group.cancel_scope.cancel()
        finally:
            self._is_at_work = False
            for watch in [*self._watches.values()]:
                watch.close()
            self._watches.clear()
            self._heap.clear()
            self._ready.clear()

    def _ring(self) -> None:
        if len(self._heap) > 1000 + 4 * len(self._watches):  # mostly of waits that are over
            self._heap = [one for one in self._heap if one[2].due == one[0]]
            heapify(self._heap)
        now, heap = self._now(), self._heap
        while heap and (heap[0][0] <= now or heap[0][2].due != heap[0][0]):
            when, _, entry = heappop(heap)
            if entry.due == when:
                entry.due = None
                entry.ring()

    def _launch(self) -> None:
        """Start the polls that are due, have room, and are allowed."""
        self._turn_comes = _NEVER
        while self._ready and self._group is not None:
            watch = self._ready[0]
            hold = watch.wanted_hold()
            if hold is None:
                self._ready.popleft()
                continue
            if not self.has_room_to_hold:
                hold = 0
            is_full = not hold and self._polls >= max(1, self._max_polls - self._held)
            turn = None if is_full else self._turn()
            if turn is None:
                self._guard()
                return
            self._ready.popleft()
            self._held += hold > 0
            self._polls += not hold
            self._start(self._group, watch, hold, turn)

    def _turn(self) -> Permit | None:
        """Return the limiter's leave to send a poll; None where it has none yet: wake then."""
        permit = self._limiter.try_acquire_poll()
        if isinstance(permit, Permit):
            return permit
        self._turn_comes = self._now() + permit
        if self._turn_comes < self._wakes_at:
            self._wake()
        return None

    def _guard(self) -> None:
        """Keep the deadlines of those that wait for their turn."""
        for watch in reversed(self._ready):
            if watch.is_guarded:
                return
            watch.guard()

    def _start(self, group: TaskGroup, watch: Polling, hold: int, turn: Permit) -> None:
        if watch.context is not None:
            watch.context.run(group.start_soon, self._poll, watch, hold, turn)
            return
        while self._idle:
            job = self._idle.pop()
            if not job.done():  # else its poller was cancelled from outside
                job.set_result((watch, hold, turn))
                return
        group.start_soon(self._poll_on, watch, hold, turn)

    async def _poll_on(self, watch: Polling, hold: int, turn: Permit) -> None:
        """Poll, and go on with what comes next: a new task for each poll costs a tenth of it."""
        loop = asyncio.get_running_loop()
        while True:
            await self._poll(watch, hold, turn)
            job: asyncio.Future[_Job] = loop.create_future()
            self._idle.append(job)
            watch, hold, turn = await job

    async def _poll(self, watch: Polling, hold: int, turn: Permit) -> None:
        try:
            await watch.look(hold, turn)
        finally:
            self._held -= hold > 0
            self._polls -= not hold
        self._launch()

    async def _rest(self) -> None:
        """Sleep until the next one is due, or until something changes."""
        if not self._watches:
            return
        self._wakes_at = self._heap[0][0] if self._heap else _NEVER
        if self._ready:
            self._wakes_at = min(self._wakes_at, self._turn_comes)
        pause = self._wakes_at - self._now()
        if len(self._watches) > _MANY:  # a wake-up costs as much as a tenth of a poll
            pause = max(pause, len(self._watches) * _NAP)
        nap = partial(self._sleep, pause) if pause < _NEVER else anyio.sleep_forever
        if pause > 0:
            with anyio.CancelScope() as self._nap:
                await nap()
            self._nap = None
        else:
            await anyio.lowlevel.checkpoint()  # others get their turn whatever the clock says
        self._wakes_at = -_NEVER

    def _look_again(self) -> None:
        """Go by what the limiter has just learnt, where it is better than what it had told."""
        if self._turn_comes < _NEVER:
            self._wake()
        rate = self._grant()
        if rate > 2 * self._granted:
            self._granted = rate
            for watch in self._watches.values():
                if watch.due is not None and watch.demand > 0:
                    due = self._now() + self._stretched(1 / watch.demand, rate)
                    self.schedule(watch, min(due, watch.due))

    def _wake(self) -> None:
        if self._nap is not None:
            self._nap.cancel()
            self._wakes_at = -_NEVER
