"""Endpoints that refuse what others want: the run goes on."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from openai_runs.server import ChatBackend
from tests.server.backends.chat.judged import (
    SSE,
    TOOL_ROUND,
    Judge,
    call_of,
    chunks,
    tool_round,
    turns,
    when,
)
from tests.server.backends.chat.test_backend import answer, endpoint
from tests.server.backends.chat.test_forms import error
from tests.server.backends.chat.test_truncation import S19
from tests.server.conftest import Serve
from tests.server.support import Caller


def contents(body: Any) -> list[Any]:
    """Return the content of each assistant message; one that is left out is a word."""
    return [m.get("content", "left out") for m in body["messages"] if m["role"] == "assistant"]


def has_role(*roles: str) -> Callable[[Any], bool]:
    """Return a test for messages of a role."""
    return lambda body: any(message["role"] in roles for message in body["messages"])


def is_json_object(text: str) -> bool:
    """Return whether a text is one."""
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def arguments(body: Any) -> list[str]:
    """Return the arguments of all calls."""
    return [call["function"]["arguments"] for turn in turns(body) for call in turn["tool_calls"]]


def ids(body: Any) -> list[str]:
    """Return the ids of all calls."""
    return [call["id"] for turn in turns(body) for call in turn["tool_calls"]]


NINE = "Tool call id was call_1 but must be a-z, A-Z, 0-9, with a length of 9."
NIL = "invalid message content type: <nil>"
RULES: dict[str, tuple[Any, list[bytes], dict[str, Any], int]] = {
    "S11-broken-arguments": (
        when(lambda b: not all(map(is_json_object, arguments(b))), "Failed to parse", 500),
        [chunks(call_of('{"city":"Os'), finish="tool_calls"), TOOL_ROUND[1]],
        {},
        0,
    ),
    "S12-no-null": (when(lambda b: None in contents(b), NIL), TOOL_ROUND, {}, 0),
    "S12-null-alone": (
        when(lambda b: contents(b) not in ([], [None]), "content: expected null"),
        TOOL_ROUND,
        {},
        2,
    ),
    "S12-nothing-empty": (
        when(lambda b: "" in contents(b), "text content blocks must be non-empty"),
        TOOL_ROUND,
        {},
        1,
    ),
    "S16-tool-choice": (
        when(lambda b: b.get("tool_choice") == "auto", '"auto" tool choice requires --enable'),
        TOOL_ROUND,
        {"tool_choice": "auto"},
        0,
    ),
    "S16-parallel": (
        when(lambda b: "parallel_tool_calls" in b, "Unsupported parameter: 'parallel_tool_calls'"),
        TOOL_ROUND,
        {"parallel_tool_calls": False},
        1,
    ),
    "temperature": (
        when(lambda b: "temperature" in b, "temperature is not supported", param="temperature"),
        TOOL_ROUND,
        {"temperature": 0.2},
        1,
    ),
    "limit": (
        when(lambda b: "max_completion_tokens" in b, "Extra inputs are not permitted", 422,
             loc=["body", "max_completion_tokens"]),
        TOOL_ROUND,
        {"max_completion_tokens": 300},
        1,
    ),
    "counts": (
        when(lambda b: "stream_options" in b, "Unknown field: stream_options"),
        TOOL_ROUND,
        {},
        1,
    ),
    "error-within-a-200": (
        lambda b: answer(b"data: " + error("Unknown field: top_p", code=400) + b"\n\n", 200, SSE)
        if "top_p" in b
        else None,
        TOOL_ROUND,
        {"top_p": 0.5},
        1,
    ),
    "S23-system": (
        when(has_role("system"), "System role not supported"),
        TOOL_ROUND,
        {"instructions": "Be brief."},
        1,
    ),
    "S23-user-alone": (
        when(has_role("system", "developer"), "Only user and assistant roles are supported!", 500),
        TOOL_ROUND,
        {"instructions": "Be brief."},
        1,
    ),
    "S26-made-ids": (
        when(lambda b: not all(re.fullmatch("[a-zA-Z0-9]{9}", each) for each in ids(b)), NINE),
        [chunks(call_of(call_id=""), finish="tool_calls"), TOOL_ROUND[1]],
        {},
        0,
    ),
    "S26-given-ids": (
        when(lambda b: ids(b) not in ([], ["functions.weather:0"]), "unknown tool_call_id"),
        [chunks(call_of(call_id="functions.weather:0"), finish="tool_calls"), TOOL_ROUND[1]],
        {},
        0,
    ),
    "S26-ids-of-its-own": (
        when(lambda b: not all(re.fullmatch("[a-zA-Z0-9]{9}", each) for each in ids(b)), NINE),
        [chunks(call_of(call_id="chatcmpl-tool-1"), finish="tool_calls"), TOOL_ROUND[1]],
        {},
        1,
    ),
    "thoughts-of-its-own": (
        when(
            lambda b: any("reasoning" in m for m in b["messages"]),
            "property 'reasoning' is unsupported",
        ),
        [chunks({"reasoning": "x"}, call_of(), finish="tool_calls"), TOOL_ROUND[1]],
        {},
        1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", RULES)
async def test_run_goes_on_when_the_endpoint_refuses_a_form(
    serve: Serve, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Another one is tried once, and the next run begins with it."""
    caplog.set_level(logging.INFO)
    rule, replies, fields, refusals = RULES[case]
    async with endpoint(*replies, *replies, kind=Judge) as used:
        assert isinstance(used, Judge)
        used.rule = rule
        caller = await serve(backend=ChatBackend(used.url))
        first = await tool_round(caller, **fields)
        refused = used.refused
        second = await tool_round(caller, **fields)

    assert [first["status"], second["status"]] == ["completed", "completed"]
    assert (refused, used.refused) == (refusals, refusals)
    assert caplog.text.count("says so beforehand") == (1 if refusals else 0)


