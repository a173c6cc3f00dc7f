"""Runs: all of `client.runs`, and in this room the calls that a stream answers."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Literal, TypedDict, Unpack, overload

from openai_runs._client.arguments import (
    CallOptions,
    CreateRunAndPollCall,
    CreateRunCall,
    ToolOutputs,
    WaitCall,
    refuse,
    tool_options_of,
)
from openai_runs._client.core.deadline import Deadline
from openai_runs._client.core.pipeline import Pipeline
from openai_runs._client.encoding import tool_outputs_of
from openai_runs._client.flows.create_run import Attempts
from openai_runs._client.flows.results import RunResult
from openai_runs._client.flows.tool_loop import ToolLoop
from openai_runs._client.polling.waiter import Waiter
from openai_runs._client.resources.mapping_runs import MappingRuns
from openai_runs._client.resources.tool_runs import type_in
from openai_runs._client.resources.waiting_runs import WaitingRuns
from openai_runs._client.streams.requests import (
    CreateRequest,
    FollowRequest,
    StreamRequest,
    SubmitRequest,
)
from openai_runs._client.streams.run_stream import RunStream
from openai_runs._client.streams.session import StreamSession
from openai_runs._client.tools.executor import ToolOptions
from openai_runs._protocol.spec import check_id
from openai_runs.config import STREAM_IDLE, check_timeout
from openai_runs.types.runs import Run

__all__ = ["Runs", "StreamCall", "StreamOptions", "StreamParams", "StreamWaitCall"]


class StreamOptions(TypedDict, total=False):
    """How a stream is read."""

    idle_timeout: float | None
    """Seconds without an event before the run is looked at; None: 30."""


class StreamCall(CreateRunAndPollCall, StreamOptions, ToolOptions, total=False):
    """Everything `runs.stream` takes by keyword."""


class StreamWaitCall(WaitCall, StreamOptions, total=False):
    """Everything a stream of a run that is there takes by keyword."""


class StreamParams:
    """What a stream's arguments say of how it is read, taken out of them."""

    def __init__(self, pipeline: Pipeline, waiter: Waiter, taken: dict[str, Any]) -> None:
        """Take `idle_timeout` and the tool options out of `taken`; functions become tools."""
        self.pipeline = pipeline
        self.waiter = waiter
        idle = check_timeout("idle_timeout", taken.pop("idle_timeout", None))
        self.idle = idle or STREAM_IDLE
        """Seconds without an event before the run is looked at."""
        self.response_format = type_in(taken.get("response_format"))
        options = tool_options_of(taken)
        tools = taken.get("tools")
        loop = None if tools is None else ToolLoop(tools, options)
        if loop is not None:
            taken["tools"] = loop.tools
        self.tools = loop if loop is not None and loop.is_local else None
        """What answers tool calls, where functions were given."""


