"""The background tasks of a client.

Theory of operation. The scheduler of polls, and batches, run for longer than any one call. They
run in one task group under one root task, made with `asyncio.create_task` here and nowhere else;
it ends by itself when the group is empty, and the next `start` makes a new one. Each task runs in
a copy of its caller's context. What a task raises is logged and kept, so that it does not end the
others, and is raised by `aclose`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Final

import anyio

from openai_runs._aio import is_cancelled
from openai_runs._log_ids import ids_of
from openai_runs.errors import ConfigError

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

__all__ = ["BackgroundTask", "BackgroundTasks"]

_LOG: Final = logging.getLogger("openai_runs.client")


class BackgroundTask:
    """One task under the root task."""

    def __init__(self, function: Callable[[], Awaitable[None]], name: str) -> None:
        """Run `function` within the next steps of the event loop."""
        self.name = name
        self.context: Context = copy_context()
        self.failure: Exception | None = None
        """What the function raised: a bug of this package."""
        self._function = function
        self._scope = anyio.CancelScope()
        self._ended = anyio.Event()

    def cancel(self) -> None:
        """Cancel it; a task that has not begun still runs until its first await, to clean up."""
        self._scope.cancel()

    async def wait(self) -> None:
        """Return once it has ended.

        Cancellation: does not cancel the task.
        """
        await self._ended.wait()

    async def run(self) -> None:
        """Run the function; what it raises is kept and logged."""
        try:
            with self._scope:
                await self._function()
        except asyncio.CancelledError:
            if is_cancelled():
                raise  # else what it awaited was cancelled, and not this task
            self.failure = RuntimeError(f"{self.name} awaited something that was cancelled")
            _LOG.exception("%s failed", self.name)
        except Exception as error:
            self.failure = error
            _LOG.exception("%s failed", self.name, extra=ids_of(error))
        finally:
            self._ended.set()


class BackgroundTasks:
    """Runs the background tasks of one client and its copies, in one event loop."""

    def __init__(self) -> None:
        """Start without a root task."""
        self._root: asyncio.Task[None] | None = None
        self._group: TaskGroup | None = None
        self._tasks: set[BackgroundTask] = set()
        self._not_begun: list[BackgroundTask] = []
        self._failure: Exception | None = None
        self._closed = False

    def start(self, function: Callable[[], Awaitable[None]], *, name: str) -> BackgroundTask:
        """Return a new task, which runs `function` in a copy of the caller's context.

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
        task = BackgroundTask(function, name)
        self._tasks.add(task)
        if self._group is None:
            self._not_begun.append(task)
            if self._root is None or self._root.done():
                self._root = asyncio.create_task(self._run_root(), name="openai_runs.client")
        else:
            self._begin(self._group, task)
        return task

    async def aclose(self) -> None:
        """Cancel all tasks and return once they have ended; a second call does nothing.

        Raises:
            Exception: What a task raised.

        Cancellation: the tasks are cancelled all the same.
        """
        self._closed = True
        for task in self._tasks:
            task.cancel()
        root = self._root
        if root is not None and root is not asyncio.current_task():
            await asyncio.wait([root])
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    async def _run_root(self) -> None:
        try:
            while self._not_begun:
                async with anyio.create_task_group() as group:
                    not_begun, self._not_begun = self._not_begun, []
                    for task in not_begun:
                        self._begin(group, task)
                    self._group = group
                self._group = None
        finally:
            self._root = self._group = None
            self._not_begun.clear()  # cancelled from outside, as `asyncio.run` does in the end
            self._tasks.clear()

    def _begin(self, group: TaskGroup, task: BackgroundTask) -> None:
        task.context.run(group.start_soon, self._run, task)

    async def _run(self, task: BackgroundTask) -> None:
        try:
            await task.run()
        finally:
            self._tasks.discard(task)
            self._failure = self._failure or task.failure
