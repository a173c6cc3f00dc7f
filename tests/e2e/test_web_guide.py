"""The chats of the guide as they stand there: how long they are, and what they do.

The page is shown by a real browser, in `poe long browser`.
"""

from __future__ import annotations

import ast
import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import anyio
import pytest

import openai_runs
from openai_runs import AsyncClient, PollPolicy, RetryPolicy
from openai_runs.server import Fail, Hang, LocalServer, Say, ScriptedBackend
from openai_runs.testing import Cut, FaultProxy, Reset
from openai_runs.web import SCRIPT
from tests.e2e.browsing import CHROMIUM, Tab, browsing
from tests.relaying import Paced, frames_of, serve_aiohttp, serve_asgi, text_of
from tests.test_docs import PAGES_FOLDER, Block, blocks_of
from tests.web.outages import Way, way_to

pytestmark = pytest.mark.timeout(120)  # a browser takes its time to start

GUIDE = PAGES_FOLDER / "guides" / "web.md"
PROGRAMS = ["chat.py", "chat_aiohttp.py"]
QUESTION = "Größe, <b>bold</b> & 'quoted'. 終"
WORDS = [f"word{n} <b>ü</b> " for n in range(300)]
SHOWN = '[...document.querySelectorAll("main p")].map((one) => one.textContent).join("|")'
STATUS = 'document.querySelector("#status")?.textContent'
IS_LOADED = '`${document.readyState} ${typeof document.querySelector("form")?.elements.text}`'
ASK = """(text) => {
    const form = document.querySelector("form");
    form.elements.text.value = text;
    form.requestSubmit();
}"""


def program(name: str) -> Block:
    """Return a program of the guide."""
    (found,) = (block for block in blocks_of(GUIDE) if block.file == name)
    return found


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


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that the programs run in, where the page lies."""
    monkeypatch.chdir(tmp_path)
    found = re.search(r"^```html\n(.*?)^```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    (tmp_path / "page.html").write_text(found[1])
    return tmp_path


@pytest.fixture
async def tab(tmp_path: Path) -> AsyncIterator[Tab]:
    """Yield a tab of the browser."""
    assert CHROMIUM, "there is no Chromium on this machine"
    async with browsing(tmp_path / "profile") as opened:
        yield opened


@asynccontextmanager
async def serve(
    name: str, model: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[str]:
    """Serve a program of the guide, as its users do."""
    async with serve_on_way(model, monkeypatch, name) as (url, _):
        yield url


@asynccontextmanager
async def serve_on_way(
    model: Any, monkeypatch: pytest.MonkeyPatch, name: str = "chat.py"
) -> AsyncIterator[tuple[str, Way]]:
    """Serve it with a way to the server that can be closed."""
    async with (
        LocalServer(backend=model) as server,
        AsyncClient(server.url) as client,
        way_to(server.url) as way,
    ):
        assistant = await client.assistants.create(model="m")
        monkeypatch.setenv("ASSISTANT", assistant.id)
        monkeypatch.setenv("OPENAI_BASE_URL", way.url)
        monkeypatch.setenv("OPENAI_API_KEY", "key")
        block = program(name)
        names: dict[str, Any] = {"__name__": name}
        exec(compile(block.source, block.place, "exec"), names)
        if name == "chat.py":
            async with serve_asgi(names["app"], force=False) as url:
                yield url, way
        else:
            async with serve_aiohttp(names["make_app"]()) as url:
                yield url, way


@pytest.mark.parametrize("name", PROGRAMS)
async def test_chat_answers_streams_and_remembers(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cookie by the page, an answer by POST, the history, a stop, and nothing to follow."""
    model = ScriptedBackend([Say(WORDS), Hang("Well, ")])
    jar = aiohttp.CookieJar(unsafe=True)
    async with serve(name, model, monkeypatch) as url, aiohttp.ClientSession(cookie_jar=jar) as web:
        async with web.get(f"{url}/") as response:
            assert "/chat.js" in await response.text()
        async with web.get(f"{url}/chat.js") as response:
            assert response.content_type.endswith("/javascript")
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


@pytest.mark.parametrize("name", PROGRAMS)
async def test_chat_answers_nobody_whom_it_does_not_know(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
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


async def open_page(tab: Tab, url: str) -> None:
    """Open the page, and return when its script is at work."""
    await tab.open(f"{url}/")
    await tab.until("document.readyState", "complete")


async def ask(tab: Tab, text: str) -> None:
    """Send a message, as a user does."""
    await tab.value(f"({ASK})({text!r})")


@pytest.mark.browser
@pytest.mark.parametrize("name", PROGRAMS)
async def test_page_shows_the_chat_and_a_reload_shows_it_again(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, tab: Tab
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
    fault: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, tab: Tab
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
    folder: Path, monkeypatch: pytest.MonkeyPatch, tab: Tab
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
    folder: Path, monkeypatch: pytest.MonkeyPatch, tab: Tab
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


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the programs' clients give up soon."""
    poll = PollPolicy(initial=0, maximum=0.01, max_outage=0.05)
    impatient = partial(AsyncClient, retry=RetryPolicy(max_retries=0), poll=poll)
    monkeypatch.setattr(openai_runs, "AsyncClient", impatient)


@pytest.mark.browser
@pytest.mark.usefixtures("impatient")
async def test_page_goes_on_after_the_back_end_has_lost_the_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tab: Tab, caplog: pytest.LogCaptureFixture
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


@pytest.mark.browser
async def test_page_stops_an_answer_and_shows_errors(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tab: Tab
) -> None:
    """A stop, a run that fails, and a refusal: each says what it is."""
    model = ScriptedBackend([Hang("Well, "), Fail("Too much."), "fine"])
    async with serve("chat.py", model, monkeypatch) as url:
        await open_page(tab, url)
        await ask(tab, "1")
        await tab.until(SHOWN, "1|Well, ")
        await tab.value('document.querySelector("#stop").click()')
        await tab.until(STATUS, "cancelled")
        await ask(tab, "2")
        await tab.until(STATUS, "Too much.")
        await tab.value('document.querySelector("form").elements.text.removeAttribute("maxlength")')
        await ask(tab, "x" * 5000)
        await tab.until(STATUS, "The request was refused.")
        await tab.until(f'{SHOWN}.endsWith("xxx (not sent)").toString()', "true")
        await ask(tab, "3")
        await tab.until(STATUS, "completed")
        await tab.until(f'{SHOWN}.endsWith("|3|fine").toString()', "true")


@pytest.mark.browser
async def test_events_are_read_however_the_body_is_cut(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tab: Tab
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
