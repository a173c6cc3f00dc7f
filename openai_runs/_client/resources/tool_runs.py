"""Runs to their results: tools answered by polling, and what came of a run gathered."""

from __future__ import annotations

from functools import partial
from typing import Any, Unpack, get_origin

from openai_runs._client.arguments import (
    CallOptions,
    ListCall,
    RunSettings,
    StartOptions,
    Tools,
    TurnArguments,
    WaitArguments,
    tool_options_of,
)
from openai_runs._client.core.deadline import Deadline, within
from openai_runs._client.core.paging import AsyncPaginator, paginate
from openai_runs._client.flows.create_run import Attempts
from openai_runs._client.flows.results import RunResult
from openai_runs._client.flows.tool_loop import PolledRounds, ToolLoop, waiting_calls
from openai_runs._client.resources.run_calls import RunCalls
from openai_runs._client.tools.executor import ToolOptions
from openai_runs._protocol.endpoints import LIST_MESSAGES
from openai_runs._protocol.spec import check_id
from openai_runs.errors import (
    NotFoundError,
)
from openai_runs.types.messages import Message
from openai_runs.types.runs import Run
from openai_runs.types.steps import RunStep

__all__ = ["ToolRuns", "type_in"]


class RunToolsCall(
    RunSettings, TurnArguments, StartOptions, CallOptions, WaitArguments, ToolOptions, total=False
):
    """Everything `runs.run_tools` takes by keyword, besides assistant and tools."""


class ResumeCall(CallOptions, WaitArguments, ToolOptions, total=False):
    """Everything `runs.resume` takes by keyword, besides ids, tools and format."""


