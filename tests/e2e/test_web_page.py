"""The page of the web guide where something is lost, refused or blank, in a real browser."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openai_runs.server import Hang, Say, ScriptedBackend
from openai_runs.testing import FaultProxy
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
        await tab.until(SHOWN, "|".join(["1", "Well,  (stopped)", *questions, *answers]))
        await tab.until(STATUS, "completed")


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