async def test_run_fails_when_the_endpoint_refuses_every_form(serve: Serve) -> None:
    """With the endpoint's words, after a bounded number of requests; nothing is learnt."""
    async with endpoint(answer(error("stream_options is not supported"), 400), kind=Judge) as used:
        caller = await serve(backend=ChatBackend(used.url))
        run = await caller.settled(await caller.start("Hello"))

    assert run["status"] == "failed"
    assert "stream_options is not supported" in run["last_error"]["message"]
    assert len(used.requests) == 2


async def add_messages(caller: Caller, thread: str, messages: Sequence[tuple[str, str]]) -> None:
    """Put messages on a thread."""
    for role, content in messages:
        await caller.post(f"/threads/{thread}/messages", {"role": role, "content": content})


THREADS: dict[str, list[tuple[str, str]]] = {
    "S05-two-questions": [("user", "First half,"), ("user", "second half.")],
    "two-answers": [("user", "a"), ("assistant", "b"), ("assistant", "c"), ("user", "d")],
    "three-questions": [("user", "a"), ("user", "b"), ("user", "c")],
    "greeting": [("assistant", "Hello"), ("user", "a")],
    "answer-last": [("user", "a"), ("assistant", "b")],
    "answer-alone": [("assistant", "a")],
}


def is_unordered(body: Any) -> bool:
    """Return whether roles do not alternate, from a user to a user."""
    roles = [m["role"] for m in body["messages"] if m["role"] != "system"]
    if roles[-1] == "assistant":
        return True
    return roles != [("user", "assistant")[n % 2] for n in range(len(roles))]


