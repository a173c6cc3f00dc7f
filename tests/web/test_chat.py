"""A chat under each framework: answers by POST, history, stop, reload, and what goes wrong."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from openai_runs import AsyncClient, PollPolicy, RetryPolicy
from openai_runs.server import Fail, Hang, LocalServer, Say, ScriptedBackend
from openai_runs.web import Chat
from tests.relaying import Paced, frames_of, text_of, until_text
from tests.web.serving import (
    FRAMEWORKS,
    ids_of,
    is_idle,
    serve_chat,
    serve_site,
    statuses_of,
    until_busy,
)

NO_RETRY: dict[str, Any] = {
    "retry": RetryPolicy(max_retries=0),
    "poll": PollPolicy(initial=0, maximum=0, max_outage=0.05),
}


async def test_answer_is_read_while_it_is_written(serve: Any) -> None:
    """The first words come before the model has said the last; the page of them is the history."""
    model = Paced()
    async with serve(model) as site:
        browser = site.browser()
        async with browser.send("Hi!") as response:
            begin = await until_text(response.content.iter_any(), "Hello ")
            model.go_on.set()
            seen = frames_of(begin + await response.read())
        history = await browser.history()

    assert response.status == 200
    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert text_of(seen) == model.text
    assert statuses_of(seen)[-1] == "completed"
    assert seen[-1].event == "done"
    shown = [(one["role"], one["text"]) for one in history["messages"]]
    assert shown == [("user", "Hi!"), ("assistant", model.text)]
    assert (history["before"], history["waiting"]) == (None, [])


async def test_history_is_paged_from_the_newest(serve: Any) -> None:
    """Three at a time, the oldest first; each message once."""
    async with serve(ScriptedBackend(["a", "b", "c", "d"])) as site:
        browser = site.browser()
        for text in "1234":
            await browser.ask(text)
        pages = [await browser.history()]
        while (before := pages[0]["before"]) is not None:
            pages.insert(0, await browser.history(before))

    texts = [[one["text"] for one in page["messages"]] for page in pages]
    assert texts == [["1", "a"], ["2", "b", "3"], ["c", "4", "d"]]


async def test_history_of_a_user_who_has_said_nothing_is_empty(serve: Any) -> None:
    """And there is nothing to follow, and nothing to stop."""
    async with serve(ScriptedBackend()) as site:
        browser = site.browser()
        history = await browser.history()
        async with browser.follow() as response:
            status = response.status
        stopped = await browser.stop()

    assert history == {"messages": [], "before": None, "waiting": []}
    assert status == 204
    assert stopped is False


async def test_users_are_answered_at_once_each_on_a_thread_of_their_own(serve: Any) -> None:
    """One who waits holds up nobody, and nobody sees another's words."""
    async with serve(ScriptedBackend(lambda request: Say(f"You: {said(request)}"))) as site:
        users = [f"user{n}" for n in range(5)]
        answers: dict[str, str] = {}

        async def ask(user: str) -> None:
            answers[user] = text_of(await site.browser(user).ask(f"I am {user}"))

        async with anyio.create_task_group() as tasks:
            for user in users:
                tasks.start_soon(ask, user)
        threads = {(await site.chat.status(user)).thread_id for user in users}

    assert answers == {user: f"You: I am {user}" for user in users}
    assert len(threads) == len(users)


def said(request: Any) -> str:
    """Return what the user has said last."""
    return str(request.question)


async def test_run_of_another_user_is_not_found(serve: Any) -> None:
    """The ids come from the browser: only runs of the user's own thread are followed."""
    async with serve(ScriptedBackend(["secret", "other"])) as site:
        run_id, _ = ids_of(await site.browser("ada").ask("Hi!"))
        await site.browser("eve").ask("Hi!")
        for user in ("eve", "nobody"):
            async with site.browser(user).follow(run_id) as response:
                assert response.status == 404
                assert b"secret" not in await response.read()


@pytest.mark.parametrize("run_id", ["run_none", "..", "a b", "x" * 500, "é", "", "a%0Ab"])
async def test_wrong_ids_are_not_found(serve: Any, run_id: str) -> None:
    """No id that a browser can send is an error of the back end."""
    async with serve(ScriptedBackend(["a"])) as site:
        browser = site.browser()
        await browser.ask("Hi!")
        async with browser.follow(run_id) as response:
            assert response.status == 404
            error = (await response.json())["error"]
        if run_id:
            assert "error" in await browser.history(run_id)

    assert error["code"] == "not_found"


