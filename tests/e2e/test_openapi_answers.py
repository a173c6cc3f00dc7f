"""Every JSON answer of our server is valid by the vendor's OpenAPI description, unamended."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from openai_runs import APIStatusError, AsyncClient, Run, RunStatus
from openai_runs.server import (
    Call,
    CallTools,
    Cut,
    Fail,
    Hang,
    LocalServer,
    Say,
    ScriptedBackend,
)
from tests.canaries import CANARY_PROMPT
from tests.databases import Database, Db
from tests.openapi import OPERATIONS, problems

ROUTES = {(one.method, f"/v1{one.path}"): one for one in OPERATIONS.values()}
TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True},
}


class Judge:
    """A middleware that holds each answer against the description."""

    def __init__(self) -> None:
        self.answered: set[str] = set()
        self.statuses: set[str] = set()
        self.problems: list[str] = []

    def middleware(self) -> Middleware:
        """Return the middleware, to be put inside the server's own."""

        @web.middleware
        async def judge(request: web.Request, handler: Handler) -> web.StreamResponse:
            response = await handler(request)
            self._judge(request, response)
            return response

        return judge

    def _judge(self, request: web.Request, response: web.StreamResponse) -> None:
        assert isinstance(response, web.Response)
        assert isinstance(response.body, bytes)
        value = msgspec.json.decode(response.body)
        resource = request.match_info.route.resource
        operation = ROUTES[request.method, resource.canonical if resource else ""]
        found = problems(operation.answer, value, published=True)
        self.problems += [f"{operation.operation} {response.status} {one}" for one in found]
        if response.status == 200:
            self.answered.add(operation.operation)
            self.statuses.add(f"{value['object']}:{value.get('status', '')}")


@pytest.fixture
def db(tmp_path: Path, database: Database) -> Db:
    """Where the server has its data."""
    return database(tmp_path / "runs.db")


@asynccontextmanager
async def judged(db: Db, *turns: object) -> AsyncIterator[tuple[AsyncClient, Judge]]:
    """Yield a client of a scripted server, and the judge of its answers."""
    judge = Judge()
    backend = ScriptedBackend(turns)  # type: ignore[arg-type]  # turns of all kinds
    async with (
        LocalServer(db, backend, middlewares=[judge.middleware()], run_lifetime=600) as server,
        AsyncClient(server.url) as client,
    ):
        yield client, judge
    assert judge.problems == []


async def start(client: AsyncClient, **arguments: object) -> Run:
    """Return a settled run on a new thread."""
    assistant = await client.assistants.create(model="gpt-4o", tools=[TOOL])
    return await client.threads.create_and_run_poll(
        assistant_id=assistant.id,
        thread={"messages": [{"role": "user", "content": CANARY_PROMPT}]},
        timeout=10,
        **arguments,  # type: ignore[arg-type]  # of create_and_run
    )


