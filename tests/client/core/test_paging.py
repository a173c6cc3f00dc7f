"""Lists: awaited for one page, iterated for all, always with an end."""

from __future__ import annotations

import asyncio
import gc
from asyncio import Event
from collections.abc import AsyncIterable, Callable
from typing import Any
from weakref import ref

import pytest

from openai_runs import (
    APITimeoutError,
    AsyncClient,
    BadRequestError,
    InternalServerError,
    Page,
    Run,
    SortOrder,
)
from openai_runs.types import UnknownItem
from tests.client.ledger import error
from tests.support import Action, Answer, Hang, HostileServer, ManualClock, Received, run_json

IDS = ["run_1", "run_2", "run_3", "run_4", "run_5"]
"""Oldest first."""


def page_of(*ids: str, has_more: bool = True, **changes: Any) -> Answer:
    """Return a page as a server sends it."""
    page = {
        "object": "list",
        "data": [run_json(id=one) for one in ids],
        "first_id": ids[0] if ids else None,
        "last_id": ids[-1] if ids else None,
        "has_more": has_more,
        **changes,
    }
    return Answer(json={name: value for name, value in page.items() if value is not ...})


class Listing:
    """A server with runs, newest first unless asked otherwise."""

    def __init__(self, **changes: Any) -> None:
        """Lay `changes` over each page; `...` takes a key away."""
        self.ids = list(IDS)
        self.changes = changes

    def __call__(self, request: Received) -> Action:
        """Answer with the page that is asked for."""
        query = {name: values[0] for name, values in request.query.items()}
        ids = list(self.ids) if query.get("order") == "asc" else self.ids[::-1]
        after, before = query.get("after"), query.get("before")
        for cursor in (after, before):
            if cursor is not None and cursor not in ids:
                return error(400, f"No run found with id '{cursor}'.")
        ids = ids[ids.index(after) + 1 :] if after else ids
        ids = ids[: ids.index(before)] if before else ids
        limit = int(query.get("limit", "20"))
        shown = ids[-limit:] if before and not after else ids[:limit]
        return page_of(*shown, **{"has_more": len(shown) < len(ids), **self.changes})


async def ids_of(client: AsyncClient, **arguments: Any) -> list[str]:
    """Return the ids an iteration yields."""
    return [run.id async for run in client.runs.list("thread_1", **arguments)]


async def walk(listed: AsyncIterable[Run], seen: list[str], *, pause: float = 0) -> None:
    """Put the ids into `seen` one by one, as somebody does who has work to do in between."""
    async for run in listed:
        seen.append(run.id)
        await asyncio.sleep(pause)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, IDS[::-1]),
        ({"order": SortOrder.ASC}, IDS),
        ({"order": "desc"}, IDS[::-1]),
        ({"after": "run_4"}, ["run_3", "run_2", "run_1"]),
        ({"order": "asc", "after": "run_2"}, ["run_3", "run_4", "run_5"]),
        ({"before": "run_2"}, ["run_3", "run_4", "run_5"]),
        ({"order": "asc", "before": "run_4"}, ["run_3", "run_2", "run_1"]),
        ({"order": "asc", "after": "run_1", "before": "run_5"}, ["run_2", "run_3", "run_4"]),
        ({"after": "run_1"}, []),
        ({"max_items": 3}, ["run_5", "run_4", "run_3"]),
        ({"max_items": 4}, ["run_5", "run_4", "run_3", "run_2"]),
        ({"max_items": 99}, IDS[::-1]),
        ({"max_items": 0}, []),
        ({"after": None, "before": None, "order": None}, IDS[::-1]),
    ],
    ids=str,
)
async def test_each_item_comes_once_and_in_order(
    arguments: dict[str, Any], expected: list[str]
) -> None:
    """Two to a page; `before` walks the list backwards from there."""
    async with HostileServer(Listing()) as server, AsyncClient(server.url) as client:
        assert await ids_of(client, limit=2, **arguments) == expected


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_each_item_comes_once_while_others_are_made(order: str) -> None:
    """New runs appear in mid-iteration: none of the old ones is missed or doubled."""
    listing = Listing()
    async with HostileServer(listing) as server, AsyncClient(server.url) as client:
        seen = []
        async for run in client.runs.list("thread_1", limit=2, order=order):
            seen.append(run.id)
            if len(listing.ids) < 9:
                listing.ids.append(f"run_{len(listing.ids) + 1}")

    assert [one for one in seen if one in IDS] == (IDS if order == "asc" else IDS[::-1])
    assert len(seen) == len(set(seen))


