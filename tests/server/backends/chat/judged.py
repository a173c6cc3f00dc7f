"""Endpoints that judge a request by a rule, and what they say in its pieces."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.server.backends.chat.test_backend import Endpoint, answer
from tests.server.backends.chat.test_forms import error
from tests.server.support import Caller

SSE = "content-type: text/event-stream"
OSLO = '{"city":"Oslo"}'


def chunks(*deltas: Any, finish: str = "stop") -> bytes:
    """Return an answer that comes in these pieces."""
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": finish})
    events = [json.dumps({"object": "chat.completion.chunk", "choices": [c]}) for c in choices]
    return answer("".join(f"data: {e}\n\n" for e in [*events, "[DONE]"]).encode(), 200, SSE)


def call_of(arguments: str = OSLO, call_id: Any = "call_a1", **fields: Any) -> dict[str, Any]:
    """Return the piece that a call of the weather comes in."""
    call = {"index": 0, "id": call_id, "type": "function", **fields}
    return {"tool_calls": [call | {"function": {"name": "weather", "arguments": arguments}}]}


class Judge(Endpoint):
    """An endpoint that refuses what a rule says, and else answers as usual."""

    def __init__(self, answers: list[bytes | None]) -> None:
        super().__init__(answers)
        self.rule: Callable[[Any], bytes | None] = lambda body: None
        self.refused = 0

    def reply_to(self, body: Any) -> bytes | None:
        """Return what a request is answered with."""
        refusal = self.rule(body)
        self.refused += refusal is not None
        return super().reply_to(body) if refusal is None else refusal


def turns(body: Any) -> list[Any]:
    """Return the assistant messages with calls."""
    return [message for message in body["messages"] if "tool_calls" in message]


async def tool_round(caller: Caller, **fields: Any) -> Any:
    """Return a run that called its tool and was given the outputs."""
    waiting = await caller.settled(await caller.start("Hello", **fields))
    assert waiting["status"] == "requires_action", waiting["last_error"]
    return await caller.settled((await caller.submit(waiting, "22")).json)


TOOL_ROUND = [chunks(call_of(), finish="tool_calls"), chunks({"content": "Sunny."})]


def when(test: Callable[[Any], bool], text: str, status: int = 400, **fields: Any) -> Any:
    """Return a rule that refuses some requests."""
    return lambda body: answer(error(text, **fields), status) if test(body) else None
