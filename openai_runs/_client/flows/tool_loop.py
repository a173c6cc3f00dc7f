"""The tool loop of one run: which calls are answered, what is sent again, and when to give up.

Theory of operation. A run in `requires_action` may ask for new outputs, or for outputs that it
was sent before: a replica lags behind, or the outputs did not arrive. `ToolLoop.decide` returns
ANSWER for new calls. For repeated ones it returns POLL a few times, and then
ANSWER, which sends the outputs that the tools returned the first time. `ToolLoop.round` answers
and submits; where the submit fails in a way that leaves open what the run does, the run is
polled and `decide` is called again.

The loop is the same whether a run is polled (`run_to_end`) or streamed (`streams.session`):
`round` is given the function that sends the outputs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from enum import Enum, auto
from typing import Any, Final, TypeVar

import anyio

from openai_runs._client.arguments import Arguments
from openai_runs._client.core.call import is_transient
from openai_runs._client.core.deadline import Deadline
from openai_runs._client.core.pipeline import Pipeline
from openai_runs._client.flows.submit_outputs import SubmitFlow, approvals_of
from openai_runs._client.polling.waiter import Waiter
from openai_runs._client.tools.executor import ToolCalls, ToolOptions
from openai_runs._client.tools.tool import LocalTool, to_local_tools
from openai_runs._protocol import retry
from openai_runs._protocol.lifecycle import seconds_to_expiry
from openai_runs._tracing import ClientTracing
from openai_runs.config import (
    EXPIRY_MARGIN,
    MAX_ID_CHARS,
    MAX_TOOL_ROUNDS,
    OUTPUT_MARGIN,
    check_count,
)
from openai_runs.errors import (
    APIError,
    BadRequestError,
    ConflictError,
    RunWaitTimeout,
    ToolError,
)
from openai_runs.types.runs import (
    RequiredActionType,
    RequiredApproval,
    RequiredCall,
    RequiredToolCall,
    Run,
)

__all__ = ["Decision", "Outputs", "ToolLoop", "local_tools", "run_to_end"]

T = TypeVar("T")
Outputs = list[dict[str, Any]]
"""The `tool_outputs` of one submit."""

_SHARE: Final = 0.1
"""Share of the time left that the margin before a run's expiry may take at most."""
_LEAST_MARGIN: Final = 2.0
"""Seconds of it at least: one for the resolution of `Date`, one to send the outputs."""
_REJECTIONS: Final = (BadRequestError, ConflictError)
"""Errors of a submit to a run that does not wait for these outputs."""
_OUTPUTS: Final = RequiredActionType.SUBMIT_TOOL_OUTPUTS
_POLLS: Final = 3
"""Polls of a run that repeats its calls, before the outputs are sent again."""
_SUBMITS: Final = 3
"""Times the same outputs are sent before the run is given up."""


class Decision(Enum):
    """What to do about a run that waits for tool outputs."""

    ANSWER = auto()
    """Call the tools, or reuse their outputs, and submit."""
    POLL = auto()
    """Retrieve the run again, after the pause that `ToolLoop.polls` asks for."""


