"""One timeout over several requests and waits, in seconds on a monotonic clock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from openai_runs._client.arguments import CallOptions, WaitOptions
from openai_runs._client.settings import Runtime
from openai_runs.config import MIN_POLL_DELAY, check_timeout
from openai_runs.errors import APITimeoutError

__all__ = ["Deadline", "within"]

T = TypeVar("T")


class Deadline:
    """One `timeout` over several requests and a wait; the clock runs from the construction.

    Args:
        runtime: Has the monotonic clock.
        call: The options of the call, with its `timeout`; None there: no deadline.
        wait: How the call waits for its run.
    """

    def __init__(self, runtime: Runtime, call: CallOptions, wait: WaitOptions) -> None:
        self._now = runtime.monotonic
        self._began = self._now()
        self._timeout = call.get("timeout")
        self.wait_options = wait

    def left(self) -> CallOptions:
        """Return the options of a follow-up request, with what is left of `timeout`."""
        return {**self.wait_options.options, "timeout": self.seconds_left()}

    async def start(self, start: Awaitable[T], undo: Callable[[], Awaitable[None]]) -> T:
        """Return the result of `start`.

        Where it is cancelled or times out, and the call asks for `cancel`, `undo` is awaited.
        """
        try:
            return await start
        except anyio.get_cancelled_exc_class():
            if self.wait_options.on_cancel == "cancel":
                await undo()
            raise
        except APITimeoutError:
            if self.wait_options.on_timeout == "cancel":
                await undo()
            raise

    def seconds_left(self) -> float | None:
        """Return what is left of `timeout`, at least `MIN_POLL_DELAY`; None: no deadline."""
        if self._timeout is None:
            return None
        return max(self._timeout - (self._now() - self._began), MIN_POLL_DELAY)


async def within(
    timeout: float | None, what: str, work: Callable[[], Awaitable[T]], **ids: str
) -> T:
    """Return what `work` returns, if it takes no longer than `timeout` seconds.

    Raises:
        APITimeoutError: It took longer; the message names `what`, and it carries `ids`.
    """
    check_timeout("timeout", timeout)
    with anyio.move_on_after(timeout):
        return await work()
    message = f"{what} took longer than {timeout:.3g} s"
    error = APITimeoutError(message)
    error.locate(thread_id=ids.get("thread_id"), run_id=ids.get("run_id"))
    raise error
