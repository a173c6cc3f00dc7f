"""How the help of each command looks in a terminal of 80 columns."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from tests.cli.conftest import InProcess

COMMANDS = [
    *("ask", "assistants", "assistants create", "assistants delete", "assistants list"),
    *("assistants show", "assistants update"),
    *("batch", "batch run", "batch status", "batch table", "chat", "completion", "demo", "doctor"),
    *("export", "import", "runs", "runs cancel", "runs list", "runs show", "runs wait", "serve"),
    *("threads", "threads list", "threads show", "worker"),
]


def commands_in(page: str) -> list[str]:
    """Return the commands that a page of help lists."""
    _, _, panel = page.partition("─ Commands ")
    return re.findall(r"^│ (\w+) ", panel.partition("╯")[0], re.MULTILINE)


def goes_on(lines: list[str], begin: int) -> list[tuple[str, str]]:
    """Return each line with the next, where that one goes on in the column from `begin`."""
    pairs = [(line[begin:].rstrip(), after) for line, after in pairwise(lines) if after.strip()]
    return [
        (text, after[begin:].split()[0])
        for text, after in pairs
        if text and not text.startswith(" ") and re.match(rf" {{{begin}}}\S", after)
    ]


def test_all_commands_are_here(in_process: InProcess) -> None:
    """The list above is that of the help."""
    found = []
    for name in commands_in(in_process("--help", COLUMNS="80").out):
        below = commands_in(in_process(name, "--help", COLUMNS="80").out)
        found += [name, *(f"{name} {one}" for one in below)]

    assert found == COMMANDS


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_line_of_help_ends_where_it_is_full(command: str, in_process: InProcess) -> None:
    """And not where it does in the source: the next word would not have fitted."""
    done = in_process(*command.split(), "--help", COLUMNS="80")

    text, _, panels = done.out.partition("╭")
    rows = [line[1:-1] for line in panels.splitlines() if line.startswith("│")]
    indents = [len(row) - len(row.lstrip()) for row in rows]
    begin = max((indent for indent in indents if indent > 3), default=78)  # of what is said of one
    early = [
        pair
        for room, pairs in ((80, goes_on(text.splitlines(), 0)), (77 - begin, goes_on(rows, begin)))
        for pair in pairs
        if len(" ".join(pair)) <= room
    ]
    assert (done.code, early) == (0, [])


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_example_in_help_is_one_line(command: str, in_process: InProcess) -> None:
    """Wherever it can be copied from: at 80 columns, and on a wider screen."""
    pages = [in_process(*command.split(), "--help", COLUMNS=wide).out for wide in ("80", "200")]

    narrow, wide = (re.findall(r"^ {4}.*openai-runs .*$", page, re.MULTILINE) for page in pages)
    assert narrow == wide


def test_paragraph_of_help_is_as_wide_as_the_screen(in_process: InProcess) -> None:
    """A wide one shows it on one line."""
    done = in_process("chat", "--help", COLUMNS="200")

    assert re.search(r"^Ctrl-C stops the answer .* a failure ends the chat\.$", done.out, re.M)
    assert re.search(r"│ --tools STR\.\.\. .* repeatable\. +│", done.out)
