"""The page of the web guide where something is lost, refused or blank, in a real browser."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openai_runs.server import Say, ScriptedBackend
from openai_runs.testing import FaultProxy
from tests.e2e.browsing import Tab
from tests.e2e.chat_page import (
    CONNECTION,
    RECONNECTING,
    SHOWN,
    STATUS,
    ask,
    open_page,
    serve,
    serve_on_way,
)
from tests.relaying import Paced
from tests.web.outages import way_to

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]


@pytest.mark.usefixtures("impatient")
async def test_page_goes_on_after_the_back_end_has_lost_the_run(
    page_folder: Path, monkeypatch: pytest.MonkeyPatch, tab: Tab, caplog: pytest.LogCaptureFixture
) -> None:
    """It asks for the run until the server is back, and shows the rest of the answer."""
    model = Paced()
    async with serve_on_way(model, monkeypatch) as (url, way):
        await open_page(tab, url)
        await ask(tab, "1")
        await tab.until(SHOWN, "1|Hello ")
        way.close()
        while "a relayed stream failed" not in caplog.text:
            await tab.value("1")
        way.open()
        model.go_on.set()
        await tab.until(SHOWN, f"1|{model.text}")
        await tab.until(STATUS, "completed")


@pytest.mark.usefixtures("impatient")
async def test_page_asks_for_its_history_until_the_server_is_back(
    page_folder: Path, monkeypatch: pytest.MonkeyPatch, tab: Tab
) -> None:
    """It says so; what is sent meanwhile is marked, and sent then; the answer at work goes on."""
    model = Paced()
    async with serve_on_way(model, monkeypatch) as (url, way):
        await open_page(tab, url)
        await ask(tab, "1")
        await tab.until(SHOWN, "1|Hello ")
        way.close()
        await tab.reload()
        await tab.until(CONNECTION, RECONNECTING)
        await ask(tab, "2")
        await tab.until(SHOWN, "2 (sending ...)")
        way.open()
        await tab.until(SHOWN, "1|Hello |2")
        await tab.until(CONNECTION, "")
        model.go_on.set()
        await tab.until(SHOWN, f"1|{model.text}|2|{model.text}")
        await tab.until(STATUS, "completed")


async def test_page_says_that_it_reconnects_until_it_is_back(
    page_folder: Path, monkeypatch: pytest.MonkeyPatch, tab: Tab
) -> None:
    """Whether the page has lost its back end, or the back end its server."""
    model = Paced()
    async with (
        serve_on_way(model, monkeypatch) as (url, to_server),
        way_to(url) as to_back_end,
    ):
        await open_page(tab, to_back_end.url)
        await ask(tab, "1")
        await tab.until(SHOWN, "1|Hello ")
        for way in (to_server, to_back_end, to_server):
            way.close()
            await tab.until(CONNECTION, "The connection was lost. Reconnecting ...")
            way.open()
            await tab.until(CONNECTION, "")
        model.go_on.set()
        await tab.until(SHOWN, f"1|{model.text}")
        await tab.until(STATUS, "completed")


async def test_page_says_that_the_server_is_silent_until_it_is_not(
    page_folder: Path, monkeypatch: pytest.MonkeyPatch, tab: Tab
) -> None:
    """In mid-answer, and after a reload."""
    page, model = page_folder / "page.html", Paced()
    page.write_text(page.read_text().replace("new Chat({", "new Chat({ silence: 300,"))
    silent = "The server is silent. Waiting ..."  # the next comment comes after 15 s
    quiet = "No word yet. Waiting ..."
    async with serve("chat.py", model, monkeypatch) as url:
        await open_page(tab, url)
        await ask(tab, "1")
        await tab.until(SHOWN, "1|Hello ")
        await tab.until(CONNECTION, quiet)
        await tab.until(CONNECTION, silent)
        await tab.reload()
        await tab.until(SHOWN, "1|Hello ")
        await tab.until(CONNECTION, silent)
        model.go_on.set()
        await tab.until(SHOWN, f"1|{model.text}")
        await tab.until(STATUS, "completed")
        await tab.until(CONNECTION, "")


async def test_page_scrolls_with_the_answer_unless_its_reader_has_scrolled_up(
    page_folder: Path, monkeypatch: pytest.MonkeyPatch, tab: Tab
) -> None:
    """Also to the end of a long history that is loaded."""
    is_at_end = """(innerHeight + scrollY
        > document.documentElement.scrollHeight - 2).toString() + (scrollY > 0)"""
    long = "\n".join(WORDS)
    async with serve("chat.py", ScriptedBackend([long, long]), monkeypatch) as url:
        await open_page(tab, url)
        await ask(tab, "1")
        await tab.until(STATUS, "completed")
        await tab.until(is_at_end, "truetrue")
        await tab.reload()
        await tab.until(SHOWN, f"1|{long}")
        await tab.until(is_at_end, "truetrue")
        await tab.value("scrollTo(0, 0)")
        await ask(tab, "2")
        await tab.until(SHOWN, f"1|{long}|2|{long}")
        await tab.until(is_at_end, "falsefalse")


async def test_page_sends_no_blank_message_and_asks_for_no_icon(
    page_folder: Path, monkeypatch: pytest.MonkeyPatch, tab: Tab
) -> None:
    """Neither leaves a line in the log of the back end."""
    model = ScriptedBackend(["fine"])
    async with serve("chat.py", model, monkeypatch) as url, FaultProxy(url) as proxy:
        await open_page(tab, proxy.url)
        await ask(tab, "  \u3000 ")
        await ask(tab, "1")
        await tab.until(SHOWN, "1|fine")
        await tab.until(STATUS, "completed")
        paths = [f"{one.method} {one.path}" for one in proxy.requests]

    assert [one for one in paths if one.startswith("POST")] == ["POST /chat"]
    assert {one.partition("?")[0] for one in paths} == {
        "GET /",
        "GET /chat.js",
        "GET /chat/history",
        "GET /chat/events",
        "POST /chat",
    }


REFUSALS = {
    "own": ('{"error": {"message": "Wait.", "code": "c"}}', 409, "c: Wait."),
    "fastapi": ('{"detail": "Not yours"}', 403, "refused: Not yours"),
    "validation": (
        '{"detail": [{"loc": ["body", "text"], "msg": "Too long"}]}',
        422,
        "refused: text: Too long",
    ),
    "proxy": ("<h1>413</h1>", 413, "refused: The server rejects the request (413): reload"),
    "nothing": ("", 401, "refused: The server does not know who you are: reload the page"),
    "odd": ('{"error": null, "detail": {}}', 404, "refused: The server rejects the request (404)"),
    "null": ("null", 400, "refused: The server rejects the request (400)"),
    "sign-in": ("<h1>Sign in</h1>", 200, "refused: The server does not know who you are"),
}
"""Name -> (body, status, how what is shown begins)."""


async def test_refusal_is_shown_in_words_whoever_sent_it(
    page_folder: Path, monkeypatch: pytest.MonkeyPatch, tab: Tab
) -> None:
    """By this package, by FastAPI, by a proxy, or a page for signing in: to each request."""
    script = """(async () => {
        const { Chat } = await import("/chat.js");
        const wrong = [];
        for (const [name, [body, status, words]] of Object.entries(REFUSALS)) {
            for (const act of ["send", "follow", "history", "stop"]) {
                if (act === "stop" && status === 200) continue; // its body is not read
                let said = "";
                window.fetch = async () => new Response(body, { status });
                const chat = new Chat({ onError: ({ code, message }) => {
                    said += `${code}: ${message}`;
                } });
                await chat[act](act === "send" ? "1" : undefined);
                if (!said.startsWith(words)) wrong.push([name, act, said]);
            }
        }
        window.wrong = JSON.stringify(wrong);
    })()"""
    async with serve("chat.py", ScriptedBackend(), monkeypatch) as url:
        await open_page(tab, url)
        await tab.value(f"void {script.replace('REFUSALS', json.dumps(REFUSALS), 1)}")
        await tab.until("window.wrong", "[]")


async def test_error_of_the_page_is_no_lost_connection(
    page_folder: Path, monkeypatch: pytest.MonkeyPatch, tab: Tab
) -> None:
    """What `onMessage` throws is thrown to the caller, and nothing is asked again."""
    script = """(async () => {
        const { Chat } = await import("/chat.js");
        const lost = [];
        const onConnection = ({ isLost }) => lost.push(isLost);
        const chat = new Chat({ onConnection, onMessage: () => null.text });
        const error = await chat.send("1").catch((error) => error);
        window.thrown = `${error.cause?.name} ${lost.length}`;
    })()"""
    async with serve("chat.py", ScriptedBackend(["fine"]), monkeypatch) as url:
        await open_page(tab, url)
        await tab.value(f"void {script}")
        await tab.until("window.thrown", "TypeError 0")


WORDS = [f"{n} " for n in range(100)]


SHOWINGS = """(() => {
    window.showings = [];
    new MutationObserver(() => { window.showings.push(SHOWN); }).observe(
        document.querySelector("main"), { childList: true, subtree: true, characterData: true });
})()"""
"""Script that keeps all that the page shows from now on."""


@pytest.mark.parametrize("is_answering", [True, False], ids=["during", "after"])
async def test_page_shows_no_text_twice_when_a_message_is_sent_after_a_reload(
    is_answering: bool, page_folder: Path, monkeypatch: pytest.MonkeyPatch, tab: Tab
) -> None:
    """Whoever follows leaves the answer to the one that sent; the page has two readers then."""
    words = "".join(WORDS)
    model = ScriptedBackend([Say(WORDS, pause=0.02)] * 2)
    async with serve("chat.py", model, monkeypatch) as url:
        await open_page(tab, url)
        await ask(tab, "a")
        await tab.until(f'{SHOWN}.includes(" 9 ").toString()', "true")
        await tab.reload()
        await tab.until(f'{SHOWN}.includes(" 9 ").toString()', "true")
        await tab.value(SHOWINGS.replace("SHOWN", SHOWN))
        if not is_answering:
            await tab.until(STATUS, "completed")
        await ask(tab, "b")
        await tab.until(SHOWN, f"a|{words}|b|{words}")
        showings = await tab.value("window.showings")

    answers = {one.split("|b|")[1] for one in showings if "|b|" in one[2:]}
    assert [one for one in answers if not words.startswith(one)] == []


async def test_page_follows_what_another_tab_has_sent_after_its_own_answer(
    page_folder: Path, monkeypatch: pytest.MonkeyPatch, tab: Tab
) -> None:
    """The reader that has left an answer to another one asks for the next."""
    words = "".join(WORDS)
    model = ScriptedBackend([Say(WORDS, pause=0.02)] * 3)
    async with serve("chat.py", model, monkeypatch) as url:
        await open_page(tab, url)
        await ask(tab, "1")
        await tab.until(f'{SHOWN}.includes(" 9 ").toString()', "true")
        await tab.reload()
        await tab.until(f'{SHOWN}.includes(" 9 ").toString()', "true")
        await ask(tab, "2")
        await tab.until(f'{SHOWN}.includes("|2|0 1 2 ").toString()', "true")
        await tab.value(
            """void fetch("/chat", { method: "POST", body: JSON.stringify({ text: "3" }),
                headers: { "Content-Type": "application/json" } })"""
        )
        await tab.until(SHOWN, "|".join(["1", words, "2", words, words]))
