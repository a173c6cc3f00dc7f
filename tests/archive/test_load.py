"""`load`: an archive goes into our server with its ids, order and times, any number of times."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from openai_runs import AsyncClient, RetryPolicy
from openai_runs.archive import LoadProgress, export, load
from openai_runs.errors import ConfigError, NotFoundError
from openai_runs.server import LocalServer, ScriptedBackend
from tests.archive.world import Foundry, files_in, populate, project, script, unlisted
from tests.samples import HERE
from tests.samples import load as sample
from tests.support import HostileServer

SINGLE = HERE / "archives" / "single"
DATABASES = sorted(folder.name for folder in (HERE / "databases").iterdir() if folder.is_dir())
ONCE = RetryPolicy(max_retries=0)


@pytest.fixture
async def target() -> AsyncIterator[AsyncClient]:
    """A client of an empty server, which executes nothing."""
    async with LocalServer(max_concurrent_runs=0) as server, AsyncClient(server.url) as client:
        yield client


@pytest.fixture
async def origin() -> AsyncIterator[AsyncClient]:
    """A client of a server with threads of every kind."""
    server = LocalServer(backend=ScriptedBackend(script))
    async with server, AsyncClient(server.url) as client:
        await populate(client, 10)
        yield client


async def test_archive_of_the_copy_is_the_same_bytes(
    origin: AsyncClient, target: AsyncClient, tmp_path: Path
) -> None:
    """Tool calls, failures, pages of messages, shared instructions: nothing differs."""
    await export(origin, tmp_path / "a")
    dry = await load(target, tmp_path / "a", dry_run=True)
    first = await load(target, tmp_path / "a")
    second = await load(target, tmp_path / "a")
    back = await load(origin, tmp_path / "a")
    await export(target, tmp_path / "b")

    assert files_in(tmp_path / "a") == files_in(tmp_path / "b")
    assert dry.outcomes == first.outcomes == {"created": 12}
    assert second.outcomes == back.outcomes == {"unchanged": 12}
    assert (first.is_complete, first.left_out, first.ended) == (True, {}, [])


@pytest.mark.parametrize("name", DATABASES)
async def test_runs_of_every_status_are_taken_from_older_servers(
    name: str, target: AsyncClient, tmp_path: Path
) -> None:
    """Those that were active are kept as expired; of all others nothing changes."""
    db = shutil.copy(HERE / "databases" / name / "runs.sqlite3", tmp_path / "runs.db")
    server = LocalServer(db, ScriptedBackend(), max_concurrent_runs=0)
    async with server, AsyncClient(server.url) as client:
        await export(client, tmp_path / "a")
    report = await load(target, tmp_path / "a")
    again = await load(target, tmp_path / "a")
    await export(target, tmp_path / "b")

    assert report.rejected == again.rejected == []
    assert set(again.outcomes) == {"unchanged"}
    before, after = (runs_in(tmp_path / folder) for folder in "ab")
    assert [run["id"] for run in before] == [run["id"] for run in after]
    expired = {run["id"] for run in after if run["status"] == "expired"}
    assert set(report.ended) <= expired
    for old, new in zip(before, after, strict=True):
        if old["id"] not in report.ended:
            assert old == new


def runs_in(folder: Path) -> list[Any]:
    """Return the runs of an archive, in order."""
    manifest = json.loads((folder / "manifest.json").read_text())
    lines = [
        json.loads(line)
        for entry in manifest["threads"]
        for line in (folder / entry["file"]).read_bytes().splitlines()
    ]
    return [line["run"] for line in lines if "run" in line]


async def test_foundry_moves_in(target: AsyncClient, tmp_path: Path) -> None:
    """Foreign tools and steps are answered as they came; what is not kept is counted by field."""
    fake = Foundry()
    fake.objects["threads"][0]["owner"] = "me"
    async with project(fake, fake.token) as client:
        await export(client, tmp_path)

    report = await load(target, tmp_path)

    assert report.outcomes == {"created": 8}
    assert report.left_out == {
        "thread.owner": 1,
        "thread.tool_resources.azure_ai_search": 7,
        "run.tool_resources.azure_ai_search": 7,
    }
    for place in ("threads/thread_f1/messages", "threads/thread_f1/runs/run_f1/steps"):
        page = await target.request("GET", f"/{place}", query={"order": "asc"})
        for theirs, ours in zip(fake.objects[place], page["data"], strict=True):
            assert {**theirs, **ours} == {**ours, **theirs}


async def test_single_files_are_read_in(target: AsyncClient, tmp_path: Path) -> None:
    """A folder of them or one alone; a list that was saved newest first is turned round."""
    body = sample("archives/single/thread_1.json")
    body["messages"][1]["created_at"] += 5
    body["messages"].reverse()
    text = json.dumps(body, indent=2).replace("_1", "_x1").replace("_2", "_x2")
    (tmp_path / "saved.json").write_text(text)
    shutil.copy(SINGLE / "thread_1.json", tmp_path)
    (tmp_path / "notes.txt").write_text("mine")

    both = await load(target, tmp_path)
    one = await load(target, SINGLE / "thread_1.json")

    assert both.outcomes == {"created": 2}
    assert one.outcomes == {"unchanged": 1}
    assert [m.id async for m in target.messages.list("thread_x1", order="asc")] == [
        "msg_x1",
        "msg_x2",
    ]
    steps = [step.id async for step in target.runs.steps.list("run_x1", thread_id="thread_x1")]
    assert steps == ["step_x1"]


DAMAGES = {
    "changed": lambda text: text.replace("thread_f3", "thread_f4", 1),
    "cut": lambda text: text[:-20],
    "gone": None,
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_damaged_thread_is_rejected_alone(
    target: AsyncClient, tmp_path: Path, damage: str
) -> None:
    """The hash of the manifest says so; the others come in."""
    fake = Foundry(lifetime=1000)
    async with project(fake, fake.token) as client:
        await export(client, tmp_path)
    path = tmp_path / "threads" / "thread_f3.jsonl"
    change = DAMAGES[damage]
    if change is None:
        path.unlink()
    else:
        path.write_text(change(path.read_text()))

    report = await load(target, tmp_path)

    assert report.outcomes == {"created": 7, "invalid": 1}
    (rejected,) = report.rejected
    assert rejected.id == "thread_f3"
    assert "threads/thread_f3.jsonl" in (rejected.reason or "")
    assert not report.is_complete


async def test_conflict_is_reported_and_changes_nothing(
    target: AsyncClient, tmp_path: Path
) -> None:
    """What is there under the same id stays."""
    await load(target, SINGLE)
    body = sample("archives/single/thread_1.json")
    body["messages"][0]["metadata"] = {"a": "b"}
    (tmp_path / "other.json").write_text(json.dumps(body))

    report = await load(target, tmp_path)

    assert [one.outcome for one in report.rejected] == ["conflict"]
    message = await target.messages.retrieve("msg_1", thread_id="thread_1")
    assert message.metadata == {}


async def test_halves_of_characters_become_the_replacement(
    target: AsyncClient, tmp_path: Path
) -> None:
    """Such text cannot be sent; a pair that was written as two escapes is one character."""
    text = (SINGLE / "thread_1.json").read_text()
    text = text.replace("Hm?", "\\ud83c\\udf27 \\ud83c!")
    (tmp_path / "halves.json").write_text(text)

    report = await load(target, tmp_path)

    assert report.outcomes == {"created": 1}
    assert (await target.messages.retrieve("msg_1", thread_id="thread_1")).text == "🌧 \ufffd!"


@pytest.mark.parametrize(
    "text",
    [
        "[1]",
        "{",
        "",
        '{"messages": []}',
        '{"thread": {"id": "thread_1"}, "messages": [7]}',
        '{"thread": {"id": "thread_1"}, "runs": {"a": 1}}',
        '{"thread": {"id": "thread_1"}, "runs": [{"steps": 7}]}',
        '{"thread": {"id": "thread_1", "created_at": 1000000000000000000000000000000}}',
        '{"thread": {"id": "thread_1", "x": ' + "[" * 3000 + "]" * 3000 + "}}",
    ],
    ids=["list", "cut", "empty", "none", "items", "runs", "steps", "number", "deep"],
)
async def test_file_that_holds_no_thread_is_rejected(
    target: AsyncClient, tmp_path: Path, text: str
) -> None:
    """By its name, with the reason."""
    (tmp_path / "other.json").write_text(text)

    report = await load(target, tmp_path)

    assert [(one.outcome, bool(one.reason)) for one in report.rejected] == [("invalid", True)]


async def test_unfinished_export_is_refused(target: AsyncClient, tmp_path: Path) -> None:
    """It has no manifest: the error says to go on with the export."""
    (tmp_path / "threads").mkdir()

    with pytest.raises(ConfigError, match=r"manifest\.json"):
        await load(target, tmp_path)


@pytest.mark.parametrize(
    "manifest", ["{", '{"format": "other/1"}', "{}"], ids=["broken", "other", "empty"]
)
async def test_manifest_that_cannot_be_read_is_refused(
    target: AsyncClient, tmp_path: Path, manifest: str
) -> None:
    """Of another format, or damaged."""
    (tmp_path / "manifest.json").write_text(manifest)

    with pytest.raises(ConfigError, match="manifest"):
        await load(target, tmp_path)


async def test_manifest_that_names_another_file_is_refused(
    target: AsyncClient, tmp_path: Path
) -> None:
    """An archive of somebody else's cannot have other files of this machine read and sent."""
    fake = Foundry(threads=1)
    async with project(fake, fake.token) as client:
        await export(client, tmp_path / "a")
    path = tmp_path / "a" / "manifest.json"
    path.write_text(path.read_text().replace("threads/thread_f0.jsonl", "../thread_f0.jsonl"))
    shutil.move(tmp_path / "a" / "threads" / "thread_f0.jsonl", tmp_path)

    with pytest.raises(ConfigError, match="in place of"):
        await load(target, tmp_path / "a")