@pytest.mark.parametrize("last", ["none", "-1", "9" * 400, "é", "x:y"])
async def test_wrong_event_id_has_all_told_again_or_is_rejected(serve: Any, last: str) -> None:
    """It is the browser's to send anything."""
    async with serve(ScriptedBackend(["answer"])) as site:
        browser = site.browser()
        run_id, _ = ids_of(await browser.ask("Hi!"))
        async with browser.follow(run_id, last) as response:
            assert response.status in {200, 400, 404}


async def test_message_that_comes_meanwhile_is_answered_after_that(serve: Any) -> None:
    """`queue`: each in its own response, in order; the one that waits is shown as waiting."""
    async with serve(ScriptedBackend([Say("first", delay=0.3), "second"])) as site:
        browser, answers = site.browser(), []

        async def ask(text: str) -> None:
            answers.append(text_of(await browser.ask(text)))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, "1")
            await until_busy(site, 0)
            tasks.start_soon(ask, "2")
            while (history := await browser.history())["waiting"] != ["2"]:
                assert history["waiting"] in ([], ["1"], ["1", "2"])

    assert answers == ["first", "second"]


async def test_messages_that_wait_are_joined(serve: Any) -> None:
    """`join`: the response to the first of them ends, and that to the last has the answer."""
    model = Paced()
    async with serve(model, when_busy="join") as site:
        browser, answers = site.browser(), {}

        async def ask(text: str) -> None:
            answers[text] = await browser.ask(text)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, "1")
            await until_busy(site, 0)
            tasks.start_soon(ask, "2")
            await until_busy(site, 1)
            tasks.start_soon(ask, "3")
            await until_busy(site, 2)
            model.go_on.set()
        history = await browser.history()

    assert [text_of(answers[text]) for text in "123"] == [model.text, "", model.text]
    assert [one.event for one in answers["2"]] == ["done"]
    assert [one["text"] for one in history["messages"]] == ["2", "3", model.text]


async def test_message_that_interrupts_ends_the_answer_at_work(serve: Any) -> None:
    """`interrupt`: its response says `cancelled`, and the next one has the answer."""
    async with serve(ScriptedBackend([Hang("Well, "), "second"]), when_busy="interrupt") as site:
        browser = site.browser()
        async with browser.send("1") as response:
            await until_text(response.content.iter_any(), "Well, ")
            second = await browser.ask("2")
            first = frames_of(await response.read())

    assert statuses_of(first)[-1] == "cancelled"
    assert first[-1].event == "done"
    assert text_of(second) == "second"


async def test_stop_ends_the_answer_at_work(serve: Any) -> None:
    """The response says `cancelled` and ends; the next message is answered."""
    async with serve(ScriptedBackend([Hang("Well, "), "next"])) as site:
        browser = site.browser()
        async with browser.send("1") as response:
            await until_text(response.content.iter_any(), "Well, ")
            stopped = await browser.stop()
            seen = frames_of(await response.read())
        after = await browser.ask("2")

    assert stopped is True
    assert statuses_of(seen)[-1] == "cancelled"
    assert text_of(after) == "next"


async def test_failed_run_is_shown_with_its_reason(serve: Any) -> None:
    """A run that fails is an event of its stream, and its response ends with `done`."""
    async with serve(ScriptedBackend([Fail("Too much.", text="half"), "next"])) as site:
        browser = site.browser()
        seen = await browser.ask("1")
        after = await browser.ask("2")

    assert statuses_of(seen)[-1] == "failed"
    assert b"The answer failed." in seen[-2].data
    assert (text_of(seen), text_of(after)) == ("half", "next")


@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_error_before_the_first_frame_is_an_error_status(
    framework: str, tmp_path: Path
) -> None:
    """Not a stream that breaks; and the message after it is answered."""
    async with serve_chat(framework, ScriptedBackend(["answer"]), tmp_path) as site:
        assistant, site.assistant_id = site.assistant_id, "asst_none"
        reached = partial(AsyncClient, str(site.client.base_url), **NO_RETRY)
        async with serve_site(framework, site, reached, tmp_path), site.browser().send("1") as got:
            unknown = (got.status, (await got.json())["error"]["code"])
        site.assistant_id = assistant
        nobody = partial(AsyncClient, "http://127.0.0.1:9/v1", **NO_RETRY)
        async with serve_site(framework, site, nobody, tmp_path), site.browser().send("2") as got:
            unreachable = (got.status, (await got.json())["error"]["code"])
            assert b"127.0.0.1" not in await got.read()
        async with serve_site(framework, site, reached, tmp_path):
            after = await site.browser().ask("3")

    assert unknown == (502, "upstream_error")
    assert unreachable == (503, "upstream_unreachable")
    assert text_of(after) == "answer"