class ToolLoop:
    """Answers the tool calls of one run, round after round.

    Args:
        tools: Functions, and definitions of tools that are not answered here.
        options: How the functions are called.
        needs_function: Answer no function call where there is no function among `tools`.

    Raises:
        TypeError: A function cannot be a tool, or an option is of the wrong kind.
        ValueError: A name or an option is out of bounds.
    """

    def __init__(
        self, tools: Iterable[object], options: ToolOptions, *, needs_function: bool = False
    ) -> None:
        self.tools = to_local_tools(tools)
        """The tools that a create is sent: local tools and definitions."""
        self._local = {one.name: one for one in self.tools if isinstance(one, LocalTool)}
        self._calls = ToolCalls(self._local, options)
        self._max_rounds = check_count("max_rounds", options.get("max_rounds", MAX_TOOL_ROUNDS))
        self._answers_functions = bool(self._local) or not needs_function
        self._outputs: dict[tuple[str, ...], str | bool] = {}
        self._repeats = 0
        self._is_accepted = False
        """Whether the server has accepted the outputs of this round."""
        self._failure: APIError | None = None
        """Why the last submit of this round failed."""
        self.rounds = 0
        """Times the run has asked for tools so far."""

    @property
    def polls(self) -> int:
        """Return the polls in a row that `decide` has asked for; 0 after a submit."""
        return self._repeats % (_POLLS + 1)

    def calls_of(self, run: Run) -> Sequence[RequiredCall | RequiredApproval]:
        """Return the calls to be answered here that the run waits for, each id once.

        Raises:
            ToolError: The run waits for an action of a kind that cannot be answered, or for an
                approval where there is no `approve`.
        """
        action = run.required_action if run.needs_action else None
        if action is None:
            return []
        approvals = approvals_of(run)
        if approvals and self._calls.can_approve:
            return approvals
        if approvals or (action.submit_tool_outputs is None and action.type != _OUTPUTS):
            raise _unanswerable(run, action.type, approvals)
        return waiting_calls(run) if self._answers_functions else []

    def is_answered(self, run: Run) -> bool:
        """Return whether the run waits, and each of its calls was answered before."""
        calls = self.calls_of(run)
        return bool(calls) and all(_key(call) in self._outputs for call in calls)

    def decide(self, run: Run, *, has_moved: bool) -> Decision:
        """Return what to do about a run that waits.

        Args:
            run: The run, with at least one of `calls_of`.
            has_moved: Whether the run is known to have been at work since the last round. Then the
                same call again is a new call: some servers reuse the ids of earlier rounds.

        Raises:
            ToolError: It has requested the same outputs too often.
            APIError: It still requests them, and the server did not accept them.
        """
        if has_moved:
            for call in self.calls_of(run):
                self._outputs.pop(_key(call), None)
        if not self.is_answered(run):
            self._repeats, self._is_accepted, self._failure = 0, False, None
            return Decision.ANSWER
        self._repeats += 1
        if self._repeats >= _SUBMITS * (_POLLS + 1):
            self._give_up(run)
        if self.polls:
            return Decision.POLL
        if isinstance(self._failure, _REJECTIONS):
            raise self._failure
        return Decision.ANSWER

    def _give_up(self, run: Run) -> None:
        if self._failure is not None:  # its message says more than the error below
            raise self._failure
        msg = f"run {run.id!r} still requests outputs that were submitted {_SUBMITS} times"
        raise ToolError(msg, thread_id=run.thread_id, run_id=run.id)

    async def round(
        self,
        run: Run,
        send: Callable[[Outputs], Awaitable[T]],
        *,
        headers: Mapping[str, str] | None = None,
        age: float = 0.0,
        tracing: ClientTracing | None = None,
    ) -> T | None:
        """Answer all calls the run waits for, and return what `send` returns.

        None where the submit failed, and polling the run decides how to go on. Either it was
        rejected: the run has ended, or another client has answered. Or the server is unreachable:
        the outputs are kept, and sent again if the run still requests them.

        Args:
            run: The run that waits.
            send: Submits the outputs.
            headers: Of the answer the run came in, for the server's clock; None: the run's own.
            age: Seconds since those headers came.
            tracing: What makes a span of each call.

        Raises:
            ToolError: The run has asked more often than `max_rounds`; it is left waiting.
            APIError: The submit failed, and the failure is not transient.
            BaseException: What `approve` or `on_tool_call` raised.

        Cancellation: cancels async tools; sync tools finish in their threads, and their outputs
        are discarded. The outputs may have arrived.
        """
        outputs = await self._answer(run, headers, age, tracing)
        try:
            reply = await send(outputs)
        except APIError as failure:
            if not isinstance(failure, _REJECTIONS) and not is_transient(failure):
                raise
            self._failure = None if self._is_accepted else failure
            return None
        self._is_accepted, self._failure = True, None
        return reply

    async def _answer(
        self,
        run: Run,
        headers: Mapping[str, str] | None,
        age: float,
        tracing: ClientTracing | None,
    ) -> Outputs:
        """Return the outputs, each id once; calls that were answered before are not repeated.

        What is not finished a little before the run expires gets an output that says so.
        """
        calls = self.calls_of(run)
        new = [call for call in calls if _key(call) not in self._outputs]
        if new:
            self._begin_round(run)
            seconds = _seconds_for(run, headers) - age
            approvals = [call for call in new if isinstance(call, RequiredApproval)]
            others = [call for call in new if not isinstance(call, RequiredApproval)]
            answers: dict[str, str | bool] = {}
            if approvals:
                answers.update(await self._calls.approvals(run, approvals, seconds))
            if others:
                answers.update(await self._calls.outputs(run, others, seconds, tracing))
            self._outputs.update((_key(call), answers[call.id]) for call in new)
        return [_sent(call, self._outputs[_key(call)]) for call in calls]

    def _begin_round(self, run: Run) -> None:
        if self.rounds >= self._max_rounds:
            msg = f"run {run.id!r} asked for tools more than {self._max_rounds} times (max_rounds)"
            raise ToolError(msg, thread_id=run.thread_id, run_id=run.id)
        self.rounds += 1


def local_tools(given: Arguments) -> ToolLoop:
    """Return the loop of a call's tools; function calls are left to the caller if none is local."""
    return ToolLoop(given.tools or (), given.tool, needs_function=True)


