"""Numbers and depths are bounded where a body is read, so that nothing fails on them later."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_runs.config import MAX_INTEGER, MAX_JSON_DEPTH
from tests.server.conftest import Serve
from tests.server.support import Caller

OBJECT = {"type": "object"}
FUNCTION_LEVELS = 5
"""Objects and arrays around the parameters of a function, the body's own included."""


def nested(levels: int, opening: str = '{"a":', closing: str = "}") -> str:
    """Return a JSON value that is so many levels deep, the innermost a null."""
    return opening * levels + "null" + closing * levels


def tool(parameters: str) -> str:
    """Return the tools of an assistant with such parameters."""
    return f'[{{"type":"function","function":{{"name":"f","parameters":{{"p":{parameters}}}}}}}]'


FORMAT = '{{"type":"json_schema","json_schema":{{"name":"s","schema":{{"p":{}}}}}}}'
DEEP_PLACES: dict[str, tuple[str, str]] = {
    "parameters": ("/assistants", '{{"model":"m","tools":{}}}'),
    "schema": ("/assistants", '{{"model":"m","response_format":{}}}'),
    "run-tools": ("/threads/t/runs", '{{"assistant_id":"a","tools":{}}}'),
    "thread-and-run-tools": ("/threads/runs", '{{"assistant_id":"a","tools":{}}}'),
    "metadata": ("/threads", '{{"metadata":{}}}'),
    "resources": ("/threads", '{{"tool_resources":{}}}'),
    "resources-of-a-run": ("/threads/t/runs", '{{"assistant_id":"a","tool_resources":{}}}'),
    "content": ("/threads/t/messages", '{{"role":"user","content":{}}}'),
    "outputs": ("/threads/t/runs/r/submit_tool_outputs", '{{"tool_outputs":{}}}'),
    "unknown-field": ("/threads", '{{"stream_options":{}}}'),
    "body": ("/threads", "{}"),
    "bodiless-operation": ("/threads/t/runs/r/cancel", "{}"),
}


async def post(caller: Caller, path: str, body: str, **headers: str) -> Any:
    """Send the body as it is."""
    sent = {"content-type": "application/json", **headers}
    return await caller.send("POST", path, data=body, headers=sent)


def filled(place: str, value: str) -> tuple[str, str]:
    """Return path and body with the value at this place."""
    path, body = DEEP_PLACES[place]
    around = {"parameters": tool, "run-tools": tool, "thread-and-run-tools": tool}.get(place)
    if place == "schema":
        around = FORMAT.format
    return path, body.format(around(value) if around else value)


@pytest.mark.parametrize("brackets", [('{"a":', "}"), ("[", "]")], ids=["objects", "arrays"])
@pytest.mark.parametrize("levels", [200, 969, 970, 971, 100_000])
@pytest.mark.parametrize("place", DEEP_PLACES)
async def test_deep_body_is_refused_wherever_the_depth_is(
    caller: Caller, place: str, levels: int, brackets: tuple[str, str]
) -> None:
    """One limit holds for every body, with and without an `Idempotency-Key`."""
    path, body = filled(place, nested(levels, *brackets))

    for headers in ({}, {"idempotency-key": "k"}):
        reply = await post(caller, path, body, **headers)
        assert reply.json["error"]["type"] == "invalid_request_error"
        if place == "bodiless-operation" and not headers:  # it does not read its body
            assert reply.status == 404, reply.text
        else:
            assert reply.status == 400, reply.text
            assert "nested too deeply" in reply.message


async def test_depth_is_read_up_to_the_limit_and_works_to_the_end(caller: Caller) -> None:
    """What is accepted can be stored, sent, run, and sent again under its key."""
    levels = MAX_JSON_DEPTH - FUNCTION_LEVELS
    path, body = filled("parameters", nested(levels))

    made = await post(caller, path, body, **{"idempotency-key": "k"})
    again = await post(caller, path, body, **{"idempotency-key": "k"})
    beyond = await post(caller, *filled("parameters", nested(levels + 1)))
    thread_id = await caller.thread("Hello")
    run = await caller.post(f"/threads/{thread_id}/runs", {"assistant_id": made.json["id"]})

    assert (made.status, again.text) == (200, made.text)
    assert beyond.status == 400
    assert (await caller.settled(run))["status"] == "completed"
    assert run["tools"] == made.json["tools"]


