"""A real browser, driven over its debugging protocol: headless Chromium, where there is one."""

from __future__ import annotations

import asyncio
import re
import shutil
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio

__all__ = ["CHROMIUM", "Tab", "browsing"]

CHROMIUM = next(
    filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None
)
"""The browser's program; None: there is none on this machine."""
_LISTENING = re.compile(rb"DevTools listening on ws://([\d.:]+)/")


class Tab:
    """One tab of the browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Take the tab's debugging connection."""
        self._socket = socket
        self._calls = 0

    async def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Return the answer to a command of the debugging protocol."""
        self._calls += 1
        await self._socket.send_json({"id": self._calls, "method": method, "params": arguments})
        while (answer := await self._socket.receive_json()).get("id") != self._calls:
            pass  # an event
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    async def open(self, url: str) -> None:
        """Open a page, and return when it is there."""
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState", "complete")

    async def reload(self) -> None:
        """Open the page again, and return when it is there."""
        await self.value("window.isOld = true")
        await self.call("Page.reload")
        await self.until("`${window.isOld} ${document.readyState}`", "undefined complete")

    async def value(self, script: str) -> Any:
        """Return the value of an expression in the page."""
        answer = await self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, script: str, wanted: str) -> None:
        """Return once an expression in the page has that value."""
        found = None
        with anyio.move_on_after(20):
            while (found := await self.value(script)) != wanted:  # noqa: ASYNC110 - it tells nobody
                await anyio.sleep(0.02)
        assert found == wanted, (found, wanted)


@asynccontextmanager
async def browsing(folder: Path) -> AsyncIterator[Tab]:
    """Start the browser with nothing remembered, and yield its tab."""
    assert CHROMIUM is not None
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    process = await asyncio.create_subprocess_exec(
        CHROMIUM,
        *options,
        "--no-first-run",
        "--no-proxy-server",
        "--remote-debugging-port=0",
        f"--user-data-dir={folder}",
        "about:blank",
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=PIPE,
    )
    try:
        assert process.stderr is not None
        while not (found := _LISTENING.search(await process.stderr.readline())):
            assert process.returncode is None
        place = found[1].decode()
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://{place}/json/list") as response:
                (tab,) = [one for one in await response.json() if one["type"] == "page"]
            async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                yield Tab(socket)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
