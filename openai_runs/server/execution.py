"""One execution of a run: claim it, make one model call, write down what came of it.

A run that calls tools is executed again after the outputs came, so an execution never
loops. It may be cut off anywhere: what it wrote is committed, what it did not write is
done again by the next one, and what it writes too late is refused by its epoch.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import anyio
import msgspec

from openai_runs.server.backends.base import (
    Backend,
    Finish,
    FinishReason,
    ModelEvent,
    ModelFailure,
    ModelRequest,
    TextDelta,
    ToolCallDelta,
    Turn,
)
from openai_runs.server.clock import Clock
from openai_runs.server.making import new_id
from openai_runs.server.progress import Ending, LostRace, step_message_id
from openai_runs.server.refusals import StoreUnavailable
from openai_runs.server.store import Claim, History, Store
from openai_runs.types.runs import RunLastError
from openai_runs.types.steps import FunctionCallResult, FunctionToolCall

__all__ = ["Execution", "Executor", "insist"]

T = TypeVar("T")

_STORE_PAUSE: Final = 0.5
"""Seconds before a write is tried again that the disk refused."""
_CALL_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_INCOMPLETE: Final = {
    FinishReason.LENGTH: "max_completion_tokens",
    FinishReason.PROMPT_LENGTH: "max_prompt_tokens",
}

_logger = logging.getLogger("openai_runs.server")


async def insist(write: Callable[[], Awaitable[T]]) -> T:
    """Return what `write` returns, trying again for as long as the disk refuses."""
    while True:
        try:
            return await write()
        except StoreUnavailable:
            await anyio.sleep(_STORE_PAUSE)


class Execution:
    """What is known of an execution that is under way."""

    def __init__(self) -> None:
        """Start with nothing written."""
        self.scope = anyio.CancelScope()
        self.claim: Claim | None = None
        self.begun = False
        """Whether this execution writes a message."""
        self._parts: list[str] = []

    @property
    def text(self) -> str:
        """Return what was written so far."""
        return "".join(self._parts)

    def write(self, text: str) -> None:
        """Add to what was written."""
        self._parts.append(text)


class Executor:
    """Executes runs, with a backend, on a store."""

    def __init__(self, store: Store, backend: Backend, clock: Clock) -> None:
        """Keep the three."""
        self._store = store
        self._backend = backend
        self._clock = clock

    def _now(self) -> int:
        return int(self._clock.now())

    async def execute_run(self, run_id: str, execution: Execution) -> None:
        """Take the run one turn further; does nothing if it is not there to be executed.

        Cancellation: the run stays as it is stored.
        """
        claim = await insist(lambda: self._claim(run_id))
        if claim is None:
            return
        execution.claim = claim
        try:
            await self._take_turn(claim, execution)
        except LostRace as lost:
            _logger.debug("an execution came too late: %s", lost)

    async def _claim(self, run_id: str) -> Claim | None:
        # Shielded for the moment of one commit: whoever cancels must know what was claimed.
        claim = None
        with anyio.CancelScope(shield=True):
            claim = await self._store.claim(run_id, self._now())
        return claim  # noqa: RET504 - the scope might swallow, for all mypy knows

    async def _take_turn(self, claim: Claim, execution: Execution) -> None:
        try:
            finish, calls = await self._call_model(claim, execution)
            if calls and finish.reason == FinishReason.STOP:
                await self._require_action(claim, execution, calls, finish)
                return
            ending = _ending(finish, execution.text)
            if ending.status == "completed":
                await self._begin(claim, execution)
        except LostRace:
            raise
        except ModelFailure as failure:
            ending = _failed(failure.code, failure.message, execution.text)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if execution.scope.cancel_called or task is None or task.cancelling():
                raise
            # The backend cancelled something of its own; taken for ours, it would end the engine.
            _logger.exception("run %s failed: its backend was cancelled from inside", claim.run.id)
            ending = _failed("server_error", "The server had an error.", execution.text)
        except Exception:
            _logger.exception("run %s failed in the server", claim.run.id)
            ending = _failed("server_error", "The server had an error.", execution.text)
        await self._end(claim, ending)

    async def _end(self, claim: Claim, ending: Ending) -> None:
        await insist(
            lambda: self._store.end_run(claim.run.id, ending, self._now(), epoch=claim.epoch)
        )

    async def _call_model(
        self, claim: Claim, execution: Execution
    ) -> tuple[Finish, list[FunctionToolCall]]:
        spent = _spent_limit(claim)
        if spent is not None:
            return Finish(reason=spent), []
        request = await self._request(claim)
        calls: dict[int, ToolCallDelta] = {}
        finish: Finish | None = None
        async with _closing(self._backend.respond(request)) as events:
            async for event in events:
                match event:
                    case TextDelta() if event.text:
                        await self._begin(claim, execution)
                        execution.write(event.text)
                    case ToolCallDelta():
                        calls[event.index] = _merge(calls.get(event.index), event)
                    case Finish():
                        finish = event
        if finish is None:
            message = "The model's answer was cut short."
            raise ModelFailure(message)
        return finish, _tool_calls(calls, request)

    async def _begin(self, claim: Claim, execution: Execution) -> None:
        """See that there is a message to write: the one a killed execution had begun, or a new."""
        if execution.begun:
            return
        if claim.message_id is None:
            await insist(lambda: self._store.begin_message(claim.run.id, claim.epoch, self._now()))
        execution.begun = True

    async def _request(self, claim: Claim) -> ModelRequest:
        strategy = claim.run.truncation_strategy
        last = strategy.last_messages if strategy and strategy.kind == "last_messages" else None
        history = await insist(lambda: self._store.history(claim.run, last))
        return ModelRequest(
            run=claim.run,
            messages=[m for m in history.messages if m.status == "completed" or m.content],
            turns=_turns(history),
            spent=claim.spent,
            reasoning_effort=claim.reasoning_effort,
        )

    async def _require_action(
        self, claim: Claim, execution: Execution, calls: list[FunctionToolCall], finish: Finish
    ) -> None:
        turn = Ending(status="completed", text=execution.text, usage=finish.usage)
        if not execution.begun:  # a message that a killed execution had begun stays unwritten
            error = RunLastError(code="server_error", message="The server was restarted.")
            turn = Ending(status="failed", error=error, usage=finish.usage)
        await insist(
            lambda: self._store.require_action(claim.run.id, claim.epoch, calls, turn, self._now())
        )


@asynccontextmanager
async def _closing(events: AsyncIterator[ModelEvent]) -> AsyncIterator[AsyncIterator[ModelEvent]]:
    try:
        yield events
    finally:
        if isinstance(events, AsyncGenerator):
            await events.aclose()


def _spent_limit(claim: Claim) -> str | None:
    """Return which limit the run's earlier model calls have met."""
    run, spent = claim.run, claim.spent
    if spent.completion_tokens >= (run.max_completion_tokens or math.inf):
        return FinishReason.LENGTH
    if spent.prompt_tokens >= (run.max_prompt_tokens or math.inf):
        return FinishReason.PROMPT_LENGTH
    return None


