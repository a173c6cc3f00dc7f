"""The chats of the web guide, served as they stand there, and their page in a browser."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from openai_runs import AsyncClient
from openai_runs.server import LocalServer
from tests.e2e.browsing import Tab
from tests.relaying import serve_aiohttp, serve_asgi
from tests.test_docs import PAGES_FOLDER, Block, blocks_of
from tests.web.outages import Way, way_to

if TYPE_CHECKING:
    import pytest

__all__ = [
    "CONNECTION",
    "GUIDE",
    "HAS_FOLLOWED",
    "PROGRAMS",
    "RECONNECTING",
    "SHOWN",
    "STATUS",
    "ask",
    "open_page",
    "program",
    "serve",
    "serve_on_way",
]

GUIDE = PAGES_FOLDER / "guides" / "web.md"
PROGRAMS = ["chat.py", "chat_aiohttp.py"]
SHOWN = '[...document.querySelectorAll("main p")].map((one) => one.textContent).join("|")'
STATUS = 'document.querySelector("#status")?.textContent'
CONNECTION = 'document.querySelector("#connection")?.textContent'
RECONNECTING = "The assistant cannot be used at present. Reconnecting ..."
HAS_FOLLOWED = """performance.getEntriesByType("resource").some(
    (one) => one.name.endsWith("/chat/events")).toString()"""
ASK = """(text) => {
    const form = document.querySelector("form");
    form.elements.text.value = text;
    form.requestSubmit();
}"""


def program(name: str) -> Block:
    """Return a program of the guide."""
    (found,) = (block for block in blocks_of(GUIDE) if block.file == name)
    return found


@asynccontextmanager
async def serve(name: str, model: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
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


async def open_page(tab: Tab, url: str) -> None:
    """Open the page, and return when its script is at work."""
    await tab.open(f"{url}/")
    await tab.until("document.readyState", "complete")


async def ask(tab: Tab, text: str) -> None:
    """Send a message, as a user does."""
    await tab.value(f"({ASK})({text!r})")
