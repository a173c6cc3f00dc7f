"""Waiting for runs: the interface for resources and flows, and cancelling what is not waited for.

`Waiter.join` finds the `RunPoller` that a wait can share, or makes one; `poller` and `scheduler`
say how and when it polls.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any, Final

import anyio
import msgspec

from openai_runs._client.arguments import CallOptions, WaitOptions, follow_up_options
from openai_runs._client.core.background import BackgroundTask
from openai_runs._client.core.deadline import Deadline
from openai_runs._client.core.pipeline import Pipeline, Verify
from openai_runs._client.polling.handle import HandleState, Inbox, WaitHandle
from openai_runs._client.polling.poller import RunPoller
from openai_runs._client.polling.scheduler import Scheduler
from openai_runs._log_ids import ids_of
from openai_runs._protocol.endpoints import CANCEL_RUN, GET_RUN
from openai_runs._protocol.error_mapping import ended_status
from openai_runs._protocol.lifecycle import is_settled, needs_no_cancel
from openai_runs._protocol.spec import check_id, forgotten_await
from openai_runs.errors import (
    APIError,
    APITimeoutError,
    BadRequestError,
    ConflictError,
    NotFoundError,
    RunWaitTimeout,
)
from openai_runs.types.runs import Run, RunStatus

__all__ = ["Waiter", "retrieve_run"]

_CANCELS: Final = 20
"""Runs that the server is asked to cancel at the same time."""
_LOG: Final = logging.getLogger("openai_runs.client")


class Waiter:
    """Waits for runs of one client."""

    def __init__(self, pipeline: Pipeline, scheduler: Scheduler) -> None:
        """Poll through `pipeline` when `scheduler` says so."""
        self._pipeline = pipeline
        self._scheduler = scheduler

    def with_pipeline(self, pipeline: Pipeline) -> Waiter:
        """Return a waiter that polls through another pipeline of the same client."""
        return Waiter(pipeline, self._scheduler)

    async def wait(self, run: Run | str, *, thread_id: str | None, options: WaitOptions) -> Run:
        """Poll until `options.until` holds for the run's status, and return the run."""
        if isinstance(run, Run) and run.is_terminal:
            return run
        handle = self.join(run, thread_id, options)
        try:
            return await handle.wait()
        except anyio.get_cancelled_exc_class():
            if options.on_cancel == "cancel" and not handle.is_terminal:
                handle.leave()
                await self.cancel_for(handle)
            raise
        except (RunWaitTimeout, APITimeoutError) as error:
            if options.on_timeout == "cancel" and handle.state is HandleState.TIMED_OUT:
                await self.cancel_for(handle)
                error.add_note("the server was asked to cancel it (on_timeout='cancel')")
            raise
        finally:
            handle.leave()

    async def wait_within(
        self,
        deadline: Deadline,
        run: Run | str,
        thread_id: str,
        *,
        until: Callable[[str], bool] = is_settled,
    ) -> Run:
        """Return the run once `until` holds for its status, within what is left of the time."""
        timeout = deadline.seconds_left()
        options = msgspec.structs.replace(deadline.wait_options, timeout=timeout, until=until)
        return await self.wait(run, thread_id=thread_id, options=options)

    def join(
        self,
        run: Run | str,
        thread_id: str | None,
        options: WaitOptions,
        inbox: Inbox | None = None,
    ) -> WaitHandle:
        """Return a handle of the wait for `run`, which begins here; `leave` it in the end.

        Raises:
            TypeError: `run` is neither a run nor an id, or there is no thread to the id.
            ValueError: An id could change the URL.
            ConfigError: The client is closed, or belongs to another event loop.
        """
        known = run if isinstance(run, Run) else None
        thread_id, run_id = _ids_of(run, thread_id)
        check_id("thread_id", thread_id)
        check_id("run_id", run_id)
        self._pipeline.state.transport.claim()
        runtime = self._pipeline.settings.runtime
        handle = WaitHandle((thread_id, run_id), known, options, runtime.monotonic, inbox)
        key = (self._pipeline, *handle.ids, *self._sharing_key(handle))
        poller = self._scheduler.find(key)
        if poller is None:
            ids = {"thread_id": thread_id, "run_id": run_id}
            spec = self._pipeline.build_request(GET_RUN, ids, options.options)
            poller = RunPoller(self._pipeline, self._scheduler, spec, options, key)
            self._scheduler.add(poller)
        poller.join(handle)
        return handle

    def _sharing_key(self, handle: WaitHandle) -> tuple[object, ...]:
        """Return what two waits must have in common to share their polls.

        A wait with extras, or with credentials that may depend on the caller's context, is polled
        for alone: no caller receives a run that was retrieved with the key of another.
        """
        options = handle.options
        extras = options.options.keys() - {"request_timeout"}
        is_private = extras or self._pipeline.depends_on_context
        return (
            options.until,
            options.policy,
            options.interval,
            options.options.get("request_timeout"),
            handle if is_private else None,
        )

    def cancel(self, run_id: str, thread_id: str, options: CallOptions) -> Coroutine[Any, Any, Run]:
        """Ask the server to cancel the run, and return it; to be awaited.

        Where the reply is lost, the run is retrieved before the request is sent again.
        """
        ids = {"thread_id": thread_id, "run_id": run_id}
        spec = self._pipeline.build_request(CANCEL_RUN, ids, options)
        verify = _verify_cancel(self._pipeline, ids, options)
        return self._pipeline.send(spec, options, verify=verify)

    async def cancel_if_active(self, run_id: str, thread_id: str, options: CallOptions) -> None:
        """Ask the server to cancel the run; one that has ended, or is deleted, needs no cancel.

        Raises:
            APIError: The request failed, and the run may go on.
        """
        try:
            await self.cancel(run_id, thread_id, options)
        except (BadRequestError, ConflictError, NotFoundError) as rejection:
            ids = {"thread_id": thread_id, "run_id": run_id}
            status = ended_status(rejection) or await self._ended_status(ids, options)
            if status is None:
                raise
            _LOG.debug("run %s needed no cancel: it is %s", run_id, status, extra=ids)

    async def _ended_status(self, ids: Mapping[str, str], options: CallOptions) -> str | None:
        """Return the status of a run that is over or being cancelled; None where it may go on."""
        try:
            run = await retrieve_run(self._pipeline, ids, options)
        except NotFoundError:
            return "deleted"
        except APIError:
            return None
        return run.status if needs_no_cancel(run.status) else None

    async def cancel_for(self, handle: WaitHandle) -> None:
        """Cancel the run of a wait that has ended early, as `cancel_quietly` does."""
        thread_id, run_id = handle.ids
        await self.cancel_quietly(run_id, thread_id, handle.options.options)

    async def cancel_all(self, handles: Iterable[WaitHandle]) -> None:
        """Cancel the runs of these waits, `_CANCELS` at a time.

        Cancellation: is delayed until all were asked, by 5 s for each batch that does not answer.
        """
        limiter = anyio.CapacityLimiter(_CANCELS)

        async def cancel_one(handle: WaitHandle) -> None:
            async with limiter:
                await self.cancel_for(handle)

        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as group:
                for handle in handles:
                    group.start_soon(cancel_one, handle)

    def cancel_soon(self, handles: Iterable[WaitHandle]) -> BackgroundTask:
        """Return the background task of `cancel_all`."""
        act = partial(self.cancel_all, [*handles])
        return self._pipeline.state.background.start(act, name="cancelling runs")

    async def cancel_quietly(self, run_id: str, thread_id: str, options: CallOptions) -> None:
        """Ask the server to cancel the run, for at most 5 s; it expires by itself otherwise.

        A failure is logged, unless the run has ended meanwhile.

        Cancellation: is delayed for those 5 s.
        """
        cancel = partial(self.cancel_if_active, run_id, thread_id, follow_up_options(options))
        ids = {"thread_id": thread_id, "run_id": run_id}
        await self.quietly(f"cancelling run {run_id}", cancel, ids)

    async def quietly(
        self, what: str, act: Callable[[], Awaitable[object]], ids: Mapping[str, str]
    ) -> None:
        """Await `act` for at most 5 s, shielded from cancellation, and log its failure with `ids`.

        Cancellation: is delayed for those 5 s.
        """
        grace = self._pipeline.settings.runtime.cancel_grace
        with anyio.move_on_after(grace, shield=True) as scope:
            try:
                await act()
            except Exception as error:  # would replace the original error
                _LOG.warning("%s failed: %s", what, error, extra={**ids_of(error), **ids})
        if scope.cancelled_caught:
            _LOG.warning("%s took longer than %s s and was given up", what, grace, extra=ids)


def _ids_of(run: Run | str, thread_id: str | None) -> tuple[str, str]:
    """Return the ids of the thread and the run."""
    if isinstance(run, Run):
        return thread_id or run.thread_id, run.id
    if not isinstance(run, str):
        kind = type(run).__name__
        msg = f"run must be a Run or a run id, got {kind}{forgotten_await(run)}"
        raise TypeError(msg)
    if thread_id is None:
        msg = "waiting by run id needs thread_id= as well"
        raise TypeError(msg)
    return thread_id, run


async def retrieve_run(pipeline: Pipeline, ids: Mapping[str, str], options: CallOptions) -> Run:
    """Return the run as it is now."""
    return await pipeline.send(pipeline.build_request(GET_RUN, ids, options), options)


def _verify_cancel(pipeline: Pipeline, ids: Mapping[str, str], options: CallOptions) -> Verify[Run]:
    """Return what verifies whether an ambiguous cancel was carried out."""
    checking = follow_up_options(options)

    async def verify(failure: APIError) -> Run | None:
        run = await retrieve_run(pipeline, ids, checking)
        return run if run.status in {RunStatus.CANCELLING, RunStatus.CANCELLED} else None

    return verify
