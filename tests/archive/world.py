"""Servers with something to take away: ours with many threads in bad weather, and a Foundry."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import anyio
from aiohttp import web

from openai_runs import AsyncClient
from openai_runs.server import Call, CallTools, Fail, ModelRequest, Say, ScriptedTurn
from tests.samples import load
from tests.support import Action, Answer, HostileServer, Received

__all__ = [
    "Foundry",
    "files_in",
    "lines_of",
    "populate",
    "project",
    "script",
    "storm",
    "unlisted",
]


def script(request: ModelRequest) -> ScriptedTurn:
    """Return the turn that the question asks for."""
    if request.question.startswith("tool") and not request.turns:
        return CallTools([Call("weather", {"city": "Oslo"}), Call("weather", {"city": "Roma"})])
    if request.question.startswith("fail"):
        return Fail("The model is ill.")
    return Say(f"Ä “{request.question}” 🌧️")


def weather(city: str) -> str:
    """Say how the weather is."""
    return f"rain in {city}"


async def populate(client: AsyncClient, count: int) -> list[str]:
    """Make assistants and that many threads of every kind; return the threads' ids."""
    brief = await client.assistants.create(model="m", name="Brief", tools=[])
    long = await client.assistants.create(
        model="m", name="Long", instructions="Be long. " * 300, metadata={"a": "b"}
    )
    ids: dict[int, str] = {}

    async def one(number: int) -> None:
        thread = await client.threads.create(metadata={"number": str(number)})
        ids[number] = thread.id
        if number % 10 == 9:  # no run, and more than a page of messages
            for each in range(120):
                await client.messages.create(thread.id, role="user", content=f"Note {each}")
            return
        for text in ("tool", "fail", "again")[: 1 + number % 3]:
            await client.runs.run_tools(
                thread.id,
                assistant_id=(long if number % 2 else brief).id,
                additional_messages=[{"role": "user", "content": f"{text} {number}"}],
                tools=[weather],
            )

    limiter = anyio.CapacityLimiter(8)

    async def limited(number: int) -> None:
        async with limiter:
            await one(number)

    async with anyio.create_task_group() as group:
        for number in range(count):
            group.start_soon(limited, number)
    return [ids[number] for number in range(count)]


def storm(seed: int = 1) -> Any:
    """Return a middleware of a server in bad weather: 503, 429, and connections that drop."""
    chance = Random(seed)

    @web.middleware
    async def meddle(request: web.Request, handler: Any) -> web.StreamResponse:
        number = chance.random()
        if number < 0.05:
            raise web.HTTPServiceUnavailable
        if number < 0.08:
            return web.json_response(
                {"error": {"message": "Slow down."}}, status=429, headers={"retry-after-ms": "10"}
            )
        answer: web.StreamResponse = await handler(request)
        if number < 0.12 and request.transport is not None:  # done, and nobody knows
            request.transport.abort()
        return answer

    return meddle