class Runs(MappingRuns):
    """`client.runs`: everything about runs, and `client.runs.steps` below it."""

    def stream(
        self, thread_id: str, *, assistant_id: str, **arguments: Unpack[StreamCall]
    ) -> RunStream:
        """Return the events of a new run, from its first to its last, tool calls answered.

        Endpoint: POST /threads/{thread_id}/runs with `stream`

        Nothing is sent before the block is entered (or the first event is asked for):

        ```python
        async with client.runs.stream(thread.id, assistant_id=assistant.id) as stream:
            async for text in stream.text_deltas():
                print(text, end="")
        result = await stream.result()
        ```

        Args:
            thread_id: The thread's id.
            assistant_id: The assistant's id.
            **arguments: See `create`, `WaitArguments` and `ToolOptions`. Functions among
                `tools` are called when the run asks for them, as in `run_tools`, and the
                stream goes on; without any it ends where the run waits for outputs.
                `timeout` covers all of it (None: what the run has left), `request_timeout`
                the time until the server accepts a request, and `idle_timeout` the seconds
                without an event (default 30) after which the run is looked at.

        Raises:
            ActiveRunError: On entering: another run of the thread is active.
            APIError: On entering: the create failed; `.maybe_created` says whether the run
                may exist. Later errors: see `RunStream`.

        Cancellation: see `RunStream`.
        """
        taken: dict[str, Any] = dict(arguments)
        reading = StreamParams(self._pipeline, self._waiter, taken)
        deadline = Deadline(self._pipeline, taken)
        taken.update(deadline.call_options)
        attempts = Attempts(self._pipeline, thread_id, assistant_id, taken, stream=True)
        return stream_of(self, CreateRequest(attempts, self._waiter), deadline, reading)

    @overload
    def create(
        self,
        thread_id: str,
        *,
        assistant_id: str,
        stream: Literal[False] | None = None,
        **arguments: Unpack[CreateRunCall],
    ) -> Coroutine[Any, Any, Run]: ...
    @overload
    def create(
        self,
        thread_id: str,
        *,
        assistant_id: str,
        stream: Literal[True],
        **arguments: Unpack[StreamCall],
    ) -> Coroutine[Any, Any, RunStream]: ...
    def create(
        self, thread_id: str, *, assistant_id: str, stream: bool | None = None, **arguments: Any
    ) -> Coroutine[Any, Any, Run] | Coroutine[Any, Any, RunStream]:
        """Start the assistant on the thread and return the run, queued; or its open stream.

        Endpoint: POST /threads/{thread_id}/runs

        The run is started once: where the answer is lost, it is looked for on the thread
        and adopted before anything is sent again.

        Args:
            thread_id: The thread's id.
            assistant_id: The assistant's id.
            stream: Whether to return the run's events, as `stream` does, already begun.
            **arguments: See `CreateRunArguments` and `CallOptions`; `on_active_run` says
                what to do while another run of the thread is active: `raise` (default),
                `wait` (sharing `timeout`; None: 600 s) or `cancel`. With `stream` also
                what `stream` takes.

        Raises:
            ActiveRunError: Another run of the thread is active; `.blocking_run_id` names it.
            BadRequestError: An argument is refused; `.param` names it.
            APIError: The call failed; `.maybe_created` says whether the run may exist.

        Cancellation: closes the request; the run may have been started (see `recover`).
        """
        if stream:
            events = self.stream(thread_id, assistant_id=assistant_id, **arguments)
            return events.__aenter__()
        return super().create(thread_id, assistant_id=assistant_id, **arguments)

    @overload
    def submit_tool_outputs(
        self,
        run_id: str,
        *,
        thread_id: str,
        tool_outputs: ToolOutputs,
        stream: Literal[False] | None = None,
        **options: Unpack[CallOptions],
    ) -> Coroutine[Any, Any, Run]: ...
    @overload
    def submit_tool_outputs(
        self,
        run_id: str,
        *,
        thread_id: str,
        tool_outputs: ToolOutputs,
        stream: Literal[True],
        **options: Unpack[StreamWaitCall],
    ) -> Coroutine[Any, Any, RunStream]: ...
    def submit_tool_outputs(
        self,
        run_id: str,
        *,
        thread_id: str,
        tool_outputs: ToolOutputs,
        stream: bool | None = None,
        **options: Any,
    ) -> Coroutine[Any, Any, Run] | Coroutine[Any, Any, RunStream]:
        """Answer all waiting tool calls in one request; return the run, or its open stream.

        Endpoint: POST /threads/{thread_id}/runs/{run_id}/submit_tool_outputs

        Where the reply is lost, the run is looked at before anything is sent again.

        Args:
            run_id: The run's id.
            thread_id: The thread's id.
            tool_outputs: One `{"tool_call_id", "output"}` for each waiting call; an output
                that is no text is sent as JSON text.
            stream: Whether to return what follows as events, already begun.
            **options: See `CallOptions`.

        Raises:
            BadRequestError: A call is missing or unknown, or the run does not wait.
            APIError: The call failed.

        Cancellation: closes the request; the outputs may have arrived.
        """
        answer: dict[str, Any] = {"thread_id": thread_id, "tool_outputs": tool_outputs}
        if stream:
            return self.submit_tool_outputs_stream(run_id, **answer, **options).__aenter__()
        return super().submit_tool_outputs(run_id, **answer, **options)

    def submit_tool_outputs_stream(
        self,
        run_id: str,
        *,
        thread_id: str,
        tool_outputs: ToolOutputs,
        **arguments: Unpack[StreamWaitCall],
    ) -> RunStream:
        """Return the events that follow on the outputs of the waiting tool calls.

        Endpoint: POST .../submit_tool_outputs with `stream`

        Args:
            run_id: The run's id.
            thread_id: The thread's id.
            tool_outputs: See `submit_tool_outputs`.
            **arguments: See `CallOptions` and `WaitArguments`; `timeout` covers all of it.

        Raises:
            BadRequestError: On entering: a call is missing or unknown, or the run does not wait.
            APIError: On entering: the call failed. Later errors: see `RunStream`.

        Cancellation: see `RunStream`.
        """
        taken: dict[str, Any] = dict(arguments)
        reading = StreamParams(self._pipeline, self._waiter, taken)
        deadline = Deadline(self._pipeline, taken)
        refuse("runs.submit_tool_outputs_stream", taken)
        ids = {"thread_id": check_id("thread_id", thread_id), "run_id": check_id("run_id", run_id)}
        outputs = tool_outputs_of(tool_outputs)
        leg = SubmitRequest(self._pipeline, self._waiter, ids, outputs, deadline.call_options)
        return stream_of(self, leg, deadline, reading)

    def follow(
        self,
        run_id: str,
        *,
        thread_id: str,
        last_event_id: str | None = None,
        **arguments: Unpack[StreamWaitCall],
    ) -> RunStream:
        """Return the events of a run that is already there, also one of another process.

        Endpoint: GET /threads/{thread_id}/runs/{run_id}/stream where the server offers it,
        else GET /threads/{thread_id}/runs/{run_id} (repeated)

        On a server that cannot take up a stream the run is waited for, and its messages
        and steps come as events then.

        Args:
            run_id: The run's id.
            thread_id: The thread's id.
            last_event_id: The `id` of the last event that was seen; None: from the first.
                Where the server does not have that place, all is told from the first on.
            **arguments: See `CallOptions` and `WaitArguments`; `timeout` covers all of it.

        Raises:
            NotFoundError: On entering: no such run.
            APIError: On entering: the call failed. Later errors: see `RunStream`.

        Cancellation: see `RunStream`.
        """
        taken: dict[str, Any] = dict(arguments)
        reading = StreamParams(self._pipeline, self._waiter, taken)
        deadline = Deadline(self._pipeline, taken)
        refuse("runs.follow", taken)
        ids = {"thread_id": check_id("thread_id", thread_id), "run_id": check_id("run_id", run_id)}
        leg = FollowRequest(
            self._pipeline, self._waiter, ids, last_event_id, deadline.wait_options.options
        )
        return stream_of(self, leg, deadline, reading)


def stream_of(
    runs: WaitingRuns, leg: StreamRequest, deadline: Deadline, reading: StreamParams
) -> RunStream:
    """Return the stream that begins with `leg`, its result gathered as `runs.result` does."""

    async def gather(run: Run, options: CallOptions) -> RunResult:
        return await runs.result(run, response_format=reading.response_format, **options)

    driver = StreamSession(
        reading.pipeline,
        reading.waiter,
        deadline,
        leg,
        gather=gather,
        idle=reading.idle,
        tools=reading.tools,
        response_format=reading.response_format,
    )
    return RunStream(driver)
