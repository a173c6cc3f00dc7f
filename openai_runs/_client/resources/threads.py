"""Threads, and the call that makes one and starts a run on it."""

from __future__ import annotations

from functools import partial
from typing import Any, Unpack

from openai_runs._client.arguments import (
    CallOptions,
    CreateThreadAndRunAndPollCall,
    CreateThreadAndRunCall,
    CreateThreadArguments,
    CreateThreadCall,
    UpdateThreadArguments,
    UpdateThreadCall,
    body_of,
    options_of,
)
from openai_runs._client.core.deadline import Deadline
from openai_runs._client.core.pipeline import Pipeline
from openai_runs._client.flows.create_run import thread_and_run
from openai_runs._client.polling.waiter import Waiter
from openai_runs._client.resources.messages import Messages
from openai_runs._client.resources.runs import Runs, StreamOptions, StreamParams, stream_of
from openai_runs._client.streams.requests import CreateRequest
from openai_runs._client.streams.run_stream import RunStream
from openai_runs._client.tools.executor import ToolOptions
from openai_runs._protocol.endpoints import (
    CREATE_THREAD,
    DELETE_THREAD,
    GET_THREAD,
    UPDATE_THREAD,
)
from openai_runs.types.base import Deleted
from openai_runs.types.runs import Run
from openai_runs.types.threads import Thread

__all__ = ["Threads"]


class CreateThreadAndRunStreamCall(
    CreateThreadAndRunAndPollCall, StreamOptions, ToolOptions, total=False
):
    """Everything `threads.create_and_run_stream` takes by keyword."""


class Threads:
    """`client.threads`."""

    def __init__(
        self, pipeline: Pipeline, waiter: Waiter, *, runs: Runs, messages: Messages
    ) -> None:
        """Send through `pipeline`; runs and messages hang below as in the official SDK."""
        self._pipeline = pipeline
        self._waiter = waiter
        self.runs = runs
        """The same as `client.runs`."""
        self.messages = messages
        """The same as `client.messages`."""

    async def create(self, **arguments: Unpack[CreateThreadCall]) -> Thread:
        """Make a thread and return it.

        Endpoint: POST /threads

        Args:
            **arguments: See `CreateThreadArguments` and `CallOptions`.

        Raises:
            BadRequestError: An argument is refused; `.param` names it.
            APIError: The call failed; `.maybe_created` says whether it may exist.

        Cancellation: closes the request; the thread may have been created.
        """
        taken: dict[str, Any] = dict(arguments)
        options = options_of(taken)
        body = body_of("threads.create", CreateThreadArguments, taken)
        spec = self._pipeline.request(CREATE_THREAD, {}, options, body=body)
        return await self._pipeline.send(spec, options)

    async def retrieve(self, thread_id: str, **options: Unpack[CallOptions]) -> Thread:
        """Return one thread.

        Endpoint: GET /threads/{thread_id}

        Args:
            thread_id: The thread's id.
            **options: See `CallOptions`.

        Raises:
            NotFoundError: No such thread.
            APIError: The call failed.

        Cancellation: closes the request.
        """
        spec = self._pipeline.request(GET_THREAD, {"thread_id": thread_id}, options)
        return await self._pipeline.send(spec, options)

    async def update(self, thread_id: str, **arguments: Unpack[UpdateThreadCall]) -> Thread:
        """Change the thread and return it; what is not given stays as it is.

        Endpoint: POST /threads/{thread_id}

        Args:
            thread_id: The thread's id.
            **arguments: `metadata`, `tool_resources`, and `CallOptions`.

        Raises:
            NotFoundError: No such thread.
            APIError: The call failed.

        Cancellation: closes the request; the change may have been made.
        """
        taken: dict[str, Any] = dict(arguments)
        options = options_of(taken)
        body = body_of("threads.update", UpdateThreadArguments, taken)
        ids = {"thread_id": thread_id}
        spec = self._pipeline.request(UPDATE_THREAD, ids, options, body=body)
        return await self._pipeline.send(spec, options)

    async def delete(self, thread_id: str, **options: Unpack[CallOptions]) -> Deleted:
        """Delete the thread with its messages and runs; an active run is cancelled.

        Endpoint: DELETE /threads/{thread_id}

        Args:
            thread_id: The thread's id.
            **options: See `CallOptions`.

        Raises:
            NotFoundError: No such thread.
            APIError: The call failed.

        Cancellation: closes the request; the thread may be gone.
        """
        spec = self._pipeline.request(DELETE_THREAD, {"thread_id": thread_id}, options)
        return await self._pipeline.send(spec, options)

    async def create_and_run(
        self, *, assistant_id: str, **arguments: Unpack[CreateThreadAndRunCall]
    ) -> Run:
        """Make a thread, start the assistant on it and return the run, queued.

        Endpoint: POST /threads/runs

        One request: it is sent again only if it never reached the server, on 429, or where
        the server remembers idempotency keys.

        Args:
            assistant_id: The assistant's id.
            **arguments: See `CreateThreadAndRunArguments` and `CallOptions`.

        Raises:
            BadRequestError: An argument is refused; `.param` names it.
            APIError: The call failed; `.maybe_created` says whether the run may exist.

        Cancellation: closes the request; thread and run may have been created.
        """
        return await thread_and_run(self._pipeline, dict(arguments), assistant_id).make()

    async def create_and_run_poll(
        self, *, assistant_id: str, **arguments: Unpack[CreateThreadAndRunAndPollCall]
    ) -> Run:
        """Make a thread, start a run and return it once it is settled.

        Endpoint: POST /threads/runs, then GET .../runs/{run_id} (repeated)

        Args:
            assistant_id: The assistant's id.
            **arguments: See `create_and_run` and `WaitArguments`; `timeout` covers all of it.

        Raises:
            RunWaitTimeout: The time was up; `.run` is the last state seen.
            APIError: The create was refused, or the server is gone.

        Cancellation: leaves the run alone unless `on_cancel="cancel"`. Cancelled during
        the create itself, the run can be found only on a server that remembers
        idempotency keys.
        """
        taken: dict[str, Any] = dict(arguments)
        deadline = Deadline(self._pipeline, taken)
        taken.update(deadline.call_options)
        creation = thread_and_run(self._pipeline, taken, assistant_id)
        run = await deadline.start(creation.make(), partial(creation.undo, self._waiter))
        return await self._waiter.wait_within(deadline, run, run.thread_id)

    def create_and_run_stream(
        self, *, assistant_id: str, **arguments: Unpack[CreateThreadAndRunStreamCall]
    ) -> RunStream:
        """Make a thread, start a run on it and return the events of both.

        Endpoint: POST /threads/runs with `stream`

        Args:
            assistant_id: The assistant's id.
            **arguments: See `create_and_run`, and `runs.stream`.

        Raises:
            BadRequestError: On entering: an argument is refused; `.param` names it.
            APIError: On entering: the call failed; `.maybe_created` says whether the run
                may exist. Later errors: see `RunStream`.

        Cancellation: see `RunStream`.
        """
        taken: dict[str, Any] = dict(arguments)
        reading = StreamParams(self._pipeline, self._waiter, taken)
        deadline = Deadline(self._pipeline, taken)
        taken.update(deadline.call_options)
        creation = thread_and_run(self._pipeline, taken, assistant_id, stream=True)
        return stream_of(self.runs, CreateRequest(creation, self._waiter), deadline, reading)
