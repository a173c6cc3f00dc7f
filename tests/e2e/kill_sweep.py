"""The sweep of kills: a server under load killed again and again, and a client of it as well.

Not part of the test suite, since it takes minutes: `poe long kills` runs it after the tests with
the mark `kills`, and keeps its figures. All moments and questions are drawn from one seed. The
server is killed 120 times and stopped 30 times within seconds of its start, while 40 callers
create runs with keys, which take up to three seconds; a program that uses the client is killed 40
times, and goes on from its journal. No run that was acknowledged may be lost, doubled or stuck,
and under 1 % may be given up, since none is guilty.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import anyio.to_thread

from tests.e2e import killed_client
from tests.e2e.killing import Found, look, mix
from tests.server import killed_server

ROOT = Path(__file__).resolve().parents[2]
PROGRESS = 20
"""Ends of the server from one line about the progress to the next."""
FORKS = multiprocessing.get_context("forkserver")
"""Processes forked from one that has imported what they need: a start costs no second of CPU."""
ACTIVE = {"queued", "in_progress", "requires_action", "cancelling"}


def serve(arguments: list[str], errors: str, ready: Connection) -> None:
    """Serve, in a process of its own."""
    keep_errors(errors)
    asyncio.run(killed_server.main(list(arguments), ready.send))


def call(arguments: list[str], errors: str, ready: Connection) -> None:
    """Call, in a process of its own."""
    keep_errors(errors)
    ready.send("")
    asyncio.run(killed_client.main(*arguments))


def keep_errors(path: str) -> None:
    """Have what this process says of errors written to a file."""
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)


class Ended:
    """A process that is to be ended."""

    def __init__(self, process: ForkServerProcess) -> None:
        self._process = process

    async def wait(self) -> int | None:
        """Return the exit code, once it has ended."""
        await anyio.to_thread.run_sync(self._process.join)
        return self._process.exitcode

    async def end(self, how: signal.Signals) -> None:
        """End it.

        Raises:
            RuntimeError: It had ended by itself, or it ends otherwise than it should.
        """
        gone, pid = self._process.exitcode, self._process.pid
        assert pid is not None
        if gone is None:
            os.kill(pid, how)
        with anyio.fail_after(60):
            code = await self.wait()
        if gone is not None or code != (0 if how == signal.SIGTERM else -how):
            message = f"ended with {code}, and not by {how.name}"
            raise RuntimeError(message)


class Sweep:
    """One server file, those who call its server, and those who kill it."""

    def __init__(self, folder: Path, asked: argparse.Namespace) -> None:
        self.db = folder / "runs.db"
        self.journal = folder / "journal"
        self.errors = folder / "errors"
        self.asked = asked
        self.chance = random.Random(asked.seed)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.assistant_id = ""
        self.acknowledged: dict[str, str] = {}
        self.refused: list[str] = []
        self.enough = False

    async def start(self, target: Callable[..., None], *arguments: str) -> Ended:
        """Return a process that has begun, once it says that it is ready."""
        here, there = FORKS.Pipe(duplex=False)
        process = FORKS.Process(target=target, args=(arguments, str(self.errors), there))
        await anyio.to_thread.run_sync(process.start)
        there.close()
        try:
            await anyio.to_thread.run_sync(here.recv)
        except EOFError:
            message = f"it does not start: {self.errors.read_text()[-1000:]}"
            raise RuntimeError(message) from None
        return Ended(process)

    async def serve(self) -> Ended:
        """Return a server that answers."""
        return await self.start(serve, str(self.db), "64", "0", str(self.port))

    async def run_client(self, what: str) -> Ended:
        """Return the program that goes on from its journal."""
        return await self.start(call, self.url, self.assistant_id, str(self.journal), what)

    async def send(
        self, session: aiohttp.ClientSession, method: str, path: str, **options: Any
    ) -> Any:
        """Return the answer's JSON, however often the server has to be asked for it."""
        while True:
            try:
                async with session.request(method, self.url + path, **options) as response:
                    if response.status == 200:
                        return await response.json()
                    if response.status != 503:
                        self.refused.append(f"{method} {path}: {await response.text()}")
                        return None
            except (aiohttp.ClientError, TimeoutError):
                pass
            await anyio.sleep(0.1)

    async def call(self, session: aiohttp.ClientSession, numbers: count[int]) -> None:
        """Create one run after the other, and wait for the end of each."""
        while not self.enough:
            key = f"caller-{next(numbers)}"
            thread = {"messages": [{"role": "user", "content": mix(key)}]}
            body = {"assistant_id": self.assistant_id, "thread": thread, "metadata": {"key": key}}
            headers = {"Idempotency-Key": key}
            run = await self.send(session, "POST", "/threads/runs", json=body, headers=headers)
            if run is None:
                continue
            self.acknowledged[key] = run["id"]
            path = f"/threads/{run['thread_id']}/runs/{run['id']}"
            while run is not None and run["status"] in ACTIVE:
                run = await self.send(session, "GET", path, headers={"Prefer": "wait=5"})

    async def kill_server(self) -> None:
        """Start the server again and again, and end it at moments drawn at random."""
        ends = [signal.SIGKILL] * self.asked.kills + [signal.SIGTERM] * self.asked.stops
        self.chance.shuffle(ends)
        for number, how in enumerate(ends, 1):
            process = await self.serve()
            longer = 1 if self.chance.random() < 5 / 6 else 4  # so that repeated trials begin, too
            await anyio.sleep(self.chance.uniform(0.1, self.asked.life) * longer)
            await process.end(how)
            if number % PROGRESS == 0:
                done = f"{number} of {len(ends)} ends, {len(self.acknowledged)} runs of callers"
                print(done, flush=True)  # noqa: T201 - a script

    async def kill_client(self) -> None:
        """Start the client's program again and again, and kill it at such moments."""
        chance = random.Random(self.asked.seed + 1)
        for _ in range(self.asked.clients):
            process = await self.run_client("more")
            await anyio.sleep(chance.uniform(0.5, 2 * self.asked.life + 1))
            await process.end(signal.SIGKILL)

    async def run(self) -> Found:
        """Kill, then let one server and one client finish, and look at what there is."""
        process = await self.serve()
        async with aiohttp.ClientSession() as session:
            made = await self.send(session, "POST", "/assistants", json={"model": "test"})
            self.assistant_id = made["id"]
            await process.end(signal.SIGTERM)
            async with anyio.create_task_group() as group:
                numbers = count()
                for _ in range(self.asked.callers):
                    group.start_soon(self.call, session, numbers)
                async with anyio.create_task_group() as killers:
                    killers.start_soon(self.kill_server)
                    killers.start_soon(self.kill_client)
                self.enough = True
                process, client = await self.serve(), await self.run_client("finish")
                if await client.wait():
                    self.refused.append(f"the client: {self.errors.read_text()[-1000:]}")
        await process.end(signal.SIGTERM)
        for line in self.journal.read_text().split("\n"):
            if line.startswith("made"):
                _, key, run_id, _ = line.split()
                self.acknowledged[key] = run_id
        return look(self.db, self.acknowledged)


