"""The chat backend, in front of endpoints that stream."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_runs.config import RetryPolicy
from openai_runs.server import ChatBackend
from tests.server.backends.chat.test_backend import (
    KEY,
    QUICK,
    Endpoint,
    Pinging,
    Stalled,
    answer,
    completion,
    endpoint,
)
from tests.server.conftest import Serve
from tests.server.http.test_sse_response import assert_valid, outputs_of, rest_of, start_and_read
from tests.server.support import Caller, Streamed, run_path, told_text

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


def chunk(*, finish: str | None = None, usage: Any = None, **delta: Any) -> bytes:
    """Return a chunk of a streamed completion."""
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    return b"data: " + json.dumps({"choices": choices, "usage": usage}).encode() + b"\n\n"


def call(index: int | None = 0, **fields: Any) -> dict[str, Any]:
    """Return the keyword of a chunk with a piece of a tool call."""
    function = {key: fields.pop(key) for key in ("name", "arguments") if key in fields}
    piece = {"index": index, "function": function, **fields}
    return {"tool_calls": [{k: v for k, v in piece.items() if v is not None}]}


HELLO = (
    chunk(role="assistant", content=""),
    chunk(content="Hello"),
    b": ping\n\n",
    chunk(content=" back."),
    chunk(finish="stop"),
    b'data: {"choices": [], "usage": ' + json.dumps(USAGE).encode() + b"}\n\n",
    DONE,
)


async def ask(serve: Serve, used: Endpoint, **options: Any) -> tuple[Caller, Streamed]:
    """Put a server in front of an endpoint and stream one run to its end."""
    options = {"api_key": KEY, "retry": QUICK, **options}
    caller = await serve(backend=ChatBackend(used.url, **options))
    return caller, await caller.start_stream()


async def test_text_is_passed_on_piece_by_piece(serve: Serve) -> None:
    """Each piece is a delta; usage comes at the end."""
    async with endpoint(HEAD + b"".join(HELLO)) as used:
        _, streamed = await ask(serve, used)

    deltas = [e for e in streamed.events if e.name == "thread.message.delta"]
    texts = [delta.data["delta"]["content"][0]["text"]["value"] for delta in deltas]
    head, body = used.requests[0]
    assert "accept: text/event-stream, application/json" in head.lower()
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}
    assert texts == ["Hello", " back."]
    assert streamed.events[-1].data["usage"] == USAGE


async def test_piece_is_passed_on_while_the_endpoint_still_speaks(serve: Serve) -> None:
    """A reader sees the first words before the last are there."""
    async with endpoint(Stalled(HEAD + chunk(content="Half a"))) as used:
        caller = await serve(backend=ChatBackend(used.url))
        response, before = await start_and_read(caller, "Half a")
        await caller.post(f"{run_path(before[0].data)}/cancel")
        after = await rest_of(response)

    assert after.names[-1] == "run.cancelled"


async def test_tool_calls_are_passed_on_piece_by_piece(serve: Serve) -> None:
    """Names, ids and arguments as they come; the outputs go back with the same ids."""
    first = (
        chunk(content="Let me see."),
        chunk(**call(0, id="call_a", name="weather", arguments="")),
        chunk(**call(0, arguments='{"city"')),
        chunk(**call(1, id="call_b", name="weather", arguments="")),
        chunk(**call(0, arguments=': "Oslo"}')),
        chunk(**call(1, arguments="{}"), finish="tool_calls"),
        DONE,
    )
    async with endpoint(HEAD + b"".join(first), HEAD + b"".join(HELLO)) as used:
        caller, streamed = await ask(serve, used)
        waiting = streamed.events[-1].data
        path = f"{run_path(waiting)}/submit_tool_outputs"
        rest = await caller.stream(path, outputs_of(waiting))

    deltas = [e for e in streamed.events if e.name == "thread.run.step.delta"]
    pieces = [d.data["delta"]["step_details"]["tool_calls"][0] for d in deltas]
    wanted = waiting["required_action"]["submit_tool_outputs"]["tool_calls"]
    assert [(p["index"], p["function"]["arguments"]) for p in pieces] == [
        (0, ""),
        (0, '{"city"'),
        (1, ""),
        (0, ': "Oslo"}'),
        (1, "{}"),
    ]
    assert [(c["id"], c["function"]["arguments"]) for c in wanted] == [
        ("call_a", '{"city": "Oslo"}'),
        ("call_b", "{}"),
    ]
    assert [m["tool_call_id"] for m in used.requests[1][1]["messages"][-2:]] == ["call_a", "call_b"]
    assert told_text(rest.events) == "Hello back."
    assert_valid([*streamed.events, *rest.events])


ODD_CALLS: dict[str, list[bytes]] = {
    "all with the same index": [
        chunk(**call(0, id="a", name="f", arguments="{}")),
        chunk(**call(0, id="b", name="g", arguments="{}")),
    ],
    "all with the same index, and no ids": [
        chunk(**call(0, name="f", arguments="{")),
        chunk(**call(0, name="f", arguments="}")),
        chunk(**call(0, name="g", arguments="{}")),
    ],
    "all with the same index, and neither ids nor arguments": [
        chunk(**call(0, name="f")),
        chunk(**call(0, name="g")),
    ],
    "an id of its own for each piece": [
        chunk(**call(0, id="a1", name="f", arguments="")),
        chunk(**call(0, id="a2", arguments="{")),
        chunk(**call(0, id="a3", arguments="}")),
        chunk(**call(1, id="b1", name="g", arguments="")),
        chunk(**call(1, id="b2", arguments="{}")),
    ],
    "its id and name with each piece": [
        chunk(**call(0, id="a", name="f", arguments="{}")),
        chunk(**call(0, id="a", name="f", arguments=" ")),
        chunk(**call(1, id="b", name="g", arguments="{}")),
    ],
    "no index": [
        chunk(tool_calls=[call(None, id=i, name=n)["tool_calls"][0] for i, n in ("af", "bg")])
    ],
    "no arguments": [chunk(**call(0, id="a", name="f")), chunk(**call(1, id="b", name="g"))],
    "arguments as an object": [
        chunk(**call(0, id="a", name="f", arguments={})),
        chunk(**call(1, id="b", name="g", arguments={})),
    ],
}


@pytest.mark.parametrize("how", ODD_CALLS)
async def test_calls_of_endpoints_a_little_off_are_understood(serve: Serve, how: str) -> None:
    """Two calls, each with arguments that are JSON."""
    pieces = b"".join(ODD_CALLS[how])
    async with endpoint(HEAD + pieces + chunk(finish="tool_calls") + DONE) as used:
        _, streamed = await ask(serve, used)

    wanted = streamed.events[-1].data["required_action"]["submit_tool_outputs"]["tool_calls"]
    functions = [call["function"] for call in wanted]
    assert [(f["name"], f["arguments"].strip()) for f in functions] == [("f", "{}"), ("g", "{}")]


BROKEN: dict[str, tuple[bytes, str, str]] = {
    "without a reason": (chunk(content="Half a"), "Half a", "ended without a reason"),
    "not JSON": (chunk(content="Half a") + b"data: {nope\n\n", "Half a", "no chat completion"),
    "an error in the middle": (
        chunk(content="Half a")
        + b'data: {"error": {"message": "overloaded, '
        + KEY.encode()
        + b'"}}\n\n',
        "Half a",
        "failed in mid-answer: overloaded, ***",
    ),
    "an error by its name": (
        chunk(content="Half a") + b'event: error\ndata: {"message": "out of memory"}\n\n',
        "Half a",
        "failed in mid-answer: out of memory",
    ),
    "an error in plain words": (
        b"event: error\ndata: we are closed, " + KEY.encode() + b"\n\n",
        "",
        "answered with an error: we are closed, ***",
    ),
    "an error without words": (b'data: {"error": 7}\n\n', "", "does not say why"),
    "too long": (chunk(content="x" * 20_000), "", "longer answer than is read"),
    "too much": (chunk(content="x" * 900) * 20, "", "longer answer than is read"),
    "nameless": (chunk(**call(0, arguments="{}")) + chunk(finish="stop"), "", "without a name"),
    "filtered": (chunk(content="Half a", finish="content_filter") + DONE, "Half a", "filter"),
}


@pytest.mark.parametrize("mood", BROKEN)
async def test_stream_that_fails_fails_the_run(
    serve: Serve, mood: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What was passed on is kept as incomplete; it is not asked for a second time."""
    body, text, words = BROKEN[mood]
    async with endpoint(HEAD + body) as used:
        caller, streamed = await ask(serve, used, max_answer_bytes=10_000)

    run = streamed.events[-1].data
    messages = await caller.messages(run)
    assert run["status"] == "failed"
    assert words in run["last_error"]["message"]
    assert len(used.requests) == 1
    assert told_text(streamed.events).startswith(text)
    assert all(message["status"] == "incomplete" for message in messages[1:])
    assert KEY not in json.dumps(run) + caplog.text