async def test_objects_are_valid_when_made_read_changed_listed_and_deleted(db: Db) -> None:
    """Assistants, threads and messages, with all their fields set and with none."""
    async with judged(db) as (client, judge):
        bare = await client.assistants.create(model="gpt-4o")
        full = await client.assistants.create(
            model="gpt-4o",
            name="n",
            description="d",
            instructions="i",
            tools=[TOOL],
            tool_resources=None,
            metadata={"a": "b"},
            temperature=1.5,
            top_p=0.5,
            response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": {}}},
            reasoning_effort="low",
        )
        await client.assistants.retrieve(full.id)
        await client.assistants.update(bare.id, name="x", response_format="auto")
        await client.assistants.list(limit=1)
        await client.assistants.list(after=bare.id, order="desc")  # an empty page
        thread = await client.threads.create(metadata={"a": "b"})
        await client.threads.retrieve(thread.id)
        await client.threads.update(thread.id, metadata=None)
        await client.messages.list(thread.id)
        parts: list[dict[str, Any]] = [
            {"type": "text", "text": "look"},
            {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
            {"type": "image_file", "image_file": {"file_id": "file_1", "detail": "low"}},
        ]
        message = await client.messages.create(thread.id, role="user", content=parts)
        await client.messages.retrieve(message.id, thread_id=thread.id)
        await client.messages.update(message.id, thread_id=thread.id, metadata={"k": "v"})
        await client.messages.list(thread.id)
        await client.messages.delete(message.id, thread_id=thread.id)
        await client.runs.list(thread.id)
        await client.threads.delete(thread.id)
        await client.assistants.delete(full.id)

    assert {name for name in OPERATIONS if "Run" not in name} <= judge.answered


async def test_runs_are_valid_in_every_status(db: Db) -> None:
    """Runs and steps, from queued to each of their ends."""
    turns = (
        CallTools([Call("f", {"x": 1}), Call("f", {"x": 2})]),
        Say("done"),
        Fail("no", code="rate_limit_exceeded"),
        Cut("half"),
        Hang(),
    )
    async with judged(db, *turns) as (client, judge):
        run = await start(client, metadata={"a": "b"}, max_completion_tokens=300)
        await client.runs.steps.list(run.id, thread_id=run.thread_id)
        outputs = [{"tool_call_id": call.id, "output": "1"} for call in run.tool_calls]
        await client.runs.submit_tool_outputs_and_poll(
            run.id, thread_id=run.thread_id, tool_outputs=outputs, timeout=10
        )
        page = await client.runs.steps.list(run.id, thread_id=run.thread_id)
        step = page.data[0]
        await client.runs.steps.retrieve(step.id, thread_id=run.thread_id, run_id=run.id)
        await client.messages.list(run.thread_id, run_id=run.id)
        await client.runs.update(run.id, thread_id=run.thread_id, metadata={"c": "d"})
        await client.runs.create_and_poll(run.thread_id, assistant_id=run.assistant_id, timeout=10)
        await client.runs.create_and_poll(run.thread_id, assistant_id=run.assistant_id, timeout=10)
        hanging = await client.runs.create(run.thread_id, assistant_id=run.assistant_id)
        await client.runs.cancel_and_wait(hanging.id, thread_id=run.thread_id, timeout=10)
        async for one in client.runs.list(run.thread_id, limit=2):
            await client.runs.steps.list(one.id, thread_id=run.thread_id)
        await client.messages.list(run.thread_id)

    ends = ("requires_action", "completed", "failed", "incomplete", "cancelled")
    assert {f"thread.run:{status}" for status in ends} <= judge.statuses
    run_operations = {name for name in OPERATIONS if "Run" in name}
    assert run_operations <= judge.answered


async def test_errors_are_valid(db: Db) -> None:
    """Refusals have the description's error body, whatever was wrong."""
    async with judged(db, Hang()) as (client, _):
        run = await start_hanging(client)
        thread = f"/threads/{run.thread_id}"
        requests: list[tuple[str, str, dict[str, object] | None]] = [
            ("GET", "/threads/thread_none", None),
            ("GET", f"{thread}/runs/run_none", None),
            ("GET", "/nowhere", None),
            ("POST", "/assistants", {"model": 1}),
            ("POST", "/assistants", {"model": "m", "colour": "red"}),
            ("POST", f"{thread}/messages", {"role": "user", "content": "x"}),
            ("POST", f"{thread}/runs", {"assistant_id": run.assistant_id}),
            ("POST", f"{thread}/runs", {"assistant_id": "asst_none"}),
            ("POST", f"{thread}/runs/{run.id}/submit_tool_outputs", {"tool_outputs": []}),
            ("PUT", thread, {}),
        ]
        for method, path, body in requests:
            with pytest.raises(APIStatusError) as refused:
                await client.request(method, path, json=body)
            assert problems("ErrorResponse", refused.value.body, published=True) == []
        for query in ({"limit": 101}, {"after": "asst_none"}, {"order": "up"}):
            with pytest.raises(APIStatusError) as refused:
                await client.request("GET", "/assistants", query=query)
            assert problems("ErrorResponse", refused.value.body, published=True) == []


async def test_expired_runs_are_valid(db: Db) -> None:
    """A run whose time is up, and its step."""
    judge = Judge()
    backend = ScriptedBackend([CallTools([Call("f", {})])])
    async with (
        LocalServer(db, backend, middlewares=[judge.middleware()], run_lifetime=1) as server,
        AsyncClient(server.url) as client,
    ):
        run = await start(client)
        while run.status != RunStatus.EXPIRED:
            run = await client.runs.retrieve(run.id, thread_id=run.thread_id)
        await client.runs.steps.list(run.id, thread_id=run.thread_id)

    assert judge.problems == []
    assert "thread.run:expired" in judge.statuses


async def start_hanging(client: AsyncClient) -> Run:
    """Return a run that is at work for ever."""
    assistant = await client.assistants.create(model="gpt-4o")
    return await client.threads.create_and_run(assistant_id=assistant.id)