async def test_folder_with_nothing_is_refused(target: AsyncClient, tmp_path: Path) -> None:
    """Nothing there, or nothing of ours in it."""
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ConfigError):
            await load(target, folder)


async def test_server_without_imports_is_named(tmp_path: Path) -> None:
    """Only ours has the extension, and the error says which server that is."""
    async with HostileServer(unlisted) as server, AsyncClient(server.url) as client:
        with pytest.raises(ConfigError, match="openai-runs serve"):
            await load(client, SINGLE, retry=ONCE)


async def test_server_that_lists_threads_and_takes_none_is_named() -> None:
    """A Foundry is none of ours either."""
    fake = Foundry()
    async with project(fake, fake.token) as client:
        with pytest.raises(ConfigError, match="takes no imports"):
            await load(client, SINGLE, retry=ONCE)


async def test_thread_that_is_too_large_is_rejected_alone(tmp_path: Path) -> None:
    """The reason says what to set on the server."""
    async with LocalServer(max_import_bytes=1000) as server, AsyncClient(server.url) as client:
        report = await load(client, SINGLE)

        assert [one.outcome for one in report.rejected] == ["invalid"]
        assert "max_import_bytes" in (report.rejected[0].reason or "")
        with pytest.raises(NotFoundError):
            await client.threads.retrieve("thread_1")


async def test_progress_names_each(target: AsyncClient) -> None:
    """One call for each assistant and thread."""
    seen: list[LoadProgress] = []

    await load(target, SINGLE, on_progress=seen.append)

    assert [(at.done, at.total, at.outcome.id) for at in seen] == [(1, 1, "thread_1")]
