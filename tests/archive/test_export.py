"""`export`: everything as it came, whole or not at all, and the same however often it was begun."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from openai_runs import AsyncClient, RetryPolicy
from openai_runs.archive import ExportProgress, LeftOut, export
from openai_runs.config import ARCHIVE_FAILURES
from openai_runs.errors import (
    APIConnectionError,
    APIStatusError,
    AuthenticationError,
    ConfigError,
    InternalServerError,
)
from tests.archive.world import Foundry
from tests.support import Action, Answer, Drop, HostileServer, Received, run_json

ONCE = RetryPolicy(max_retries=0)


@asynccontextmanager
async def project(handler: Any, credential: Any) -> AsyncIterator[AsyncClient]:
    """Serve a Foundry, and yield a client of it."""
    async with HostileServer(handler) as server:
        endpoint = server.url.removesuffix("/v1") + "/api/projects/demo"
        async with AsyncClient.azure(endpoint, credential) as client:
            yield client


def lines_of(path: Path) -> list[tuple[str, Any]]:
    """Return the kinds and objects of a file."""
    return [next(iter(json.loads(line).items())) for line in path.read_bytes().splitlines()]


def files_in(folder: Path) -> dict[str, bytes]:
    """Return the contents of every file."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


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


def unlisted(request: Received) -> Action:
    """Answer as a server that lists no threads, and has two."""
    path = request.path.removeprefix("/v1")
    if path in {"/threads/thread_1", "/threads/thread_2"}:
        return Answer(200, {"id": path.rpartition("/")[2], "object": "thread"})
    if path == "/assistants" or path.startswith(("/threads/thread_1/", "/threads/thread_2/")):
        return Answer(200, {"object": "list", "data": []})  # no `has_more`
    return Answer(404, {"error": {"message": f"No {path} found."}})


async def test_server_that_lists_no_threads_is_asked_for_those_named(tmp_path: Path) -> None:
    """Without names the error says how to give them; a thread that is gone is noted."""
    async with HostileServer(unlisted) as server, AsyncClient(server.url) as client:
        with pytest.raises(ConfigError, match="threads="):
            await export(client, tmp_path)

        ids = ["thread_2", "thread_9", "thread_1", "thread_2"]
        report = await export(client, tmp_path, threads=ids)

    assert report.counts["threads"] == 2
    (gone,) = report.left_out
    assert (gone.what, gone.id) == ("thread", "thread_9")
    assert "404" in gone.why or "found" in gone.why
    assert report.failed == []


def listing(pages: Any) -> Any:
    """Return a handler of a server with one thread whose messages come as `pages` says."""

    def answer(request: Received) -> Action:
        path = request.path.removeprefix("/v1")
        if path == "/threads":
            return Answer(200, {"data": [{"id": "thread_1"}], "has_more": False})
        if path.endswith("/messages"):
            action: Action = pages(request)
            return action
        return Answer(200, {"data": [], "has_more": False})

    return answer


def repeats_its_cursor(request: Received) -> Action:
    """Answer the same page for ever."""
    return Answer(200, {"data": [{"id": "msg_1"}, {"id": "msg_2"}], "has_more": True})


def overlaps(request: Received) -> Action:
    """Begin each page with the last item of the one before."""
    after = int(request.query.get("after", ["msg_1"])[0].removeprefix("msg_"))
    data = [{"id": f"msg_{n}"} for n in range(after, after + 2)]
    return Answer(200, {"data": data if after < 4 else data[:1], "has_more": after < 4})


def cannot_be_read_in_large_pages(request: Received) -> Action:
    """Send what is no page where more than ten items are asked for."""
    if int(request.query["limit"][0]) > 10:
        return Answer(200, body=b'{"data": 7}')
    return Answer(200, {"data": [{"id": "msg_1"}, {"id": "msg_2"}], "has_more": False})


