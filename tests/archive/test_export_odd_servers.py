"""`export` from servers that are odd: what they list, refuse, repeat or lose costs only itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from openai_runs import AsyncClient, RetryPolicy
from openai_runs.archive import export
from openai_runs.config import ARCHIVE_FAILURES
from openai_runs.errors import APIConnectionError, APIStatusError, ConfigError, InternalServerError
from tests.archive.world import Foundry, lines_of, project, unlisted
from tests.support import Action, Answer, Drop, HostileServer, Received

ONCE = RetryPolicy(max_retries=0)


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


def doubles(request: Received) -> Action:
    """List an object twice on a page."""
    return Answer(200, {"data": [{"id": "msg_1"}] * 2, "has_more": False})


def cannot_be_read_in_large_pages(request: Received) -> Action:
    """Send what is no page where more than ten items are asked for."""
    if int(request.query["limit"][0]) > 10:
        return Answer(200, body=b'{"data": 7}')
    return Answer(200, {"data": [{"id": "msg_1"}, {"id": "msg_2"}], "has_more": False})


@pytest.mark.parametrize(
    ("pages", "count"),
    [(repeats_its_cursor, 2), (overlaps, 4), (cannot_be_read_in_large_pages, 2), (doubles, 1)],
    ids=["repeats", "overlaps", "large", "doubles"],
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
