"""Whatever an endpoint sends: nothing half is taken for whole, and every end has its reason."""

from __future__ import annotations

import gzip
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import example, given

from openai_runs.config import RetryPolicy
from openai_runs.server import ChatBackend, LocalServer
from tests.server.backends.listening import listening
from tests.server.backends.random_answers import (
    Damaged,
    damaged,
    frames_of,
    frames_of_calls,
    garbage,
    said_in,
)
from tests.server.support import Caller, told_text

EVENTS = "text/event-stream"
LOST = {"reset", "short"}
"""Ends that are those of a lost connection."""


class RawEndpoint:
    """Sends bytes, whatever it is asked."""

    def __init__(self) -> None:
        self.answer = Damaged(b"", EVENTS, "close", [])
        self.url = ""

    async def serve(self, stream: Any) -> None:
        """Read one request and send the answer."""
        async with stream:
            head, _, body = (await stream.receive()).partition(b"\r\n\r\n")
            found = re.search(rb"content-length: (\d+)", head.lower())
            assert found
            while len(body) < int(found[1]):
                body += await stream.receive()
            await self._send(stream)

    async def _send(self, stream: Any) -> None:
        body, content_type, end, cuts, status, encoding = self.answer
        lines = [f"HTTP/1.1 {status} Answer", "connection: close"]
        lines += [f"content-encoding: {encoding}"] if encoding else []
        lines += ["location: /elsewhere"] if 300 <= status < 400 else []
        lines += [f"content-type: {content_type}"] if content_type else []
        length = {"length": len(body), "short": len(body) + 9}.get(end)
        lines += [] if length is None else [f"content-length: {length}"]
        lines += ["transfer-encoding: chunked"] if end in {"chunked", "reset"} else []
        await stream.send("\r\n".join([*lines, "", ""]).encode("latin-1"))
        for start, stop in zip([0, *cuts], [*cuts, len(body)], strict=True):
            piece = body[start:stop]
            if piece and end in {"chunked", "reset"}:
                piece = b"%x\r\n%b\r\n" % (len(piece), piece)
            if piece:
                await stream.send(piece)
        if end == "chunked":
            await stream.send(b"0\r\n\r\n")


@asynccontextmanager
async def served(endpoint: RawEndpoint, db: Path) -> AsyncIterator[Caller]:
    """Open the endpoint and a server in front of it."""
    async with listening(endpoint.serve) as endpoint.url:
        backend = ChatBackend(endpoint.url, retry=RetryPolicy(initial=0.0, max_retries=1))
        async with LocalServer(db, backend) as server, aiohttp.ClientSession() as session:
            yield Caller(session, server.url)


class Asking:
    """A server in front of the endpoint, asked from outside of its event loop."""

    def __init__(self, portal: BlockingPortal, endpoint: RawEndpoint, caller: Caller) -> None:
        self._portal = portal
        self._endpoint = endpoint
        self._caller = caller

    def __call__(self, answer: Damaged) -> tuple[Any, str]:
        """Return the run that got this answer, at its end, and the text that was kept of it."""
        self._endpoint.answer = answer
        result: tuple[Any, str] = self._portal.call(self._ask)
        return result

    async def _ask(self) -> tuple[Any, str]:
        caller = self._caller
        run = await caller.settled(await caller.start("Hello"))
        messages = [m for m in await caller.messages(run) if m["role"] == "assistant"]
        text = "".join(part["text"]["value"] for m in messages for part in m["content"])
        assert told_text((await caller.replay(run)).events) == text
        return run, text


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    """Yield what asks one question after the other."""
    endpoint = RawEndpoint()
    db = tmp_path_factory.mktemp("random") / "runs.db"
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(served(endpoint, db)) as caller,
    ):
        yield Asking(portal, endpoint, caller)


def check(asking: Asking, answer: Damaged) -> None:
    """Ask once, and check what became of the answer."""
    run, text = asking(answer)
    said = said_in(answer.body)

    assert run["status"] in {"completed", "failed", "incomplete", "requires_action"}
    if run["status"] == "completed":
        assert text == said.text
        assert said.is_readable
    if run["status"] == "failed":
        check_reason(answer, run["last_error"]["message"])
        # A failure keeps what came before it.
        assert said.text.startswith(text.rstrip("\ufffd"))


def check_reason(answer: Damaged, reason: str) -> None:
    """Check that a reason names what came."""
    assert len(reason) > 20
    if answer.encoding not in {"", "identity"}:  # what could not be unpacked has no words
        return
    if not 200 <= answer.status < 300:
        assert str(answer.status) in reason, reason
    elif not answer.body.strip() and answer.end not in LOST:
        assert "empty" in reason, reason
    elif answer.end in LOST and not answer.body:
        assert "connection" in reason.lower(), reason


def clean(body: bytes, content_type: str = EVENTS) -> Damaged:
    """Return an answer that ends as it should."""
    return Damaged(body, content_type, "chunked", [])


FRAMES = frames_of(["All ", "of it."])
WHOLE = b"".join(FRAMES)
CITIES = ['{"city": "Oslo"}', '{"city": "Rome {} \\"quoted\\""}']
CALLS = frames_of_calls([("weather", CITIES[0]), ("weather", CITIES[1])], finish="tool_calls")
ENDS = ["close", "length", "chunked", "reset", "short"]


