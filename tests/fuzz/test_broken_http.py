"""Whatever comes over a connection, the server answers or closes, and goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from openai_runs.server import LocalServer, ScriptedBackend
from tests.canaries import CANARY_KEY
from tests.fuzz.exchanging import answers_in, exchange, judge
from tests.fuzz.hammering import SECONDS, hammer
from tests.fuzz.http_grammar import draw
from tests.server.support import Caller

pytestmark = pytest.mark.timeout(120 + 2 * SECONDS)

HEADERS = {"Authorization": f"Bearer {CANARY_KEY}"}
TIMEOUTS: dict[str, Any] = {"keepalive_timeout": 1.0, "body_timeout": 1.0}
"""Seconds: short, since half requests are waited for, and long enough for a busy machine."""


async def answer_another(url: str) -> None:
    """Check that a valid request on a new connection is served."""
    for attempt in (1, 2):
        async with aiohttp.ClientSession(headers=HEADERS) as other:
            try:
                await Caller(other, url).thread()
            except aiohttp.ClientConnectionError:  # the machine was busy for all of the time-out
                if attempt == 2:
                    raise
            else:
                return


async def real_ids(caller: Caller) -> dict[str, str]:
    """Return the ids of one object of each kind, by the parameters of paths."""
    run = await caller.settled(await caller.start())
    messages, steps = await caller.messages(run), await caller.steps(run)
    return {
        "assistant_id": run["assistant_id"],
        "thread_id": run["thread_id"],
        "run_id": run["id"],
        "message_id": messages[0]["id"],
        "step_id": steps[0]["id"],
    }


@pytest.mark.parametrize("api_key", [CANARY_KEY, None], ids=["key", "loopback"])
async def test_broken_requests_are_answered_or_closed(tmp_path: Path, api_key: str | None) -> None:
    """No 5xx, no hang, refusals in the API's shape; the next request of another is served."""
    backend = ScriptedBackend(lambda request: "Fine.")
    async with (
        LocalServer(tmp_path / "runs.db", backend, api_key=api_key, **TIMEOUTS) as server,
        aiohttp.ClientSession(headers=HEADERS) as session,
    ):
        caller = Caller(session, server.url)
        ids = await real_ids(caller)

        async def attempt(seed: int) -> str:
            case = draw(seed, ids)
            try:
                received = await exchange(server.url, case)
                answers = answers_in(received, bodiless=b"HEAD" in b"".join(case.pieces))
                judge(answers)
                await answer_another(server.url)
            except Exception as problem:
                problem.add_note(repr(case))
                raise
            return str(answers[0].status) if answers else "closed"

        await hammer(f"http, {'key' if api_key else 'loopback'}", attempt, count=200, at_once=100)