async def test_no_more_is_fetched_than_is_asked_for() -> None:
    """`max_items` ends the iteration on its page; 0 sends nothing."""
    async with HostileServer(Listing()) as server, AsyncClient(server.url) as client:
        await ids_of(client, limit=2, max_items=0)
        assert server.requests == []
        await ids_of(client, limit=2, max_items=2)

    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"first_id": ..., "last_id": ...},
        {"first_id": None, "last_id": None},
        {"object": ..., "last_id": ""},
        {"has_more": ...},
        {"has_more": ..., "first_id": ..., "last_id": ..., "object": ...},
    ],
    ids=["no-cursors", "null-cursors", "empty-cursor", "no-has-more", "data-only"],
)
@pytest.mark.parametrize("arguments", [{}, {"before": "run_2"}], ids=["on", "back"])
async def test_iteration_is_complete_when_a_server_leaves_things_out(
    changes: dict[str, Any], arguments: dict[str, Any]
) -> None:
    """The items' own ids are the cursors, and a server that says nothing of more is asked."""
    async with HostileServer(Listing(**changes)) as server, AsyncClient(server.url) as client:
        found = await ids_of(client, limit=2, **arguments)

    assert found == (["run_3", "run_4", "run_5"] if arguments else IDS[::-1])


SAME = [page_of("run_1", "run_2")] * 3
CYCLE = [page_of("run_1", "run_2"), page_of("run_3", "run_4")] * 3
LATE_CYCLE = [page_of("run_1"), page_of("run_2"), page_of("run_3"), *[page_of("run_2")] * 3]


@pytest.mark.parametrize(
    ("pages", "expected"),
    [
        (SAME, ["run_1", "run_2"]),
        (CYCLE, ["run_1", "run_2", "run_3", "run_4"]),
        (LATE_CYCLE, ["run_1", "run_2", "run_3"]),
        ([page_of("run_1"), page_of()], ["run_1"]),
        ([page_of(has_more=True)], []),
        ([page_of("run_1", "run_1", "run_1"), page_of("run_1")], ["run_1"] * 3),
    ],
    ids=["same", "cycle", "late-cycle", "empty-tail", "empty", "repeats"],
)
async def test_iteration_ends_when_the_cursor_does_not_advance(
    pages: list[Answer], expected: list[str]
) -> None:
    """A server that turns in circles is left, without a duplicate."""
    left = list(pages)
    async with HostileServer(lambda _: left.pop(0)) as server, AsyncClient(server.url) as client:
        assert await ids_of(client) == expected


async def test_iteration_ends_when_the_server_answers_with_the_cursor_itself() -> None:
    """`after` is ignored and the first page, which is known, comes again."""
    first = page_of("run_5", "run_4")
    async with HostileServer(lambda _: first) as server, AsyncClient(server.url) as client:
        page = await client.runs.list("thread_1", after="run_4")
        following = await page.next_page()
        iterated = await ids_of(client, after="run_4")

    assert following is None
    assert iterated == []


