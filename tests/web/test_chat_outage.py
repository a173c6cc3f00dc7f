"""The server cannot be reached for longer than a stream waits: the run stays the user's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from openai_runs import AsyncClient, PollPolicy, RetryPolicy
from openai_runs.conversations import SQLiteStore
from openai_runs.conversations.access import Access
from openai_runs.conversations.record import Record
from openai_runs.server import Hang, ScriptedBackend
from tests.relaying import Paced, frames_of, text_of, until_text
from tests.web.outages import Way, way_to
from tests.web.serving import Site, ids_of, is_idle, serve_chat, serve_site, statuses_of, until_busy

IMPATIENT: dict[str, Any] = {
    "retry": RetryPolicy(max_retries=0),
    "poll": PollPolicy(initial=0, maximum=0.01, max_outage=0.05),
}


@asynccontextmanager
async def serve_on_way(model: Any, folder: Path) -> AsyncIterator[tuple[Site, Way]]:
    """Serve a chat whose client reaches the server on a way that can be closed."""
    async with (
        serve_chat("aiohttp", model, folder) as site,
        way_to(str(site.client.base_url)) as way,
    ):
        make = partial(AsyncClient, way.url, **IMPATIENT)
        async with serve_site("aiohttp", site, make, folder, lease=0.2, drain=0.1):
            yield site, way


async def lose(site: Site, way: Way, text: str) -> list[Any]:
    """Send a message, and return its frames after the way was closed in mid-answer."""
    async with site.browser().send("1") as response:
        begin = await until_text(response.content.iter_any(), text)
        way.close()
        return frames_of(begin + await response.read())


async def test_run_is_followed_to_its_end_when_the_server_is_back(tmp_path: Path) -> None:
    """By its id and last event the rest, without them the whole; then nothing is at work."""
    model = Paced()
    async with serve_on_way(model, tmp_path) as (site, way):
        seen = await lose(site, way, "Hello ")
        busy = await site.chat.status("ada")
        way.open()
        async with (
            site.browser().follow(*ids_of(seen[:-1])) as rest,
            site.browser().follow() as whole,
        ):
            model.go_on.set()
            bodies = [frames_of(await one.read()) for one in (rest, whole)]
        await is_idle(site)
        history = await site.browser().history()

    assert (seen[-1].event, busy.run_id) == ("error", ids_of(seen[:-1])[0])
    assert b"stream_interrupted" in seen[-1].data
    assert [text_of(frames) for frames in bodies] == ["you", model.text]
    assert [one["text"] for one in history["messages"]] == ["1", model.text]


@pytest.mark.parametrize("is_down", [True, False], ids=["during", "after"])
async def test_stop_ends_the_run_that_was_lost(tmp_path: Path, is_down: bool) -> None:
    """One that comes during the outage is carried out after it."""
    async with serve_on_way(ScriptedBackend([Hang("Well, "), "next"]), tmp_path) as (site, way):
        run_id, _ = ids_of((await lose(site, way, "Well, "))[:-1])
        if not is_down:
            way.open()
        async with site.session.post(
            f"{site.url}/chat/stop", headers={"X-User": "ada"}
        ) as response:
            status = response.status
        way.open()
        thread_id = (await site.chat.status("ada")).thread_id
        run = await site.client.runs.wait(run_id, thread_id=thread_id)
        await is_idle(site)
        after = await site.browser().ask("2")

    assert status == (503 if is_down else 200)
    assert run.status == "cancelled"
    assert text_of(after) == "next"


async def test_next_message_is_answered_after_the_run_that_was_lost(tmp_path: Path) -> None:
    """It waits for that answer, and both are in the history."""
    model = Paced()
    async with serve_on_way(model, tmp_path) as (site, way):
        await lose(site, way, "Hello ")
        way.open()
        model.go_on.set()
        answer = await site.browser().ask("2")
        page = await site.browser().history()

    assert statuses_of(answer)[-1] == "completed"
    assert [one["text"] for one in page["messages"]] == [model.text, "2", model.text]


async def test_message_that_holds_no_connection_outlasts_an_outage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its browser has been answered: no error would be seen, so it is answered after the outage."""
    async with serve_on_way(ScriptedBackend([Hang("Well, "), *"234"]), tmp_path) as (site, way):
        browser = site.browser()
        async with (
            browser.send("1") as first,
            anyio.create_task_group() as tasks,
        ):
            await until_text(first.content.iter_any(), "Well, ")
            for n in (1, 2):
                tasks.start_soon(browser.ask, str(n + 1))
                await until_busy(site, n)
            assert await browser.ask("4") == []
            way.close()
            while "message 4 of" not in caplog.text:  # noqa: ASYNC110 - another task's doing
                await anyio.sleep(0.02)
            way.open()
            await site.chat.stop("ada")
        await is_idle(site)
        page = await browser.history()

    assert [one["text"] for one in page["messages"]][-2:] == ["4", "2"]


def is_untried(record: Record) -> bool:
    """Return whether the message still waits to be adopted, left again, or answered."""
    return bool(record.waiting) if record.claim is None else record.claim.until > 0


async def test_message_of_a_killed_process_outlasts_an_outage(tmp_path: Path) -> None:
    """Nobody else would send it again: the search tries it until the server can be reached."""
    async with serve_on_way(ScriptedBackend(["answer"]), tmp_path) as (site, way):
        way.close()
        store = SQLiteStore(tmp_path / "chat.db")
        change = Access(site.client, store, 0).change
        await change('"ada"', partial(Record.add, text="1", owner="killed", until=0))
        # Without a pause this would keep the file locked.
        while await change('"ada"', is_untried):  # noqa: ASYNC110 - another task's doing
            await anyio.sleep(0.02)
        way.open()
        await is_idle(site)
        history = await site.browser().history()
        await store.aclose()

    assert [one["text"] for one in history["messages"]] == ["1", "answer"]


async def test_answer_that_is_lost_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By who relays it; the chat, which leaves the run to its search, says nothing more of it."""
    async with serve_on_way(Paced(), tmp_path) as (site, way):
        await lose(site, way, "Hello ")
    found = [one.getMessage() for one in caplog.records]

    assert len([one for one in found if "a relayed stream failed" in one]) == 1
    assert [one for one in found if "an answer failed" in one] == []


async def test_server_that_is_down_is_one_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """For each request that fails, without a traceback."""
    async with serve_on_way(ScriptedBackend(), tmp_path) as (site, way):
        way.close()
        async with site.browser().send("1") as response:
            status = response.status
    records = [one for one in caplog.records if one.name == "openai_runs.web"]

    assert status == 503
    assert [one.exc_info for one in records] == [None]
