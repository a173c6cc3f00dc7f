"""The unit and the proxy of the guide are taken by systemd and nginx, and a client gets through."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
import trustme
from aiohttp import ClientSession, TCPConnector

from openai_runs import APIStatusError, AsyncClient
from openai_runs.server import Finish, LocalServer, TextDelta
from openai_runs.server.backends.base import ModelEvent, ModelRequest
from tests.canaries import CANARY_KEY

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(120)]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "pages" / "guides" / "running.md"
PROGRAM = Path(sys.executable).with_name("openai-runs")


def file_of(name: str) -> str:
    """Return the block of the page that follows the path of a file."""
    found = re.search(rf"`{re.escape(name)}`:\n\n```\w+\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    assert found, name
    return found[1]


def unit() -> str:
    """Return the unit, with the program and the keys of this test in place of those of the page."""
    return file_of("/etc/systemd/system/openai-runs.service").replace(
        "/opt/openai-runs/bin/openai-runs", str(PROGRAM)
    )


def test_systemd_finds_nothing_to_complain_of_in_the_unit(tmp_path: Path) -> None:
    """Neither in the directives nor in the command."""
    path = tmp_path / "openai-runs.service"
    path.write_text(unit())
    done = subprocess.run(
        ["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_command_of_the_unit_starts_the_server(tmp_path: Path) -> None:
    """All its options exist; only the port and the file are of this test."""
    command = re.search(r"^ExecStart=(.*?)(?<!\\)$", unit(), re.M | re.S)
    assert command
    words = command[1].replace("\\\n", " ").split()
    words[words.index("--db") + 1] = str(tmp_path / "runs.db")
    keys = {"RUNS_API_KEY": CANARY_KEY, "MODEL_API_KEY": "another"}
    with subprocess.Popen(
        [*words, "--port", "0"], env={**os.environ, **keys}, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        said = server.stdout.readline()
        server.send_signal(signal.SIGTERM)

    assert said.startswith("listening on http://127.0.0.1:")
    assert server.returncode == 0


class Held:
    """A model that says one word, and the second one when it may."""

    def __init__(self) -> None:
        self.may_go_on = anyio.Event()

    async def respond(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Say it."""
        yield TextDelta("Sun")
        await self.may_go_on.wait()
        yield TextDelta("ny.")
        yield Finish()


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@asynccontextmanager
async def proxied(folder: Path, url: str) -> AsyncIterator[tuple[str, ssl.SSLContext]]:
    """Put nginx in front of a server as the page does; yield its address and whom to trust."""
    port = free_port()
    authority = trustme.CA()
    issued = authority.issue_cert("runs.example.com", "127.0.0.1")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    for number, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(folder / "cert.pem", append=number > 0)
    site = (
        file_of("/etc/nginx/conf.d/openai-runs.conf")
        .replace("127.0.0.1:8080", url.removeprefix("http://").removesuffix("/v1"))
        .replace("listen 443", f"listen 127.0.0.1:{port}")
        .replace("/etc/ssl/runs.example.com.pem", str(folder / "cert.pem"))
        .replace("/etc/ssl/private/runs.example.com.key", str(folder / "key.pem"))
    )
    paths = "".join(
        f"{kind}_temp_path {folder / kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    as_root = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder / 'pid'}; error_log {folder / 'error.log'}; {as_root}\n"
        f"events {{}}\nhttp {{ access_log off; {paths}\n{site}}}\n"
    )
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    command += ["-e", str(folder / "error.log")]
    process = await anyio.open_process(command, stdout=None, stderr=None)
    try:
        await listening(port)
        yield f"https://127.0.0.1:{port}/v1", trusted
    finally:
        process.terminate()
        await process.wait()


async def listening(port: int) -> None:
    """Return once somebody accepts connections there."""
    with anyio.fail_after(20):
        while True:
            try:
                async with await anyio.connect_tcp("127.0.0.1", port):
                    return
            except OSError:
                await anyio.sleep(0.05)


async def test_event_comes_through_nginx_while_the_model_still_thinks(tmp_path: Path) -> None:
    """The first word is read before the second one is said; then the rest, and a poll."""
    held = Held()
    async with (
        LocalServer(tmp_path / "a.db", backend=held, api_key=CANARY_KEY) as server,
        proxied(tmp_path, server.url) as (url, trusted),
        ClientSession(connector=TCPConnector(ssl=trusted)) as session,
        AsyncClient(url, CANARY_KEY, session=session) as client,
    ):
        thread = await client.threads.create()
        assistant = await client.assistants.create(model="any")
        texts = []
        with anyio.fail_after(30):
            async with client.runs.stream(thread.id, assistant_id=assistant.id) as stream:
                async for text in stream.text_deltas():
                    texts.append(text)
                    held.may_go_on.set()
        run = await client.threads.create_and_run_poll(assistant_id=assistant.id, timeout=30)

    assert texts[0] == "Sun"
    assert "".join(texts) == "Sunny."
    assert run.status == "completed"


async def test_body_up_to_the_servers_limit_passes_nginx(tmp_path: Path) -> None:
    """Fifteen MiB of messages are taken, seventeen are a 413."""
    async with (
        LocalServer(tmp_path / "a.db", api_key=CANARY_KEY) as server,
        proxied(tmp_path, server.url) as (url, trusted),
        ClientSession(connector=TCPConnector(ssl=trusted)) as session,
        AsyncClient(url, CANARY_KEY, session=session) as client,
    ):
        million = {"role": "user", "content": "x" * 250_000}
        thread = await client.threads.create(messages=[million] * 60)
        with pytest.raises(APIStatusError) as rejected:
            await client.threads.create(messages=[million] * 68)

    assert thread.id.startswith("thread_")
    assert rejected.value.status_code == 413
