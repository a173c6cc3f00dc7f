"""`openai-runs serve` says where it listens, serves, and stops as it is told to."""

import signal
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest

from openai_runs import AsyncClient, AuthenticationError, BadRequestError, Run
from openai_runs.config import DRAIN_GRACE
from openai_runs.server import LocalServer
from tests.canaries import CANARY_KEY, CANARY_PROMPT
from tests.cli.conftest import InProcess
from tests.cli.processes import execute, serving
from tests.server.hostile_requests import REFUSED, UNUSUAL, ask
from tests.support import Action, Answer, Hang, HostileServer, Received, without_list


async def start_run(client: AsyncClient, text: str = "Hello!", **arguments: Any) -> Run:
    """Start a run on a new thread."""
    assistant = await client.assistants.create(model="m")
    thread = await client.threads.create(messages=[{"role": "user", "content": text}])
    run: Run = await client.runs.create(thread.id, assistant_id=assistant.id, **arguments)
    return run


def completion(text: str) -> Answer:
    """Return what a chat-completions endpoint answers."""
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": text},
    }
    return Answer(json={"id": "c", "object": "chat.completion", "model": "m", "choices": [choice]})


async def test_serve_prints_where_it_listens_and_answers_there(tmp_path: Path) -> None:
    """The one line on standard output is the address of a working server."""
    async with serving(folder=tmp_path) as server:
        async with AsyncClient(server.url) as client:
            run = await client.runs.wait(await start_run(client))
            result = await client.runs.result(run)
        left = await server.end(signal.SIGTERM)

    assert server.url.startswith("http://127.0.0.1:")
    assert (run.status, result.text) == ("completed", "Hello!")
    assert (left.code, left.out) == (0, "")
    assert (tmp_path / "runs.db").exists()


async def test_serve_keeps_runs_for_the_next_server(tmp_path: Path) -> None:
    """What was served is there after a restart on the same file."""
    async with serving("--db", "kept.db", folder=tmp_path) as server:
        async with AsyncClient(server.url) as client:
            run = await client.runs.wait(await start_run(client))
        await server.end(signal.SIGTERM)

    async with (
        serving("--db", "kept.db", folder=tmp_path) as server,
        AsyncClient(server.url) as client,
    ):
        again = await client.runs.retrieve(run.id, thread_id=run.thread_id)

    assert again == run


