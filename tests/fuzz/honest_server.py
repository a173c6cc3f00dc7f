"""Valid answers about one run, as values: what a lying server changes before it sends them."""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.client.broadcaster import WORDS, delta, message_json, step_json
from tests.samples import ERRORS, load, raw
from tests.support import Received, run_json

__all__ = ["TEXT", "HonestServer", "Truth"]

TEXT = "".join(WORDS)
"""What the run writes."""
_CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
_ACTION = {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": [_CALL]}}
Frames = list[tuple[str, Any]]


class Truth(NamedTuple):
    """A valid answer."""

    value: Any = None
    """The JSON of a body."""
    frames: Frames | None = None
    """Name and data of each event, if it is a stream."""
    status: int = 200
    body: bytes | None = None
    """In place of `value`, where the body is no JSON."""

    @property
    def holds_text(self) -> bool:
        """Return whether what the run wrote is in it, so that a change may change the text."""
        value = self.value if isinstance(self.value, dict) else {}
        items = value.get("data") or [{}]
        return bool(self.frames) or items[0].get("object") == "thread.message"


class HonestServer:
    """One run, with a round of tools or without, that writes one message."""

    def __init__(self, *, has_tools: bool, polls: int) -> None:
        """Have the run work for so many polls each time that it does."""
        self._is_waiting = has_tools
        self._polls = self._left = polls
        self._cancelled = False

    def _run(self) -> dict[str, Any]:
        if self._cancelled:
            return run_json("cancelled")
        if self._left:
            self._left -= 1
            return run_json("in_progress")
        if self._is_waiting:
            return run_json("requires_action", required_action=_ACTION)
        return run_json("completed")

    def _stream(self) -> Frames:
        begun: Frames = [
            ("thread.run.created", run_json()),
            ("thread.run.in_progress", run_json("in_progress")),
        ]
        if self._is_waiting:
            details = {"type": "tool_calls", "tool_calls": [_CALL]}
            step = step_json(id="step_0", type="tool_calls", step_details=details)
            waiting = run_json("requires_action", required_action=_ACTION)
            self._left = 0
            return [
                *begun,
                ("thread.run.step.created", step),
                ("thread.run.requires_action", waiting),
            ]
        self._left = 0
        return [
            *begun,
            ("thread.run.step.created", step_json()),
            ("thread.message.created", message_json()),
            *(("thread.message.delta", delta(word)) for word in WORDS),
            ("thread.message.completed", message_json(TEXT, "completed")),
            ("thread.run.step.completed", step_json("completed")),
            ("thread.run.completed", run_json("completed")),
        ]

    def answer(self, request: Received) -> Truth:
        """Carry the request out."""
        parts = request.path.removeprefix("/v1/").split("/")
        is_stream = request.method == "POST" and b'"stream":true' in request.body
        match request.method, parts:
            case "POST", ["threads", "thread_1", "runs"] | ["threads", "runs"]:
                return Truth(frames=self._stream()) if is_stream else Truth(run_json())
            case "POST", ["threads", "thread_1", "runs", "run_1", "submit_tool_outputs"]:
                self._is_waiting, self._left = False, self._polls
                return Truth(frames=self._stream()) if is_stream else Truth(run_json("queued"))
            case "POST", ["threads", "thread_1", "runs", "run_1", "cancel"]:
                self._cancelled = True
                return Truth(run_json("cancelling"))
            case _, ["threads", "thread_1", "runs", "run_1"]:
                return Truth(self._run())
            case _:
                return self._other(request.method, parts)

    def _other(self, method: str, parts: list[str]) -> Truth:
        step = step_json("completed")
        match method, parts:
            case "GET", ["threads", "thread_1", "runs"]:
                return _page(run_json("completed"), load("getRun/completed.json"))
            case "GET", ["threads", "thread_1", "runs", "run_1", "steps"]:
                return _page(step, load("getRunStep/tool_calls.json"))
            case "GET", ["threads", "thread_1", "runs", "run_1", "steps", _]:
                return Truth(load("getRunStep/tool_calls.json"))
            case "GET", ["threads", "thread_1", "messages"]:
                return _page(*([] if self._is_waiting else [message_json(TEXT, "completed")]))
            case _, ["threads", _, "messages", *_]:
                return Truth(load("getMessage/completed.json"))
            case "DELETE", ["assistants" | "threads", _]:
                return Truth(load(f"delete{parts[0].capitalize()[:-1]}/completed.json"))
            case "GET", ["assistants"]:
                return _page(load("getAssistant/completed.json"))
            case _, ["assistants", *_]:
                return Truth(load("getAssistant/completed.json"))
            case _, ["threads", *rest] if len(rest) < 2:
                return Truth(load("getThread/completed.json"))
        name = ERRORS[len("".join(parts)) % len(ERRORS)]
        return Truth(status=404, body=raw(f"errors/{name}"))


def _page(*items: Any) -> Truth:
    ids = {"first_id": items[0]["id"], "last_id": items[-1]["id"]} if items else {}
    return Truth({"object": "list", "data": list(items), "has_more": False, **ids})
