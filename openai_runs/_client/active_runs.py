"""What to do when a thread already has an active run: wait for it, or cancel it.

Callers of one client that want the same thread take turns, in the order they came, so
that fifty creates do not race for every gap.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio

from openai_runs._client.arguments import CallOptions, OnActiveRun
from openai_runs._client.pipeline import Gate, Pipeline
from openai_runs._client.waiting import Waiter, WaitPlan
from openai_runs._protocol.endpoints import CANCEL_RUN
from openai_runs.config import DEFAULT_RUN_LIFETIME, check_timeout
from openai_runs.errors import ActiveRunError, APIError, APITimeoutError, BadRequestError
from openai_runs.types.base import ACTIVE_STATUSES

__all__ = ["is_over", "when_free"]

T = TypeVar("T")


async def when_free(
    waiter: Waiter,
    pipeline: Pipeline,
    thread_id: str,
    *,
    mode: OnActiveRun,
    options: CallOptions,
    attempt: Callable[[CallOptions], Awaitable[T]],
) -> T:
    """Return what `attempt` returns, once no run of the thread is in its way.

    Args:
        waiter: Waits for the blocking run.
        pipeline: Cancels it.
        thread_id: The thread.
        mode: `wait` for the blocking run or `cancel` it; `raise` gives up at once.
        options: The call's; its `timeout` covers the waiting too (None: 600 s).
        attempt: Makes the call once, with the options it is given.

    Raises:
        ActiveRunError: `mode` is `raise`, or the server does not say which run blocks.
        APITimeoutError: The time passed.

    Cancellation: leaves the blocking run as it is.
    """
    if mode == "raise":
        return await attempt(options)
    if mode not in {"wait", "cancel"}:
        msg = f"on_active_run must be 'raise', 'wait' or 'cancel', got {mode!r}"
        raise ValueError(msg)
    limit = check_timeout("timeout", options.get("timeout")) or DEFAULT_RUN_LIFETIME
    each: CallOptions = {**options, "timeout": None}
    blocker: ActiveRunError | None = None
    try:
        with anyio.fail_after(limit):
            async with _turn(pipeline.shared.gates, thread_id):
                while True:
                    try:
                        return await attempt(each)
                    except ActiveRunError as error:
                        blocker = error
                        await _clear(waiter, pipeline, thread_id, mode, error)
    except APIError:
        raise
    except TimeoutError:
        blocking = blocker.blocking_run_id if blocker is not None else None
        msg = f"thread {thread_id!r} was not free within {limit:.3g} s; run {blocking!r} was active"
        raise APITimeoutError(
            msg,
            thread_id=thread_id,
            run_id=blocking,
        ) from blocker


async def _clear(
    waiter: Waiter, pipeline: Pipeline, thread_id: str, mode: OnActiveRun, error: ActiveRunError
) -> None:
    blocking = error.blocking_run_id
    if blocking is None:
        raise error
    if mode == "cancel":
        ids = {"thread_id": thread_id, "run_id": blocking}
        try:
            await pipeline.send(pipeline.request(CANCEL_RUN, ids))
        except BadRequestError as refusal:
            # It ended, or is being cancelled, in the meantime: the wait below finds out.
            error.add_note(f"cancelling it was refused: {refusal.message}")
    plan = WaitPlan(policy=pipeline.settings.poll, timeout=math.inf, until=is_over)
    await waiter.wait(blocking, thread_id=thread_id, plan=plan)


def is_over(status: str) -> bool:
    """Return whether a run of that status no longer blocks its thread."""
    return status not in ACTIVE_STATUSES


@asynccontextmanager
async def _turn(gates: dict[str, Gate], thread_id: str) -> AsyncIterator[None]:
    gate = gates.setdefault(thread_id, Gate())
    gate.wanted += 1
    try:
        async with gate.lock:
            yield
    finally:
        gate.wanted -= 1
        if not gate.wanted:
            gates.pop(thread_id, None)