def waiting_calls(run: Run) -> list[RequiredCall]:
    """Return the calls that wait for an output, unknown kinds included, each id once."""
    action = run.required_action if run.needs_action else None
    if action is None or action.submit_tool_outputs is None:
        return []
    calls = action.submit_tool_outputs.tool_calls
    first: dict[str, RequiredCall] = {}
    for call in calls:
        first.setdefault(call.id, call)
    first.pop("", None)  # cannot be answered
    return list(first.values())


def _sent(call: RequiredCall | RequiredApproval, answer: str | bool) -> dict[str, Any]:
    return {"tool_call_id": call.id, ("output" if isinstance(answer, str) else "approve"): answer}


def _unanswerable(run: Run, kind: str, approvals: Sequence[RequiredApproval]) -> ToolError:
    kind = repr(kind[:MAX_ID_CHARS])
    if approvals:
        names = ", ".join(sorted({f"{call.type} {call.name!r}" for call in approvals}))
        how = (
            f"approval of its calls ({names[:MAX_ID_CHARS]}); pass approve= to be asked about them"
        )
    else:
        how = "an action that cannot be answered here; cancel it, or answer by client.request()"
    msg = f"run {run.id!r} waits in {kind} for {how}"
    return ToolError(msg, thread_id=run.thread_id, run_id=run.id)


def _key(call: RequiredCall | RequiredApproval) -> tuple[str, ...]:
    # Not the id alone: some models reuse the ids in each round.
    if isinstance(call, RequiredToolCall):
        return call.id, call.function.name, call.function.arguments
    return (call.id,)


def _seconds_for(run: Run, headers: Mapping[str, str] | None) -> float:
    """Return the seconds the tools have, so that their outputs arrive before the run expires."""
    if headers is None:
        headers = run.http.headers if run.http is not None else {}
    left = seconds_to_expiry(run, headers) - EXPIRY_MARGIN
    return left - min(OUTPUT_MARGIN, max(left * _SHARE, _LEAST_MARGIN))


async def run_to_end(  # noqa: PLR0917 - what each of its three callers has at hand
    pipeline: Pipeline,
    waiter: Waiter,
    loop: ToolLoop,
    deadline: Deadline,
    run: Run | str,
    thread_id: str,
) -> Run:
    """Wait for the run by polling, and answer its tool calls until it has ended.

    Where the loop answers no function calls, the run is returned while it waits for outputs.

    Raises:
        RunWaitTimeout: The time was up, perhaps while tools ran; `.run` is the last state.
        ToolError: The run asked for tools more often than it may, or waits for an action of a kind
            that cannot be answered.
        APIError: A request was rejected, or the server is unreachable.

    Cancellation: cancels the tools; leaves the run, or cancels it with `on_cancel="cancel"`.
    """
    rounds = _PolledRounds(pipeline, waiter, deadline)
    run = await waiter.wait_within(deadline, run, thread_id)
    while loop.calls_of(run):
        run = await rounds.next(run, loop)
        run = await waiter.wait_within(deadline, run, run.thread_id)
    return run


class _PolledRounds:
    """The rounds of a run that is polled, within the time of one call."""

    def __init__(self, pipeline: Pipeline, waiter: Waiter, deadline: Deadline) -> None:
        self._pipeline = pipeline
        self._waiter = waiter
        self._deadline = deadline
        self._runtime = pipeline.settings.runtime
        self._began = self._runtime.monotonic()

    async def next(self, run: Run, loop: ToolLoop) -> Run:
        """Return the run as the submit returned it, or as it was, to be polled."""
        options = self._deadline.wait_options
        try:
            with anyio.move_on_after(self._deadline.seconds_left()):
                return await self._round(run, loop)
        except anyio.get_cancelled_exc_class():
            await self._react(run, options.on_cancel)
            raise
        except ToolError:
            await self._react(run, options.on_timeout)
            raise
        await self._react(run, options.on_timeout)
        late = RunWaitTimeout(run, self._runtime.monotonic() - self._began)
        if options.on_timeout == "cancel":
            late.add_note("the server was asked to cancel it (on_timeout='cancel')")
        raise late

    async def _round(self, run: Run, loop: ToolLoop) -> Run:
        # The run was not observed between two polls, so a repeated call is never known to be new.
        if loop.decide(run, has_moved=False) is Decision.POLL:
            policy, chance = self._deadline.wait_options.policy, self._runtime.chance()
            await self._runtime.sleep(retry.poll_pause(policy, loop.polls, chance))
            return run

        async def send(outputs: Outputs) -> Run:
            ids = {"thread_id": run.thread_id, "run_id": run.id}
            return await SubmitFlow(self._pipeline, ids, outputs, self._deadline.left()).make()

        return await loop.round(run, send, tracing=self._pipeline.settings.tracing) or run

    async def _react(self, run: Run, reaction: str) -> None:
        if reaction == "cancel":
            options = self._deadline.wait_options.options
            await self._waiter.cancel_quietly(run.id, run.thread_id, options)
