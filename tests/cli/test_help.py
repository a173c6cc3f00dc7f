"""The help teaches, costs little, and mistakes are told from failures."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.processes import clean_env, execute, files_in

HEAVY = ["aiohttp", "sqlalchemy", "openai_runs.server", "openai_runs._client.client"]

KEYS = {"BLANK": " ", "FULL": "sk-secret", "BROKEN": "sk-\nsecret"}


def run_main(
    arguments: list[str], before: str, after: str = ""
) -> subprocess.CompletedProcess[str]:
    """Call `main()` in a process of its own, with code before and after it."""
    script = (
        f"import sys\n{before}\nsys.argv[1:] = {arguments!r}\n"
        f"from openai_runs._cli import main\ntry:\n    main()\nfinally:\n    {after or 'pass'}\n"
    )
    return subprocess.run(
        [sys.executable, "-c", script],
        env=clean_env(),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "arguments",
    [[*command, "--help"] for command in ([], ["demo"], ["serve"], ["ask"], ["runs", "wait"])],
    ids=" ".join,
)
def test_help_loads_neither_client_nor_server(arguments: list[str]) -> None:
    """`--help` imports nothing heavy."""
    after = f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules])"

    done = run_main(arguments, "", after)

    assert done.returncode == 0
    assert done.stdout.endswith("LOADED []\n")


async def test_help_shows_examples_and_exit_codes(tmp_path: Path) -> None:
    """A newcomer learns from `--help` what to type first and what an exit code means."""
    done = await execute("--help", folder=tmp_path)

    assert done.code == 0
    for words in (
        "openai-runs demo",
        "--model-url http",
        "3  the run requires action",
        "130  Ctrl-C",
        "143  SIGTERM",
    ):
        assert words in done.out


async def test_no_arguments_show_the_help(tmp_path: Path) -> None:
    """`openai-runs` alone is a question."""
    assert await execute(folder=tmp_path) == await execute("--help", folder=tmp_path)


async def test_help_names_no_command_that_is_not_built(tmp_path: Path) -> None:
    """What is not there is not shown."""
    done = await execute("--help", folder=tmp_path)

    shown = [line.split()[1] for line in done.out.splitlines() if line.startswith("│")]
    assert shown == ["ask", "demo", "runs", "serve", "--help", "--version"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["frobnicate"], "frobnicate"),
        (["demo", "--frobnicate"], "--frobnicate"),
        (["serve", "--port", "many"], "--port"),
        (["serve", "--port", "65536"], "--port"),
        (["serve", "--backend", "parrot"], "parrot"),
        (["serve", "--backend", "chat"], "--model-url"),
        (["serve", "--backend", "echo", "--model-url", "http://127.0.0.1:1/v1"], "--model-url"),
        (["serve", "--model-url", "no url"], "--model-url"),
        (["serve", "--host", "0.0.0.0"], "--api-key-env"),
        (["serve", "--host", ""], "--host"),
        (["serve", "--api-key-env", "NO_SUCH"], "NO_SUCH"),
        (["serve", "--api-key-env", "BROKEN"], "BROKEN"),
        (["serve", "--api-key-env", "BLANK"], "BLANK"),
        (["serve", "--model-key-env", "BLANK"], "BLANK"),
        (["serve", "--model-key-env", "FULL"], "--model-key-env"),
        (["ask"], "TEXT"),
        (["ask", " \n"], "TEXT"),
        (["ask", "two", "words"], "words"),
        (["ask", "x", "-"], "TEXT"),
        pytest.param(["ask", "\udcff"], "UTF-8", id="ask in Latin-1"),
        (["ask", "x", "--timeout", "0"], "--timeout"),
        (["ask", "x", "--base-url", "no url"], "no url"),
        (["ask", "x", "--base-url", "http://127.0.0.1:1/v1", "--db", "runs.db"], "--db"),
        (["ask", "x", "--base-url", "http://127.0.0.1:1/v1", "--api-key-env", "BROKEN"], "BROKEN"),
        (["ask", "x", "--model-url", "no url"], "no url"),
        (["ask", "x", "--model-key-env", "FULL"], "--model-url"),
        (["ask", "x", "--api-key-env", "FULL"], "--base-url"),
        (["ask", "x", "--thread", "thread_1"], "--db"),
        (["ask", "x", "--assistant", "asst_1"], "--base-url"),
        (["ask", "x", "--db", "runs.db", "--thread", "../x"], "thread"),
        (["runs", "show", "run_1"], "--thread"),
        (["runs", "show", "run_1", "--thread", "thread_1"], "2026-08-26"),
        (["runs", "show", "a/b", "--thread", "thread_1", "--db", "runs.db"], "a/b"),
        (["runs", "wait", "run_1", "--thread", "thread_1"], "OPENAI_BASE_URL"),
        (["runs", "wait", "run_1", "--thread", "thread_1", "--timeout", "nan"], "--timeout"),
    ],
    ids=" ".join,
)
async def test_wrong_usage_exits_2_and_names_the_mistake(
    arguments: list[str], words: str, tmp_path: Path
) -> None:
    """A mistake in the arguments is told in plain words, and nothing is started or made."""
    done = await execute(*arguments, folder=tmp_path, **KEYS)

    assert (done.code, done.out) == (2, "")
    assert words in done.err
    assert "--help" in done.err
    assert "Traceback" not in done.err
    assert "secret" not in done.err
    assert files_in(tmp_path) == []


@pytest.mark.parametrize(
    ("missing", "arguments", "extra"),
    [
        ("cyclopts", ["demo"], "openai-runs[cli]"),
        ("rich", ["demo"], "openai-runs[cli]"),
        ("sqlalchemy", ["demo"], "openai-runs[server]"),
        ("sqlalchemy", ["serve"], "openai-runs[server]"),
    ],
)
def test_missing_extra_is_named(missing: str, arguments: list[str], extra: str) -> None:
    """Without an extra the command says what to install."""
    done = run_main(arguments, f"sys.modules[{missing!r}] = None")

    assert done.returncode == 1
    assert f"pip install '{extra}'" in done.stderr
    assert "Traceback" not in done.stderr


def test_other_missing_modules_are_not_explained_away() -> None:
    """A broken installation is a traceback, not advice."""
    done = run_main(["demo"], "sys.modules['msgspec'] = None")

    assert done.returncode == 1
    assert "Traceback" in done.stderr