@given(answer=damaged())
@example(answer=clean(WHOLE))
@example(answer=clean(WHOLE, "text/plain"))
@example(answer=clean(WHOLE, ""))
@example(answer=clean(WHOLE.rstrip()))
@example(answer=clean(WHOLE[:-60]))
@example(answer=clean(b""))
def test_answer_is_never_whole_with_less_than_was_sent(asking: Asking, answer: Damaged) -> None:
    """Streams that were cut, doubled, shuffled, flipped, rewrapped or reset."""
    check(asking, answer)


@given(answer=garbage())
def test_answer_that_is_none_ends_with_a_reason(asking: Asking, answer: Damaged) -> None:
    """Random bytes, and random pieces of what an answer is made of."""
    check(asking, answer)


@pytest.mark.parametrize("end", ["length", "chunked"])
def test_answer_that_is_compressed_is_read(asking: Asking, end: Any) -> None:
    """It is of no use, but some proxies do it; half of it is half an answer."""
    answer = Damaged(gzip.compress(WHOLE), EVENTS, end, [], encoding="gzip")
    run, text = asking(answer)
    half, _ = asking(answer._replace(body=answer.body[: len(answer.body) // 2]))

    assert run["status"] == "completed"
    assert text == "All of it."
    assert half["status"] == "failed"


def places(frames: list[bytes], step: int) -> list[int]:
    """Return where to cut: at the end of each frame, and everywhere else by steps."""
    ends = accumulate(map(len, frames), initial=0)
    return sorted({*ends, *range(0, sum(map(len, frames)), step)})


@pytest.mark.parametrize("end", ENDS)
def test_answer_that_is_cut_is_whole_only_with_its_last_word(asking: Asking, end: Any) -> None:
    """Between frames and within them, ended in each way: `[DONE]` outlives a lost connection."""
    finished = WHOLE.index(b'"stop"}]}')
    for place in places(FRAMES, 13):
        answer = Damaged(WHOLE[:place], EVENTS, end, [])
        run, text = asking(answer)

        is_between = WHOLE[:place].endswith(b"\n\n")
        assert run["status"] in {"completed", "failed"}, place
        if place < finished or (end in LOST and place < WHOLE.index(b"[DONE]")):
            assert run["status"] == "failed", place
        elif is_between:
            assert run["status"] == "completed", place
        assert text == said_in(answer.body).text, place


@pytest.mark.parametrize("end", ENDS)
def test_calls_that_are_cut_are_whole_or_not_made(asking: Asking, end: Any) -> None:
    """No call has half of its arguments, and none is made before a connection is lost."""
    body = b"".join(CALLS)
    finished = body.index(b'"tool_calls"}]}')
    for place in places(CALLS, 53):
        run, _ = asking(Damaged(body[:place], EVENTS, end, []))

        assert run["status"] in {"failed", "requires_action"}, place
        if end in LOST and place < body.index(b"[DONE]"):
            assert run["status"] == "failed", place
        elif place > finished and body[:place].endswith(b"\n\n"):
            assert run["status"] == "requires_action", place
        if run["status"] == "requires_action":
            calls = run["required_action"]["submit_tool_outputs"]["tool_calls"]
            made = [call["function"]["arguments"] for call in calls]
            assert made == CITIES[: len(made)], place
            assert len(made) == 2 or place < finished, place


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param(clean(b""), "empty", id="nothing"),
        pytest.param(clean(b"\n\n: ping\n\n"), "empty", id="comments"),
        pytest.param(clean(b"<html>Bad gateway</html>", "text/html"), "Bad gateway", id="html"),
        pytest.param(clean(b"upstream is busy", ""), "upstream is busy", id="words"),
        pytest.param(clean(b'{"error": "busy"}'), "busy", id="error-in-200"),
        pytest.param(clean(b'data: {"error": {"message": "busy"}}\n\n'), "busy", id="error-chunk"),
        pytest.param(clean(b'[{"error": {"message": "busy"}}]'), "busy", id="error-list"),
        pytest.param(
            clean(b"".join(frames_of(["a"], None, done=False))),
            "ended without a reason",
            id="no-word",
        ),
        pytest.param(clean(b"".join(frames_of(["a"], "eaten"))), "eaten", id="unknown-word"),
        pytest.param(clean(b"".join(frames_of(["a"], "error"))), "error", id="failure-word"),
        pytest.param(
            Damaged(b"".join(frames_of(["a"], None, done=False)), EVENTS, "reset", []),
            "connection",
            id="reset",
        ),
        pytest.param(clean(b"\x89PNG\r\n\x1a\n\x00\x00", "image/png"), "PNG", id="image"),
    ],
)
def test_reason_names_what_came(asking: Asking, answer: Damaged, words: str) -> None:
    """The endpoint's own words, or what was wrong with them."""
    run, text = asking(answer)

    assert run["status"] == "failed"
    assert words in run["last_error"]["message"]
    assert text == said_in(answer.body).text
