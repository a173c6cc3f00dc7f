"""A terminal of 80 by 24 in tmux: what a person sees, and nothing that scrolled by in between."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cli.processes import clean_env

__all__ = ["Screen", "screen"]

COLUMNS, ROWS = 80, 24
_PATIENCE = 30.0
"""Seconds after which what is waited for will not come."""
_PAUSE = 0.05
"""Seconds between two looks at the screen."""


class Screen:
    """A shell on a screen of its own."""

    def __init__(self, socket: str) -> None:
        """Take the name of tmux's socket."""
        self._socket = socket

    def run(self, command: str) -> None:
        """Type a command of ours, and Enter; `[code]` follows once it has ended."""
        self.clear()
        self.keys(f"openai-runs {command}; echo [$?]")
        self.press("Enter")

    def keys(self, text: str) -> None:
        """Type a text."""
        self.tmux("send-keys", "-l", text)

    def press(self, *keys: str) -> None:
        """Press keys by the names that tmux has for them."""
        self.tmux("send-keys", *keys)

    def clear(self) -> None:
        """Begin with an empty screen."""
        self.tmux("send-keys", "C-l")
        self.tmux("clear-history")

    def shown(self, *, styled: bool = False, all_of_it: bool = False) -> str:
        """Return the screen; `styled` with escape codes, `all_of_it` with what scrolled out."""
        options = [*(["-e"] if styled else []), *(["-S", "-"] if all_of_it else [])]
        return self.tmux("capture-pane", "-p", *options)

    def until(self, pattern: str) -> re.Match[str]:
        """Return what fits, once it is on the screen."""
        deadline = time.monotonic() + _PATIENCE
        while (found := re.search(pattern, self.shown())) is None:
            assert time.monotonic() < deadline, f"no {pattern!r} on the screen:\n{self.shown()}"
            time.sleep(_PAUSE)
        return found

    @property
    def has_cursor(self) -> bool:
        """Return whether the cursor is seen."""
        return self.tmux("display-message", "-p", "#{cursor_flag}").strip() == "1"

    def tmux(self, *arguments: str) -> str:
        """Return what a command of tmux's prints."""
        command = ["tmux", "-L", self._socket, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout


@contextmanager
def screen(folder: Path) -> Iterator[Screen]:
    """Open a shell in `folder`, in which `openai-runs` is this one."""
    script = folder / "openai-runs"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m openai_runs "$@"\n')
    script.chmod(0o755)
    socket = f"openai-runs-{uuid.uuid4().hex[:8]}"
    found = Screen(socket)
    size = ["-x", str(COLUMNS), "-y", str(ROWS)]
    shell = ["bash", "--norc", "--noprofile"]
    subprocess.run(
        ["tmux", "-L", socket, "-f", "/dev/null", "new-session", "-d", *size, *shell],
        cwd=folder,
        env=clean_env(PS1="$ ", LANG="C.UTF-8"),
        check=True,
    )
    try:
        found.keys(f"PATH={shlex.quote(str(folder))}:$PATH PS1='$ '; clear")
        found.press("Enter")
        yield found
    finally:
        found.tmux("kill-server")
