"""A server's side of one streamed run, for tests of the client: it cuts where it is told to.

The bytes are written by hand, so that nothing of the server under test is believed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from tests.support import Action, Answer, Raw, Received, run_json

__all__ = ["DONE", "HEAD", "Broadcaster", "frame", "message_json", "step_json"]

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nConnection: close\r\n"
DONE = b"event: done\ndata: [DONE]\n\n"
WORDS = ("Hel", "lo ", "wör", "ld")


def frame(name: str, data: Any, place: str = "") -> bytes:
    """Return one event as a server sends it."""
    line = f"id: {place}\n" if place else ""
    return f"event: {name}\n{line}data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def message_json(text: str = "", status: str = "in_progress", **changes: Any) -> dict[str, Any]:
    """Return a message as a server sends it."""
    content = [{"type": "text", "text": {"value": text, "annotations": []}}] if text else []
    return {
        "id": "msg_1",
        "object": "thread.message",
        "created_at": 1_700_000_000,
        "thread_id": "thread_1",
        "run_id": "run_1",
        "assistant_id": "asst_1",
        "role": "assistant",
        "status": status,
        "content": content,
        "metadata": {},
        **changes,
    }


def step_json(status: str = "in_progress", **changes: Any) -> dict[str, Any]:
    """Return the step of writing the message, as a server sends it."""
    return {
        "id": "step_1",
        "object": "thread.run.step",
        "created_at": 1_700_000_000,
        "thread_id": "thread_1",
        "run_id": "run_1",
        "assistant_id": "asst_1",
        "type": "message_creation",
        "status": status,
        "step_details": {
            "type": "message_creation",
            "message_creation": {"message_id": "msg_1"},
        },
        **changes,
    }


def delta(word: str) -> dict[str, Any]:
    """Return a piece of the message, as a server sends it."""
    content = [{"index": 0, "type": "text", "text": {"value": word}}]
    return {"id": "msg_1", "object": "thread.message.delta", "delta": {"content": content}}


class Broadcaster:
    """A handler for `HostileServer`: one run that writes one message, streamed."""

    def __init__(
        self, words: Sequence[str] = WORDS, *, resumes: bool = False, keys: bool = False
    ) -> None:
        """Tell the run from its first event to its last."""
        self.text = "".join(words)
        self.resumes = resumes
        features = [*(["idempotency"] if keys else []), *(["resume"] if resumes else [])]
        self.features = {"openai-runs-features": ", ".join(features)} if features else {}
        self.status = "completed"
        """What the run is found to be when it is asked for."""
        self.metadata: dict[str, str] = {}
        """What the run was created with."""
        self.cuts: list[int] = []
        """Bytes after which the next streams are cut; whole once there are none left."""
        self.after_cut: Callable[[bytes], Action] = Raw
        """What is done with the bytes of a stream that is cut."""
        told: list[tuple[str, Any]] = [
            ("thread.run.created", run_json()),
            ("thread.run.queued", run_json()),
            ("thread.run.in_progress", run_json("in_progress")),
            ("thread.run.step.created", step_json()),
            ("thread.run.step.in_progress", step_json()),
            ("thread.message.created", message_json()),
            ("thread.message.in_progress", message_json()),
            *(("thread.message.delta", delta(word)) for word in words),
            ("thread.message.completed", message_json(self.text, "completed")),
            ("thread.run.step.completed", step_json("completed")),
            ("thread.run.completed", run_json("completed")),
        ]
        self.frames = [
            frame(name, data, f"1-{number}" if resumes else "")
            for number, (name, data) in enumerate(told, 1)
        ]
        self.names = [name for name, _ in told]

    @property
    def stream(self) -> bytes:
        """Return the whole stream."""
        return b"".join(self.frames) + DONE

    def __call__(self, request: Received) -> Action:
        """Carry the request out."""
        place = request.path.removeprefix("/v1/threads/thread_1/")
        match request.method, place:
            case "POST", "runs" | "runs/run_1/submit_tool_outputs" | "/v1/threads/runs":
                self.metadata = request.json.get("metadata", {})
                return self._send(self.stream)
            case "GET", "runs":
                return self._page([run_json(self.status, metadata=self.metadata)])
            case "GET", "runs/run_1/stream" if self.resumes:
                return self._resume(request.headers.get("last-event-id", ""))
            case "GET", "runs/run_1":
                return self._answer(run_json(self.status))
            case "GET", "runs/run_1/steps":
                return self._page([step_json(self.status)])
            case "GET", "messages":
                return self._page([message_json(self.text, self.status)])
            case "POST", "runs/run_1/cancel":
                self.status = "cancelled"
                return self._answer(run_json("cancelling"))
        return Answer(404, {"error": {"message": f"no route {request.method} {request.path}"}})

    def _resume(self, place: str) -> Action:
        """Send what follows after that place."""
        number = int(place.partition("-")[2] or 0)
        return self._send(b"".join(self.frames[number:]) + DONE)

    def _send(self, stream: bytes) -> Action:
        lines = "".join(f"{name}: {value}\r\n" for name, value in self.features.items()).encode()
        length = f"Content-Length: {len(stream)}\r\n\r\n".encode()
        head = HEAD + lines + length
        if not self.cuts:
            return Raw(head + stream)
        return self.after_cut(head + stream[: self.cuts.pop(0)])

    def _answer(self, json_value: Any) -> Action:
        return Answer(json=json_value, headers=self.features)

    def _page(self, items: list[Any]) -> Action:
        ids = {"first_id": items[0]["id"], "last_id": items[-1]["id"]}
        return self._answer({"object": "list", "data": items, "has_more": False, **ids})
