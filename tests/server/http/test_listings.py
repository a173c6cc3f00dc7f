"""Lists that OpenAI did not have: all threads, and the runs of all threads."""

from __future__ import annotations

import pytest

from tests.server.conftest import Serve
from tests.server.support import Caller, run_path


@pytest.mark.parametrize("path", ["/threads", "/runs"])
async def test_list_of_all_is_empty_where_there_is_nothing(caller: Caller, path: str) -> None:
    """An empty page, in the shape of every other list."""
    page = await caller.get(path)

    assert page == {"object": "list", "data": [], "first_id": "", "last_id": "", "has_more": False}


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_threads_are_listed_page_by_page(caller: Caller, order: str) -> None:
    """Each thread once, in the order of creation, as it is when it is read by itself."""
    ids = [await caller.thread("Hi") for _ in range(5)]
    expected = ids if order == "asc" else ids[::-1]

    seen, cursor, more = [], "", True
    while more:
        page = await caller.get(f"/threads?limit=2&order={order}{cursor}")
        seen += page["data"]
        cursor, more = f"&after={page['last_id']}", page["has_more"]

    assert [thread["id"] for thread in seen] == expected
    assert seen == [await caller.get(f"/threads/{thread_id}") for thread_id in expected]


async def test_runs_of_all_threads_are_listed_whole(serve: Serve) -> None:
    """Runs as they are when read by themselves, large shared instructions included."""
    caller = await serve()
    started = [
        await caller.settled(await caller.start(instructions="Be brief. " * 300)) for _ in range(3)
    ]

    page = await caller.get("/runs?order=asc")

    assert page["data"] == [await caller.get(run_path(run)) for run in started]
    assert len({run["thread_id"] for run in page["data"]}) == 3


@pytest.mark.parametrize("path", ["/threads", "/runs"])
async def test_cursor_that_is_not_in_the_list_is_named(caller: Caller, path: str) -> None:
    """As in every list: a 400 that names the cursor."""
    reply = await caller.send("GET", f"{path}?after=nothing_1")

    assert reply.status == 400
    assert "nothing_1" in reply.message
    assert reply.json["error"]["param"] == "after"


@pytest.mark.parametrize("path", ["/threads", "/runs"])
async def test_list_of_all_asks_for_the_key(serve: Serve, path: str) -> None:
    """Who has no key sees no list."""
    caller = await serve(api_key="sk-another-key-1234")

    reply = await caller.send("GET", path)

    assert reply.status == 401


async def test_deleted_thread_leaves_both_lists(caller: Caller) -> None:
    """The thread and its runs are gone."""
    run = await caller.settled(await caller.start())
    kept = await caller.thread()

    await caller.send("DELETE", f"/threads/{run['thread_id']}")

    assert [thread["id"] for thread in (await caller.get("/threads"))["data"]] == [kept]
    assert (await caller.get("/runs"))["data"] == []