class ToolRuns(RunCalls):
    """The calls of `client.runs` that end in a `RunResult`."""

    async def run_tools(
        self, thread_id: str, *, assistant_id: str, tools: Tools, **arguments: Unpack[RunToolsCall]
    ) -> RunResult:
        """Start a run, answer its tool calls with functions, and return what came of it.

        Endpoint: POST /threads/{thread_id}/runs, GET .../runs/{run_id} (repeated), POST
        .../submit_tool_outputs for each round, and GET of messages and steps

        Each round's calls are made at once and answered in one request. Whatever goes wrong
        with a call becomes an output that tells the model so.

        Args:
            thread_id: The thread's id.
            assistant_id: The assistant's id.
            tools: The run's tools: functions, plain or made with `tool`, and definitions of
                other tools, such as `{"type": "file_search"}`.
            **arguments: See `create`, `WaitArguments` and `ToolOptions`; `timeout` covers all of
                it. With a type as `response_format`, `.parsed` is an instance of it.

        Returns:
            The result, also of a run that failed, expired or was cancelled: see
            `.run.raise_for_status()`.

        Raises:
            RunWaitTimeout: The time was up, perhaps while tools ran; `.run` is the last state.
            ToolError: The run asked for tools more than `max_rounds` times. It is left waiting,
                or cancelled with `on_timeout="cancel"`.
            TypeError: A function cannot be a tool. Nothing was sent.
            APIError: A request was refused, or the server is gone.

        Cancellation: cancels the tools, and leaves the run waiting for `resume`, or cancels it
        with `on_cancel="cancel"`, also when the create itself is cancelled.
        """
        taken: dict[str, Any] = dict(arguments)
        loop = ToolLoop(tools, tool_options_of(taken))
        kind = type_in(taken.get("response_format"))
        deadline = Deadline(self._pipeline, taken)
        taken.update(deadline.call_options, tools=loop.tools)
        attempts = Attempts(self._pipeline, thread_id, assistant_id, taken)
        undo = partial(attempts.undo, self._waiter)
        run = await deadline.start(attempts.make(self._waiter), undo)
        return await self._to_its_end(run, run.thread_id, loop, deadline, kind)

    async def resume(
        self,
        run_id: str,
        *,
        thread_id: str,
        tools: Tools,
        response_format: type | None = None,
        **arguments: Unpack[ResumeCall],
    ) -> RunResult:
        """Take a run over where it is, answer its tool calls, and return what came of it.

        Endpoint: GET /threads/{thread_id}/runs/{run_id} (repeated), POST
        .../submit_tool_outputs for each round, and GET of messages and steps

        For runs that another process started, and perhaps left waiting when it was killed. The
        calls that wait are made (again), so a tool may be called twice for one call id, whose
        output is taken once: see `ToolContext.call_id`.

        Args:
            run_id: The run's id; the run may be waiting, at work, or finished.
            thread_id: The thread's id.
            tools: The functions to answer with; no tool list is sent, the run has its own.
            response_format: The type `.parsed` shall be an instance of; it is not sent.
            **arguments: See `CallOptions`, `WaitArguments` and `ToolOptions`; `timeout` covers
                all of it.

        Returns:
            The result, also of a run that failed, expired or was cancelled.

        Raises:
            RunWaitTimeout: The time was up, perhaps while tools ran; `.run` is the last state.
            ToolError: The run asked for tools more than `max_rounds` times.
            NotFoundError: No such run.
            APIError: A request was refused, or the server is gone.

        Cancellation: as in `run_tools`.
        """
        check_id("run_id", run_id)
        taken: dict[str, Any] = dict(arguments)
        loop = ToolLoop(tools, tool_options_of(taken))
        deadline = Deadline(self._pipeline, taken)
        for name in taken:
            msg = f"runs.resume() got an unexpected keyword argument {name!r}"
            raise TypeError(msg)
        return await self._to_its_end(run_id, thread_id, loop, deadline, response_format)

    async def result(
        self,
        run: Run,
        *,
        response_format: type | None = None,
        **options: Unpack[CallOptions],
    ) -> RunResult:
        """Return the run with the messages it wrote and the steps it took.

        Endpoint: GET /threads/{thread_id}/messages and GET .../runs/{run_id}/steps

        Args:
            run: A run, as `wait` returned it.
            response_format: The type `.parsed` shall be an instance of.
            **options: See `CallOptions`; `timeout` covers all pages of both lists.

        Raises:
            APIError: A list could not be fetched.
            APITimeoutError: The time was up.

        Cancellation: closes the request.
        """
        each: CallOptions = {**options, "timeout": None}
        return await within(
            options.get("timeout"),
            "gathering the result",
            lambda: self._gather(run, each, response_format),
            thread_id=run.thread_id,
            run_id=run.id,
        )

    async def _to_its_end(
        self,
        run: Run | str,
        thread_id: str,
        loop: ToolLoop | None,
        deadline: Deadline,
        kind: type | None,
    ) -> RunResult:
        run = await self._waiter.wait_within(deadline, run, thread_id)
        if loop is not None:
            rounds = PolledRounds(self._pipeline, self._waiter, loop, deadline)
            while waiting_calls(run):
                run = await rounds.next(run)
        return await self.result(run, response_format=kind, **deadline.left())

    async def _gather(
        self, run: Run, options: CallOptions, response_format: type | None = None
    ) -> RunResult:
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
        messages = [message async for message in listed if _is_written_by(run, message)]
        steps: list[RunStep]
        try:
            listed_steps = self.steps.list(run.id, thread_id=run.thread_id, **list_options)
            steps = [step async for step in listed_steps]
        except NotFoundError:
            # The thread is there, as its messages were: a server without steps (astra).
            steps = []
        return RunResult(run=run, messages=messages, steps=steps, response_format=response_format)


def type_in(response_format: object) -> type | None:
    """Return the type a response format was given as, if it was given as one."""
    is_type = isinstance(response_format, type) or get_origin(response_format) is not None
    return response_format if is_type else None  # type: ignore[return-value]  # or an alias


def _is_written_by(run: Run, message: object) -> bool:
    # Not of `Message` for certain: an item that could not be read may lack either.
    role, run_id = getattr(message, "role", None), getattr(message, "run_id", None)
    return role == "assistant" and run_id == run.id
