"""What it costs to start: a fresh interpreter with some code, less one with none.

Standard library only. The kernel counts, so that nothing is missed that comes before or after.
"""

from __future__ import annotations

import os
import re
import statistics
import sys
import time
from collections.abc import Mapping
from typing import Any

from tests.benchmarks.clients.stopwatch import Outcome, enter

_TELL = """
import atexit, os
atexit.register(lambda: os.write(2, open("/proc/self/status", "rb").read()))
"""
"""At its end it tells the peak of its memory: what the kernel would tell holds its parent's too."""


def _started(code: str) -> tuple[float, float, float]:
    """Return CPU seconds, wall seconds and bytes of memory of one interpreter."""
    reading, writing = os.pipe()
    files = [
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_DUP2, writing, 2),
    ]
    began = time.perf_counter()
    command = [sys.executable, "-c", _TELL + code]
    child = os.posix_spawn(sys.executable, command, os.environ, file_actions=files)
    os.close(writing)
    with os.fdopen(reading) as told:
        said = told.read()
    _, status, usage = os.wait4(child, 0)
    took = time.perf_counter() - began
    peak = re.search(r"^VmHWM:\s+(\d+) kB$", said, re.MULTILINE)
    if status or peak is None:
        raise RuntimeError(said)
    return usage.ru_utime + usage.ru_stime, took, int(peak[1]) * 1024


async def start(given: Mapping[str, Any]) -> Outcome:
    """Start interpreters in turns, with the code and without."""
    code = given["code"].replace("BASE_URL", given["url"])
    _started(code)  # writes its bytecode
    pairs = [(_started(code), _started("pass")) for _ in range(given["count"])]
    cpu, wall, memory = (
        statistics.median(with_it[n] - without[n] for with_it, without in pairs) for n in range(3)
    )
    return {"metrics": {"cpu": cpu, "wall": wall, "rss": memory}, "facts": {}}


if __name__ == "__main__":
    enter({"start": start})
