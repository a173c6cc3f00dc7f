"""One short coroutine per operation: what was asked, put to the store, and the answer.

Each has the name of its operation in the table of endpoints. What may not live here: SQL,
and the reading of bytes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
import msgspec

from openai_runs._protocol import endpoints
from openai_runs._protocol.endpoints import Endpoint
from openai_runs._protocol.lifecycle import is_settled
from openai_runs.config import POLL_AFTER
from openai_runs.server.clock import Clock
from openai_runs.server.events.change_bus import ChangeBus
from openai_runs.server.events.subscribers import Subscribers
from openai_runs.server.http.request_parsing import page_query
from openai_runs.server.objects import builders
from openai_runs.server.objects.builders import build_message, build_new_run, build_thread, given
from openai_runs.server.store import Once, Position, RunState, Store, StreamStart
from openai_runs.types.assistants import Assistant
from openai_runs.types.base import Answer, Deleted, Page
from openai_runs.types.messages import Message
from openai_runs.types.runs import CreateThreadAndRun, Run
from openai_runs.types.steps import RunStep
from openai_runs.types.threads import CreateThread, Thread

__all__ = ["HANDLERS", "Call", "Service"]


_POLL_AFTER_MS: Final = str(round(POLL_AFTER * 1000))


@dataclass(frozen=True)
class Service:
    """What handlers work with."""

    store: Store
    change_bus: ChangeBus
    subscribers: Subscribers
    clock: Clock
    run_lifetime: int
    """Seconds from a run's creation to its expiry."""

    @property
    def now(self) -> int:
        """Return Unix seconds."""
        return int(self.clock.now())


@dataclass(frozen=True)
class Call:
    """One request, read."""

    service: Service
    ids: Mapping[str, str]
    query: Mapping[str, str]
    body: Any
    """The Struct of the operation; None where it has no body."""
    once: Once | None
    wait: int | None
    """Seconds of `Prefer: wait`."""
    streamed: bool = False
    """Whether the answer is a stream of events."""
    position: Position | None = None
    """The event after which a stream is to go on."""
    headers: dict[str, str] = field(default_factory=dict)
    """What the handler wants the answer to say besides."""

    @property
    def store(self) -> Store:
        """Return the store."""
        return self.service.store

    @property
    def now(self) -> int:
        """Return Unix seconds."""
        return self.service.now


async def list_assistants(call: Call) -> Page[Assistant]:
    """Answer listAssistants."""
    return await call.store.list_assistants(page_query(call.query))


async def create_assistant(call: Call) -> Assistant:
    """Answer createAssistant."""
    return await call.store.add_assistant(builders.build_assistant(call.body, call.now), call.once)


async def get_assistant(call: Call) -> Assistant:
    """Answer getAssistant."""
    return await call.store.get_assistant(call.ids["assistant_id"])


async def update_assistant(call: Call) -> Assistant:
    """Answer modifyAssistant."""
    changes = builders.assistant_changes(call.body)
    return await call.store.update_assistant(call.ids["assistant_id"], changes, call.once)


async def delete_assistant(call: Call) -> Deleted:
    """Answer deleteAssistant."""
    return await call.store.delete_assistant(call.ids["assistant_id"])


async def create_thread(call: Call) -> Thread:
    """Answer createThread."""
    thread, messages = _new_thread(call.body, call.now)
    return await call.store.add_thread(thread, messages, call.once)


async def create_thread_and_run(call: Call) -> Run | StreamStart:
    """Answer createThreadAndRun."""
    body: CreateThreadAndRun = call.body
    thread, messages = _new_thread(given(body.thread) or CreateThread(), call.now)
    now, lifetime = call.now, call.service.run_lifetime
    return await call.store.add_thread_and_run(
        thread,
        messages,
        body.assistant_id,
        lambda assistant: build_new_run(assistant, thread.id, body, now, lifetime),
        once=call.once,
        streamed=call.streamed,
    )


async def get_thread(call: Call) -> Thread:
    """Answer getThread."""
    return await call.store.get_thread(call.ids["thread_id"])


async def update_thread(call: Call) -> Thread:
    """Answer modifyThread."""
    changes = builders.thread_changes(call.body)
    return await call.store.update_thread(call.ids["thread_id"], changes, call.once)


async def delete_thread(call: Call) -> Deleted:
    """Answer deleteThread."""
    return await call.store.delete_thread(call.ids["thread_id"])


async def list_messages(call: Call) -> Page[Message]:
    """Answer listMessages."""
    run_id = call.query.get("run_id") or None
    return await call.store.list_messages(call.ids["thread_id"], page_query(call.query), run_id)


async def create_message(call: Call) -> Message:
    """Answer createMessage."""
    message = build_message(call.body, call.ids["thread_id"], call.now)
    return await call.store.add_message(message, call.once)


async def get_message(call: Call) -> Message:
    """Answer getMessage."""
    return await call.store.get_message(call.ids["thread_id"], call.ids["message_id"])


async def update_message(call: Call) -> Message:
    """Answer modifyMessage."""
    thread_id, message_id = call.ids["thread_id"], call.ids["message_id"]
    changes = builders.metadata_changes(call.body)
    return await call.store.update_message(thread_id, message_id, changes, call.once)


async def delete_message(call: Call) -> Deleted:
    """Answer deleteMessage."""
    return await call.store.delete_message(call.ids["thread_id"], call.ids["message_id"])


