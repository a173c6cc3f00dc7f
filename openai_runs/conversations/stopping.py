"""A wait for a run that a stop of its conversation ends, also while tools are called.

Where no tool runs, the end comes from the server: the stream has it with its last text.
What may not live here: which claim was stopped, and by whom.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from openai_runs import APIError, Run, RunCancelled, RunWaitTimeout
from openai_runs.conversations.access import Access

__all__ = ["StoppableWait"]

T = TypeVar("T")

_logger = logging.getLogger("openai_runs.conversations")


class StoppableWait:
    """The waits for the run of one claim."""

    def __init__(self, access: Access) -> None:
        self.is_stopped = False
        self._access = access
        self._run: Run | None = None
        self._is_at_tools = False
        self._scope: anyio.CancelScope | None = None

    async def unless_stopped(self, wait: Callable[[], Awaitable[T]]) -> T:
        """Return what a wait returns; a stop ends it while tools are called.

        Raises:
            RunCancelled: It was stopped.
        """
        with anyio.CancelScope() as self._scope:
            try:
                return await wait()
            except RunWaitTimeout:
                if not self.is_stopped:
                    raise
        assert self._run is not None
        run = await self._access.client.runs.cancel_and_wait(
            self._run.id, thread_id=self._run.thread_id
        )
        run.raise_for_status()
        raise RunCancelled(run)

    def see(self, run: Run, *, is_at_tools: bool) -> None:
        """Note the run as it is now, and end its tools where it was stopped before."""
        self._run, self._is_at_tools = run, is_at_tools
        if self.is_stopped:
            self.stop()

    def stop(self) -> None:
        """End the wait while tools are called."""
        self.is_stopped = True
        if self._is_at_tools and self._scope is not None:
            self._scope.cancel()

    async def cancel_again(self) -> None:
        """Cancel the run that is stopped: the server may have been unreachable at the stop."""
        if self._run is None:
            return
        try:
            await self._access.cancel(self._run.id, self._run.thread_id)
        except APIError as error:  # tried again when the lease is renewed
            ids = {"run_id": self._run.id, "thread_id": self._run.thread_id}
            _logger.debug("the cancel of a stopped run failed: %r", error, extra=ids)
