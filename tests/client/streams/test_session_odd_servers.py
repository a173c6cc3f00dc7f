"""Servers and proxies that stream oddly: nothing lost, nothing doubled, or a clear error."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import anyio
import pytest

from openai_runs import (
    APIResponseValidationError,
    AsyncClient,
    PollPolicy,
    RetryPolicy,
    StreamInterrupted,
)
from openai_runs.types.events import Event, MessageDeltaEvent
from tests.canaries import CANARY_KEY
from tests.client.broadcaster import DONE, HEAD, Broadcaster, frame
from tests.support import (
    Action,
    Answer,
    HostileServer,
    Raw,
    Received,
    Stall,
    run_json,
)

AT_ONCE: dict[str, Any] = {
    "retry": RetryPolicy(initial=0, maximum=0),
    "poll": PollPolicy(initial=0, maximum=0),
}
TEXT = "Hello wörld"
HALF = 9
"""Frames up to the middle of the text."""


class Odd:
    """A run whose create, or whose resumed stream, is answered as a test likes."""

    def __init__(self, *, able: bool) -> None:
        """Play a server that resumes and knows idempotency keys, or one that does neither."""
        self.broadcaster = Broadcaster(resumes=able, keys=able)
        self.on_create: Callable[[], Action] | None = None
        self.on_resume: Callable[[], Action] | None = None

    def __call__(self, request: Received) -> Action:
        """Carry the request out, or do what was asked for."""
        answer = self.broadcaster(request)
        if request.method == "POST" and request.path.endswith("/runs") and self.on_create:
            return self.on_create()
        if request.path.endswith("/stream") and self.on_resume:
            return self.on_resume()
        return answer

    def send(self, *frames: bytes, header: str = "", after: Callable[[bytes], Any] = Raw) -> Action:
        """Return an answer that streams these bytes, and no more."""
        features = self.broadcaster.features
        lines = [f"{name}: {value}\r\n" for name, value in features.items()]
        head = HEAD + "".join([*lines, header, "\r\n"]).encode()
        action: Action = after(head + b"".join(frames))
        return action

    def frames(self, start: int = 0, end: int | None = None) -> Sequence[bytes]:
        """Return some of the run's events as they are sent."""
        return self.broadcaster.frames[start:end]


@pytest.fixture(params=["able", "plain"])
def odd(request: pytest.FixtureRequest) -> Odd:
    """Return a server's side of a run."""
    return Odd(able=request.param == "able")


@pytest.fixture
async def server(odd: Odd) -> AsyncIterator[HostileServer]:
    """Yield the server."""
    async with HostileServer(odd) as one:
        yield one


@pytest.fixture
async def client(server: HostileServer) -> AsyncIterator[AsyncClient]:
    """Yield a client that does not pause."""
    async with AsyncClient(base_url=server.url, api_key=CANARY_KEY, **AT_ONCE) as one:
        yield one


async def played(client: AsyncClient) -> tuple[list[Event], str, Any]:
    """Return all events, the text of all deltas, and the result."""
    with anyio.fail_after(20):
        async with client.runs.stream("thread_1", assistant_id="asst_1") as stream:
            events = [event async for event in stream]
            result = await stream.result()
    text = "".join(event.data.text for event in events if isinstance(event, MessageDeltaEvent))
    return events, text, result


async def check_whole(client: AsyncClient) -> None:
    """Check that the run is emitted whole, and once."""
    events, text, result = await played(client)
    assert text == result.text == TEXT
    assert (result.run.id, result.run.status) == ("run_1", "completed")
    ends = [event for event in events if event.event == "thread.run.completed"]
    assert len([event for event in ends if event.data.id == "run_1"]) == 1


async def test_rest_is_told_when_done_comes_too_early(odd: Odd, client: AsyncClient) -> None:
    """`done` in the middle of a text is no end of a run."""
    odd.on_create = lambda: odd.send(*odd.frames(0, HALF), DONE)

    await check_whole(client)


async def test_nothing_is_doubled_when_a_resumed_stream_begins_anew(
    odd: Odd, client: AsyncClient
) -> None:
    """A server, or a cache, that pays no heed to `Last-Event-ID`."""
    odd.on_create = lambda: odd.send(*odd.frames(0, HALF), b"event: thr")
    odd.on_resume = lambda: odd.send(*odd.frames(), DONE)

    await check_whole(client)


async def test_run_is_polled_when_each_resumed_stream_repeats_and_breaks(
    odd: Odd, server: HostileServer, client: AsyncClient
) -> None:
    """What was received before is no progress, so the stream is given up after a few tries."""
    odd.on_create = odd.on_resume = lambda: odd.send(*odd.frames(0, HALF))

    await check_whole(client)
    assert len(server.requests) < 10


async def test_run_is_polled_when_a_server_forgets_its_features(
    odd: Odd, client: AsyncClient
) -> None:
    """One that could resume at first, and then answers 404 without a word about it."""
    odd.on_create = lambda: odd.send(*odd.frames(0, HALF))
    odd.on_resume = lambda: Answer(404, {"error": {"message": "Not Found"}})

    await check_whole(client)


