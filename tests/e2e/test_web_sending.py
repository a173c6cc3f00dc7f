"""Messages of the page of the web guide that cannot be sent at once, in a real browser."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openai_runs.server import ScriptedBackend
from tests.e2e.browsing import Tab
from tests.e2e.chat_page import (
    CONNECTION,
    HAS_FOLLOWED,
    RECONNECTING,
    SHOWN,
    STATUS,
    ask,
    open_page,
    serve,
    serve_on_way,
)
from tests.web.outages import way_to

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]


@pytest.mark.usefixtures("impatient")
async def test_page_sends_a_message_again_until_the_server_is_back(
    page_folder: Path, monkeypatch: pytest.MonkeyPatch, tab: Tab
) -> None:
    """The back end answers at once that it is down: it is sent again, and answered once."""
    async with serve_on_way(ScriptedBackend(["fine"]), monkeypatch) as (url, way):
        await open_page(tab, url)
        await tab.until(HAS_FOLLOWED, "true")
        way.close()
        await ask(tab, "1")
        await tab.until(CONNECTION, RECONNECTING)
        way.open()
        await tab.until(SHOWN, "1|fine")
        await tab.until(CONNECTION, "")


async def test_page_sends_a_message_again_where_that_can_help(
    page_folder: Path, monkeypatch: pytest.MonkeyPatch, tab: Tab
) -> None:
    """Four times to what is down, be it behind a proxy; once to what refuses it."""
    script = """(async () => {
        const { Chat } = await import("/chat.js");
        const pause = window.setTimeout;
        window.setTimeout = (resume) => pause(resume);
        const said = [];
        for (const [body, status] of ANSWERS) {
            let sent = 0;
            const headers = { "Retry-After": "5" };
            window.fetch = async () => (sent++, new Response(body, { status, headers }));
            const onError = ({ message }) => said.push(`${sent} ${message}`);
            await new Chat({ onError }).send("1");
        }
        window.setTimeout = pause;
        window.said = said.join("|");
    })()"""
    answers = [
        ('{"error": {"message": "Down.", "code": "upstream_unreachable"}}', 503),
        ("<h1>Bad gateway</h1>", 502),
        ('{"error": {"message": "Refused.", "code": "upstream_error"}}', 502),
        ('{"error": {"message": "Wait.", "code": "too_many_messages"}}', 429),
    ]
    async with serve("chat.py", ScriptedBackend(), monkeypatch) as url:
        await open_page(tab, url)
        await tab.value(f"void {script.replace('ANSWERS', json.dumps(answers))}")
        words = [
            "4 Down. Send it again in 5 s.",
            "4 The server cannot answer at present (502). Send it again in 5 s.",
            "1 Refused. Send it again in 5 s.",
            "1 Wait. Send it again in 5 s.",
        ]
        await tab.until("window.said", "|".join(words))


@pytest.mark.usefixtures("impatient")
async def test_message_that_was_not_sent_is_in_the_field_again(
    page_folder: Path, monkeypatch: pytest.MonkeyPatch, tab: Tab
) -> None:
    """After a reload that comes before the history, and after a refusal; not once it was sent."""
    field = 'document.querySelector("form")?.elements.text.value'
    async with serve_on_way(ScriptedBackend(["a", "fine"]), monkeypatch) as (url, way):
        await open_page(tab, url)
        await ask(tab, "0")
        await tab.until(STATUS, "completed")
        way.close()
        await tab.reload()
        await tab.until(CONNECTION, RECONNECTING)
        await ask(tab, "1")
        await tab.until(SHOWN, "1 (sending ...)")
        await tab.until(field, "")
        await tab.reload()
        await tab.until(field, "1")
        await tab.until(CONNECTION, RECONNECTING)
        way.open()
        await tab.until(HAS_FOLLOWED, "true")
        refuse = "window.real = fetch; window.fetch = async () => new Response('', {status: 403})"
        await tab.value(f"void ({refuse.split(';')[0]}); void ({refuse.split(';')[1]})")
        await ask(tab, "1")
        await tab.until(SHOWN, "0|a|1 (not sent)")
        await tab.until(field, "1")
        await tab.value("void (window.fetch = window.real)")
        await ask(tab, "1")
        await tab.until(SHOWN, "0|a|1 (not sent)|1|fine")
        await tab.reload()
        await tab.until(SHOWN, "0|a|1|fine")
        await tab.until(field, "")


async def test_page_says_that_a_message_waits_until_it_has_a_run(
    page_folder: Path, monkeypatch: pytest.MonkeyPatch, tab: Tab
) -> None:
    """Not the status of the run before, nor over that of a run at work."""
    script = """(async () => {
        const { Chat } = await import("/chat.js");
        const event = (name, data) => `event: ${name}\\ndata: ${JSON.stringify(data)}\\n\\n`;
        const run = (id, status) => event(`thread.run.${status}`, { id, status });
        const bodies = [];
        window.fetch = async () => new Response(new ReadableStream({ start(sink) {
            bodies.push((text) => {
                sink.enqueue(new TextEncoder().encode(text));
                if (text.includes("[DONE]")) sink.close();
            });
        } }), { headers: { "Content-Type": "text/event-stream" } });
        const said = [];
        const onStatus = ({ status }) => said.push(status);
        const chat = new Chat({ onStatus, onMessage: () => {} });
        const until = async (count) => {
            while (said.length < count) await new Promise((resume) => setTimeout(resume));
        };
        const first = chat.send("1");
        await until(1);
        bodies[0](run("run_1", "in_progress"));
        await until(2);
        const second = chat.send("2");
        while (bodies.length < 2) await new Promise((resume) => setTimeout(resume));
        bodies[0](run("run_1", "completed") + event("done", "[DONE]"));
        await until(4);
        bodies[1](run("run_2", "completed") + event("done", "[DONE]"));
        await Promise.all([first, second]);
        window.said = said.join(" ");
    })()"""
    async with serve("chat.py", ScriptedBackend(), monkeypatch) as url:
        await open_page(tab, url)
        await tab.until(HAS_FOLLOWED, "true")
        await tab.value(f"void {script}")
        await tab.until("window.said", "waiting in_progress completed waiting completed")


async def test_page_says_what_to_do_where_a_message_cannot_be_sent(
    page_folder: Path, monkeypatch: pytest.MonkeyPatch, tab: Tab
) -> None:
    """It tries for some seconds, and says so; a stop is not tried again."""
    async with serve("chat.py", ScriptedBackend(["fine"]), monkeypatch) as url, way_to(url) as way:
        await open_page(tab, way.url)
        await tab.until(HAS_FOLLOWED, "true")
        way.close()
        await tab.value('document.querySelector("#stop").click()')
        words = "The server cannot be reached. The answer is not stopped: try again."
        await tab.until(STATUS, words)
        await ask(tab, "1")
        await tab.until(CONNECTION, "The server cannot be reached. Reconnecting ...")
        words = "Once it can, reload the page to see whether the message is there."
        await tab.until(STATUS, f"The server cannot be reached. {words}")
        way.open()
        await tab.until(CONNECTION, "")
        await ask(tab, "2")
        await tab.until(SHOWN, "1 (not sent)|2|fine")