@pytest.mark.parametrize(
    ("pages", "count"),
    [(repeats_its_cursor, 2), (overlaps, 4), (cannot_be_read_in_large_pages, 2)],
    ids=["repeats", "overlaps", "large"],
)
async def test_odd_pages_end_and_hold_each_object_once(
    tmp_path: Path, pages: Any, count: int
) -> None:
    """A server that repeats itself, or whose large pages cannot be read."""
    async with HostileServer(listing(pages)) as server, AsyncClient(server.url) as client:
        report = await export(client, tmp_path)

    assert report.failed == []
    found = [one["id"] for kind, one in lines_of(tmp_path / "threads" / "thread_1.jsonl")[1:]]
    assert found == [f"msg_{n + 1}" for n in range(count)]


async def test_thread_that_fails_costs_only_itself(tmp_path: Path) -> None:
    """It is named with the server's words, and the next export tries it again."""
    fake = Foundry(lifetime=1000)
    is_ill = True

    def answer(request: Received) -> Action:
        if is_ill and request.path.endswith("thread_f3/runs"):
            return Answer(500, {"error": {"message": "The disk is ill."}})
        return fake(request)

    async with project(answer, fake.token) as client:
        first = await export(client, tmp_path, retry=ONCE)
        is_ill = False
        second = await export(client, tmp_path, retry=ONCE)

    assert [(one.id, "ill" in one.why) for one in first.failed] == [("thread_f3", True)]
    assert (first.counts["threads"], second.counts["threads"]) == (6, 7)
    assert (second.failed, second.unchanged) == ([], 6)


async def test_server_that_fails_always_is_given_up(tmp_path: Path) -> None:
    """After some threads in a row; what is not there is not called exported."""
    fake = Foundry(threads=3 * ARCHIVE_FAILURES, lifetime=10_000)
    asked = set()

    def answer(request: Received) -> Action:
        if request.path.endswith("/messages"):
            asked.add(request.path)
            return Answer(500, {"error": {"message": "ill"}})
        return fake(request)

    async with project(answer, fake.token) as client:
        with pytest.raises(InternalServerError):
            await export(client, tmp_path, retry=ONCE, concurrency=2)

    assert len(asked) <= ARCHIVE_FAILURES + 2
    assert not (tmp_path / "manifest.json").exists()


async def test_server_that_is_gone_ends_the_export(tmp_path: Path) -> None:
    """One error and not a group of them; threads that are whole stay."""
    fake = Foundry(lifetime=1000)

    def answer(request: Received) -> Action:
        return Drop() if "thread_f5" in request.path else fake(request)

    async with project(answer, fake.token) as client:
        with pytest.raises(APIConnectionError):
            await export(client, tmp_path, retry=ONCE, concurrency=1)

    assert len(list((tmp_path / "threads").iterdir())) == 5


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


async def test_active_run_is_noted(tmp_path: Path) -> None:
    """It is exported as it is, and may have gone on since."""
    fake = Foundry(threads=1)
    fake.objects["threads/thread_f0/runs"][0].update(run_json("in_progress", id="run_f0"))

    async with project(fake, fake.token) as client:
        report = await export(client, tmp_path)

    (note,) = [one for one in report.left_out if one.what == "run"]
    assert isinstance(note, LeftOut)
    assert (note.id, note.where) == ("run_f0", "thread_f0")


async def test_ids_of_any_form_have_a_file(tmp_path: Path) -> None:
    """Long ones, and ones that are no name of a file, keep their own id in the archive."""
    ids = ["thread with spaces", "x" * 250, ".hidden", "ä:b"]

    def answer(request: Received) -> Action:
        if request.path == "/v1/threads":
            return Answer(200, {"data": [{"id": one} for one in ids], "has_more": False})
        return Answer(200, {"data": [], "has_more": False})

    async with HostileServer(answer) as server, AsyncClient(server.url) as client:
        report = await export(client, tmp_path)

    assert report.counts["threads"] == 4
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert [each["id"] for each in manifest["threads"]] == ids
    assert len(list((tmp_path / "threads").iterdir())) == 4


