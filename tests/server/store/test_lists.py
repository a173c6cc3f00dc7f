"""Lists: every object once, in order, whatever happens meanwhile."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from openai_runs.config import MAX_ANSWER_BYTES
from tests.server.support import Caller


async def five_messages(caller: Caller) -> tuple[str, list[str]]:
    """Return a thread and the ids of its messages, oldest first."""
    thread_id = await caller.thread()
    ids = []
    for number in range(5):
        message = await caller.post(
            f"/threads/{thread_id}/messages", {"role": "user", "content": f"{number}"}
        )
        ids.append(message["id"])
    return f"/threads/{thread_id}/messages", ids


def ids_of(page: Any) -> list[str]:
    """Return the ids on the page."""
    return [item["id"] for item in page["data"]]


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_after_visits_everything_once_in_order(caller: Caller, order: str) -> None:
    """Pages of two, forwards: five objects, and `has_more` until the last."""
    path, ids = await five_messages(caller)
    expected = ids if order == "asc" else ids[::-1]

    seen: list[str] = []
    more = []
    cursor = ""
    while True:
        page = await caller.get(f"{path}?limit=2&order={order}{cursor}")
        seen += ids_of(page)
        more.append(page["has_more"])
        assert (page["first_id"], page["last_id"]) == (ids_of(page)[0], ids_of(page)[-1])
        if not page["has_more"]:
            break
        cursor = f"&after={page['last_id']}"

    assert seen == expected
    assert more == [True, True, False]


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_before_is_the_page_nearest_before_it_in_list_order(
    caller: Caller, order: str
) -> None:
    """Pages of two, backwards from the last: nearest first, each in list order."""
    path, ids = await five_messages(caller)
    listed = ids if order == "asc" else ids[::-1]

    near = await caller.get(f"{path}?limit=2&order={order}&before={listed[4]}")
    far = await caller.get(f"{path}?limit=2&order={order}&before={near['first_id']}")
    none = await caller.get(f"{path}?limit=2&order={order}&before={far['first_id']}")

    assert (ids_of(near), near["has_more"]) == (listed[2:4], True)
    assert (ids_of(far), far["has_more"]) == (listed[0:2], False)
    assert (ids_of(none), none["has_more"]) == ([], False)


async def test_after_and_before_together_are_a_window(caller: Caller) -> None:
    """What lies between the two, nearest to `after` first."""
    path, ids = await five_messages(caller)

    page = await caller.get(f"{path}?order=asc&limit=2&after={ids[0]}&before={ids[4]}")

    assert (ids_of(page), page["has_more"]) == (ids[1:3], True)


async def test_empty_list_has_empty_ids(caller: Caller) -> None:
    """The OpenAPI description asks for texts."""
    page = await caller.get("/assistants")

    assert page == {"object": "list", "data": [], "first_id": "", "last_id": "", "has_more": False}


async def test_default_page_has_twenty_newest_first(caller: Caller) -> None:
    """Without parameters: twenty, newest first."""
    ids = [await caller.assistant() for _ in range(21)]

    page = await caller.get("/assistants")

    assert ids_of(page) == ids[:0:-1]
    assert page["has_more"]


async def test_pages_are_stable_while_others_create(caller: Caller) -> None:
    """Everything that was there at the start is seen exactly once, in order."""
    before = [await caller.assistant(name=f"{number}") for number in range(10)]
    seen: list[str] = []

    async def create_more() -> None:
        for _ in range(15):
            await caller.assistant(name="later")

    async def walk(order: str) -> list[str]:
        found: list[str] = []
        cursor = ""
        while True:
            page = await caller.get(f"/assistants?limit=2&order={order}{cursor}")
            found += ids_of(page)
            if not page["has_more"]:
                return found
            cursor = f"&after={page['last_id']}"

    async with anyio.create_task_group() as group:
        group.start_soon(create_more)
        seen = await walk("desc")
        rising = await walk("asc")

    assert [each for each in seen if each in set(before)] == before[::-1]
    assert len(set(rising)) == len(rising)
    assert rising[:10] == before


async def test_deleted_cursor_is_refused(caller: Caller) -> None:
    """A list cannot be gone on with from something that is not there any more."""
    path, ids = await five_messages(caller)
    await caller.send("DELETE", f"{path}/{ids[2]}")

    reply = await caller.send("GET", f"{path}?after={ids[2]}")

    assert reply.status == 400
    assert ids[2] in reply.message


async def test_cursor_of_another_thread_is_refused(caller: Caller) -> None:
    """A cursor belongs to its list."""
    path, _ = await five_messages(caller)
    _, foreign = await five_messages(caller)

    assert (await caller.send("GET", f"{path}?after={foreign[0]}")).status == 400


async def test_run_id_selects_the_messages_of_a_run(caller: Caller) -> None:
    """The messages a run wrote and came with, and a cursor may be any of the thread's."""
    run = await caller.start(additional_messages=[{"role": "user", "content": "Also"}])
    await caller.settled(run)
    path = f"/threads/{run['thread_id']}/messages"
    everything = await caller.get(f"{path}?order=asc")
    first = everything["data"][0]

    of_run = await caller.get(f"{path}?order=asc&run_id={run['id']}&after={first['id']}")
    of_none = await caller.get(f"{path}?run_id=run_nope")

    assert [m["role"] for m in everything["data"]] == ["user", "user", "assistant"]
    assert ids_of(of_run) == ids_of(everything)[1:]
    assert of_none["data"] == []


