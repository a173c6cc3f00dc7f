"""`export`: everything as it came, whole or not at all, and the same however often it was begun."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from openai_runs import AsyncClient, RetryPolicy
from openai_runs.archive import ExportProgress, LeftOut, export
from openai_runs.errors import (
    AuthenticationError,
    ConfigError,
)
from tests.archive.world import Foundry, files_in, lines_of, project, unlisted
from tests.support import HostileServer, run_json

ONCE = RetryPolicy(max_retries=0)


async def test_foundry_is_exported_whole_while_its_token_expires(tmp_path: Path) -> None:
    """Small pages, foreign tools, unknown fields: each object as it came, in its order."""
    fake = Foundry()

    async with project(fake, fake.late_token) as client:
        report = await export(client, tmp_path)

    objects = fake.objects
    assert fake.refused > 0
    assert report.counts == {"assistants": 1, "threads": 7, "messages": 14, "runs": 7, "steps": 21}
    assert lines_of(tmp_path / "assistants.jsonl") == [("assistant", objects["assistants"][0])]
    for thread in objects["threads"]:
        place = f"threads/{thread['id']}"
        wanted = [("thread", thread), *(("message", one) for one in objects[f"{place}/messages"])]
        for run in objects[f"{place}/runs"]:
            wanted.append(("run", run))
            wanted += [("step", one) for one in objects[f"{place}/runs/{run['id']}/steps"]]
        found = lines_of(tmp_path / f"{place}.jsonl")
        assert json.dumps(found) == json.dumps(wanted)  # the order of keys too
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert [each["id"] for each in manifest["threads"]] == [t["id"] for t in objects["threads"]]


async def test_what_no_server_hands_out_is_listed(tmp_path: Path) -> None:
    """Files, vector stores and hosted tools are named once each, with the reason."""
    fake = Foundry(threads=2)

    async with project(fake, fake.token) as client:
        report = await export(client, tmp_path)

    named = {(one.what, one.id) for one in report.left_out}
    assert named >= {
        ("file", "file-1"),
        ("file", "assistant-1"),
        ("hosted_tool", "azure_ai_search"),
        ("hosted_tool", "bing_grounding"),
        ("hosted_tool", "connected_agent"),
        ("hosted_tool", "openapi"),
        ("hosted_tool", "mcp"),
    }
    assert len(named) == len(report.left_out)
    listed = [json.loads(line) for line in (tmp_path / "left-out.jsonl").read_bytes().splitlines()]
    assert [one["why"] for one in listed] == [one.why for one in report.left_out]


def token_of(token: str) -> Any:
    """Return what always gives this token."""
    return lambda: token


async def test_refused_key_ends_an_export_that_goes_on_with_a_new_one(tmp_path: Path) -> None:
    """A key that is a text cannot be renewed: the error is its own, and nothing whole is lost."""
    fake = Foundry(lifetime=12)
    async with project(fake, fake.token) as client:
        await export(client, tmp_path / "at_once")
    fake = Foundry(lifetime=12)

    ends = 0
    async with HostileServer(fake) as server:
        endpoint = server.url.removesuffix("/v1") + "/api/projects/demo"
        while not (tmp_path / "pieces" / "manifest.json").exists():
            token = fake.token()
            async with AsyncClient.azure(endpoint, token_of(token)) as client:
                try:
                    await export(client, tmp_path / "pieces", concurrency=1)
                except AuthenticationError:
                    ends += 1

    assert ends > 1
    assert files_in(tmp_path / "pieces") == files_in(tmp_path / "at_once")


async def test_second_export_asks_for_no_step_and_writes_nothing(tmp_path: Path) -> None:
    """What is the same stays, and is reported as unchanged; steps of runs that are over too."""
    fake = Foundry(lifetime=1000)
    async with HostileServer(fake) as server:
        endpoint = server.url.removesuffix("/v1") + "/api/projects/demo"
        async with AsyncClient.azure(endpoint, fake.token) as client:
            first = await export(client, tmp_path)
            before = files_in(tmp_path)
            nodes = {path: path.stat().st_ino for path in (tmp_path / "threads").iterdir()}
            seen = len(server.requests)

            second = await export(client, tmp_path)

    assert (first.written, first.unchanged) == (7, 0)
    assert (second.written, second.unchanged) == (0, 7)
    assert files_in(tmp_path) == before
    assert {path: path.stat().st_ino for path in nodes} == nodes
    assert [one.path for one in server.requests[seen:] if one.path.endswith("/steps")] == []


async def test_later_export_brings_the_archive_up_to_date(tmp_path: Path) -> None:
    """A changed message, a new run, a new thread; what the server has no more is kept, and said."""
    fake = Foundry(lifetime=1000)
    async with project(fake, fake.token) as client:
        await export(client, tmp_path)
        fake.objects["threads/thread_f1/messages"][0]["metadata"] = {"a": "b"}
        gone = fake.objects["threads"].pop(3)
        fake._add_thread(7)

        report = await export(client, tmp_path)

        fresh = tmp_path / "fresh"
        await export(client, fresh)

    assert (report.written, report.unchanged, report.counts["threads"]) == (2, 5, 8)
    assert [one.id for one in report.left_out if one.what == "thread"] == [gone["id"]]
    for path in (fresh / "threads").iterdir():
        assert path.read_bytes() == (tmp_path / "threads" / path.name).read_bytes()


async def test_export_of_some_threads_keeps_the_others(tmp_path: Path) -> None:
    """What was not asked for is in the archive still, and nothing is said of it."""
    fake = Foundry(lifetime=1000)
    async with project(fake, fake.token) as client:
        await export(client, tmp_path)
        before = files_in(tmp_path)

        report = await export(client, tmp_path, threads=["thread_f2"])

    assert report.counts["threads"] == 7
    assert [one for one in report.left_out if one.what == "thread"] == []
    after = files_in(tmp_path)
    assert {name for name in after if after[name] != before[name]} <= {
        "manifest.json",
        "left-out.jsonl",
    }


async def test_damaged_and_half_written_files_are_written_anew(tmp_path: Path) -> None:
    """Whatever a crash, a full disk or an editor left."""
    fake = Foundry(lifetime=1000)
    async with project(fake, fake.token) as client:
        await export(client, tmp_path)
        before = files_in(tmp_path)
        path = tmp_path / "threads" / "thread_f2.jsonl"
        path.write_bytes(path.read_bytes()[:-40])
        (tmp_path / "threads" / "thread_f3.jsonl").write_text('{"other": 1}\n')
        (tmp_path / "threads" / "thread_f4.jsonl.part").write_text("{")

        report = await export(client, tmp_path)

    assert report.written == 2
    assert files_in(tmp_path) == before


async def test_cancelled_export_leaves_whole_threads(tmp_path: Path) -> None:
    """What was under way is not there; the next export makes the same archive."""
    fake = Foundry(threads=20, lifetime=1000)
    async with project(fake, fake.token) as client:
        with anyio.CancelScope() as scope:

            def note(at: ExportProgress) -> None:
                if at.threads == 5:
                    scope.cancel()

            await export(client, tmp_path / "a", on_progress=note)
        assert scope.cancelled_caught
        assert not (tmp_path / "a" / "manifest.json").exists()

        await export(client, tmp_path / "a")
        await export(client, tmp_path / "b", concurrency=1)

    assert files_in(tmp_path / "a") == files_in(tmp_path / "b")


async def test_progress_counts_threads(tmp_path: Path) -> None:
    """The total is known where the caller names the threads."""
    fake = Foundry(lifetime=1000)
    seen: list[ExportProgress] = []

    async with project(fake, fake.token) as client:
        await export(client, tmp_path, on_progress=seen.append)
        named = ["thread_f1", "thread_f2"]
        await export(client, tmp_path, threads=named, on_progress=seen.append)

    assert [at.threads for at in seen] == [*range(1, 8), 1, 2]
    assert [at.total for at in seen] == [None] * 7 + [2, 2]
    assert seen[-1].unchanged == 2


async def test_error_of_the_callback_comes_out_as_it_is(tmp_path: Path) -> None:
    """One error of the caller's own, in no group; threads that are whole stay."""
    fake = Foundry(lifetime=1000)

    def fail(at: ExportProgress) -> None:
        if at.threads == 3:
            message = "mine"
            raise LookupError(message)

    async with project(fake, fake.token) as client:
        with pytest.raises(LookupError, match="mine"):
            await export(client, tmp_path, on_progress=fail)

    assert len(list((tmp_path / "threads").iterdir())) >= 3


