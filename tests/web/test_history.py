"""What the history of a chat says of answers that are not whole."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from openai_runs import Message, Run
from openai_runs.server import Fail, Hang, ScriptedBackend
from openai_runs.web.history import shown_messages
from tests.relaying import until_text
from tests.web.serving import is_idle, until_busy


async def test_history_says_how_each_answer_ended(serve: Any) -> None:
    """Stopped, failed or whole, with words and without: each behind its own question."""
    model = ScriptedBackend(
        [Fail("No."), "fine", Fail("No.", text="half"), Hang("Well, "), Hang(), "last"]
    )
    async with serve(model) as site:
        browser, chat = site.browser(), site.chat
        for text in "123":
            await browser.ask(text)
        async with browser.send("4") as response:
            await until_text(response.content.iter_any(), "Well, ")
            await browser.stop()
            await response.read()
        async with browser.send("5") as response:
            await until_busy(site, 0)
            await browser.stop()
            await response.read()
        await browser.ask("6")
        await is_idle(site)
        page = await chat.history("ada", limit=50)

    assert [(one.text, one.status) for one in page.messages] == [
        ("1", None),
        ("", "failed"),
        ("2", None),
        ("fine", None),
        ("3", None),
        ("half", "failed"),
        ("4", None),
        ("Well, ", "cancelled"),
        ("5", None),
        ("", "cancelled"),
        ("6", None),
        ("last", None),
    ]


def _messages(*rows: tuple[str, int, str | None]) -> list[Message]:
    whole: list[dict[str, Any]] = [
        {
            "id": f"msg_{n}",
            "object": "thread.message",
            "created_at": at,
            "thread_id": "thread_1",
            "role": role,
            "content": [],
            "run_id": run_id,
        }
        for n, (role, at, run_id) in enumerate(rows)
    ]
    return msgspec.convert(whole, list[Message])


def _runs(*rows: tuple[str, int, str]) -> list[Run]:
    whole = [
        {
            "id": run_id,
            "object": "thread.run",
            "created_at": at,
            "thread_id": "thread_1",
            "assistant_id": "asst_1",
            "status": status,
        }
        for run_id, at, status in rows
    ]
    return msgspec.convert(whole, list[Run])


@pytest.mark.parametrize("is_newest", [True, False], ids=["newest", "older"])
def test_end_without_a_word_is_placed_by_time_where_questions_name_no_run(is_newest: bool) -> None:
    """As on servers of others; an end that may have words on the next page is not shown."""
    messages = _messages(
        ("user", 5, None), ("user", 5, None), ("assistant", 6, "run_2"), ("user", 8, None)
    )
    runs = _runs(
        ("run_3", 8, "failed"),
        ("run_2", 5, "completed"),
        ("run_1", 5, "cancelled"),
        ("run_0", 1, "failed"),
    )
    shown = shown_messages(messages, runs, is_newest=is_newest)
    wanted = ["msg_0", "run_1", "msg_1", "msg_2", "msg_3", *(["run_3"] if is_newest else [])]

    assert [one.id for one in shown] == wanted
    assert shown[1].status == "cancelled"
