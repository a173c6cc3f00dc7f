"""The examples of the guide to the command line do what the page shows."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.cli.processes import clean_env

PAGE = Path(__file__).resolve().parents[2] / "docs" / "pages" / "guides" / "command-line.md"
_BLOCK = re.compile(r"^```console\n(?P<lines>.*?)^```$", re.MULTILINE | re.DOTALL)


class Example(NamedTuple):
    """A command as it is typed, and the lines that it shows."""

    command: str
    shown: list[str]


def examples() -> Iterator[Example]:
    """Yield the commands of the page's console blocks; `...` stands for anything."""
    for block in _BLOCK.finditer(PAGE.read_text()):
        for text in block["lines"].split("$ ")[1:]:
            command, *shown = text.splitlines()
            yield Example(command, shown)


def test_commands_show_what_the_page_says(tmp_path: Path) -> None:
    """A reader can type them, one after the other; the answer is shown before what is beside it."""
    found = list(examples())
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "openai-runs"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m openai_runs "$@"\n')
    script.chmod(0o755)
    path = f"{script.parent}:{os.environ['PATH']}"

    assert found
    for example in found:
        done = subprocess.run(
            ["bash", "-c", example.command],
            cwd=tmp_path,
            env=clean_env(PATH=path),
            capture_output=True,
            text=True,
            check=False,
        )
        wanted = "\n".join(example.shown)
        pattern = ".*".join(map(re.escape, wanted.split("...")))
        assert re.fullmatch(pattern, (done.stdout + done.stderr).rstrip("\n"), re.DOTALL), (
            example.command,
            done.stdout + done.stderr,
        )
