"""The one root task of a client: carries what must go on while nobody awaits it.

Waits that share their polls, and batches that run on while their reader is busy, outlive
any one call. They run here, in one task group under one task, which ends by itself as soon
as it carries nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Final

import anyio

from openai_runs._transport import is_cancelled
from openai_runs.errors import ConfigError

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

__all__ = ["BackgroundTasks", "Work"]

_LOG: Final = logging.getLogger("openai_runs.client")


class Work:
    """Something that the root task carries."""

    def __init__(self, act: Callable[[], Awaitable[None]], name: str) -> None:
        """Take what shall be done; it begins with the next steps of the event loop."""
        self.name = name
        self.context: Context = copy_context()
        self.failure: Exception | None = None
        """What it raised, which is a mistake in this package: works answer to their callers."""
        self._act = act
        self._scope = anyio.CancelScope()
        self._ended = anyio.Event()

    def cancel(self) -> None:
        """Have it cancelled; one that has not begun gets no further than its first wait.

        It is begun all the same, so that it can tell those who wait for it.
        """
        self._scope.cancel()

    async def ended(self) -> None:
        """Return once it has ended.

        Cancellation: leaves the work alone.
        """
        await self._ended.wait()

    async def carry_out(self) -> None:
        """Do it; what it raises is kept and logged, so that it does not end the others."""
        try:
            with self._scope:
                await self._act()
        except asyncio.CancelledError:
            if is_cancelled():
                raise  # else something that it awaited was cancelled, and not this task
            self.failure = RuntimeError(f"{self.name} awaited something that was cancelled")
            _LOG.exception("%s failed", self.name)
        except Exception as error:
            self.failure = error
            _LOG.exception("%s failed", self.name)
        finally:
            self._ended.set()


class BackgroundTasks:
    """Carries the works of one client and its copies, from one event loop."""

    def __init__(self) -> None:
        """Carry nothing yet."""
        self._root: asyncio.Task[None] | None = None
        self._group: TaskGroup | None = None
        self._works: set[Work] = set()
        self._unbegun: list[Work] = []
        self._failure: Exception | None = None
        self._closed = False

    def start(self, act: Callable[[], Awaitable[None]], *, name: str) -> Work:
        """Return the work of carrying out `act`, begun in a copy of the caller's context.

        Raises:
            ConfigError: The client is closed, or was first used in another event loop.
        """
        if self._closed:
            message = "this client is closed; make a new one"
            raise ConfigError(message)
        loop = asyncio.get_running_loop()
        root = self._root
        if root is not None and not root.done() and root.get_loop() is not loop:
            message = "this client still works in another event loop; make one for each loop"
            raise ConfigError(message)
        work = Work(act, name)
        self._works.add(work)
        if self._group is None:
            self._unbegun.append(work)
            if self._root is None or self._root.done():
                self._root = asyncio.create_task(self._carry(), name="openai_runs.client")
        else:
            self._begin(self._group, work)
        return work

    async def aclose(self) -> None:
        """Cancel all works and return once they have ended; a second call does nothing.

        Raises:
            Exception: What a work raised, which nobody else can have seen.

        Cancellation: is let through; the works are cancelled all the same.
        """
        self._closed = True
        for work in self._works:
            work.cancel()
        root = self._root
        if root is not None and root is not asyncio.current_task():
            await asyncio.wait([root])
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    async def _carry(self) -> None:
        try:
            while self._unbegun:
                async with anyio.create_task_group() as group:
                    unbegun, self._unbegun = self._unbegun, []
                    for work in unbegun:
                        self._begin(group, work)
                    self._group = group
                self._group = None
        finally:
            self._root = self._group = None
            self._unbegun.clear()  # cancelled from outside, as `asyncio.run` does in the end
            self._works.clear()

    def _begin(self, group: TaskGroup, work: Work) -> None:
        work.context.run(group.start_soon, self._see_through, work)

    async def _see_through(self, work: Work) -> None:
        try:
            await work.carry_out()
        finally:
            self._works.discard(work)
            self._failure = self._failure or work.failure
