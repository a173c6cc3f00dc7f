"""One timeout over several requests and waits, in seconds on a monotonic clock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio

from openai_runs._client.arguments import (
    CallOptions,
    WaitOptions,
    options_of,
    wait_arguments_of,
    wait_options_of,
)
from openai_runs._client.core.pipeline import Pipeline
from openai_runs.config import MIN_POLL_DELAY, check_timeout
from openai_runs.errors import APITimeoutError

__all__ = ["Deadline", "within"]

T = TypeVar("T")


class Deadline:
    """One `timeout` over several requests and a wait."""

    def __init__(self, pipeline: Pipeline, taken: dict[str, Any]) -> None:
        """Take the options out of `taken`; the clock runs from here."""
        self._now = pipeline.settings.runtime.monotonic
        self._began = self._now()
        wait_arguments = wait_arguments_of(taken)
        self.call_options: CallOptions = options_of(taken)
        self._timeout = self.call_options.get("timeout")
        self.wait_options: WaitOptions = wait_options_of(
            pipeline.settings.poll, wait_arguments, self.call_options
        )

    def left(self) -> CallOptions:
        """Return what a look in between takes along, with what is left of the time."""
        return {**self.wait_options.options, "timeout": self.seconds_left()}

    async def start(self, start: Awaitable[T], undo: Callable[[], Awaitable[None]]) -> T:
        """Return what comes of `start`; `undo` it if asked to where it ends early."""
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
        """Return what is left of `timeout`, at least a moment; None where there is none."""
        if self._timeout is None:
            return None
        return max(self._timeout - (self._now() - self._began), MIN_POLL_DELAY)


async def within(
    timeout: float | None, what: str, work: Callable[[], Awaitable[T]], **ids: str
) -> T:
    """Return what `work` returns, if it takes no longer than `timeout` seconds.

    Raises:
        APITimeoutError: It took longer; `what` says what did, `ids` on what.
    """
    check_timeout("timeout", timeout)
    with anyio.move_on_after(timeout):
        return await work()
    message = f"{what} took longer than {timeout:.3g} s"
    error = APITimeoutError(message)
    error.locate(thread_id=ids.get("thread_id"), run_id=ids.get("run_id"))
    raise error
