"""Runs in words, for people.

What may not live here: where the words go, and what they look like there.
"""

import time
from collections.abc import Iterator

from openai_runs import Message, Run, RunResult, RunStep
from openai_runs.types import (
    Assistant,
    CodeInterpreterToolCall,
    FunctionTool,
    FunctionToolCall,
    Thread,
    Tool,
    Usage,
)

__all__ = [
    "assistant_row",
    "describe",
    "describe_assistant",
    "moment",
    "run_row",
    "thread_row",
    "tokens",
    "verdict",
]


def verdict(run: Run) -> str:
    """Return the run's status with what explains it."""
    if run.last_error is not None:
        code, message = run.last_error.code, " ".join(run.last_error.message.split())
        return f"{run.status} ({code}): {message}"
    if run.incomplete_details is not None and run.incomplete_details.reason:
        return f"{run.status} ({run.incomplete_details.reason})"
    if run.tool_calls:
        calls = [f"{call.function.name}({call.function.arguments})" for call in run.tool_calls]
        return f"{run.status}: {', '.join(calls)}"
    return run.status


def tokens(usage: Usage | None) -> str:
    """Return the tokens used; an empty text if there were none.

    >>> tokens(Usage(prompt_tokens=12, completion_tokens=5, total_tokens=17))
    '12 in, 5 out'
    """
    if usage is None or not usage.total_tokens:
        return ""
    return f"{usage.prompt_tokens} in, {usage.completion_tokens} out"


def run_row(run: Run) -> tuple[str, str, str, str, str]:
    """Return what a list shows of a run."""
    if not isinstance(run, Run):  # an item that could not be read, which has few names
        names = ("id", "thread_id", "status")
        run_id, thread_id, status = (str(getattr(run, name, "?")) for name in names)
        return run_id, thread_id, status, "", ""
    return run.id, run.thread_id, run.status, moment(run.created_at), run.model


def thread_row(thread: Thread) -> tuple[str, str, str]:
    """Return what a list shows of a thread."""
    if not isinstance(thread, Thread):
        return str(getattr(thread, "id", "?")), "", ""
    metadata = ", ".join(f"{key}={value}" for key, value in (thread.metadata or {}).items())
    return thread.id, moment(thread.created_at), metadata


def assistant_row(assistant: Assistant) -> tuple[str, str, str, str]:
    """Return what a list shows of an assistant."""
    if not isinstance(assistant, Assistant):
        return str(getattr(assistant, "id", "?")), "", "", ""
    return assistant.id, moment(assistant.created_at), assistant.model, assistant.name or ""


def describe_assistant(assistant: Assistant) -> Iterator[tuple[str, str]]:
    """Yield what it is about, and the words."""
    metadata = assistant.metadata or {}
    facts = {
        "assistant": assistant.id,
        "name": assistant.name,
        "description": assistant.description,
        "model": assistant.model,
        "created": moment(assistant.created_at),
        "tools": ", ".join(map(_tool, assistant.tools)),
        "metadata": ", ".join(f"{key}={value}" for key, value in metadata.items()),
        "instructions": assistant.instructions,
    }
    yield from ((name, text) for name, text in facts.items() if text)


def _tool(tool: Tool) -> str:
    """Return the name of a function, or the kind of another tool."""
    return tool.function.name if isinstance(tool, FunctionTool) else str(tool.type)


def describe(result: RunResult) -> Iterator[tuple[str, str]]:
    """Yield the run, its steps and its messages: what it is about, and the words."""
    run = result.run
    facts = {
        "run": run.id,
        "status": verdict(run),
        "thread": run.thread_id,
        "assistant": run.assistant_id,
        "model": run.model,
        "time": _times(run),
        "tokens": tokens(run.usage),
    }
    yield from ((name, text) for name, text in facts.items() if text)
    for step in result.steps:
        yield "step", _heading(step)
        yield from (("", text) for text in _calls(step))
    for message in result.messages:
        if isinstance(message, Message):
            yield "message", f"{message.id}, {message.role}, {message.status}"
            yield "", message.text or "(no text)"
        else:
            yield "message", "of a shape this version cannot read; --json has all of it"


def _heading(step: RunStep) -> str:
    parts = [step.id, step.type, step.status]
    if isinstance(step, RunStep):  # else an item that could not be read, which has few names
        parts.append(f"tokens {tokens(step.usage)}" if tokens(step.usage) else "")
        if step.last_error is not None:
            parts.append(f"{step.last_error.code}: {step.last_error.message}")
    return ", ".join(filter(None, parts))


def _calls(step: RunStep) -> Iterator[str]:
    """Yield what the step had called, and what came of it."""
    for call in step.tool_calls if isinstance(step, RunStep) else []:
        if isinstance(call, FunctionToolCall):
            yield f"{call.function.name}({call.function.arguments})"
            if call.function.output is not None:
                yield f"-> {call.function.output}"
        elif isinstance(call, CodeInterpreterToolCall):
            yield call.code_interpreter.input
        else:
            yield call.type


def _times(run: Run) -> str:
    created = f"created {moment(run.created_at)}"
    for ended in (run.completed_at, run.failed_at, run.cancelled_at):
        if ended is not None:
            return f"{created}, over after {ended - run.created_at} s"
    if run.expires_at is not None:
        return f"{created}, expires {moment(run.expires_at)}"
    return created


def moment(seconds: int) -> str:
    """Return a time of the wire as the clock on the wall shows it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
