"""Recordings of the docs: the last screen of real programs, run in a terminal of 80 columns.

Ids and ports are replaced by ones that stay. Two recordings are the same if their texts are, but
for digits, since times differ from run to run.
"""

import asyncio
import json
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable, Sequence
from fcntl import ioctl
from html import unescape
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

from openai_runs import AsyncClient

__all__ = ["RECORDINGS", "is_same"]

_COLUMNS, _ROWS = 80, 60
_IDS = re.compile(r"(thread|run|asst|msg|step|call)_([A-Za-z0-9]{24})")
_COLORS = {"brown": "yellow"}
"""pyte's name of a colour -> rich's."""


class Recording(NamedTuple):
    """A program that is shown."""

    title: str
    arguments: Sequence[str]
    """Of `openai-runs`."""
    prepare: Callable[[Path], None] = lambda _: None
    """What makes the files that it needs, in its folder."""
    typed: Sequence[str] = ()
    """What is typed, each at the next prompt."""

    def draw(self) -> str:
        """Run it, and return its last screen as SVG."""
        with tempfile.TemporaryDirectory() as folder:
            self.prepare(Path(folder))
            screen = _last_screen(self, folder)
        lines = [_line(screen.buffer[row]) for row in range(screen.cursor.y + 1)]
        while lines and not lines[-1].plain.strip():
            lines.pop()
        console = Console(
            record=True, width=_COLUMNS, file=StringIO(), force_terminal=True, legacy_windows=False
        )
        prompt = Text(f"$ openai-runs {' '.join(map(_quoted, self.arguments))}", style="bold")
        for line in [prompt, *lines]:
            console.print(line, no_wrap=True, overflow="ignore", crop=True, highlight=False)
        return console.export_svg(title=self.title)


def _quoted(word: str) -> str:
    return f'"{word}"' if " " in word else word


class _Terminal(pyte.Screen):
    """A screen that answers when it is asked where its cursor is, as line editors do."""

    def __init__(self, fd: int) -> None:
        super().__init__(_COLUMNS, _ROWS)
        self._fd = fd
        self._prompted = -1

    def write_process_input(self, data: str) -> None:
        """Send what the terminal itself says."""
        os.write(self._fd, data.encode())

    def is_at_new_prompt(self) -> bool:
        """Tell whether the cursor is behind a prompt at which nothing was typed yet."""
        row = self.cursor.y
        is_new = self.display[row].rstrip() == ">" and row > self._prompted
        if is_new:
            self._prompted = row
        return is_new


def _last_screen(recording: Recording, folder: str) -> pyte.Screen:
    """Run `openai-runs` in a terminal, and return what it shows at its end."""
    ours, theirs = pty.openpty()
    screen = _Terminal(ours)
    stream = pyte.ByteStream(screen)
    typed = list(recording.typed)
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
    unset = {"NO_COLOR", "COLUMNS", "LINES"}
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**kept, "TERM": "xterm-256color", "PATH": path}
    with subprocess.Popen(
        ["openai-runs", *recording.arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=folder,
        env=environment,
    ) as process:
        os.close(theirs)
        try:
            while piece := _read(ours):
                stream.feed(piece)
                if typed and screen.is_at_new_prompt():
                    os.write(ours, typed.pop(0).encode())
        finally:
            os.close(ours)
    assert process.returncode == 0, "\n".join(screen.display)
    return screen


def _read(terminal: int) -> bytes:
    """Return the next bytes; none once the program has closed its side, which Linux calls EIO."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def _line(cells: dict[int, pyte.screens.Char]) -> Text:
    """Return a line of the screen with its styles."""
    line = Text()
    for column in range(_COLUMNS):
        cell = cells[column]
        style = Style(
            color=_color(cell.fg), bgcolor=_color(cell.bg), bold=cell.bold, italic=cell.italics,
            underline=cell.underscore, reverse=cell.reverse,
        )  # fmt: skip
        line.append(cell.data, style)
    line.rstrip()
    fixed = _fixed(line.plain)
    if fixed == line.plain:
        return line
    same_spans = Text(fixed, spans=line.spans)
    same_spans.truncate(_COLUMNS)
    return same_spans


def _color(name: str) -> str | None:
    if name == "default":
        return None
    if re.fullmatch("[0-9a-f]{6}", name):
        return f"#{name}"
    name = _COLORS.get(name, name)
    return re.sub(r"^bright(\w+)$", r"bright_\1", name)


def _fixed(text: str) -> str:
    """Return a line with ids and ports that stay, of the same length."""
    text = _IDS.sub(lambda found: f"{found[1]}_{'abc123' * 4}", text)
    return re.sub(r"127\.0\.0\.1:(?!11434)\d{4,5}", "127.0.0.1:8080", text)


def is_same(one: str, other: str) -> bool:
    """Tell whether two recordings show the same, but for digits."""
    return _masked(one) == _masked(other)


def _masked(drawing: str) -> str:
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", drawing)
    return re.sub(r"\d+", "0", unescape("".join(texts)))


def _questions(folder: Path) -> None:
    """Write a batch of forty lines for an assistant of `r.db`."""

    async def assistant() -> str:
        async with AsyncClient.local(folder / "r.db") as client:
            return (await client.assistants.create(model="echo")).id

    made = asyncio.run(assistant())
    lines = []
    for number in range(40):
        message = {"role": "user", "content": f"Question {number}"}
        body = {"assistant_id": made, "thread": {"messages": [message]}}
        line = {"custom_id": f"q-{number}", "method": "POST", "url": "/v1/threads/runs"}
        lines.append(json.dumps({**line, "body": body}) + "\n")
    (folder / "in.jsonl").write_text("".join(lines))


_BATCH = "batch run in.jsonl --out out.jsonl --checkpoint done.db --db r.db"

RECORDINGS: dict[str, Recording] = {
    "guides/ask.svg": Recording("openai-runs ask", ["ask", "What is a run?"]),
    "guides/batch.svg": Recording("openai-runs batch run", _BATCH.split(), _questions),
    "guides/chat.svg": Recording(
        "openai-runs chat",
        ["chat", "--db", "runs.db"],
        typed=["Say it in **bold**.\r", "And what is a run?\r", "\x04"],
    ),
    "guides/demo.svg": Recording("openai-runs demo", ["demo"]),
}
"""Name of a file -> what it shows."""
