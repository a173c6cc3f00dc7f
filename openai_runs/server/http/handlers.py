"""One short coroutine per operation: what the request says, put to the store, and the answer.

Each has the name of its row in the table of endpoints, in lower case, and is found by it: a
public coroutine here is a handler. It names the function of the store that does the work.
What may not live here: SQL, and the reading of bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Concatenate, Final, ParamSpec

import anyio
import msgspec

from openai_runs._protocol.lifecycle import is_settled
from openai_runs._tracing import ServerTracing
from openai_runs.config import POLL_AFTER
from openai_runs.server.clock import Clock
from openai_runs.server.events.change_bus import ChangeBus
from openai_runs.server.events.subscribers import Subscribers
from openai_runs.server.http.request_parsing import page_query
from openai_runs.server.objects import builders
from openai_runs.server.objects.builders import NewRun, build_message, build_thread, given
from openai_runs.server.objects.hosted_tools import HostedTools
from openai_runs.server.store import (
    Once,
    Position,
    RunState,
    Store,
    StoredPage,
    StreamStart,
    Transaction,
    event_pages,
    operations,
    rows,
    runs,
)
from openai_runs.types.assistants import Assistant
from openai_runs.types.base import ACTIVE_STATUSES, Deleted, Page
from openai_runs.types.messages import Message
from openai_runs.types.runs import CreateRun, CreateThreadAndRun
from openai_runs.types.steps import RunStep
from openai_runs.types.threads import CreateThread, Thread

__all__ = ["Call", "Service"]

P = ParamSpec("P")


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
    hosted_tools: HostedTools
    check_model: Callable[[str], None]
    """Refuses a run of a model that nothing here can ask."""
    tracing: ServerTracing | None = None

    @property
    def builds_run(self) -> Callable[..., NewRun]:
        """Return `new_run`; where runs are traced, it keeps the trace of this request."""
        if self.tracing is None:
            return self.new_run
        return self.tracing.keeping(self.new_run, lambda new: new.run.id)

    def new_run(
        self, assistant: Assistant, thread_id: str, body: CreateRun | CreateThreadAndRun, now: int
    ) -> NewRun:
        """Return the run that `body` asks for, with what comes with it.

        Raises:
            Refusal: It could not be executed.
        """
        new = builders.build_new_run(
            assistant,
            thread_id,
            body,
            now,
            self.run_lifetime,
            hosted_tools=self.hosted_tools,
        )
        self.check_model(new.run.model)
        return new

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
    """Headers that the handler adds to the answer."""

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
    return await call.store.read(rows.page, Assistant, page_query(call.query))


async def create_assistant(call: Call) -> Assistant:
    """Answer createAssistant."""
    assistant = builders.build_assistant(call.body, call.now)
    return await call.store.write_once(call.once, operations.add_assistant, assistant)


async def get_assistant(call: Call) -> Assistant:
    """Answer getAssistant."""
    return await call.store.read(rows.find, Assistant, call.ids["assistant_id"])


async def update_assistant(call: Call) -> Assistant:
    """Answer modifyAssistant."""
    changes = builders.assistant_changes(call.body)
    assistant_id = call.ids["assistant_id"]
    work = operations.update_assistant
    return await call.store.write_once(call.once, work, assistant_id, changes)


async def delete_assistant(call: Call) -> Deleted:
    """Answer deleteAssistant."""
    return await call.store.write(operations.delete_assistant, call.ids["assistant_id"])


async def list_threads(call: Call) -> Page[Thread]:
    """Answer listThreads, which OpenAI did not have: all threads."""
    return await call.store.read(rows.page, Thread, page_query(call.query))


async def create_thread(call: Call) -> Thread:
    """Answer createThread."""
    thread, messages = _new_thread(call.body, call.now)
    return await call.store.write_once(call.once, runs.add_thread, thread, messages)


async def create_thread_and_run(call: Call) -> RunState | StreamStart:
    """Answer createThreadAndRun."""
    body: CreateThreadAndRun = call.body
    thread, messages = _new_thread(given(body.thread) or CreateThread(), call.now)
    now, new_run = call.now, call.service.builds_run
    return await call.store.write_once(
        call.once,
        _started(call, runs.create_with_thread),
        thread,
        messages,
        body.assistant_id,
        lambda assistant: new_run(assistant, thread.id, body, now),
    )


async def get_thread(call: Call) -> Thread:
    """Answer getThread."""
    return await call.store.read(rows.find, Thread, call.ids["thread_id"])


async def update_thread(call: Call) -> Thread:
    """Answer modifyThread."""
    changes = builders.thread_changes(call.body)
    thread_id = call.ids["thread_id"]
    return await call.store.write_once(call.once, operations.update_thread, thread_id, changes)


async def delete_thread(call: Call) -> Deleted:
    """Answer deleteThread."""
    return await call.store.write(operations.delete_thread, call.ids["thread_id"])


async def list_messages(call: Call) -> Page[Message]:
    """Answer listMessages."""
    thread_id, run_id = call.ids["thread_id"], call.query.get("run_id") or None
    query = page_query(call.query)
    return await call.store.read(operations.list_messages, thread_id, query, run_id)


async def create_message(call: Call) -> Message:
    """Answer createMessage."""
    message = build_message(call.body, call.ids["thread_id"], call.now)
    return await call.store.write_once(call.once, operations.add_message, message)


async def get_message(call: Call) -> Message:
    """Answer getMessage."""
    thread_id, message_id = call.ids["thread_id"], call.ids["message_id"]
    return await call.store.read(operations.get_message, thread_id, message_id)


async def update_message(call: Call) -> Message:
    """Answer modifyMessage."""
    thread_id, message_id = call.ids["thread_id"], call.ids["message_id"]
    changes = builders.metadata_changes(call.body)
    work = operations.update_message
    return await call.store.write_once(call.once, work, thread_id, message_id, changes)


async def delete_message(call: Call) -> Deleted:
    """Answer deleteMessage."""
    thread_id, message_id = call.ids["thread_id"], call.ids["message_id"]
    return await call.store.write(operations.delete_message, thread_id, message_id)


async def list_runs(call: Call) -> Page[msgspec.Raw]:
    """Answer listRuns."""
    query = page_query(call.query)
    page = await call.store.read(operations.list_runs, call.ids["thread_id"], query)
    return await _whole_runs(call, page)


async def list_all_runs(call: Call) -> Page[msgspec.Raw]:
    """Answer listAllRuns, which is ours: the runs of all threads."""
    page = await call.store.read(operations.list_all_runs, page_query(call.query))
    return await _whole_runs(call, page)


async def _whole_runs(call: Call, page: StoredPage) -> Page[msgspec.Raw]:
    """Return the page with what its runs share in its place."""
    whole = await call.store.shared_json.join_all([body.encode() for body in page.bodies])
    return page.hold([msgspec.Raw(run) for run in whole])


async def create_run(call: Call) -> RunState | StreamStart:
    """Answer createRun."""
    thread_id, body = call.ids["thread_id"], call.body
    now, new_run = call.now, call.service.builds_run
    return await call.store.write_once(
        call.once,
        _started(call, runs.create),
        thread_id,
        body.assistant_id,
        lambda assistant: new_run(assistant, thread_id, body, now),
    )


async def get_run(call: Call) -> RunState:
    """Answer getRun, at once or when the status has changed (RFC 7240, `wait`)."""
    state = await (_current_run(call) if call.wait is None else _held_run(call))
    if state.status in ACTIVE_STATUSES:
        call.headers["openai-poll-after-ms"] = _POLL_AFTER_MS
    return state


async def _current_run(call: Call) -> RunState:
    thread_id, run_id = call.ids["thread_id"], call.ids["run_id"]
    state = call.service.change_bus.latest(run_id)
    if state is not None and state.thread_id == thread_id:
        return state
    return await call.store.read(runs.get, thread_id, run_id)


async def _held_run(call: Call) -> RunState:
    change_bus, run_id = call.service.change_bus, call.ids["run_id"]
    if change_bus.full:  # a preference need not be honoured (RFC 7240, section 2)
        return await _current_run(call)
    call.headers["preference-applied"] = f"wait={call.wait}"
    with change_bus.waiting_for(run_id) as waiter:
        state = await _current_run(call)
        arrived = state.status
        if is_settled(arrived):
            return state
        with anyio.move_on_after(call.wait) as hold:
            while state.status == arrived and not change_bus.closed:
                state = await waiter.wait_moved() or await _current_run(call)
    if hold.cancelled_caught:  # what is no move may have changed
        return change_bus.latest(run_id) or state
    return state


async def update_run(call: Call) -> RunState:
    """Answer modifyRun."""
    changes = builders.metadata_changes(call.body)
    thread_id, run_id = call.ids["thread_id"], call.ids["run_id"]
    return await call.store.write_once(call.once, runs.update_run, thread_id, run_id, changes)


async def cancel_run(call: Call) -> RunState:
    """Answer cancelRun."""
    thread_id, run_id = call.ids["thread_id"], call.ids["run_id"]
    return await call.store.write_once(call.once, runs.cancel, thread_id, run_id, call.now)


async def submit_tool_outputs(call: Call) -> RunState | StreamStart:
    """Answer submitToolOuputsToRun."""
    return await call.store.write_once(
        call.once,
        _started(call, runs.submit),
        call.ids["thread_id"],
        call.ids["run_id"],
        call.body.tool_outputs,
        call.now,
    )


async def stream_run(call: Call) -> StreamStart:
    """Answer streamRun, which is ours: the events of a run, from where a reader left it."""
    thread_id, run_id = call.ids["thread_id"], call.ids["run_id"]
    return await call.store.read(event_pages.find_start, thread_id, run_id, call.position)


async def list_run_steps(call: Call) -> Page[RunStep]:
    """Answer listRunSteps."""
    thread_id, run_id = call.ids["thread_id"], call.ids["run_id"]
    query = page_query(call.query)
    return await call.store.read(operations.list_steps, thread_id, run_id, query)


async def get_run_step(call: Call) -> RunStep:
    """Answer getRunStep."""
    ids = call.ids
    step_id = ids["step_id"]
    return await call.store.read(operations.get_step, ids["thread_id"], ids["run_id"], step_id)


def _new_thread(body: CreateThread, now: int) -> tuple[Thread, list[Message]]:
    thread = build_thread(body, now)
    sent = given(body.messages) or []
    return thread, [build_message(message, thread.id, now) for message in sent]


def _started(
    call: Call, work: Callable[Concatenate[Transaction, P], RunState]
) -> Callable[Concatenate[Transaction, P], RunState | StreamStart]:
    """Return work that answers with the run, or with where its events begin."""
    return event_pages.streamed(work) if call.streamed else work
