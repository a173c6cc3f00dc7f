"""The rounds of one run's tools: what is asked, what was answered, when to stop.

The same for a run that is polled and for one that is streamed. Nothing is sent from here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Final

import anyio

from openai_runs._client.arguments import Arguments
from openai_runs._client.core.call import is_transient
from openai_runs._client.core.deadline import Deadline
from openai_runs._client.core.pipeline import Pipeline
from openai_runs._client.flows.submit_outputs import SubmitFlow
from openai_runs._client.polling.waiter import Waiter
from openai_runs._client.tools.executor import ToolCalls, ToolOptions, check_count
from openai_runs._client.tools.tool import LocalTool, localized
from openai_runs._protocol import retry
from openai_runs._protocol.lifecycle import seconds_to_expiry
from openai_runs.config import EXPIRY_MARGIN, MAX_TOOL_ROUNDS, OUTPUT_MARGIN
from openai_runs.errors import (
    APIError,
    BadRequestError,
    ConflictError,
    RunWaitTimeout,
    ToolError,
)
from openai_runs.types.runs import RequiredCall, RequiredToolCall, Run

__all__ = ["PolledRounds", "ToolLoop", "is_look", "local_tools", "waiting_calls"]

_SHARE: Final = 0.1
"""Share of the time left that the margin before a run's expiry may take at most."""
_LEAST_MARGIN: Final = 2.0
"""Seconds of it at least: one by which `Date` may lag, as it has no smaller ones, and one for
the way of the outputs."""
_REFUSALS: Final = (BadRequestError, ConflictError)
"""Answers to a submit by which a server says that the run does not wait for these outputs."""
_LOOKS: Final = 3
"""Looks at a run that asks for what it was sent, before it is sent once more."""
_SUBMITS: Final = 3
"""Times the same outputs are sent before the run is given up."""


class ToolLoop:
    """Answers the tool calls of one run, round after round.

    Args:
        tools: Functions, and definitions of tools that are not answered here.
        options: How the functions are called.

    Raises:
        TypeError: A function cannot be a tool, or an option is of the wrong kind.
        ValueError: A name or an option is out of bounds.
    """

    def __init__(self, tools: Iterable[object], options: ToolOptions) -> None:
        self.tools = localized(tools)
        """What a create is told: local tools and definitions."""
        self._local = {one.name: one for one in self.tools if isinstance(one, LocalTool)}
        self._calls = ToolCalls(self._local, options)
        self._max_rounds = check_count("max_rounds", options, MAX_TOOL_ROUNDS)
        self._answered: dict[tuple[str, ...], str] = {}
        self._repeats = 0
        self.rounds = 0
        """Times the run has asked for tools so far."""

    @property
    def is_local(self) -> bool:
        """Return whether there is any function to answer with."""
        return bool(self._local)

    def repeats(self, run: Run, *, is_new: bool) -> int:
        """Return how often in a row the run has asked for what it was sent; 0: for new things.

        It does where a replica of the server lags behind, or the outputs did not arrive.
        `is_look` says what to do next.

        Args:
            run: The run that waits.
            is_new: Whether the run is known to have gone on since the last round. Then the
                same call again is a call of its own: some servers number them anew.

        Raises:
            ToolError: It has asked too often.
        """
        keys = [_key(call) for call in waiting_calls(run)]
        if is_new:
            for key in keys:
                self._answered.pop(key, None)
        self._repeats = self._repeats + 1 if all(key in self._answered for key in keys) else 0
        if self._repeats >= _SUBMITS * (_LOOKS + 1):
            msg = f"run {run.id!r} still asks for outputs that it was sent {_SUBMITS} times"
            raise ToolError(msg, thread_id=run.thread_id, run_id=run.id)
        return self._repeats

    async def answer(
        self, run: Run, headers: Mapping[str, str] | None = None, *, age: float = 0.0
    ) -> list[dict[str, str]]:
        """Return the outputs of all calls the run waits for, each id once, in their order.

        A call that was answered before is not made again: it gets the output it had. What is
        not finished a little before the run expires gets an output that says so.

        Args:
            run: The run that waits.
            headers: Of the answer it came in, for the server's clock; None: the run's own.
            age: Seconds since those headers came.

        Raises:
            ToolError: The run has asked more often than `max_rounds`; it is left waiting.
            BaseException: What `approve` or `on_tool_call` raised.

        Cancellation: cancels async tools; sync ones go on in their threads, unheard.
        """
        calls = waiting_calls(run)
        new = [call for call in calls if _key(call) not in self._answered]
        if new:
            self._begin_round(run)
            outputs = await self._calls.outputs(run, new, _seconds_for(run, headers) - age)
            self._answered.update((_key(call), outputs[call.id]) for call in new)
        return [{"tool_call_id": one.id, "output": self._answered[_key(one)]} for one in calls]

    def _begin_round(self, run: Run) -> None:
        if self.rounds >= self._max_rounds:
            msg = f"run {run.id!r} asked for tools more than {self._max_rounds} times (max_rounds)"
            raise ToolError(msg, thread_id=run.thread_id, run_id=run.id)
        self.rounds += 1


