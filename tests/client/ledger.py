"""A server that keeps runs in a list, and loses the answers to what it has done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from tests.support import Action, Answer, Drop, Hang, Received, Reset, run_json

__all__ = ["LOSSES", "NEVER_DONE", "Fate", "Ledger", "error", "patience"]

_CLOSED: Final = {"completed", "cancelled", "expired", "failed"}


def error(status: int, message: str = "no", **headers: str) -> Answer:
    """Return an error answer; `retry_after="1"` becomes the header `retry-after`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return Answer(status, {"error": body}, named)


LOSSES: Final[dict[str, Action]] = {
    "drop": Drop(),
    "reset": Reset(),
    "hang": Hang(),
    "408": error(408),
    "500": error(500),
    "503-retry-after": error(503, retry_after="7"),
    "504-html": Answer(504, body=b"<html>Gateway time-out</html>"),
}
"""The ways in which the answer to a request that was carried out can be lost."""


def patience(loss: Action) -> float:
    """Return the seconds an attempt may take: few where it hangs, and enough elsewhere."""
    return 0.25 if isinstance(loss, Hang) else 30.0


class Fate(NamedTuple):
    """What becomes of one POST."""

    answer: Action | None = None
    """In place of the proper answer."""
    done: bool = True
    """Whether it is carried out."""

    def instead_of(self, proper: Answer) -> Action:
        """Return what the client gets."""
        return proper if self.answer is None else self.answer


NEVER_DONE: Final = Fate(error(500), done=False)


class Ledger:
    """The handler of a `HostileServer`."""

    def __init__(
        self, *fates: Fate, keys: bool = False, told: bool = True, unseen: int = 0, late: int = 0
    ) -> None:
        """Start without runs.

        Args:
            fates: What becomes of the POSTs, in order; then all goes well.
            keys: Whether the server remembers idempotency keys.
            told: Whether it says so on answers that are no success as well.
            unseen: For how many looks a list still is empty.
            late: At which further POST what was not done before is done after all, and first.
        """
        self.fates = list(fates)
        self.keys = keys
        self.told = told
        self.unseen = unseen
        self.late = late
        self.runs: list[dict[str, Any]] = []
        self.tokens: list[str | None] = []
        """Of each stored run: the idempotency key it was posted with."""
        self.posts = 0
        self._answers: dict[str, Any] = {}
        self._waiting: dict[str, Any] | None = None

    def __call__(self, request: Received) -> Action:
        """Answer one request."""
        outcome = self._post(request) if request.method == "POST" else self._get(request)
        if self.keys and isinstance(outcome, Answer) and (self.told or outcome.status < 300):
            features = {"openai-runs-features": "idempotency, prefer-wait"}
            return outcome._replace(headers={**outcome.headers, **features})
        return outcome

    def _post(self, request: Received) -> Action:
        self.posts += 1
        fate = self.fates.pop(0) if self.fates else Fate()
        key = request.headers.get("idempotency-key")
        if self.keys and key in self._answers:
            return fate.instead_of(Answer(json=self._answers[key]))
        if not fate.done:
            self._waiting = self._waiting or request.json
            assert fate.answer is not None
            return fate.answer
        if self._waiting is not None and self.posts == self.late:
            self._store(self._waiting, key)
        active = [run for run in self.runs if run["status"] not in _CLOSED]
        if active:
            text = f"Thread thread_1 already has an active run {active[0]['id']}."
            return fate.instead_of(error(400, text))
        run = self._store(request.json, key)
        if key is not None:
            self._answers[key] = run
        return fate.instead_of(Answer(json=run))

    def _store(self, body: Mapping[str, Any], key: str | None) -> dict[str, Any]:
        number = len(self.runs) + 1
        run = run_json(id=f"run_{number}", metadata=body.get("metadata") or {}, x_unknown="kept")
        self.runs.append(run)
        self.tokens.append(key)
        return run

    def _get(self, request: Received) -> Action:
        if request.path.endswith("/runs"):
            self.unseen -= 1
            data = [] if self.unseen >= 0 else list(reversed(self.runs))
            return Answer(json={"object": "list", "data": data, "has_more": False})
        named = request.path.rpartition("/")[2]
        found = [run for run in self.runs if run["id"] == named]
        return Answer(json=found[0]) if found else error(404, f"No run found with id '{named}'.")

    def copy_of(self, number: int = 0) -> dict[str, Any]:
        """Return what is stored of a run, without the mark."""
        run: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self.runs[number]))
        run["metadata"].pop("openai_runs_key", None)
        return run
