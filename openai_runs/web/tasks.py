"""The tasks that make the answers of a chat.

Theory of operation. They run in one task group under one root task, made with
`asyncio.create_task` here and nowhere else in this package: frameworks and test fixtures may open
and close an application in different tasks, which a task group does not allow. The root task
ends in `aclose`, and all others with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import anyio

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

__all__ = ["Tasks"]


class Tasks:
    """Tasks of one chat, while it is open; they raise nothing but a cancellation."""

    def __init__(self) -> None:
        self._root: asyncio.Task[None] | None = None
        self._group: TaskGroup | None = None
        self._closing = anyio.Event()
        self._drain = 0.0

    async def open(self) -> None:
        """Begin to accept tasks.

        Cancellation: ends the root task.
        """
        begun = anyio.Event()
        self._closing = anyio.Event()
        self._root = asyncio.create_task(self._run(begun), name="openai_runs.chat")
        try:
            await begun.wait()
        except BaseException:
            self._root.cancel()
            raise

    @property
    def is_open(self) -> bool:
        """Return whether tasks are accepted."""
        return self._group is not None and not self._closing.is_set()

    def start(self, function: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> None:
        """Run a function as a task."""
        assert self._group is not None
        self._group.start_soon(function, *arguments)

    async def aclose(self, drain: float) -> None:
        """Return once all tasks have ended; after `drain` seconds they are cancelled.

        Cancellation: cancels them at once.
        """
        root = self._root
        if root is None:
            return
        self._drain = drain
        self._closing.set()
        try:
            await asyncio.wait([root])
        except BaseException:
            root.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.wait([root])
            raise
        self._root = None
        if not root.cancelled():
            root.result()

    async def _run(self, begun: anyio.Event) -> None:
        async with anyio.create_task_group() as self._group:
            begun.set()
            await self._closing.wait()
            self._group.cancel_scope.deadline = anyio.current_time() + self._drain
        self._group = None
