"""The sweep of chaos: three servers and three workers on one PostgreSQL, and everything is killed.

    python -m tests.chaos --kills 40 --seed 13

Two of the servers only serve, the third executes as well. 20 callers create runs at any of them:
plain, with one key at two servers at once, streamed, with a tool, cancelled. Meanwhile any of the
six is killed and started again; PostgreSQL is stopped, as in a crash too; what executes is frozen,
or cut off from PostgreSQL by a proxy, for longer than others wait for it, and comes back. In the
end no run that was acknowledged may be lost, doubled or stuck, no event log may have a gap or a
repeat, and each text is what the model said. The last line printed is the verdict.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Final

from openai_runs import AsyncClient
from tests.chaos.callers import Caller, Journal
from tests.chaos.cluster import Cluster, Stop, free_port
from tests.chaos.cutting import Cut, Cutter, cutting
from tests.chaos.looking import Found, Watch, look
from tests.chaos.model import serve_model
from tests.chaos.processes import Process
from tests.chaos.sums import write_table

SILENCE: Final = (11.0, 16.0)
"""Seconds for which a process is frozen or cut off; others take over after ten."""
LONG: Final = 15.0
"""Seconds after which it is said who is still at work in the end."""
SHARED_THREADS: Final = 4
"""Threads that all callers use, besides their own."""
SHARES: Final = {"restart": 1 / 5, "cut": 1 / 10, "freeze": 1 / 10}
"""For each kill, how many there are of the other faults."""


class Chaos:
    """All of it."""

    def __init__(self, asked: argparse.Namespace, folder: Path, stack: AsyncExitStack) -> None:
        """Keep the settings."""
        self.asked = asked
        self.folder = folder
        self.stack = stack
        self.chance = random.Random(asked.seed)
        self.journal = Journal()
        self.processes: list[Process] = []
        self.cutters: dict[str, Cutter] = {}
        self.done: Counter[str] = Counter()
        self.stopping = asyncio.Lock()
        """Held while PostgreSQL is stopped."""

    async def prepare(self) -> None:
        """Start everything."""
        self.cluster = await asyncio.to_thread(Cluster, self.folder / "postgres")
        self.stack.callback(self.cluster.remove)
        await asyncio.to_thread(self.cluster.start)
        model = await self.stack.enter_async_context(serve_model())
        self.urls = []
        for name in ("server-1", "server-2", "server-3", "worker-1", "worker-2", "worker-3"):
            executes = name == "server-3" or name.startswith("worker")
            port = None
            if executes:
                self.cutters[name] = await self.stack.enter_async_context(
                    cutting(self.cluster.port)
                )
                port = self.cutters[name].port
            arguments = ["--db", self.cluster.url(port), "--model-url", model.url]
            if name.startswith("server"):
                listen = free_port()
                self.urls.append(f"http://127.0.0.1:{listen}/v1")
                lifetime = ["--port", str(listen), "--run-lifetime", "3600"]
                arguments = [
                    "serve",
                    *lifetime,
                    *arguments,
                    *([] if executes else ["--no-execute"]),
                ]
            else:
                arguments = ["worker", *arguments]
            log = self.folder / f"{name}.log"
            process = Process(name, arguments, log, executes=executes)
            self.stack.push_async_callback(process.clear)
            self.processes.append(process)
        async with asyncio.TaskGroup() as group:  # they make the tables, all at once
            for process in self.processes:
                group.create_task(process.start())
        self.watch = Watch(self.cluster.url(), self.journal)

    async def run(self) -> Found:
        """Run callers and faults; return what is there in the end."""
        async with AsyncClient(self.urls[0], "chaos") as client:
            assistant = await client.assistants.create(model="chaos")
            threads = [(await client.threads.create()).id for _ in range(SHARED_THREADS)]
        callers = [
            Caller(self.urls, self.journal, assistant.id, threads, f"{self.asked.seed}-{number}")
            for number in range(self.asked.callers)
        ]
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(self.watch.serve())
            calling = [group.create_task(caller.call()) for caller in callers]
            await self._break()
            self.journal.enough = True
            self._say("faults are over, runs under way end")
            while (await asyncio.wait(calling, timeout=LONG))[1]:
                at = [
                    one.doing for one, task in zip(callers, calling, strict=True) if not task.done()
                ]
                self._say(f"still under way: {', '.join(at)}")
            watching.cancel()
        for process in self.processes:
            if (code := await process.stop()) != 0:
                self.journal.wrong.append(f"{process.name} ends with {code} when it is stopped")
            self.journal.wrong += process.errors()
        return await asyncio.to_thread(look, self.cluster.url(), self.journal.runs)

    async def _break(self) -> None:
        kills = self.asked.kills
        faults = ["kill"] * kills
        for name, share in SHARES.items():
            faults += [name] * max(1, round(kills * share)) if kills else []
        self.chance.shuffle(faults)
        async with asyncio.TaskGroup() as group:
            for number, fault in enumerate(faults, 1):
                await asyncio.sleep(self.chance.uniform(0.5, self.asked.pause))
                await self._begin(fault, group)
                if number % 5 == 0:
                    self._say(f"{number} of {len(faults)} faults")

    async def _begin(self, fault: str, group: asyncio.TaskGroup) -> None:
        if fault == "restart":
            how: Stop = self.chance.choice(("fast", "immediate"))
            await self._restart(how, self.chance.uniform(0, 3))
            return
        wanted = [one for one in self.processes if fault == "kill" or one.executes]
        while not (free := [one for one in wanted if one.runs and not one.busy]):  # noqa: ASYNC110 - nobody announces that
            await asyncio.sleep(0.1)
        process = self.chance.choice(free)
        process.busy = True
        doing = {"kill": self._kill, "cut": self._cut, "freeze": self._freeze}[fault]
        group.create_task(doing(process, self.chance.random()))

    async def _restart(self, how: Stop, pause: float) -> None:
        async with self.stopping:
            self.watch.takeovers.restarts += 1
            await asyncio.to_thread(self.cluster.stop, how)
            await asyncio.sleep(pause)
            await asyncio.to_thread(self.cluster.start)
            self.done[f"{how} restart"] += 1

    async def _kill(self, process: Process, drawn: float) -> None:
        try:
            await process.kill()
        except RuntimeError as error:
            self.journal.wrong.append(str(error))
        await self.watch.silence(process)
        self.done["kill"] += 1
        await asyncio.sleep(3 * drawn)
        while True:
            async with self.stopping:  # a server does not start without its database
                with suppress(RuntimeError):
                    await process.start()
                    break
            self.journal.wrong.append(f"{process.name} does not start")
        process.busy = False

    async def _freeze(self, process: Process, drawn: float) -> None:
        process.send(signal.SIGSTOP)
        await self.watch.silence(process)
        await asyncio.sleep(SILENCE[0] + drawn * (SILENCE[1] - SILENCE[0]))
        process.send(signal.SIGCONT)
        self.done["freeze"] += 1
        process.busy = False

    async def _cut(self, process: Process, drawn: float) -> None:
        kinds: list[Cut] = ["closed", "silent", "silent, then closed"]
        how = kinds[int(drawn * len(kinds))]
        self.cutters[process.name].cut(how)
        await self.watch.silence(process)
        await asyncio.sleep(SILENCE[0] + drawn * (SILENCE[1] - SILENCE[0]))
        self.cutters[process.name].mend(how)
        self.done["cut"] += 1
        process.busy = False

    def _say(self, what: str) -> None:
        runs, wrong = len(self.journal.runs), len(self.journal.wrong)
        print(f"{what}; {runs} runs, {wrong} wrong; {self.watch.takeovers}", flush=True)


async def sweep(asked: argparse.Namespace) -> int:
    """Run it, and print what came of it; return the exit code."""
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="openai-runs-chaos-"))
    try:
        async with AsyncExitStack() as stack:
            chaos = Chaos(asked, folder, stack)
            await chaos.prepare()
            found = await chaos.run()
    except asyncio.CancelledError:  # Ctrl-C: all processes have been ended
        shutil.rmtree(folder)
        raise
    takeovers = chaos.watch.takeovers
    for name in ("lost", "doubled", "stuck", "failed", "garbled", "given_up"):
        print(f"{name}: {getattr(found, name)}")
    print(f"wrong: {chaos.journal.wrong}")
    print(f"ends: {dict(found.ends)}, tries: {dict(chaos.journal.tries)}")
    is_right = found.is_right and takeovers.is_right and not chaos.journal.wrong
    faults = ", ".join(f"{number} {name}s" for name, number in sorted(chaos.done.items()))
    if is_right and not asked.keep:
        shutil.rmtree(folder)
    else:
        print(f"the logs are in {folder}")
    write_table(faults=chaos.done, found=found, wrong=len(chaos.journal.wrong), takeovers=takeovers)
    took = f"{time.monotonic() - began:.0f} s"
    wrong = f", {len(chaos.journal.wrong)} wrong answers"
    print(f"seed {asked.seed}: {faults}: {found}{wrong}; {takeovers}, {took}")
    return 0 if is_right else 1


def main() -> int:
    """Read the arguments, and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=13)
    parser.add_argument("--callers", type=int, default=20)
    parser.add_argument("--keep", action="store_true", help="keep the logs in any case")
    parser.add_argument("--pause", type=float, default=6.0, help="most seconds between two faults")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell has it ignored
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        return asyncio.run(sweep(parser.parse_args()))
    except KeyboardInterrupt:
        print("stopped by Ctrl-C")
        return 130


if __name__ == "__main__":
    sys.exit(main())