async def list_runs(call: Call) -> Page[Run]:
    """Answer listRuns."""
    return await call.store.list_runs(call.ids["thread_id"], page_query(call.query))


async def create_run(call: Call) -> Run | StreamStart:
    """Answer createRun."""
    thread_id, body = call.ids["thread_id"], call.body
    now, lifetime = call.now, call.service.run_lifetime
    return await call.store.add_run(
        thread_id,
        body.assistant_id,
        lambda assistant: build_new_run(assistant, thread_id, body, now, lifetime),
        call.once,
        streamed=call.streamed,
    )


async def get_run(call: Call) -> bytes:
    """Answer getRun, at once or when the status has changed (RFC 7240, `wait`)."""
    state = await (_current_run(call) if call.wait is None else _held_run(call))
    if state.run.is_active:
        call.headers["openai-poll-after-ms"] = _POLL_AFTER_MS
    return state.body


async def _current_run(call: Call) -> RunState:
    thread_id, run_id = call.ids["thread_id"], call.ids["run_id"]
    state = call.service.change_bus.latest(run_id)
    if state is not None and state.run.thread_id == thread_id:
        return state
    run = await call.store.get_run(thread_id, run_id)
    return RunState(run, msgspec.json.encode(run))


async def _held_run(call: Call) -> RunState:
    change_bus, run_id = call.service.change_bus, call.ids["run_id"]
    if change_bus.full:  # a preference need not be honoured, and then it is not said to be
        return await _current_run(call)
    call.headers["preference-applied"] = f"wait={call.wait}"
    with change_bus.watch(run_id) as watch:
        state = await _current_run(call)
        arrived = state.run.status
        if is_settled(arrived):
            return state
        with anyio.move_on_after(call.wait) as hold:
            while state.run.status == arrived and not change_bus.closed:
                state = await watch.moved() or await _current_run(call)
    if hold.cancelled_caught:  # what is no move may have changed
        return change_bus.latest(run_id) or state
    return state


async def update_run(call: Call) -> Run:
    """Answer modifyRun."""
    changes = builders.metadata_changes(call.body)
    thread_id, run_id = call.ids["thread_id"], call.ids["run_id"]
    return await call.store.update_run(thread_id, run_id, changes, call.once)


async def cancel_run(call: Call) -> Run:
    """Answer cancelRun."""
    thread_id, run_id = call.ids["thread_id"], call.ids["run_id"]
    return await call.store.cancel_run(thread_id, run_id, call.now, call.once)


async def submit_tool_outputs(call: Call) -> Run | StreamStart:
    """Answer submitToolOuputsToRun."""
    return await call.store.submit_outputs(
        call.ids["thread_id"],
        call.ids["run_id"],
        call.body.tool_outputs,
        call.now,
        once=call.once,
        streamed=call.streamed,
    )


async def stream_run(call: Call) -> StreamStart:
    """Answer streamRun, which is ours: the events of a run, from where a reader left it."""
    return await call.store.log.find(call.ids["thread_id"], call.ids["run_id"], call.position)


async def list_run_steps(call: Call) -> Page[RunStep]:
    """Answer listRunSteps."""
    query = page_query(call.query)
    return await call.store.list_steps(call.ids["thread_id"], call.ids["run_id"], query)


async def get_run_step(call: Call) -> RunStep:
    """Answer getRunStep."""
    ids = call.ids
    return await call.store.get_step(ids["thread_id"], ids["run_id"], ids["step_id"])


def _new_thread(body: CreateThread, now: int) -> tuple[Thread, list[Message]]:
    thread = build_thread(body, now)
    sent = given(body.messages) or []
    return thread, [build_message(message, thread.id, now) for message in sent]


HANDLERS: Final[dict[Endpoint[Any], Callable[[Call], Awaitable[Answer | StreamStart | bytes]]]] = {
    endpoints.LIST_ASSISTANTS: list_assistants,
    endpoints.CREATE_ASSISTANT: create_assistant,
    endpoints.GET_ASSISTANT: get_assistant,
    endpoints.UPDATE_ASSISTANT: update_assistant,
    endpoints.DELETE_ASSISTANT: delete_assistant,
    endpoints.CREATE_THREAD: create_thread,
    endpoints.CREATE_THREAD_AND_RUN: create_thread_and_run,
    endpoints.GET_THREAD: get_thread,
    endpoints.UPDATE_THREAD: update_thread,
    endpoints.DELETE_THREAD: delete_thread,
    endpoints.LIST_MESSAGES: list_messages,
    endpoints.CREATE_MESSAGE: create_message,
    endpoints.GET_MESSAGE: get_message,
    endpoints.UPDATE_MESSAGE: update_message,
    endpoints.DELETE_MESSAGE: delete_message,
    endpoints.LIST_RUNS: list_runs,
    endpoints.CREATE_RUN: create_run,
    endpoints.GET_RUN: get_run,
    endpoints.UPDATE_RUN: update_run,
    endpoints.CANCEL_RUN: cancel_run,
    endpoints.SUBMIT_TOOL_OUTPUTS: submit_tool_outputs,
    endpoints.LIST_RUN_STEPS: list_run_steps,
    endpoints.GET_RUN_STEP: get_run_step,
    endpoints.STREAM_RUN: stream_run,
}
"""The handler of each row of the table."""
