"""`openai-runs demo` shows a run from a tool call to the answer, and cleans up."""

import re
import signal
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cli.processes import COMMAND, clean_env, execute, files_in, launch, run_on_terminal


class Shown(NamedTuple):
    """What one call of the command left."""

    done: subprocess.CompletedProcess[str]
    files: list[str]
    """What lies in its folder, which is also the one for temporary files."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """Call the command once, where the environment names a key, a proxy and an endpoint."""
    folder = tmp_path_factory.mktemp("demo")
    env = clean_env(
        TMPDIR=str(folder),
        OPENAI_API_KEY="sk-secret",
        OPENAI_BASE_URL="http://192.0.2.1/v1",
        HTTP_PROXY="http://192.0.2.1:1",
    )
    done = subprocess.run(
        [*COMMAND, "demo"], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    return Shown(done, files_in(folder))


def test_demo_shows_the_tool_call_then_the_answer_then_the_steps(demo: Shown) -> None:
    """The main job, in one command, without a key or a network."""
    assert (demo.done.returncode, demo.done.stderr) == (0, "")
    order = [
        "in_progress",
        "requires_action",
        "look_up_order(",
        "a Python function answers",
        "completed",
        "answer ",
        "Steps of the run",
        "tool_calls",
        "message_creation",
        " serve --model-url ",
    ]
    places = [demo.done.stdout.index(words) for words in order]
    assert places == sorted(places)


def test_demo_shows_durations_and_tokens_of_each_step(demo: Shown) -> None:
    """The timeline adds up to what the run used."""
    rows = re.findall(r"^ +(\w+) .* (\d+\.\d\d) s +(\d+) +(\d+) *$", demo.done.stdout, re.MULTILINE)
    assert [name for name, *_ in rows] == ["tool_calls", "message_creation", "run"]
    read = [int(tokens) for _, _, tokens, _ in rows]
    written = [int(tokens) for _, _, _, tokens in rows]
    assert (sum(read[:2]), sum(written[:2])) == (read[2], written[2])


def test_piped_output_is_plain_text(demo: Shown) -> None:
    """No escape code ends up in a file."""
    assert "\x1b" not in demo.done.stdout
    assert "\r" not in demo.done.stdout


def test_demo_leaves_nothing_behind(demo: Shown) -> None:
    """No file, neither where it was started nor among the temporary ones."""
    assert demo.files == []


def test_demo_keeps_the_users_key_to_itself(demo: Shown) -> None:
    """Keys, proxies and endpoints of the environment have no part in it."""
    assert demo.done.returncode == 0
    assert "sk-secret" not in demo.done.stdout


@pytest.mark.parametrize("found", [True, False], ids=["on PATH", "not on PATH"])
async def test_demo_names_a_command_that_can_be_called(found: bool, tmp_path: Path) -> None:
    """What it proposes next works when pasted."""
    (tmp_path / "openai-runs").touch(mode=0o755)

    done = await execute("demo", folder=tmp_path, PATH=str(tmp_path) if found else "")

    assert ("    openai-runs serve" in done.out) is found
    assert ("    python -m openai_runs serve" in done.out) is not found


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_interrupted_demo_leaves_nothing_behind(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    """Ctrl-C in mid-wait: the shell's exit code, no traceback, no file."""
    process = await launch("demo", folder=tmp_path, TMPDIR=str(tmp_path))
    assert process.stdout is not None
    while b"in_progress" not in (line := await process.stdout.readline()):
        assert line
    assert files_in(tmp_path) != []

    process.send_signal(number)
    _, err = await process.communicate()

    assert (process.returncode, err) == (code, b"")
    assert files_in(tmp_path) == []


def assert_words_are_whole(text: str) -> None:
    """Check that no line is longer than the terminal, which would break it within a word."""
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n").splitlines()
    assert max(map(len, lines)) <= 80
    said = " ".join(" ".join(lines).split())
    assert '"state": "left our warehouse", "arrives": "Thursday"}' in said
    assert "bookshelf has left our warehouse and arrives on Thursday." in said
    assert " serve --model-url http://127.0.0.1:11434/v1 " in said


def test_demo_on_a_terminal_shows_that_it_waits(tmp_path: Path) -> None:
    """On a terminal the status is live."""
    text, code = run_on_terminal("demo", folder=tmp_path)

    assert code == 0
    assert "waiting: in_progress" in text
    assert_words_are_whole(text)
    assert "\x1b[" in text
    assert text.rstrip().endswith("in the clone")