async def test_page_is_awaited_and_leads_to_the_next() -> None:
    """`await` gives the first page, `next_page()` each further one, then None."""
    async with HostileServer(Listing()) as server, AsyncClient(server.url) as client:
        pages: list[Page[Run]] = []
        page: Page[Run] | None = await client.runs.list("thread_1", limit=2)
        while page is not None:
            pages.append(page)
            page = await page.next_page()

    assert [[run.id for run in one] for one in pages] == [
        ["run_5", "run_4"],
        ["run_3", "run_2"],
        ["run_1"],
    ]
    assert [one.has_more for one in pages] == [True, True, False]
    assert (pages[0].first_id, pages[0].last_id) == ("run_5", "run_4")
    assert pages[0].http is not None
    assert pages[0].data[0].http is None


async def test_pages_are_iterated_in_list_order() -> None:
    """`pages()` walks backwards with `before`, and each page stays in list order."""
    async with HostileServer(Listing()) as server, AsyncClient(server.url) as client:
        listed = client.runs.list("thread_1", limit=2, order="asc", before="run_5")
        pages = [[run.id for run in page] async for page in listed.pages()]

    assert pages == [["run_3", "run_4"], ["run_1", "run_2"]]


async def test_list_can_be_used_more_than_once() -> None:
    """Each iteration and each await starts anew."""
    async with HostileServer(Listing()) as server, AsyncClient(server.url) as client:
        listed = client.runs.list("thread_1", limit=3)
        page = await listed
        once = [run.id async for run in listed]
        twice = [run.id async for run in listed]

    assert once == twice == IDS[::-1]
    assert len(page) == 3


async def test_unknown_cursor_is_refused_by_name() -> None:
    """The server's 400 names it; what was not sent cannot be half a list."""
    async with HostileServer(Listing()) as server, AsyncClient(server.url) as client:
        with pytest.raises(BadRequestError, match="run_9"):
            await ids_of(client, after="run_9")


async def test_yielded_items_stay_yielded_when_a_later_page_fails() -> None:
    """The error comes after what was there, and says where it happened."""
    answers: list[Action] = [page_of("run_1", "run_2"), error(500)]
    async with (
        HostileServer(lambda _: answers.pop(0)) as server,
        AsyncClient(server.url, max_retries=0) as client,
    ):
        seen: list[str] = []
        with pytest.raises(InternalServerError) as caught:
            await walk(client.runs.list("thread_1"), seen)

    assert seen == ["run_1", "run_2"]
    assert caught.value.thread_id == "thread_1"


async def test_page_is_retried_like_any_other_get() -> None:
    """A 503 in mid-list costs a pause, not the list."""
    clock = ManualClock()
    answers: list[Action] = [
        page_of("run_1"),
        error(503, retry_after="2"),
        page_of("run_2", has_more=False),
    ]
    async with (
        HostileServer(lambda _: answers.pop(0)) as server,
        AsyncClient(server.url, seams=clock.runtime()) as client,
    ):
        assert await ids_of(client) == ["run_1", "run_2"]

    assert clock.slept == [2.0]


async def test_timeout_counts_for_each_page() -> None:
    """The consumer may take its time between pages; a page may not."""
    answers: list[Action] = [page_of("run_1"), page_of("run_2"), Hang()]
    async with (
        HostileServer(lambda _: answers.pop(0)) as server,
        AsyncClient(server.url) as client,
    ):
        seen: list[str] = []
        with pytest.raises(APITimeoutError):
            await walk(client.runs.list("thread_1", timeout=0.4), seen, pause=0.25)

    assert seen == ["run_1", "run_2"]


async def test_breaking_off_leaves_nothing_open() -> None:
    """With a single connection, a broken iteration does not keep the next call from it."""
    async with (
        HostileServer(Listing()) as server,
        AsyncClient(server.url, max_connections=1) as client,
    ):
        async for run in client.runs.list("thread_1", limit=1):
            assert run.id == "run_5"
            break
        page = await client.runs.list("thread_1", timeout=5)

    assert len(page) == 5
    assert len(server.requests) == 2