def run_tests(command: list[str]) -> str:
    """Run these tests; return what pytest says last."""
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    print(done.stdout, flush=True)  # noqa: T201 - a script
    last = done.stdout.strip().splitlines()[-1].strip("= ")
    return last if done.returncode == 0 else f"FAILED: {last}"


def main() -> int:
    """Kill, print the figures, and return whether anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=13)
    parser.add_argument("--kills", type=int, default=120)
    parser.add_argument("--stops", type=int, default=30)
    parser.add_argument("--clients", type=int, default=40, help="kills of the client")
    parser.add_argument("--callers", type=int, default=40)
    parser.add_argument(
        "--life",
        type=float,
        default=3.0,
        help="most seconds from start to end, four times that for one in six",
    )
    parser.add_argument("tests", nargs=argparse.REMAINDER, help="what to run before: pytest ...")
    asked = parser.parse_args()
    tests = run_tests(asked.tests) if asked.tests else ""
    FORKS.set_forkserver_preload([killed_server.__name__, killed_client.__name__])
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        sweep = Sweep(Path(folder), asked)
        found = asyncio.run(sweep.run())
    for name in ("lost", "doubled", "stuck", "failed", "given_up"):
        print(f"{name}: {getattr(found, name)}")  # noqa: T201 - a script
    print(f"refused: {sweep.refused}")  # noqa: T201 - a script
    killed = f"{asked.kills} kills, {asked.stops} stops, {asked.clients} kills of the client"
    took = f"{time.monotonic() - began:.0f} s"
    print(f"seed {asked.seed}: {killed}: {found}, {took}. {tests}".strip())  # noqa: T201 - a script
    return 0 if found.is_right and not sweep.refused and "FAILED" not in tests else 1


if __name__ == "__main__":
    sys.exit(main())
