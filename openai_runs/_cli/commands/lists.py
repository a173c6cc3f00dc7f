"""`openai-runs runs list`, `threads list`, `threads show` and `assistants list`: what is there."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from openai_runs import AsyncClient, Message, NotFoundError, OpenAIRunsError, Run
from openai_runs._cli.connecting import Place, check_ids, check_server, explained, reached
from openai_runs._cli.describing import assistant_row, moment, run_row, thread_row
from openai_runs._cli.ending import Stop
from openai_runs._cli.interrupting import carry_out
from openai_runs._cli.outputs import print_json, print_text, printable, say
from openai_runs._cli.terminal.table import table
from openai_runs.types import Assistant, Page, Thread

__all__ = ["Listing", "carry_out_at", "list_assistants", "list_runs", "list_threads", "show_thread"]

_MOST: Final = 100
"""Items of a page, as the API has it."""
_RUNS: Final = ("run", "thread", "status", "created", "model")
_ASSISTANTS: Final = ("assistant", "created", "model", "name")
_THREADS: Final = ("thread", "created", "metadata")


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """What is listed, and how much of it."""

    thread_id: str | None = None
    limit: int
    after: str | None = None
    json: bool
    place: Place


def list_runs(listing: Listing) -> int:
    """Print runs, the newest first; return the exit code.

    Raises:
        Stop: They cannot be listed.
        Closed: Nobody reads it.
    """
    return _carry_out(listing, partial(_list_runs, listing))


def list_assistants(listing: Listing) -> int:
    """Print assistants, the newest first; return the exit code.

    Raises:
        Stop: They cannot be listed.
        Closed: Nobody reads it.
    """
    return _carry_out(listing, partial(_list_assistants, listing))


def list_threads(listing: Listing) -> int:
    """Print threads, the newest first; return the exit code.

    Raises:
        Stop: They cannot be listed.
        Closed: Nobody reads it.
    """
    return _carry_out(listing, partial(_list_threads, listing))


def show_thread(listing: Listing) -> int:
    """Print a thread with its last messages; return the exit code.

    Raises:
        Stop: It cannot be shown.
        Closed: Nobody reads it.
    """
    return _carry_out(listing, partial(_show_thread, listing))


def carry_out_at(
    place: Place, work: Callable[[AsyncClient], Awaitable[None]], *, make: bool = False
) -> int:
    """Do something with what a server or a file has; return the exit code.

    Args:
        place: Which server, or which file.
        work: Called with a client of it.
        make: Whether a file that is not there is made.

    Raises:
        Stop: It cannot be done.
        Closed: Nobody reads what comes of it.
    """
    check_server(place)

    async def connected() -> int:
        async with reached(place, at_work=False, make=make) as client:
            await work(client)
        return 0

    try:
        return carry_out(connected)
    except OpenAIRunsError as error:
        raise explained(error, place) from error


def _carry_out(listing: Listing, work: Callable[[AsyncClient], Awaitable[None]]) -> int:
    check_ids(listing.place, thread_id=listing.thread_id, after=listing.after)
    return carry_out_at(listing.place, work)


async def _list_runs(listing: Listing, client: AsyncClient) -> None:
    path = "/runs" if listing.thread_id is None else f"/threads/{listing.thread_id}/runs"
    try:
        page = await _page(client, path, Page[Run], listing)
    except NotFoundError as error:
        if listing.thread_id is not None:
            raise
        sentence = "this server does not list the runs of all threads: name one with --thread"
        raise Stop(sentence) from error
    thread = "" if listing.thread_id is None else f" --thread {listing.thread_id}"
    _print(page, _RUNS, run_row, listing, f"runs list{thread}")


async def _list_assistants(listing: Listing, client: AsyncClient) -> None:
    page = await _page(client, "/assistants", Page[Assistant], listing)
    _print(page, _ASSISTANTS, assistant_row, listing, "assistants list")


async def _list_threads(listing: Listing, client: AsyncClient) -> None:
    try:
        page = await _page(client, "/threads", Page[Thread], listing)
    except NotFoundError as error:
        sentence = "this server does not list its threads; only some have GET /threads"
        raise Stop(sentence) from error
    _print(page, _THREADS, thread_row, listing, "threads list")


async def _page(client: AsyncClient, path: str, into: Any, listing: Listing) -> Any:
    query = {"limit": min(listing.limit, _MOST), "after": listing.after}
    given = {name: value for name, value in query.items() if value is not None}
    return await client.request("GET", path, query=given, into=into)


def _print(
    page: Page[Any],
    head: Sequence[str],
    row: Callable[[Any], Sequence[str]],
    listing: Listing,
    command: str,
) -> None:
    """Print a page, and how to see the next one."""
    if listing.json:
        print_json(page.to_dict())
    elif page.data:
        print_text(table(head, map(row, page.data)))
    else:
        say("none")
    if page.has_more and page.last_id and not listing.json:
        more = f"{command} --after {page.last_id} --limit {listing.limit}"
        say(f"more: openai-runs {more}{listing.place.options()}")


async def _show_thread(listing: Listing, client: AsyncClient) -> None:
    assert listing.thread_id is not None
    thread = await client.threads.retrieve(listing.thread_id)
    page = await client.messages.list(
        listing.thread_id, limit=min(listing.limit, _MOST), after=listing.after
    )
    if listing.json:
        print_json({"thread": thread.to_dict(), "messages": page.to_dict()})
        return
    print_text(printable("\n".join(_lines(thread, page))))
    if page.has_more and page.last_id:
        more = f"threads show {thread.id} --after {page.last_id} --limit {listing.limit}"
        say(f"earlier ones: openai-runs {more}{listing.place.options()}")


def _lines(thread: Thread, page: Page[Any]) -> list[str]:
    _, created, metadata = thread_row(thread)
    lines = [f"thread   {thread.id}", f"created  {created}"]
    if metadata:
        lines.append(f"metadata {metadata}")
    for message in reversed(page.data):
        lines.append("")
        if isinstance(message, Message):
            run = f", {message.run_id}" if message.run_id else ""
            lines.append(f"{message.role}, {moment(message.created_at)}{run}")
            lines.append(message.text or "(no text)")
        else:
            lines.append("a message of a shape this version cannot read; --json has all of it")
    return lines
