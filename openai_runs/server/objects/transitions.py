"""How a run, its steps and its messages change status. Pure: objects in, objects out.

Every change of a status goes through `moved`, which asks the table of `lifecycle` first.
Times never go backwards within a run, whatever the machine's clock does.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec

from openai_runs._protocol.lifecycle import may_move
from openai_runs.server.objects.builders import new_id, text_content
from openai_runs.types.base import TERMINAL_STATUSES
from openai_runs.types.messages import IncompleteMessageDetails, Message
from openai_runs.types.runs import (
    FunctionCall,
    IncompleteRunDetails,
    RequiredAction,
    RequiredToolCall,
    Run,
    RunLastError,
    RunStatus,
    SubmitToolOutputsAction,
    UnknownToolCall,
    Usage,
)
from openai_runs.types.steps import (
    FunctionToolCall,
    MessageCreation,
    MessageCreationDetails,
    RunStep,
    RunStepStatus,
    ToolCallsDetails,
)

__all__ = [
    "Delta",
    "Ending",
    "LostRace",
    "Opening",
    "Writing",
    "answered_step",
    "ended_message",
    "ended_run",
    "ended_step",
    "message_step",
    "moved",
    "new_message",
    "step_message_id",
    "tool_step",
    "waiting",
    "with_calls",
]

_STAMPS: Final = {
    RunStatus.COMPLETED: "completed_at",
    RunStatus.FAILED: "failed_at",
    RunStatus.CANCELLED: "cancelled_at",
}
_STEP_STATUS: Final = {
    # A run that met a limit: what it wrote so far is done, and steps know no `incomplete`.
    RunStatus.INCOMPLETE: RunStepStatus.COMPLETED,
}
_CALLS_STATUS: Final = {
    # Calls that no run waits for any more were not carried out.
    RunStatus.COMPLETED: RunStepStatus.FAILED,
    RunStatus.INCOMPLETE: RunStepStatus.CANCELLED,
}
_STEP_STAMPS: Final = {
    RunStepStatus.COMPLETED: "completed_at",
    RunStepStatus.FAILED: "failed_at",
    RunStepStatus.CANCELLED: "cancelled_at",
    RunStepStatus.EXPIRED: "expired_at",
}
_MESSAGE_REASONS: Final = {
    RunStatus.INCOMPLETE: "max_tokens",
    RunStatus.CANCELLED: "run_cancelled",
    RunStatus.EXPIRED: "run_expired",
    RunStatus.FAILED: "run_failed",
}


class LostRace(Exception):  # noqa: N818 - an outcome, not a fault
    """The run is not where the writer thought: somebody else changed it first."""


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ends, and what is left to write down."""

    status: str
    error: RunLastError | None = None
    """Why, with `failed`."""
    reason: str | None = None
    """Which limit, with `incomplete`."""
    text: str | None = None
    """All of the message being written, as far as it got; None: what is stored."""
    usage: Usage | None = None
    """Tokens of the model call that ended it."""
    filtered: bool = False
    """Whether a content filter broke the message off."""
    calls: list[FunctionToolCall] = []
    """The tool calls being written, as far as they got."""
    echoed: str | None = None
    """JSON of what the model's endpoint wants back with the turn; nobody else sees it."""


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """A step begins, with the message it writes."""

    step: RunStep
    message: Message | None = None


class Delta(msgspec.Struct, frozen=True):
    """A piece of a message or of a step."""

    event: str
    """The name of its event."""
    data: bytes
    """Its JSON."""


Writing: TypeAlias = Opening | Delta
"""What an execution writes while its model speaks."""


def moved(run: Run, status: str, now: int, **changes: Any) -> Run:
    """Return the run in its new status, with the times and nulls that belong to it.

    Raises:
        LostRace: The table of the life cycle has no such move.
    """
    if not may_move(run.status, status):
        message = f"{run.id}: {run.status} -> {status}"
        raise LostRace(message)
    at = max(now, run.created_at, run.started_at or 0)
    changes.setdefault("required_action", None)
    if status == RunStatus.IN_PROGRESS and run.started_at is None:
        changes["started_at"] = at
    if status in _STAMPS:
        changes[_STAMPS[status]] = at
    if status in TERMINAL_STATUSES:
        changes["expires_at"] = None
    return msgspec.structs.replace(run, status=status, **changes)


def waiting(run: Run, calls: list[FunctionToolCall], now: int) -> Run:
    """Return the run as one that waits for the outputs of these calls."""
    wanted: list[RequiredToolCall | UnknownToolCall] = [
        RequiredToolCall(
            id=call.id,
            function=FunctionCall(name=call.function.name, arguments=call.function.arguments),
        )
        for call in calls
    ]
    action = RequiredAction(
        kind="submit_tool_outputs", submit_tool_outputs=SubmitToolOutputsAction(tool_calls=wanted)
    )
    return moved(run, RunStatus.REQUIRES_ACTION, now, required_action=action)


