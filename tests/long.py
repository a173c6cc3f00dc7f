"""The long tier: what takes too long for `poe test`, or needs more than a clone and Python.

    poe long              the names
    poe long NAME         run it, and keep what came of it in docs/results/NAME.md

Further arguments are those of the command that is run.
"""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
FOUND = "What was found."
"""How the part of a result begins that people write, and that the next run keeps."""


class Long(NamedTuple):
    """One of the tier."""

    what: str
    command: list[str]
    """Arguments of Python. The last line that it prints is the result."""
    table: str | None = None
    """A file that it writes, below the root, which is kept with the result."""


def marked(expression: str, *options: str) -> list[str]:
    """Return the arguments that run the tests with these marks."""
    return ["-m", "pytest", "-q", "--numprocesses=auto", "-m", expression, *options]


ON_POSTGRES = ["tests/server", "tests/e2e/referee", "tests/e2e/test_openapi_answers.py"]
ALL = {
    "archive": Long(
        "200 threads exported through faults and kills, imported, and exported again.",
        marked("archive", "--numprocesses=1"),
    ),
    "batch": Long(
        "A batch of 2,000 lines killed 30 times, with idempotency keys at the server and without.",
        ["-m", "tests.batch.kill_sweep"],
    ),
    "bots": Long(
        "100 users write 5 messages each within a second to two bots, one of which is killed.",
        ["-m", "tests.conversations.crowd"],
    ),
    "browser": Long(
        "In headless Chromium: chats of the guides, connections cut, and all pages of the docs.",
        marked("browser", "--numprocesses=1"),
    ),
    "chaos": Long(
        "Servers and workers on one PostgreSQL, all killed, stopped, frozen, cut off.",
        ["-m", "tests.chaos"],
        "build/chaos/table.md",
    ),
    "deploy": Long(
        "The guide's unit read by systemd, and a client that goes through the guide's nginx.",
        marked("deploy", "--numprocesses=0"),
    ),
    "cli": Long(
        "chat, ask, serve and doctor on a screen of 80 by 24 in tmux, with keys pressed.",
        marked("tmux", "--numprocesses=1", "tests/cli/tmux"),
    ),
    "fuzz": Long(
        "Requests, HTTP and answers drawn from seeds, valid and broken, minutes for each kind.",
        ["-m", "tests.fuzz"],
    ),
    "kills": Long(
        "Servers killed at every write, at many moments of a stream, and 120 times under load.",
        ["-m", "tests.e2e.kill_sweep", *marked("kills")[1:]],
    ),
    "model": Long(
        "A real small model asked through client and server: a chat, a stream, tool calls.",
        ["-m", "pytest", "-q", "-m", "model", "tests/e2e/small_model"],
    ),
    "postgres": Long(
        "The tests of the server, the official clients and the OpenAPI answers, on PostgreSQL.",
        ["-m", "pytest", "-q", "--numprocesses=auto", "--database=postgresql", *ON_POSTGRES],
    ),
    "pythons": Long(
        "The tests on Python 3.11, 3.13 and 3.14, the last two from Debian, in folders; as root.",
        ["-m", "tests.pythons"],
    ),
    "seeds": Long(
        "Tests drawn at random: all seeds, and 5,000 examples of each property.",
        marked("seeds or hypothesis", "--hypothesis-profile=long", "--timeout=1800"),
    ),
    "scaling": Long(
        "Runs a second with one process and several, on SQLite and PostgreSQL, and how late it is.",
        ["-m", "tests.scaling"],
        "build/scaling.md",
    ),
    "soak": Long(
        "Server and client for an hour, with faults on both sides: what grows, per hour.",
        ["-m", "tests.soak"],
        "build/soak/table.md",
    ),
    "sweep": Long(
        "A streamed run broken at every byte, before a server that resumes and one that cannot.",
        ["-m", "tests.e2e.sweep"],
    ),
}


def run(command: list[str]) -> tuple[int, str]:
    """Run Python with these arguments; return its exit code and the last line it printed."""
    return shown([sys.executable, *command], cwd=ROOT)


def shown(command: list[str], **options: Any) -> tuple[int, str]:
    """Run the command and print what it prints; return its exit code and the last line of that.

    `options` are those of `subprocess.Popen`.
    """
    last = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line.strip() or last
    return process.returncode, last


def commit() -> str:
    """Return the commit that is checked out, and whether the files are its own."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def page(
    name: str, *, tested: str, code: int, figures: str, seconds: float, command: list[str]
) -> str:
    """Return the result as it is kept."""
    rows = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": f"`{tested}`",
        "machine": f"{os.cpu_count()} cores, {platform.system()}",
        "Python": platform.python_version(),
        "command": f"`python {shlex.join(command)}`",
        "seconds": f"{seconds:.0f}",
        "verdict": "passed" if code == 0 else f"failed, exit code {code}",
        "result": figures,
    }
    table = "".join(f"| {key} | {value} |\n" for key, value in rows.items())
    head = f"# {name}\n\n{ALL[name].what} Last run by `poe long {name}`:\n\n"
    return f"{head}| | |\n| --- | --- |\n{table}{kept_table(name)}{findings(name)}"


def kept_table(name: str) -> str:
    """Return the table that was written beside the result, if any."""
    path = ALL[name].table
    if path is None or not (ROOT / path).exists():
        return ""
    return f"\n{(ROOT / path).read_text()}"


def findings(name: str) -> str:
    """Return what people wrote under the last result, from `FOUND` on."""
    kept = RESULTS / f"{name}.md"
    _, word, text = (kept.read_text() if kept.exists() else "").partition(f"\n{FOUND}")
    return word + text


def main(arguments: list[str]) -> int:
    """Run what the first argument names, and keep its result."""
    if not arguments:
        print(*(f"{name:10}{one.what}" for name, one in ALL.items()), sep="\n")
        return 0
    name, *more = arguments
    if name not in ALL:
        print(f"no such name: {name}; there are {', '.join(ALL)}", file=sys.stderr)
        return 2
    command = [*ALL[name].command, *more]
    if (table := ALL[name].table) is not None:
        (ROOT / table).unlink(missing_ok=True)  # of an earlier run
    tested, began = commit(), time.monotonic()
    code, figures = run(command)
    seconds = time.monotonic() - began
    RESULTS.mkdir(exist_ok=True)
    text = page(name, tested=tested, code=code, figures=figures, seconds=seconds, command=command)
    (RESULTS / f"{name}.md").write_text(text)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
