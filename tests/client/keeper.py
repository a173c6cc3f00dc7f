"""A server's memory for tests of the client: runs of threads, by the rules of the API."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.support import Action, Answer, Received, run_json

__all__ = ["Keeper"]

ACTIVE = frozenset({"queued", "in_progress", "requires_action", "cancelling"})
FEATURES = {"openai-runs-features": "idempotency"}


class Keeper:
    """A handler for `HostileServer`: one active run a thread, and keys if it honours them."""

    def __init__(self, *, keys: bool = False, looks: int | None = None) -> None:
        """Finish each run at its `looks`th GET; None: never."""
        self.runs: dict[str, dict[str, Any]] = {}
        """By id, in order of creation."""
        self.messages: list[dict[str, Any]] = []
        self.calls: Counter[str] = Counter()
        """How often each operation was asked for."""
        self.on_create: Callable[[Received], Action | None] = lambda request: None
        """What happens in place of the answer to a create, once it is carried out."""
        self._keys = keys
        self._looks = looks
        self._looked: Counter[str] = Counter()
        self._kept: dict[str, Answer] = {}

    @property
    def statuses(self) -> list[str]:
        """Return the status of each run, oldest first."""
        return [run["status"] for run in self.runs.values()]

    def active(self, thread_id: str) -> str | None:
        """Return the id of the thread's active run."""
        for run in self.runs.values():
            if run["thread_id"] == thread_id and run["status"] in ACTIVE:
                return str(run["id"])
        return None

    def add(self, thread_id: str = "thread_1", status: str = "queued", **changes: Any) -> str:
        """Store a run and return its id."""
        run_id = f"run_{len(self.runs) + 1}"
        fields = {"id": run_id, "thread_id": thread_id, **changes}
        self.runs[run_id] = run_json(status, **fields)
        return run_id

    def __call__(self, request: Received) -> Action:
        """Carry the request out."""
        parts = request.path.removeprefix("/v1/threads").strip("/").split("/")
        match request.method, parts:
            case "POST", ["runs"]:
                return self._create(request, f"thread_{len(self.runs) + 1}")
            case "POST", [thread_id, "runs"]:
                return self._create(request, thread_id)
            case "GET", [thread_id, "runs"]:
                return self._list(thread_id)
            case "GET", [_, "runs", run_id]:
                return self._get(run_id)
            case "POST", [_, "runs", run_id, "cancel"]:
                return self._cancel(run_id)
            case "POST", [thread_id, "messages"]:
                return self._message(request, thread_id)
        return self._reject(404, f"no route {request.method} {request.path}")

    def _create(self, request: Received, thread_id: str) -> Action:
        self.calls["create"] += 1
        key = request.headers["idempotency-key"]
        if self._keys and key in self._kept:
            return self._kept[key]
        blocking = self.active(thread_id)
        if blocking is not None:
            text = f"Thread {thread_id} already has an active run {blocking}."
            return self._keep(key, self._reject(400, text))
        metadata = request.json.get("metadata") or {}
        answer = self._ok(self.runs[self.add(thread_id, metadata=metadata)])
        self._keep(key, answer)
        return self.on_create(request) or answer

    def _list(self, thread_id: str) -> Answer:
        self.calls["list"] += 1
        data = [run for run in self.runs.values() if run["thread_id"] == thread_id][::-1]
        return self._ok({"object": "list", "data": data, "has_more": False})

    def _get(self, run_id: str) -> Answer:
        self.calls["get"] += 1
        run = self.runs.get(run_id)
        if run is None:
            return self._reject(404, f"No run found with id '{run_id}'.")
        self._looked[run_id] += 1
        if self._looks is not None and self._looked[run_id] >= self._looks:
            self._move(run_id, "completed")
        if self.runs[run_id]["status"] == "cancelling":
            self._move(run_id, "cancelled")
        return self._ok(self.runs[run_id])

    def _cancel(self, run_id: str) -> Answer:
        self.calls["cancel"] += 1
        status = self.runs[run_id]["status"]
        if status not in ACTIVE:
            return self._reject(400, f"Cannot cancel run with status '{status}'.")
        self._move(run_id, "cancelling")
        return self._ok(self.runs[run_id])

    def _message(self, request: Received, thread_id: str) -> Answer:
        self.calls["message"] += 1
        blocking = self.active(thread_id)
        if blocking is not None:
            text = f"Can't add messages to {thread_id} while a run {blocking} is active."
            return self._reject(400, text)
        self.messages.append({"id": "msg_1", "thread_id": thread_id, "role": "user"})
        return self._ok(self.messages[-1])

    def _move(self, run_id: str, status: str) -> None:
        if self.runs[run_id]["status"] in ACTIVE:
            self.runs[run_id]["status"] = status

    def _keep(self, key: str, answer: Answer) -> Answer:
        self._kept[key] = answer
        return answer

    def _ok(self, value: Any) -> Answer:
        # A copy: the answer shows the state of now, also when it is sent again.
        headers = FEATURES if self._keys else {}
        return Answer(json={**value}, headers=headers)

    def _reject(self, status: int, message: str) -> Answer:
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
        return Answer(status, {"error": error}, FEATURES if self._keys else {})
