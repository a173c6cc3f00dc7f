"""One run with a tool call and many text deltas, streamed: what the fault tests break.

The server is the real one. One that cannot resume is the same server behind two things
that a user may do: a middleware that knows no `/stream` and no idempotency keys, and a
signal that takes the features header off.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from aiohttp import web
from aiohttp.web import AppRunner, TCPSite
from anyio.from_thread import start_blocking_portal

from openai_runs import AsyncClient, PollPolicy, RetryPolicy
from openai_runs.server import Call, CallTools, ModelRequest, Say, ScriptedTurn, create_app
from openai_runs.server import ScriptedBackend as Script
from openai_runs.testing import FaultProxy
from openai_runs.types.events import Event, MessageDeltaEvent
from tests.canaries import CANARY_KEY

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

__all__ = [
    "AT_ONCE",
    "CITY",
    "IMPATIENT",
    "MANY",
    "ON",
    "PIECES",
    "SHAPE",
    "Place",
    "Served",
    "Streamed",
    "boundaries",
    "check",
    "names_in",
    "places",
    "served",
    "stream_through",
    "text_of",
    "turn_of",
]

PIECES = 60
"""Text deltas of a run whose question names no other number."""
MANY = 500
"""Text deltas of a long run."""
CITY = "Malmö, by the sea"
"""What the model asks the tool about; its arguments come in pieces."""
IMPATIENT = 0.05
"""Seconds without an event in which a stalled stream is found out; for those only, since a
busy machine may be silent for as long."""
AT_ONCE: dict[str, Any] = {
    "retry": RetryPolicy(initial=0, maximum=0),
    "poll": PollPolicy(initial=0, maximum=0),
}
"""Client settings that leave no pause between a fault and what is done about it."""


def pieces_of(count: int) -> list[str]:
    """Return the pieces the text is said in: all different, some of several bytes a letter."""
    return [f"{number} grüße\n" if number % 7 == 0 else f"{number} " for number in range(count)]


def text_of(count: int) -> str:
    """Return the whole text."""
    return "".join(pieces_of(count))


def turn_of(request: ModelRequest, *, pause: float = 0.0) -> ScriptedTurn:
    """Return the model's turn: a tool call, then as many pieces of text as the question says."""
    if not request.turns:
        return CallTools([Call("look_up", {"city": CITY})], chunk=5, pause=pause)
    return Say(pieces_of(int(request.question)), pause=pause)


# --- the server


@asynccontextmanager
async def serving(*, resumes: bool) -> AsyncIterator[str]:
    """Serve on a free port and yield the base URL."""
    middlewares = [] if resumes else [_forgetful]
    app = create_app(backend=Script(turn_of), middlewares=middlewares)
    if not resumes:
        app.on_response_prepare.append(_say_no_features)
    runner = AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    try:
        await TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


class Served(NamedTuple):
    """A server, and what a run looks like that nothing happens to."""

    url: str
    resumes: bool
    legs: dict[str, bytes]
    """The body of each of the two answers."""

    @property
    def names(self) -> list[str]:
        """Return the names of all events."""
        return [name for leg in self.legs.values() for name in names_in(leg) if name != "done"]


@contextmanager
def served(*, resumes: bool, count: int = PIECES) -> Iterator[Served]:
    """Serve in a thread of its own, so that tests with a loop each can share one server."""
    with (
        start_blocking_portal("asyncio") as portal,
        portal.wrap_async_context_manager(serving(resumes=resumes)) as url,
    ):
        yield Served(url, resumes, portal.call(partial(recorded, url, count=count)))


