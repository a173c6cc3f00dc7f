"""A text that cannot be sent is one error of ours that names it, before anything is sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from openai_runs import AsyncClient, ConfigError, OpenAIRunsError
from tests.support import Answer, HostileServer, Received, run_json

HALF = "caf\udce9"
"""As a file name or a line of the command line that is no UTF-8 comes into Python."""
THREAD: dict[str, Any] = {"thread_id": "thread_1"}
RUN: dict[str, Any] = {"assistant_id": "asst_1"}
MESSAGE: dict[str, Any] = {"role": "user", "content": HALF}


async def streamed(client: AsyncClient, **arguments: Any) -> None:
    """Open a stream."""
    async with client.runs.stream("thread_1", **RUN, **arguments):
        pass


async def submitted(client: AsyncClient, output: Any, *, stream: bool = False) -> Any:
    """Submit one output."""
    outputs = [{"tool_call_id": "call_1", "output": "x"}, {"tool_call_id": "call_2", **output}]
    if stream:
        return await client.runs.submit_tool_outputs(
            "run_1", **THREAD, tool_outputs=outputs, stream=True
        )
    return await client.runs.submit_tool_outputs("run_1", **THREAD, tool_outputs=outputs)


async def mapped(client: AsyncClient, **arguments: Any) -> None:
    """Raise the outcome of the one item of a map."""
    async with client.runs.map([("key", arguments)], concurrency=1) as outcomes:
        async for _, outcome in outcomes:
            assert isinstance(outcome, OpenAIRunsError)
            raise outcome


CALLS: dict[str, tuple[Callable[[AsyncClient], Awaitable[Any]], str]] = {
    "content": (lambda c: c.messages.create("thread_1", **MESSAGE), "content"),
    "part of a content": (
        lambda c: c.messages.create(
            "thread_1", role="user", content=[{"type": "text", "text": HALF}]
        ),
        "content[0].text",
    ),
    "behind a number": (
        lambda c: c.runs.create("thread_1", assistant_id="a", temperature=0.5, instructions=HALF),
        "instructions",
    ),
    "metadata": (lambda c: c.threads.create(metadata={"name": HALF}), "metadata.name"),
    "name in metadata": (
        lambda c: c.runs.update("run_1", **THREAD, metadata={HALF: "x"}),
        "a name in metadata",
    ),
    "message of a thread": (
        lambda c: c.threads.create(messages=[{"role": "user", "content": "x"}, MESSAGE]),
        "messages[1].content",
    ),
    "instructions": (lambda c: c.runs.create("thread_1", **RUN, instructions=HALF), "instructions"),
    "instructions, polled": (
        lambda c: c.runs.create_and_poll("thread_1", **RUN, instructions=HALF),
        "instructions",
    ),
    "instructions, in place of the active run": (
        lambda c: c.runs.create("thread_1", **RUN, instructions=HALF, on_active_run="cancel"),
        "instructions",
    ),
    "additional message": (
        lambda c: c.runs.run_tools("thread_1", **RUN, tools=[], additional_messages=[MESSAGE]),
        "additional_messages[0].content",
    ),
    "question": (lambda c: c.runs.ask(HALF, **RUN), "thread.messages[0].content"),
    "question on a thread": (
        lambda c: c.runs.ask(HALF, thread_id="thread_1", **RUN),
        "additional_messages[0].content",
    ),
    "stream": (lambda c: streamed(c, additional_instructions=HALF), "additional_instructions"),
    "thread and run": (
        lambda c: c.threads.create_and_run(**RUN, thread={"messages": [MESSAGE]}),
        "thread.messages[0].content",
    ),
    "item of a map": (lambda c: mapped(c, **RUN, instructions=HALF), "instructions"),
    "assistant": (lambda c: c.assistants.create(model="m", name=HALF), "name"),
    "definition of a tool": (
        lambda c: c.assistants.create(
            model="m", tools=[{"type": "function", "function": {"name": "f", "description": HALF}}]
        ),
        "tools[0].function.description",
    ),
    "output": (lambda c: submitted(c, {"output": HALF}), "tool_outputs[1].output"),
    "output of another kind": (
        lambda c: submitted(c, {"output": {"names": [HALF]}}),
        "tool_outputs[1].output.names[0]",
    ),
    "output, streamed": (
        lambda c: submitted(c, {"output": HALF}, stream=True),
        "tool_outputs[1].output",
    ),
    "extra body": (lambda c: c.threads.create(extra_body={"more": [HALF]}), "more[0]"),
    "extra query": (lambda c: c.threads.create(extra_query={"more": HALF}), "more"),
    "own request": (lambda c: c.request("POST", "/files", json={"name": HALF}), "name"),
    "own query": (lambda c: c.request("GET", "/files", query={"name": HALF}), "name"),
}


@pytest.mark.parametrize(("call", "name"), CALLS.values(), ids=CALLS)
async def test_text_that_cannot_be_sent_is_an_error_that_names_its_argument(
    call: Callable[[AsyncClient], Awaitable[Any]], name: str
) -> None:
    """Whatever the argument and the call: one kind of error, and no request."""

    def answer(request: Received) -> Answer:
        return Answer(json=run_json())

    async with HostileServer(answer) as server, AsyncClient(server.url, "k") as client:
        with pytest.raises(ConfigError) as caught:
            await call(client)

    assert str(caught.value).startswith(f"{name} holds half of a surrogate pair")
    assert str(caught.value).encode()
    assert caught.value.__cause__ is None
    assert server.requests == []


OTHERS: dict[str, tuple[Callable[[AsyncClient], Awaitable[Any]], str]] = {
    "id": (lambda c: c.threads.retrieve(HALF), "thread_id"),
    "assistant's id": (lambda c: c.runs.create("thread_1", assistant_id=HALF), "assistant_id"),
    "header": (lambda c: c.threads.create(extra_headers={"X-More": HALF}), "X-More"),
    "key": (lambda c: c.threads.create(idempotency_key=HALF), "Idempotency-Key"),
    "key of a run": (
        lambda c: c.runs.create("thread_1", **RUN, idempotency_key=HALF),
        "Idempotency-Key",
    ),
}


@pytest.mark.parametrize(("call", "name"), OTHERS.values(), ids=OTHERS)
async def test_id_or_header_that_cannot_be_sent_is_named(
    call: Callable[[AsyncClient], Awaitable[Any]], name: str
) -> None:
    """They are checked as ids and headers are, which may hold less than a text."""

    def answer(request: Received) -> Answer:
        return Answer(json=run_json())

    async with HostileServer(answer) as server, AsyncClient(server.url, "k") as client:
        with pytest.raises(ValueError, match=name) as caught:
            await call(client)

    assert not isinstance(caught.value, UnicodeError)
    assert server.requests == []
