"""The chats of the guide as they stand there: how long they are, and what they do.

The page is shown by a real browser, in `poe long browser`.
"""

from __future__ import annotations

import ast
import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import anyio
import pytest

from openai_runs.server import Fail, Hang, Say, ScriptedBackend
from openai_runs.testing import Cut, FaultProxy, Reset
from openai_runs.web import SCRIPT
from tests.e2e.browsing import Tab
from tests.e2e.chat_page import (
    PROGRAMS,
    SHOWN,
    STATUS,
    ask,
    open_page,
    program,
    serve,
)
from tests.relaying import frames_of, text_of

pytestmark = pytest.mark.timeout(120)  # a browser takes its time to start

QUESTION = "Größe, <b>bold</b> & 'quoted'. 終"
WORDS = [f"word{n} <b>ü</b> " for n in range(300)]


@pytest.mark.parametrize("name", PROGRAMS[:1])
def test_chat_has_at_most_30_statements(name: str) -> None:
    """As `ruff format` leaves it, with its imports; no queue, no task and no lock among them."""
    source = program(name).source.lstrip("\n")
    command = [sys.executable, "-m", "ruff", "format", "--line-length=100", "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=True)
    statements = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.stmt)]

    assert done.stdout == source
    assert len(statements) <= 30
    for word in ("asyncio", "anyio", "Lock", "Queue", "create_task", "additional_messages"):
        assert word not in source


