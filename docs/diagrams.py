"""Diagrams of the docs: what real programs send and receive, recorded and drawn as SVG.

Each exchange is carried out against the server of this package; `poe generate` draws it, and a test
carries it out again and compares. Ids, tokens and times are not drawn.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from html import escape
from typing import Any, NamedTuple

import aiohttp
import anyio
import msgspec
from aiohttp import web

from openai_runs import AsyncClient, PollPolicy, await_run, relay
from openai_runs._protocol.retry import poll_pause
from openai_runs.server import Finish, LocalServer, ModelEvent, ModelRequest, TextDelta

__all__ = ["pauses_drawing", "reconnect_drawing", "relay_drawing", "sequence", "wait_drawing"]

_STEP, _TOP, _GAP = 44, 64, 260
"""Between two messages, above the first, and between two actors."""
_INK, _PAPER, _LINE = "#263238", "#f5f7f8", "#00838f"
_SERVER = 2
"""Of the actors, in each diagram."""
_HEADERS = ("Prefer", "Last-Event-ID")
_NAMES = re.compile(r"(thread|run)_\w{20,}")


class Message(NamedTuple):
    """An arrow of the diagram, or a note across it."""

    source: int
    target: int
    """Of the actors; the same as the source for a note."""
    text: str
    answers: bool = False


class Hop(NamedTuple):
    """A way of messages: whose requests they are, and whose server it is."""

    source: int
    target: int
    events: tuple[str, ...] = ("message.delta",)
    """Of its streams, which are recorded."""
    cut: list[bool] = []
    """Not empty: the next stream is cut behind its first word."""


class Recorder:
    """What was sent and received, in its order."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.messages: list[Message] = []
        self.is_held = anyio.Event()
        """Set by a poll that the server may hold."""
        self.is_resumed = anyio.Event()
        """Set when the server is asked for the rest of a stream."""

    def add(self, source: int, target: int, text: str, *, answers: bool = False) -> None:
        """Add an arrow; the ids in its text become their kind."""
        text = _NAMES.sub(lambda found: f"{{{found[1]}}}", text)
        self.messages.append(Message(source, target, text, answers))
        if "Prefer: wait" in text:
            self.is_held.set()
        if "Last-Event-ID" in text and target == _SERVER:
            self.is_resumed.set()

    def note(self, actor: int, text: str) -> None:
        """Add a note at an actor."""
        self.messages.append(Message(actor, actor, text))

    @asynccontextmanager
    async def between(self, hop: Hop, url: str) -> AsyncIterator[str]:
        """Stand in front of the server at `url`, record what passes, and yield the address."""
        app = web.Application()
        async with aiohttp.ClientSession(url, auto_decompress=False) as session:
            app.router.add_route("*", "/{path:.*}", partial(self._pass, hop, session))
            async with _served(app) as own:
                yield own

    async def _pass(
        self, hop: Hop, session: aiohttp.ClientSession, request: web.Request
    ) -> web.StreamResponse:
        shown = [f"{name}: {request.headers[name]}" for name in _HEADERS if name in request.headers]
        path = request.rel_url.raw_path.removeprefix("/v1")
        self.add(hop.source, hop.target, "\n".join([f"{request.method} {path}", *shown]))
        async with session.request(
            request.method,
            request.rel_url.raw_path_qs,
            data=await request.read(),
            headers=_passed(request.headers),
        ) as answer:
            response = web.StreamResponse(status=answer.status, headers=_passed(answer.headers))
            await response.prepare(request)
            async for text, block in _blocks_of(answer):
                if request.transport is None or request.transport.is_closing():
                    break
                if answer.content_type != "text/event-stream" or text.startswith(hop.events):
                    self.add(hop.target, hop.source, text, answers=True)
                await response.write(block)
                if hop.cut and b"thread.message.delta" in block:
                    hop.cut.clear()
                    self.note(hop.source, "the connection is cut")
                    request.transport.abort()
                    break
        return response


@asynccontextmanager
async def _served(app: web.Application) -> AsyncIterator[str]:
    """Serve an application on loopback; yield its address."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


def _passed(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that a proxy passes on."""
    own = {"connection", "content-length", "host", "keep-alive", "transfer-encoding"}
    return {name: value for name, value in headers.items() if name.lower() not in own}


async def _blocks_of(answer: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, bytes]]:
    """Yield an answer, or each event of a stream: what is shown of it, and its bytes."""
    async for chunk in answer.content.iter_any():
        is_stream = answer.content_type == "text/event-stream"
        for block in re.findall(rb"(?s).*?\n\n", chunk) if is_stream else [chunk]:
            yield _shown(block), block


def _shown(block: bytes) -> str:
    """Return what is shown of an answer, or of an event."""
    if block.startswith(b"{"):
        found = msgspec.json.decode(block)
        name = found.get("object", "answer").removeprefix("thread.")
        return f"{name}: {found['status']}" if "status" in found else name
    fields = dict(line.split(": ", 1) for line in block.decode().splitlines() if ": " in line)
    event = fields.get("event", "retry").removeprefix("thread.")
    if event != "message.delta":
        return event
    delta = msgspec.json.decode(fields["data"])["delta"]
    return f'{event}: "{delta["content"][0]["text"]["value"]}"'


