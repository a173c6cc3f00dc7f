"""Threads, and the call that makes one and starts a run on it."""

from __future__ import annotations

from typing import Any, TypeVar, Unpack, overload

from openai_runs._client.arguments import (
    Arguments,
    CallOptions,
    CreateThreadAndRunAndPollCall,
    CreateThreadAndRunCall,
    CreateThreadAndRunStreamCall,
    CreateThreadAndRunStreamTypedCall,
    CreateThreadCall,
    UpdateThreadCall,
    parse,
)
from openai_runs._client.core.deadline import Deadline
from openai_runs._client.core.pipeline import Pipeline
from openai_runs._client.flows.create_run import CreateRunFlow
from openai_runs._client.polling.waiter import Waiter
from openai_runs._client.resources.messages import Messages
from openai_runs._client.resources.runs import Runs
from openai_runs._client.streams.run_stream import RunStream, stream_of
from openai_runs._client.usage import Resource, named
from openai_runs._protocol.endpoints import (
    CREATE_THREAD,
    CREATE_THREAD_AND_RUN,
    DELETE_THREAD,
    GET_THREAD,
    UPDATE_THREAD,
)
from openai_runs.types.base import Deleted
from openai_runs.types.runs import Run
from openai_runs.types.threads import Thread

__all__ = ["Threads"]

T = TypeVar("T")


@named("client.threads")
class Threads(Resource):
    """`client.threads`."""

    def __init__(
        self, pipeline: Pipeline, waiter: Waiter, *, runs: Runs, messages: Messages
    ) -> None:
        """Send through `pipeline`; `runs` and `messages` as in the official SDK."""
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
            BadRequestError: An argument is rejected; `.param` names it.
            APIError: The call failed; `.maybe_created` says whether it may exist.

        Cancellation: closes the request; the thread may have been created.
        """
        given = parse("threads.create", CreateThreadCall, arguments)
        spec = self._pipeline.build_request(CREATE_THREAD, {}, given.call, body=given.body)
        return await self._pipeline.send(spec, given.call)

    async def retrieve(self, thread_id: str, **options: Unpack[CallOptions]) -> Thread:
        """Return one thread.

        Endpoint: GET /threads/{thread_id}

        Raises:
            NotFoundError: No such thread.
            APIError: The call failed.
        """
        spec = self._pipeline.build_request(GET_THREAD, {"thread_id": thread_id}, options)
        return await self._pipeline.send(spec, options)

    async def update(self, thread_id: str, **arguments: Unpack[UpdateThreadCall]) -> Thread:
        """Change the thread and return it; what is not given stays as it is.

        Endpoint: POST /threads/{thread_id}

        Args:
            **arguments: `metadata`, `tool_resources`, and `CallOptions`.

        Raises:
            NotFoundError: No such thread.
            APIError: The call failed.

        Cancellation: closes the request; the change may have been made.
        """
        given = parse("threads.update", UpdateThreadCall, arguments)
        ids = {"thread_id": thread_id}
        spec = self._pipeline.build_request(UPDATE_THREAD, ids, given.call, body=given.body)
        return await self._pipeline.send(spec, given.call)

    async def delete(self, thread_id: str, **options: Unpack[CallOptions]) -> Deleted:
        """Delete the thread with its messages and runs; an active run is cancelled.

        Endpoint: DELETE /threads/{thread_id}

        Raises:
            NotFoundError: No such thread.
            APIError: The call failed.

        Cancellation: closes the request; the thread may be gone.
        """
        spec = self._pipeline.build_request(DELETE_THREAD, {"thread_id": thread_id}, options)
        return await self._pipeline.send(spec, options)

    async def create_and_run(
        self, *, assistant_id: str, **arguments: Unpack[CreateThreadAndRunCall]
    ) -> Run:
        """Make a thread, start the assistant on it and return the run, queued.

        Endpoint: POST /threads/runs

        One request: it is sent again only if it never reached the server, on 429, or where
        the server remembers idempotency keys.

        Args:
            **arguments: See `CreateThreadAndRunArguments` and `CallOptions`.

        Raises:
            BadRequestError: An argument is rejected; `.param` names it.
            APIError: The call failed; `.maybe_created` says whether the run may exist.

        Cancellation: closes the request; thread and run may have been created.
        """
        name = "threads.create_and_run"
        given = parse(name, CreateThreadAndRunCall, arguments, assistant_id=assistant_id)
        return await self._create_and_run(given).make()

    async def create_and_run_poll(
        self, *, assistant_id: str, **arguments: Unpack[CreateThreadAndRunAndPollCall]
    ) -> Run:
        """Make a thread, start a run, and return it as `runs.wait` does.

        Endpoint: POST /threads/runs, then GET .../runs/{run_id} (repeated)

        Args:
            **arguments: See `create_and_run` and `WaitArguments`; `timeout` covers all of it.

        Raises:
            RunWaitTimeout: The time was up; `.run` is the last state seen.
            APIError: The create was rejected, or the server is unreachable.

        Cancellation: leaves the run alone unless `on_cancel="cancel"`. Cancelled during
        the create itself, the run can be found only on a server that remembers
        idempotency keys.
        """
        given = parse(
            "threads.create_and_run_poll",
            CreateThreadAndRunAndPollCall,
            arguments,
            self._pipeline.settings.poll,
            assistant_id=assistant_id,
        )
        flow = self._create_and_run(given)
        deadline = Deadline(self._pipeline.settings.runtime, given.call, given.wait)
        with self._pipeline.invocation(given.body) as span:
            run = await flow.make_within(deadline)
            span.set_run(run)
            run = await self._waiter.wait_within(deadline, run, run.thread_id)
            span.set_run(run)
        return run

    @overload
    def create_and_run_stream(
        self,
        *,
        assistant_id: str,
        response_format: type[T],
        **arguments: Unpack[CreateThreadAndRunStreamTypedCall],
    ) -> RunStream[T]: ...
    @overload
    def create_and_run_stream(
        self, *, assistant_id: str, **arguments: Unpack[CreateThreadAndRunStreamCall]
    ) -> RunStream: ...
    def create_and_run_stream(
        self, *, assistant_id: str, **arguments: Unpack[CreateThreadAndRunStreamCall]
    ) -> RunStream[Any]:
        """Make a thread, start a run on it and return the events of both.

        Endpoint: POST /threads/runs with `stream`

        Args:
            **arguments: See `create_and_run`, and `runs.stream`.

        Raises:
            BadRequestError: On entering: an argument is rejected; `.param` names it.
            APIError: On entering: the call failed; `.maybe_created` says whether the run
                may exist. Later errors: see `RunStream`.

        Cancellation: see `RunStream`.
        """
        given = parse(
            "threads.create_and_run_stream",
            CreateThreadAndRunStreamCall,
            arguments,
            self._pipeline.settings.poll,
            assistant_id=assistant_id,
        )
        flow = self._create_and_run(given, stream=True)
        return stream_of(self._pipeline, self._waiter, flow, given)

    def _create_and_run(self, given: Arguments, *, stream: bool = False) -> CreateRunFlow:
        endpoint = CREATE_THREAD_AND_RUN
        return CreateRunFlow(self._pipeline, self._waiter, endpoint, given, stream=stream)
