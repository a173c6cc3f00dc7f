"""What cannot be carried out is refused in OpenAI's shape, and the field is named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.server.conftest import Serve
from tests.server.support import FUNCTION, Caller

RUN = {"assistant_id": "asst_x"}
LONG_KEY = {"k" * 65: "v"}
MANY_PAIRS = {f"k{number}": "v" for number in range(17)}

BODIES: dict[str, tuple[str, Any, str | None, str]] = {
    "missing": ("/threads/t/runs", {}, "assistant_id", "Missing required parameter"),
    "unknown": ("/threads", {"nope": 1}, "nope", "Unknown parameter: 'nope'"),
    "unknown-deep": (
        "/threads/runs",
        {**RUN, "thread": {"nope": 1}},
        "thread.nope",
        "Unknown parameter: 'thread.nope'",
    ),
    "wrong-type": ("/threads/t/runs", {"assistant_id": 1}, "assistant_id", "expected `str`"),
    "not-an-object": ("/threads", [], None, "expected `object`"),
    "null": ("/threads", None, None, "expected `object`"),
    "hot": ("/threads/t/runs", {**RUN, "temperature": 3}, "temperature", "<= 2.0"),
    "top-p": ("/threads/t/runs", {**RUN, "top_p": 1.1}, "top_p", "<= 1.0"),
    "few-tokens": (
        "/threads/t/runs",
        {**RUN, "max_prompt_tokens": 255},
        "max_prompt_tokens",
        ">= 256",
    ),
    "strategy": (
        "/threads/t/runs",
        {**RUN, "truncation_strategy": {"type": "first"}},
        "truncation_strategy.type",
        "'first'",
    ),
    "tool-kind": (
        "/assistants",
        {"model": "m", "tools": [FUNCTION, {"type": "browser"}]},
        "tools[1].type",
        "'browser'",
    ),
    "function-name": (
        "/assistants",
        {"model": "m", "tools": [{"type": "function", "function": {"name": "a b"}}]},
        "tools[0].function.name",
        "regex",
    ),
    "metadata-pairs": ("/threads", {"metadata": MANY_PAIRS}, "metadata", "<= 16"),
    "metadata-key": ("/threads", {"metadata": LONG_KEY}, "metadata", "<= 64"),
    "metadata-value": ("/threads", {"metadata": {"k": "v" * 513}}, "metadata", "<= 512"),
    "metadata-number": ("/threads", {"metadata": {"k": 1}}, "metadata", "expected `str`"),
    "role": (
        "/threads/t/messages",
        {"role": "system", "content": "x"},
        "role",
        "'system'",
    ),
    "empty-content": (
        "/threads/t/messages",
        {"role": "user", "content": []},
        "content",
        ">= 1",
    ),
    "content-kind": (
        "/threads/t/messages",
        {"role": "user", "content": [{"type": "audio"}]},
        "content[0].type",
        "'audio'",
    ),
    "129-messages": (
        "/threads",
        {"messages": [{"role": "user", "content": "x"}] * 129},
        "messages",
        "<= 128",
    ),
    "no-call-id": (
        "/threads/t/runs/r/submit_tool_outputs",
        {"tool_outputs": [{"output": "x"}]},
        "tool_outputs[0].tool_call_id",
        "Missing required parameter",
    ),
}


@pytest.mark.parametrize(("path", "body", "param", "words"), BODIES.values(), ids=BODIES)
async def test_misfit_is_a_400_that_names_the_field(
    caller: Caller, path: str, body: Any, param: str | None, words: str
) -> None:
    """`param` is the path of the field, and the text says what was expected."""
    reply = await caller.send("POST", path, data=json.dumps(body))

    error = reply.json["error"]
    assert reply.status == 400
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, None)
    assert words in error["message"]


TEXTS = {
    "broken": b'{"metadata": ',
    "trailing": b"{} {}",
    "nan": b'{"metadata": NaN}',
    "infinity": b'{"metadata": 1e999}',
    "latin-1": b'{"metadata": {"k": "\xe9"}}',
    "surrogate": b'{"metadata": {"k": "\\ud800"}}',
    "deep": b'{"metadata": ' + b"[" * 100_000,
    "nul": b"\x00",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
async def test_text_that_is_no_json_is_a_400(caller: Caller, text: bytes) -> None:
    """Whatever the bytes are, the answer is an error that can be read."""
    reply = await caller.send(
        "POST", "/threads", data=text, headers={"content-type": "application/json"}
    )

    assert reply.status == 400
    assert reply.json["error"]["type"] == "invalid_request_error"


async def test_body_is_read_whatever_its_content_type(caller: Caller) -> None:
    """JSON is JSON, also where a client forgot to say so."""
    reply = await caller.send(
        "POST", "/threads", data=b'{"metadata":{"a":"b"}}', headers={"content-type": "text/plain"}
    )

    assert (reply.status, reply.json["metadata"]) == (200, {"a": "b"})


async def test_empty_body_is_an_empty_object_when_all_is_optional(caller: Caller) -> None:
    """Official clients send the content type with nothing behind it."""
    reply = await caller.send("POST", "/threads", headers={"content-type": "application/json"})

    assert reply.status == 200


@pytest.mark.parametrize("declared", [True, False], ids=["content-length", "chunked"])
async def test_body_over_the_limit_is_a_413(serve: Serve, declared: bool) -> None:
    """The body is not read to its end, and the error says how much is."""
    caller = await serve(max_request_bytes=1000)
    body = b'{"metadata": "' + b"x" * 2000

    async def pieces() -> Any:
        yield body

    reply = await caller.send("POST", "/threads", data=body if declared else pieces())

    assert reply.status == 413
    assert "at most 1000 bytes" in reply.message


QUERIES = {
    "limit-0": ("limit=0", "limit"),
    "limit-101": ("limit=101", "limit"),
    "limit-text": ("limit=ten", "limit"),
    "limit-digits": ("limit=%D9%A3", "limit"),
    "limit-huge": ("limit=" + "9" * 5000, "limit"),
    "limit-behind-zeros": ("limit=000000001000", "limit"),
    "limit-padded": ("limit=000000001" + "0" * 4500, "limit"),
    "limit-line": ("limit=5%0A", "limit"),
    "limit-sign": ("limit=%2B5", "limit"),
    "order": ("order=up", "order"),
    "after": ("after=asst_nope", "after"),
    "before": ("before=asst_nope", "before"),
}


@pytest.mark.parametrize(("query", "param"), QUERIES.values(), ids=QUERIES)
async def test_bad_query_is_a_400_that_names_the_parameter(
    caller: Caller, query: str, param: str
) -> None:
    """Neither a wrong limit nor an unknown cursor is put right in silence."""
    reply = await caller.send("GET", f"/assistants?{query}")

    assert reply.status == 400
    assert reply.json["error"]["param"] == param
    assert param in reply.message


async def test_unknown_cursor_is_named(caller: Caller) -> None:
    """The text says which id was not found."""
    reply = await caller.send("GET", "/assistants?after=asst_nope")

    assert reply.message == "Invalid 'after': no assistant found with id 'asst_nope'."


async def test_unknown_query_parameter_is_ignored(caller: Caller) -> None:
    """Clients of Azure send `api-version`."""
    assert (await caller.send("GET", "/assistants?api-version=v1&x=1")).status == 200


@pytest.mark.parametrize("path", ["/threads/t/runs", "/threads/runs"])
async def test_refusal_before_a_stream_begins_is_json(caller: Caller, path: str) -> None:
    """A client that asked for events is told no as everybody is."""
    reply = await caller.send("POST", path, json={**RUN, "stream": True})

    assert reply.status == 404
    assert reply.headers["content-type"].startswith("application/json")
    assert "No " in reply.message


async def test_stream_false_is_no_stream(caller: Caller) -> None:
    """Official clients send `stream: false`."""
    assistant_id = await caller.assistant()

    run = await caller.post("/threads/runs", {"assistant_id": assistant_id, "stream": False})

    assert run["status"] == "queued"


async def test_tool_choice_must_name_a_tool_of_the_run(caller: Caller) -> None:
    """A choice that nothing can satisfy is refused before the model is asked."""
    assistant_id = await caller.assistant(tools=[FUNCTION])
    choice = {"type": "function", "function": {"name": "nope"}}

    reply = await caller.send(
        "POST", "/threads/runs", json={"assistant_id": assistant_id, "tool_choice": choice}
    )

    assert (reply.status, reply.json["error"]["param"]) == (400, "tool_choice")


NOT_FOUND = {
    "assistant": ("GET", "/assistants/x", "No assistant found with id 'x'."),
    "thread": ("GET", "/threads/x", "No thread found with id 'x'."),
    "thread-messages": ("GET", "/threads/x/messages", "No thread found with id 'x'."),
    "thread-runs": ("POST", "/threads/x/runs", "No thread found with id 'x'."),
    "message": ("GET", "/threads/{thread}/messages/x", "No message found with id 'x'."),
    "run": ("GET", "/threads/{thread}/runs/x", "No run found with id 'x'."),
    "cancel": ("POST", "/threads/{thread}/runs/x/cancel", "No run found with id 'x'."),
    "steps": ("GET", "/threads/{thread}/runs/x/steps", "No run found with id 'x'."),
    "delete": ("DELETE", "/threads/{thread}/messages/x", "No message found with id 'x'."),
    "delete-assistant": ("DELETE", "/assistants/x", "No assistant found with id 'x'."),
    "delete-thread": ("DELETE", "/threads/x", "No thread found with id 'x'."),
}


@pytest.mark.parametrize(("method", "path", "text"), NOT_FOUND.values(), ids=NOT_FOUND)
async def test_missing_object_is_a_404_in_the_known_text(
    caller: Caller, method: str, path: str, text: str
) -> None:
    """Clients match on the text."""
    thread_id = await caller.thread()
    body = RUN if method == "POST" and not path.endswith("cancel") else None

    reply = await caller.send(method, path.format(thread=thread_id), json=body)

    assert (reply.status, reply.message) == (404, text)
    assert reply.json["error"]["type"] == "invalid_request_error"


async def test_objects_are_found_on_their_own_thread_only(caller: Caller) -> None:
    """A run's id on another thread's path is not found, nor is its step on another run's."""
    run = await caller.settled(await caller.start())
    other = await caller.settled(await caller.start())
    step = (await caller.steps(run))[0]

    wrong_thread = await caller.send("GET", f"/threads/{other['thread_id']}/runs/{run['id']}")
    wrong_run = await caller.send(
        "GET", f"/threads/{other['thread_id']}/runs/{other['id']}/steps/{step['id']}"
    )

    assert wrong_thread.message == f"No run found with id '{run['id']}'."
    assert wrong_run.message == f"No run step found with id '{step['id']}'."
    assert wrong_run.status == 404
