"""The page of the web guide after its thread was deleted at the server, in a real browser."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from openai_runs import AsyncClient
from openai_runs.server import ScriptedBackend
from tests.e2e.browsing import Tab
from tests.e2e.chat_page import SHOWN, STATUS, ask, open_page, serve
from tests.relaying import Paced

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

GONE = "This conversation is not there any more: begin a new one."


async def delete_thread(folder: Path) -> None:
    """Delete the thread of the one user at the server."""
    with closing(sqlite3.connect(folder / "conversations.db")) as store:
        (data,) = store.execute("SELECT data FROM conversations").fetchone()
    async with AsyncClient() as client:
        await client.threads.delete(json.loads(data)["thread_id"])


async def test_page_begins_a_new_conversation_where_the_thread_is_gone(
    page_folder: Path, monkeypatch: pytest.MonkeyPatch, tab: Tab
) -> None:
    """It says so to a message and after a reload; the button begins an empty one."""
    async with serve("chat.py", ScriptedBackend(["a", "b"]), monkeypatch) as url:
        await open_page(tab, url)
        await ask(tab, "1")
        await tab.until(STATUS, "completed")
        await delete_thread(page_folder)
        await ask(tab, "2")
        await tab.until(STATUS, GONE)
        await tab.until(SHOWN, "1|a|2 (not sent)")
        await tab.reload()
        await tab.until(STATUS, GONE)
        await tab.value('window.isOld = true; document.querySelector("#new").click()')
        await tab.until("`${window.isOld} ${document.readyState}`", "undefined complete")
        await ask(tab, "3")
        await tab.until(SHOWN, "3|b")


async def test_message_whose_answer_is_gone_was_sent(
    page_folder: Path, monkeypatch: pytest.MonkeyPatch, tab: Tab
) -> None:
    """The thread is deleted in mid-answer: the page says so, and marks no message as not sent."""
    async with serve("chat.py", Paced(), monkeypatch) as url:
        await open_page(tab, url)
        await ask(tab, "1")
        await tab.until(SHOWN, "1|Hello ")
        await delete_thread(page_folder)
        await tab.until(STATUS, GONE)
        await tab.until(SHOWN, "1|Hello ")