async def test_active_run_is_noted(tmp_path: Path) -> None:
    """It is exported as it is, and may have gone on since."""
    fake = Foundry(threads=1)
    fake.objects["threads/thread_f0/runs"][0].update(run_json("in_progress", id="run_f0"))

    async with project(fake, fake.token) as client:
        report = await export(client, tmp_path)

    (note,) = [one for one in report.left_out if one.what == "run"]
    assert isinstance(note, LeftOut)
    assert (note.id, note.where) == ("run_f0", "thread_f0")


async def test_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """Before anything is asked."""
    (tmp_path / "file").write_text("mine")

    async with HostileServer(unlisted) as server, AsyncClient(server.url) as client:
        with pytest.raises(ConfigError, match="no folder"):
            await export(client, tmp_path / "file")

        assert server.requests == []


@pytest.mark.parametrize(
    ("wrong", "error"),
    [({"threads": "thread_1"}, TypeError), ({"concurrency": 0}, ValueError)],
    ids=["threads", "concurrency"],
)
async def test_wrong_arguments_are_refused(
    tmp_path: Path, wrong: dict[str, Any], error: type[Exception]
) -> None:
    """Before anything is asked or written."""
    async with HostileServer(unlisted) as server, AsyncClient(server.url) as client:
        with pytest.raises(error):
            await export(client, tmp_path / "out", **wrong)

        assert server.requests == []
    assert not (tmp_path / "out").exists()
