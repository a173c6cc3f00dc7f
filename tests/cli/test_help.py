"""The help teaches, and mistakes are told from failures."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import InProcess
from tests.cli.processes import Finished, clean_env, execute, files_in

MODEL = ["--model-url", "http://127.0.0.1:1/v1"]
KEYS = {"BLANK": " ", "FULL": "sk-secret", "BROKEN": "sk-\nsecret"}


def run_main(arguments: list[str], before: str) -> subprocess.CompletedProcess[str]:
    """Call `main()` in a process of its own, with code before it."""
    script = (
        f"import sys\n{before}\nsys.argv[1:] = {arguments!r}\n"
        "from openai_runs._cli import main\nmain()\n"
    )
    return subprocess.run(
        [sys.executable, "-c", script],
        env=clean_env(),
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_shows_examples_and_exit_codes(in_process: InProcess) -> None:
    """A newcomer learns from `--help` what to type first and what an exit code means."""
    done = in_process("--help")

    assert done.code == 0
    for words in (
        "openai-runs demo",
        "--model-url http",
        "3  the run requires action",
        "130  Ctrl-C",
        "143  SIGTERM",
    ):
        assert words in done.out


def test_no_arguments_show_the_help(in_process: InProcess) -> None:
    """`openai-runs` alone is a question."""
    assert in_process() == in_process("--help")


def test_help_names_no_command_that_is_not_built(in_process: InProcess) -> None:
    """What is not there is not shown."""
    done = in_process("--help")

    shown = [line.split()[1] for line in done.out.splitlines() if line.startswith("│")]
    assert shown == [
        "ask",
        "assistants",
        "batch",
        "chat",
        "completion",
        "demo",
        "doctor",
        "export",
        "import",
        "runs",
        "serve",
        "threads",
        "worker",
        "--help",
        "--version",
    ]


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
        (["serve", "--model-url", ""], "--model-url"),
        (["serve", "--model", "qwen3"], "--model "),
        (["serve", "--model-map", "a=b"], "--model-map"),
        (["serve", "--model-timeout", "5"], "--model-timeout"),
        (["serve", *MODEL, "--model", " "], "--model is empty"),
        (["serve", *MODEL, "--model-map", "gpt-4o"], "--model-map gpt-4o"),
        (["serve", *MODEL, "--model-map", "=qwen3"], "NAME=MODEL"),
        (["serve", *MODEL, "--model-map", "gpt-4o="], "NAME=MODEL"),
        (["serve", *MODEL, "--model-map", "a=b*"], "'b*' is the name of no model"),
        (["serve", *MODEL, "--model-map", "a=b", "--model-map", "a=c"], "a has a model already"),
        (["serve", *MODEL, "--model-timeout", "0"], "--model-timeout"),
        (["serve", "--config", "missing.toml"], "missing.toml: cannot be read"),
        (["serve", "--config", "x.toml", *MODEL], "--model-url"),
        (["serve", "--config", "x.toml", "--model-timeout", "5"], "--model-timeout"),
        (["serve", "--config", "x.toml", "--backend", "echo"], "--config"),
        (["serve", "--hosted-tools", "drop"], "drop"),
        (["serve", "--run-lifetime", "0"], "--run-lifetime 0"),
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
        (["runs", "show"], "RUN_ID"),
        (["runs", "show", "run_1", "--thread", "thread_1"], "2026-08-26"),
        (["runs", "show", "a/b", "--thread", "thread_1", "--db", "runs.db"], "a/b"),
        (["runs", "wait", "run_1", "--thread", "thread_1"], "OPENAI_BASE_URL"),
        (["runs", "wait", "run_1", "--thread", "thread_1", "--timeout", "nan"], "--timeout"),
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_2_and_names_the_mistake(
    arguments: list[str], words: str, in_process: InProcess, tmp_path: Path
) -> None:
    """A mistake in the arguments is told in plain words, and nothing is started or made."""
    done = in_process(*arguments, **KEYS)

    check_wrong_usage(done, words)
    assert files_in(tmp_path) == []


HINTS = {
    "frobnicate": "openai-runs --help",
    "ask x --timeout 0": "openai-runs ask --help",
    "runs frobnicate": "openai-runs runs --help",
    "runs wait run_1": "openai-runs runs wait --help",
    "threads list --limit 0": "openai-runs threads list --help",
    "doctor --model phi4": "openai-runs doctor --help",
}


@pytest.mark.parametrize(("command", "hint"), HINTS.items(), ids=HINTS)
def test_hint_names_the_help_of_the_command(command: str, hint: str, in_process: InProcess) -> None:
    """Whoever made a mistake with one command need not read about the others."""
    done = in_process(*command.split())

    assert done.code == 2
    assert done.err.endswith(f"\nTry: {hint}\n")


CODES = {
    "": "0 1 2 3 4 5 6 130 141 143",
    "ask": "0 1 2 3 4 5 6 130 141 143",
    "chat": "0 1 2 3 4 5 130 141 143",
    "serve": "0 1 2 130 143",
    "demo": "0 1 130",
    "doctor": "0 1 2 130",
    "completion": "0 2",
    "assistants": "",
    "assistants create": "0 1 2 130 141",
    "runs": "",
    "runs cancel": "0 1 2 6 130",
    "runs list": "0 1 2 130 141",
    "runs wait": "0 1 2 3 4 5 6 130 141 143",
    "threads show": "0 1 2 130 141",
    "batch": "",
    "batch run": "0 1 2 4 130",
    "batch table": "0 1 2 130 141",
    "export": "0 1 2 130 141",
}


@pytest.mark.parametrize(("command", "codes"), CODES.items(), ids=CODES)
def test_help_lists_the_exit_codes_that_apply(
    command: str, codes: str, in_process: InProcess
) -> None:
    """A command that waits for no run does not say what a waiting run means."""
    done = in_process(*command.split(), "--help")

    _, _, listed = done.out.partition("Exit codes:\n")
    assert [line.split()[0] for line in listed.splitlines()] == codes.split()


async def test_wrong_usage_exits_2_in_a_process_of_its_own(tmp_path: Path) -> None:
    """What the table above sees in this process is what a shell sees."""
    done = await execute("serve", "--api-key-env", "BLANK", folder=tmp_path, **KEYS)

    check_wrong_usage(done, "BLANK")
    assert files_in(tmp_path) == []


def check_wrong_usage(done: Finished, words: str) -> None:
    """Check that the mistake is named, with the way to help and no key."""
    assert (done.code, done.out) == (2, "")
    assert words in done.err
    assert "--help" in done.err
    assert "Traceback" not in done.err
    assert "secret" not in done.err


@pytest.mark.parametrize(
    ("missing", "arguments"),
    [
        ("cyclopts", ["demo"]),
        ("rich", ["demo"]),
        ("sqlalchemy", ["demo"]),
        ("sqlalchemy", ["serve"]),
    ],
)
def test_missing_package_is_named(missing: str, arguments: list[str]) -> None:
    """Without a package of an extra the command says what to install."""
    done = run_main(arguments, f"sys.modules[{missing!r}] = None")

    assert done.returncode == 1
    assert f"openai-runs: this command needs the package {missing}: pip install '" in done.stderr
    assert f"'{missing}>=" in done.stderr or f"'{missing}<" in done.stderr
    assert "Traceback" not in done.stderr


def test_other_missing_modules_are_not_explained_away() -> None:
    """A broken installation is a traceback, not advice."""
    done = run_main(["demo"], "sys.modules['msgspec'] = None")

    assert done.returncode == 1
    assert "Traceback" in done.stderr


MISSING = {
    "an id": (["runs", "show"], "RUN_ID is required: the run's id"),
    "an option": (["export"], "--out is required: "),
    "a file": (["batch", "status"], "FILE is required: "),
    "its value": (["runs", "show", "run_1", "--thread"], "--thread requires an argument"),
}


@pytest.mark.parametrize(("arguments", "words"), MISSING.values(), ids=MISSING)
def test_missing_argument_is_explained(
    arguments: list[str], words: str, in_process: InProcess
) -> None:
    """What is required is distinguished from an option without its value, with what it is."""
    done = in_process(*arguments)

    first, last = done.err.splitlines()
    assert (done.code, done.out) == (2, "")
    assert words in first
    assert not first.endswith(": ")
    assert last.startswith("Try: openai-runs ")
