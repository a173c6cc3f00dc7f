"""The chat backend in front of endpoints that are slow, busy, or silent."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from openai_runs.config import RetryPolicy
from openai_runs.errors import ConfigError
from openai_runs.server import ChatBackend
from tests.server.backends.chat.test_backend import Stalled, answer, completion, endpoint
from tests.server.backends.chat.test_reader import DONE, HEAD, HELLO, chunk
from tests.server.backends.listening import listening
from tests.server.conftest import Serve
from tests.server.http.test_sse_response import start_and_read
from tests.server.support import run_path, told_text

PATIENT = RetryPolicy(initial=0.01, maximum=0.02, patience=math.inf)
HASTY = RetryPolicy(initial=0.0)
SSE = "content-type: text/event-stream"

BUSY: dict[str, bytes] = {
    "a model that loads": answer(
        {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}, 503
    ),
    "a model that loads, in words": answer(b"The model is not ready yet", 500),
    "a 503 without words": answer(b"", 503),
    "a 529": answer({"error": "busy"}, 529),
    "a 429": answer({"error": {"message": "slow down"}}, 429),
    "a 429 in a 200": answer(
        {"error": {"message": "worker limit reached", "type": "rate_limit", "code": 429}}
    ),
    "a 429 in a stream": answer(b'data: {"error": {"code": "429"}}\n\n', 200, SSE),
    "a 429 in a 503": answer({"error": {"message": "Rate limit reached"}}, 503),
    "a 429 by its type": answer({"error": {"type": "rate_limit_exceeded", "message": "no"}}, 400),
    "too many requests in a 400": answer(
        {"__type": "ThrottlingException", "message": "Too many requests, please wait."}, 400
    ),
    "no capacity in a 400": answer(
        {"errors": [{"message": "Capacity temporarily exceeded, try again."}]}, 400
    ),
    "a model that is not ready in a 400": answer({"message": "Model is not ready"}, 400),
    "a model that is not loaded in a 404": answer(
        {"detail": "The model is not yet loaded, retry later"}, 404
    ),
    "a cold boot in a 409": answer({"error": "cold boot"}, 409),
    "a model that loads, as an error field": answer(
        b'error: {"code": 503, "message": "Loading model"}\n\n', 200, SSE
    ),
    "overloaded": answer({"type": "error", "error": {"type": "overloaded_error"}}),
}


@pytest.mark.parametrize("how", BUSY)
async def test_busy_endpoint_is_waited_for(serve: Serve, how: str) -> None:
    """However it says so, and for longer than failed attempts are repeated."""
    async with endpoint(*[BUSY[how]] * 9, HEAD + b"".join(HELLO)) as used:
        caller = await serve(backend=ChatBackend(used.url, retry=PATIENT))
        streamed = await caller.start_stream()

    assert streamed.names[-1] == "run.completed"
    assert told_text(streamed.events) == "Hello back."
    assert len(used.requests) == 10


FAILING: dict[str, tuple[bytes, str]] = {
    "nothing": (answer(b"", 200, SSE), "the answer was empty"),
    "nothing without a type": (answer(b""), "the answer was empty"),
    "only pings": (answer(b": ping\n\n", 200, SSE), "the answer was empty"),
    "only [DONE]": (answer(DONE, 200, SSE), "the answer was empty"),
    "no choices": (answer({"choices": []}), "the answer was empty"),
    "no content": (answer(completion(None)), "the answer was empty"),
    "a 500": (answer(b"upstream failed", 500), "HTTP 500: upstream failed"),
}


@pytest.mark.parametrize("how", FAILING)
async def test_failed_attempts_are_repeated_for_a_while(serve: Serve, how: str) -> None:
    """As often as the policy says, also by one who waits for a busy endpoint."""
    reply, words = FAILING[how]
    async with endpoint(reply) as used:
        caller = await serve(backend=ChatBackend(used.url, retry=PATIENT))
        run = await caller.settled(await caller.start("Hello"))

    assert run["status"] == "failed"
    assert words in run["last_error"]["message"]
    assert len(used.requests) == 3


async def test_empty_answer_is_asked_for_again(serve: Serve) -> None:
    """And the next one counts."""
    async with endpoint(answer(b"", 200, SSE), HEAD + b"".join(HELLO)) as used:
        caller = await serve(backend=ChatBackend(used.url, retry=HASTY))
        streamed = await caller.start_stream()

    assert told_text(streamed.events) == "Hello back."


async def test_busy_endpoint_is_not_waited_for_beyond_the_life_of_the_run(serve: Serve) -> None:
    """The run fails with what the endpoint says, in place of an expiry that says nothing."""
    reply = answer({"error": {"message": "slow down"}}, 429, "retry-after: 100")
    async with endpoint(reply) as used:
        caller = await serve(backend=ChatBackend(used.url), run_lifetime=60)
        run = await caller.settled(await caller.start("Hello"))

    assert run["last_error"]["code"] == "rate_limit_exceeded"
    assert "slow down" in run["last_error"]["message"]
    assert len(used.requests) == 1


class Drip:
    """An endpoint that sends these pieces, each when it is told to, and sees who hangs up."""

    def __init__(self) -> None:
        self.url = ""
        self.asked = anyio.Event()
        self.closed = anyio.Event()

    async def serve(self, stream: Any, pieces: list[bytes]) -> None:
        """Send the pieces, then wait for the other side to close the connection."""
        async with stream:
            await stream.receive()
            self.asked.set()
            for piece in pieces:
                await stream.send(piece)
            try:
                while True:
                    await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                self.closed.set()


@asynccontextmanager
async def drip(*pieces: bytes) -> AsyncIterator[Drip]:
    """Open an endpoint that never ends its answer."""
    used = Drip()

    async with listening(lambda stream: used.serve(stream, list(pieces))) as used.url:
        yield used


MIDDLES: dict[str, list[bytes]] = {
    "before the head": [],
    "before the first token": [HEAD, b": processing\n\n"],
    "in the middle": [HEAD, chunk(content="Half a")],
    "after the last word": [HEAD, chunk(content="All"), chunk(finish="stop")],
    "in a whole answer": [b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{"],
    "in an error": [b"HTTP/1.1 500 X\r\ncontent-type: application/json\r\n\r\n{"],
}


@pytest.mark.parametrize("when", MIDDLES)
async def test_cancelling_closes_the_connection_to_the_model(serve: Serve, when: str) -> None:
    """At once, wherever the answer is; the endpoint need not work on for nobody."""
    async with drip(*MIDDLES[when]) as used:
        caller = await serve(backend=ChatBackend(used.url))
        run = await caller.reaches(await caller.start(), "in_progress")
        with anyio.fail_after(10):
            await used.asked.wait()
            await caller.post(f"{run_path(run)}/cancel")
            await used.closed.wait()
            ended = await caller.settled(run | {"status": "queued"})

    assert ended["status"] == "cancelled"


@pytest.mark.parametrize("when", ["before the head", "in the middle"])
async def test_expiring_closes_the_connection_to_the_model(serve: Serve, when: str) -> None:
    """A run that has lived its time asks nobody any more."""
    async with drip(*MIDDLES[when]) as used:
        caller = await serve(backend=ChatBackend(used.url), run_lifetime=1)
        run = await caller.start()
        with anyio.fail_after(20):
            await used.closed.wait()
            ended = await caller.settled(run)

    assert ended["status"] == "expired"


async def test_words_before_a_failure_are_kept(serve: Serve) -> None:
    """The message is there, and incomplete."""
    async with endpoint(HEAD + chunk(content="Half a") + chunk(finish="error") + DONE) as used:
        caller = await serve(backend=ChatBackend(used.url))
        run = await caller.settled(await caller.start("Hello"))
        message = (await caller.messages(run))[-1]

    assert "'error'" in run["last_error"]["message"]
    assert (message["status"], message["content"][0]["text"]["value"]) == ("incomplete", "Half a")


SILENCES: dict[str, tuple[bytes | None, dict[str, Any], int, str]] = {
    "no head": (None, {"first_token_timeout": 0.2}, 3, "did not answer within 0.2 s"),
    "no token": (
        Stalled(HEAD + chunk(role="assistant", content="")),
        {"first_token_timeout": 0.2, "idle_timeout": 60},
        3,
        "did not answer within 0.2 s",
    ),
    "no more": (
        Stalled(HEAD + chunk(content="Half a")),
        {"idle_timeout": 0.2},
        1,
        "did not answer within 0.2 s, after it had begun",
    ),
    "half a whole answer": (
        Stalled(HEAD.replace(b"text/event-stream", b"application/json") + b'{"choices": ['),
        {"idle_timeout": 0.2},
        3,
        "did not answer within 0.2 s, after it had begun",
    ),
    "no more thoughts": (
        Stalled(HEAD + chunk(reasoning_content="Half a")),
        {"idle_timeout": 0.2},
        3,
        "did not answer within 0.2 s, after it had begun",
    ),
}


@pytest.mark.parametrize("how", SILENCES)
async def test_silence_is_waited_out_only_so_long(serve: Serve, how: str) -> None:
    """Until the first token, and after it; another attempt is made if nothing was said."""
    reply, options, attempts, words = SILENCES[how]
    async with endpoint(reply) as used:
        caller = await serve(backend=ChatBackend(used.url, retry=HASTY, **options))
        run = await caller.settled(await caller.start("Hello"))

    assert words in run["last_error"]["message"]
    assert len(used.requests) == attempts


async def test_slow_first_token_is_waited_for(serve: Serve) -> None:
    """A short `idle_timeout` does not count before the model has begun."""
    slow = [HEAD, b": loading\n\n"]
    async with drip(*slow) as used:
        caller = await serve(backend=ChatBackend(used.url, idle_timeout=0.05), run_lifetime=2)
        run = await caller.start("Hello")
        with anyio.fail_after(20):
            ended = await caller.settled(run)

    assert ended["status"] == "expired"


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/json", "application/octet-stream", "text/html", ""]
)
async def test_stream_by_another_name_is_one(serve: Serve, kind: str) -> None:
    """Its first words are passed on while the endpoint still speaks."""
    line = f"content-type: {kind}".encode() if kind else b"x: y"
    head = HEAD.replace(b"content-type: text/event-stream", line)
    async with endpoint(Stalled(head + chunk(content="Half a"))) as used:
        caller = await serve(backend=ChatBackend(used.url))
        response, before = await start_and_read(caller, "Half a")
        await caller.post(f"{run_path(before[0].data)}/cancel")
        response.close()


@pytest.mark.parametrize("kind", ["text/event-stream", "text/plain", "application/x-ndjson"])
async def test_whole_answer_by_another_name_is_one(serve: Serve, kind: str) -> None:
    """Also where its connection stays open."""
    content = json.dumps(completion("All at once.")).encode()
    head = HEAD.replace(b"text/event-stream", kind.encode())
    for reply in (head + content, Stalled(head + content)):
        async with endpoint(reply) as used:
            backend = ChatBackend(used.url, idle_timeout=0.2)
            caller = await serve(backend=backend, db=None)
            streamed = await caller.start_stream()
        assert told_text(streamed.events) == "All at once."
        assert streamed.names[-1] == "run.completed"


async def test_thoughts_are_stripped_where_that_is_set(serve: Serve) -> None:
    """Neither the stream nor the message shows them."""
    pieces = ["<th", "ink", ">pl", "an ", "it<", "/th", "ink", ">He", "llo"]
    body = b"".join(chunk(content=piece) for piece in pieces)
    async with endpoint(HEAD + body + chunk(finish="stop") + DONE) as used:
        caller = await serve(backend=ChatBackend(used.url, think="strip"))
        streamed = await caller.start_stream()
        message = (await caller.messages(streamed.events[-1].data))[-1]

    assert told_text(streamed.events) == "Hello"
    assert message["content"][0]["text"]["value"] == "Hello"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"think": "hide"}, ConfigError),
        ({"idle_timeout": 0}, ValueError),
        ({"first_token_timeout": -1}, ValueError),
        ({"timeout": math.nan}, ValueError),
        ({"idle_timeout": "60"}, TypeError),
    ],
    ids=["think", "idle", "first", "timeout", "text"],
)
def test_setting_that_is_none_is_refused(options: dict[str, Any], error: type[Exception]) -> None:
    """By its name, before anything is asked."""
    with pytest.raises(error, match=next(iter(options))):
        ChatBackend("http://127.0.0.1/v1", **options)
