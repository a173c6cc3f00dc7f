"""Commands as a person sees them: a screen of 80 by 24 in tmux, with keys pressed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from openai_runs.testing import RunsServer
from tests.cli.tmux.screens import Screen, screen

pytestmark = [pytest.mark.tmux, pytest.mark.timeout(300)]

ANSWER = """# Tea

Water first: **fresh**, and `95 C`.

1. Warm the pot
2. Add leaves

```python
def steep():
    return 3
```

> Patience.

| tea | time |
| --- | --- |
| green | 2 min |
"""
LINES = [
    "Tea",
    "",
    "Water first: fresh, and 95 C.",
    "",
    " 1 Warm the pot",
    " 2 Add leaves",
    "",
    "  def steep():",
    "      return 3",
    "",
    "▌ Patience.",
    "",
    " tea    time",
]
TOOL = '''
import pathlib, time


def look_up(order: str) -> str:
    """Look up an order.

    Args:
        order: Its number.
    """
    while not pathlib.Path("go").exists():
        time.sleep(0.05)
    return "left on Monday"
'''
COLOURS = re.compile(r"\x1b\[(?:[\d;]*;)?(?:3[0-7]|4[0-7]|9[0-7]|10[0-7]|[34]8;[\d;]+)m")
"""Codes that set a colour: on a light screen or a dark one some of them cannot be read."""


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Screen]:
    """Return a shell at work in the test's folder."""
    with screen(tmp_path) as found:
        yield found


def ends(shell: Screen, code: int) -> None:
    """Check that the command ended so, and gave the terminal back."""
    shell.until(rf"\[{code}\]\n\$")
    assert shell.has_cursor
    assert "Traceback" not in shell.shown(all_of_it=True)


def test_ask_draws_an_answer(shell: Screen, runs_server: RunsServer) -> None:
    """Until the first word, what is done; then Markdown, in the terminal's own colours."""
    runs_server.reply(ANSWER, delay=1.0)

    shell.run(f"ask 'How?' --base-url {runs_server.url}")
    shell.until(r"thinking \d+ s")
    shell.until(r"continue:\s+openai-runs ask TEXT --thread thread_")

    ends(shell, 0)
    shown = shell.shown(all_of_it=True)
    assert "\n".join(LINES) in shown
    assert "thinking" not in shown
    styled = shell.shown(styled=True, all_of_it=True)
    assert "\x1b[1mfresh" in styled
    assert COLOURS.search(styled) is None


def test_long_answer_scrolls_and_stays_whole(shell: Screen, runs_server: RunsServer) -> None:
    """Longer than the screen, in one block: each line is there once, in order."""
    runs_server.reply("\n".join(f"{number}. item {number}" for number in range(1, 61)))

    shell.run(f"ask 'How?' --base-url {runs_server.url}")
    shell.until(r"continue:\s+openai-runs ask")

    ends(shell, 0)
    items = re.findall(r"^ *(\d+) item \1$", shell.shown(all_of_it=True), re.MULTILINE)
    assert items == [str(number) for number in range(1, 61)]


def test_piped_answer_leaves_no_drawing_behind(shell: Screen, runs_server: RunsServer) -> None:
    """What is done is drawn beside the pipe, and gone with the first word."""
    runs_server.reply("One\nTwo", delay=1.0)

    shell.run(f"ask 'How?' --base-url {runs_server.url} | cat")
    shell.until(r"thinking \d+ s")
    shell.until(r"continue:\s+openai-runs ask")

    ends(shell, 0)
    _, *lines = shell.shown().splitlines()
    assert lines[0].startswith("run run_")
    # When `cat` writes the last line end, only `cat` knows.
    assert re.match(r"One\nTwo\n?completed; tokens 10 in, 5 out\n", "\n".join(lines[1:]))


def test_ask_is_interrupted(shell: Screen, runs_server: RunsServer) -> None:
    """What came stays, the run is cancelled, and the prompt is back."""
    runs_server.hang(text="Once upon")

    shell.run(f"ask 'How?' --base-url {runs_server.url}")
    shell.until("Once upon")
    shell.press("C-c")

    ends(shell, 130)
    assert "Once upon" in shell.shown()
    assert "asked to cancel run" in shell.shown()
    assert len(runs_server.seen("POST", "/threads/*/runs/*/cancel")) == 1


