"""The server is killed once in each turn of a conversation: it goes on as if nothing had been."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest
from anyio import to_thread

from openai_runs import AsyncClient, PollPolicy, RetryPolicy
from tests.canaries import CANARY_KEY
from tests.e2e.conversing import KINDS, assistant, converse
from tests.server.backends.fake_endpoints import Endpoint, Sent, opened
from tests.server.backends.fake_refusals import LENIENT, REFUSING, STRICT
from tests.tiers import few

ROOT = Path(__file__).resolve().parents[2]
PATIENT: dict[str, Any] = {
    "retry": RetryPolicy(patience=60, initial=0.05, maximum=0.2),
    "poll": PollPolicy(initial=0.02, maximum=0.1, max_outage=60),
}
ENDPOINTS = {
    "strict": (STRICT, "strict"),
    "lenient": (LENIENT, "loose"),
    "refusing": (REFUSING, "strict"),
}
SHORT = ["tools", "bare", "cancel", "more_thoughts", "plain"]
MOMENTS = ["before", "middle", "after"]
LEARNT = {"context", "null", "opening", "system"}
"""What an endpoint may have to say again, since what is learnt is forgotten with the process."""


class Killed:
    """`openai-runs serve` in front of an endpoint, killed in its answers and started again."""

    def __init__(self, db: Path, endpoint: Endpoint, seed: int) -> None:
        self._db = db
        self._endpoint = endpoint
        self._random = random.Random(seed)
        self._due: dict[tuple[int, int], str] = {}
        self.struck: set[tuple[int, int]] = set()
        self._send, self._receive = anyio.create_memory_object_stream[None](100)
        self._start(0)

    def _start(self, port: int) -> None:
        command = [sys.executable, "-m", "openai_runs", "serve", "--port", str(port)]
        command += ["--db", str(self._db), "--model-url", self._endpoint.url]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().split()[-1]

    def end(self) -> None:
        """Kill the process."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(20)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _restart(self) -> None:
        port = urlsplit(self.url).port
        self.end()
        self._start(port or 0)

    async def strike(self, sent: Sent, moment: str) -> None:
        """Have the process killed, once in each turn, at one of the moments of its answer."""
        turn = sent.number, sent.turn
        due = self._due.setdefault(turn, self._random.choice(MOMENTS))
        if turn in self.struck or moment != due:
            return
        self.struck.add(turn)
        self._send.send_nowait(None)
        await anyio.sleep_forever()  # until the connection is gone with the process

    async def watch(self) -> None:
        """Kill and start again, each time it is asked for."""
        async for _ in self._receive:
            await to_thread.run_sync(self._restart)

    def close(self) -> None:
        """End the process for good."""
        self._send.close()
        self._receive.close()
        self.end()


@asynccontextmanager
async def killed(db: Path, endpoint: Endpoint, seed: int) -> AsyncIterator[Killed]:
    """Put a server that is killed in each turn in front of an endpoint."""
    server = await to_thread.run_sync(Killed, db, endpoint, seed)
    endpoint.hook = server.strike
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(server.watch)
            yield server
            group.cancel_scope.cancel()
    finally:
        server.close()


ROWS = [f"{name}-{seed}" for seed in range(3) for name in ENDPOINTS]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("row", few(ROWS, kept=["strict-0"], rest=pytest.mark.kills))
async def test_conversation_goes_on_when_the_server_is_killed_in_each_turn(
    tmp_path: Path, row: str
) -> None:
    """Before an answer, in it, or behind its last word: asked again, and nothing is mixed up."""
    name, _, seed = row.partition("-")
    await check_killed(tmp_path, name, int(seed), SHORT)


@pytest.mark.kills
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ENDPOINTS)
async def test_conversation_of_20_runs_goes_on_when_the_server_is_killed_in_each_turn(
    tmp_path: Path, name: str
) -> None:
    """All kinds of runs, one after the other on one thread."""
    await check_killed(tmp_path, name, 7, KINDS)


async def check_killed(folder: Path, name: str, seed: int, kinds: list[str]) -> None:
    """Have a conversation with a server that is killed in each turn."""
    rules, style = ENDPOINTS[name]
    async with (
        opened(rules, style=style) as endpoint,
        killed(folder / "runs.db", endpoint, seed) as server,
        AsyncClient(server.url, api_key=CANARY_KEY, **PATIENT) as client,
    ):
        wrong = await converse(client, kinds, assistant_id=await assistant(client))

    assert wrong == []
    assert len(server.struck) >= len(kinds)
    broken = {rule for rule in endpoint.refused if not rule.startswith("field ")} - LEARNT
    assert broken == set(), endpoint.refusals
