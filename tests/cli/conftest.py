"""Commands that need no process of their own: they start nothing and hear no signal."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from openai_runs._cli import main
from openai_runs._cli.app import _app as app
from tests.cli.processes import Finished

InProcess = Callable[..., Finished]


@pytest.fixture
def in_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> InProcess:
    """Return a function that calls `main` here, in the test's folder, as `execute` does outside."""

    def call(*arguments: str, **env: str) -> Finished:
        monkeypatch.chdir(tmp_path)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(app, "console", Console())  # one keeps the width that it began with
        monkeypatch.setattr(sys, "argv", ["openai-runs", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))  # nothing to read
        with pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        return Finished(ended.value.code, *capsys.readouterr())

    return call
