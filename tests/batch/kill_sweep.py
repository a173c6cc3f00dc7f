"""A batch killed again and again: `poe long batch` runs it in full, a test in short.

The process is killed at requests drawn from a seed, before or after the server carries them out:
so in each state of a line, and while files are written. At the end each line must have its
result once, and the server must have made one run for each.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import anyio.to_thread

from openai_runs.batch import status
from tests.batch.batching import TOOLS, batch_line, launch, results_of, site, write_lines

__all__ = ["Found", "sweep"]

_REQUESTS = 5
"""Requests of a line, about: two creates, a poll, messages, steps."""


class Found(NamedTuple):
    """What has come of the batch."""

    lines: int
    kills: int
    results: int
    """Lines with a result, each once."""
    runs: int
    orphans: int
    """Threads without a run."""
    counted: int
    """Orphans that the batch has counted."""
    calls: int
    """Tool calls, by id."""
    repeated: int
    """How often a call was made again, of all calls the most often."""

    @property
    def is_right(self) -> bool:
        """Return whether each line has one result and one run, and no call came too often."""
        return (
            self.results == self.runs == self.lines
            and self.orphans <= self.counted
            and self.repeated <= self.kills
        )

    def __str__(self) -> str:
        """Return it in words."""
        return (
            f"{self.lines} lines, {self.kills} kills: {self.results} results, {self.runs} runs, "
            f"{self.orphans} orphans ({self.counted} counted), {self.calls} tool calls, "
            f"one repeated {self.repeated} times at most"
        )


async def sweep(folder: Path, *, lines: int, kills: int, remembers: bool, seed: int = 14) -> Found:
    """Kill a batch so often, then let it finish, and return what has come of it."""
    chance = random.Random(seed)
    (folder / "answering.py").write_text(TOOLS)
    more = ("--tools", "answering:look_up", "--concurrency", "20")
    async with site(folder / "server.db", remembers=remembers) as server:
        texts = [f"line {n}" if n % 5 else f"Use the tool look_up for {n}." for n in range(lines)]
        write_lines(
            folder / "in.jsonl",
            [batch_line(f"id-{n}", server.assistant_id, text) for n, text in enumerate(texts)],
        )
        killed = 0
        while killed < kills:
            process = await launch(folder, server.url, *more)
            share = lines * _REQUESTS // (kills + 2)
            server.kill_at(process, chance.randint(1, share), after=chance.random() < 0.5)
            _, said = await process.communicate()
            if process.returncode != -9:
                message = f"it was done after {killed} kills: {said.decode()}"
                raise RuntimeError(message)
            killed += 1
        process = await launch(folder, server.url, *more)
        _, said = await process.communicate()
        if process.returncode:
            raise RuntimeError(said.decode())
        runs, busy = server.count("runs"), server.count("runs", "thread_id")
        assert runs == busy  # one run on each thread
        ids = Counter(result["custom_id"] for result in results_of(folder / "out.jsonl"))
        assert max(ids.values()) == 1
        calls = Counter((folder / "calls").read_text().split())
        return Found(
            lines=lines,
            kills=killed,
            results=len(ids),
            runs=runs,
            orphans=server.count("threads") - busy,
            counted=(await anyio.to_thread.run_sync(status, folder / "batch.db")).orphans,
            calls=len(calls),
            repeated=max(calls.values()) - 1,
        )


def main() -> int:
    """Sweep before a server that remembers keys and one that does not; print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=30)
    asked = parser.parse_args()
    found = []
    for remembers in (True, False):
        with tempfile.TemporaryDirectory() as folder:
            work = sweep(Path(folder), lines=asked.lines, kills=asked.kills, remembers=remembers)
            found.append(asyncio.run(work))
        print(("with keys" if remembers else "without keys"), found[-1], sep=": ", flush=True)
    print("; ".join(map(str, found)))
    return 0 if all(one.is_right for one in found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
