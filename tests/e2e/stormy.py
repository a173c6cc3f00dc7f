"""A server of many runs in bad weather: 429 storms, 503s, and connections that drop."""

from __future__ import annotations

import math
import time
from collections import Counter
from random import Random
from typing import Any

from tests.client.ledger import error
from tests.support import Action, Answer, Drop, Received, run_json

__all__ = ["Stormy"]

_EVERY = 500
"""Requests from one storm to the next."""
_LENGTH = 0.15
"""Seconds of a storm, in which everything is refused and told how long it still lasts."""


class Stormy:
    """The handler of a `HostileServer`.

    Of all requests 5 % are answered 503 and 3 % dropped, half of each after the work was
    done. Every 500 requests a storm of 429s begins.
    """

    def __init__(self, *, keys: bool, seed: int = 1) -> None:
        """Say whether this server remembers idempotency keys, and choose the weather."""
        self.keys = keys
        self.made: Counter[str] = Counter()
        """Runs by the item they are for."""
        self.lost = 0
        """Answers that did not arrive or told nothing, of creates and others."""
        self.refused = 0
        self.total = 0
        self._calm_at = 0.0
        self._chance = Random(seed)
        self._runs: dict[str, dict[str, Any]] = {}
        """By thread."""
        self._looks: Counter[str] = Counter()
        self._by_key: dict[str, dict[str, Any]] = {}

    def __call__(self, request: Received) -> Action:
        """Answer one request, or not."""
        self.total += 1
        if self.total % _EVERY == 0:
            self._calm_at = time.monotonic() + _LENGTH
        left = self._calm_at - time.monotonic()
        if left > 0:
            self.refused += 1
            return error(429, retry_after_ms=str(math.ceil(1000 * left)))
        chance = self._chance.random()
        if chance >= 0.08:
            return self._answer(request)
        self.lost += 1
        if chance >= 0.04:
            self._answer(request)  # done, although nobody will know
        return Drop() if chance < 0.015 or chance >= 0.065 else error(503)

    def _answer(self, request: Received) -> Answer:
        parts = request.path.removeprefix("/v1/").split("/")
        answer = Answer(json=self._do(request, parts))
        features = {"openai-runs-features": "idempotency"}
        return answer._replace(headers=features) if self.keys else answer

    def _do(self, request: Received, parts: list[str]) -> Any:
        match request.method, parts:
            case "GET", ["assistants", name]:
                return {"id": name, "object": "assistant", "created_at": 0, "model": "m"}
            case "POST", ["threads", "runs"]:
                item = request.json["thread"]["metadata"]["item"]
                return self._create(request, f"made_{item}_{self.made[item]}", item)
            case "POST", ["threads", thread, "runs"]:
                return self._create(request, thread, thread)
            case "GET", ["threads", thread, "runs"]:
                runs = [self._runs[thread]] if thread in self._runs else []
                return {"object": "list", "data": runs, "has_more": False}
            case "GET", ["threads", thread, "runs", _]:
                self._looks[thread] += 1
                if self._looks[thread] > 1:
                    self._runs[thread]["status"] = "completed"
                return self._runs[thread]
            case _:
                return {"object": "list", "data": [], "has_more": False}

    def _create(self, request: Received, thread: str, item: str) -> dict[str, Any]:
        key = request.headers["idempotency-key"]
        if self.keys and key in self._by_key:
            return self._by_key[key]
        self.made[item] += 1
        metadata = request.json.get("metadata") or {}
        run = run_json(id=f"run_{thread}", thread_id=thread, metadata=metadata)
        self._runs[thread] = self._by_key[key] = run
        return run
