"""`openai-runs completion`: the script that a shell evaluates really completes."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import InProcess
from tests.cli.processes import clean_env
from tests.cli.terminals import at_terminal

LINES = {
    "a command": (["ru"], {"runs"}),
    "its commands": (["runs", ""], {"cancel", "list", "show", "wait"}),
    "an option": (["runs", "wait", "--thr"], {"--thread"}),
    "a choice": (["serve", "--backend", ""], {"echo", "chat"}),
    "behind a value": (["ask", "--model", "phi4", "--instr"], {"--instructions"}),
    "no command": (["frob"], set()),
}


@pytest.mark.parametrize(("words", "offered"), LINES.values(), ids=LINES)
def test_bash_offers_what_fits(words: list[str], offered: set[str], in_process: InProcess) -> None:
    """Commands, options and choices, by the function that bash calls."""
    script = in_process("completion", "bash").out
    typed = shlex.join(["openai-runs", *words])
    asked = (
        f"COMP_WORDS=({typed}); COMP_CWORD={len(words)}; "
        '$(complete -p openai-runs | sed "s/.*-F \\([^ ]*\\).*/\\1/"); '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", f"{script}\n{asked}"],
        env=clean_env(),
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stderr == ""
    assert set(done.stdout.split()) == offered


@pytest.mark.parametrize("shell", ["bash", "zsh"])
async def test_line_is_completed_where_it_is_typed(shell: str, tmp_path: Path) -> None:
    """As the help says: one line in the start file, then Tab."""
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    script = tmp_path / "openai-runs"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m openai_runs "$@"\n')
    script.chmod(0o755)
    command = {"bash": ["bash", "--norc", "-i"], "zsh": ["zsh", "-f", "-i"]}[shell]
    begin = "autoload -Uz compinit; compinit -u; " if shell == "zsh" else ""
    path = f"{tmp_path}:{os.environ['PATH']}"
    async with at_terminal(folder=tmp_path, command=command, PATH=path, PS1="$ ") as terminal:
        await terminal.type(f'{begin}eval "$(openai-runs completion {shell})"; echo re""ady\r')
        await terminal.until("ready")
        await terminal.type("openai-runs thre\t")
        await terminal.until("threads")
        await terminal.type("sh\t")
        await terminal.until("show")


def test_other_shells_are_wrong_usage(in_process: InProcess) -> None:
    """The choices are named."""
    done = in_process("completion", "csh")

    assert (done.code, done.out) == (2, "")
    assert "bash" in done.err
    assert "openai-runs completion --help" in done.err


def test_fish_has_a_script(in_process: InProcess) -> None:
    """Printed whole, and nothing else."""
    done = in_process("completion", "fish")

    assert (done.code, done.err) == (0, "")
    assert "complete -c openai-runs" in done.out
