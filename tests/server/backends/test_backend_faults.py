"""Backends that do what no backend should: the run fails, and all others go on."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from openai_runs import AsyncClient
from openai_runs.server import LocalServer
from openai_runs.server.backends.base import Finish, ModelEvent, ModelRequest, TextDelta
from openai_runs.types.runs import Usage

HUGE = 10**30


class Odd:
    """Does to the first run what it is told, and answers the others."""

    def __init__(self, fault: str) -> None:
        self._fault = fault

    async def respond(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Misbehave once."""
        fault, self._fault = self._fault, ""
        if fault == "cancels itself":
            task = asyncio.create_task(asyncio.sleep(60))
            task.cancel()
            await task
        prompt = HUGE if fault == "huge usage" else 1
        yield TextDelta("\ud800" if fault == "lone surrogate" else "fine")
        yield Finish(usage=Usage(prompt_tokens=prompt, completion_tokens=1, total_tokens=2))


@pytest.mark.parametrize("fault", ["cancels itself", "huge usage", "lone surrogate"])
async def test_run_fails_and_the_next_one_runs(fault: str) -> None:
    """The thread is free again at once, and the engine is alive."""
    async with LocalServer(backend=Odd(fault)) as server, AsyncClient(server.url) as client:
        assistant = await client.assistants.create(model="m")
        thread = await client.threads.create()

        failed = await client.runs.create_and_poll(thread.id, assistant_id=assistant.id, timeout=20)
        fine = await client.runs.create_and_poll(thread.id, assistant_id=assistant.id, timeout=20)

    assert failed.status == "failed"
    assert failed.last_error is not None
    assert failed.last_error.code == "server_error"
    assert fine.status == "completed"
