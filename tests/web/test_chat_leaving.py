"""A browser leaves a chat and comes back, or the application ends: what becomes of the answer."""

from __future__ import annotations

import asyncio
import gc
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from openai_runs import AsyncClient, ConfigError
from openai_runs.conversations import SQLiteStore
from openai_runs.conversations.access import Access
from openai_runs.conversations.record import Record
from openai_runs.server import Call, CallTools, Fail, Hang, Say, ScriptedBackend
from openai_runs.web import Chat
from tests.relaying import Paced, frames_of, text_of, until_text
from tests.web.serving import (
    FRAMEWORKS,
    Site,
    ids_of,
    is_idle,
    serve_chat,
    serve_site,
    statuses_of,
    until_busy,
)

SECRET = "disk full at /secret/path"


@pytest.mark.parametrize("on_disconnect", ["continue", "cancel"])
async def test_browser_that_leaves_has_the_policy_carried_out(
    serve: Any, on_disconnect: str
) -> None:
    """The answer is written to its end, or its run is cancelled; nothing is left either way."""
    model = Paced()
    async with serve(model, on_disconnect=on_disconnect, heartbeat=0.05) as site:
        browser = site.browser()
        async with browser.send("Hi!") as response:
            begin = frames_of(await until_text(response.content.iter_any(), "Hello "))
            response.close()
        if on_disconnect == "continue":
            model.go_on.set()
        run_id, _ = ids_of(begin)
        thread_id = (await site.chat.status("ada")).thread_id
        run = await site.client.runs.wait(run_id, thread_id=thread_id)
        await is_idle(site)

        assert site.chat._waiting == {}

    assert run.status == {"continue": "completed", "cancel": "cancelled"}[on_disconnect]


@pytest.mark.parametrize("names_the_run", [True, False], ids=["same-page", "reload"])
async def test_browser_that_comes_back_has_the_rest_of_the_answer(
    serve: Any, names_the_run: bool
) -> None:
    """With run and last event what it has not seen, and without them all of the answer."""
    model = Paced()
    async with serve(model) as site:
        browser = site.browser()
        async with browser.send("Hi!") as response:
            begin = frames_of(await until_text(response.content.iter_any(), "Hello "))
            response.close()
        run_id, last = ids_of(begin)
        place = (run_id, last) if names_the_run else (None, "")
        async with browser.follow(*place) as response:
            model.go_on.set()
            rest = frames_of(await response.read())
        await is_idle(site)
        async with browser.follow() as response:
            assert response.status == 204

    assert text_of(rest) == ("you" if names_the_run else model.text)
    assert rest[-1].event == "done"


async def test_run_that_is_over_can_still_be_followed_by_its_id(serve: Any) -> None:
    """The connection may have been lost just before the end."""
    async with serve(ScriptedBackend(["answer"])) as site:
        browser = site.browser()
        seen = await browser.ask("Hi!")
        run_id, _ = ids_of(seen)
        async with browser.follow(run_id, seen[-3].id) as response:
            rest = frames_of(await response.read())

    assert [one.event for one in rest] == [one.event for one in seen[-2:]]


ASKS: list[Any] = [CallTools([Call("weather", {"city": "Oslo"})]), "It is sunny."]
"""A model that asks for the weather, and then says it."""


class HeldTool:
    """A tool that is called, and answers when it may."""

    def __init__(self) -> None:
        self.is_asked, self.go_on = asyncio.Event(), asyncio.Event()

    async def weather(self, city: str) -> str:
        """Return the weather of a city."""
        self.is_asked.set()
        await self.go_on.wait()
        return f"sunny in {city}"


async def test_tools_are_answered_although_the_browser_has_left(serve: Any) -> None:
    """The answer is the back end's, not the request's."""
    tool = HeldTool()
    async with serve(ScriptedBackend(ASKS), tools=[tool.weather], heartbeat=0.05) as site:
        browser = site.browser()
        async with browser.send("?") as response:
            await tool.is_asked.wait()
            response.close()
        tool.go_on.set()
        await is_idle(site)
        history = await browser.history()

    assert [one["text"] for one in history["messages"]] == ["?", "It is sunny."]


