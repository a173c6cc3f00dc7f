"""The command line behind a proxy, as an environment names it."""

import asyncio
from pathlib import Path

from openai_runs.testing import RunsServer
from tests.cli.processes import execute
from tests.transport.wire import free_port, listening


async def test_server_elsewhere_is_asked_through_the_proxy(tmp_path: Path) -> None:
    """What a proxy says is said; the server is asked by nobody else."""
    asked: list[str] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode().partition("\r\n")[0])
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async with listening(refuse) as port:
        proxy = f"http://127.0.0.1:{port}"
        url = "https://runs.invalid/v1"
        done = await execute("ask", "x", "--base-url", url, folder=tmp_path, HTTPS_PROXY=proxy)

    assert set(asked) == {"CONNECT runs.invalid:443 HTTP/1.1"}
    assert done.code == 1
    assert "the proxy rejected it with HTTP 407" in done.err


async def test_server_of_this_machine_is_asked_without_it(tmp_path: Path) -> None:
    """No proxy can reach a loopback address."""
    async with RunsServer() as server:
        server.reply("Hello.")
        proxy = f"http://127.0.0.1:{free_port()}"
        done = await execute(
            "ask", "x", "--base-url", server.url, folder=tmp_path, HTTP_PROXY=proxy
        )

    assert (done.code, done.out) == (0, "Hello.\n")
