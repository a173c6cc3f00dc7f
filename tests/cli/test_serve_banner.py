"""`openai-runs serve` says what it serves: on standard error, and nothing secret."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from urllib.request import urlopen

from tests.cli.processes import COMMAND, clean_env, serving
from tests.support import Answer, HostileServer


async def test_banner_says_what_is_served(tmp_path: Path) -> None:
    """Address, backend, database and key; an echo server says that it has no model."""
    async with serving("--db", "kept.db", folder=tmp_path) as server:
        left = await server.end(signal.SIGTERM)

    lines = dict(line.split(maxsplit=1) for line in left.err.splitlines())
    assert left.out == ""
    assert lines["openai-runs"]
    assert lines["address"] == server.url
    assert lines["backend"].startswith("echo: no model.")
    assert lines["database"] == "kept.db"
    assert lines["key"].startswith("no, ")


async def test_banner_names_the_model_and_what_it_has(tmp_path: Path) -> None:
    """The endpoint is tried once, beside what is served; keys are shown nowhere."""
    listed = Answer(json={"data": [{"id": "phi4"}, {"id": "qwen3"}]})
    env = {"MINE": "sk-clients", "KEY": "sk-model"}
    async with HostileServer(lambda request: listed) as model:
        where = ["--model-url", model.url, "--model-key-env", "KEY", "--api-key-env", "MINE"]
        async with serving(*where, folder=tmp_path, **env) as server:
            await server.says(f"backend   chat: {model.url}")
            await server.says("key       yes, clients must send that of MINE")
            await server.says(f"model     {model.url}: reachable, 2 models: phi4, qwen3")
            left = await server.end(signal.SIGTERM)

    assert len(model.requests) == 1
    assert "sk-" not in left.err


async def test_server_serves_though_its_model_is_not_there(tmp_path: Path) -> None:
    """Why is said once; the server goes on, as the model may come later."""
    where = ["--model-url", "http://me:word@127.0.0.1:1/v1"]
    async with serving(*where, folder=tmp_path) as server:
        line = await server.says("model     http://***@127.0.0.1:1/v1: not reachable")
        left = await server.end(signal.SIGTERM)

    assert "Connection refused" in line
    assert "is it running?" in line
    assert (left.code, "word" in line + left.err) == (0, False)


def test_server_goes_on_where_nobody_reads_standard_error(tmp_path: Path) -> None:
    """The one line on standard output comes all the same, and requests are answered."""
    script = '"$@" 2>&1 >&3 | true'
    with subprocess.Popen(
        ["sh", "-c", f"exec 3>&1; {script}", "sh", *COMMAND, "serve", "--port", "0"],
        cwd=tmp_path,
        env=clean_env(),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        url = line.removeprefix("listening on ").strip()
        with urlopen(f"{url.removesuffix('/v1')}/healthz") as answer:
            status = answer.status
        os.killpg(process.pid, signal.SIGTERM)

    assert status == 200
