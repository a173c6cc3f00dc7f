"""Runs: started once, waited for, answered, cancelled, gathered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

import anyio

from openai_runs._client.active_runs import is_over
from openai_runs._client.arguments import (
    CallOptions,
    CreateRunAndPollCall,
    CreateRunCall,
    ListCall,
    Reaction,
    StatusCallback,
    ToolOutputs,
    WaitCall,
    WaitOptions,
    tool_outputs_of,
)
from openai_runs._client.attempts import Attempts, Timed
from openai_runs._client.creation import look_for
from openai_runs._client.paging import AsyncPaginator, paginate
from openai_runs._client.pipeline import Pipeline
from openai_runs._client.results import RunResult
from openai_runs._client.steps import Steps
from openai_runs._client.waiting import Waiter, plan_of
from openai_runs._protocol.adoption import reveal
from openai_runs._protocol.endpoints import (
    CANCEL_RUN,
    GET_RUN,
    LIST_MESSAGES,
    LIST_RUNS,
    SUBMIT_TOOL_OUTPUTS,
    UPDATE_RUN,
)
from openai_runs.config import PollPolicy
from openai_runs.errors import APIError, BadRequestError, NotFoundError
from openai_runs.types.base import ACTIVE_STATUSES
from openai_runs.types.messages import Message
from openai_runs.types.runs import Run, RunStatus
from openai_runs.types.steps import RunStep

__all__ = ["Runs"]


class Runs:
    """`client.runs`."""

    def __init__(self, pipeline: Pipeline, waiter: Waiter) -> None:
        """Send through `pipeline`, wait with `waiter`."""
        self._pipeline = pipeline
        self._waiter = waiter
        self.steps = Steps(pipeline)
        """`client.runs.steps`."""

    async def create(
        self, thread_id: str, *, assistant_id: str, **arguments: Unpack[CreateRunCall]
    ) -> Run:
        """Start the assistant on the thread and return the run, queued.

        Endpoint: POST /threads/{thread_id}/runs

        The run is started once: where the answer is lost, it is looked for on the thread
        and adopted before anything is sent again.

        Args:
            thread_id: The thread's id.
            assistant_id: The assistant's id.
            **arguments: See `CreateRunArguments` and `CallOptions`; `on_active_run` says
                what to do while another run of the thread is active: `raise` (default),
                `wait` (sharing `timeout`; None: 600 s) or `cancel`.

        Raises:
            ActiveRunError: Another run of the thread is active; `.blocking_run_id` names it.
            BadRequestError: An argument is refused; `.param` names it.
            APIError: The call failed; `.maybe_created` says whether the run may exist.

        Cancellation: closes the request; the run may have been started (see `recover`).
        """
        taken: dict[str, Any] = dict(arguments)
        attempts = Attempts(self._pipeline, thread_id, assistant_id, taken)
        return await attempts.make(self._waiter)

    async def retrieve(self, run_id: str, *, thread_id: str, **options: Unpack[CallOptions]) -> Run:
        """Return the run as it is now.

        Endpoint: GET /threads/{thread_id}/runs/{run_id}

        Args:
            run_id: The run's id.
            thread_id: The thread's id.
            **options: See `CallOptions`.

        Raises:
            NotFoundError: No such run.
            APIError: The call failed.

        Cancellation: closes the request.
        """
        ids = {"thread_id": thread_id, "run_id": run_id}
        spec = self._pipeline.request(GET_RUN, ids, options)
        return reveal(await self._pipeline.send(spec, options))

    async def update(
        self,
        run_id: str,
        *,
        thread_id: str,
        metadata: Mapping[str, str] | None,
        **options: Unpack[CallOptions],
    ) -> Run:
        """Replace the run's metadata and return the run.

        Endpoint: POST /threads/{thread_id}/runs/{run_id}

        Args:
            run_id: The run's id.
            thread_id: The thread's id.
            metadata: At most 16 pairs, keys of 64 and values of 512 characters; None clears.
            **options: See `CallOptions`.

        Raises:
            NotFoundError: No such run.
            APIError: The call failed.

        Cancellation: closes the request; the change may have been made.
        """
        ids = {"thread_id": thread_id, "run_id": run_id}
        spec = self._pipeline.request(UPDATE_RUN, ids, options, body={"metadata": metadata})
        return reveal(await self._pipeline.send(spec, options))

    def list(self, thread_id: str, **arguments: Unpack[ListCall]) -> AsyncPaginator[Run]:
        """Return the thread's runs: `await` for a page, `async for` for all.

        Endpoint: GET /threads/{thread_id}/runs

        Args:
            thread_id: The thread's id.
            **arguments: See `ListCall` and `CallOptions`.

        Raises:
            ValueError: An argument is out of bounds; nothing was sent.
        """
        ids = {"thread_id": thread_id}
        return paginate(self._pipeline, LIST_RUNS, ids, "runs.list", arguments, reveal=reveal)

    async def cancel(self, run_id: str, *, thread_id: str, **options: Unpack[CallOptions]) -> Run:
        """Ask the server to cancel the run and return it, usually `cancelling`.

        Endpoint: POST /threads/{thread_id}/runs/{run_id}/cancel

        Args:
            run_id: The run's id.
            thread_id: The thread's id.
            **options: See `CallOptions`.

        Raises:
            BadRequestError: The run is finished already; the text names its status.
            NotFoundError: No such run.
            APIError: The call failed.

        Cancellation: closes the request; the run may be cancelled all the same.
        """
        ids = {"thread_id": thread_id, "run_id": run_id}

        async def settle(failure: APIError) -> Run | None:
            run = await self.retrieve(run_id, thread_id=thread_id)
            stopping = run.status in {RunStatus.CANCELLING, RunStatus.CANCELLED}
            return run if stopping else None

        spec = self._pipeline.request(CANCEL_RUN, ids, options)
        return reveal(await self._pipeline.send(spec, options, settle=settle))

    async def cancel_and_wait(
        self, run_id: str, *, thread_id: str, **arguments: Unpack[WaitCall]
    ) -> Run:
        """Cancel the run and return it once it is finished, however it ended.

        Endpoint: POST .../cancel, then GET /threads/{thread_id}/runs/{run_id} (repeated)

        Args:
            run_id: The run's id.
            thread_id: The thread's id.
            **arguments: See `CallOptions` and `WaitOptions`; `timeout` covers both parts.

        Returns:
            The finished run: `cancelled`, or what it became before the cancel arrived.

        Raises:
            RunWaitTimeout: It was still not finished when the time was up.
            APIError: The cancel was refused for another reason, or the server is gone.

        Cancellation: leaves the run as it is.
        """
        timed = Timed(self._pipeline, dict(arguments))
        try:
            await self.cancel(run_id, thread_id=thread_id, **timed.options)
        except BadRequestError:
            run = await self.retrieve(run_id, thread_id=thread_id, **timed.left())
            if run.is_active and run.status != RunStatus.CANCELLING:
                raise
        return await timed.wait(self._waiter, run_id, thread_id, until=is_over)

    async def submit_tool_outputs(
        self,
        run_id: str,
        *,
        thread_id: str,
        tool_outputs: ToolOutputs,
        **options: Unpack[CallOptions],
    ) -> Run:
        """Answer all waiting tool calls in one request and return the run, queued again.

        Endpoint: POST /threads/{thread_id}/runs/{run_id}/submit_tool_outputs

        Where the reply is lost, the run is looked at before anything is sent again.

        Args:
            run_id: The run's id.
            thread_id: The thread's id.
            tool_outputs: One `{"tool_call_id", "output"}` for each waiting call; an output
                that is no text is sent as JSON text.
            **options: See `CallOptions`.

        Raises:
            BadRequestError: A call is missing or unknown, or the run does not wait.
            APIError: The call failed.

        Cancellation: closes the request; the outputs may have arrived.
        """
        outputs = tool_outputs_of(tool_outputs)
        submitted = {item.get("tool_call_id") for item in outputs}
        ids = {"thread_id": thread_id, "run_id": run_id}

        async def settle(failure: APIError) -> Run | None:
            run = await self.retrieve(run_id, thread_id=thread_id)
            waiting = {call.id for call in run.tool_calls} if run.needs_action else set()
            return None if waiting & submitted else run

        body = {"tool_outputs": outputs}
        spec = self._pipeline.request(SUBMIT_TOOL_OUTPUTS, ids, options, body=body)
        return reveal(await self._pipeline.send(spec, options, settle=settle))

    async def create_and_poll(
        self, thread_id: str, *, assistant_id: str, **arguments: Unpack[CreateRunAndPollCall]
    ) -> Run:
        """Start a run and return it once it is settled; `create`, then `wait`.

        Endpoint: POST /threads/{thread_id}/runs, then GET .../runs/{run_id} (repeated)

        Args:
            thread_id: The thread's id.
            assistant_id: The assistant's id.
            **arguments: See `create` and `WaitOptions`; `timeout` covers all of it.

        Returns:
            The run: finished, or `requires_action`.

        Raises:
            RunWaitTimeout: The time was up; `.run` is the last state seen.
            APIError: The create was refused, or the server is gone.

        Cancellation: leaves the run alone, or cancels it with `on_cancel="cancel"`, also
        when the create itself is cancelled.
        """
        taken: dict[str, Any] = dict(arguments)
        timed = Timed(self._pipeline, taken)
        taken.update(timed.options)
        attempts = Attempts(self._pipeline, thread_id, assistant_id, taken)
        run = await timed.started(attempts, self._waiter)
        return await timed.wait(self._waiter, run, run.thread_id)

    async def poll(self, run_id: str, thread_id: str, **arguments: Unpack[WaitCall]) -> Run:
        """Return the run once it is settled; `wait`, under the official SDK's name.

        Endpoint: GET /threads/{thread_id}/runs/{run_id}   (repeated)

        Args:
            run_id: The run's id.
            thread_id: The thread's id.
            **arguments: See `CallOptions` and `WaitOptions`.

        Raises:
            RunWaitTimeout: The time was up; `.run` is the last state seen.
            APIError: The server is gone, or refuses.

        Cancellation: leaves the run alone unless `on_cancel="cancel"`.
        """
        timed = Timed(self._pipeline, dict(arguments))
        return await timed.wait(self._waiter, run_id, thread_id)

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
            **arguments: See `CallOptions` and `WaitOptions`; `timeout` covers all of it.

        Raises:
            RunWaitTimeout: The time was up; `.run` is the last state seen.
            APIError: The outputs were refused, or the server is gone.

        Cancellation: leaves the run alone unless `on_cancel="cancel"`.
        """
        timed = Timed(self._pipeline, dict(arguments))
        try:
            run = await self.submit_tool_outputs(
                run_id, thread_id=thread_id, tool_outputs=tool_outputs, **timed.options
            )
        except anyio.get_cancelled_exc_class():
            if timed.plan.on_cancel == "cancel":
                await self._waiter.cancel_quietly(run_id, thread_id)
            raise
        return await timed.wait(self._waiter, run, thread_id)

    async def wait(
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
    ) -> Run:
        """Return the run once it leaves the server's hands; the same as `await_run`.

        Endpoint: GET /threads/{thread_id}/runs/{run_id}   (repeated)

        Args:
            run: The run, or its id. A finished `Run` is returned without a request; any
                other is looked at first.
            thread_id: The thread's id; needed with a run id.
            timeout: Seconds for the whole wait, counted from the call. None: what the run
                has left by the server's clock plus 10 s, or 610 s where the server names
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
        options: WaitOptions = {
            "poll": poll,
            "interval": interval,
            "on_status": on_status,
            "on_timeout": on_timeout,
            "on_cancel": on_cancel,
        }
        policy = self._pipeline.settings.poll
        plan = plan_of(policy, options, timeout=timeout, request_timeout=request_timeout)
        return await self._waiter.wait(run, thread_id=thread_id, plan=plan)

    async def result(self, run: Run, **options: Unpack[CallOptions]) -> RunResult:
        """Return the run with the messages it wrote and the steps it took.

        Endpoint: GET /threads/{thread_id}/messages and GET .../runs/{run_id}/steps

        Args:
            run: A run, as `wait` returned it.
            **options: See `CallOptions`; each page is one call.

        Raises:
            APIError: A list could not be fetched.

        Cancellation: closes the request.
        """
        list_options: ListCall = {"order": "asc", "limit": 100}
        list_options.update(options)  # type: ignore[typeddict-item]  # ListCall has these keys
        listed: AsyncPaginator[Message] = paginate(
            self._pipeline,
            LIST_MESSAGES,
            {"thread_id": run.thread_id},
            "runs.result",
            list_options,
            extra={"run_id": run.id},
        )
        # Filtered here as well: not every server knows the run_id filter.
        messages = [
            message
            async for message in listed
            if message.role == "assistant" and message.run_id == run.id
        ]
        steps: list[RunStep]
        try:
            listed_steps = self.steps.list(run.id, thread_id=run.thread_id, **list_options)
            steps = [step async for step in listed_steps]
        except NotFoundError:
            # The thread is there, as its messages were: a server without steps (astra).
            steps = []
        return RunResult(run=run, messages=messages, steps=steps)

    async def recover(
        self,
        thread_id: str,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> Run | None:
        """Return the run of a create whose answer was lost, or None if there is none.

        Endpoint: GET /threads/{thread_id}/runs

        Args:
            thread_id: The thread's id.
            idempotency_key: The key of the lost create, as its exception carries it
                (`.idempotency_key`); None: the thread's active run, whoever started it.
            timeout: Seconds for the whole call.

        Raises:
            APIError: The list could not be fetched.
            APITimeoutError: The time was up.

        Cancellation: closes the request.
        """
        if idempotency_key is not None:
            run = await look_for(self._pipeline, thread_id, idempotency_key, timeout=timeout)
            return None if run is None else reveal(run)
        page = await self.list(thread_id, limit=20, order="desc", timeout=timeout)
        return next((run for run in page.data if run.status in ACTIVE_STATUSES), None)
