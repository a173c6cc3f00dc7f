"""What the benchmark servers answer: one run, pages of a hundred, and a streamed run.

Standard library only: servers of any interpreter read it. The sizes are those of real
answers (about 1 KB each).
"""

from __future__ import annotations

import json
from typing import Any, Final

__all__ = [
    "INSTRUCTIONS",
    "PIECE",
    "decode",
    "encode",
    "events",
    "frame",
    "message",
    "page",
    "run",
    "step",
]

INSTRUCTIONS: Final = "You answer questions about orders. Be brief. " * 7
PIECE: Final = "word "
"""What each delta of a streamed message says."""
_CREATED: Final = 1_760_000_000


def encode(value: Any) -> bytes:
    """Return JSON as servers send it."""
    return json.dumps(value, separators=(",", ":")).encode()


def decode(body: bytes) -> Any:
    """Return what a client sent."""
    return json.loads(body)


def run(number: int, status: str = "completed") -> dict[str, Any]:
    """Return a run, with all that it has when it is finished."""
    is_over = status == "completed"
    function = {"name": "find_order", "parameters": {"type": "object", "properties": {}}}
    return {
        "id": f"run_{number}",
        "object": "thread.run",
        "created_at": _CREATED,
        "assistant_id": "asst_9r8Vd5TzQ0bLkXn3WmPf7YcA",
        "thread_id": "thread_1",
        "status": status,
        "required_action": None,
        "last_error": None,
        "expires_at": None if is_over else _CREATED + 600,
        "started_at": _CREATED + 1,
        "cancelled_at": None,
        "failed_at": None,
        "completed_at": _CREATED + 9 if is_over else None,
        "incomplete_details": None,
        "model": "gpt-4o-mini",
        "instructions": INSTRUCTIONS,
        "tools": [{"type": "file_search"}, {"type": "function", "function": function}],
        "metadata": {"customer": "c-1042", "order": str(number)},
        "usage": {"prompt_tokens": 123, "completion_tokens": 456, "total_tokens": 579}
        if is_over
        else None,
        "temperature": 1.0,
        "top_p": 1.0,
        "max_prompt_tokens": None,
        "max_completion_tokens": 1000,
        "truncation_strategy": {"type": "auto", "last_messages": None},
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "response_format": "auto",
    }


def step(number: int, status: str = "completed") -> dict[str, Any]:
    """Return a step: every other one writes a message, the rest call a function."""
    call = {
        "id": f"call_{number}",
        "type": "function",
        "function": {
            "name": "find_order",
            "arguments": json.dumps({"order": number, "fields": ["state", "carrier", "due"]}),
            "output": "The order is on its way and will arrive on Thursday before noon. " * 10,
        },
    }
    writes = number % 2 == 0
    details: dict[str, Any] = {"type": "tool_calls", "tool_calls": [call]}
    if writes:
        details = {
            "type": "message_creation",
            "message_creation": {"message_id": f"msg_{number}"},
        }
    is_over = status == "completed"
    return {
        "id": f"step_{number}",
        "object": "thread.run.step",
        "created_at": _CREATED + number,
        "assistant_id": "asst_9r8Vd5TzQ0bLkXn3WmPf7YcA",
        "thread_id": "thread_1",
        "run_id": "run_1",
        "type": details["type"],
        "status": status,
        "step_details": details,
        "last_error": None,
        "expired_at": None,
        "cancelled_at": None,
        "failed_at": None,
        "completed_at": _CREATED + number + 1 if is_over else None,
        "metadata": None,
        "usage": {"prompt_tokens": 12, "completion_tokens": 45, "total_tokens": 57},
    }


def message(text: str, status: str) -> dict[str, Any]:
    """Return a message of the assistant's; without text it is still being written."""
    content = [{"type": "text", "text": {"value": text, "annotations": []}}] if text else []
    return {
        "id": "msg_0",
        "object": "thread.message",
        "created_at": _CREATED,
        "thread_id": "thread_1",
        "status": status,
        "incomplete_details": None,
        "completed_at": _CREATED + 8 if text else None,
        "incomplete_at": None,
        "role": "assistant",
        "content": content,
        "assistant_id": "asst_9r8Vd5TzQ0bLkXn3WmPf7YcA",
        "run_id": "run_1",
        "attachments": None,
        "metadata": {},
    }


def page(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a page that is the whole list."""
    ids = {"first_id": items[0]["id"], "last_id": items[-1]["id"]} if items else {}
    return {"object": "list", "data": items, **ids, "has_more": False}


def frame(name: str, data: Any) -> bytes:
    """Return one event as a server sends it."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), encode(data))


def events(deltas: int) -> list[bytes]:
    """Return the stream of a run that writes one message in so many pieces, event by event."""
    text = PIECE * deltas
    told = [
        ("thread.run.created", run(1, "queued")),
        ("thread.run.queued", run(1, "queued")),
        ("thread.run.in_progress", run(1, "in_progress")),
        ("thread.run.step.created", step(0, "in_progress")),
        ("thread.run.step.in_progress", step(0, "in_progress")),
        ("thread.message.created", message("", "in_progress")),
        ("thread.message.in_progress", message("", "in_progress")),
        *(("thread.message.delta", _delta()) for _ in range(deltas)),
        ("thread.message.completed", message(text, "completed")),
        ("thread.run.step.completed", step(0)),
        ("thread.run.completed", run(1)),
    ]
    return [*(frame(name, data) for name, data in told), b"event: done\ndata: [DONE]\n\n"]


def _delta() -> dict[str, Any]:
    content = [{"index": 0, "type": "text", "text": {"value": PIECE}}]
    return {"id": "msg_0", "object": "thread.message.delta", "delta": {"content": content}}