async def test_unreadable_item_costs_only_itself() -> None:
    """An item of a foreign shape is an `UnknownItem`, and the cursor still moves past it."""
    foreign = {"id": "run_2", "object": "thread.run", "status": {"is": "an object"}}
    first = page_of("run_1", data=[run_json(id="run_1"), foreign])
    answers = [first, page_of("run_3", has_more=False)]
    async with (
        HostileServer(lambda _: answers.pop(0)) as server,
        AsyncClient(server.url) as client,
    ):
        items: list[Any] = [run async for run in client.runs.list("thread_1")]

    assert [item.id for item in items] == ["run_1", "run_2", "run_3"]
    assert isinstance(items[1], UnknownItem)
    assert items[1].raw == foreign
    assert server.requests[1].query["after"] == ["run_2"]


async def test_page_without_ids_is_the_last() -> None:
    """Where neither the items nor the page name a cursor, the list cannot be followed."""
    answer = page_of(data=[{"no": "id"}], first_id=None, last_id=None)
    async with HostileServer(lambda _: answer) as server, AsyncClient(server.url) as client:
        page = await client.runs.list("thread_1")
        following = await page.next_page()
        items: list[Any] = [run async for run in client.runs.list("thread_1")]

    assert following is None
    assert items == [{"no": "id"}]
    assert items[0].raw == {"no": "id"}
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"limit": 0}, ValueError),
        ({"limit": -1}, ValueError),
        ({"limit": "2"}, TypeError),
        ({"limit": True}, TypeError),
        ({"max_items": -1}, ValueError),
        ({"max_items": 1.5}, TypeError),
        ({"order": "newest"}, ValueError),
        ({"after": ""}, ValueError),
        ({"before": "a/b"}, ValueError),
        ({"after": 7}, TypeError),
        ({"page_size": 2}, TypeError),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "make",
    [
        lambda client, arguments: client.runs.list("thread_1", **arguments),
        lambda client, arguments: client.messages.list("thread_1", **arguments),
        lambda client, arguments: client.assistants.list(**arguments),
        lambda client, arguments: client.runs.steps.list("run_1", thread_id="t", **arguments),
    ],
    ids=["runs", "messages", "assistants", "steps"],
)
async def test_wrong_arguments_are_refused_before_anything_is_sent(
    make: Callable[[AsyncClient, dict[str, Any]], Any],
    arguments: dict[str, Any],
    kind: type[Exception],
) -> None:
    """Already the call raises, and names the argument; nothing listens at this address."""
    async with AsyncClient("http://127.0.0.1:9/v1") as client:
        with pytest.raises(kind, match=next(iter(arguments))):
            make(client, arguments)


async def test_filters_and_extras_are_kept_on_every_page() -> None:
    """`run_id`, `include`, `extra_query` and `extra_headers` go with each request."""
    async with HostileServer(Listing()) as server, AsyncClient(server.url) as client:
        options: dict[str, Any] = {
            "limit": 2,
            "extra_query": {"api-version": "v1"},
            "extra_headers": {"X-Tenant": "t"},
        }
        messages = client.messages.list("thread_1", run_id="run_7", **options)
        assert len([message async for message in messages]) == 5
        steps = client.runs.steps.list(
            "run_1", thread_id="thread_1", include=(w for w in ["a[*].b"]), **options
        )
        assert len([step async for step in steps]) == 5

    for request in server.requests:
        assert request.query["limit"] == ["2"]
        assert request.query["api-version"] == ["v1"]
        assert request.headers["x-tenant"] == "t"
    assert [r.query.get("run_id") for r in server.requests[:3]] == [["run_7"]] * 3
    assert [r.query.get("include[]") for r in server.requests[3:]] == [["a[*].b"]] * 3


async def test_page_is_let_go_of_with_its_last_name() -> None:
    """A page does not hold itself: its hundred items need no garbage collector."""
    page = page_of(*IDS)
    async with HostileServer(lambda _: page) as server, AsyncClient(server.url) as client:
        first = await client.runs.list("thread_1")
        witness = Event()
        first.__dict__["witness"] = witness
        is_left = ref(witness)
        del witness

        gc.disable()
        try:
            del first
            assert is_left() is None
        finally:
            gc.enable()