async def test_browser_that_comes_back_while_tools_run_has_the_rest_after_them(serve: Any) -> None:
    """Its frames end at `requires_action`; it asks again, and misses nothing."""
    tool = HeldTool()
    async with serve(ScriptedBackend(ASKS), tools=[tool.weather], heartbeat=0.05) as site:
        browser = site.browser()
        async with browser.send("?") as response:
            await tool.is_asked.wait()
            response.close()
        async with browser.follow() as response:
            seen = frames_of(await response.read())
        waiting = (statuses_of(seen)[-1], seen[-1].event)
        tool.go_on.set()
        await is_idle(site)
        async with browser.follow(*ids_of(seen)) as response:
            rest = frames_of(await response.read())

    assert waiting == ("requires_action", "done")
    assert text_of(rest) == "It is sunny."
    assert statuses_of(rest)[-1] == "completed"


@pytest.mark.parametrize("on_disconnect", ["continue", "cancel"])
async def test_application_that_ends_leaves_its_answer_to_the_next(
    tmp_path: Path, on_disconnect: str
) -> None:
    """After `drain` seconds: its run goes on, and a browser that comes back follows it."""
    model = Paced()
    async with serve_chat("aiohttp", model, tmp_path) as site:
        again = partial(AsyncClient, str(site.client.base_url))
        async with serve_site(
            "aiohttp", site, again, tmp_path, drain=0.05, on_disconnect=on_disconnect
        ):
            response = await site.browser().send("1").__aenter__()
            begin = frames_of(await until_text(response.content.iter_any(), "Hello "))
            site.chat.end_responses()
            rest = frames_of(await response.read())
        async with serve_site("aiohttp", site, again, tmp_path):
            async with site.browser().follow(*ids_of(begin)) as followed:
                model.go_on.set()
                seen = frames_of(await followed.read())
            await is_idle(site)
            history = await site.browser().history()

    assert rest == []
    assert (text_of(seen), seen[-1].event) == ("you", "done")
    assert [one["text"] for one in history["messages"]] == ["1", model.text]


async def test_responses_that_follow_and_wait_end_with_the_application(serve: Any) -> None:
    """Without `done`, also those to come: a message that is sent by then is stored."""
    async with serve(Paced(), heartbeat=0.05) as site:
        browser = site.browser()
        async with browser.send("1") as first:
            await until_text(first.content.iter_any(), "Hello ")
            async with browser.follow() as followed, browser.send("2") as second:
                await until_text(followed.content.iter_any(), "Hello ")
                site.chat.end_responses()
                bodies = [frames_of(await one.read()) for one in (first, followed, second)]
        third = await browser.ask("3")
        waiting = (await browser.history())["waiting"]

    assert bodies == [[], [], []]
    assert third == []
    assert waiting == ["2", "3"]


async def test_answer_at_work_has_time_to_end_when_the_application_ends(tmp_path: Path) -> None:
    """And a browser that comes back to the next process finds it in the history."""
    async with serve_chat("aiohttp", ScriptedBackend([Say("whole", delay=0.2)]), tmp_path) as site:
        again = partial(AsyncClient, str(site.client.base_url))
        async with (
            serve_site("aiohttp", site, again, tmp_path),
            site.browser().send("1") as response,
        ):
            await until_busy(site, 0)
            response.close()
        async with serve_site("aiohttp", site, again, tmp_path):
            history = await site.browser().history()

    assert [one["text"] for one in history["messages"]] == ["1", "whole"]


async def test_local_server_of_the_application_closes_with_it(tmp_path: Path) -> None:
    """`AsyncClient.local()` is opened in the application's loop, and its file is free after it."""
    file = tmp_path / "runs.db"
    async with serve_chat("fastapi", ScriptedBackend(), tmp_path) as site:
        async with AsyncClient.local(file) as client:
            site.assistant_id = (await client.assistants.create(model="echo")).id
        for framework in FRAMEWORKS:
            local = partial(AsyncClient.local, file)
            async with serve_site(framework, site, local, tmp_path):
                assert text_of(await site.browser(framework).ask("Hello")) == "Hello"


