"""Commands that are forked are processes as those for which an interpreter is started."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from openai_runs import __version__
from openai_runs.testing import RunsServer
from tests.cli.forking import Forked
from tests.cli.processes import clean_env, execute, finish, pipe, read_until, start

FACTS = """\
import gc, hashlib, json, locale, logging, os, signal, sys, threading

def look_up() -> str:
    "Look."

streams = [sys.stdin, sys.stdout, sys.stderr]
print(json.dumps({
    "arguments": sys.argv,
    "coverage": "COVERAGE_PROCESS_CONFIG" in os.environ and sys.gettrace() is not None,
    "descriptors": sorted(os.listdir("/proc/self/fd")) if os.path.exists("/proc") else [],
    "environment": sorted(os.environ),  # and of the values a digest, since some are secrets
    "digest": hashlib.sha256(repr(sorted(os.environ.items())).encode()).hexdigest(),
    "flags": [*sys.flags, *sys.warnoptions],
    "folder": os.getcwd(),
    "garbage": [gc.isenabled(), gc.get_threshold()],
    "group": [os.getpgrp(), os.getsid(0)],
    "handlers": [str(signal.getsignal(each)).split(" at ")[0] for each in signal.Signals],
    "locale": locale.setlocale(locale.LC_ALL),
    "log": [logging.root.level, logging.root.handlers, os.umask(0o22)],
    "main": sys.modules["__main__"].__spec__.name,
    "path": sys.path,
    "streams": [[each.name, each.mode, each.encoding, each.errors, each.line_buffering,
                 each.isatty()] for each in streams],
    "threads": threading.active_count(),
}), file=sys.stderr)
"""
"""A module of tools that tells in which process it is imported."""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--version"], 0), (["ask", "x", "--none"], 2), (["doctor", "--db", "none.db"], 1)],
    ids=["version", "mistake", "failure"],
)
async def test_fork_leaves_what_a_fresh_interpreter_leaves(
    arguments: list[str], code: int, tmp_path: Path
) -> None:
    """The exit code and both outputs are the same."""
    fresh = await finish(await start(arguments, tmp_path, {}, fresh=True))
    forked = await execute(*arguments, folder=tmp_path)

    assert (forked, forked.code) == (fresh, code)
    assert forked.out + forked.err != ""


async def test_fork_has_the_surroundings_of_a_fresh_interpreter(tmp_path: Path) -> None:
    """Arguments, environment, folder, signals, streams, open files: nothing is of the server."""
    (tmp_path / "facts.py").write_text(FACTS)
    arguments = ["ask", "x", "--tools", "facts.py:look_up"]

    fresh = await start(arguments, tmp_path, {"MINE": "1"}, fresh=True)
    forked = await start(arguments, tmp_path, {"MINE": "1"})
    told, expected = [
        json.loads((await finish(process)).err.splitlines()[0]) for process in (forked, fresh)
    ]

    assert isinstance(forked, Forked)
    assert told == expected
    assert (told["folder"], told["environment"]) == (str(tmp_path), sorted(clean_env(MINE="1")))
    assert told["arguments"][1:] == arguments


async def test_fork_reads_its_standard_input(tmp_path: Path) -> None:
    """What is longer than the buffers between the two comes whole."""
    text = "wörd" * 100_000

    done = await pipe(text, "ask", folder=tmp_path)

    assert (done.code, done.out) == (0, f"{text}\n")


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)],
    ids=["SIGINT", "SIGTERM", "SIGKILL"],
)
async def test_fork_hears_signals(
    number: signal.Signals, code: int, runs_server: RunsServer, tmp_path: Path
) -> None:
    """The exit code is the command's, or the signal that killed it; others go on."""
    runs_server.hang(text="Once upon")
    runs_server.hang(text="Once upon")
    where = ["ask", "x", "--base-url", runs_server.url]
    process, other = [await start(where, tmp_path, {}) for _ in range(2)]
    for each in (process, other):
        await read_until("Once upon", each.stdout)

    process.send_signal(number)
    left = await finish(process)

    assert (left.code, other.returncode) == (code, None)
    other.kill()
    assert (await finish(other)).code == -signal.SIGKILL


@pytest.mark.parametrize(
    "env", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}, {"LANG": "C"}], ids=lambda env: min(env)
)
async def test_what_an_interpreter_reads_at_its_start_needs_one(
    env: dict[str, str], tmp_path: Path
) -> None:
    """A fork would be too late for it."""
    process = await start(["--version"], tmp_path, env)

    assert not isinstance(process, Forked)
    assert (await finish(process)).out == f"{__version__}\n"


def test_server_ends_with_the_process_that_started_it() -> None:
    """Also by force: what it printed on is closed at the end, which nobody else holds."""
    script = (
        "import anyio, os, pathlib, signal\n"
        "from tests.cli.processes import execute\n"
        "print(anyio.run(lambda: execute('--version', folder=pathlib.Path('/'))).out, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)

    # Both outputs have ended, and the server holds the second.
    assert (done.returncode, done.stdout.decode(), done.stderr) == (-9, f"{__version__}\n\n", b"")