LARGE = 1_000_000
"""Bytes of one large object here; sixteen fit into a page."""


async def large_messages(caller: Caller, count: int) -> tuple[str, list[str]]:
    """Return a thread with large messages and their ids, oldest first; each has a number."""
    thread_id = await caller.thread()
    path = f"/threads/{thread_id}/messages"
    large = "x" * LARGE
    ids = [
        (await caller.post(path, {"role": "user", "content": f"{number}{large}"}))["id"]
        for number in range(count)
    ]
    return path, ids


async def walked(caller: Caller, path: str, cursor: str, edge: str) -> list[list[str]]:
    """Return the ids on each page, walking by a cursor from an edge of the page before."""
    pages: list[list[str]] = []
    place = ""
    while True:
        page = await caller.get(f"{path}{place}")
        pages.append(ids_of(page))
        assert len(str(page)) < MAX_ANSWER_BYTES
        assert (page["first_id"], page["last_id"]) == (ids_of(page)[0], ids_of(page)[-1])
        if not page["has_more"]:
            return pages
        place = f"&{cursor}={page[edge]}"


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_page_ends_before_it_is_larger_than_a_client_reads(
    caller: Caller, order: str
) -> None:
    """It says that more follow, and every object is on one page, in order."""
    path, ids = await large_messages(caller, 34)

    pages = await walked(caller, f"{path}?limit=100&order={order}", "after", "last_id")

    assert [len(page) for page in pages] == [16, 16, 2]
    assert [each for page in pages for each in page] == (ids if order == "asc" else ids[::-1])


async def test_page_before_a_cursor_ends_too(caller: Caller) -> None:
    """It has what is nearest before the cursor, and says that more are further away."""
    path, ids = await large_messages(caller, 19)

    near = await caller.get(f"{path}?order=asc&before={ids[18]}")
    far = await caller.get(f"{path}?order=asc&before={near['first_id']}")

    assert (ids_of(near), near["has_more"]) == (ids[2:18], True)
    assert (ids_of(far), far["has_more"]) == (ids[0:2], False)


async def test_limit_and_size_that_end_a_page_at_once_lose_nothing(caller: Caller) -> None:
    """A page of exactly what fits says that more follow where there is more, and only there."""
    path, ids = await large_messages(caller, 17)

    first = await caller.get(f"{path}?order=asc&limit=16")
    rest = await caller.get(f"{path}?order=asc&limit=16&after={first['last_id']}")
    last = await caller.get(f"{path}?order=asc&limit=16&after={ids[0]}")

    assert (ids_of(first), first["has_more"]) == (ids[:16], True)
    assert (ids_of(rest), rest["has_more"]) == (ids[16:], False)
    assert (ids_of(last), last["has_more"]) == (ids[1:], False)


async def test_page_of_runs_is_measured_with_what_they_have_in_common(caller: Caller) -> None:
    """Their tools are stored once, and sent with each of them."""
    function = {"name": "f", "description": "x" * 900_000}
    assistant = await caller.assistant(tools=[{"type": "function", "function": function}])
    thread_id = await caller.thread()
    for _ in range(19):
        run = await caller.post(f"/threads/{thread_id}/runs", {"assistant_id": assistant})
        await caller.settled(run)

    pages = await walked(caller, f"/threads/{thread_id}/runs?limit=100", "after", "last_id")

    assert [len(page) for page in pages] == [18, 1]
