"""`export` and `import` as a user types them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from openai_runs import AsyncClient
from openai_runs.server import LocalServer, ScriptedBackend
from tests.archive.world import Foundry, populate, script
from tests.cli.conftest import InProcess
from tests.cli.processes import execute, files_in, run_on_terminal
from tests.samples import HERE
from tests.support import HostileServer

SINGLE = str(HERE / "archives" / "single")


@pytest.fixture
async def db(tmp_path: Path) -> str:
    """The file of a server that had ten threads."""
    path = tmp_path / "runs.db"
    server = LocalServer(path, ScriptedBackend(script))
    async with server, AsyncClient(server.url) as client:
        await populate(client, 10)
    return str(path)


async def test_archive_goes_from_file_to_file(db: str, tmp_path: Path) -> None:
    """Exported, checked, imported, and exported again as nothing new; each says what it did."""
    out = str(tmp_path / "out")

    done = await execute("export", "--out", out, "--db", db, "--as", "responses", folder=tmp_path)
    dry = await execute("import", out, "--db", db, "--dry-run", folder=tmp_path)
    new = await execute("import", out, "--db", "new.db", folder=tmp_path)
    again = await execute("export", "--out", out, "--db", "new.db", folder=tmp_path)

    assert [one.code for one in (done, dry, new, again)] == [0, 0, 0, 0]
    assert "10 threads written, 0 unchanged" in done.out
    assert "responses: 10 threads" in done.out
    assert "nothing written (--dry-run): 12 unchanged" in dry.out
    assert "12 created" in new.out
    assert "0 threads written, 10 unchanged" in again.out
    assert files_in(tmp_path / "out") == [
        "assistants.jsonl",
        "left-out.jsonl",
        "manifest.json",
        "responses",
        "threads",
    ]


async def test_foundry_is_exported_with_a_command_for_tokens(tmp_path: Path) -> None:
    """What cannot be taken out is listed; only the threads that are named are exported."""
    fake = Foundry(lifetime=10_000)
    (tmp_path / "ids").write_text("# mine\nthread_f2\n\nthread_f3\n")
    command = f"{sys.executable} -c \"print('{fake.token()}')\""
    async with HostileServer(fake) as server:
        url = server.url.removesuffix("/v1") + "/api/projects/demo"
        place = ["--base-url", url, "--api-version", "v1", "--token-command", command]
        names = ["--thread", "thread_f1", "--threads-file", "ids"]
        done = await execute("export", "--out", "out", *place, *names, folder=tmp_path)

    assert done.code == 0, done.err
    assert "3 threads written" in done.out
    assert "hosted_tool azure_ai_search" in done.err
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [one["id"] for one in manifest["threads"]] == ["thread_f1", "thread_f2", "thread_f3"]


async def test_refused_key_says_how_to_go_on(tmp_path: Path) -> None:
    """Exit code 1, and the number of threads that are whole."""
    fake = Foundry(lifetime=20)
    token = fake.token()
    async with HostileServer(fake) as server:
        url = server.url.removesuffix("/v1") + "/api/projects/demo"
        command = f"{sys.executable} -c \"print('{token}')\""
        place = ["--base-url", url, "--api-version", "v1", "--token-command", command]
        done = await execute("export", "--out", "out", *place, folder=tmp_path)

    assert done.code == 1
    assert "refused the key" in done.err
    whole = len(list((tmp_path / "out" / "threads").glob("*.jsonl")))
    assert whole > 0
    assert f"; {whole} threads are whole" in done.err


def test_bar_is_shown_on_a_terminal(tmp_path: Path) -> None:
    """Progress for who watches; the outcome is there in the end."""
    shown, code = run_on_terminal("import", SINGLE, "--db", "new.db", folder=tmp_path)

    assert code == 0
    assert "1 created" in shown


def test_line_is_said_from_time_to_time_in_a_log(
    in_process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody watches a terminal, but a log is read; here the time between two lines is none."""
    monkeypatch.setattr("openai_runs._cli.commands.archive._INTERVAL", 0.0)

    done = in_process("import", SINGLE, "--db", "new.db")

    assert done.code == 0
    assert "importing: 1 of 1" in done.err


def test_conflict_and_active_runs_are_listed(in_process: InProcess, tmp_path: Path) -> None:
    """Exit code 1 where something was left out; the list says what, and why."""
    text = (Path(SINGLE) / "thread_1.json").read_text()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.json").write_text(text.replace("Rain.", "Sun."))
    active = text.replace("_1", "_9").replace("_2", "_8")
    end = ',\n   "required_action"'
    active = active.replace(f'"status": "completed"{end}', f'"status": "queued"{end}')
    (tmp_path / "other" / "b.json").write_text(active.replace('"model"', '"level": 3, "model"'))

    first = in_process("import", SINGLE, "--db", "new.db")
    second = in_process("import", "other", "--db", "new.db")

    assert (first.code, second.code) == (0, 1)
    assert "thread thread_1: conflict: message msg_2 has other content here" in second.err
    assert "run run_9" in second.err
    assert "run.level" in second.err


MISTAKES = {
    "no-server": (["export", "--out", "x"], 2, "--base-url"),
    "no-server-to-import": (["import", "x"], 2, "--base-url"),
    "bad-id": (["export", "--out", "x", "--db", "y", "--thread", "../a"], 2, "thread"),
    "no-file-of-ids": (["export", "--out", "x", "--db", "y", "--threads-file", "z"], 2, "z"),
    "no-database": (["export", "--out", "x", "--db", "y"], 1, "no database 'y'"),
    "no-archive": (["import", "x", "--db", "new.db"], 1, "no folder 'x'"),
    "two-keys": (
        ["export", "--out", "x", "--base-url", "http://127.0.0.1:9/v1", "--api-key-env", "KEY"]
        + ["--token-command", "true"],
        2,
        "use one",
    ),
    "no-command": (
        ["export", "--out", "x", "--base-url", "http://127.0.0.1:9/v1", "--token-command", " "],
        2,
        "--token-command",
    ),
    "bad-command": (
        ["export", "--out", "x", "--base-url", "http://127.0.0.1:9/v1", "--token-command", "false"],
        1,
        "gave no token",
    ),
    "missing-command": (
        ["export", "--out", "x", "--base-url", "http://127.0.0.1:9/v1", "--token-command", "nope"],
        1,
        "cannot be started",
    ),
    "no-token": (
        ["export", "--out", "x", "--base-url", "http://127.0.0.1:9/v1", "--api-version", "v1"],
        2,
        "--token-command",
    ),
    "nobody-there": (
        ["export", "--out", "x", "--base-url", "http://127.0.0.1:9/v1"],
        1,
        "is it running? `openai-runs serve --port 9` starts one",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_said_in_a_sentence(in_process: InProcess, name: str) -> None:
    """What is wrong, and what to write instead; no traceback."""
    arguments, code, words = MISTAKES[name]

    done = in_process(*arguments, KEY="sk-another-key-1234")

    assert done.code == code
    assert words in done.err
    assert "Traceback" not in done.err
