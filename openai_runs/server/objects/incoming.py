"""Objects that come from elsewhere with their ids: parsed, checked, and put in our form. Pure.

A line holds one assistant, or one thread with all that is on it:

    {"assistant": {...}}
    {"thread": {...}, "messages": [...], "runs": [{..., "steps": [...]}]}

Messages, runs and steps stand oldest first. Their ids, times and order are kept. What our objects
have no field for is left out, and named. A run that was active is kept as one that expired, since
nobody goes on with it: the times of its end are its own, so that the same line always gives the
same objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Final, TypeVar

import msgspec

from openai_runs._protocol.lenient import decoder_for
from openai_runs._protocol.spec import check_id
from openai_runs.config import MAX_INTEGER, MAX_JSON_DEPTH
from openai_runs.server.objects.transitions import Ending, ended_message, ended_step
from openai_runs.types.assistants import Assistant
from openai_runs.types.base import ACTIVE_STATUSES
from openai_runs.types.messages import Message
from openai_runs.types.runs import Run, RunLastError, RunStatus, Usage
from openai_runs.types.steps import RunStep, RunStepStatus
from openai_runs.types.threads import Thread

__all__ = ["IncomingAssistant", "IncomingRun", "IncomingThread", "MisfitError", "parse"]

A = TypeVar("A", Assistant, Thread, Message, Run, RunStep)

_NONE: Final = Usage(prompt_tokens=0, completion_tokens=0, total_tokens=0)
_NOUNS: Final[dict[type, str]] = {
    Assistant: "assistant",
    Thread: "thread",
    Message: "message",
    Run: "run",
    RunStep: "step",
}


class MisfitError(Exception):
    """A line that cannot be kept; its text says what is wrong, and where."""

    def __init__(self, message: str, object_id: str = "", kind: str = "thread") -> None:
        """Keep what is known of the object."""
        super().__init__(message)
        self.object_id = object_id
        self.kind = kind


class IncomingAssistant(msgspec.Struct, frozen=True, kw_only=True):
    """An assistant."""

    assistant: Assistant
    left_out: list[str]


class IncomingRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is over, and its steps, oldest first."""

    run: Run
    steps: list[RunStep]


class IncomingThread(msgspec.Struct, frozen=True, kw_only=True):
    """A thread with all that is on it, oldest first."""

    thread: Thread
    messages: list[Message]
    runs: list[IncomingRun]
    ended: list[str]
    """Ids of the runs that were active."""
    left_out: list[str]
    """Paths of fields that are not kept."""


_NOTHING: Final = msgspec.Raw()


class _ThreadLine(msgspec.Struct, forbid_unknown_fields=True):
    assistant: msgspec.Raw = _NOTHING
    thread: msgspec.Raw = _NOTHING
    messages: list[msgspec.Raw] = []
    runs: list[msgspec.Raw] = []


class _Steps(msgspec.Struct):
    steps: list[msgspec.Raw] = []


_lines: Final = msgspec.json.Decoder(_ThreadLine)
_steps: Final = msgspec.json.Decoder(_Steps)


def parse(line: bytes) -> IncomingAssistant | IncomingThread:
    """Return what the line holds.

    Raises:
        MisfitError: It is no JSON, or not of this form, or two of its objects contradict each
            other.
    """
    try:
        found = _lines.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"the line cannot be parsed: {error or 'it is nested too deeply'}"
        raise MisfitError(message) from None
    if bool(bytes(found.assistant)) == bool(bytes(found.thread)):
        message = "the line must hold either a `thread` or an `assistant`"
        raise MisfitError(message)
    left: dict[str, None] = {}  # in the order of their first time
    if bytes(found.assistant):
        assistant = _read(Assistant, found.assistant, left)
        return IncomingAssistant(assistant=assistant, left_out=list(left))
    thread = _read(Thread, found.thread, left)
    try:
        return _thread(thread, found, left)
    except MisfitError as misfit:
        misfit.object_id = thread.id
        raise


def _thread(thread: Thread, found: _ThreadLine, left: dict[str, None]) -> IncomingThread:
    messages = [_read(Message, raw, left) for raw in found.messages]
    runs = [_run(raw, left) for raw in found.runs]
    steps = [step for run in runs for step in run.steps]
    for kind, ids in (
        ("messages", [message.id for message in messages]),
        ("runs", [run.run.id for run in runs]),
        ("steps", [step.id for step in steps]),
    ):
        if len(set(ids)) < len(ids):
            message = f"two of the {kind} have the same id"
            raise MisfitError(message)
    things: list[Message | Run | RunStep] = [*messages, *(each.run for each in runs), *steps]
    for thing in things:
        if thing.thread_id != thread.id:
            message = f"'{thing.id}' is on thread '{thing.thread_id}'"
            raise MisfitError(message)
    ended = [run.run.id for run in runs if run.run.status in ACTIVE_STATUSES]
    ends = {run.run.id: _end(run.run) for run in runs if run.run.id in ended}
    return IncomingThread(
        thread=thread,
        messages=[_ended_message(message, ends) for message in messages],
        runs=[_ended(run) if run.run.id in ends else run for run in runs],
        ended=ended,
        left_out=list(left),
    )


