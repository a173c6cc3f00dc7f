"""Whatever a server answers, the client returns what was sent whole, or raises an error of ours."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from openai_runs import (
    APIConnectionError,
    AsyncClient,
    OpenAIRunsError,
    PollPolicy,
    RetryPolicy,
    StreamInterrupted,
)
from tests.canaries import CANARY_KEY
from tests.fuzz.calls import CALLS
from tests.fuzz.hammering import SECONDS, hammer
from tests.fuzz.honest_server import HonestServer
from tests.fuzz.lying_server import check, lying_server

pytestmark = pytest.mark.timeout(120 + 2 * SECONDS)

AT_ONCE: dict[str, Any] = {
    "retry": RetryPolicy(initial=0, maximum=0),
    "poll": PollPolicy(initial=0, maximum=0.01, long_poll=0, max_outage=1),
}


def is_late(problem: OpenAIRunsError) -> bool:
    """Return whether a time-out was up, as on a busy machine it may be before any answer."""
    return isinstance(problem, TimeoutError | APIConnectionError | StreamInterrupted)


async def attempt(seed: int) -> str:
    """Let one server lie to one call; nothing but an error of ours, or the whole truth."""
    chance = Random(seed)
    name = chance.choice(list(CALLS))
    has_tools = "tools" in name or chance.random() < 0.4
    honest = HonestServer(has_tools=has_tools, polls=chance.randint(0, 2))
    lies, share = ({chance.randrange(4)}, 0.0) if chance.random() < 0.7 else (set[int](), 0.4)
    async with (
        lying_server(chance, honest, lies, share) as server,
        AsyncClient(server.url, CANARY_KEY, **AT_ONCE) as client,
    ):
        try:
            check(server, await CALLS[name](client))
        except Exception as problem:
            is_whole = all(one.keeps_bytes for one in server.sent)
            if isinstance(problem, OpenAIRunsError) and not (is_whole and not is_late(problem)):
                return type(problem).__name__
            problem.add_note(f"{name}: {[one.what for one in server.sent]} {server.asked}")
            raise
    return "answered"


async def test_lies_are_errors_of_ours_or_make_no_difference() -> None:
    """No foreign exception, no hang, no half text of a completed run, nothing left behind."""
    loop, uncaught = asyncio.get_running_loop(), list[str]()
    loop.set_exception_handler(lambda _, context: uncaught.append(str(context)))

    await hammer("sdk", attempt, count=300, at_once=16)

    assert uncaught == []
