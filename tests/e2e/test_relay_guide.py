"""The back ends and the page of the guide: the text is exact, cut or not.

The page is shown by a real browser, in `poe long browser`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from yarl import URL

from openai_runs import AsyncClient
from openai_runs.testing import Cut, FaultProxy, Reset
from tests.e2e.browsing import Tab
from tests.relaying import Paced, frames_of, paced, serve_aiohttp, serve_asgi, text_of
from tests.test_docs import PAGES_FOLDER, execute
from tests.web.outages import way_to

pytestmark = pytest.mark.timeout(120)  # a browser takes its time to start

GUIDE = PAGES_FOLDER / "guides" / "relay.md"
QUESTION = "Größe, <b>bold</b> & 'quoted': " + " ".join(f"word{n}" for n in range(300)) + ". 終"
TEXT = 'document.querySelector("article")?.textContent'
STATUS = 'document.querySelector("#status")?.textContent'
ASK = """(text) => {
    const form = document.querySelector("form");
    form.elements.text.value = text;
    form.requestSubmit();
}"""


@pytest.fixture
async def guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[dict[str, Any]]:
    """Yield the names of the guide's own code; its page lies where that looks for it."""
    monkeypatch.chdir(tmp_path)
    found = re.search(r"^```html\n(.*?)^```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    (tmp_path / "page.html").write_text(found[1])
    async with AsyncClient.local() as client:
        yield await execute(GUIDE, client, tmp_path)


def followed(proxy: FaultProxy) -> list[Any]:
    """Return the requests of the page's event source."""
    return [one for one in proxy.requests if one.path.endswith("/events")]


async def ask(tab: Tab, url: str, question: str) -> None:
    """Open the page and ask, as a user does."""
    await tab.open(f"{url}/")
    await tab.value(f"({ASK})({question!r})")


@pytest.mark.browser
async def test_page_shows_the_answer_and_asks_no_more(guide: dict[str, Any], tab: Tab) -> None:
    """One connection, closed at `done`; markup in an answer is text; a reload shows it again."""
    async with serve_asgi(guide["app"]) as url, FaultProxy(url) as proxy:
        await ask(tab, proxy.url, QUESTION)
        await tab.until(STATUS, "completed")
        await tab.until(TEXT, QUESTION)
        assert len(followed(proxy)) == 1

        await tab.reload()
        await tab.until(STATUS, "completed")
        await tab.until(TEXT, QUESTION)
        assert len(followed(proxy)) == 2


@pytest.mark.browser
@pytest.mark.parametrize("fault", [Cut, Reset])
async def test_page_shows_the_answer_once_although_its_connection_was_cut(
    guide: dict[str, Any], tab: Tab, fault: Any
) -> None:
    """Twice, in the middle of the text: the browser comes back by itself, and nothing doubles."""
    async with serve_asgi(guide["app"]) as url, FaultProxy(url) as proxy:
        proxy.plan(fault(after=9_000), fault(after=12_345))
        await ask(tab, proxy.url, QUESTION)
        await tab.until(STATUS, "completed")
        await tab.until(TEXT, QUESTION)
        first, second, third = followed(proxy)

    assert proxy.faults_left == 0
    assert "last-event-id" not in first.headers
    assert second.headers["last-event-id"] != third.headers["last-event-id"]


@pytest.mark.browser
async def test_page_shows_the_answer_once_where_it_is_told_anew(
    guide: dict[str, Any], tab: Tab
) -> None:
    """A server without places tells everything from the beginning; the page replaces its text."""
    app = guide["app"]

    async def forgetful(scope: Any, receive: Any, send: Any) -> None:
        headers = [one for one in scope.get("headers", []) if one[0] != b"last-event-id"]
        await app({**scope, "headers": headers}, receive, send)

    async with serve_asgi(forgetful) as url, FaultProxy(url) as proxy:
        proxy.plan(Cut(after=9_000))
        await ask(tab, proxy.url, QUESTION)
        await tab.until(STATUS, "completed")
        await tab.until(TEXT, QUESTION)

    assert proxy.faults_left == 0


@pytest.mark.browser
async def test_page_follows_a_run_whose_tools_are_answered_elsewhere(
    guide: dict[str, Any], tab: Tab
) -> None:
    """It comes back for what follows on the outputs, and stops at the end."""
    async with serve_asgi(guide["tool_app"]) as url, FaultProxy(url) as proxy:
        await ask(tab, proxy.url, "Use the tool weather for Oslo.")
        await tab.until(STATUS, "completed")
        await tab.until(TEXT, "weather says: sunny")

    assert followed(proxy)


@pytest.mark.browser
async def test_page_says_that_there_is_no_such_answer(guide: dict[str, Any], tab: Tab) -> None:
    """A refusal is an error status, after which a browser does not come back."""
    async with serve_asgi(guide["app"]) as url:
        await tab.open(f"{url}/#thread_none/run_none")
        await tab.until(STATUS, "The answer cannot be shown: reload the page.")


@pytest.mark.browser
async def test_page_says_that_it_reconnects_and_why_a_question_is_refused(
    guide: dict[str, Any], tab: Tab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it is back; a question that is refused or cannot be sent is no silence."""
    model = Paced()
    async with paced(model) as client, serve_asgi(guide["app"]) as url, way_to(url) as way:
        monkeypatch.setitem(guide, "client", client)
        monkeypatch.setitem(guide, "assistant", await client.assistants.create(model="m"))
        await ask(tab, way.url, "Hello?")
        await tab.until(TEXT, "Hello ")
        way.close()
        await tab.until(STATUS, "The connection was lost. Reconnecting ...")
        await tab.value(f"({ASK})('And?')")
        await tab.until(STATUS, "No answer: ask again.")
        way.open()
        model.go_on.set()
        await tab.until(TEXT, model.text)
        await tab.until(STATUS, "completed")
        await tab.value(f"({ASK})('  ')")
        await tab.until(STATUS, "text: String should have at least 1 character")


async def test_answer_can_be_the_stream_of_its_own_create(guide: dict[str, Any]) -> None:
    """For servers that cannot take up a stream: one request, and the ids in its first events."""
    async with (
        serve_asgi(guide["app"]) as url,
        aiohttp.ClientSession() as session,
        session.post(f"{url}/answers", json={"text": QUESTION}) as response,
    ):
        seen = frames_of(await response.read())

    assert [one.event for one in seen[:2]] == ["thread.created", "thread.run.created"]
    assert text_of(seen) == QUESTION


async def test_every_way_of_the_guide_relays_the_same(guide: dict[str, Any]) -> None:
    """FastAPI, FastAPI with `cancel`, and aiohttp."""
    async with (
        serve_asgi(guide["app"]) as fast,
        serve_aiohttp(guide["application"]) as other,
        aiohttp.ClientSession() as session,
    ):
        async with session.post(f"{fast}/questions", json={"text": QUESTION}) as response:
            ids = await response.json()
        path = "/threads/{thread_id}/runs/{run_id}/events".format(**ids)
        told = []
        for url in (fast + path, f"{fast}{path}/once", other + path):
            async with session.get(url) as response:
                assert response.content_type == "text/event-stream"
                told.append([one.data for one in frames_of(await response.read())])

    assert told[0] == told[1] == told[2]


@pytest.mark.parametrize("run_id", ["run_none", "..", "a b"])
async def test_wrong_ids_are_refused_with_an_error_status(
    guide: dict[str, Any], run_id: str
) -> None:
    """No id that a browser can send is an error of the back end."""
    path = f"/threads/thread_none/runs/{quote(run_id)}/events"
    async with (
        serve_asgi(guide["app"]) as url,
        aiohttp.ClientSession() as session,
        session.get(URL(url + path, encoded=True)) as response,
    ):
        assert response.status in {404, 422}