class Foundry:
    """The handler of a `HostileServer` that is like a project of Azure AI Foundry (classic).

    It wants `api-version` and a bearer token that is good for a number of requests, has small
    pages, foreign tools, and steps with `expires_at`.
    """

    def __init__(self, threads: int = 7, *, lifetime: int = 20, page: int = 3) -> None:
        self.lifetime = lifetime
        """Requests for which a token is good."""
        self.refused = 0
        self._page = page
        self._token = 0
        self._left = lifetime
        self._was_late = False
        self.objects: dict[str, list[dict[str, Any]]] = {
            "assistants": [load("getAssistant/foundry.json")],
            "threads": [],
        }
        for number in range(threads):
            self._add_thread(number)

    def token(self) -> str:
        """Return a token that is good now."""
        if self._left <= 0:
            self._token += 1
            self._left = self.lifetime
        return f"token-{self._token}"

    def late_token(self) -> str:
        """Return what a cache would: an expired token once more, before it has a new one."""
        if self._left <= 0 and not self._was_late:
            self._was_late = True
            return f"token-{self._token}"
        self._was_late = False
        return self.token()

    def __call__(self, request: Received) -> Action:
        """Answer one request."""
        if request.headers.get("authorization") != f"Bearer token-{self._token}" or self._left <= 0:
            self.refused += 1
            return Answer(401, load("errors/401_apim.json"))
        self._left -= 1
        if request.query.get("api-version") != ["v1"]:
            return Answer(400, {"error": {"code": "MissingApiVersion", "message": "api-version"}})
        path = request.path.removeprefix("/api/projects/demo/")
        if path in self.objects:
            return self._answer_page(self.objects[path], request.query)
        folder, _, key = path.rpartition("/")
        found = [one for one in self.objects.get(folder, []) if one["id"] == key]
        if not found:
            return Answer(404, {"error": {"code": "NotFound", "message": f"No {key} found."}})
        return Answer(200, body=json.dumps(found[0], indent=1).encode())

    def _answer_page(self, items: list[dict[str, Any]], query: Any) -> Action:
        ordered = items if query.get("order") == ["asc"] else items[::-1]
        after = query.get("after", [""])[0]
        begin = next((n + 1 for n, one in enumerate(ordered) if one["id"] == after), 0)
        size = min(self._page, int(query.get("limit", ["20"])[0]))
        data = ordered[begin : begin + size]
        page = {
            "object": "list",
            "data": data,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
            "has_more": begin + size < len(ordered),
        }
        return Answer(200, body=json.dumps(page, indent=1).encode())

    def _add_thread(self, number: int) -> None:
        thread_id, run_id = f"thread_f{number}", f"run_f{number}"
        here = {"thread_id": thread_id}
        self.objects["threads"].append(
            {
                "id": thread_id,
                "object": "thread",
                "created_at": 1710330600 + number,
                "metadata": {"number": str(number)},
                "tool_resources": {"azure_ai_search": {"indexes": [{"index_name": "i"}]}},
            }
        )
        place = f"threads/{thread_id}"
        message = load("getMessage/foundry_foreign_parts.json")
        user = {**message, "role": "user", "run_id": None, "assistant_id": None, "attachments": []}
        asked = {**user, **here, "id": f"msg_f{number}a"}
        asked["content"] = [{"type": "text", "text": {"value": "Hm?", "annotations": []}}]
        self.objects[f"{place}/messages"] = [
            asked,
            {**message, **here, "id": f"msg_f{number}b", "run_id": run_id},
        ]
        run = {**load("getRun/foundry_in_progress.json"), **here, "id": run_id}
        over: dict[str, Any] = {
            "status": "completed",
            "completed_at": 1710330700,
            "expires_at": None,
        }
        agent = {"type": "connected_agent", "connected_agent": {"id": "asst_2", "name": "other"}}
        over["tools"] = [*run["tools"], agent]
        self.objects[f"{place}/runs"] = [{**run, **over}]
        self._add_steps(number, {**here, "run_id": run_id})

    def _add_steps(self, number: int, step: dict[str, Any]) -> None:
        place = f"threads/{step['thread_id']}/runs/{step['run_id']}/steps"
        self.objects[place] = [
            {
                **with_agent(load("getRunStep/foundry_foreign_calls.json")),
                **step,
                "id": f"step_f{number}a",
            },
            {
                **load("getRunStep/foundry_foreign_details.json"),
                **step,
                "id": f"step_f{number}b",
                "expires_at": 1699063900,
            },
            {
                **load("getRunStep/message_creation.json"),
                **step,
                "id": f"step_f{number}c",
                "step_details": {
                    "type": "message_creation",
                    "message_creation": {"message_id": f"msg_f{number}b"},
                },
            },
        ]


def with_agent(step: dict[str, Any]) -> dict[str, Any]:
    """Return the step with a call of another agent."""
    about = {"name": "other", "arguments": "{}", "output": "Yes.", "expires_at": 7}
    call = {"id": "call_6", "type": "connected_agent", "connected_agent": about}
    calls = [*step["step_details"]["tool_calls"], call]
    return {**step, "step_details": {"type": "tool_calls", "tool_calls": calls}}


@asynccontextmanager
async def project(handler: Any, credential: Any) -> AsyncIterator[AsyncClient]:
    """Serve a Foundry, and yield a client of it."""
    async with HostileServer(handler) as server:
        endpoint = server.url.removesuffix("/v1") + "/api/projects/demo"
        async with AsyncClient.azure(endpoint, credential) as client:
            yield client


def lines_of(path: Path) -> list[tuple[str, Any]]:
    """Return the kinds and objects of a file."""
    return [next(iter(json.loads(line).items())) for line in path.read_bytes().splitlines()]


def files_in(folder: Path) -> dict[str, bytes]:
    """Return the contents of every file."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def unlisted(request: Received) -> Action:
    """Answer as a server that lists no threads, and has two."""
    path = request.path.removeprefix("/v1")
    if path in {"/threads/thread_1", "/threads/thread_2"}:
        return Answer(200, {"id": path.rpartition("/")[2], "object": "thread"})
    if path == "/assistants" or path.startswith(("/threads/thread_1/", "/threads/thread_2/")):
        return Answer(200, {"object": "list", "data": []})  # no `has_more`
    return Answer(404, {"error": {"message": f"No {path} found."}})
