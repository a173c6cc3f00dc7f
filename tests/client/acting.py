"""What tests of waiting have in common: scripts for a server, clients on a manual clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio

from openai_runs import AsyncClient, PollPolicy
from tests.support import Action, Answer, HostileServer, ManualClock, Received, run_json

__all__ = ["IDS", "UNHELD", "Release", "client_of", "held", "of_run", "refusal", "script", "until"]

IDS: dict[str, Any] = {"run": "run_1", "thread_id": "thread_1"}
"""What `wait` is told when only the ids are known."""
UNHELD = PollPolicy(long_poll=0)
"""The default pace, without `Prefer: wait`."""


def client_of(
    server: HostileServer, clock: ManualClock | None = None, **options: Any
) -> AsyncClient:
    """Return a client of `server`; on `clock`, without jitter, if there is one."""
    if clock is not None:
        options.setdefault("seams", clock.runtime())
    return AsyncClient(server.url, **options)


def script(*actions: Action) -> Callable[[Received], Action]:
    """Return a handler that does these one after the other, and the last one for ever."""
    left = list(actions)

    def handler(request: Received) -> Action:
        return left.pop(0) if len(left) > 1 else left[0]

    return handler


def of_run(
    status: str = "completed", headers: dict[str, str] | None = None, **changes: Any
) -> Answer:
    """Return an answer with a run of that status."""
    return Answer(json=run_json(status, **changes), headers=headers or {})


def refusal(status: int, message: str = "no", *, code: str | None = None, **headers: str) -> Answer:
    """Return an error answer; `retry_after="1"` becomes the header `retry-after`."""
    error = {"message": message, "type": "some_error", "param": None, "code": code}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, {"error": error}, named)


def held(
    clock: ManualClock, seconds: float, status: str = "in_progress"
) -> Callable[[Received], Action]:
    """Return a handler that holds a request which asks for it `seconds` by `clock`."""

    def handler(request: Received) -> Action:
        prefer = request.headers.get("prefer")
        if prefer is None:
            return of_run(status)
        clock.now += seconds
        return of_run(status, {"Preference-Applied": prefer})

    return handler


class Release:
    """A handler that answers `queued` until it is told that the run is over."""

    def __init__(self) -> None:
        """Go on being queued."""
        self.answer: Action = of_run("queued")

    def __call__(self, request: Received) -> Action:
        """Answer as it is now."""
        return self.answer


async def until(condition: Any) -> None:
    """Return once `condition()` holds."""
    with anyio.fail_after(20):
        while not condition():  # noqa: ASYNC110 - it is the server that is waited for
            await anyio.sleep(0.002)