async def test_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """Before anything is asked."""
    (tmp_path / "file").write_text("mine")

    async with HostileServer(unlisted) as server, AsyncClient(server.url) as client:
        with pytest.raises(ConfigError, match="no folder"):
            await export(client, tmp_path / "file")

        assert server.requests == []


def deletes_its_cursor(request: Received) -> Action:
    """Refuse the last id of the first page as a cursor: that message was deleted meanwhile."""
    after = request.query.get("after", [""])[0]
    if after == "msg_3":
        return Answer(400, {"error": {"message": "no message found with id 'msg_3'"}})
    ids = {"": (1, 2, 3), "msg_2": (4, 5)}[after]
    data = [{"id": f"msg_{n}"} for n in ids]
    return Answer(200, {"data": data, "has_more": after == ""})


async def test_cursor_that_is_deleted_meanwhile_ends_no_list(tmp_path: Path) -> None:
    """The list goes on from the object before it."""
    handler = listing(deletes_its_cursor)
    async with HostileServer(handler) as server, AsyncClient(server.url) as client:
        report = await export(client, tmp_path)

    assert report.failed == []
    found = [one["id"] for _, one in lines_of(tmp_path / "threads" / "thread_1.jsonl")[1:]]
    assert found == [f"msg_{n}" for n in range(1, 6)]


@pytest.mark.parametrize("knows", [True, False], ids=["known", "unknown"])
async def test_results_of_searches_are_asked_for(tmp_path: Path, knows: bool) -> None:
    """Servers leave them out unless they are; one that refuses to be asked is asked without."""
    fake = Foundry(threads=3, lifetime=1000)
    asked = []

    def answer(request: Received) -> Action:
        included = "include[]" in request.query
        asked.append(included)
        if included and not knows:
            return Answer(400, {"error": {"message": "Unknown parameter: 'include'."}})
        return fake(request)

    async with project(answer, fake.token) as client:
        report = await export(client, tmp_path, concurrency=1)

    assert report.counts["steps"] == 9
    assert asked.count(True) == (3 if knows else 1)


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


@pytest.mark.parametrize("key", ["..", "a/b", "ä ?", "half \ud83c"])
async def test_id_that_no_url_can_hold_costs_only_its_thread(tmp_path: Path, key: str) -> None:
    """What a server lists cannot lead the export elsewhere, nor end it."""

    def answer(request: Received) -> Action:
        if request.path == "/v1/threads":
            body = json.dumps({"data": [{"id": key}, {"id": "thread_1"}], "has_more": False})
            return Answer(200, body=body.encode())
        assert request.path.startswith(("/v1/assistants", "/v1/threads/"))
        return Answer(200, {"data": [], "has_more": False})

    async with HostileServer(answer) as server, AsyncClient(server.url) as client:
        report = await export(client, tmp_path)

    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert "thread_1" in [each["id"] for each in manifest["threads"]]
    assert len(report.failed) + report.counts["threads"] == 2


@pytest.mark.parametrize("status", [404, 405, 401, 500])
async def test_server_without_assistants_is_exported_without(tmp_path: Path, status: int) -> None:
    """It is noted; a key that is refused, or a server that fails, is an error."""
    fake = Foundry(threads=1)

    def answer(request: Received) -> Action:
        if request.path.endswith("/assistants"):
            return Answer(status, {"error": {"message": "No assistants."}})
        return fake(request)

    async with project(answer, fake.token) as client:
        if status in {401, 500}:
            with pytest.raises(APIStatusError):
                await export(client, tmp_path, retry=ONCE)
            return
        report = await export(client, tmp_path, retry=ONCE)

    assert report.left_out[0].what == "assistants"
    assert report.counts["threads"] == 1
