"""What is promised of the package's cost, by counts: a clock would tell of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.counting import Cost

ROOT = Path(__file__).parent.parent
RECORDED = msgspec.json.decode((ROOT / "tests/cost.json").read_bytes(), type=dict[str, Cost])
MARGIN = 1.1
"""Calls that a piece of work may take, as a share of those recorded."""
HEAVY = ("aiohttp", "sqlalchemy", "openai_runs.server", "openai_runs._client.client")
"""What takes long to load, and what no help text needs."""
COMMANDS = ("", "demo", "serve", "ask", "runs", "runs show", "runs wait")


def run_python(*arguments: str) -> str:
    """Return what Python prints in a process of its own, in which nothing measures coverage."""
    environment = {name: it for name, it in os.environ.items() if not name.startswith("COVERAGE")}
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=50
    )
    return done.stdout


@pytest.fixture(scope="module")
def counted() -> dict[str, Cost]:
    """Return what each piece of work costs now."""
    told = run_python("-W", "ignore", "-m", "tests.counting")
    return msgspec.json.decode(told, type=dict[str, Cost])


def difference(now: Cost, then: Cost) -> str:
    """Return which functions are called more or less often than they were."""
    names = sorted({*now.functions, *then.functions})
    pairs = {name: (then.functions.get(name, 0), now.functions.get(name, 0)) for name in names}
    told = [f"  {name}: {old:g} -> {new:g}" for name, (old, new) in pairs.items() if old != new]
    return "\n".join(told)


@pytest.mark.parametrize("work", RECORDED)
def test_work_takes_no_more_calls_than_were_recorded(work: str, counted: dict[str, Cost]) -> None:
    """At most a tenth more; where more is meant, `python -m tests.counting` records it anew."""
    now, then = counted[work], RECORDED[work]

    assert now.total <= then.total * MARGIN, (
        f"to {work} took {then.total:g} calls and takes {now.total:g}:\n{difference(now, then)}"
    )


def test_every_counted_piece_of_work_is_recorded(counted: dict[str, Cost]) -> None:
    """A piece of work that is counted is also compared."""
    assert counted.keys() == RECORDED.keys()


def test_import_of_the_package_loads_no_http() -> None:
    """Types, errors and policies can be used by whoever never opens a connection."""
    told = run_python(
        "-c",
        "import sys, openai_runs, openai_runs.types; "
        "openai_runs.Run; openai_runs.RetryPolicy; openai_runs.APIError; print(*sys.modules)",
    )

    assert not {"aiohttp", "anyio", "sqlalchemy", "cyclopts", "rich", "pytest"} & set(told.split())


def test_help_loads_neither_client_nor_server() -> None:
    """A help text is there at once, that of each command."""
    script = (
        "import sys; from openai_runs._cli import main\n"
        f"for command in {COMMANDS!r}:\n"
        "    sys.argv[1:] = [*command.split(), '--help']\n"
        "    try: main()\n"
        "    except SystemExit as end: print('exit', end.code or 0)\n"
        "print('loaded', *sys.modules)"
    )
    told = run_python("-c", script)

    text, _, loaded = told.rpartition("\nloaded ")
    assert text.count("Usage") == text.count("\nexit 0") == len(COMMANDS)
    assert not set(HEAVY) & set(loaded.split())
