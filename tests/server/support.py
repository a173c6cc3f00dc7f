"""What tests of the server stand on: a caller with bare aiohttp, and a clock moved by hand.

Nothing here knows our SDK: what is tested is the wire.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
import anyio.lowlevel

from tests.canaries import CANARY_PROMPT, WATCH

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    import aiohttp

ACTIVE = {"queued", "in_progress", "requires_action", "cancelling"}
FUNCTION = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


class Reply(NamedTuple):
    """An answer."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        """Return the decoded body."""
        return json.loads(self.text)

    @property
    def message(self) -> str:
        """Return the text of an error."""
        return str(self.json["error"]["message"])


class Event(NamedTuple):
    """One event of a stream."""

    name: str
    id: str
    data: Any
    frame: bytes
    """As it was sent."""


class Streamed(NamedTuple):
    """A stream, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def events(self) -> list[Event]:
        """Return the events, `done` apart."""
        return read_events(self.body)

    @property
    def names(self) -> list[str]:
        """Return their names, without `thread.`; deltas that follow each other as one."""
        return short_names(self.events)

    @property
    def done(self) -> bool:
        """Return whether the server says that it was the end."""
        return self.body.endswith(b"event: done\ndata: [DONE]\n\n")


_FRAME = re.compile(rb"event: (.*)\nid: (.*)\ndata: (.*)\n\n")


def read_events(body: bytes) -> list[Event]:
    """Return the events in these bytes; comments and `done` apart, nothing else may be there."""
    rest = _FRAME.sub(b"", body).replace(b": keep-alive\n\n", b"")
    assert rest in {b"", b"event: done\ndata: [DONE]\n\n"}, rest[:200]
    return [
        Event(found[1].decode(), found[2].decode(), json.loads(found[3]), found[0])
        for found in _FRAME.finditer(body)
    ]


def short_names(events: list[Event]) -> list[str]:
    """Return the names without `thread.`, deltas that follow each other as one."""
    names = [event.name.removeprefix("thread.") for event in events]
    return [
        name
        for before, name in zip(["", *names], names, strict=False)
        if not (name == before and name.endswith("delta"))
    ]


def told_text(events: list[Event]) -> str:
    """Return the text that the deltas tell."""
    deltas = [event.data["delta"] for event in events if event.name == "thread.message.delta"]
    return "".join(delta["content"][0]["text"]["value"] for delta in deltas)