@pytest.mark.parametrize("on_disconnect", ["continue", "cancel"])
async def test_forgotten_frames_count_as_left(tmp_path: Path, on_disconnect: Any) -> None:
    """Whether a frame was taken or not: some frameworks just forget what they no longer send."""
    async with serve_chat("aiohttp", ScriptedBackend([Hang("a"), "next"]), tmp_path) as site:
        chat = site.chat
        frames = await chat.send("ada", "1", on_disconnect=on_disconnect)
        await until_busy(site, 0)
        gc.disable()
        try:
            del frames
            if on_disconnect == "continue":
                await until_busy(site, 0)
                await chat.stop("ada")
            await is_idle(site)
        finally:
            gc.enable()

        assert text_of(frames_of([part async for part in await chat.send("ada", "2")])) == "next"


async def test_browser_that_reads_nothing_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its frames end early, without `done`; it comes back for the rest, and misses nothing."""
    monkeypatch.setattr("openai_runs.web.frame_buffer.CHAT_BUFFER_BYTES", 4_000)
    long = [f"word{n} " for n in range(300)]
    model = ScriptedBackend([Say(long), "next"])
    async with serve_chat("aiohttp", model, tmp_path) as site:
        frames = await site.chat.send("ada", "1")
        await is_idle(site)
        begin = frames_of([part async for part in frames])
        run_id, last = ids_of(begin)
        rest = await site.chat.follow("ada", run_id, last_event_id=last)
        assert rest is not None
        seen = begin + frames_of([part async for part in rest])

    assert begin[-1].event != "done"
    assert seen.pop().event == "done"
    assert text_of(seen) == "".join(long)
    assert len({one.id for one in seen}) == len(seen)


async def test_message_that_a_killed_process_has_left_is_answered(tmp_path: Path) -> None:
    """The next process answers it by itself, and the browser that comes back follows it."""
    store = SQLiteStore(tmp_path / "chat.db")
    async with serve_chat("aiohttp", ScriptedBackend(["answer"]), tmp_path) as site:
        add = Access(site.client, store, 0).change
        await add('"ada"', partial(Record.add, text="1", owner="killed", until=0))
        again = partial(AsyncClient, str(site.client.base_url))
        async with serve_site("aiohttp", site, again, tmp_path):
            await is_idle(site)
            history = await site.browser().history()
        await store.aclose()

    assert [one["text"] for one in history["messages"]] == ["1", "answer"]


async def test_search_for_what_was_left_goes_on_after_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A store that cannot be read for a moment ends no chat; the log says so."""
    monkeypatch.setattr("openai_runs.web.chat._PAUSE", 0.01)

    class Store(SQLiteStore):
        failures = 2

        async def open_keys(self) -> list[str]:
            if self.failures:
                self.failures -= 1
                raise OSError
            return await super().open_keys()

    store = Store(tmp_path / "other.db")
    model = ScriptedBackend(["answer"])
    async with serve_chat("aiohttp", model, tmp_path, store=store) as site:
        await Access(site.client, store, 0).change(
            '"ada"', partial(Record.add, text="1", owner="killed", until=0)
        )
        while not (await site.browser().history())["messages"]:
            pass
        await is_idle(site)
    await store.aclose()

    assert "abandoned" in caplog.text


async def test_store_that_fails_is_an_error_of_the_request(tmp_path: Path) -> None:
    """Not one of the chat, which goes on for all others; nothing of its text is shown."""

    class Store(SQLiteStore):
        async def change(self, key: str, change: Any) -> Any:
            if key == '"ada"':
                raise OSError(SECRET)
            return await super().change(key, change)

    store = Store(tmp_path / "other.db")
    model = ScriptedBackend(["answer"])
    async with serve_chat("aiohttp", model, tmp_path, store=store) as site:
        async with site.browser("ada").send("1") as response:
            failed, body = response.status, await response.read()
        answer = text_of(await site.browser("eve").ask("1"))
    await store.aclose()

    assert (failed, answer) == (500, "answer")
    assert SECRET.encode() not in body