def test_chat_goes_on_after_an_interrupt(
    shell: Screen, runs_server: RunsServer, tmp_path: Path
) -> None:
    """Tools, Ctrl-C, line editing, history, and the end that says how to continue."""
    (tmp_path / "orders.py").write_text(TOOL)
    runs_server.call_tool("look_up", {"order": "1042"})
    runs_server.reply("It **left** on Monday.")

    shell.run(f"chat --tools orders:look_up --base-url {runs_server.url}")
    shell.until("Ctrl-D ends\n>")
    shell.keys("Where is orxder 1042?")
    shell.press(*["Left"] * len("der 1042?"), "BSpace", "Enter")  # takes the x out
    shell.until(r"calling look_up \d+ s")
    (tmp_path / "go").touch()
    shell.until("It left on Monday.\n>")
    runs_server.hang(text="Once upon")
    shell.keys("And then?")
    shell.press("Enter")
    shell.until("Once upon")
    shell.press("C-c")
    shell.until("stopped\n>")
    runs_server.reply("At last.")
    shell.press("Up", "Enter")
    shell.until("> And then\\?\nAt last.\n>")
    shell.press("C-d")
    shell.until(r"continue:\s+openai-runs chat --thread thread_")

    ends(shell, 0)
    bodies = [request.json for request in runs_server.seen("POST", "/threads/*/runs")]
    asked = [body["additional_messages"][0]["content"] for body in bodies]
    assert asked == ["Where is order 1042?", "And then?", "And then?"]


def test_serve_says_what_it_serves(shell: Screen) -> None:
    """The banner fits, and an echo server says that it has no model."""
    shell.run("serve --port 0")
    shell.until(r"listening on http://127.0.0.1:\d+/v1")
    lines = shell.shown().rstrip().splitlines()[1:]
    shell.press("C-c")

    ends(shell, 130)
    begins = ["openai-runs", "address", "backend", "database", "key", "listening on"]
    assert len(lines) == len(begins)
    for line, begin in zip(lines, begins, strict=True):
        assert line.startswith(begin)
    assert "echo: no model" in lines[2]


def test_serve_says_that_its_model_is_away(shell: Screen) -> None:
    """And serves all the same."""
    shell.run("serve --port 0 --model-url http://127.0.0.1:1/v1")
    shell.until("listening on")
    shell.until("not reachable")
    shell.press("C-c")

    ends(shell, 130)


def test_doctor_fits_the_screen(shell: Screen, runs_server: RunsServer) -> None:
    """Each line has its state in front, and what to do below what fails."""
    shell.run(f"doctor --base-url {runs_server.url} --model-url http://127.0.0.1:1/v1")
    shell.until(r"\[1\]")

    ends(shell, 1)
    shown = shell.shown(all_of_it=True)
    assert re.search(r"^ok    api               has assistants", shown, re.MULTILINE)
    assert re.search(r"^fail  model .*\n(?: {24}.*\n)* {24}-> is it running", shown, re.MULTILINE)


def test_command_that_is_shown_can_be_copied(shell: Screen, runs_server: RunsServer) -> None:
    """What is said is broken between words; the command stays one line, however long it is."""
    runs_server.reply("It left on Monday.")
    where = f"--base-url {runs_server.url}"
    shell.run(f"assistants create --model phi4 {where}")
    ends(shell, 0)
    lines = shell.tmux("capture-pane", "-p", "-J").splitlines()  # as a copy joins what is wrapped
    (command,) = [line.rstrip() for line in lines if line.startswith("openai-runs ask ")]
    shell.run(f"runs show thread_1 {where}")
    ends(shell, 2)
    said = shell.shown()

    shell.run(command.removeprefix("openai-runs "))

    ends(shell, 0)
    assert "It left on Monday." in shell.shown()
    assert "is the id of a thread, and that of a run is needed:\n`openai-runs threads show" in said


def test_help_is_broken_between_words(shell: Screen) -> None:
    """And only where a line is full."""
    shell.run("chat --help | head -12")

    ends(shell, 0)
    assert "the last line\nsays how to continue it." in shell.shown()


def test_lists_fit_the_screen(shell: Screen, runs_server: RunsServer) -> None:
    """A row is a line."""
    runs_server.reply("One")
    shell.run(f"ask 'How?' --base-url {runs_server.url}")
    ends(shell, 0)
    shell.run(f"runs list --base-url {runs_server.url}")

    ends(shell, 0)
    row = r"^run_\w{24}  thread_\w{24}  completed$"
    assert re.search(row, shell.shown(), re.MULTILINE)