@pytest.mark.parametrize("share", [1, 2])
async def test_compressed_stream_is_read(odd: Odd, client: AsyncClient, share: int) -> None:
    """As some proxies compress everything; whole, or cut in the middle of a block."""
    packer = zlib.compressobj(wbits=31)
    blocks = [packer.compress(f) + packer.flush(zlib.Z_SYNC_FLUSH) for f in [*odd.frames(), DONE]]
    body = b"".join(blocks) + packer.flush()
    gzip = "Content-Encoding: gzip\r\n"
    odd.on_create = lambda: odd.send(body[: len(body) // share], header=gzip)

    await check_whole(client)


@pytest.mark.parametrize("is_cut", [False, True])
async def test_events_of_another_run_change_nothing(
    odd: Odd, client: AsyncClient, is_cut: bool
) -> None:
    """They are passed on, but their run is neither waited for nor mistaken for the end."""
    other = [
        frame(f"thread.run.{status}", run_json(status, id="run_2"))
        for status in ("in_progress", "completed")
    ]
    rest = [] if is_cut else [*odd.frames(HALF), DONE]
    odd.on_create = lambda: odd.send(*odd.frames(0, HALF), *other, *rest)

    await check_whole(client)


async def test_stream_ends_when_its_connection_does_not(odd: Odd, client: AsyncClient) -> None:
    """After the run's last event neither EOF nor `done` is waited for much longer."""
    odd.on_create = lambda: odd.send(*odd.frames(), after=Stall)

    with anyio.fail_after(20):
        await check_whole(client)


async def test_create_is_repeated_when_it_is_one_too_many(odd: Odd, client: AsyncClient) -> None:
    """429 with Retry-After, and then the stream."""
    answers = [Answer(429, {"error": {"message": "Slow down."}}, {"retry-after": "0.05"})]

    def create() -> Action:
        return answers.pop() if answers else odd.send(*odd.frames(), DONE)

    odd.on_create = create

    await check_whole(client)


@pytest.mark.parametrize(
    "kind", ["application/json", "text/html; charset=utf-8", "application/x-ndjson"]
)
@pytest.mark.parametrize(
    "before", [b"", b": hi\n\n", b"\xef\xbb\xbf\n"], ids=["", "comment", "mark"]
)
@pytest.mark.parametrize("ending", ["whole", "cut", "open"])
async def test_stream_of_another_type_is_read(
    odd: Odd, client: AsyncClient, kind: str, before: bytes, ending: str
) -> None:
    """It is recognised by how it begins, and read as it comes."""
    end = HALF if ending == "cut" else None

    def create() -> Action:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n".encode()
        content = head + before + b"".join(odd.frames(0, end))
        return Stall(content) if ending == "open" else Raw(content)

    odd.on_create = create

    await check_whole(client)


async def test_web_page_in_place_of_a_stream_is_an_error_that_quotes_it(
    odd: Odd, client: AsyncClient
) -> None:
    """Such as the login page of a captive network."""
    page = {"Content-Type": "text/html; charset=utf-8"}
    odd.on_create = lambda: Answer(200, headers=page, body=b"<html>Please log in</html>")

    with pytest.raises(APIResponseValidationError, match="Please log in"):
        await played(client)


async def test_streams_that_are_always_empty_are_given_up(
    odd: Odd, server: HostileServer, client: AsyncClient
) -> None:
    """Nobody knows the run, and the create is not repeated for ever."""

    def create() -> Action:
        odd.broadcaster.metadata = {}  # so that no run is found by its mark either
        return odd.send()

    odd.on_create = create

    with pytest.raises(StreamInterrupted, match="before the run.s id was received"):
        await played(client)
    assert len(server.requests) < 8


WORDS: dict[str, bytes] = {
    "an error": b'{"error":{"message":"no room here","code":"rate_limit_exceeded"}}',
    "words": b"no room here",
    "a page": b"<html><title>no room here</title></html>",
    "half an event": b": hi\n\ndata: no room here",
}


@pytest.mark.parametrize("what", WORDS)
async def test_words_in_the_place_of_events_are_in_the_error(
    odd: Odd, client: AsyncClient, what: str
) -> None:
    """Where they come each time, and no run is found."""

    def create() -> Action:
        odd.broadcaster.metadata = {}
        return odd.send(WORDS[what])

    odd.on_create = create

    with pytest.raises(StreamInterrupted, match="no room here"):
        await played(client)


@pytest.mark.parametrize("what", WORDS)
async def test_words_in_the_place_of_events_cost_no_run(
    odd: Odd, client: AsyncClient, what: str
) -> None:
    """The run that was made all the same is found, and emitted."""
    answers = [odd.send(WORDS[what])]
    odd.on_create = lambda: answers.pop() if answers else odd.send(*odd.frames(), DONE)

    await check_whole(client)
