"""The sweep: a streamed run with a tool call, broken at every byte of both its legs.

Not part of the test suite, since it takes minutes: `poe long sweep` runs it and keeps its figures.
By default it breaks a run of 8 pieces at each byte of each leg, and one of 500 pieces at
each 50th byte, in turn by FIN, RST and stall, before a server that resumes and one that
cannot; each case is held to what the tests of `test_stream_faults` claim.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import anyio

from openai_runs.testing import Cut, FaultProxy, Reset, Stall
from tests.e2e.streamed_run import (
    IMPATIENT,
    MANY,
    ON,
    Place,
    Served,
    check,
    served,
    stream_through,
)

HOW = (Cut, Reset, Stall)
AT_ONCE = 4
"""Cases under way in one process."""
PROGRESS = 10.0
"""Seconds from one line about the progress to the next."""


class Part(NamedTuple):
    """What one process does."""

    resumes: bool
    pieces: int
    """Text deltas of the run."""
    every: int
    """Bytes from one place to the next."""

    def __str__(self) -> str:
        """Return it in words."""
        kind = "resuming" if self.resumes else "plain"
        return f"{kind} server, {self.pieces} pieces, every {self.every} bytes"


class Figure(NamedTuple):
    """What came of a part."""

    part: Part
    cases: int
    failures: list[str]
    seconds: float


def places(server: Served, every: int) -> Iterator[Place]:
    """Yield each place of both legs, the last byte included."""
    for leg, body in server.legs.items():
        for after in range(0, len(body) + 1, every):
            yield Place(leg, after)


async def break_at(server: Served, number: int, place: Place, count: int) -> str:
    """Return what went wrong with the case; nothing if nothing did."""
    how = HOW[number % len(HOW)]
    try:
        async with asyncio.timeout(60), FaultProxy(server.url) as proxy:
            proxy.plan(how(after=place.after), on=ON[place.leg])
            idle = IMPATIENT if how is Stall else None
            streamed = await stream_through(proxy.url, count=count, idle_timeout=idle)
            check(streamed, proxy, count=count)
            if server.resumes and idle is None and streamed.names != server.names:
                return f"{how.__name__} at {place}: other events than without"
    except Exception as error:  # one case must not end the sweep: it is counted
        return f"{how.__name__} at {place}: {type(error).__name__}: {error}"[:500]
    return ""


async def sweep(server: Served, part: Part) -> Figure:
    """Break the run at each place of the part, a few at a time, since each case also waits."""
    began = shown = time.monotonic()
    every = list(places(server, part.every))
    left = iter(enumerate(every))
    failures: list[str] = []

    async def work() -> None:
        nonlocal shown
        for number, place in left:
            problem = await break_at(server, number, place, part.pieces)
            if problem:
                failures.append(problem)
                print(f"FAILED ({part}): {problem}", flush=True)  # noqa: T201 - a script
            if time.monotonic() - shown > PROGRESS:
                shown = time.monotonic()
                done = f"{number + 1} of {len(every)} cases, {len(failures)} failures"
                print(f"{part}: {done}, {shown - began:.0f} s", flush=True)  # noqa: T201 - a script

    async with anyio.create_task_group() as group:
        for _ in range(AT_ONCE):
            group.start_soon(work)
    return Figure(part, len(every), failures, time.monotonic() - began)


def run_part(part: Part) -> Figure:
    """Return what came of one part; in a process of its own."""
    with served(resumes=part.resumes, count=part.pieces) as server:
        return asyncio.run(sweep(server, part))


def main() -> int:
    """Sweep, print the figures, and return whether anything failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pieces", type=int, default=8, help="of the run broken at each byte")
    parser.add_argument("--every", type=int, default=50, help=f"bytes, in {MANY} pieces")
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    kinds = [(asked.pieces, 1), (MANY, asked.every)]
    parts = [Part(resumes, *kind) for kind in kinds for resumes in (True, False)]
    began = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(asked.processes) as pool:
        figures = list(pool.imap_unordered(run_part, parts))
    for one in figures:
        found = f"{one.cases} cases, {len(one.failures)} failures, {one.seconds:.0f} s"
        print(f"{one.part}: {found}")  # noqa: T201 - a script
    cases = sum(one.cases for one in figures)
    failed = sum(len(one.failures) for one in figures)
    took = time.monotonic() - began
    print(f"sweep: {cases} cases, {failed} failures, {took:.0f} s")  # noqa: T201 - a script
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
