"""One execution of a run: claim it, make one model call, write down what came of it.

A run that calls tools is executed again after the outputs came, so an execution never
loops. It may be cut off anywhere: what it wrote is committed, what it did not write is
done again by the next one, and what it writes too late is refused by its epoch.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
)
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import anyio
import anyio.lowlevel
import msgspec

from openai_runs._log_ids import LogIds
from openai_runs._tracing import ServerTracing, Span
from openai_runs.server.api_errors import OutcomeUnknown, StoreUnavailable
from openai_runs.server.backends.base import (
    Backend,
    Echoed,
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
from openai_runs.server.events.subscribers import Subscribers
from openai_runs.server.execution.draft import Draft
from openai_runs.server.execution.flusher import STORE_RETRY_DELAY, Flusher
from openai_runs.server.objects.hosted_tools import hosted_tools, without_hosted
from openai_runs.server.objects.transitions import Ending, LostRace, step_message_id
from openai_runs.server.store import Claim, History, Store, claims, runs
from openai_runs.types.runs import Run, RunLastError
from openai_runs.types.steps import FunctionToolCall

__all__ = ["Execution", "Executor", "retry_unavailable"]

T = TypeVar("T")

_INCOMPLETE: Final = {
    FinishReason.LENGTH: "max_completion_tokens",
    FinishReason.PROMPT_LENGTH: "max_prompt_tokens",
}

_ECHOED: Final = msgspec.json.Decoder(Echoed)

_logger = logging.getLogger("openai_runs.server")


async def retry_unavailable(call: Callable[[], Awaitable[T]]) -> T:
    """Return what `call` returns, retried for as long as the store is unavailable."""
    while True:
        try:
            return await call()
        except StoreUnavailable:
            await anyio.sleep(STORE_RETRY_DELAY)


class Execution:
    """What is known of an execution that is under way."""

    def __init__(self) -> None:
        """Start with nothing claimed; who has claimed the run says so."""
        self.scope = anyio.CancelScope()
        self.claim: Claim | None = None
        self.draft: Draft | None = None
        """What it writes, once it has claimed the run."""
        self.attempts: int | None = None
        """In a trial of the run: the trials before it in which the server crashed."""
        self.abandoned = False
        """Whether it was cancelled and goes on all the same; its run was put back."""
        self.is_ending = False
        """Whether all that it still does is to store the end of the run."""
        self.span: Span | None = None


class _CancelledInside(Exception):  # noqa: N818 - what it stands for is no error either
    """The backend cancelled something of its own; mistaken for ours, it would end the engine."""


class Executor:
    """Executes runs, with a backend, on a store, for its subscribers."""

    def __init__(
        self,
        store: Store,
        backend: Backend,
        clock: Clock,
        subscribers: Subscribers,
        tracing: ServerTracing | None = None,
    ) -> None:
        """Keep the five."""
        self._tracing = tracing
        self._store = store
        self._backend = backend
        self._clock = clock
        self._subscribers = subscribers

    def _now(self) -> int:
        return int(self._clock.now())

    async def execute_run(self, run_id: str, execution: Execution) -> None:
        """Execute the next turn of the run; does nothing if there is none.

        Cancellation: the run stays as it is stored.
        """
        claim = execution.claim
        if claim is None:
            claim = await retry_unavailable(lambda: self._claim(run_id, execution))
        if claim is None:
            return
        execution.claim = claim
        whole = await retry_unavailable(lambda: self._complete(claim))
        try:
            if self._tracing is None:
                await self._make_turn(whole, execution)
                return
            with self._tracing.execution(whole.run) as execution.span:
                await self._make_turn(whole, execution)
        except LostRace as lost:
            _logger.debug("an execution came too late: %s", lost, extra=_log_ids(claim.run))

    async def _claim(self, run_id: str, execution: Execution) -> Claim | None:
        # Shielded for the moment of one commit: whoever cancels must know what was claimed.
        claim = None
        with anyio.CancelScope(shield=True):
            claim = await self._store.write(
                claims.claim, run_id, self._now(), attempts=execution.attempts
            )
        return claim  # noqa: RET504 - the scope might swallow, for all mypy knows

    async def _complete(self, claim: Claim) -> Claim:
        run = await self._store.shared_json.complete(claim.run, claim.stored)
        return msgspec.structs.replace(claim, run=run)

    async def _make_turn(self, claim: Claim, execution: Execution) -> None:
        request = await self._request(claim)
        draft = execution.draft = Draft(
            claim.run,
            self._now,
            message_id=claim.message_id,
            step_id=claim.step.id if claim.step is not None else None,
            used_ids=[call.id for turn in request.turns for call in turn.tool_calls],
        )
        try:
            finish = await self._perform(claim, execution, draft, request)
            draft.check()
            if draft.calls and finish.reason == FinishReason.STOP:
                await self._require_action(claim, draft, finish)
                if execution.span is not None:
                    execution.span.set_outcome("requires_action", finish.usage)
                return
            ending = _ending(finish, draft)
            if ending.status == "completed":
                draft.open_message()
        except (LostRace, OutcomeUnknown):
            raise
        except ModelFailure as failure:
            ending = _failed(failure.code, failure.message, draft)
        except Exception:
            words = "run %s failed in the server"
            _logger.exception(words, claim.run.id, extra=_log_ids(claim.run))
            ending = _failed("server_error", "The server had an error.", draft)
        if execution.span is not None:
            code = None if ending.error is None else ending.error.code
            execution.span.set_outcome(ending.status, ending.usage, error_type=code)
        execution.is_ending = True
        await self._end(claim, draft, ending)

    async def _end(self, claim: Claim, draft: Draft, ending: Ending) -> None:
        run_id, epoch, writings = claim.run.id, claim.epoch, draft.pop_writings()
        await retry_unavailable(
            lambda: self._store.write(
                claims.end, run_id, ending, self._now(), writings=writings, epoch=epoch
            )
        )

    async def _perform(
        self, claim: Claim, execution: Execution, draft: Draft, request: ModelRequest
    ) -> Finish:
        """Make the model call, and store what comes while it comes."""
        spent = _spent_limit(claim)
        if spent is not None:
            return Finish(reason=spent)
        flusher = Flusher(self._store, self._subscribers, claim, draft, self._now)
        failure: Exception | None = None
        finish: Finish | None = None
        async with anyio.create_task_group() as group:
            with flusher.flushing(group):
                try:
                    finish = await self._model_call(draft, request, flusher)
                except asyncio.CancelledError as error:
                    if _is_cancelled(execution):
                        raise
                    failure = _CancelledInside()
                    failure.__cause__ = error
                except Exception as error:  # raised below, and not as one of a group
                    failure = error
        if flusher.failure is not None or failure is not None:
            try:
                raise flusher.failure or failure  # type: ignore[misc]  # one of them is there
            finally:
                del flusher, failure  # its traceback holds this frame, and the whole answer with it
        if finish is None:
            message = "The model's answer was cut short."
            raise ModelFailure(message)
        return finish

    def _model_call(
        self, draft: Draft, request: ModelRequest, flusher: Flusher
    ) -> Coroutine[Any, Any, Finish | None]:
        if self._tracing is None:
            return self._call_model(draft, request, flusher)
        return self._traced_call(self._tracing, draft, request, flusher)

    async def _traced_call(
        self, tracing: ServerTracing, draft: Draft, request: ModelRequest, flusher: Flusher
    ) -> Finish | None:
        """Make the model call within a span, whose trace goes out with it."""
        with tracing.chat(request.run.model) as span:
            span.set_input(lambda: msgspec.json.encode(_asked(request)).decode())
            request = msgspec.structs.replace(request, headers=span.headers())
            try:
                finish = await self._call_model(draft, request, flusher)
            except ModelFailure as failure:
                span.fail(failure.code)
                raise
            if finish is not None:
                span.set_outcome(finish.reason, finish.usage)
            span.set_output(lambda: msgspec.json.encode([_said(draft)]).decode())
            return finish

    async def _call_model(
        self, draft: Draft, request: ModelRequest, flusher: Flusher
    ) -> Finish | None:
        finish: Finish | None = None
        async with _closing(self._backend.respond(request)) as events:
            async for event in events:
                match event:
                    case TextDelta() if event.text:
                        draft.add_text(event.text)
                    case ToolCallDelta():
                        draft.add_call(event)
                    case Finish():
                        finish = event
                if draft.is_large:  # a backend that never waits lets nobody else do anything
                    flusher.flush_soon()
                    await anyio.lowlevel.checkpoint()
        return finish

    async def _request(self, claim: Claim) -> ModelRequest:
        history = claim.history
        if history is None:
            history = await retry_unavailable(lambda: self._store.read(runs.history, claim.run))
        return ModelRequest(
            run=_run_for_model(claim.run, first=not history.steps),
            messages=[m for m in history.messages if m.status == "completed" or m.content],
            turns=_turns(history),
            spent=claim.spent,
            reasoning_effort=claim.reasoning_effort,
        )

    async def _require_action(self, claim: Claim, draft: Draft, finish: Finish) -> None:
        echoed = draft.as_placed(finish.echoed)
        turn = Ending(
            status="completed",
            text=draft.text,
            usage=finish.usage,
            calls=draft.calls,
            echoed=None if echoed is None else msgspec.json.encode(echoed).decode(),
        )
        if not draft.begun:  # a message that a killed execution had begun stays unwritten
            error = RunLastError(code="server_error", message="The server was restarted.")
            turn = msgspec.structs.replace(turn, status="failed", error=error, text=None)
        run_id, epoch, writings = claim.run.id, claim.epoch, draft.pop_writings()
        await retry_unavailable(
            lambda: self._store.write(
                claims.require_action, run_id, epoch, writings, turn=turn, now=self._now()
            )
        )


def _asked(request: ModelRequest) -> list[dict[str, Any]]:
    """Return what the model is asked, as a span shows it."""
    messages = [
        {"role": one.role, "parts": [{"type": "text", "content": one.text}]}
        for one in request.messages
    ]
    if request.run.instructions:
        parts = [{"type": "text", "content": request.run.instructions}]
        messages.insert(0, {"role": "system", "parts": parts})
    for turn in request.turns:
        messages.append({"role": "assistant", "parts": _parts(turn.text, turn.tool_calls)})
        outputs = [
            {"type": "tool_call_response", "id": call.id, "response": call.function.output}
            for call in turn.tool_calls
        ]
        messages.append({"role": "tool", "parts": outputs})
    return messages


def _said(draft: Draft) -> dict[str, Any]:
    """Return what the model has said, as a span shows it."""
    return {"role": "assistant", "parts": _parts(draft.text, draft.calls)}


def _parts(text: str, calls: Iterable[FunctionToolCall]) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = [{"type": "text", "content": text}] if text else []
    return said + [
        {
            "type": "tool_call",
            "id": call.id,
            "name": call.function.name,
            "arguments": call.function.arguments,
        }
        for call in calls
    ]


def _is_cancelled(execution: Execution) -> bool:
    """Return whether somebody asked for the cancellation of this task."""
    task = asyncio.current_task()
    return execution.scope.cancel_called or task is None or task.cancelling() > 0


@asynccontextmanager
async def _closing(events: AsyncIterator[ModelEvent]) -> AsyncIterator[AsyncIterator[ModelEvent]]:
    try:
        yield events
    finally:
        if isinstance(events, AsyncGenerator):
            await events.aclose()


def _log_ids(run: Run) -> LogIds:
    return {"run_id": run.id, "thread_id": run.thread_id, "assistant_id": run.assistant_id}


def _run_for_model(run: Run, *, first: bool) -> Run:
    left_out = hosted_tools(run)
    if left_out and first:
        words = "run %s: the model is not told of %s"
        _logger.info(words, run.id, ", ".join(left_out), extra=_log_ids(run))
    return without_hosted(run)


def _spent_limit(claim: Claim) -> str | None:
    """Return which limit the run's earlier model calls have met."""
    run, spent = claim.run, claim.spent
    if spent.completion_tokens >= (run.max_completion_tokens or math.inf):
        return FinishReason.LENGTH
    if spent.prompt_tokens >= (run.max_prompt_tokens or math.inf):
        return FinishReason.PROMPT_LENGTH
    return None


def _ending(finish: Finish, draft: Draft) -> Ending:
    written = Ending(status="completed", text=draft.text, calls=draft.calls, usage=finish.usage)
    reason = _INCOMPLETE.get(finish.reason)
    if reason is not None:
        return msgspec.structs.replace(written, status="incomplete", reason=reason)
    if finish.reason == FinishReason.CONTENT_FILTER:
        word = f" ({finish.word})" if finish.word else ""
        message = f"The model's content filter held its answer back{word}."
        error = RunLastError(code="invalid_prompt", message=message)
        return msgspec.structs.replace(written, status="failed", error=error, filtered=True)
    return written


def _failed(code: str, message: str, draft: Draft) -> Ending:
    error = RunLastError(code=code, message=message)
    return Ending(status="failed", error=error, text=draft.text, calls=draft.calls)


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
            stored = history.echoed.get(step.id)
            echoed = None if stored is None else _ECHOED.decode(stored)
            turns.append(Turn(text=text, tool_calls=calls, echoed=echoed))
            text = ""
    return turns