@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_error_in_the_middle_is_a_frame(framework: str, tmp_path: Path) -> None:
    """The server is gone: `error` is the last frame, and its text names no host."""
    model = Paced()
    async with (
        serve_chat("aiohttp", ScriptedBackend(), tmp_path) as site,
        LocalServer(backend=model) as server,
        AsyncClient(server.url) as other,
    ):
        site.assistant_id = (await other.assistants.create(model="m")).id
        make = partial(AsyncClient, server.url, **NO_RETRY)
        async with (
            serve_site(framework, site, make, tmp_path),
            site.browser().send("1") as response,
        ):
            begin = await until_text(response.content.iter_any(), "Hello ")
            await server.aclose()
            seen = frames_of(begin + await response.read())

    assert seen[-1].event == "error"
    assert b"127.0.0.1" not in seen[-1].data


async def test_user_may_not_have_any_number_of_messages_waiting(serve: Any) -> None:
    """The next one is refused with 429; other users' are not."""
    model = ScriptedBackend([Hang("a"), Hang("b")])
    async with (
        serve(model, max_waiting=1, on_disconnect="cancel") as site,
        site.browser().send("1") as first,
    ):
        await until_text(first.content.iter_any(), "a")
        async with site.browser().send("2") as refused:
            status, after = refused.status, refused.headers["Retry-After"]
        async with site.browser("eve").send("1") as other:
            await until_text(other.content.iter_any(), "b")

    assert (status, after) == (429, "5")


async def test_message_that_waits_long_has_its_response_begun(serve: Any) -> None:
    """With comments, which keep proxies from closing the connection."""
    async with serve(ScriptedBackend([Hang("a"), "second"]), heartbeat=0.05) as site:
        browser = site.browser()
        async with browser.send("1") as first:
            await until_text(first.content.iter_any(), "a")
            async with browser.send("2") as second:
                begin = b""
                while begin.count(b": keep-alive") < 2:
                    begin += await second.content.readany()
                assert frames_of(begin) == []
                await browser.stop()
                assert text_of(frames_of(await second.read())) == "second"


async def test_messages_that_wait_hold_three_requests_at_most(serve: Any) -> None:
    """A browser has six connections: further ones end once stored, and are answered in turn."""
    model = ScriptedBackend([Hang("Well, "), *"23456"])
    async with serve(model) as site:
        browser, answers = site.browser(), []

        async def ask(text: str) -> None:
            answers.append(text_of(await browser.ask(text)))

        async with browser.send("1") as first, anyio.create_task_group() as tasks:
            await until_text(first.content.iter_any(), "Well, ")
            for n in (1, 2):
                tasks.start_soon(ask, str(n + 1))
                await until_busy(site, n)
            for text in "456":
                assert await browser.ask(text) == []
            assert (await site.chat.status("ada")).waiting == list("23456")
            await browser.stop()
        await is_idle(site)
        newest = [one["text"] for one in (await browser.history())["messages"]]

    assert answers == ["2", "3"]
    assert newest == ["5", "6", "6"]


async def test_chat_that_is_not_open_says_so(tmp_path: Path) -> None:
    """In place of an answer that nobody makes."""
    async with AsyncClient("http://127.0.0.1:9/v1") as client:
        chat = Chat(client, assistant_id="asst_1", store=tmp_path / "chat.db")
        with pytest.raises(RuntimeError, match="async with"):
            await chat.send("ada", "Hi!")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        pytest.param({"on_disconnect": "leave"}, ValueError, id="on_disconnect"),
        pytest.param({"max_waiting": 0}, ValueError, id="max_waiting"),
        pytest.param({"heartbeat": -1}, ValueError, id="heartbeat"),
        pytest.param({"drain": "1"}, TypeError, id="drain"),
        pytest.param({"when_busy": "now"}, ValueError, id="when_busy"),
    ],
)
async def test_wrong_options_are_rejected(options: Any, error: Any) -> None:
    """Before anything is opened."""
    async with AsyncClient("http://127.0.0.1:9/v1") as client:
        with pytest.raises(error):
            Chat(client, assistant_id="asst_1", **options)
