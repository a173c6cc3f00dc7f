"""Cases drawn from seeds: a few in `poe test`, as many as time allows in `poe long fuzz`.

One seed is one case, whichever others run: `FUZZ_SEED=7 FUZZ_CASES=1 pytest tests/fuzz` repeats it.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from time import monotonic

import anyio

__all__ = ["FIRST", "MAX_GROWTH", "SECONDS", "hammer", "is_long", "keep_figures", "peak_memory"]

SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
"""How long each part takes; 0: a fixed number of cases."""
FIRST = int(os.environ.get("FUZZ_SEED", "0"))
"""The first seed."""
_CASES = int(os.environ.get("FUZZ_CASES", "0"))
_MAX_FAILURES = 12
"""After so many a part stops: they are of a few kinds."""
_DEADLINE = 30.0
"""Seconds for one case, in which a hang is told from a busy machine."""
MAX_GROWTH = 256 << 20
"""Bytes by which a part may raise the most memory that the process ever had."""


def is_long() -> bool:
    """Return whether this is `poe long fuzz`."""
    return SECONDS > 0


def peak_memory() -> int:
    """Return the most bytes of memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _seeds(count: int) -> Iterator[int]:
    if not is_long():
        yield from range(FIRST, FIRST + (_CASES or count))
        return
    until = monotonic() + SECONDS
    for seed in itertools.count(FIRST):
        if monotonic() >= until:
            return
        yield seed


async def hammer(
    part: str, attempt: Callable[[int], Awaitable[str]], *, count: int, at_once: int
) -> None:
    """Try the seeds, and fail with those that were answered by an exception.

    Args:
        part: What the figures are kept under.
        attempt: Tries one seed; returns what kind of end it came to.
        count: How many cases are tried in `poe test`.
        at_once: How many are tried at the same time.
    """
    ends: dict[str, int] = {}
    failures: list[str] = []
    seeds = _seeds(count)
    before = peak_memory()

    async def work() -> None:
        for seed in seeds:
            try:
                with anyio.fail_after(_DEADLINE):
                    end = await attempt(seed)
            except Exception as problem:  # each is a finding, whatever it is
                kind = type(problem).__name__
                notes = " ".join(getattr(problem, "__notes__", ()))
                said = f"{kind}: {problem} {notes}"
                failures.append(f"FUZZ_SEED={seed} FUZZ_CASES=1 ({part}): {said}")
                end = "failed"
                if len(failures) >= _MAX_FAILURES:
                    return
            ends[end] = ends.get(end, 0) + 1

    async with anyio.create_task_group() as group:
        for _ in range(at_once):
            group.start_soon(work)
    growth = max(0, peak_memory() - before)
    keep_figures(part, sum(ends.values()), len(failures), growth)
    assert not failures, "\n".join(failures)
    assert growth < MAX_GROWTH, f"{part}: memory grew by {growth >> 20} MiB; {ends}"


def keep_figures(part: str, cases: int, failures: int, growth: int = 0) -> None:
    """Note what came of a part, for the last line of `poe long fuzz`."""
    if path := os.environ.get("FUZZ_FIGURES"):
        line = {"part": part, "cases": cases, "failures": failures, "mib": growth >> 20}
        with Path(path).open("a") as file:
            file.write(json.dumps(line) + "\n")