class Caller:
    """Speaks the wire to one server."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        close: Callable[[], Awaitable[None]] = anyio.lowlevel.checkpoint,
    ) -> None:
        self.session = session
        self.url = url
        self.close = close
        """Closes the server, where that is ours to do."""

    async def send(self, method: str, path: str, **options: Any) -> Reply:
        """Return the answer, whatever it says."""
        async with self.session.request(method, self.url + path, **options) as response:
            reply = Reply(response.status, response.headers, await response.text())
        WATCH.search_answer(*reply)
        return reply

    async def get(self, path: str, **options: Any) -> Any:
        """Return what a GET finds; anything but a 200 fails the test."""
        reply = await self.send("GET", path, **options)
        assert reply.status == 200, reply.text
        return reply.json

    async def post(self, path: str, body: Any = None, **options: Any) -> Any:
        """Return what a POST makes; anything but a 200 fails the test."""
        reply = await self.send("POST", path, json={} if body is None else body, **options)
        assert reply.status == 200, reply.text
        return reply.json

    async def stream(self, path: str, body: Any = None, **options: Any) -> Streamed:
        """Return a stream to its end: of a POST if there is a body, else of a GET."""
        if body is not None:
            options["json"] = {**body, "stream": True}
        method = "GET" if body is None else "POST"
        async with self.session.request(method, self.url + path, **options) as response:
            assert response.content_type == "text/event-stream", await response.text()
            streamed = Streamed(response.status, response.headers, await response.read())
        WATCH.search_answer(streamed.status, streamed.headers, repr(streamed.body))
        return streamed

    async def replay(self, run: Any, after: str = "") -> Streamed:
        """Return the events of a run, from the beginning or after an id."""
        headers = {"Last-Event-ID": after} if after else {}
        return await self.stream(f"{run_path(run)}/stream", headers=headers)

    async def start_stream(self, text: str = CANARY_PROMPT, **fields: Any) -> Streamed:
        """Return the stream of a new run on a new thread, of a new assistant."""
        assistant_id = await self.assistant(tools=[FUNCTION])
        path = f"/threads/{await self.thread(text)}/runs"
        return await self.stream(path, {"assistant_id": assistant_id, **fields})

    async def health(self) -> Reply:
        """Return whether the server is at work."""
        return await Caller(self.session, self.url.removesuffix("/v1")).send("GET", "/healthz")

    async def ready(self) -> Reply:
        """Return whether it can carry out runs, and how many wait."""
        return await Caller(self.session, self.url.removesuffix("/v1")).send("GET", "/readyz")

    async def assistant(self, **fields: Any) -> str:
        """Return the id of a new assistant."""
        made = await self.post("/assistants", {"model": "test", **fields})
        return str(made["id"])

    async def thread(self, text: str | None = None) -> str:
        """Return the id of a new thread, with a user message if there is a text."""
        messages = [] if text is None else [{"role": "user", "content": text}]
        made = await self.post("/threads", {"messages": messages})
        return str(made["id"])

    async def start(self, text: str | None = CANARY_PROMPT, **fields: Any) -> Any:
        """Return a new run on a new thread, of a new assistant with one function."""
        assistant_id = await self.assistant(tools=[FUNCTION])
        thread_id = await self.thread(text)
        return await self.post(
            f"/threads/{thread_id}/runs", {"assistant_id": assistant_id, **fields}
        )

    async def settled(self, run: Any) -> Any:
        """Return the run once it is finished or waits for outputs."""
        with anyio.fail_after(20):
            while run["status"] in ACTIVE - {"requires_action"}:
                run = await self.get(run_path(run), headers={"Prefer": "wait=10"})
        return run

    async def reaches(self, run: Any, status: str) -> Any:
        """Return the run once it has this status."""
        # Not held: between two requests the run may be there already, and would be held there.
        with anyio.fail_after(20):
            while (run := await self.get(run_path(run)))["status"] != status:
                assert run["status"] in ACTIVE, f"ended as {run['status']}"
                await anyio.sleep(0.01)
        return run

    async def steps(self, run: Any) -> list[Any]:
        """Return the steps of the run, oldest first."""
        page = await self.get(f"{run_path(run)}/steps?order=asc&limit=100")
        return list(page["data"])

    async def begun(self, run: Any) -> None:
        """Return once the run has begun to write."""
        with anyio.fail_after(20):
            while not await self.steps(run):  # noqa: ASYNC110 - nobody announces a step
                await anyio.sleep(0.01)

    async def messages(self, run: Any) -> list[Any]:
        """Return the messages of the run's thread, oldest first."""
        page = await self.get(f"/threads/{run['thread_id']}/messages?order=asc&limit=100")
        return list(page["data"])

    async def submit(self, run: Any, output: str = "sunny") -> Reply:
        """Answer all calls the run waits for."""
        calls = run["required_action"]["submit_tool_outputs"]["tool_calls"]
        outputs = [{"tool_call_id": call["id"], "output": output} for call in calls]
        path = f"{run_path(run)}/submit_tool_outputs"
        return await self.send("POST", path, json={"tool_outputs": outputs})


def run_path(run: Any) -> str:
    """Return the path of the run."""
    return f"/threads/{run['thread_id']}/runs/{run['id']}"


class ManualClock:
    """A wall clock that stands still until it is moved."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now
        self._moved = anyio.Event()

    def now(self) -> float:
        """Return Unix seconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move the clock, and wake who waits for it."""
        self._now += seconds
        self._moved.set()
        self._moved = anyio.Event()

    async def sleep_until(self, when: float) -> None:
        """Return once the clock was moved that far."""
        while self._now < when:
            await self._moved.wait()