@pytest.mark.parametrize("case", THREADS)
async def test_thread_of_any_order_is_taken_by_an_endpoint_that_wants_roles_in_turn(
    serve: Serve, case: str
) -> None:
    """What is stored stays as it is; all of it is sent."""
    rule = when(is_unordered, "Conversation roles must alternate user/assistant/user/assistant/...")
    async with endpoint(chunks({"content": "Fine."}), kind=Judge) as used:
        assert isinstance(used, Judge)
        used.rule = rule
        caller = await serve(backend=ChatBackend(used.url))
        thread = await caller.thread()
        await add_messages(caller, thread, THREADS[case])
        body = {"assistant_id": await caller.assistant(), "instructions": "Be brief."}
        run = await caller.settled(await caller.post(f"/threads/{thread}/runs", body))
        stored = [m["content"][0]["text"]["value"] for m in await caller.messages(run)]

    sent = json.dumps(used.requests[-1][1]["messages"])
    assert run["status"] == "completed"
    assert stored == [*(text for _, text in THREADS[case]), "Fine."]
    assert all(text in sent for _, text in THREADS[case])


FIRST_ANSWERS: dict[str, bytes] = {
    "S04-empty": chunks({"role": "assistant", "content": ""}),
    "blanks": chunks({"content": " \n"}),
    "failed": answer(error("no"), 400),
    "cut-off": chunks({"content": "Half"}, finish="length"),
    "filtered": chunks({"content": ""}, finish="content_filter"),
}


@pytest.mark.parametrize("case", FIRST_ANSWERS)
async def test_thread_lives_on_after_an_answer_that_was_none(serve: Serve, case: str) -> None:
    """The next run completes: nothing empty is sent, and roles alternate."""

    def rule(body: Any) -> bytes | None:
        if any(not message.get("content") for message in body["messages"]):
            return answer(error("message must contain non-empty content or tool_calls"), 400)
        return answer(error("roles must alternate"), 400) if is_unordered(body) else None

    async with endpoint(*([FIRST_ANSWERS[case]] * 3), kind=Judge) as used:
        assert isinstance(used, Judge)
        used.rule = rule
        caller = await serve(backend=ChatBackend(used.url))
        first = await caller.settled(await caller.start("Hello"))
        used.answers = [chunks({"content": "Fine."})]
        thread = first["thread_id"]
        await add_messages(caller, thread, [("user", "Still there?")])
        body = {"assistant_id": first["assistant_id"]}
        run = await caller.settled(await caller.post(f"/threads/{thread}/runs", body))

    assert run["status"] == "completed", run["last_error"]
    assert used.refused == 0


async def test_long_thread_is_shortened_when_the_context_is_full(serve: Serve) -> None:
    """S19: with `auto`; the last question stays, and the thread as it is stored."""
    async with endpoint(chunks({"content": "Fine."}), kind=Judge) as used:
        assert isinstance(used, Judge)
        used.rule = lambda body: answer(S19, 400) if len(body["messages"]) > 11 else None
        caller = await serve(backend=ChatBackend(used.url))
        thread = await caller.thread()
        said = [(("user", "assistant")[n % 2], f"m{n}") for n in range(41)]
        await add_messages(caller, thread, said)
        body = {"assistant_id": await caller.assistant()}
        run = await caller.settled(await caller.post(f"/threads/{thread}/runs", body))
        strategy = {"truncation_strategy": {"type": "last_messages", "last_messages": 30}}
        chosen = await caller.settled(await caller.post(f"/threads/{thread}/runs", body | strategy))

    assert run["status"] == "completed"
    assert chosen["status"] == "failed"
    assert "'last_messages'" in chosen["last_error"]["message"]


async def test_forms_set_beforehand_are_sent_at_once(serve: Serve) -> None:
    """Nothing has to be learnt, and nothing is said about it."""
    forms = {"instructions": "user", "stream_options": "omit", "content": "null"}
    async with endpoint(*TOOL_ROUND) as used:
        caller = await serve(backend=ChatBackend(used.url, forms=forms))
        await tool_round(caller, instructions="Be brief.")

    first, second = (request[1] for request in used.requests)
    assert first["messages"] == [{"role": "user", "content": "Be brief.\n\nHello"}]
    assert "stream_options" not in first
    assert contents(second) == [None]