@pytest.mark.parametrize("kind", ["garbage", "folder", "no-folder"])
async def test_application_does_not_start_when_its_store_cannot_be_used(
    kind: str, tmp_path: Path
) -> None:
    """The error names the file; nothing is left open, and it starts once the file is away."""
    path = tmp_path / "chat.db"
    if kind == "garbage":
        path.write_bytes(b"no database " * 1000)
    elif kind == "folder":
        path.mkdir()
    else:
        path = tmp_path / "none" / "chat.db"
    async with AsyncClient("http://127.0.0.1:9/v1") as client:
        chat = Chat(client, assistant_id="asst_1", store=path)
        with pytest.raises(ConfigError, match=str(path)):
            await chat.__aenter__()
        async with Chat(client, assistant_id="asst_1", store=tmp_path / "other.db"):
            pass


async def test_application_may_be_closed_in_another_task(tmp_path: Path) -> None:
    """As fixtures of test frameworks do."""
    async with AsyncClient.local() as client:
        assistant = await client.assistants.create(model="echo")
        chat = Chat(client, assistant_id=assistant.id, store=tmp_path / "chat.db")
        await asyncio.create_task(chat.__aenter__())
        frames = [part async for part in await chat.send("ada", "Hello")]
        await asyncio.create_task(chat.aclose())
        await chat.aclose()

    assert text_of(frames_of(frames)) == "Hello"


async def test_nothing_is_left_behind(serve: Any) -> None:
    """No task of the chat's, and no connection: after answers, leaving, a stop and an error."""
    before = asyncio.all_tasks()
    model = ScriptedBackend(["a", Hang("b"), Hang("c"), Fail()])
    async with serve(model, on_disconnect="cancel") as site:
        browser = site.browser()
        await browser.ask("1")
        async with browser.send("2") as response:
            await until_text(response.content.iter_any(), "b")
        await is_idle(site)
        async with browser.send("3") as response:
            await until_text(response.content.iter_any(), "c")
            await browser.stop()
        await browser.ask("4")
        await is_idle(site)
    left = asyncio.all_tasks() - before

    assert [task.get_name() for task in left if "openai_runs" in task.get_name()] == []


async def test_browser_may_come_back_to_another_process(serve: Any, tmp_path: Path) -> None:
    """Two on one store: the other one has the rest of the answer, the history, and the stop."""
    model = ScriptedBackend([Hang("Well, ")])
    async with serve(model) as one:
        other = Site(one.session, one.client, one.assistant_id)
        again = partial(AsyncClient, str(one.client.base_url))
        async with (
            serve_site("aiohttp", other, again, tmp_path),
            one.browser().send("1") as response,
        ):
            begin = frames_of(await until_text(response.content.iter_any(), "Well, "))
            async with other.browser().follow() as followed:
                seen = await until_text(followed.content.iter_any(), "Well, ")
                stopped = await other.browser().stop()
                seen += await followed.read()
            history = await other.browser().history()
            rest = frames_of(await response.read())

    assert stopped is True
    assert ids_of(begin)[0] == ids_of(frames_of(seen))[0]
    assert statuses_of(frames_of(seen))[-1] == statuses_of(rest)[-1] == "cancelled"
    assert [one["text"] for one in history["messages"]] == ["1", "Well, "]


@pytest.mark.parametrize("key", ["a", "é" * 3000], ids=["short", "long"])
async def test_message_that_is_sent_twice_is_answered_once(serve: Any, key: str) -> None:
    """The second response ends at once, without `done`; another key is another message."""
    model = Paced()
    async with serve(model) as site:
        browser = site.browser()
        async with browser.send("1", key) as response:
            begin = await until_text(response.content.iter_any(), "Hello ")
            async with browser.send("1", key) as again:
                second = frames_of(await again.read())
            model.go_on.set()
            first = frames_of(begin + await response.read())
        async with browser.send("1", key) as late:
            third = frames_of(await late.read())
        async with browser.send("2", f"{key}b") as response:
            other = frames_of(await response.read())
        history = await browser.history()

    assert (second, third) == ([], [])
    assert text_of(first) == text_of(other) == model.text
    assert history["before"] is not None
    assert [one["text"] for one in history["messages"]] == [model.text, "2", model.text]
