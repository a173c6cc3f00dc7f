"""Runs: `client.runs`, one class whose methods are a few lines each.

Calls of several requests are in `flows`, waits in `polling`, streams in `streams`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any, Literal, TypeVar, Unpack, cast, overload

from msgspec import UNSET

from openai_runs._client.arguments import (
    Arguments,
    AskCall,
    AskTypedCall,
    CallOptions,
    CreateRunAndPollCall,
    CreateRunCall,
    ListCall,
    MapCall,
    MessageContent,
    Metadata,
    Reaction,
    ResumeCall,
    RunToolsCall,
    RunToolsTypedCall,
    StatusCallback,
    StreamCall,
    StreamTypedCall,
    StreamWaitCall,
    ToolOutputs,
    Tools,
    WaitCall,
    WaitOptions,
    parse,
    wait_options_of,
)
from openai_runs._client.core.deadline import Deadline, within
from openai_runs._client.core.paging import AsyncPaginator, paginate
from openai_runs._client.core.pipeline import Pipeline
from openai_runs._client.encoding import plain, tool_outputs_of
from openai_runs._client.flows.create_run import CreateRunFlow, recovered_run
from openai_runs._client.flows.results import (
    RunResult,
    gather,
    gather_steps,
    run_to_result,
)
from openai_runs._client.flows.run_map import Items, RunMap, map_runs
from openai_runs._client.flows.run_progress import Progress
from openai_runs._client.flows.submit_outputs import SubmitFlow
from openai_runs._client.flows.tool_loop import ToolLoop, local_tools
from openai_runs._client.polling.as_completed import Awaited, CompletedRuns, wait_for_all
from openai_runs._client.polling.waiter import Waiter
from openai_runs._client.resources.steps import Steps
from openai_runs._client.streams.requests import FollowRequest, SubmitRequest
from openai_runs._client.streams.run_stream import RunStream, stream_of
from openai_runs._client.tools.tool import to_local_tools
from openai_runs._client.usage import Resource, named
from openai_runs._protocol.endpoints import (
    CREATE_RUN,
    CREATE_THREAD_AND_RUN,
    GET_RUN,
    LIST_RUNS,
    UPDATE_RUN,
)
from openai_runs._protocol.lifecycle import is_inactive
from openai_runs._protocol.spec import check_id, forgotten_await
from openai_runs.config import PollPolicy
from openai_runs.errors import BadRequestError, OpenAIRunsError
from openai_runs.types.runs import Run, RunStatus
from openai_runs.types.timeline import Timeline

__all__ = ["Runs"]

K = TypeVar("K")
T = TypeVar("T")


@named("client.runs")
class Runs(Resource):
    """`client.runs`: everything about runs, and `client.runs.steps` below it."""

    def __init__(self, pipeline: Pipeline, waiter: Waiter) -> None:
        self._pipeline = pipeline
        self._waiter = waiter
        self._poll_policy = pipeline.settings.poll
        self.steps = Steps(pipeline)
        """`client.runs.steps`."""

    @overload
    async def create(
        self,
        thread_id: str,
        *,
        assistant_id: str,
        stream: Literal[False] | None = None,
        **arguments: Unpack[CreateRunCall],
    ) -> Run: ...
    @overload
    async def create(
        self,
        thread_id: str,
        *,
        assistant_id: str,
        stream: Literal[True],
        **arguments: Unpack[StreamCall],
    ) -> RunStream: ...
    async def create(
        self,
        thread_id: str,
        *,
        assistant_id: str,
        stream: bool | None = None,
        **arguments: Unpack[StreamCall],
    ) -> Run | RunStream:
        """Start the assistant on the thread and return the run, queued; or its open stream.

        Endpoint: POST /threads/{thread_id}/runs

        The run is started once: where the answer is lost, it is searched on the thread
        and returned before anything is sent again.

        Args:
            stream: Whether to return the run's events, as `stream` does, already begun.
            **arguments: See `CreateRunArguments` and `CallOptions`; `on_active_run` says
                what to do while another run of the thread is active: `raise` (default),
                `wait` (sharing `timeout`; None: 600 s) or `cancel`. With `stream` also
                what `stream` takes.

        Raises:
            ActiveRunError: Another run of the thread is active; `.blocking_run_id` names it.
            BadRequestError: An argument is rejected; `.param` names it.
            APIError: The call failed; `.maybe_created` says whether the run may exist.

        Cancellation: closes the request; the run may have been started (see `recover`).
        """
        if stream:
            events = self._stream("runs.create", thread_id, assistant_id, arguments)
            return await events.__aenter__()
        given = parse("runs.create", CreateRunCall, arguments, assistant_id=assistant_id)
        return await self._create(given, thread_id).make()

    async def create_and_poll(
        self, thread_id: str, *, assistant_id: str, **arguments: Unpack[CreateRunAndPollCall]
    ) -> Run:
        """Start a run and wait for it: `create`, then `wait`.

        Endpoint: POST /threads/{thread_id}/runs, then GET .../runs/{run_id} (repeated)

        Args:
            **arguments: See `create` and `WaitArguments`; `timeout` covers all of it.

        Returns:
            The run: finished, or `requires_action`.

        Raises:
            RunWaitTimeout: The time was up; `.run` is the last state seen.
            APIError: The create was rejected, or the server is unreachable.

        Cancellation: leaves the run alone, or cancels it with `on_cancel="cancel"`, also
        when the create itself is cancelled.
        """
        given = parse(
            "runs.create_and_poll",
            CreateRunAndPollCall,
            arguments,
            self._poll_policy,
            assistant_id=assistant_id,
        )
        flow = self._create(given, thread_id)
        deadline = self._deadline(given)
        with self._pipeline.invocation(given.body, thread_id) as span:
            run = await flow.make_within(deadline)
            span.set_run(run)
            run = await self._waiter.wait_within(deadline, run, run.thread_id)
            span.set_run(run)
        return run

    @overload
    def stream(
        self,
        thread_id: str,
        *,
        assistant_id: str,
        response_format: type[T],
        **arguments: Unpack[StreamTypedCall],
    ) -> RunStream[T]: ...
    @overload
    def stream(
        self, thread_id: str, *, assistant_id: str, **arguments: Unpack[StreamCall]
    ) -> RunStream: ...
    def stream(
        self, thread_id: str, *, assistant_id: str, **arguments: Unpack[StreamCall]
    ) -> RunStream[Any]:
        """Return the events of a new run, from its first to its last, tool calls answered.

        Endpoint: POST /threads/{thread_id}/runs with `stream`

        Nothing is sent before the block is entered (or the first event is awaited):

        ```python
        async with client.runs.stream(thread.id, assistant_id=assistant.id) as stream:
            async for text in stream.text_deltas():
                print(text, end="")
        result = await stream.result()
        ```

        Args:
            **arguments: See `create`, `WaitArguments` and `ToolOptions`. Functions among
                `tools` are called when the run asks for them, as in `run_tools`, and the
                stream goes on; without any it ends where the run waits for outputs.
                `timeout` covers all of it (None: what the run has left), `request_timeout`
                the time until the server accepts a request, and `idle_timeout` the seconds
                without an event (default 30) after which the run is polled.

        Raises:
            ActiveRunError: On entering: another run of the thread is active.
            APIError: On entering: the create failed; `.maybe_created` says whether the run
                may exist. Later errors: see `RunStream`.

        Cancellation: see `RunStream`.
        """
        return self._stream("runs.stream", thread_id, assistant_id, arguments)

    def _stream(
        self, name: str, thread_id: str, assistant_id: str, arguments: Mapping[str, Any]
    ) -> RunStream:
        given = parse(name, StreamCall, arguments, self._poll_policy, assistant_id=assistant_id)
        flow = self._create(given, thread_id, stream=True)
        return stream_of(self._pipeline, self._waiter, flow, given)

    @overload
    async def ask(
        self,
        content: MessageContent,
        *,
        assistant_id: str,
        thread_id: str | None = None,
        tools: Tools | None = None,
        response_format: type[T],
        **arguments: Unpack[AskTypedCall],
    ) -> RunResult[T]: ...
    @overload
    async def ask(
        self,
        content: MessageContent,
        *,
        assistant_id: str,
        thread_id: str | None = None,
        tools: Tools | None = None,
        **arguments: Unpack[AskCall],
    ) -> RunResult: ...
    async def ask(
        self,
        content: MessageContent,
        *,
        assistant_id: str,
        thread_id: str | None = None,
        tools: Tools | None = None,
        **arguments: Unpack[AskCall],
    ) -> RunResult[Any]:
        """Send a message to the assistant, and return what came of the run.

        Endpoint: POST /threads/runs or POST /threads/{thread_id}/runs, then as `run_tools`

        ```python
        result = await client.runs.ask("Hello!", assistant_id=assistant.id)
        print(result.text)
        ```

        Args:
            content: The user's text, or a list of parts.
            thread_id: The thread to go on with; None: a new one, created with the run. Its id is
                in `result.run.thread_id`.
            tools: Functions that answer the run's tool calls, and definitions of other tools.
                Without any function a run that requires action is returned as it is.
            **arguments: The settings of a run, `CallOptions` (`timeout` covers all of it),
                `WaitArguments` and `ToolOptions`; `on_active_run` and `include` for a thread that
                exists. With a type as `response_format`, `.parsed` is an instance of it.

        Returns:
            The result, also of a run that failed, expired or was cancelled: see
            `.run.raise_for_status()`.

        Raises:
            ActiveRunError: A run of the thread is active.
            RunWaitTimeout: The time was up; `.run` is the last state seen.
            ToolError: As in `run_tools`.
            APIError: A request was rejected, or the server is unreachable; `.maybe_created` says
                whether the run may exist.

        Cancellation: as in `run_tools`.
        """
        message = {"role": "user", "content": content}
        own: dict[str, Any] = {"assistant_id": assistant_id}
        if tools is not None:
            own["tools"] = tools
        if thread_id is None:
            own["thread"] = {"messages": [message]}
            arguments = {**arguments, "on_active_run": UNSET, "include": UNSET}  # type: ignore[typeddict-item]  # left out
        else:
            own["additional_messages"] = [message]
        given = parse("runs.ask", AskCall, arguments, self._poll_policy, **own)
        loop = local_tools(given)
        endpoint = CREATE_RUN if thread_id is not None else CREATE_THREAD_AND_RUN
        flow = CreateRunFlow(self._pipeline, self._waiter, endpoint, given, thread_id=thread_id)
        return await self._finished(flow, given, loop)

    @overload
    async def run_tools(
        self,
        thread_id: str,
        *,
        assistant_id: str,
        tools: Tools,
        response_format: type[T],
        **arguments: Unpack[RunToolsTypedCall],
    ) -> RunResult[T]: ...
    @overload
    async def run_tools(
        self, thread_id: str, *, assistant_id: str, tools: Tools, **arguments: Unpack[RunToolsCall]
    ) -> RunResult: ...
    async def run_tools(
        self, thread_id: str, *, assistant_id: str, tools: Tools, **arguments: Unpack[RunToolsCall]
    ) -> RunResult[Any]:
        """Start a run, answer its tool calls with functions, and return what came of it.

        Endpoint: POST /threads/{thread_id}/runs, GET .../runs/{run_id} (repeated), POST
        .../submit_tool_outputs for each round, and GET of messages and steps

        Each round's calls are made at once and answered in one request. Whatever goes wrong
        with a call becomes an output that says so to the model.

        Args:
            tools: The run's tools: functions, plain or made with `tool`, and definitions of
                other tools, such as `{"type": "file_search"}`.
            **arguments: See `create`, `WaitArguments` and `ToolOptions`; `timeout` covers all of
                it. With a type as `response_format`, `.parsed` is an instance of it.

        Returns:
            The result, also of a run that failed, expired or was cancelled: see
            `.run.raise_for_status()`.

        Raises:
            RunWaitTimeout: The time was up, perhaps while tools ran; `.run` is the last state.
            ToolError: The run asked for tools more than `max_rounds` times, or waits for an action
                of a kind that cannot be answered. It is left waiting, or cancelled with
                `on_timeout="cancel"`.
            TypeError: A function cannot be a tool. Nothing was sent.
            APIError: A request was rejected, or the server is unreachable.

        Cancellation: cancels the tools, and leaves the run waiting for `resume`, or cancels it
        with `on_cancel="cancel"`, also when the create itself is cancelled.
        """
        local = to_local_tools(tools)
        given = parse(
            "runs.run_tools",
            RunToolsCall,
            arguments,
            self._poll_policy,
            assistant_id=assistant_id,
            tools=local,
        )
        loop = ToolLoop(local, given.tool)
        return await self._finished(self._create(given, thread_id), given, loop)

    async def _finished(self, flow: CreateRunFlow, given: Arguments, loop: ToolLoop) -> RunResult:
        """Return the result of the run that `flow` creates."""
        deadline = self._deadline(given)
        with self._pipeline.invocation(given.body, flow.thread_id) as span:
            run = await flow.make_within(deadline)
            return await run_to_result(
                self._pipeline,
                self._waiter,
                deadline,
                run,
                run.thread_id,
                tools=loop,
                response_format=given.response_format,
                span=span,
            )

    def map(
        self,
        items: Items[K],
        *,
        concurrency: int,
        tools: Tools | None = None,
        progress: Callable[[Progress], object] | None = None,
        **arguments: Unpack[MapCall],
    ) -> RunMap[K]:
        """Return the results of many runs, each with its item's key, as they end.

        Endpoint: POST /threads/{thread_id}/runs or POST /threads/runs, then as `run_tools`

        Nothing is sent before the first result is awaited (or the block is entered):

        ```python
        async with client.runs.map(items, concurrency=50, assistant_id=assistant.id) as results:
            async for key, outcome in results:
                if isinstance(outcome, RunResult):
                    print(key, outcome.text)
        ```

        Each item is a key, which may be anything and come twice, and the arguments of a
        create: with a `thread_id` those of `runs.create`, else those of
        `threads.create_and_run`. Items are pulled from the input only while fewer than
        `concurrency` are in progress or waiting to be read, so it may be endless.

        One run that fails ends no other. A request that fails is tried again for
        `PollPolicy.max_outage` seconds, outside of the client's budget for retries (see
        `RetryPolicy.patience`), unless the client has `max_retries=0`; no run is started twice.

        Args:
            items: Pairs of a key and arguments, as an iterable or async iterable. Items
                are pulled one at a time in the event loop: an iterable that blocks, blocks the
                loop. An async generator is closed when it is not needed any more.
            concurrency: Items that are in progress, or done and not yet read; at least 1.
            tools: Functions that answer the tool calls of each run, and definitions of other
                tools. Without any function a run that requires action is a result as it is.
            progress: Called with a `Progress` before each outcome is returned: counts, tokens,
                rate, failures by reason; `print` prints them as a line. The total is known where
                `items` has a length.
            **arguments: Defaults for each item: `assistant_id`,
                the settings of a run, `CallOptions` (`timeout` is for one item, all its
                requests), `WaitArguments`, `ToolOptions`, `on_active_run` and `include`.

        Returns:
            An async iterator of `(key, outcome)`, in the order in which they end. An outcome
            is a `RunResult`, also of a run that failed, expired or was cancelled, or the
            error that ended the item; arguments that cannot be sent are a `ConfigError` that
            names the key.

        Raises:
            TypeError: An argument is of the wrong kind, or a function cannot be a tool.
            ValueError: An argument is out of bounds.

        Cancellation: see `RunMap`.
        """
        return map_runs(
            self._pipeline,
            self._waiter,
            items,
            concurrency=concurrency,
            tools=tools,
            progress=progress,
            given=arguments,
        )

    async def retrieve(self, run_id: str, *, thread_id: str, **options: Unpack[CallOptions]) -> Run:
        """Return the run as it is now.

        Endpoint: GET /threads/{thread_id}/runs/{run_id}

        Raises:
            NotFoundError: No such run.
            APIError: The call failed.
        """
        ids = {"thread_id": thread_id, "run_id": run_id}
        spec = self._pipeline.build_request(GET_RUN, ids, options)
        return await self._pipeline.send(spec, options)

    async def update(
        self,
        run_id: str,
        *,
        thread_id: str,
        metadata: Metadata | None,
        **options: Unpack[CallOptions],
    ) -> Run:
        """Replace the run's metadata and return the run.

        Endpoint: POST /threads/{thread_id}/runs/{run_id}

        Args:
            metadata: At most 16 pairs, keys of 64 and values of 512 characters; None clears.

        Raises:
            NotFoundError: No such run.
            APIError: The call failed.

        Cancellation: closes the request; the change may have been made.
        """
        ids = {"thread_id": thread_id, "run_id": run_id}
        spec = self._pipeline.build_request(
            UPDATE_RUN, ids, options, body={"metadata": plain(metadata)}
        )
        return await self._pipeline.send(spec, options)

    async def cancel(self, run_id: str, *, thread_id: str, **options: Unpack[CallOptions]) -> Run:
        """Ask the server to cancel the run and return it, usually `cancelling`.

        Endpoint: POST /threads/{thread_id}/runs/{run_id}/cancel

        Raises:
            BadRequestError: The run is finished already; the text names its status.
            NotFoundError: No such run.
            APIError: The call failed.

        Cancellation: closes the request; the run may be cancelled all the same.
        """
        return await self._waiter.cancel(run_id, thread_id, options)

    async def cancel_and_wait(
        self, run_id: str, *, thread_id: str, **arguments: Unpack[WaitCall]
    ) -> Run:
        """Cancel the run and return it once it is finished, however it ended.

        Endpoint: POST .../cancel, then GET /threads/{thread_id}/runs/{run_id} (repeated)

        Args:
            **arguments: See `CallOptions` and `WaitArguments`; `timeout` covers both parts.

        Returns:
            The finished run: `cancelled`, or what it became before the cancel arrived.

        Raises:
            RunWaitTimeout: It was still not finished when the time was up.
            APIError: The cancel was rejected for another reason, or the server is unreachable.

        Cancellation: leaves the run as it is.
        """
        given = parse("runs.cancel_and_wait", WaitCall, arguments, self._poll_policy)
        deadline = self._deadline(given)
        try:
            run = await self._waiter.cancel(run_id, thread_id, given.call)
        except BadRequestError:
            run = await self.retrieve(run_id, thread_id=thread_id, **deadline.left())
            if run.is_active and run.status != RunStatus.CANCELLING:
                raise
        return await self._waiter.wait_within(deadline, run, thread_id, until=is_inactive)

    @overload
    async def submit_tool_outputs(
        self,
        run_id: str,
        *,
        thread_id: str,
        tool_outputs: ToolOutputs,
        stream: Literal[False] | None = None,
        **options: Unpack[CallOptions],
    ) -> Run: ...
    @overload
    async def submit_tool_outputs(
        self,
        run_id: str,
        *,
        thread_id: str,
        tool_outputs: ToolOutputs,
        stream: Literal[True],
        **options: Unpack[StreamWaitCall],
    ) -> RunStream: ...
    async def submit_tool_outputs(
        self,
        run_id: str,
        *,
        thread_id: str,
        tool_outputs: ToolOutputs,
        stream: bool | None = None,
        **options: Unpack[StreamWaitCall],
    ) -> Run | RunStream:
        """Answer all waiting tool calls in one request; return the run, or its open stream.

        Endpoint: POST /threads/{thread_id}/runs/{run_id}/submit_tool_outputs

        Where the answer is lost, the run is retrieved before anything is sent again.

        Args:
            tool_outputs: One `{"tool_call_id", "output"}` for each waiting call; an output
                that is no text is sent as JSON text. `{"tool_call_id", "approve": True}` for a
                call that waits for approval (Azure).
            stream: Whether to return what follows as events, already begun.

        Raises:
            BadRequestError: A call is missing or unknown, or the run does not wait.
            APIError: The call failed.

        Cancellation: closes the request; the outputs may have arrived.
        """
        if stream:
            events = self._submit_stream(
                "runs.submit_tool_outputs", _ids(thread_id, run_id), tool_outputs, options
            )
            return await events.__aenter__()
        ids = {"thread_id": thread_id, "run_id": run_id}
        outputs = tool_outputs_of(tool_outputs)
        call = cast("CallOptions", options)
        return await SubmitFlow(self._pipeline, ids, outputs, call).make()

    async def submit_tool_outputs_and_poll(
        self,
        run_id: str,
        *,
        thread_id: str,
        tool_outputs: ToolOutputs,
        **arguments: Unpack[WaitCall],
    ) -> Run:
        """Answer the waiting tool calls, and return the run as `wait` does.

        Endpoint: POST .../submit_tool_outputs, then GET .../runs/{run_id} (repeated)

        Args:
            tool_outputs: See `submit_tool_outputs`.
            **arguments: See `CallOptions` and `WaitArguments`; `timeout` covers all of it.

        Raises:
            RunWaitTimeout: The time was up; `.run` is the last state seen.
            APIError: The outputs were rejected, or the server is unreachable.

        Cancellation: leaves the run alone unless `on_cancel="cancel"`.
        """
        given = parse("runs.submit_tool_outputs_and_poll", WaitCall, arguments, self._poll_policy)
        deadline = self._deadline(given)
        ids = {"thread_id": thread_id, "run_id": run_id}
        flow = SubmitFlow(self._pipeline, ids, tool_outputs_of(tool_outputs), given.call)
        undo = partial(self._waiter.cancel_quietly, run_id, thread_id, given.call)
        with self._pipeline.invocation(None, thread_id, run_id) as span:
            run = await deadline.start(flow.make(), undo)
            run = await self._waiter.wait_within(deadline, run, thread_id)
            span.set_run(run)
        return run

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
            tool_outputs: See `submit_tool_outputs`.
            **arguments: See `CallOptions` and `WaitArguments`; `timeout` covers all of it.

        Raises:
            BadRequestError: On entering: a call is missing or unknown, or the run does not wait.
            APIError: On entering: the call failed. Later errors: see `RunStream`.

        Cancellation: see `RunStream`.
        """
        ids = _ids(thread_id, run_id)
        name = "runs.submit_tool_outputs_stream"
        return self._submit_stream(name, ids, tool_outputs, arguments)

    def _submit_stream(
        self,
        name: str,
        ids: Mapping[str, str],
        tool_outputs: ToolOutputs,
        arguments: Mapping[str, Any],
    ) -> RunStream:
        given = parse(name, StreamWaitCall, arguments, self._poll_policy)
        outputs = tool_outputs_of(tool_outputs)
        request = SubmitRequest(self._pipeline, self._waiter, ids, outputs, given.call)
        return stream_of(self._pipeline, self._waiter, request, given)

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

        On a server that cannot resume a stream the run is waited for, and its messages
        and steps come as events then.

        Args:
            last_event_id: The `id` of the last event that was seen; None: from the first.
                Where the server no longer has it, the events begin with the first.
            **arguments: See `CallOptions` and `WaitArguments`; `timeout` covers all of it.

        Raises:
            NotFoundError: On entering: no such run.
            APIError: On entering: the call failed. Later errors: see `RunStream`.

        Cancellation: see `RunStream`.
        """
        given = parse("runs.follow", StreamWaitCall, arguments, self._poll_policy)
        request = FollowRequest(
            self._pipeline,
            self._waiter,
            _ids(thread_id, run_id),
            last_event_id,
            given.wait.options,
        )
        return stream_of(self._pipeline, self._waiter, request, given)

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
        """Return the run once it is finished or requires action; the same as `await_run`.

        Endpoint: GET /threads/{thread_id}/runs/{run_id}   (repeated)

        Args:
            run: The run, or its id. A finished `Run` is returned without a request; any
                other is polled first.
            thread_id: The thread's id; needed with a run id.
            timeout: Seconds for the whole wait, counted from the call. None: what the run
                has left by the server's clock plus 10 s, or 600 s where the server names
                no expiry; `math.inf` waits without end.
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
            APIStatusError: A poll was rejected for good, such as 401 or 404.

        Cancellation: leaves the run alone unless `on_cancel="cancel"`, which delays the
        cancellation by at most 5 s.
        """
        options = wait_options_of(
            self._poll_policy,
            {
                "poll": poll,
                "interval": interval,
                "on_status": on_status,
                "on_timeout": on_timeout,
                "on_cancel": on_cancel,
            },
            {"timeout": timeout, "request_timeout": request_timeout},
        )
        # No coroutine itself: 10,000 waits would hold another 10,000 coroutines.
        if self._pipeline.settings.tracing is not None:
            return self._traced_wait(run, thread_id, options)
        return self._waiter.wait(run, thread_id=thread_id, options=options)

    async def _traced_wait(
        self, run: Run | str, thread_id: str | None, options: WaitOptions
    ) -> Run:
        known = run if isinstance(run, Run) else None
        if known is not None and known.is_terminal:
            return known
        run_id = run if known is None else known.id
        with self._pipeline.invocation(None, thread_id, str(run_id)) as span:
            if known is not None:
                span.set_run(known)
            ended = await self._waiter.wait(run, thread_id=thread_id, options=options)
            span.set_run(ended)
        return ended

    async def poll(self, run_id: str, thread_id: str, **arguments: Unpack[WaitCall]) -> Run:
        """Return the run as `wait` does, under the official SDK's name.

        Endpoint: GET /threads/{thread_id}/runs/{run_id}   (repeated)

        Args:
            **arguments: See `CallOptions` and `WaitArguments`.

        Raises:
            RunWaitTimeout: The time was up; `.run` is the last state seen.
            APIError: The server is unreachable, or rejects the poll.

        Cancellation: leaves the run alone unless `on_cancel="cancel"`.
        """
        check_id("run_id", run_id)
        given = parse("runs.poll", WaitCall, arguments, self._poll_policy)
        with self._pipeline.invocation(None, thread_id, run_id) as span:
            run = await self._waiter.wait_within(self._deadline(given), run_id, thread_id)
            span.set_run(run)
        return run

    async def wait_all(
        self, runs: Iterable[Awaited], **arguments: Unpack[WaitCall]
    ) -> list[Run | OpenAIRunsError]:
        """Return the outcome of each run, in the order in which they were given.

        Endpoint: GET /threads/{thread_id}/runs/{run_id}   (repeated, for each)

        Scales to 10,000 runs: no task per run; polls share the client's connections, and the
        one that has been due longest goes first.

        Args:
            runs: Runs, or pairs `(run_id, thread_id)`. For finished ones nothing is sent.
            **arguments: See `CallOptions` and `WaitArguments`; `timeout` holds for each wait,
                counted from the call.

        Returns:
            For each the `Run` as `wait` returns it, or the error its wait ended with:
            `RunWaitTimeout`, or what `wait` raises. One that fails never ends the others.

        Raises:
            TypeError: One of `runs` is no run; nothing is waited for.
            Exception: What `on_status` raised.

        Cancellation: leaves the runs alone, or cancels those that are not finished with
        `on_cancel="cancel"`, which delays the cancellation: 5 s for each run that does not
        answer, 20 at a time.
        """
        given = parse("runs.wait_all", WaitCall, arguments, self._poll_policy)
        return await wait_for_all(self._waiter, runs, given.wait)

    def as_completed(self, runs: Iterable[Awaited], **arguments: Unpack[WaitCall]) -> CompletedRuns:
        """Return an iterator over the runs, each as soon as its wait is over.

        Endpoint: GET /threads/{thread_id}/runs/{run_id}   (repeated, for each)

        Args:
            runs: Runs, or pairs `(run_id, thread_id)`.
            **arguments: See `CallOptions` and `WaitArguments`; `timeout` holds for each wait,
                counted from this call.

        Returns:
            An async iterator of runs; a failed wait yields its error, which carries the ids.
            With `async with`, the other waits end with the block.

        Raises:
            TypeError: One of `runs` is no run; nothing is waited for.
        """
        given = parse("runs.as_completed", WaitCall, arguments, self._poll_policy)
        return CompletedRuns(self._waiter, runs, given.wait)

    @overload
    async def resume(
        self,
        run_id: str,
        *,
        thread_id: str,
        tools: Tools,
        response_format: type[T],
        **arguments: Unpack[ResumeCall],
    ) -> RunResult[T]: ...
    @overload
    async def resume(
        self,
        run_id: str,
        *,
        thread_id: str,
        tools: Tools,
        response_format: type | None = None,
        **arguments: Unpack[ResumeCall],
    ) -> RunResult: ...
    async def resume(
        self,
        run_id: str,
        *,
        thread_id: str,
        tools: Tools,
        response_format: type | None = None,
        **arguments: Unpack[ResumeCall],
    ) -> RunResult[Any]:
        """Resume a run where it is, answer its tool calls, and return what came of it.

        Endpoint: GET /threads/{thread_id}/runs/{run_id} (repeated), POST
        .../submit_tool_outputs for each round, and GET of messages and steps

        For runs that another process started, and perhaps left waiting when it was killed. The
        calls that wait are made (again), so a tool may be called twice for one call id, whose
        output is accepted once: see `ToolContext.call_id`.

        Args:
            run_id: The run's id; the run may be waiting, at work, or finished.
            tools: The functions to answer with; no tool list is sent, the run has its own.
            response_format: The type `.parsed` shall be an instance of; it is not sent.
            **arguments: See `CallOptions`, `WaitArguments` and `ToolOptions`; `timeout` covers
                all of it.

        Returns:
            The result, also of a run that failed, expired or was cancelled.

        Raises:
            RunWaitTimeout: The time was up, perhaps while tools ran; `.run` is the last state.
            ToolError: The run asked for tools more than `max_rounds` times, or waits for an action
                of a kind that cannot be answered.
            NotFoundError: No such run.
            APIError: A request was rejected, or the server is unreachable.

        Cancellation: as in `run_tools`.
        """
        check_id("run_id", run_id)
        given = parse("runs.resume", ResumeCall, arguments, self._poll_policy)
        loop = ToolLoop(tools, given.tool)
        with self._pipeline.invocation(None, thread_id, run_id) as span:
            return await run_to_result(
                self._pipeline,
                self._waiter,
                self._deadline(given),
                run_id,
                thread_id,
                tools=loop,
                response_format=response_format,
                span=span,
            )

    @overload
    async def result(
        self, run: Run, *, response_format: type[T], **options: Unpack[CallOptions]
    ) -> RunResult[T]: ...
    @overload
    async def result(
        self, run: Run, *, response_format: type | None = None, **options: Unpack[CallOptions]
    ) -> RunResult: ...
    async def result(
        self, run: Run, *, response_format: type | None = None, **options: Unpack[CallOptions]
    ) -> RunResult[Any]:
        """Return the run with the messages it wrote and the steps it took.

        Endpoint: GET /threads/{thread_id}/messages and GET .../runs/{run_id}/steps

        Args:
            run: A run, as `wait` returned it.
            response_format: The type `.parsed` shall be an instance of.
            **options: See `CallOptions`; `timeout` covers all pages of both lists.

        Raises:
            APIError: A list could not be fetched.
            APITimeoutError: The time was up.
        """
        _check_run(run)
        return await gather(self._pipeline, run, options, response_format=response_format)

    async def timeline(self, run: Run, **options: Unpack[CallOptions]) -> Timeline:
        """Return where the run's time went: its steps are fetched for `run.timeline(steps)`.

        Endpoint: GET /threads/{thread_id}/runs/{run_id}/steps

        Args:
            run: A run, as `retrieve` or `wait` returned it.
            **options: See `CallOptions`; `timeout` covers all pages.

        Raises:
            APIError: The steps could not be fetched.
            APITimeoutError: The time was up.
        """
        _check_run(run)
        return run.timeline(await gather_steps(self._pipeline, run, options))

    def list(self, thread_id: str, **arguments: Unpack[ListCall]) -> AsyncPaginator[Run]:
        """Return the thread's runs: `await` for a page, `async for` for all.

        Endpoint: GET /threads/{thread_id}/runs

        Args:
            **arguments: See `ListCall` and `CallOptions`.

        Raises:
            ValueError: An argument is out of bounds; nothing was sent.
        """
        ids = {"thread_id": thread_id}
        return paginate(self._pipeline, LIST_RUNS, ids, "runs.list", arguments)

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
        keys. Where it is known to, None means nothing: repeat the create with the same
        `idempotency_key` instead, and the answer is the run of the first.

        Args:
            idempotency_key: The key of the lost create, as its exception carries it
                (`.idempotency_key`); None: the thread's active run, whoever started it.
            timeout: Seconds for the whole call.

        Raises:
            APIError: The list could not be fetched.
            APITimeoutError: The time was up.
        """
        find = partial(recovered_run, self._pipeline, thread_id, idempotency_key)
        return await within(timeout, "recovering a run", find, thread_id=thread_id)

    def _create(self, given: Arguments, thread_id: str, *, stream: bool = False) -> CreateRunFlow:
        return CreateRunFlow(
            self._pipeline, self._waiter, CREATE_RUN, given, thread_id=thread_id, stream=stream
        )

    def _deadline(self, given: Arguments) -> Deadline:
        return Deadline(self._pipeline.settings.runtime, given.call, given.wait)


def _ids(thread_id: str, run_id: str) -> dict[str, str]:
    """Return the ids; a bad one is rejected before the stream is entered."""
    return {"thread_id": check_id("thread_id", thread_id), "run_id": check_id("run_id", run_id)}


def _check_run(run: object) -> None:
    if not isinstance(run, Run):
        msg = f"run must be a Run, got {type(run).__name__}{forgotten_await(run)}"
        raise TypeError(msg)