@web.middleware
async def _forgetful(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Know no `/stream`, and take each POST for a new one."""
    if request.path.endswith("/stream"):
        raise web.HTTPNotFound
    headers = request.headers.copy()
    headers.popall("idempotency-key", None)
    return await handler(request.clone(headers=headers))


async def _say_no_features(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.pop("openai-runs-features", None)


# --- the client


class Streamed(NamedTuple):
    """What one streamed run came to."""

    events: list[Event]
    result: Any
    calls: list[str]
    """What the tool was asked."""

    @property
    def names(self) -> list[str]:
        """Return the names of the events."""
        return [event.event for event in self.events]

    @property
    def ids(self) -> list[str]:
        """Return the places of the events that have one."""
        return [event.id for event in self.events if event.id]

    @property
    def text(self) -> str:
        """Return all text deltas, put together."""
        return "".join(e.data.text for e in self.events if isinstance(e, MessageDeltaEvent))


async def stream_through(url: str, *, count: int = PIECES, **options: Any) -> Streamed:
    """Return the run that a client of `url` streams, with one function as its tool."""
    calls: list[str] = []

    async def look_up(city: str) -> str:
        """Look a city up."""
        calls.append(city)
        return f"{city} is fine."

    events: list[Event] = []
    async with AsyncClient(url, api_key=CANARY_KEY, **AT_ONCE) as client:
        assistant = await client.assistants.create(model="m")
        thread = await client.threads.create()
        async with client.runs.stream(
            thread.id,
            assistant_id=assistant.id,
            additional_messages=[{"role": "user", "content": str(count)}],
            tools=[look_up],
            **{"timeout": 40, **options},
        ) as stream:
            events.extend([event async for event in stream])
            result = await stream.result()
    return Streamed(events, result, calls)


def check(streamed: Streamed, proxy: FaultProxy, *, count: int = PIECES) -> None:
    """Check that nothing is lost and nothing came twice, as the client and the server see it."""
    result, text = streamed.result, text_of(count)
    assert streamed.text == text
    assert result.text == text
    assert result.run.status == "completed"
    assert [message.status for message in result.messages] == ["completed"]
    assert [step.status for step in result.steps] == ["completed"] * 2
    assert [call.function.output for call in result.steps[0].tool_calls] == [f"{CITY} is fine."]
    assert streamed.calls == [CITY]
    assert len(accepted(proxy, "submit_tool_outputs")) == 1
    assert len(accepted(proxy, "/runs")) == 1
    for name in ("thread.run.completed", "thread.message.completed"):
        assert streamed.names.count(name) == 1
    assert streamed.names[-1] == "thread.run.completed"
    assert len(streamed.ids) == len(set(streamed.ids))


def accepted(proxy: FaultProxy, ending: str) -> list[Any]:
    """Return the POSTs that the server carried out, by the ends of their paths."""
    return [
        answer.request
        for answer in proxy.answers
        if answer.request.matches("POST", None)
        and answer.request.path.endswith(ending)
        and answer.status == 200
        and "idempotent-replayed" not in answer.headers
    ]


# --- the bytes


class Place(NamedTuple):
    """Where one of the two legs is broken."""

    leg: str
    """`create` or `submit`."""
    after: int
    """Bytes of its body that come before."""


ON = {"create": "/runs HTTP", "submit": "submit_tool_outputs"}
"""What tells the requests of the two legs, for `FaultProxy.plan`."""

SHAPE = {
    "create": [
        "thread.run.created",
        "thread.run.queued",
        "thread.run.in_progress",
        "thread.run.step.created",
        "thread.run.step.in_progress",
        "thread.run.step.delta",
        "thread.run.requires_action",
        "done",
    ],
    "submit": [
        "thread.run.step.completed",
        "thread.run.queued",
        "thread.run.in_progress",
        "thread.run.step.created",
        "thread.run.step.in_progress",
        "thread.message.created",
        "thread.message.in_progress",
        "thread.message.delta",
        "thread.message.completed",
        "thread.run.step.completed",
        "thread.run.completed",
        "done",
    ],
}
"""The events of each leg, each row of equal ones given once."""


def boundaries() -> list[str]:
    """Return a name for each kind of boundary, as `places` has them."""
    names = []
    for leg, kinds in SHAPE.items():
        for number, kind in enumerate(kinds):
            around = ["", ":second", ":last"] if kind.endswith(".delta") else [""]
            names += [f"{leg}-{number}-{kind}{which}" for which in around]
        names.append(f"{leg}-end")
    return names


async def recorded(url: str, *, count: int = PIECES) -> dict[str, bytes]:
    """Return the bytes of both legs of a run that nothing happens to."""
    async with FaultProxy(url) as proxy:
        check(await stream_through(proxy.url, count=count), proxy, count=count)
        streams = [a for a in proxy.answers if "event-stream" in a.headers["content-type"]]
    return dict(zip(("create", "submit"), (one.body for one in streams), strict=True))


def names_in(body: bytes) -> list[str]:
    """Return the names of the events in a leg."""
    frames = body.split(b"\n\n")[:-1]
    return [frame.partition(b"event: ")[2].partition(b"\n")[0].decode() for frame in frames]


def places(legs: dict[str, bytes]) -> dict[str, Place]:
    """Return where each kind of event begins, also the second and the last of a row."""
    found: dict[str, Place] = {}
    for leg, body in legs.items():
        at, number, row, before = 0, -1, 0, ""
        for frame, name in zip(body.split(b"\n\n"), names_in(body), strict=False):
            number, row = (number, row + 1) if name == before else (number + 1, 0)
            key = f"{leg}-{number}-{name}"
            found[f"{key}{['', ':second', ':last'][min(row, 2)]}"] = Place(leg, at)
            at, before = at + len(frame) + 2, name
        found[f"{leg}-end"] = Place(leg, at)
    return found
