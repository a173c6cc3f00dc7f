"""Calls made of several parts: creates that wait their turn, and one timeout over all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

import anyio
import msgspec

from openai_runs._client.arguments import (
    CallOptions,
    CreateRunArguments,
    CreateThreadAndRunArguments,
    body_of,
    options_of,
    wait_arguments_of,
)
from openai_runs._client.core.pipeline import Pipeline
from openai_runs._client.flows.active_runs import when_free
from openai_runs._client.flows.create_run import Creation
from openai_runs._client.polling.handle import wait_options_of
from openai_runs._client.polling.waiter import Waiter
from openai_runs._protocol.endpoints import CREATE_RUN, CREATE_THREAD_AND_RUN
from openai_runs._protocol.lifecycle import is_settled
from openai_runs._protocol.spec import check_id
from openai_runs._transport import StreamReply
from openai_runs.config import MIN_POLL_DELAY, check_timeout
from openai_runs.errors import APITimeoutError
from openai_runs.types.runs import Run

__all__ = ["Attempts", "Deadline", "thread_and_run", "within"]

T = TypeVar("T")


class Attempts:
    """The creates of one `runs.create`: a new one each time the thread was busy."""

    def __init__(
        self,
        pipeline: Pipeline,
        thread_id: str,
        assistant_id: str,
        taken: dict[str, Any],
        *,
        stream: bool = False,
    ) -> None:
        """Take the arguments apart; nothing is sent yet."""
        self._stream = stream
        self._pipeline = pipeline
        self.thread_id = thread_id
        self._options = options_of(taken)
        self._mode = taken.pop("on_active_run", "raise")
        include: Iterable[str] | None = taken.pop("include", None)
        self._query = None if include is None else {"include": [*include]}
        body = body_of("runs.create", CreateRunArguments, taken)
        check_id("assistant_id", assistant_id)
        self._body = {"assistant_id": assistant_id, **body}
        self.last: Creation | None = None

    def make(self, waiter: Waiter) -> Coroutine[Any, Any, Run]:
        """Return the run, once the thread is free for it; to be awaited."""
        return when_free(
            waiter,
            self._pipeline,
            self.thread_id,
            mode=self._mode,
            options=self._options,
            attempt=self._once,
        )

    def open(self, waiter: Waiter) -> Coroutine[Any, Any, Run | StreamReply]:
        """Return the run's stream, once the thread is free for it; to be awaited."""
        return when_free(
            waiter,
            self._pipeline,
            self.thread_id,
            mode=self._mode,
            options=self._options,
            attempt=self._open_once,
        )

    async def undo(self, waiter: Waiter) -> None:
        """Cancel what the last create may have started."""
        if self.last is not None:
            await self.last.undo(waiter)

    def _once(self, options: CallOptions) -> Coroutine[Any, Any, Run]:
        return self._next(options).make()

    def _open_once(self, options: CallOptions) -> Coroutine[Any, Any, Run | StreamReply]:
        return self._next(options).open()

    def _next(self, options: CallOptions) -> Creation:
        self.last = Creation(
            self._pipeline,
            CREATE_RUN,
            self.thread_id,
            self._body,
            options,
            query=self._query,
            stream=self._stream,
        )
        return self.last


def thread_and_run(
    pipeline: Pipeline, taken: dict[str, Any], assistant_id: str, *, stream: bool = False
) -> Creation:
    """Return the create of a run whose thread is made with it; nothing is sent yet."""
    options = options_of(taken)
    body = body_of("threads.create_and_run", CreateThreadAndRunArguments, taken)
    check_id("assistant_id", assistant_id)
    body["assistant_id"] = assistant_id
    return Creation(pipeline, CREATE_THREAD_AND_RUN, None, body, options, stream=stream)


class Deadline:
    """One `timeout` over several requests and a wait."""

    def __init__(self, pipeline: Pipeline, taken: dict[str, Any]) -> None:
        """Take the options out of `taken`; the clock runs from here."""
        self._now = pipeline.settings.runtime.monotonic
        self._began = self._now()
        waiting = wait_arguments_of(taken)
        self.options: CallOptions = options_of(taken)
        self._timeout = self.options.get("timeout")
        self.plan = wait_options_of(pipeline.settings.poll, waiting, self.options)

    def left(self) -> CallOptions:
        """Return what a look in between takes along, with what is left of the time."""
        return {**self.plan.options, "timeout": self.seconds_left()}

    async def start(self, start: Awaitable[T], undo: Callable[[], Awaitable[None]]) -> T:
        """Return what comes of `start`; `undo` it if asked to where it ends early."""
        try:
            return await start
        except anyio.get_cancelled_exc_class():
            if self.plan.on_cancel == "cancel":
                await undo()
            raise
        except APITimeoutError:
            if self.plan.on_timeout == "cancel":
                await undo()
            raise

    async def wait(
        self,
        waiter: Waiter,
        run: Run | str,
        thread_id: str,
        *,
        until: Callable[[str], bool] = is_settled,
    ) -> Run:
        """Return the run once it is settled, within what is left of the time."""
        plan = msgspec.structs.replace(self.plan, timeout=self.seconds_left(), until=until)
        return await waiter.wait(run, thread_id=thread_id, plan=plan)

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