def local_tools(given: Arguments) -> ToolLoop | None:
    """Return the loop of a call's tools; None where there is no function among them."""
    loop = ToolLoop(given.tools or (), given.tool)
    return loop if loop.is_local else None


def is_look(repeats: int) -> bool:
    """Return whether the run is to be looked at again after a pause, and not answered yet."""
    return repeats % (_LOOKS + 1) != 0


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


def _key(call: RequiredCall) -> tuple[str, ...]:
    # Not the id alone: some models number the calls of each round anew.
    if isinstance(call, RequiredToolCall):
        return call.id, call.function.name, call.function.arguments
    return (call.id,)


def _seconds_for(run: Run, headers: Mapping[str, str] | None) -> float:
    """Return the seconds the tools have, so that their outputs arrive before the run expires."""
    if headers is None:
        headers = run.http.headers if run.http is not None else {}
    left = seconds_to_expiry(run, headers) - EXPIRY_MARGIN
    return left - min(OUTPUT_MARGIN, max(left * _SHARE, _LEAST_MARGIN))


class PolledRounds:
    """The rounds of one call: answer, submit, wait, and again."""

    def __init__(
        self, pipeline: Pipeline, waiter: Waiter, loop: ToolLoop, deadline: Deadline
    ) -> None:
        """Poll with `waiter`; `deadline` is of the whole call."""
        self._pipeline = pipeline
        self._waiter = waiter
        self._settings = pipeline.settings
        self._loop = loop
        self._deadline = deadline
        self._began = self._settings.runtime.monotonic()
        self._taken = False
        """Whether the server has said that it took the outputs of this round."""
        self._failure: APIError | None = None
        """Why the last submit of this round failed."""

    async def next(self, run: Run) -> Run:
        """Return the run when it is settled again."""
        try:
            # What was seen of the run in between is not known here, so the same is never new.
            repeats = self._loop.repeats(run, is_new=False)
            if not repeats:
                self._taken, self._failure = False, None
            work = partial(self._pause, repeats) if is_look(repeats) else self._answer
            run = await self._within(run, work)
        except ToolError:
            if self._failure is not None:  # why the outputs were not taken says more
                raise self._failure from None
            await self._react(run, self._deadline.wait_options.on_timeout)
            raise
        return await self._waiter.wait_within(self._deadline, run, run.thread_id)

    async def _pause(self, count: int, run: Run) -> Run:
        runtime = self._settings.runtime
        await runtime.sleep(
            retry.poll_pause(self._deadline.wait_options.policy, count, runtime.chance())
        )
        return run

    async def _answer(self, run: Run) -> Run:
        if isinstance(self._failure, _REFUSALS):
            raise self._failure
        outputs = await self._loop.answer(run)
        try:
            ids = {"thread_id": run.thread_id, "run_id": run.id}
            submit = SubmitFlow(self._pipeline, ids, outputs, self._deadline.left())
            run = await submit.make()
        except APIError as failure:
            # Refused: it has ended, or somebody else has answered. Or the server is away: the
            # outputs are kept, and the run will say whether it still wants them.
            if not isinstance(failure, _REFUSALS) and not is_transient(failure):
                raise
            self._failure = None if self._taken else failure
        else:
            self._taken, self._failure = True, None
        return run

    async def _within(self, run: Run, work: Callable[[Run], Awaitable[Run]]) -> Run:
        """Return what `work` returns, within what is left of the call's time."""
        try:
            with anyio.move_on_after(self._deadline.seconds_left()):
                return await work(run)
        except anyio.get_cancelled_exc_class():
            await self._react(run, self._deadline.wait_options.on_cancel)
            raise
        await self._react(run, self._deadline.wait_options.on_timeout)
        late = RunWaitTimeout(run, self._settings.runtime.monotonic() - self._began)
        if self._deadline.wait_options.on_timeout == "cancel":
            late.add_note("the server was asked to cancel it (on_timeout='cancel')")
        raise late

    async def _react(self, run: Run, reaction: str) -> None:
        if reaction == "cancel":
            await self._waiter.cancel_quietly(
                run.id, run.thread_id, self._deadline.wait_options.options
            )
