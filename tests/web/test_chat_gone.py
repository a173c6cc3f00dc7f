"""The thread of a user is deleted, or of another server: each request says so, and how to go on."""

from __future__ import annotations

from typing import Any

import pytest

from openai_runs.server import ScriptedBackend
from tests.relaying import Paced, frames_of, text_of, until_text
from tests.web.serving import Site, ids_of, serve_chat


async def delete_thread(site: Site) -> None:
    """Delete the thread of the user at the server."""
    thread_id = (await site.chat.status("ada")).thread_id
    assert thread_id is not None
    await site.client.threads.delete(thread_id)


async def test_thread_that_is_gone_has_a_code_of_its_own_until_a_reset(serve: Any) -> None:
    """To the message, the history and whoever follows; the page can offer a new conversation."""
    async with serve(ScriptedBackend(["a", "b"])) as site:
        browser = site.browser()
        run_id, _ = ids_of(await browser.ask("1"))
        await delete_thread(site)
        answers = []
        async with browser.send("2") as sent, browser.follow(run_id) as followed:
            answers += [(one.status, (await one.json())["error"]) for one in (sent, followed)]
        shown = (await browser.history())["error"]
        await site.chat.reset("ada")
        empty = await browser.history()
        after = await browser.ask("3")

    assert [(status, error["code"]) for status, error in answers] == [(410, "thread_gone")] * 2
    assert shown == answers[0][1]
    assert shown["message"] == "This conversation is not there any more: begin a new one."
    assert empty == {"messages": [], "before": None, "waiting": []}
    assert text_of(after) == "b"


async def test_history_of_a_thread_that_is_gone_is_empty_where_a_new_one_is_begun(
    serve: Any,
) -> None:
    """Before the next message as after it: the page that is loaded shows no error."""
    async with serve(ScriptedBackend(["a", "b"]), missing_thread="new") as site:
        browser = site.browser()
        await browser.ask("1")
        await delete_thread(site)
        before = await browser.history()
        answer = await browser.ask("2")
        after = await browser.history()

    assert before == {"messages": [], "before": None, "waiting": []}
    assert text_of(answer) == "b"
    assert [one["text"] for one in after["messages"]] == ["2", "b"]


@pytest.mark.parametrize("before", ["msg_none", "thread_1"])
async def test_page_of_a_history_that_is_not_there_is_no_thread_that_is_gone(
    before: str, serve: Any
) -> None:
    """Only the thread itself is: an id that the browser names is refused as before."""
    async with serve(ScriptedBackend(["a"])) as site:
        await site.browser().ask("1")
        answer = await site.browser().history(before)

    assert answer["error"]["code"] in {"not_found", "bad_request"}


async def test_thread_that_is_deleted_in_mid_answer_is_gone_to_who_comes_back(
    tmp_path: Any,
) -> None:
    """Not an object that no reload brings back."""
    async with serve_chat("aiohttp", Paced(), tmp_path) as site:
        async with site.browser().send("1") as response:
            begin = frames_of(await until_text(response.content.iter_any(), "Hello "))
            await delete_thread(site)
        async with site.browser().follow(*ids_of(begin)) as followed:
            code = (await followed.json())["error"]["code"]

    assert (followed.status, code) == (410, "thread_gone")
