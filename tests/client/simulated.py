"""Time that moves on when nobody has anything left to do, and a server that keeps a limit."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel

from openai_runs._client.settings import Runtime
from tests.support import Action, Answer, HostileServer, Received, run_json

__all__ = ["LimitedServer", "SimulatedClock", "all_of"]

_QUIET: int = 30
"""Turns of the event loop in which nothing happens, before time moves on."""


class SimulatedClock:
    """A clock for many sleepers: it jumps to the next due time once all is quiet."""

    def __init__(self) -> None:
        """Start at an arbitrary moment."""
        self.now = 1000.0
        self._sleepers: list[tuple[float, int, anyio.Event]] = []
        self._numbers = itertools.count()

    def monotonic(self) -> float:
        """Return the seconds so far."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Return `seconds` later."""
        woken = anyio.Event()
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._numbers), woken))
        await woken.wait()

    def runtime(self) -> Runtime:
        """Return runtime that use this clock, without jitter."""
        return Runtime(sleep=self.sleep, monotonic=self.monotonic, chance=lambda: 0.0)

    @asynccontextmanager
    async def _running(self, activity: Callable[[], int]) -> Any:
        async with anyio.create_task_group() as group:
            group.start_soon(self._move_on, activity)
            yield
            group.cancel_scope.cancel()

    def running(self, activity: Callable[[], int] = lambda: 0) -> AbstractAsyncContextManager[None]:
        """Return a context in which time moves on whenever `activity` has stopped growing."""
        return self._running(activity)

    async def _move_on(self, activity: Callable[[], int]) -> None:
        before, quiet = -1, 0
        while True:
            await anyio.lowlevel.checkpoint()
            seen = activity() + len(self._sleepers)
            quiet = quiet + 1 if seen == before else 0
            before = seen
            if quiet >= _QUIET and self._sleepers:
                due, _, woken = heapq.heappop(self._sleepers)
                self.now = max(self.now, due)
                woken.set()
                quiet = 0


class LimitedServer:
    """The handler of a `HostileServer` that refuses more than `limit` requests in a window."""

    def __init__(
        self,
        clock: SimulatedClock,
        *,
        limit: int,
        window: float = 60.0,
        tells: bool = False,
        refusal: Mapping[str, str] | None = None,
        lifetimes: Callable[[int], float] = lambda number: 0.0,
    ) -> None:
        """Run each run for `lifetimes(its number)` seconds; `refusal` are headers of a 429."""
        self._clock = clock
        self._limit = limit
        self._window = window
        self._tells = tells
        self._refusal = refusal or {}
        self._lifetimes = lifetimes
        self._recent: deque[float] = deque()
        self._ends: list[float] = []
        self.times: list[float] = []
        """When each request came that was carried out."""
        self.refused: list[float] = []
        """When each request came that was not."""

    def activity(self) -> int:
        """Return how many requests have come."""
        return len(self.times) + len(self.refused)

    def __call__(self, request: Received) -> Action:
        """Refuse what is too much, and answer the rest."""
        now = self._clock.now
        while self._recent and self._recent[0] <= now - self._window:
            self._recent.popleft()
        if len(self._recent) >= self._limit:
            self.refused.append(now)
            return Answer(
                429, {"error": {"message": "slow down"}}, {**self._told(), **self._refusal}
            )
        self._recent.append(now)
        self.times.append(now)
        return Answer(json=self._run(request), headers=self._told())

    def _told(self) -> dict[str, str]:
        if not self._tells:
            return {}
        newest = self._recent[-1] if self._recent else self._clock.now
        return {
            "x-ratelimit-limit-requests": str(self._limit),
            "x-ratelimit-remaining-requests": str(self._limit - len(self._recent)),
            "x-ratelimit-reset-requests": f"{newest + self._window - self._clock.now:.3f}s",
        }

    def _run(self, request: Received) -> dict[str, Any]:
        if request.method == "POST":
            self._ends.append(self._clock.now + self._lifetimes(len(self._ends)))
            return run_json(id=f"run_{len(self._ends) - 1}")
        number = int(request.path.rpartition("_")[2])
        ended = self._clock.now >= self._ends[number]
        return run_json("completed" if ended else "in_progress", id=f"run_{number}")

    def listening(self) -> HostileServer:
        """Return the server to be entered."""
        return HostileServer(self)


async def all_of(count: int, act: Callable[[int], Any]) -> None:
    """Do this so many times at once."""
    async with anyio.create_task_group() as group:
        for number in range(count):
            group.start_soon(act, number)
