"""Runs, one request at a time: start, read, change, list, cancel, answer, recover."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from openai_runs._client.arguments import (
    CallOptions,
    CreateRunCall,
    ListCall,
    ToolOutputs,
)
from openai_runs._client.core.deadline import within
from openai_runs._client.core.paging import AsyncPaginator, paginate
from openai_runs._client.core.pipeline import Pipeline
from openai_runs._client.encoding import plain, tool_outputs_of
from openai_runs._client.flows.create_run import Attempts, look_for
from openai_runs._client.flows.submit_outputs import SubmitFlow
from openai_runs._client.polling.waiter import Waiter, stopped
from openai_runs._client.resources.steps import Steps
from openai_runs._protocol.create_marker import strip_marker, strip_markers
from openai_runs._protocol.endpoints import (
    CANCEL_RUN,
    GET_RUN,
    LIST_RUNS,
    UPDATE_RUN,
)
from openai_runs.types.runs import Run

__all__ = ["RunCalls"]


class RunCalls:
    """The calls of `client.runs` that are one request each."""

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
        return strip_marker(await self._pipeline.send(spec, options))

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
        spec = self._pipeline.request(UPDATE_RUN, ids, options, body={"metadata": plain(metadata)})
        return strip_marker(await self._pipeline.send(spec, options))

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
        return paginate(
            self._pipeline, LIST_RUNS, ids, "runs.list", arguments, strip_marker=strip_markers
        )

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
        spec = self._pipeline.request(CANCEL_RUN, ids, options)
        settle = stopped(self._pipeline, ids, options)
        return strip_marker(await self._pipeline.send(spec, options, settle=settle))

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
        ids = {"thread_id": thread_id, "run_id": run_id}
        outputs = tool_outputs_of(tool_outputs)
        return await SubmitFlow(self._pipeline, ids, outputs, options).make()

    async def recover(
        self,
        thread_id: str,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> Run | None:
        """Return the run of a create whose answer was lost, or None if there is none.

        Endpoint: GET /threads/{thread_id}/runs

        A create is marked with its key only where the server was not known to remember
        keys. Where it is known to, None says nothing: repeat the create with the same
        `idempotency_key` instead, and the answer is the run of the first.

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

        async def look() -> Run | None:
            if idempotency_key is not None:
                run = await look_for(self._pipeline, thread_id, idempotency_key, {})
                return None if run is None else strip_marker(run)
            page = await self.list(thread_id, limit=20, order="desc")
            return next((run for run in page if getattr(run, "is_active", False)), None)

        return await within(timeout, "recovering a run", look, thread_id=thread_id)
