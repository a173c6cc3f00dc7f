"""Runs the rows: a server's process, and in turn a fresh process for each client.

The client has one core of the machine and the server another, where there are two. What
the clients found must be the same, or nothing is reported.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from tests.benchmarks.contestants import Contestant
from tests.benchmarks.rows import Row

__all__ = ["Figures", "NotTheSameError", "measure"]

ROOT = Path(__file__).resolve().parents[2]
Figures: TypeAlias = dict[str, dict[str, list[float | None]]]
"""Contestant -> metric -> its figure in each round."""

_PATIENCE = 400.0
"""Seconds after which a client's process is taken for stuck."""


class NotTheSameError(Exception):
    """Two clients found different answers: one of them skipped work, or is wrong."""


def measure(row: Row, contestants: list[Contestant], *, rounds: int, quick: bool) -> Figures:
    """Return the figures of one row, its rounds interleaved.

    Raises:
        NotTheSameError: The clients do not agree about what they were told.
    """
    figures: Figures = {one.name: {} for one in contestants}
    params = row.told(quick=quick)
    expected: Any = None
    with _server(row.served(quick=quick)) as (url, pid):
        for _ in range(rounds):
            for one in contestants:
                before = _spent(pid) if row.work == "load" else 0.0
                outcome = _client(one, row.work, _told(params, one, url))
                if expected is None:
                    expected = outcome["facts"]
                elif outcome["facts"] != expected:
                    message = f"{row.name}: {one.name} found {outcome['facts']}, not {expected}"
                    raise NotTheSameError(message)
                metrics = outcome["metrics"]
                if row.work == "load":
                    metrics["server_cpu"] = (_spent(pid) - before) / (params["runs"] * 1.1)
                for metric, value in metrics.items():
                    figures[one.name].setdefault(metric, []).append(value)
    return figures


def _told(params: dict[str, Any], one: Contestant, url: str) -> dict[str, Any]:
    """Return what one client's process is told."""
    fewer = {"count": max(int(params["count"] * one.share), 1)} if "count" in params else {}
    return {**params, **fewer, **one.params, "url": url, "core": _cores()[1]}


def _client(one: Contestant, work: str, params: dict[str, Any]) -> dict[str, Any]:
    """Return what one client's process found."""
    done = subprocess.run(
        [str(one.python), "-m", one.module, work, json.dumps(params)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=_environment(),
        timeout=_PATIENCE,
    )
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        sys.exit(f"{one.name} failed at {work}")
    outcome: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return outcome


@contextmanager
def _server(command: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """Yield address and process id of a server in a process of its own, if one is needed."""
    if not command:
        yield "", 0
        return
    module, *arguments = command
    server = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=_environment(),
    )
    assert server.stdin is not None
    assert server.stdout is not None
    os.sched_setaffinity(server.pid, {_cores()[0]})
    try:
        yield server.stdout.readline().strip(), server.pid
    finally:
        server.stdin.close()
        server.stdout.close()
        server.wait(10)


def _spent(pid: int) -> float:
    """Return the CPU seconds that a process, all its threads, has taken so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _cores() -> tuple[int, int]:
    """Return a core for the server and one for the client."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[0], cores[-1]


def _environment() -> dict[str, str]:
    """Return the environment without what would change a client's ways."""
    own = {name: text for name, text in os.environ.items() if not name.startswith("OPENAI_")}
    own.pop("PYTHONDONTWRITEBYTECODE", None)  # else starting is mostly compiling
    return {**own, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
