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
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import anyio

from tests.e2e.killing import Found, look, mix

ROOT = Path(__file__).resolve().parents[2]
PROGRESS = 20
"""Ends of the server from one line about the progress to the next."""
ACTIVE = {"queued", "in_progress", "requires_action", "cancelling"}


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

    async def start(self, module: str, *arguments: str) -> Process:
        """Start a module of ours as a process; what it says of errors is kept."""
        with self.errors.open("a") as errors:
            return await asyncio.create_subprocess_exec(
                sys.executable, "-m", module, *arguments, cwd=ROOT, stdout=PIPE, stderr=errors
            )

    async def serve(self) -> Process:
        """Return a server that answers."""
        arguments = (str(self.db), "64", "0", str(self.port))
        process = await self.start("tests.server.killed_server", *arguments)
        assert process.stdout is not None
        if not await process.stdout.readline():
            message = f"the server does not start: {self.errors.read_text()[-1000:]}"
            raise RuntimeError(message)
        return process

    async def run_client(self, what: str) -> Process:
        """Return the program that goes on from its journal."""
        arguments = (self.url, self.assistant_id, str(self.journal), what)
        return await self.start("tests.e2e.killed_client", *arguments)

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
            await anyio.sleep(self.chance.uniform(0.1, self.asked.life))
            await end(process, how)
            if number % PROGRESS == 0:
                done = f"{number} of {len(ends)} ends, {len(self.acknowledged)} runs of callers"
                print(done, flush=True)  # noqa: T201 - a script

    async def kill_client(self) -> None:
        """Start the client's program again and again, and kill it at such moments."""
        chance = random.Random(self.asked.seed + 1)
        for _ in range(self.asked.clients):
            process = await self.run_client("more")
            await anyio.sleep(chance.uniform(0.5, 2 * self.asked.life + 1))
            await end(process, signal.SIGKILL)

    async def run(self) -> Found:
        """Kill, then let one server and one client finish, and look at what there is."""
        process = await self.serve()
        async with aiohttp.ClientSession() as session:
            made = await self.send(session, "POST", "/assistants", json={"model": "test"})
            self.assistant_id = made["id"]
            await end(process, signal.SIGTERM)
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
        await end(process, signal.SIGTERM)
        for line in self.journal.read_text().split("\n"):
            if line.startswith("made"):
                _, key, run_id, _ = line.split()
                self.acknowledged[key] = run_id
        return look(self.db, self.acknowledged)


async def end(process: Process, how: signal.Signals) -> None:
    """End the process.

    Raises:
        RuntimeError: It had ended by itself, or it ends otherwise than it should.
    """
    gone = process.returncode
    if gone is None:
        process.send_signal(how)
    with anyio.fail_after(60):
        await process.communicate()
    if gone is not None or process.returncode != (0 if how == signal.SIGTERM else -how):
        message = f"ended with {process.returncode}, and not by {how.name}"
        raise RuntimeError(message)


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
    parser.add_argument("--life", type=float, default=5.0, help="most seconds from start to end")
    parser.add_argument("tests", nargs=argparse.REMAINDER, help="what to run before: pytest ...")
    asked = parser.parse_args()
    tests = run_tests(asked.tests) if asked.tests else ""
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