def sequence(title: str, actors: Sequence[str], messages: Sequence[Message]) -> str:
    """Return a sequence diagram."""
    left, width = 100, 200 + _GAP * (len(actors) - 1)
    height = _TOP + _STEP * len(messages) + 20
    places = [left + _GAP * number for number in range(len(actors))]
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"',
        f'  aria-label="{escape(title)}" font-family="sans-serif" font-size="13"',
        '  text-anchor="middle">',
        f'<rect width="{width}" height="{height}" rx="8" fill="{_PAPER}"/>',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8"',
        f'  markerHeight="8" orient="auto"><path d="M0 0L8 4L0 8z" fill="{_LINE}"/></marker>',
        "</defs>",
    ]
    for name, x in zip(actors, places, strict=True):
        lines += [
            f'<path d="M{x} 40V{height - 10}" stroke="#90a4ae" stroke-dasharray="3 4"/>',
            f'<rect x="{x - 80}" y="10" width="160" height="30" rx="6" fill="{_LINE}"/>',
            f'<text x="{x}" y="30" fill="#ffffff" font-weight="bold">{escape(name)}</text>',
        ]
    for number, message in enumerate(messages):
        y = _TOP + 20 + _STEP * number
        x, to_x = places[message.source], places[message.target]
        text = escape(message.text)
        if x == to_x:
            size = 16 + 7 * len(message.text)
            middle = min(x, width - 6 - size / 2)
            lines.append(
                f'<rect x="{middle - size / 2}" y="{y - 18}" width="{size}" height="24" rx="4"'
                f' fill="#fff3e0" stroke="#ef6c00"/>'
            )
            lines.append(f'<text x="{middle}" y="{y - 1}" fill="{_INK}">{text}</text>')
            continue
        dashes = ' stroke-dasharray="6 4"' if message.answers else ""
        lines.append(
            f'<path d="M{x} {y}H{to_x + (-2 if to_x > x else 2)}" stroke="{_LINE}"{dashes}'
            ' stroke-width="1.5" marker-end="url(#tip)"/>'
        )
        for part, below in zip(text.split("\n"), (-6, 15), strict=False):
            lines.append(f'<text x="{(x + to_x) / 2}" y="{y + below}" fill="{_INK}">{part}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


class _Model:
    """A model that begins, and says its words when it may."""

    def __init__(self, *words: str) -> None:
        self._words = words
        self.has_begun = anyio.Event()
        self.may_speak = [anyio.Event() for _ in words]

    async def respond(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Say it."""
        self.has_begun.set()
        for word, may in zip(self._words, self.may_speak, strict=True):
            await may.wait()
            yield TextDelta(word)
        yield Finish()


async def _wait(recorder: Recorder) -> None:
    model = _Model("Rain.")
    async with (
        LocalServer(backend=model) as server,
        recorder.between(Hop(1, 2), server.url.removesuffix("/v1")) as url,
        AsyncClient(f"{url}/v1") as client,
    ):
        assistant = await client.assistants.create(model="any")
        thread = await client.threads.create()
        recorder.messages.clear()

        recorder.add(0, 1, "runs.create(thread_id, ...)")
        run = await client.runs.create(thread.id, assistant_id=assistant.id)
        recorder.add(1, 0, f"Run: {run.status}", answers=True)
        await model.has_begun.wait()
        recorder.add(0, 1, "await_run(client, run)")
        async with anyio.create_task_group() as group:
            group.start_soon(_until_held, recorder, model)
            run = await await_run(client, run, timeout=60)
        recorder.add(1, 0, f"Run: {run.status}", answers=True)
        recorder.add(0, 1, "runs.result(run)")
        result = await client.runs.result(run)
        recorder.add(1, 0, f'result.text: "{result.text}"', answers=True)


async def _until_held(recorder: Recorder, model: _Model) -> None:
    """Let the model speak once a poll is held."""
    await recorder.is_held.wait()
    recorder.note(2, "the model works; the poll is held")
    model.may_speak[0].set()


async def _reconnect(recorder: Recorder) -> None:
    model = _Model("Sun", "ny.")
    async with (
        LocalServer(backend=model) as server,
        recorder.between(Hop(1, 2, cut=[True]), server.url.removesuffix("/v1")) as url,
        AsyncClient(f"{url}/v1") as client,
    ):
        assistant = await client.assistants.create(model="any")
        thread = await client.threads.create()
        recorder.messages.clear()

        recorder.add(0, 1, "async with runs.stream(...)")
        async with client.runs.stream(thread.id, assistant_id=assistant.id) as stream:
            model.may_speak[0].set()
            async for text in stream.text_deltas():
                recorder.add(1, 0, f'"{text}"', answers=True)
                model.may_speak[1].set()
        assert stream.run is not None
        recorder.add(1, 0, f"stream.run.status: {stream.run.status}", answers=True)


def _application(client: AsyncClient, assistant_id: str, has_left: anyio.Event) -> web.Application:
    """Return the back end of a page that follows runs; `has_left` is set when a reader left."""

    async def start(_: web.Request) -> web.Response:
        run = await client.threads.create_and_run(assistant_id=assistant_id)
        ids = {"thread_id": run.thread_id, "run_id": run.id}
        return web.json_response({"object": "the ids of the run", **ids})

    async def events(request: web.Request) -> web.StreamResponse:
        after = request.headers.get("Last-Event-ID")
        stream = client.runs.follow(
            request.match_info["run_id"],
            thread_id=request.match_info["thread_id"],
            last_event_id=after,
        )
        response = web.StreamResponse(headers=relay.HEADERS)
        async with relay.sse(stream, heartbeat=0.05) as frames:
            await response.prepare(request)
            with suppress(ConnectionError):  # the browser has left
                async for frame in frames:
                    await response.write(frame)
        has_left.set()
        return response

    app = web.Application()
    app.router.add_post("/chat", start)
    app.router.add_get("/events/{thread_id}/{run_id}", events)
    return app


async def _relay(recorder: Recorder) -> None:
    model, has_left = _Model("Sun", "ny."), anyio.Event()
    async with (
        LocalServer(backend=model) as server,
        # Of its other events it is not certain when they pass, beside those of the application.
        recorder.between(Hop(1, 2), server.url.removesuffix("/v1")) as url,
        AsyncClient(f"{url}/v1") as client,
    ):
        assistant = await client.assistants.create(model="any")
        async with (
            _served(_application(client, assistant.id, has_left)) as own,
            recorder.between(Hop(0, 1, ("message.delta", "done"), [True]), own) as front,
            aiohttp.ClientSession(front) as browser,
        ):
            recorder.messages.clear()
            async with browser.post("/chat") as response:
                ids = await response.json()
            await model.has_begun.wait()
            path = f"/events/{ids['thread_id']}/{ids['run_id']}"
            model.may_speak[0].set()
            after = await _until_cut(browser, path)
            await has_left.wait()
            async with anyio.create_task_group() as group:
                group.start_soon(_speak_on, recorder, model)
                async with browser.get(path, headers={"Last-Event-ID": after}) as response:
                    await response.read()


async def _speak_on(recorder: Recorder, model: _Model) -> None:
    """Let the model say its second word once somebody follows again."""
    await recorder.is_resumed.wait()
    model.may_speak[1].set()


async def _until_cut(browser: aiohttp.ClientSession, path: str) -> str:
    """Read a stream until it breaks; return the id of its last event."""
    text = b""
    with suppress(aiohttp.ClientError):
        async with browser.get(path) as response:
            async for chunk in response.content.iter_any():
                text += chunk
    last: bytes = re.findall(rb"^id: (.+)$", text, re.MULTILINE)[-1]
    return last.decode()


def _drawn(
    title: str, actors: Sequence[str], exchange: Callable[[Recorder], Coroutine[Any, Any, None]]
) -> str:
    """Carry an exchange out, and return its diagram."""
    recorder = Recorder()
    asyncio.run(exchange(recorder))
    return sequence(title, actors, recorder.messages)


def wait_drawing() -> str:
    """Return the diagram of a run that is created and waited for."""
    return _drawn("A wait", ["your code", "AsyncClient", "server"], _wait)


def reconnect_drawing() -> str:
    """Return the diagram of a stream whose connection is cut behind its first word."""
    return _drawn("A stream that reconnects", ["your code", "AsyncClient", "server"], _reconnect)


def relay_drawing() -> str:
    """Return the diagram of a browser that follows a run through a web application."""
    return _drawn("A relay", ["browser", "your application", "server"], _relay)


def pauses_drawing() -> str:
    """Return the pauses between polls over the time of a wait, where the server gives no hint."""
    policy, width, height, until = PollPolicy(), 720, 220, 60.0
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"',
        '  aria-label="Pauses between polls" font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" rx="8" fill="{_PAPER}"/>',
    ]
    for seconds in range(0, 61, 10):
        x = 60 + 10 * seconds
        lines.append(f'<path d="M{x} 20V180" stroke="#cfd8dc"/>')
        lines.append(f'<text x="{x}" y="198" text-anchor="middle" fill="{_INK}">{seconds} s</text>')
    for pause in (0, 1, 2, 3, 4, 5):
        y = 180 - 30 * pause
        lines.append(f'<path d="M60 {y}H660" stroke="#cfd8dc"/>')
        lines.append(f'<text x="50" y="{y + 4}" text-anchor="end" fill="{_INK}">{pause} s</text>')
    lines.append(f'<text x="60" y="14" fill="{_INK}">pause before the next poll</text>')
    now, count = 0.0, 1
    while now < until:
        longest, shortest = poll_pause(policy, count, 0.0), poll_pause(policy, count, 1.0)
        at, top, bottom = 60 + 10 * now, 180 - 30 * longest, 180 - 30 * shortest
        lines.append(
            f'<path d="M{at:.1f} {bottom:.1f}V{top:.1f}" stroke="{_LINE}" stroke-width="5"'
            ' stroke-linecap="round"/>'
        )
        now, count = now + (longest + shortest) / 2, count + 1
    return "\n".join([*lines, "</svg>"]) + "\n"