@pytest.mark.parametrize("name", PROGRAMS)
async def test_chat_answers_streams_and_remembers(
    name: str, page_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cookie by the page, an answer by POST, the history, a stop, and nothing to follow."""
    model = ScriptedBackend([Say(WORDS), Hang("Well, ")])
    jar = aiohttp.CookieJar(unsafe=True)
    async with serve(name, model, monkeypatch) as url, aiohttp.ClientSession(cookie_jar=jar) as web:
        async with web.get(f"{url}/") as response:
            assert "/chat.js" in await response.text()
            assert response.headers["Cache-Control"] == "no-store"
            assert int(response.cookies["user"]["max-age"]) > 30 * 24 * 3600
        async with web.get(f"{url}/chat.js") as response:
            assert response.content_type.endswith("/javascript")
            assert response.headers["Cache-Control"] == "no-cache"
            assert await response.text() == SCRIPT.read_text()
        async with web.post(f"{url}/chat", json={"text": QUESTION}) as response:
            first = frames_of(await response.read())
        async with web.get(f"{url}/chat/history") as response:
            history = await response.json()
        async with web.get(f"{url}/chat/events") as response:
            assert response.status == 204
        async with web.post(f"{url}/chat", json={"text": "And?"}) as response:
            begin = b""
            while b"Well" not in begin:
                begin += await response.content.readany()
            async with web.post(f"{url}/chat/stop") as stopped:
                assert await stopped.json() is True
            second = frames_of(begin + await response.read())

    assert text_of(first) == "".join(WORDS)
    assert [one["text"] for one in history["messages"]] == [QUESTION, "".join(WORDS)]
    assert json.loads(second[-2].data)["status"] == "cancelled"


@pytest.mark.usefixtures("page_folder")
@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("", "The message is empty: write something.", id="empty"),
        pytest.param(" \n\t\u3000", "The message is empty: write something.", id="blank"),
        pytest.param("x" * 4001, "at most 4000 characters", id="long"),
        pytest.param(5, "text: ", id="number"),
        pytest.param(None, "text: ", id="null"),
    ],
)
async def test_chat_rejects_what_is_no_message(
    name: str, text: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a run is made of it, in words for a person, and each time in the same shape."""
    model = ScriptedBackend()
    jar = aiohttp.CookieJar(unsafe=True)
    async with serve(name, model, monkeypatch) as url, aiohttp.ClientSession(cookie_jar=jar) as web:
        await web.get(f"{url}/")
        async with web.post(f"{url}/chat", json={"text": text}) as response:
            error = (await response.json())["error"]
        async with web.get(f"{url}/chat/history") as listed:
            history = await listed.json()

    assert response.status in {400, 422}
    assert error.keys() == {"message", "type", "param", "code"}
    assert words in error["message"]
    assert history == {"messages": [], "before": None, "waiting": []}
    assert model.requests == []


@pytest.mark.parametrize("name", PROGRAMS)
async def test_chat_answers_nobody_whom_it_does_not_know(
    name: str, page_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has no cookie of the page is refused everywhere, before anything is done."""
    async with (
        serve(name, ScriptedBackend(), monkeypatch) as url,
        aiohttp.ClientSession() as session,
    ):
        for method, path in [
            ("POST", ""),
            ("POST", "/stop"),
            ("GET", "/events"),
            ("GET", "/history"),
        ]:
            async with session.request(method, f"{url}/chat{path}", json={"text": "a"}) as answer:
                assert answer.status in {403, 422}
                assert "Reload the page" in (await answer.json())["error"]["message"]


class Losing:
    """A way to a back end on which the answers to the first POSTs are lost whole."""

    def __init__(self, url: str, left: int) -> None:
        self.url = ""
        self.left = left
        self._port = urlsplit(url).port

    async def serve(self, browser: asyncio.StreamReader, to_browser: asyncio.StreamWriter) -> None:
        """Pass one connection on, request by request."""
        back_end, to_back_end = await asyncio.open_connection("127.0.0.1", self._port)
        async with anyio.create_task_group() as tasks:
            lost = anyio.Event()
            tasks.start_soon(self._answers, back_end, to_browser, lost)
            while request := await browser.read(65_536):
                if request.startswith(b"POST /chat ") and self.left:
                    self.left -= 1
                    lost.set()
                to_back_end.write(request)
            tasks.cancel_scope.cancel()
        to_back_end.close()
        to_browser.close()

    async def _answers(
        self, back_end: asyncio.StreamReader, to_browser: asyncio.StreamWriter, lost: anyio.Event
    ) -> None:
        while answer := await back_end.read(65_536):
            if lost.is_set():
                to_browser.transport.abort()
                return
            to_browser.write(answer)


@asynccontextmanager
async def losing_answers(url: str, count: int) -> AsyncIterator[Losing]:
    """Open such a way."""
    losing = Losing(url, count)
    server = await asyncio.start_server(losing.serve, "127.0.0.1", 0)
    losing.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield losing


@pytest.mark.browser
@pytest.mark.parametrize("name", PROGRAMS)
async def test_page_shows_the_chat_and_a_reload_shows_it_again(
    name: str, page_folder: Path, monkeypatch: pytest.MonkeyPatch, tab: Tab
) -> None:
    """Markup is text; the second message is answered after the first; older ones are paged."""
    model = ScriptedBackend([Say(WORDS, pause=0.002), *(f"answer {n}" for n in range(2, 13))])
    async with serve(name, model, monkeypatch) as url:
        await open_page(tab, url)
        await ask(tab, QUESTION)
        await ask(tab, "2")
        await tab.until(SHOWN, "|".join([QUESTION, "2", "".join(WORDS), "answer 2"]))
        for n in range(3, 13):
            await ask(tab, str(n))
            await tab.until(f'{SHOWN}.endsWith("|answer {n}").toString()', "true")
        await tab.reload()
        newest = [text for n in range(3, 13) for text in (str(n), f"answer {n}")]
        await tab.until(SHOWN, "|".join(newest))
        await tab.value('document.querySelector("#older").click()')
        await tab.until(SHOWN, "|".join([QUESTION, "".join(WORDS), "2", "answer 2", *newest]))
        await tab.until('document.querySelector("#older").hidden.toString()', "true")


@pytest.mark.browser
@pytest.mark.parametrize("fault", [Cut, Reset])
async def test_page_shows_the_answer_once_although_its_body_breaks(
    fault: Any, page_folder: Path, monkeypatch: pytest.MonkeyPatch, tab: Tab
) -> None:
    """Twice, in the middle of the text: it comes back by GET, and asks nothing twice."""
    model = ScriptedBackend([Say(WORDS, pause=0.005)])
    async with serve("chat.py", model, monkeypatch) as url, FaultProxy(url) as proxy:
        await open_page(tab, proxy.url)
        await tab.until(STATUS, "")
        while not any(one.path.endswith("/events") for one in proxy.requests):
            await tab.value("1")
        proxy.plan(fault(after=9_000), fault(after=12_345))
        await ask(tab, QUESTION)
        await tab.until(SHOWN, f"{QUESTION}|{''.join(WORDS)}")
        await tab.until(STATUS, "completed")
        asked = [one for one in proxy.requests if one.method == "POST"]
        back = [one for one in proxy.requests if "run_id=" in str(one.path)]

    assert proxy.faults_left == 0
    assert len(asked) == 1
    assert len(model.requests) == 1
    assert all("last-event-id" in one.headers for one in back)


@pytest.mark.browser
async def test_page_has_a_message_answered_once_although_its_request_breaks(
    page_folder: Path, monkeypatch: pytest.MonkeyPatch, tab: Tab
) -> None:
    """Before the answer begins: it is sent again, by the page or the browser, with the same key."""
    model = ScriptedBackend([Say(WORDS), "next"])
    async with serve("chat.py", model, monkeypatch) as url, losing_answers(url, 2) as losing:
        await open_page(tab, losing.url)
        await tab.until(STATUS, "")
        await ask(tab, QUESTION)
        await tab.until(SHOWN, f"{QUESTION}|{''.join(WORDS)}")
        await ask(tab, "2")
        await tab.until(SHOWN, f"{QUESTION}|{''.join(WORDS)}|2|next")

    assert losing.left == 0
    assert len(model.requests) == 2


@pytest.mark.browser
async def test_page_goes_on_after_a_reload_in_mid_answer(
    page_folder: Path, monkeypatch: pytest.MonkeyPatch, tab: Tab
) -> None:
    """What was written by then, and what comes."""
    model = ScriptedBackend([Say(WORDS, pause=0.01)])
    async with serve("chat.py", model, monkeypatch) as url:
        await open_page(tab, url)
        await ask(tab, "1")
        await tab.until(f'{SHOWN}.includes("word9 ").toString()', "true")
        await tab.reload()
        await tab.until(SHOWN, f"1|{''.join(WORDS)}")
        await tab.until(STATUS, "completed")

    assert len(model.requests) == 1


@pytest.mark.browser
async def test_page_stops_an_answer_and_shows_errors(
    page_folder: Path, monkeypatch: pytest.MonkeyPatch, tab: Tab
) -> None:
    """A stop, a run that fails, and a refusal: each says what it is."""
    model = ScriptedBackend([Hang("Well, "), Fail("Too much."), "fine"])
    async with serve("chat.py", model, monkeypatch) as url:
        await open_page(tab, url)
        await ask(tab, "1")
        await tab.until(SHOWN, "1|Well, ")
        await tab.value('document.querySelector("#stop").click()')
        await tab.until(STATUS, "cancelled")
        await tab.until(SHOWN, "1|Well,  (stopped)")
        await ask(tab, "2")
        await tab.until(STATUS, "The answer failed.")
        await tab.until(SHOWN, "1|Well,  (stopped)|2| (failed)")
        await ask(tab, "x" * 5000)
        await tab.until(STATUS, "The message is 1000 characters too long: shorten it.")
        await tab.until('document.querySelector("form").elements.text.value', "x" * 5000)
        await ask(tab, "x" * 4001)
        await tab.until(STATUS, "The message is 1 character too long: shorten it.")
        await ask(tab, "3")
        await tab.until(STATUS, "completed")
        await tab.until(f'{SHOWN}.endsWith("|3|fine").toString()', "true")
        await tab.reload()
        await tab.until(SHOWN, "1|Well,  (stopped)|2| (failed)|3|fine")


@pytest.mark.browser
async def test_events_are_read_however_the_body_is_cut(
    page_folder: Path, monkeypatch: pytest.MonkeyPatch, tab: Tab
) -> None:
    """At every byte, also within a letter, and with each kind of line end."""
    events = ['id: 1\nevent: a\ndata: {"ü":\ndata:  "終"}', "data", "id: 2\ndata:x", "data: half"]
    body = "\n\n".join([": open", *events])
    wanted = [
        {"event": "a", "data": '{"ü":\n "終"}', "id": "1"},
        {"event": "message", "data": "", "id": "1"},
        {"event": "message", "data": "x", "id": "2"},
    ]
    script = """(async () => {
        const { readEvents } = await import("/chat.js");
        const wrong = [];
        for (const end of ["\\n", "\\r\\n", "\\r"]) {
            const bytes = new TextEncoder().encode(BODY.replaceAll("\\n", end));
            for (let size = 1; size <= bytes.length; size++) {
                const body = new ReadableStream({ start(sink) {
                    for (let at = 0; at < bytes.length; at += size) {
                        sink.enqueue(bytes.slice(at, at + size));
                    }
                    sink.close();
                } });
                const found = [];
                for await (const one of readEvents(new Response(body))) found.push(one);
                const is_right = JSON.stringify(found) === JSON.stringify(WANTED);
                if (!is_right) wrong.push([end, size, found]);
            }
        }
        window.wrong = JSON.stringify(wrong.slice(0, 3));
    })()"""
    async with serve("chat.py", ScriptedBackend(), monkeypatch) as url:
        await open_page(tab, url)
        for name, value in (("BODY", body), ("WANTED", wanted)):
            script = script.replace(name, json.dumps(value))
        await tab.value(f"void {script}")
        await tab.until("window.wrong", "[]")