def _ending(finish: Finish, text: str) -> Ending:
    reason = _INCOMPLETE.get(finish.reason)
    if reason is not None:
        return Ending(status="incomplete", reason=reason, text=text, usage=finish.usage)
    if finish.reason == FinishReason.CONTENT_FILTER:
        message = "The model's content filter held its answer back."
        return Ending(
            status="failed",
            error=RunLastError(code="invalid_prompt", message=message),
            text=text,
            usage=finish.usage,
            filtered=True,
        )
    return Ending(status="completed", text=text, usage=finish.usage)


def _failed(code: str, message: str, text: str) -> Ending:
    return Ending(status="failed", error=RunLastError(code=code, message=message), text=text)


def _merge(call: ToolCallDelta | None, more: ToolCallDelta) -> ToolCallDelta:
    if call is None:
        return more
    return msgspec.structs.replace(
        call,
        id=call.id or more.id,
        name=call.name or more.name,
        arguments=call.arguments + more.arguments,
    )


def _tool_calls(calls: dict[int, ToolCallDelta], request: ModelRequest) -> list[FunctionToolCall]:
    """Return the calls, each with an id that no other call of the run has."""
    taken = {call.id for turn in request.turns for call in turn.tool_calls}
    built = []
    for _, call in sorted(calls.items()):
        if not call.name:
            message = "The model called a tool without a name."
            raise ModelFailure(message)
        known = call.id in taken or not _CALL_ID.match(call.id)
        call_id = new_id("call") if known else call.id
        taken.add(call_id)
        function = FunctionCallResult(name=call.name, arguments=call.arguments)
        built.append(FunctionToolCall(id=call_id, function=function))
    return built


def _turns(history: History) -> list[Turn]:
    """Return the run's earlier model calls: a text, tool calls, or a text and its calls."""
    turns = []
    text = ""
    for step in history.steps:
        if step.status != "completed":
            continue
        message_id = step_message_id(step)
        if message_id is not None:
            written = history.written.get(message_id)
            text = written.text if written is not None else ""
        else:
            calls = [call for call in step.tool_calls if isinstance(call, FunctionToolCall)]
            turns.append(Turn(text=text, tool_calls=calls))
            text = ""
    return turns