async def test_serve_logs_a_line_for_each_run(tmp_path: Path) -> None:
    """Standard error names the run that ended."""
    async with serving(folder=tmp_path) as server:
        async with AsyncClient(server.url) as client:
            run = await client.runs.wait(await start_run(client))

        await server.says(f"run {run.id}")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130), (signal.SIGHUP, 0)]
)
async def test_serve_lets_running_work_finish(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    """A signal in mid-run: the model's answer is still taken, and stored."""
    asked, free = anyio.Event(), anyio.Event()

    async def answer(request: Received) -> Action:
        asked.set()
        await free.wait()
        return completion("Just in time.")

    async with HostileServer(without_list(answer)) as model:
        model_url = ["--model-url", model.url]
        async with serving(*model_url, folder=tmp_path) as server:
            async with AsyncClient(server.url) as client:
                run = await start_run(client)
                await asked.wait()
            await server.signal(number)
            await server.says("stopping")
            free.set()
            await server.process.wait()
        async with LocalServer(tmp_path / "runs.db") as second, AsyncClient(second.url) as client:
            run = await client.runs.retrieve(run.id, thread_id=run.thread_id)
            result = await client.runs.result(run)

    assert server.process.returncode == code
    assert (result.run.status, result.text) == ("completed", "Just in time.")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
async def test_second_signal_stops_at_once(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    """Who cannot wait need not; the run goes on with the next server."""
    asked = anyio.Event()

    def hang(request: Received) -> Action:
        asked.set()
        return Hang()

    async with HostileServer(without_list(hang)) as model:
        model_url = ["--model-url", model.url]
        async with serving(*model_url, folder=tmp_path) as server:
            async with AsyncClient(server.url) as client:
                run = await start_run(client)
                await asked.wait()
            await server.signal(number)
            await server.says("stopping")
            with anyio.fail_after(DRAIN_GRACE - 1):  # it does not wait for the hanging model
                left = await server.end(number)
        async with LocalServer(tmp_path / "runs.db") as second, AsyncClient(second.url) as client:
            run = await client.runs.wait(run.id, thread_id=run.thread_id)

    assert left.code == code
    assert "Traceback" not in left.err
    assert run.status == "completed"


async def test_second_server_on_a_file_is_refused(tmp_path: Path) -> None:
    """One server per file: the second names the file and where the first one is."""
    async with serving(folder=tmp_path) as first:
        second = await execute("serve", "--port", "0", folder=tmp_path)
        async with AsyncClient(first.url) as client:
            await client.threads.create()

    assert (second.code, second.out) == (1, "")
    assert "runs.db" in second.err
    assert first.url in second.err
    assert len(second.err.splitlines()) == 1


def test_port_in_use_is_one_sentence(in_process: InProcess) -> None:
    """Whose port is taken learns which, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = in_process("serve", "--port", port)

    assert (done.code, done.out) == (1, "")
    assert f"port {port} of 127.0.0.1 is in use" in done.err
    assert "--port 0" in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host", f"{'x' * 70}.example"])
def test_host_that_is_not_ours_is_one_sentence(host: str, in_process: InProcess) -> None:
    """An address of another machine, or of none, cannot be listened on."""
    options = ["--host", host, "--api-key-env", "KEY"]

    done = in_process("serve", "--port", "0", *options, KEY="sk-secret")

    assert (done.code, done.out) == (1, "")
    assert host in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize("db", ["missing/runs.db", "text/runs.db", "text", "."])
def test_unusable_file_is_one_sentence(db: str, in_process: InProcess, tmp_path: Path) -> None:
    """A folder that is not there, a file in its place, a file that is no database."""
    (tmp_path / "text").write_text("This is not a database, but long enough for a header. " * 20)

    done = in_process("serve", "--port", "0", "--db", db)

    assert (done.code, done.out) == (1, "")
    assert f"'{db}'" in done.err
    assert "--db" in done.err
    assert len(done.err.splitlines()) == 1


async def test_key_is_asked_for_on_every_address(tmp_path: Path) -> None:
    """With --api-key-env other machines may connect, and only the key opens."""
    options = ["--host", "0.0.0.0", "--api-key-env", "KEY"]
    async with serving(*options, folder=tmp_path, KEY="sk-secret") as server:
        url = server.url.replace("0.0.0.0", "127.0.0.1")
        async with AsyncClient(url, api_key="sk-secret") as client:
            thread = await client.threads.create()
        async with AsyncClient(url, api_key="sk-guess") as client:
            with pytest.raises(AuthenticationError):
                await client.threads.retrieve(thread.id)
        left = await server.end(signal.SIGTERM)

    assert "sk-secret" not in left.err


async def test_model_key_reaches_the_model(tmp_path: Path) -> None:
    """The key named by --model-key-env is sent to the model endpoint, and logged nowhere."""
    options = ["--model-key-env", "KEY"]
    async with HostileServer(lambda request: completion("Hi.")) as model:
        where = ["--model-url", model.url]
        async with serving(*where, *options, folder=tmp_path, KEY="sk-model") as server:
            async with AsyncClient(server.url) as client:
                run = await client.runs.wait(await start_run(client))
            left = await server.end(signal.SIGTERM)

    assert run.status == "completed"
    assert [one.headers["authorization"] for one in model.seen("POST")] == ["Bearer sk-model"]
    assert "sk-model" not in left.err


MAPS = {
    "as-it-is": ([], "gpt-4o"),
    "model": (["--model", "qwen3"], "qwen3"),
    "map": (["--model-map", "gpt-4o=qwen3", "--model-map", "o3=other"], "qwen3"),
    "pattern": (["--model-map", "gpt-*=qwen3"], "qwen3"),
    "map-before-model": (["--model", "other", "--model-map", "gpt-4o*=qwen3"], "qwen3"),
    "other-name": (["--model-map", "gpt-4o-mini=qwen3"], "gpt-4o"),
}


@pytest.mark.parametrize(("options", "asked"), MAPS.values(), ids=MAPS)
async def test_serve_asks_for_the_model_that_it_is_told(
    options: list[str], asked: str, tmp_path: Path
) -> None:
    """An assistant of another vendor's model works; the run shows the name it was given."""
    async with HostileServer(lambda request: completion("Hi.")) as model:
        where = ["--model-url", model.url, "--model-timeout", "30"]
        async with (
            serving(*where, *options, folder=tmp_path) as server,
            AsyncClient(server.url) as client,
        ):
            run = await client.runs.wait(await start_run(client, model="gpt-4o"))

    assert (run.status, run.model) == ("completed", "gpt-4o")
    assert [one.json["model"] for one in model.seen("POST")] == [asked]


async def test_model_that_is_silent_for_longer_than_the_timeout_fails_the_run(
    tmp_path: Path,
) -> None:
    """`--model-timeout` is what the operator waits for a model, the first word included."""
    async with (
        HostileServer(lambda request: Hang()) as model,
        serving("--model-url", model.url, "--model-timeout", "0.2", folder=tmp_path) as server,
        AsyncClient(server.url) as client,
    ):
        run = await client.runs.wait(await start_run(client))

    assert run.status == "failed"
    assert run.last_error is not None
    assert "0.2 s" in run.last_error.message


async def test_run_expires_when_its_lifetime_is_over(tmp_path: Path) -> None:
    """`--run-lifetime` is how long a run may take, however patient the server is."""
    async with (
        HostileServer(lambda request: Hang()) as model,
        serving("--model-url", model.url, "--run-lifetime", "2", folder=tmp_path) as server,
        AsyncClient(server.url) as client,
    ):
        begun = await start_run(client)
        run = await client.runs.wait(begun)

    assert begun.expires_at == begun.created_at + 2
    assert run.status in {"expired", "failed"}


async def test_words_of_an_endpoint_without_the_model_reach_the_run(tmp_path: Path) -> None:
    """Whoever reads the run learns that the model is missing, not that something failed."""
    words = "model 'gpt-4o' not found, try pulling it first"

    def refuse(request: Received) -> Answer:
        return Answer(404, json={"error": {"message": words, "type": "not_found_error"}})

    async with (
        HostileServer(refuse) as model,
        serving("--model-url", model.url, folder=tmp_path) as server,
        AsyncClient(server.url) as client,
    ):
        run = await client.runs.wait(await start_run(client, model="gpt-4o"))

    assert run.status == "failed"
    assert run.last_error is not None
    assert words in run.last_error.message


FILE = """
[endpoints.local]
url = "{local}"
[endpoints.cloud]
url = "{cloud}/"
key_env = "CLOUD_KEY"
[models]
"deepseek-*" = {{ endpoint = "cloud" }}
"qwen3" = {{ endpoint = "local" }}
"gpt-4o*" = "qwen3"
"""


def named(name: str) -> HostileServer:
    """Return an endpoint that says its name and the model it was asked for, and has no list."""

    def answer(request: Received) -> Action:
        if request.method == "GET":
            return Answer(404, json={"error": {"message": "no list"}})
        return completion(f"{name} {request.json['model']}")

    return HostileServer(answer)


async def answer_of(client: AsyncClient, model: str) -> str:
    """Return what a run of this model answers."""
    run = await client.runs.wait(await start_run(client, model=model))
    return (await client.runs.result(run)).text


async def test_serve_with_a_file_sends_each_model_to_its_endpoint(tmp_path: Path) -> None:
    """Two endpoints, each with its own key; models are listed, and a name of neither is refused."""
    async with named("local") as local, named("cloud") as cloud:
        text = FILE.format(local=local.url, cloud=cloud.url)
        await anyio.Path(tmp_path / "models.toml").write_text(text)
        options = ["--config", "models.toml"]
        async with serving(*options, folder=tmp_path, CLOUD_KEY="sk-cloud") as server:
            async with AsyncClient(server.url) as client:
                texts = [
                    await answer_of(client, model)
                    for model in ("qwen3", "gpt-4o-mini", "deepseek-chat")
                ]
                with pytest.raises(BadRequestError) as refused:
                    await start_run(client, model="llama3")
                models = await client.request("GET", "/models")
            left = await server.end(signal.SIGTERM)

    assert texts == ["local qwen3", "local qwen3", "cloud deepseek-chat"]
    assert "'llama3' is not served here" in refused.value.message
    assert (refused.value.param, refused.value.code) == ("model", "model_not_found")
    assert [model["id"] for model in models["data"]] == ["qwen3"]
    assert {one.headers.get("authorization") for one in cloud.requests} == {"Bearer sk-cloud"}
    assert {one.headers.get("authorization") for one in local.requests} == {None}
    assert "sk-cloud" not in left.err


def test_mistake_in_the_file_is_one_sentence_that_names_its_place(
    in_process: InProcess, tmp_path: Path
) -> None:
    """File, table and key, and the way to help; no server is started."""
    file = tmp_path / "models.toml"
    file.write_text('[endpoints.local]\nurl = "127.0.0.1:11434"\n')

    done = in_process("serve", "--config", "models.toml")

    assert (done.code, done.out) == (2, "")
    assert "--config models.toml: [endpoints.local] url must begin with http://" in done.err
    assert not (tmp_path / "runs.db").exists()


async def test_serve_ignores_hosted_tools_when_told_to(tmp_path: Path) -> None:
    """The run goes on without them, and standard error says so."""
    options = ["--hosted-tools", "ignore"]
    async with serving(*options, folder=tmp_path) as server, AsyncClient(server.url) as client:
        run = await client.runs.wait(await start_run(client, tools=[{"type": "file_search"}]))
        await server.says(f"run {run.id}: the model is not told of file_search")

    assert run.status == "completed"


SETTINGS: dict[str, dict[str, str]] = {
    "c-parser": {},
    "python-parser": {"AIOHTTP_NO_EXTENSIONS": "1"},
    "asyncio-debug": {"PYTHONASYNCIODEBUG": "1"},
    "development-mode": {"PYTHONDEVMODE": "1", "AIOHTTP_NO_EXTENSIONS": "1"},
}


@pytest.mark.parametrize("setting", SETTINGS)
async def test_serve_quotes_no_request_on_standard_error(setting: str, tmp_path: Path) -> None:
    """Whatever is sent, and whichever parser refuses it: no key and no prompt is written down."""
    environ = {**SETTINGS[setting], "SERVER_KEY": CANARY_KEY}
    async with serving("--api-key-env", "SERVER_KEY", folder=tmp_path, **environ) as server:
        port = urlsplit(server.url).port
        assert port is not None
        for data in (REFUSED | UNUSUAL).values():
            answer = await ask(port, data)
            assert b" 500 " not in answer
        left = await server.end(signal.SIGTERM)

    lines = [line for line in left.err.splitlines() if "refused what is no valid HTTP" in line]
    assert len(lines) == 1  # within a minute
    assert "more requests that are no valid HTTP" in left.err
    assert "Traceback" not in left.err
    assert CANARY_KEY not in left.err
    assert CANARY_PROMPT not in left.err
