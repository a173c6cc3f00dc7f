"""What to do when a thread already has an active run: wait for it, or cancel it.

Calls of one client for the same thread wait in a queue, in the order in which they came, so that
many creates do not compete whenever the thread is free.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio

from openai_runs._client.arguments import (
    CallOptions,
    OnActiveRun,
    WaitOptions,
    follow_up_options,
)
from openai_runs._client.core.pipeline import Pipeline
from openai_runs._client.core.state import ThreadLock
from openai_runs._client.polling.waiter import Waiter
from openai_runs._protocol import retry
from openai_runs._protocol.lifecycle import is_inactive
from openai_runs.config import DEFAULT_RUN_LIFETIME, MIN_POLL_DELAY, check_timeout
from openai_runs.errors import ActiveRunError, APITimeoutError, BadRequestError, RunWaitTimeout

__all__ = ["when_free"]

T = TypeVar("T")


def when_free(
    waiter: Waiter,
    pipeline: Pipeline,
    thread_id: str,
    *,
    mode: OnActiveRun,
    options: CallOptions,
    attempt: Callable[[CallOptions], Coroutine[Any, Any, T]],
) -> Coroutine[Any, Any, T]:
    """Return what `attempt` returns, once no run of the thread is active; to be awaited.

    No coroutine itself, so that a call which does not wait is not a frame deeper.

    Args:
        waiter: Waits for the blocking run.
        pipeline: What the call is sent through.
        thread_id: The thread.
        mode: `wait` for the blocking run or `cancel` it; `raise` gives up at once.
        options: The call's; its `timeout` covers the waiting too (None: 600 s).
        attempt: Makes the call once, with the options it is given.

    Raises:
        ActiveRunError: `mode` is `raise`, or the server does not say which run blocks.
        APITimeoutError: The time passed; `.run_id` is the active run.

    Cancellation: leaves the blocking run as it is.
    """
    if mode == "raise":
        return attempt(options)
    if mode not in {"wait", "cancel"}:
        msg = f"on_active_run must be 'raise', 'wait' or 'cancel', got {mode!r}"
        raise ValueError(msg)
    return _in_order(_Busy(waiter, pipeline, thread_id, mode, options), attempt)


async def _in_order(busy: _Busy, attempt: Callable[[CallOptions], Coroutine[Any, Any, T]]) -> T:
    async with busy.locked():
        while True:
            try:
                return await attempt(busy.options())
            except ActiveRunError as error:
                await busy.wait_for(error)


class _Busy:
    """A thread that has, or may have, an active run."""

    def __init__(
        self,
        waiter: Waiter,
        pipeline: Pipeline,
        thread_id: str,
        mode: OnActiveRun,
        options: CallOptions,
    ) -> None:
        self._waiter = waiter
        self._thread_locks = pipeline.state.thread_locks
        self._policy = pipeline.settings.poll
        self._runtime = pipeline.settings.runtime
        self._thread_id = thread_id
        self._mode = mode
        self._options = options
        self._limit = check_timeout("timeout", options.get("timeout")) or DEFAULT_RUN_LIFETIME
        self._deadline = self._runtime.monotonic() + self._limit
        self._waited_for: set[str] = set()
        self._attempts = self._repeats = 0

    def options(self) -> CallOptions:
        """Return the next attempt's options: what is left of the time, and a key of its own."""
        options: CallOptions = {**self._options, "timeout": self._seconds_left()}
        self._attempts += 1
        key = self._options.get("idempotency_key")
        if key is not None and self._attempts > 1:
            # A server that remembers the key would repeat its 400 for every attempt.
            options["idempotency_key"] = f"{key}-{self._attempts}"
        return options

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Hold the thread's lock, which is granted in the order in which calls came."""
        thread_lock = self._thread_locks.setdefault(self._thread_id, ThreadLock())
        thread_lock.wanted += 1
        try:
            with anyio.move_on_after(self._limit) as scope:
                await thread_lock.lock.acquire()
            if scope.cancelled_caught:
                raise self._timed_out(None)
            try:
                yield
            finally:
                thread_lock.lock.release()
        finally:
            thread_lock.wanted -= 1
            if not thread_lock.wanted:
                self._thread_locks.pop(self._thread_id, None)

    async def wait_for(self, error: ActiveRunError) -> None:
        """Return once the run that `error` names is inactive."""
        blocking = error.blocking_run_id
        if blocking is None:
            raise error
        await self._pause(blocking)
        options = follow_up_options(self._options)
        if self._mode == "cancel":
            try:
                asking: CallOptions = {**options, "timeout": self._seconds_left()}
                await self._waiter.cancel(blocking, self._thread_id, asking)
            except BadRequestError as rejection:
                # It has ended, or is being cancelled: the wait below shows which.
                error.add_note(f"cancelling it was rejected: {rejection.message}")
        plan = WaitOptions(
            policy=self._policy, timeout=self._seconds_left(), options=options, until=is_inactive
        )
        try:
            await self._waiter.wait(blocking, thread_id=self._thread_id, options=plan)
        except (RunWaitTimeout, APITimeoutError) as late:
            raise self._timed_out(blocking) from late

    async def _pause(self, blocking: str) -> None:
        """Pause where a server repeatedly names a run that it shows as inactive."""
        if blocking in self._waited_for:
            self._repeats += 1
            pause = retry.poll_pause(self._policy, self._repeats, self._runtime.chance())
            left = self._deadline - self._runtime.monotonic()
            await self._runtime.sleep(max(min(pause, left), 0.0))
            if pause >= left:
                raise self._timed_out(blocking)
        self._waited_for.add(blocking)

    def _seconds_left(self) -> float:
        return max(self._deadline - self._runtime.monotonic(), MIN_POLL_DELAY)

    def _timed_out(self, blocking: str | None) -> APITimeoutError:
        reason = f"run {blocking!r} was active" if blocking else "earlier calls for it still wait"
        msg = f"thread {self._thread_id!r} was not free within {self._limit:.3g} s: {reason}"
        return APITimeoutError(msg, sent=False, thread_id=self._thread_id, run_id=blocking)
