"""What is said on a terminal is broken between words, and what is copied stays whole."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import sys
import termios

import pytest

from openai_runs._cli.outputs import say
from openai_runs._cli.terminal.wrapping import wrapped

ID = "thread_2wBcXtQ0vYkRz7LmNpGhJdSa"
URL = "http://127.0.0.1:11434/v1/threads/" + ID
STEP = f"openai-runs ask TEXT --thread {ID} --db chat.db --model-url {URL}"
SENTENCES = {
    "an id": f"the run of the thread that is named here is still at work: {ID} goes on",
    "a URL": f"no connection to 127.0.0.1:11434 (POST {URL}); is it running there?",
    "hyphens": "the chat-completions endpoint has a time-out of its own, and a well-known one",
    "a path": "what is left is in /var/lib/openai-runs/archive-of-2026/threads.jsonl, all of it",
    "two lines": f"first {URL} and more words after it\nTry: openai-runs ask --help",
    "Chinese": "模型 qwen3 不存在 请先 下载 模型 然后 再 试 一次 谢谢 模型 不存在 请先 下载 模型",
}
COMMANDS = {
    "at the end": f"continue: {STEP}",
    "behind a sentence": f"no run 'run_1' is there; list those that are: {STEP}",
    "between words": f"no server works on the runs there: start one with `{STEP}`, or wait",
    "in brackets": f"it is not served yet (try `{STEP}`) by anybody who could answer",
    "of pip": "this command needs the package rich: pip install 'rich>=13,<16' 'cyclopts>=5,<6'",
}


def cells(line: str) -> int:
    """Return the columns that a line takes."""
    return sum(2 if "\u2e80" <= one <= "\uffef" else 1 for one in line)


@pytest.mark.parametrize("columns", [24, 40, 80])
@pytest.mark.parametrize("sentence", SENTENCES.values(), ids=SENTENCES)
def test_no_word_is_broken(sentence: str, columns: int) -> None:
    """The words are the same; only a word that is longer than the screen is on a longer line."""
    shown = wrapped(sentence, columns)

    assert shown.split() == sentence.split()
    assert all(cells(line) <= columns or " " not in line for line in shown.split("\n")[:-1])
    assert not any(line != line.strip() for line in shown.split("\n"))


@pytest.mark.parametrize("columns", [24, 80])
@pytest.mark.parametrize("sentence", COMMANDS.values(), ids=COMMANDS)
def test_command_stays_on_one_line(sentence: str, columns: int) -> None:
    """It can be copied as it is, whatever the width; the terminal itself breaks what is longer."""
    command = STEP if STEP in sentence else sentence.partition(": ")[2]

    assert [line for line in wrapped(sentence, columns).split("\n") if command in line]


def test_lines_are_full() -> None:
    """The next word would not have fitted on the line before."""
    lines = wrapped("word " * 60, 40).split("\n")

    assert all(len(line) + len(" word") > 40 for line in lines[:-1])


COLUMNS = {
    "key       no, and only requests to an address of this machine": 10,
    "/thread  show the thread's id; /thread ID goes on with that one": 9,
    "  one item of a list that is longer than a line may be here": 2,
}


@pytest.mark.parametrize(("line", "margin"), COLUMNS.items(), ids=[text[:7] for text in COLUMNS])
def test_second_column_stays_a_column(line: str, margin: int) -> None:
    """A line that begins with a name, or with blanks, goes on below its text."""
    first, *others = wrapped(line, 40).split("\n")

    assert line.startswith(first)
    assert others
    assert all(len(one) - len(one.lstrip()) == margin for one in others)


def test_text_that_fits_is_left_alone() -> None:
    """Blanks in a row, at the end, and empty lines too."""
    text = "a  b   c \n\n{'x':  1}"

    assert wrapped(text, 20) == text


def said_on_terminal(text: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what a terminal of that width gets to show."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with os.fdopen(theirs, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        say(text)
        shown = ""
        while not shown.endswith("\n"):  # a terminal may pass on a part first
            shown += os.read(ours, 65536).decode()
    os.close(ours)
    return shown


@pytest.mark.parametrize(("set_to", "width"), [("", 60), ("30", 30), ("0", 60)])
def test_terminal_gets_lines_of_its_width(
    set_to: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As wide as standard error is, or as COLUMNS says; dimmed from the first line to the last."""
    monkeypatch.setenv("COLUMNS", set_to)
    monkeypatch.delenv("NO_COLOR", raising=False)
    sentence = SENTENCES["hyphens"]

    shown = said_on_terminal(sentence, 60, monkeypatch)

    assert shown == "\x1b[2m" + wrapped(sentence, width).replace("\n", "\r\n") + "\x1b[0m\r\n"


def test_terminal_without_a_width_has_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """As some that are made by programs."""
    monkeypatch.delenv("COLUMNS", raising=False)

    shown = said_on_terminal(SENTENCES["a URL"], 0, monkeypatch)

    assert wrapped(SENTENCES["a URL"], 80).replace("\n", "\r\n") in shown


def test_piped_sentence_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever searches a log finds it whole."""
    say(COMMANDS["behind a sentence"])

    assert capsys.readouterr().err == COMMANDS["behind a sentence"] + "\n"