TEXTS = {
    "brackets": "[" * 5000,
    "quotes": '"[' * 3000,
    "escapes": '\\"[{\\' * 3000,
    "closing": "]}" * 5000,
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
async def test_brackets_in_a_text_are_no_depth(caller: Caller, text: str) -> None:
    """Code may stand in a message."""
    thread_id = await caller.thread(text)

    page = await caller.get(f"/threads/{thread_id}/messages")

    assert page["data"][0]["content"][0]["text"]["value"] == text


async def test_many_objects_beside_each_other_are_no_depth(caller: Caller) -> None:
    """A long thread is flat."""
    part = {"type": "text", "text": "Hello"}
    messages = [{"role": "user", "content": [part, part]} for _ in range(100)]

    await caller.post("/threads", {"messages": messages})


HUGE = [2**53, 2**63 - 1, 2**63, 2**64, 10**30, int("9" * 4000)]
NUMBERS: dict[str, tuple[str, str]] = {
    "max_prompt_tokens": ("max_prompt_tokens", '{"assistant_id":"a","max_prompt_tokens":N}'),
    "max_completion_tokens": (
        "max_completion_tokens",
        '{"assistant_id":"a","max_completion_tokens":N}',
    ),
    "last_messages": (
        "truncation_strategy.last_messages",
        '{"assistant_id":"a","truncation_strategy":{"type":"last_messages","last_messages":N}}',
    ),
    "temperature": ("temperature", '{"assistant_id":"a","temperature":N}'),
    "top_p": ("top_p", '{"assistant_id":"a","top_p":N}'),
}


@pytest.mark.parametrize("path", ["/threads/t/runs", "/threads/runs"])
@pytest.mark.parametrize("field", NUMBERS)
async def test_number_beyond_the_bound_is_refused_and_named(
    caller: Caller, field: str, path: str
) -> None:
    """Neither the database nor a model ever gets it."""
    param, body = NUMBERS[field]

    for number in HUGE:
        for sign in ("", "-"):
            reply = await post(caller, path, body.replace("N", f"{sign}{number}"))
            assert reply.status == 400, reply.text
            assert reply.json["error"]["param"] == param


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1e309"])
@pytest.mark.parametrize("field", NUMBERS)
async def test_number_that_is_none_is_refused(caller: Caller, field: str, number: str) -> None:
    """JSON has no such number, whoever writes it."""
    reply = await post(caller, "/threads/t/runs", NUMBERS[field][1].replace("N", number))

    assert reply.status == 400
    assert reply.json["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("text", ["9" * 30, "1" * 5000, "1e400", "-9223372036854775809"])
async def test_number_in_a_schema_is_kept_or_refused(caller: Caller, text: str) -> None:
    """A schema may hold any number that can be sent again."""
    path, body = filled("parameters", text)

    reply = await post(caller, path, body, **{"idempotency-key": "k"})

    assert reply.status in {200, 400}, reply.text
    if reply.status == 200:
        kept = reply.json["tools"][0]["function"]["parameters"]["p"]
        assert kept == json.loads(text)
        await caller.get(f"/assistants/{reply.json['id']}")


async def test_largest_numbers_work_to_the_end(serve: Serve) -> None:
    """Whoever means "no bound" may say so with the largest number that is read."""
    caller = await serve()
    run = await caller.start(
        max_prompt_tokens=MAX_INTEGER,
        max_completion_tokens=MAX_INTEGER,
        truncation_strategy={"type": "last_messages", "last_messages": MAX_INTEGER},
    )

    settled = await caller.settled(run)

    assert settled["status"] == "completed"
    assert settled["max_prompt_tokens"] == MAX_INTEGER


@pytest.mark.parametrize(
    "wait", ["9" * 5000, str(2**63), "-1", "1e9", "NaN", "inf", "\u0663", "1_0", ""]
)
async def test_wait_that_is_no_number_is_ignored(caller: Caller, wait: str) -> None:
    """A preference need not be understood."""
    run = await caller.settled(await caller.start())

    reply = await caller.send(
        "GET", f"/threads/{run['thread_id']}/runs/{run['id']}", headers={"Prefer": f"wait={wait}"}
    )

    assert reply.status in {200, 400}  # 400: a header that is too long


@pytest.mark.parametrize("limit", ["9" * 30, str(2**63), "-1", "0", "1e1", "NaN", "%D9%A3", "+1"])
async def test_limit_that_is_out_of_bounds_is_refused(caller: Caller, limit: str) -> None:
    """The page has from 1 to 100 items."""
    reply = await caller.send("GET", f"/assistants?limit={limit}")

    assert (reply.status, reply.json["error"]["param"]) == (400, "limit")


@pytest.mark.parametrize(
    "place", ["999999999999999-1", "1-999999999999999", "1-9223372036854775808"]
)
async def test_position_beyond_every_log_is_refused(caller: Caller, place: str) -> None:
    """An id of an event that cannot be."""
    run = await caller.settled(await caller.start())

    reply = await caller.send(
        "GET",
        f"/threads/{run['thread_id']}/runs/{run['id']}/stream",
        headers={"Last-Event-ID": place},
    )

    assert reply.status in {400, 409}
