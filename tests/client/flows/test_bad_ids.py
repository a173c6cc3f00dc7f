"""A run whose ids no URL can hold is an answer that cannot be read, and no caller's mistake."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from openai_runs import (
    APIResponseValidationError,
    AsyncClient,
    OpenAIRunsError,
    RunResult,
    StreamError,
)
from tests.client.broadcaster import DONE, HEAD, frame
from tests.support import Action, Answer, HostileServer, Raw, Received, run_json

BAD = {
    "slash": "a/b",
    "empty": "",
    "parent": "..",
    "query": "run?x",
    "nul": "run\0",
    "blank": "a b",
    "line-break": "run_1\n",
    "long": "x" * 257,
}
RUN: dict[str, Any] = {"assistant_id": "asst_1", "timeout": 20}
CALLS: dict[str, Callable[[AsyncClient], Awaitable[object]]] = {
    "create_and_poll": lambda client: client.runs.create_and_poll("thread_1", **RUN),
    "run_tools": lambda client: client.runs.run_tools("thread_1", tools=[], **RUN),
    "ask": lambda client: client.runs.ask("Hello", thread_id="thread_1", **RUN),
    "ask-on-a-new-thread": lambda client: client.runs.ask("Hello", **RUN),
    "create_and_run_poll": lambda client: client.threads.create_and_run_poll(**RUN),
    "wait": lambda client: client.runs.wait("run_1", thread_id="thread_1", timeout=20),
}


async def streamed(client: AsyncClient) -> RunResult:
    """Return the result of a stream."""
    async with client.runs.stream("thread_1", **RUN) as stream:
        return await stream.result()


@pytest.mark.parametrize("field", ["id", "thread_id"])
@pytest.mark.parametrize("value", BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
async def test_run_is_unreadable_when_no_url_can_hold_its_ids(
    call: Callable[[AsyncClient], Awaitable[object]], value: str, field: str
) -> None:
    """An error of ours, which names the field and what answered."""
    async with (
        HostileServer(lambda request: Answer(json=run_json(**{field: value}))) as server,
        AsyncClient(server.url, "k", max_retries=0) as client,
    ):
        with pytest.raises(
            APIResponseValidationError, match=rf"no URL can hold - at `\$\.{field}`"
        ):
            await call(client)


@pytest.mark.parametrize("value", BAD.values(), ids=BAD.keys())
async def test_stream_ends_with_an_error_of_ours_when_no_url_can_hold_its_id(value: str) -> None:
    """The event cannot be read, and the run is not known by any other."""

    def answer(request: Received) -> Action:
        created = frame("thread.run.created", run_json(id=value))
        return Raw(HEAD + b"\r\n" + created + frame("thread.run.completed", run_json()) + DONE)

    async with (
        HostileServer(answer) as server,
        AsyncClient(server.url, "k", max_retries=0) as client,
    ):
        with pytest.raises(OpenAIRunsError) as caught:
            await streamed(client)

    assert isinstance(caught.value, StreamError | APIResponseValidationError)


async def test_odd_but_possible_ids_are_used_as_they_are() -> None:
    """Ids of other servers have their own forms; they are quoted in paths."""
    asked: list[str] = []

    def answer(request: Received) -> Action:
        asked.append(request.path)
        return Answer(json=run_json("completed", id="läuft:1@x;2", thread_id="~t.1"))

    async with HostileServer(answer) as server, AsyncClient(server.url, "k") as client:
        run = await client.runs.create("thread_1", assistant_id="asst_1")
        await client.runs.retrieve(run.id, thread_id=run.thread_id)

    assert asked[1] == "/v1/threads/~t.1/runs/l%C3%A4uft%3A1%40x%3B2"
