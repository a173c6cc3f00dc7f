"""A server that ends in mid-stream, by force or not: the client still ends with everything.

And, while it lives, whoever else reads the run reads the same.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anyio
import pytest
from anyio import to_thread

from openai_runs import AsyncClient, PollPolicy, RetryPolicy, RunStream
from openai_runs.testing import FaultProxy
from openai_runs.types.events import Event, MessageDeltaEvent, RunStepDeltaEvent
from openai_runs.types.steps import FunctionToolCall
from tests.canaries import CANARY_KEY
from tests.e2e.streamed_run import AT_ONCE, CITY, Served, served, stream_through, text_of
from tests.tiers import few

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

ROOT = Path(__file__).resolve().parents[2]
COUNT = 80
"""Text deltas of a run whose server ends in between: a fifth of a second of them."""
PATIENT: dict[str, Any] = {
    "retry": RetryPolicy(initial=0.01, maximum=0.05),
    "poll": PollPolicy(initial=0.02, maximum=0.1),
}
Strike = Callable[[], Coroutine[Any, Any, None]]


class DoomedServer:
    """The server of `streaming_server.py`, ended and started again on one file and port."""

    def __init__(self, db: Path) -> None:
        """Start it on any free port."""
        self._db = db
        self._start(0)

    def _start(self, port: int) -> None:
        command = [sys.executable, "-m", "tests.e2e.streaming_server", str(self._db), str(port)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End the process."""
        self._process.send_signal(how)
        self._process.wait(20)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def restart(self, how: signal.Signals) -> None:
        """End the process, and start another in its place."""
        port = urlsplit(self.url).port
        self.end(how)
        self._start(port or 0)


@pytest.fixture(scope="module")
def doomed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DoomedServer]:
    """Yield a server that each test ends in its way; what it has stored stays."""
    server = DoomedServer(tmp_path_factory.mktemp("doomed") / "runs.db")
    yield server
    server.end()


async def nothing(group: TaskGroup) -> None:
    """Let the tool be."""


def never(event: Event, number: int) -> bool:
    """Return False: no event is the one."""
    return False


async def struck(
    client: AsyncClient,
    strike: Strike,
    *,
    at_event: Callable[[Event, int], bool] = never,
    in_tool: Callable[[TaskGroup], Awaitable[None]] = nothing,
) -> None:
    """Stream a run whose server is struck once, and check that nothing is lost or doubled."""
    calls: list[str] = []
    events: list[Event] = []
    is_struck = False

    async def look_up(city: str) -> str:
        """Look a city up."""
        calls.append(city)
        await in_tool(group)
        return f"{city} is fine."

    async with (
        anyio.create_task_group() as group,
        await begin(client, tools=[look_up], timeout=50) as stream,
    ):
        async for event in stream:
            events.append(event)
            if not is_struck and at_event(event, len(events)):
                is_struck = True
                group.start_soon(strike)
        result = await stream.result()

    told = "".join(e.data.text for e in events if isinstance(e, MessageDeltaEvent))
    assert told == result.text == text_of(COUNT)
    assert result.run.status == "completed"
    assert calls == [CITY]
    assert [event.event for event in events].count("thread.run.completed") == 1
    await check_stored(client, result.run)


async def begin(client: AsyncClient, *, count: int = COUNT, **options: Any) -> RunStream:
    """Return the stream of a run that says so many pieces, not opened."""
    assistant = await client.assistants.create(model="m")
    thread = await client.threads.create()
    question = {"role": "user", "content": str(count)}
    return client.runs.stream(
        thread.id, assistant_id=assistant.id, additional_messages=[question], **options
    )


async def check_stored(client: AsyncClient, run: Any) -> None:
    """Check what the server has of the run: one answer to the tool, and one message."""
    steps = [step async for step in client.runs.steps.list(run.id, thread_id=run.thread_id)]
    done = [step for step in steps if step.status == "completed"]
    assert sorted(step.type for step in done) == ["message_creation", "tool_calls"]
    (tool_step,) = (step for step in done if step.type == "tool_calls")
    outputs = [c.function.output for c in tool_step.tool_calls if isinstance(c, FunctionToolCall)]
    assert outputs == [f"{CITY} is fine."]
    messages = [one async for one in client.messages.list(run.thread_id, run_id=run.id)]
    written = [(one.status, one.text) for one in messages if one.role == "assistant"]
    assert written == [("completed", text_of(COUNT))]


@pytest.fixture
async def client(doomed: DoomedServer) -> AsyncIterator[AsyncClient]:
    """Yield a client that bears it when the server is gone for a while."""
    async with AsyncClient(doomed.url, api_key=CANARY_KEY, **PATIENT) as one:
        yield one


def striking(server: DoomedServer, how: signal.Signals) -> Strike:
    """Return what ends the server in that way, and starts another."""

    async def strike() -> None:
        await to_thread.run_sync(server.restart, how)

    return strike


def nth(kind: type[Event], number: int) -> Callable[[Event, int], bool]:
    """Return what is true for the event of that kind with that number."""
    seen = 0

    def is_it(event: Event, place: int) -> bool:
        nonlocal seen
        seen += isinstance(event, kind)
        return seen >= number

    return is_it


HOW = [signal.SIGKILL, signal.SIGTERM]


