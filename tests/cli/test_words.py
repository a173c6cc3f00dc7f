"""Runs in words: what other servers send is told too, and nothing in it steers the terminal."""

import doctest
import importlib
import os
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from openai_runs import Message, Run, RunResult, RunStep
from openai_runs._cli.describing import describe
from openai_runs.types.base import UnknownItem
from tests.cli.processes import COMMAND, clean_env, finish, start
from tests.support import run_json


def result_of(run: dict[str, Any], *steps: dict[str, Any] | RunStep, text: str = "") -> RunResult:
    """Return a run with these steps, and one message if it has text."""
    content = [{"type": "text", "text": {"value": text, "annotations": []}}]
    message = {"id": "msg_1", "role": "assistant", "content": content if text else []}
    return RunResult(
        run=msgspec.convert(run, Run),
        steps=[msgspec.convert(step, RunStep) for step in steps],
        messages=[msgspec.convert(message, Message)],
    )


def step_of(*calls: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return a step that called these tools."""
    details = {"type": "tool_calls", "tool_calls": list(calls)}
    return {
        "id": "step_1",
        "type": "tool_calls",
        "status": "completed",
        "step_details": details,
    } | (changes)


def on_the_wall(seconds: int) -> str:
    """Return the time as a person here would write it."""
    return datetime.fromtimestamp(seconds).isoformat(" ")


@pytest.mark.parametrize(
    "name",
    ["describing", "ending", "outputs", "usage.ids", "terminal.wrapping", "commands.batch_table"],
)
def test_examples_in_docstrings_hold(name: str) -> None:
    """What a docstring shows is what happens."""
    module = importlib.import_module(f"openai_runs._cli.{name}")

    found = doctest.testmod(module)

    assert (found.attempted > 0, found.failed) == (True, 0)


def test_calls_of_hosted_tools_are_told() -> None:
    """Code is shown; a call of another kind by its name."""
    code = {"id": "call_1", "type": "code_interpreter", "code_interpreter": {"input": "1 + 1"}}
    search = {"id": "call_2", "type": "file_search", "file_search": {}}

    told = list(describe(result_of(run_json("completed"), step_of(code, search))))

    assert [words for name, words in told if name == ""] == ["1 + 1", "file_search", "(no text)"]


def test_step_that_failed_says_why() -> None:
    """The step's own error stands beside its status."""
    error = {"code": "server_error", "message": "No luck."}

    told = dict(describe(result_of(run_json("failed"), step_of(status="failed", last_error=error))))

    assert told["step"] == "step_1, tool_calls, failed, server_error: No luck."


@pytest.mark.parametrize(
    ("changes", "ending"),
    [
        ({}, ""),
        ({"completed_at": 1_700_000_007}, ", over after 7 s"),
        ({"expires_at": 1_700_000_600}, f", expires {on_the_wall(1_700_000_600)}"),
    ],
    ids=["created", "over", "expires"],
)
def test_times_are_those_of_the_clock_on_the_wall(changes: dict[str, Any], ending: str) -> None:
    """When it began, and when it was over or will be."""
    told = dict(describe(result_of(run_json("in_progress", **changes))))

    assert told["time"] == f"created {on_the_wall(1_700_000_000)}{ending}"


def test_items_that_cannot_be_read_are_told() -> None:
    """A step and a message of a later version cost nobody the rest."""
    result = result_of(run_json("completed"), text="Hello!")
    odd_step = UnknownItem(id="step_2", type="thinking", status="completed")
    odd: Any = msgspec.structs.replace(
        result, steps=[odd_step], messages=[UnknownItem(id="msg_2"), *result.messages]
    )

    told = list(describe(odd))

    assert ("step", "step_2, thinking, completed") in told
    assert told[-3][0] == "message"
    assert "--json" in told[-3][1]
    assert told[-1] == ("", "Hello!")


@pytest.mark.parametrize("option", [[], ["--json"]], ids=["words", "--json"])
async def test_full_disk_is_one_sentence(option: list[str], tmp_path: Path) -> None:
    """An answer that cannot be written is no success."""
    full = os.open("/dev/full", os.O_WRONLY)
    process = await start(["ask", "x", *option], tmp_path, {}, stdout=full)
    os.close(full)
    left = await finish(process)

    assert left.code == 1
    assert "No space left on device" in left.err.splitlines()[-1]
    assert "Traceback" not in left.err


@pytest.mark.parametrize(
    ("closed", "code"), [(">&-", 1), ("2>&-", 0), ("<&-", 0)], ids=["out", "err", "in"]
)
def test_closed_streams_are_borne(closed: str, code: int, tmp_path: Path) -> None:
    """Without a standard output nothing is asked; without the others all goes well."""
    done = subprocess.run(
        ["sh", "-c", f'"$@" {closed}', "sh", *COMMAND, "ask", "Hello!"],
        cwd=tmp_path,
        env=clean_env(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (code, "" if code else "Hello!\n")
    assert "Traceback" not in done.stderr
    assert ("standard output is closed" in done.stderr) is (code == 1)
