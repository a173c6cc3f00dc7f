"""The stop button of the page of the web guide, in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from openai_runs.server import Hang, Say, ScriptedBackend
from tests.e2e.browsing import Tab
from tests.e2e.chat_page import (
    SHOWN,
    STATUS,
    ask,
    open_page,
    serve,
    serve_on_way,
)
from tests.relaying import Paced

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]


async def test_stop_that_comes_late_cancels_no_other_answer(
    page_folder: Path, monkeypatch: pytest.MonkeyPatch, tab: Tab
) -> None:
    """It is held up on its way, while the answer that was meant ends and the next one begins."""
    model = ScriptedBackend([Say(["Well"] * 30, pause=0.02), Say(["So"] * 30, pause=0.02)])
    hold_stop = """(() => {
        const send = window.fetch;
        window.fetch = async (url, options) => {
            if (url.includes("/stop")) {
                await new Promise((resume) => { window.sendStop = resume; });
                window.stopAnswer = await (await send(url, options)).clone().text();
            }
            return send(url, options);
        };
    })()"""
    async with serve("chat.py", model, monkeypatch) as url:
        await open_page(tab, url)
        await tab.value(hold_stop)
        await ask(tab, "1")
        await ask(tab, "2")
        await tab.until(f'{SHOWN}.includes("WellWell").toString()', "true")
        await tab.value('document.querySelector("#stop").click()')
        await tab.until(f'{SHOWN}.includes("So").toString()', "true")
        await tab.value("window.sendStop()")
        await tab.until("window.stopAnswer", "false")
        await tab.until(SHOWN, f"1|2|{'Well' * 30}|{'So' * 30}")


async def test_status_after_a_stop_is_that_of_the_run(
    page_folder: Path, monkeypatch: pytest.MonkeyPatch, tab: Tab
) -> None:
    """`stopping` until the run has ended; the stop that is held up finds it completed."""
    model = Paced()
    hold_stop = """(() => {
        const send = window.fetch;
        window.fetch = async (url, options) => {
            if (!url.includes("/stop")) return send(url, options);
            const response = await send(url.split("?")[0] + "?run_id=none", options);
            await new Promise((resume) => { window.endStop = resume; });
            return new Response("true"); // as of a back end before this one
        };
    })()"""
    keep = """(() => {
        window.statuses = [];
        const place = document.querySelector("#status");
        new MutationObserver(() => window.statuses.push(place.textContent)).observe(
            place, { childList: true });
    })()"""
    async with serve("chat.py", model, monkeypatch) as url:
        await open_page(tab, url)
        await tab.value(hold_stop)
        await ask(tab, "1")
        await tab.until(SHOWN, "1|Hello ")
        await tab.value(f"{keep}; document.querySelector('#stop').click()")
        await tab.until(STATUS, "stopping ...")
        await tab.until("typeof window.endStop", "function")
        await tab.value("window.endStop()")
        model.go_on.set()
        await tab.until(SHOWN, f"1|{model.text}")
        await tab.until(STATUS, "completed")
        statuses = await tab.value("window.statuses")

    assert statuses == ["stopping ...", "completed"]


@pytest.mark.usefixtures("impatient")
async def test_stop_while_the_server_is_down_is_no_error(
    page_folder: Path, monkeypatch: pytest.MonkeyPatch, tab: Tab
) -> None:
    """The page says that it is carried out later, and shows the end when it was."""
    async with serve_on_way(ScriptedBackend([Hang("Well, ")]), monkeypatch) as (url, way):
        await open_page(tab, url)
        await ask(tab, "1")
        await tab.until(SHOWN, "1|Well, ")
        way.close()
        await tab.value('document.querySelector("#stop").click()')
        later = "The answer is stopped as soon as the assistant can be reached."
        await tab.until(STATUS, later)
        way.open()
        await tab.until(STATUS, "cancelled")
        await tab.until(SHOWN, "1|Well,  (stopped)")


@pytest.mark.parametrize("is_other", [False, True], ids=["same-tab", "other-tab"])
async def test_stop_is_done_at_once_although_many_messages_wait(
    is_other: bool, page_folder: Path, monkeypatch: pytest.MonkeyPatch, tab: Tab
) -> None:
    """A browser has six connections to a host for all its tabs; all messages are answered."""
    model = ScriptedBackend([Hang("Well, "), *(f"answer {n}" for n in range(2, 11))])
    open_other = """(async () => {
        const { Chat } = await import("/chat.js");
        window.other = new Chat({ onMessage: () => {}, onStatus: ({ status }) => {
            window.otherStatus = status;
        } });
        window.other.follow();
    })()"""
    async with serve("chat.py", model, monkeypatch) as url:
        await open_page(tab, url)
        await ask(tab, "1")
        await tab.until(SHOWN, "1|Well, ")
        if is_other:
            await tab.value(f"void {open_other}")
            await tab.until("window.otherStatus", "in_progress")
        questions = [str(n) for n in range(2, 11)]
        for question in questions:
            await ask(tab, question)
        await tab.until(SHOWN, "|".join(["1", "Well, ", *questions]))
        stop = "other.stop()" if is_other else 'document.querySelector("#stop").click()'
        await tab.value(f"void {stop}")
        answers = [f"answer {n}" for n in questions]
        shown = ["1", "Well,  (stopped)", *questions, *answers]  # two that are short may cross
        await tab.until(f'{SHOWN}.split("|").sort().join("|")', "|".join(sorted(shown)))
        await tab.until(STATUS, "completed")


async def test_answers_that_come_and_go_between_two_connections_are_shown(
    page_folder: Path, monkeypatch: pytest.MonkeyPatch, tab: Tab
) -> None:
    """Those of messages whose requests have ended: the page reads them once it comes back."""
    model = ScriptedBackend([Hang("Well, "), *(f"answer {n}" for n in range(2, 7))])
    hold_back = """(() => {
        const now = window.fetch;
        window.hasFollowed = false;
        window.fetch = async (url, options) => {
            const isFollowing = String(url).includes("/events");
            while (isFollowing && window.hasFollowed && !window.isOver) {
                await new Promise((go) => setTimeout(go, 20));
            }
            const response = await now(url, options);
            window.hasFollowed ||= isFollowing && response.status === 200;
            return response;
        };
    })()"""
    count = """(fetch("/chat/history").then((one) => one.json()).then((one) => {
        window.count = String(one.messages.length);
    }), window.count)"""
    async with serve("chat.py", model, monkeypatch) as url:
        await open_page(tab, url)
        await tab.value(f"void {hold_back}")
        await ask(tab, "1")
        await tab.until(SHOWN, "1|Well, ")
        questions = [str(n) for n in range(2, 7)]
        for question in questions:
            await ask(tab, question)
        await tab.until(SHOWN, "|".join(["1", "Well, ", *questions]))
        await tab.until("String(window.hasFollowed)", "true")
        await tab.value('void document.querySelector("#stop").click()')
        await tab.until(count, "12")
        await tab.value("void (window.isOver = true)")
        shown = ["1", "Well,  (stopped)", *questions, *(f"answer {n}" for n in questions)]
        await tab.until(f'{SHOWN}.split("|").sort().join("|")', "|".join(sorted(shown)))