ENDED = chunk(content="Hello back.") + chunk(finish="stop", usage=USAGE)
UNENDED = HEAD.replace(b"connection: close", b"content-length: 99999\r\nconnection: close")
ENDINGS: dict[str, bytes] = {
    "nothing more": HEAD + ENDED,
    "a connection that dies after the last word": UNENDED + ENDED + DONE,
    "a silent connection": Stalled(HEAD + ENDED),
    "a blank behind the last word": HEAD + ENDED + b"data: [DONE] \n\n",
    "a content type in capitals": HEAD.replace(b"text/event", b"Text/Event") + ENDED + DONE,
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_finished_answer_is_kept_whatever_comes_after(serve: Serve, ending: str) -> None:
    """What the model has finished is not lost because its endpoint ends badly."""
    async with endpoint(ENDINGS[ending]) as used:
        _, streamed = await ask(serve, used, timeout=1.0)

    assert streamed.names[-1] == "run.completed"
    assert told_text(streamed.events) == "Hello back."
    assert streamed.events[-1].data["usage"] == USAGE
    assert len(used.requests) == 1


async def test_finished_answer_is_not_waited_on_for_long(serve: Serve) -> None:
    """An endpoint that keeps its connection open does not keep the run open."""
    async with endpoint(Stalled(HEAD + ENDED)) as used:
        _, streamed = await ask(serve, used, idle_timeout=0.3)

    assert streamed.names[-1] == "run.completed"


COUNTS: dict[str, tuple[list[Any], tuple[int, int] | None]] = {
    "null": ([None], None),
    "words": (["unknown"], None),
    "a list": ([[7, 3]], None),
    "none of ours": ([{"tokens": 10}], None),
    "strings": ([{"prompt_tokens": "7", "completion_tokens": "3"}], (7, 3)),
    "one of two": ([{"prompt_tokens": 7}], (7, 0)),
    "one after the other": ([{"prompt_tokens": 7}, {"completion_tokens": 3}], (7, 3)),
    "one that is no number": ([{"prompt_tokens": "many", "completion_tokens": 3.0}], (0, 3)),
    "taken back": ([USAGE, {"prompt_tokens": None}], (7, 3)),
}


@pytest.mark.parametrize("how", COUNTS)
async def test_odd_token_counts_fail_no_run(serve: Serve, how: str) -> None:
    """What can be read of them counts; what cannot is not told, streamed or whole."""
    sent, wanted = COUNTS[how]
    pieces = [chunk(content="Hello"), *(chunk(usage=usage) for usage in sent), chunk(finish="stop")]
    async with endpoint(HEAD + b"".join(pieces) + DONE) as used:
        _, streamed = await ask(serve, used)
    whole = answer({**completion(), "usage": sent[0]}, 200, "content-type: application/json")
    async with endpoint(whole) as used:
        caller = await serve(backend=ChatBackend(used.url), db=None)
        answered = await caller.start_stream()

    told = streamed.events[-1].data["usage"] or {}
    counts = (told.get("prompt_tokens", 0), told.get("completion_tokens", 0))
    assert streamed.names[-1] == answered.names[-1] == "run.completed"
    assert counts == (wanted or (0, 0))


async def test_length_of_a_stream_is_incomplete(serve: Serve) -> None:
    """What was written is kept, and nobody takes it for the whole."""
    async with endpoint(HEAD + chunk(content="Half a") + chunk(finish="length") + DONE) as used:
        _, streamed = await ask(serve, used)

    assert streamed.names[-3:] == ["message.incomplete", "run.step.completed", "run.incomplete"]


@pytest.mark.parametrize("said", [b"", chunk(content="Half a")], ids=["nothing", "something"])
async def test_stream_that_falls_silent_fails_the_run(serve: Serve, said: bytes) -> None:
    """It may take long, but not say nothing for long."""
    async with endpoint(Stalled(HEAD + said)) as used:
        _, streamed = await ask(serve, used, timeout=0.3)

    message = streamed.events[-1].data["last_error"]["message"]
    assert "within 0.3 s" in message


async def test_lost_stream_is_asked_for_again_unless_it_has_spoken(serve: Serve) -> None:
    """A text is never told twice."""
    head = HEAD.replace(b"connection: close", b"content-length: 9999\r\nconnection: close")
    silent, spoken = head + b": ping\n\n", head + chunk(content="Half a")
    async with endpoint(silent, silent, HEAD + b"".join(HELLO)) as used:
        _, recovered = await ask(serve, used)
    asked = len(used.requests)
    async with endpoint(spoken) as used:
        caller = await serve(backend=ChatBackend(used.url, retry=QUICK), db=None)
        failed = await caller.start_stream()

    assert told_text(recovered.events) == "Hello back."
    assert asked == 3
    assert len(used.requests) == 1
    assert failed.events[-1].data["last_error"]["message"].endswith("bytes); its log may say why")


async def test_endpoint_that_knows_no_stream_options_is_asked_without(serve: Serve) -> None:
    """Once: it is remembered."""
    old = answer({"error": {"message": "unknown field: stream_options"}}, 400)
    async with endpoint(old, HEAD + b"".join(HELLO)) as used:
        caller, streamed = await ask(serve, used, retry=RetryPolicy(initial=0, max_retries=1))
        again = await caller.start_stream()

    assert streamed.names[-1] == again.names[-1] == "run.completed"
    assert ["stream_options" in body for _, body in used.requests] == [True, False, False]


async def test_endpoint_that_answers_whole_is_understood(serve: Serve) -> None:
    """JSON although a stream was asked for: one delta."""
    whole = answer(completion("All at once."), 200, "content-type: application/json")
    async with endpoint(whole) as used:
        _, streamed = await ask(serve, used)

    assert told_text(streamed.events) == "All at once."
    assert [e.name for e in streamed.events].count("thread.message.delta") == 1


async def test_finished_answer_is_kept_when_its_endpoint_only_pings_on(serve: Serve) -> None:
    """Comments that come for ever after the end do not hold the answer back."""
    whole = HEAD + chunk(content="Hello.") + chunk(finish="stop")
    async with endpoint(Pinging(whole)) as used:
        _, streamed = await ask(serve, used, idle_timeout=0.3)

    assert streamed.names[-1] == "run.completed"
    assert told_text(streamed.events) == "Hello."