def ended_run(run: Run, ending: Ending, usage: Usage, now: int) -> Run:
    """Return the run at its end; `usage` is that of all its model calls."""
    details = IncompleteRunDetails(reason=ending.reason) if ending.reason else None
    return moved(
        run,
        ending.status,
        now,
        last_error=ending.error,
        incomplete_details=details,
        usage=usage,
    )


def new_message(run: Run, now: int) -> Message:
    """Return the message a run begins to write."""
    return Message(
        id=new_id("msg"),
        created_at=now,
        thread_id=run.thread_id,
        status="in_progress",
        role="assistant",
        assistant_id=run.assistant_id,
        run_id=run.id,
        attachments=[],
        metadata={},
    )


def _step(run: Run, kind: str, details: Any, now: int) -> RunStep:
    return RunStep(
        id=new_id("step"),
        created_at=now,
        assistant_id=run.assistant_id,
        thread_id=run.thread_id,
        run_id=run.id,
        type=kind,
        status=RunStepStatus.IN_PROGRESS,
        step_details=details,
        metadata={},
    )


def message_step(run: Run, message: Message, now: int) -> RunStep:
    """Return the step of writing this message."""
    details = MessageCreationDetails(message_creation=MessageCreation(message_id=message.id))
    return _step(run, "message_creation", details, now)


def tool_step(run: Run, now: int) -> RunStep:
    """Return the step of tool calls that are about to come."""
    return _step(run, "tool_calls", ToolCallsDetails(tool_calls=[]), now)


def with_calls(step: RunStep, calls: list[FunctionToolCall]) -> RunStep:
    """Return the step with its calls, their outputs still open."""
    details = ToolCallsDetails(tool_calls=list(calls))
    return msgspec.structs.replace(step, step_details=details)


def _with_outputs(step: RunStep, outputs: dict[str, str]) -> RunStep:
    replace = msgspec.structs.replace
    calls = [
        replace(call, function=replace(call.function, output=outputs[call.id]))
        for call in step.tool_calls
        if isinstance(call, FunctionToolCall)
    ]
    return replace(step, step_details=ToolCallsDetails(tool_calls=list(calls)))


def step_message_id(step: RunStep) -> str | None:
    """Return the message the step writes, if it writes one."""
    details = step.step_details
    if isinstance(details, MessageCreationDetails):
        return details.message_creation.message_id
    return None


def answered_step(step: RunStep, outputs: dict[str, str], usage: Usage, now: int) -> RunStep:
    """Return the step of tool calls that all have their outputs."""
    return _ended(_with_outputs(step, outputs), RunStepStatus.COMPLETED, usage, now)


def ended_step(step: RunStep, ending: Ending, usage: Usage, now: int) -> RunStep:
    """Return the step as the end of its turn, or of its run, leaves it."""
    statuses = _STEP_STATUS if step_message_id(step) is not None else _CALLS_STATUS
    status = statuses.get(ending.status, ending.status)
    if ending.calls and step_message_id(step) is None:
        step = with_calls(step, ending.calls)
    error = _step_error(ending.error) if status == RunStepStatus.FAILED else None
    return _ended(step, status, usage, now, last_error=error)


def _ended(step: RunStep, status: str, usage: Usage, now: int, **changes: Any) -> RunStep:
    changes[_STEP_STAMPS[status]] = max(now, step.created_at)
    return msgspec.structs.replace(step, status=status, usage=usage, **changes)


def _step_error(error: RunLastError | None) -> RunLastError:
    """Return the error a step may show: steps know no `invalid_prompt` (OpenAPI)."""
    if error is None:
        return RunLastError(code="server_error", message="The server was restarted.")
    if error.code == "invalid_prompt":
        return RunLastError(code="server_error", message=error.message)
    return error


def ended_message(message: Message, ending: Ending, now: int) -> Message:
    """Return the message as the end of its turn, or of its run, leaves it."""
    at = max(now, message.created_at)
    changes: dict[str, Any] = {}
    if ending.text or (ending.text is not None and ending.status == RunStatus.COMPLETED):
        changes["content"] = text_content(ending.text)
    if ending.status == RunStatus.COMPLETED:
        changes.update(status="completed", completed_at=at)
    else:
        reason = "content_filter" if ending.filtered else _MESSAGE_REASONS[ending.status]
        changes.update(
            status="incomplete",
            incomplete_at=at,
            incomplete_details=IncompleteMessageDetails(reason=reason),
        )
    return msgspec.structs.replace(message, **changes)
