"""Model calls for tests, from plain values, and the requests that are built for them."""

from __future__ import annotations

from typing import Any

import msgspec

from openai_runs._protocol.lenient import decoder_for
from openai_runs.server.backends.base import Echoed, ModelRequest, Turn
from openai_runs.server.backends.chat.forms import DEFAULTS
from openai_runs.server.backends.chat.request import build_request
from openai_runs.types.messages import Message
from openai_runs.types.runs import Run, Usage
from openai_runs.types.steps import FunctionCallResult, FunctionToolCall

WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object"}, "strict": True},
}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}


def message(role: str, *content: Any) -> Message:
    """Return a message of a thread; a text stands for a part of it."""
    parts = [
        {"type": "text", "text": {"value": part, "annotations": []}}
        if isinstance(part, str)
        else part
        for part in content
    ]
    data = {"id": "msg_1", "object": "thread.message", "created_at": 1, "thread_id": "thread_1",
            "status": "completed", "role": role, "content": parts}  # fmt: skip
    return decoder_for(Message).decode(msgspec.json.encode(data))


def turn(
    *calls: tuple[str, str, str], text: str = "", message: Any = None, echoed: Any = None
) -> Turn:
    """Return a turn with calls: id, arguments and output of each."""
    done = [
        FunctionToolCall(
            id=call_id,
            function=FunctionCallResult(name="weather", arguments=arguments, output=output),
        )
        for call_id, arguments, output in calls
    ]
    back = Echoed(message=message or {}, calls=echoed or {})
    return Turn(text=text, tool_calls=done, echoed=back)


def asked(
    *messages: Message, turns: Any = (), effort: str | None = None, **run: Any
) -> ModelRequest:
    """Return a model call of a run with these fields."""
    fields = {"id": "run_1", "object": "thread.run", "created_at": 1, "thread_id": "thread_1",
              "assistant_id": "asst_1", "status": "in_progress", "model": "m",
              "instructions": "", "tools": [WEATHER, CLOCK], "metadata": {},
              "tool_choice": "auto", "response_format": "auto", "parallel_tool_calls": True,
              "temperature": 1.0, "top_p": 1.0,
              "truncation_strategy": {"type": "auto"}}  # fmt: skip
    return ModelRequest(
        run=decoder_for(Run).decode(msgspec.json.encode(fields | run)),
        messages=list(messages),
        turns=list(turns),
        spent=Usage(prompt_tokens=0, completion_tokens=0, total_tokens=0),
        reasoning_effort=effort,
    )


def built(request: ModelRequest, **forms: str) -> dict[str, Any]:
    """Return the request to an endpoint that takes these forms."""
    names = {name.replace("__", "."): form for name, form in forms.items()}
    body = build_request(request, "m", {**DEFAULTS, **names})
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(body))
    return decoded