@pytest.mark.parametrize("seed", few(range(7), kept=[0, 4], rest=pytest.mark.kills))
async def test_text_is_whole_when_the_server_is_killed_in_it(
    doomed: DoomedServer, client: AsyncClient, seed: int
) -> None:
    """Deltas are on their way, some of them told and not yet stored."""
    number = random.Random(seed).randrange(1, COUNT)
    strike = striking(doomed, signal.SIGKILL)

    await struck(client, strike, at_event=nth(MessageDeltaEvent, number))


@pytest.mark.parametrize("number", few([1, 3], kept=[3], rest=pytest.mark.kills))
async def test_tool_is_called_once_when_the_server_is_killed_in_its_arguments(
    doomed: DoomedServer, client: AsyncClient, number: int
) -> None:
    """The model is asked again, and the call it had begun was nobody's yet."""
    strike = striking(doomed, signal.SIGKILL)

    await struck(client, strike, at_event=nth(RunStepDeltaEvent, number))


@pytest.mark.parametrize("number", few([1, 2, 3], kept=[2], rest=pytest.mark.kills))
async def test_run_is_whole_when_the_server_is_killed_at_its_beginning(
    doomed: DoomedServer, client: AsyncClient, number: int
) -> None:
    """Created, queued, in progress."""
    strike = striking(doomed, signal.SIGKILL)

    await struck(client, strike, at_event=lambda event, place: place >= number)


@pytest.mark.parametrize("how", HOW)
async def test_tool_is_answered_once_when_the_server_ends_meanwhile(
    doomed: DoomedServer, client: AsyncClient, how: signal.Signals
) -> None:
    """The run waits on untouched, and takes the output of a tool that knew of nothing."""

    async def strike(group: TaskGroup) -> None:
        await striking(doomed, how)()

    await struck(client, striking(doomed, how), in_tool=strike)


@pytest.mark.parametrize("seed", few(range(8), kept=[0, 1], rest=pytest.mark.kills))
async def test_tool_is_answered_once_when_the_server_is_killed_at_the_submit(
    doomed: DoomedServer, client: AsyncClient, seed: int
) -> None:
    """Before the outputs arrive, before their reply, or just behind it."""
    seconds = random.Random(seed).random() * 0.02
    strike = striking(doomed, signal.SIGKILL)

    async def strike_soon() -> None:
        await anyio.sleep(seconds)
        await strike()

    async def strike_behind(group: TaskGroup) -> None:
        group.start_soon(strike_soon)

    await struck(client, strike, in_tool=strike_behind)


@pytest.mark.parametrize("seed", few(range(3), kept=[0], rest=pytest.mark.kills))
async def test_text_is_whole_when_the_server_is_stopped_in_it(
    doomed: DoomedServer, client: AsyncClient, seed: int
) -> None:
    """SIGTERM: the stream ends properly, and another server takes the run up."""
    number = random.Random(seed).randrange(1, COUNT)
    strike = striking(doomed, signal.SIGTERM)

    await struck(client, strike, at_event=nth(MessageDeltaEvent, number))


# --- other readers


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    """Yield a server that lives."""
    with served(resumes=True) as one:
        yield one


async def followed(url: str, run: Any, last: str | None = None) -> list[Event]:
    """Return the events that another client reads of the run."""
    async with AsyncClient(url, api_key=CANARY_KEY, **AT_ONCE) as client:
        stream = client.runs.follow(run.id, thread_id=run.thread_id, last_event_id=last)
        async with stream:
            return [event async for event in stream]


async def test_follower_is_told_what_the_first_reader_was_told(server: Served) -> None:
    """Byte for byte, ids included; joined in the middle, the rest of it."""
    first = await stream_through(server.url)
    run = first.result.run
    legs = b"".join(server.legs.values())

    async with FaultProxy(server.url) as proxy:
        whole = await followed(proxy.url, run)
        again = await followed(proxy.url, run)
        streams = [a.body for a in proxy.answers if a.request.path.endswith("/stream")]

    assert whole == again == first.events
    assert streams[0] == streams[1]
    assert len(streams[0]) == len(legs) - len(b"event: done\ndata: [DONE]\n\n")
    for place in random.Random(3).sample(range(len(whole)), 12):
        assert await followed(server.url, run, whole[place].id) == whole[place + 1 :]


async def test_followers_of_a_run_under_way_are_told_the_same(server: Served) -> None:
    """Some from its first event, some from where they were, all at the same time.

    A follower answers no tools, so it is told everything up to where the run waits for them.
    """
    told: list[list[Event]] = []

    async def read_along(run: Any, last: str | None) -> None:
        told.append(await followed(server.url, run, last))

    async with (
        AsyncClient(server.url, api_key=CANARY_KEY, **AT_ONCE) as client,
        anyio.create_task_group() as group,
    ):
        events: list[Event] = []
        stream = await begin(client, count=300, tools=[lookup_of()])
        async with stream:
            async for event in stream:
                events.append(event)
                if len(events) in {1, 5, 20, 200}:
                    group.start_soon(read_along, stream.run, None)
                    group.start_soon(read_along, stream.run, event.id)

    ids = [event.id for event in events]
    assert len(told) == 8
    for one in told:
        start = ids.index(one[0].id)
        assert one == events[start : start + len(one)]
        assert one[-1].event in {"thread.run.requires_action", "thread.run.completed"}
    assert sum(one[-1] == events[-1] for one in told) >= 4


def lookup_of() -> Callable[[str], Awaitable[str]]:
    """Return the tool."""

    async def look_up(city: str) -> str:
        """Look a city up."""
        return f"{city} is fine."

    return look_up
