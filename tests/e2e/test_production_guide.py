"""The commands of the guide from one machine to three, on a PostgreSQL, one after the other."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from openai_runs import AsyncClient
from openai_runs.server import LocalServer
from tests.canaries import CANARY_KEY
from tests.cli.processes import execute, finish, launch, read_until
from tests.support import Answer, HostileServer

PAGE = Path(__file__).resolve().parents[2] / "docs" / "pages" / "guides" / "production.md"
PROGRAM = Path(sys.executable).with_name("openai-runs")
URL = "postgresql://runs@db.internal/runs"
KEYS = {"RUNS_API_KEY": CANARY_KEY, "MODEL_API_KEY": "another", "PGPASSWORD": CANARY_KEY}
SERVES = ("serve", "worker")


def commands(text: str) -> list[list[str]]:
    """Return the arguments of each `openai-runs` command of the page's shell blocks."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert all(line.startswith("openai-runs ") for line in lines), lines
    return [shlex.split(line)[1:] for line in lines]


def file_of(name: str) -> str:
    """Return the block of the page that follows the path of a file."""
    block = rf"^`{re.escape(name)}`.*?^```\w+\n(.*?)^```$"
    found = re.search(block, PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found, name
    return found[1]


def test_every_command_of_the_page_is_one_of_this_test() -> None:
    """What is said to be executed is, and each command that the page is about is there."""
    named = [each[0] for each in commands(PAGE.read_text())]

    assert named == ["doctor", "export", "import", "serve", "threads", "serve", "serve", "worker"]


@pytest.fixture
async def old(tmp_path: Path) -> Path:
    """The file of a server that had a thread."""
    path = tmp_path / "old.db"
    async with LocalServer(path) as server, AsyncClient(server.url) as client:
        await client.threads.create(messages=[{"role": "user", "content": "Hello!"}])
    return path


@pytest.fixture
async def models(tmp_path: Path) -> AsyncIterator[Path]:
    """The page's models.toml, with an endpoint that is there."""
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": "Here."},
    }
    async with HostileServer(lambda request: Answer(json={"choices": [choice]})) as endpoint:
        path = tmp_path / "models.toml"
        text = file_of("/etc/openai-runs/models.toml")
        path.write_text(text.replace("https://models.example.com/v1", endpoint.url))
        yield path


async def test_commands_lead_from_one_machine_to_three(
    postgres_db: str, old: Path, models: Path, tmp_path: Path
) -> None:
    """All at once in the end: three servers, one of which executes nothing, and a worker."""
    text = PAGE.read_text().replace(URL, postgres_db)
    text = text.replace("/var/lib/openai-runs/runs.db", str(old))
    text = text.replace("/etc/openai-runs/models.toml", str(models))
    text = re.sub(r"--host 10\.0\.0\.\d+", "--host 127.0.0.1 --port 0", text)
    urls: list[str] = []
    async with AsyncExitStack() as stack:
        for arguments in commands(text):
            if arguments[0] not in SERVES:
                done = await execute(*arguments, folder=tmp_path, **KEYS)
                assert done.code == 0, (arguments, done)
                continue
            process = await launch(*arguments, folder=tmp_path, **KEYS)
            stack.push_async_callback(end, process)
            said = await read_until("\n", process.stdout)
            urls += re.findall(r"http://\S+", said)
        clients = [await stack.enter_async_context(AsyncClient(url, CANARY_KEY)) for url in urls]
        listed = await clients[0].request("GET", "/threads")
        assistant = await clients[0].assistants.create(model="any")
        runs = [
            await client.threads.create_and_run_poll(assistant_id=assistant.id)
            for client in clients
        ]
        results = [
            await client.runs.result(run)
            for client, run in zip(clients, reversed(runs), strict=True)
        ]

    assert len(urls) == 3
    assert len(listed["data"]) == 1
    assert [result.text for result in results] == ["Here."] * 3


async def end(process: asyncio.subprocess.Process) -> None:
    """Stop it as a service manager does."""
    process.terminate()
    left = await finish(process)
    assert left.code == 0, left.err


@pytest.mark.deploy
def test_systemd_finds_nothing_to_complain_of_in_the_unit(tmp_path: Path) -> None:
    """Neither in the directives nor in the command."""
    path = tmp_path / "openai-runs-worker@.service"
    text = file_of("/etc/systemd/system/openai-runs-worker@.service")
    path.write_text(text.replace("/opt/openai-runs/bin/openai-runs", str(PROGRAM)))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.deploy
def test_nginx_takes_the_configuration(tmp_path: Path) -> None:
    """The upstream of two servers, and the two lines of a location."""
    upstream, lines = re.findall(r"^```nginx\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    location = f"location /v1/ {{ proxy_pass http://openai_runs;\n{lines}}}"
    conf = tmp_path / "nginx.conf"
    as_root = "user root;" if os.geteuid() == 0 else ""
    conf.write_text(
        f"pid {tmp_path / 'pid'}; error_log stderr; {as_root}\nevents {{}}\n"
        f"http {{ access_log off;\n{upstream}\nserver {{ listen 127.0.0.1:1; {location} }} }}\n"
    )
    done = subprocess.run(
        ["nginx", "-t", "-p", str(tmp_path), "-c", str(conf), "-e", "stderr"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
