"""Runs: the calls that wait for one."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Mapping
from functools import partial
from typing import Any, Unpack

from openai_runs._client.arguments import (
    CreateRunAndPollCall,
    Reaction,
    StatusCallback,
    ToolOutputs,
    WaitCall,
    WaitOptions,
    options_of,
    refuse,
    wait_arguments_of,
    wait_options_of,
)
from openai_runs._client.core.deadline import Deadline
from openai_runs._client.flows.active_runs import is_over
from openai_runs._client.flows.create_run import Attempts
from openai_runs._client.polling.as_completed import Awaited, CompletedRuns, wait_for_all
from openai_runs._client.resources.tool_runs import ToolRuns
from openai_runs._protocol.spec import check_id
from openai_runs.config import PollPolicy
from openai_runs.errors import BadRequestError, OpenAIRunsError
from openai_runs.types.runs import Run, RunStatus

__all__ = ["WaitingRuns"]


class WaitingRuns(ToolRuns):
    """The calls of `client.runs` that wait for a run."""

    async def create_and_poll(
        self, thread_id: str, *, assistant_id: str, **arguments: Unpack[CreateRunAndPollCall]
    ) -> Run:
        """Start a run and return it once it is settled; `create`, then `wait`.

        Endpoint: POST /threads/{thread_id}/runs, then GET .../runs/{run_id} (repeated)

        Args:
            thread_id: The thread's id.
            assistant_id: The assistant's id.
            **arguments: See `create` and `WaitArguments`; `timeout` covers all of it.

        Returns:
            The run: finished, or `requires_action`.

        Raises:
            RunWaitTimeout: The time was up; `.run` is the last state seen.
            APIError: The create was refused, or the server is gone.

        Cancellation: leaves the run alone, or cancels it with `on_cancel="cancel"`, also
        when the create itself is cancelled.
        """
        taken: dict[str, Any] = dict(arguments)
        deadline = Deadline(self._pipeline, taken)
        taken.update(deadline.call_options)
        attempts = Attempts(self._pipeline, thread_id, assistant_id, taken)
        undo = partial(attempts.undo, self._waiter)
        run = await deadline.start(attempts.make(self._waiter), undo)
        return await self._waiter.wait_within(deadline, run, run.thread_id)

    async def poll(self, run_id: str, thread_id: str, **arguments: Unpack[WaitCall]) -> Run:
        """Return the run once it is settled; `wait`, under the official SDK's name.

        Endpoint: GET /threads/{thread_id}/runs/{run_id}   (repeated)

        Args:
            run_id: The run's id.
            thread_id: The thread's id.
            **arguments: See `CallOptions` and `WaitArguments`.

        Raises:
            RunWaitTimeout: The time was up; `.run` is the last state seen.
            APIError: The server is gone, or refuses.

        Cancellation: leaves the run alone unless `on_cancel="cancel"`.
        """
        check_id("run_id", run_id)
        taken: dict[str, Any] = dict(arguments)
        deadline = Deadline(self._pipeline, taken)
        refuse("runs.poll", taken)
        return await self._waiter.wait_within(deadline, run_id, thread_id)

    async def submit_tool_outputs_and_poll(
        self,
        run_id: str,
        *,
        thread_id: str,
        tool_outputs: ToolOutputs,
        **arguments: Unpack[WaitCall],
    ) -> Run:
        """Answer the waiting tool calls and return the run once it is settled again.

        Endpoint: POST .../submit_tool_outputs, then GET .../runs/{run_id} (repeated)

        Args:
            run_id: The run's id.
            thread_id: The thread's id.
            tool_outputs: See `submit_tool_outputs`.
            **arguments: See `CallOptions` and `WaitArguments`; `timeout` covers all of it.

        Raises:
            RunWaitTimeout: The time was up; `.run` is the last state seen.
            APIError: The outputs were refused, or the server is gone.

        Cancellation: leaves the run alone unless `on_cancel="cancel"`.
        """
        taken: dict[str, Any] = dict(arguments)
        deadline = Deadline(self._pipeline, taken)
        refuse("runs.submit_tool_outputs_and_poll", taken)
        submitting = self.submit_tool_outputs(
            run_id, thread_id=thread_id, tool_outputs=tool_outputs, **deadline.call_options
        )
        undo = partial(self._waiter.cancel_quietly, run_id, thread_id, deadline.call_options)
        run = await deadline.start(submitting, undo)
        return await self._waiter.wait_within(deadline, run, thread_id)

    def wait(
        self,
        run: Run | str,
        *,
        thread_id: str | None = None,
        timeout: float | None = None,
        request_timeout: float | None = None,
        poll: PollPolicy | None = None,
        interval: float | None = None,
        on_status: StatusCallback | None = None,
        on_timeout: Reaction = "leave",
        on_cancel: Reaction = "leave",
    ) -> Coroutine[Any, Any, Run]:
        """Return the run once it leaves the server's hands; the same as `await_run`.

        Endpoint: GET /threads/{thread_id}/runs/{run_id}   (repeated)

        Args:
            run: The run, or its id. A finished `Run` is returned without a request; any
                other is looked at first.
            thread_id: The thread's id; needed with a run id.
            timeout: Seconds for the whole wait, counted from the call. None: what the run
                has left by the server's clock plus 10 s, or 600 s where the server names
                no expiry; `math.inf` waits for ever.
            request_timeout: Seconds one poll's answer may take beyond what the server was
                asked to hold it (default 10).
            poll: How to pace the polls; the client's policy if None.
            interval: Seconds between polls in place of the policy's; the server's
                `openai-poll-after-ms` wins where it is sent.
            on_status: Called with the run on each change of its status; may be async. What
                it raises ends the wait.
            on_timeout: `cancel` asks the server to cancel the run when the time is up.
            on_cancel: `cancel` asks the same when the waiting task is cancelled.

        Returns:
            The last `Run` seen: finished, `requires_action`, or a status this version does
            not know.

        Raises:
            RunWaitTimeout: The time was up; `.run` is the last state seen. It goes on.
            APIConnectionError: No usable answer for `PollPolicy.max_outage` seconds.
            APIStatusError: A poll was refused for good, such as 401 or 404.

        Cancellation: leaves the run alone unless `on_cancel="cancel"`, which holds the
        cancellation off for at most 5 s.
        """
        plan = wait_options_of(
            self._pipeline.settings.poll,
            {
                "poll": poll,
                "interval": interval,
                "on_status": on_status,
                "on_timeout": on_timeout,
                "on_cancel": on_cancel,
            },
            {"timeout": timeout, "request_timeout": request_timeout},
        )
        # Not a coroutine around a coroutine: ten thousand waits would hold ten thousand of each.
        return self._waiter.wait(run, thread_id=thread_id, plan=plan)

    async def wait_all(
        self, runs: Iterable[Awaited], **arguments: Unpack[WaitCall]
    ) -> list[Run | OpenAIRunsError]:
        """Return what became of each run, in the order in which they were given.

        Endpoint: GET /threads/{thread_id}/runs/{run_id}   (repeated, for each)

        Ten thousand runs are no problem: there is no task for each, the polls share the
        client's connections, and the one that is due longest goes first.

        Args:
            runs: Runs, or pairs `(run_id, thread_id)`. Finished ones cost no request.
            **arguments: See `CallOptions` and `WaitArguments`; `timeout` holds for each wait,
                counted from the call.

        Returns:
            For each the settled `Run`, or the error its wait ended with: `RunWaitTimeout`, or
            what `wait` raises. One that fails never ends the others.

        Raises:
            TypeError: One of `runs` is no run; nothing is waited for.
            Exception: What `on_status` raised.

        Cancellation: leaves the runs alone, or cancels those that are not over with
        `on_cancel="cancel"`, which holds the cancellation off for a while: 5 s for each run
        that does not answer, 20 at a time.
        """
        return await wait_for_all(self._waiter, runs, self._plan_for("wait_all", arguments))

    def as_completed(self, runs: Iterable[Awaited], **arguments: Unpack[WaitCall]) -> CompletedRuns:
        """Return an iterator over the runs, each as soon as its wait is over.

        Endpoint: GET /threads/{thread_id}/runs/{run_id}   (repeated, for each)

        Args:
            runs: Runs, or pairs `(run_id, thread_id)`.
            **arguments: See `CallOptions` and `WaitArguments`; `timeout` holds for each wait,
                counted from this call.

        Returns:
            What `async for` takes the settled `Run` of each wait from, or the error it ended
            with, which carries the ids. Usable with `async with`, which ends what is left.

        Raises:
            TypeError: One of `runs` is no run; nothing is waited for.
        """
        return CompletedRuns(self._waiter, runs, self._plan_for("as_completed", arguments))

    def _plan_for(self, call: str, arguments: Mapping[str, Any]) -> WaitOptions:
        taken = dict(arguments)
        waiting, options = wait_arguments_of(taken), options_of(taken)
        refuse(f"runs.{call}", taken)
        return wait_options_of(self._pipeline.settings.poll, waiting, options)

    async def cancel_and_wait(
        self, run_id: str, *, thread_id: str, **arguments: Unpack[WaitCall]
    ) -> Run:
        """Cancel the run and return it once it is finished, however it ended.

        Endpoint: POST .../cancel, then GET /threads/{thread_id}/runs/{run_id} (repeated)

        Args:
            run_id: The run's id.
            thread_id: The thread's id.
            **arguments: See `CallOptions` and `WaitArguments`; `timeout` covers both parts.

        Returns:
            The finished run: `cancelled`, or what it became before the cancel arrived.

        Raises:
            RunWaitTimeout: It was still not finished when the time was up.
            APIError: The cancel was refused for another reason, or the server is gone.

        Cancellation: leaves the run as it is.
        """
        taken: dict[str, Any] = dict(arguments)
        deadline = Deadline(self._pipeline, taken)
        refuse("runs.cancel_and_wait", taken)
        try:
            run = await self.cancel(run_id, thread_id=thread_id, **deadline.call_options)
        except BadRequestError:
            run = await self.retrieve(run_id, thread_id=thread_id, **deadline.left())
            if run.is_active and run.status != RunStatus.CANCELLING:
                raise
        return await self._waiter.wait_within(deadline, run, thread_id, until=is_over)
