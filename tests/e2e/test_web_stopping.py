"""The chats of the web guide, stopped by a signal in mid-answer and started again."""

from __future__ import annotations

import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest

from openai_runs import AsyncClient
from openai_runs.server import LocalServer
from tests.e2e.chat_page import PROGRAMS, program
from tests.relaying import Paced, frames_of, text_of, until_text
from tests.web.serving import ids_of

pytestmark = pytest.mark.timeout(60)


def _command(name: str, port: int) -> list[str]:
    if name == "chat.py":
        return ["-m", "uvicorn", "chat:app", "--port", str(port)]
    return ["-c", f"import chat_aiohttp as c; c.web.run_app(c.make_app(), port={port})"]


@asynccontextmanager
async def _served(name: str, port: int, folder: Path) -> AsyncIterator[Process]:
    """Serve a program of the guide as a process of its own."""
    process = await create_subprocess_exec(
        sys.executable, *_command(name, port), cwd=folder, stdout=PIPE, stderr=PIPE
    )
    try:
        while True:
            try:
                await (await anyio.connect_tcp("127.0.0.1", port)).aclose()
                break
            except OSError:
                assert process.returncode is None, await process.communicate()
                await anyio.sleep(0.02)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["term", "ctrl-c"])
@pytest.mark.parametrize("name", PROGRAMS)
async def test_chat_that_is_stopped_in_mid_answer_ends_quietly_and_loses_nothing(
    name: str, number: int, page_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for no answer: the run goes on, and the browser has the rest of the next process."""
    (page_folder / name).write_text(program(name).source)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    model, url = Paced(), f"http://127.0.0.1:{port}/chat"
    jar = aiohttp.CookieJar(unsafe=True)
    jar.update_cookies({"user": "a" * 32})
    async with (
        LocalServer(backend=model) as server,
        AsyncClient(server.url) as client,
        aiohttp.ClientSession(cookie_jar=jar) as web,
    ):
        monkeypatch.setenv("ASSISTANT", (await client.assistants.create(model="m")).id)
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "key")
        async with (
            _served(name, port, page_folder) as process,
            web.post(url, json={"text": "1"}) as response,
        ):
            begin = frames_of(await until_text(response.content.iter_any(), "Hello "))
            async with web.get(f"{url}/events") as followed:
                await until_text(followed.content.iter_any(), "Hello ")
                os.kill(process.pid, number)
                rest = frames_of(await response.read()) + frames_of(await followed.read())
            output: Any = b"".join(await process.communicate())
        run_id, last = ids_of(begin)
        async with (
            _served(name, port, page_folder),
            web.get(
                f"{url}/events", params={"run_id": run_id}, headers={"Last-Event-ID": last}
            ) as again,
        ):
            model.go_on.set()
            seen = frames_of(await again.read())

    assert rest == []
    assert [word for word in (b"Traceback", b"ERROR") if word in output] == []
    assert (text_of(seen), seen[-1].event) == ("you", "done")