def _run(raw: msgspec.Raw, left: dict[str, None]) -> IncomingRun:
    run = _read(Run, raw, left, apart=("steps",))
    try:
        inside = _steps.decode(raw).steps
    except msgspec.ValidationError as error:
        message = f"run '{run.id}': {error}"
        raise MisfitError(message) from None
    steps = [_read(RunStep, step, left) for step in inside]
    for step in steps:
        if step.run_id != run.id:
            message = f"step '{step.id}' is of run '{step.run_id}', and stands with '{run.id}'"
            raise MisfitError(message)
    return IncomingRun(run=run, steps=steps)


def _read(kind: type[A], raw: msgspec.Raw, left: dict[str, None], apart: Iterable[str] = ()) -> A:
    """Return the object, and note in `left` what is not kept of it.

    Raises:
        MisfitError: It is not of that kind.
    """
    noun = _NOUNS[kind]
    try:
        thing = decoder_for(kind).decode(bytes(raw))
        wire = msgspec.json.decode(raw)
        _check_depth(raw, wire)
        check_id("id", thing.id)
        _check_time(thing)
    except (ValueError, RecursionError) as error:  # what cannot be decoded is a ValueError
        message = f"{noun}: {error or 'it is nested too deeply'}"
        raise MisfitError(message, kind="assistant" if kind is Assistant else "thread") from None
    kept = {name: value for name, value in wire.items() if name not in apart}
    left.update(dict.fromkeys(_lost(kept, thing, noun)))
    return thing


def _check_depth(raw: msgspec.Raw, wire: Any) -> None:
    """Refuse an object that some reader of it could not follow to its end.

    Raises:
        ValueError: It is one.
    """
    text = bytes(raw)
    if text.count(b"{") + text.count(b"[") > MAX_JSON_DEPTH and _is_deeper(wire, MAX_JSON_DEPTH):
        message = f"it is nested too deeply: at most {MAX_JSON_DEPTH} levels are kept"
        raise ValueError(message)


def _is_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inside = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(inner, levels - 1) for inner in inside)


def _check_time(thing: Assistant | Thread | Message | Run | RunStep) -> None:
    """Refuse a time that no column can hold.

    Raises:
        ValueError: It is one.
    """
    if not 0 <= thing.created_at <= MAX_INTEGER:
        message = f"'{thing.id}' has no time in `created_at`"
        raise ValueError(message)


@lru_cache
def _fields(kind: type[msgspec.Struct]) -> dict[str, str]:
    return {field.encode_name: field.name for field in msgspec.structs.fields(kind)}


def _lost(wire: Any, kept: Any, path: str) -> Iterator[str]:
    """Yield the paths of what has no field; nulls and what is empty say nothing."""
    if isinstance(kept, msgspec.Struct) and isinstance(wire, dict):
        names = _fields(type(kept))
        for name, value in wire.items():
            if name in names:
                yield from _lost(value, getattr(kept, names[name]), f"{path}.{name}")
            elif name != kept.__struct_config__.tag_field and value not in (None, "", [], {}):
                yield f"{path}.{name}"
    elif isinstance(kept, list) and isinstance(wire, list):
        for inner, each in zip(wire, kept, strict=False):
            yield from _lost(inner, each, f"{path}[]")


def _end(run: Run) -> int:
    """Return when an active run ended: at the latest, by itself."""
    return max(run.expires_at or 0, run.started_at or 0, run.created_at)


def _error(run: Run) -> RunLastError:
    message = (
        f"The run was {run.status} when its thread was exported; an imported run is not executed."
    )
    return RunLastError(code="server_error", message=message)


def _ended(incoming: IncomingRun) -> IncomingRun:
    """Return an active run as one that expired, its steps in progress too."""
    run, at = incoming.run, _end(incoming.run)
    ending = Ending(status=RunStatus.EXPIRED)
    steps = [
        ended_step(step, ending, step.usage or _NONE, at)
        if step.status == RunStepStatus.IN_PROGRESS
        else step
        for step in incoming.steps
    ]
    over = msgspec.structs.replace(
        run,
        status=RunStatus.EXPIRED,
        required_action=None,
        expires_at=None,
        last_error=_error(run),
        usage=run.usage or _NONE,
    )
    return IncomingRun(run=over, steps=steps)


def _ended_message(message: Message, ends: dict[str, int]) -> Message:
    """Return a message that an active run was writing as one that was broken off."""
    at = ends.get(message.run_id or "")
    if at is None or message.status != "in_progress":
        return message
    return ended_message(message, Ending(status=RunStatus.EXPIRED), at)
