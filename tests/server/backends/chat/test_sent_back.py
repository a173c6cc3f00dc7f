"""What an endpoint needs with a turn comes back to it, and to nobody else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from openai_runs.server import ChatBackend
from tests.databases import Database
from tests.server.backends.chat.judged import (
    TOOL_ROUND,
    Judge,
    call_of,
    chunks,
    tool_round,
    turns,
)
from tests.server.backends.chat.test_backend import answer, completion, endpoint
from tests.server.conftest import Serve

THOUGHT = {"reasoning_content": "first thought"}
SIGNED: dict[str, Any] = {"extra_content": {"google": {"thought_signature": "c2ln"}}}
DETAILS = [{"type": "reasoning.text", "text": "first thought", "signature": "c", "index": 0}]
WANTED_BACK: dict[str, tuple[list[Any], dict[str, Any], dict[str, Any]]] = {
    "S01-reasoning-content": (
        [{"reasoning_content": "first "}, {"reasoning_content": "thought"}, call_of()],
        THOUGHT,
        {},
    ),
    "S02-extra-content": ([call_of(**SIGNED)], {}, SIGNED),
    "in-both": ([{"reasoning": "x"}, call_of(**SIGNED)], {"reasoning": "x"}, SIGNED),
    "details": (
        [
            {"reasoning_details": [DETAILS[0] | {"text": "first ", "signature": None}]},
            {"reasoning_details": [DETAILS[0] | {"text": "thought"}]},
            call_of(),
        ],
        {"reasoning_details": DETAILS},
        {},
    ),
    "blocks": (
        [{"thinking_blocks": [{"type": "thinking", "thinking": "x", "signature": "c"}]}, call_of()],
        {"thinking_blocks": [{"type": "thinking", "thinking": "x", "signature": "c"}]},
        {},
    ),
    "numbers-as-they-were": (
        [call_of(seal={"a": 12345678901234567890123, "b": 1.5, "c": [None, "é\u0000"]})],
        {},
        {"seal": {"a": 12345678901234567890123, "b": 1.5, "c": [None, "é\u0000"]}},
    ),
    "nothing": ([call_of()], {}, {}),
    "in-one-piece": (
        [{"content": None, **THOUGHT, "reasoning_details": DETAILS, **call_of(**SIGNED)}],
        {**THOUGHT, "reasoning_details": DETAILS},
        SIGNED,
    ),
}


@pytest.mark.parametrize("restarted", [False, True], ids=["same-server", "restarted"])
@pytest.mark.parametrize("case", WANTED_BACK)
async def test_what_the_endpoint_wants_back_is_sent_back(
    serve: Serve, tmp_path: Path, database: Database, case: str, restarted: bool
) -> None:
    """In each later turn of the run, as it came, over a restart; and it is shown to nobody."""
    deltas, in_message, in_call = WANTED_BACK[case]
    db = database(tmp_path / "echoed.db")
    first_reply = chunks(*deltas, finish="tool_calls")
    if case == "in-one-piece":  # the endpoint does not stream
        first_reply = answer(completion(finish="tool_calls", **deltas[0]))
    replies = [first_reply, chunks(call_of(call_id="call_b2"), finish="tool_calls")]
    async with endpoint(*replies, chunks({"content": "Sunny."}), kind=Judge) as used:
        caller = await serve(backend=ChatBackend(used.url), db=db)
        run = await caller.settled(await caller.start("Hello"))
        for _ in range(2):
            if restarted:
                await caller.close()
                caller = await serve(backend=ChatBackend(used.url), db=db)
            run = await caller.settled((await caller.submit(run, "22")).json)
        shown = [
            await caller.steps(run),
            await caller.messages(run),
            (await caller.replay(run)).events,
        ]
        await caller.post(f"/threads/{run['thread_id']}/messages", {"role": "user", "content": "?"})
        again = {"assistant_id": run["assistant_id"]}
        await caller.settled(await caller.post(f"/threads/{run['thread_id']}/runs", again))

    assert run["status"] == "completed"
    for body in (request[1] for request in used.requests[1:3]):
        first = turns(body)[0]
        assert {k: v for k, v in first.items() if k in in_message} == in_message
        assert first.keys() - in_message.keys() == {"role", "content", "tool_calls"}
        call = first["tool_calls"][0]
        assert {k: v for k, v in call.items() if k in in_call} == in_call
        assert call.keys() - in_call.keys() == {"id", "type", "function"}
    later = turns(used.requests[2][1])[1]
    assert later.keys() == {"role", "content", "tool_calls"}
    assert turns(used.requests[3][1]) == []
    for words in ("thought", "c2ln", "signature", "reasoning", "seal"):
        assert words not in repr(shown)


async def test_what_belongs_to_a_call_goes_back_with_that_call(serve: Serve) -> None:
    """Also where the calls of an answer come in another order, or one is nameless at first."""
    second = call_of(call_id="b", index=1, mark=2)["tool_calls"]
    first = call_of(call_id="a", mark=1)["tool_calls"]
    replies = [
        chunks({"tool_calls": [*second, *first]}, finish="tool_calls"),
        chunks({"content": "Sunny."}),
    ]
    async with endpoint(*replies) as used:
        caller = await serve(backend=ChatBackend(used.url))
        await tool_round(caller)

    marks = {call["id"]: call["mark"] for call in turns(used.requests[1][1])[0]["tool_calls"]}
    assert marks == {"a": 1, "b": 2}


async def test_echoed_fields_can_be_added_and_left_out(serve: Serve) -> None:
    """`echo` names fields that nobody knows yet, and `never` excludes one."""
    deltas = [{"seal": "a", "reasoning": "x"}, {"seal": "b"}, call_of()]
    rules = {"seal": "append", "reasoning": "never"}
    async with endpoint(chunks(*deltas, finish="tool_calls"), TOOL_ROUND[1]) as used:
        caller = await serve(backend=ChatBackend(used.url, echo=rules))
        await tool_round(caller)

    message = turns(used.requests[1][1])[0]
    assert message["seal"] == "ab"
    assert "reasoning" not in message
