"""`openai-runs ask`: the answer on one output, all else on the other, and no run left behind."""

import json
import re
from pathlib import Path

import pytest

from openai_runs import AsyncClient
from openai_runs.server import LocalServer
from openai_runs.testing import RunsServer
from tests.cli.conftest import InProcess
from tests.cli.processes import execute, files_in, pipe, run_on_terminal, serving
from tests.support import Action, HostileServer, Raw, Received

IDS = re.compile(r"^run (run_\w+), thread (thread_\w+)$", re.MULTILINE)
LOOK_UP = {"type": "function", "function": {"name": "look_up"}}


async def test_answer_alone_is_on_standard_output(tmp_path: Path) -> None:
    """Ids, status and tokens are told apart from it; nothing is left behind."""
    done = await execute("ask", "Grüße, 世界 🌍", folder=tmp_path, TMPDIR=str(tmp_path))

    assert (done.code, done.out) == (0, "Grüße, 世界 🌍\n")
    assert IDS.match(done.err)
    *_, ending, next_step = done.err.splitlines()
    assert ending == "completed; tokens 3 in, 3 out"
    assert "--db FILE" in next_step
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("arguments", [[], ["-"]], ids=["no TEXT", "-"])
async def test_text_is_read_from_standard_input(arguments: list[str], tmp_path: Path) -> None:
    """What is piped in is asked, without the line end that echo adds."""
    done = await pipe("One\nTwö\n", "ask", *arguments, folder=tmp_path)

    assert (done.code, done.out) == (0, "One\nTwö\n")


async def test_standard_input_is_left_alone_where_text_is_given(tmp_path: Path) -> None:
    """A loop that reads lines keeps them."""
    done = await pipe("piped", "ask", "given", folder=tmp_path)

    assert done.out == "given\n"


async def test_answer_is_written_where_the_encoding_is_poor(tmp_path: Path) -> None:
    """A character the output has no code for does not end the answer."""
    done = await execute("ask", "wörld", folder=tmp_path, PYTHONIOENCODING="ascii")

    assert (done.code, done.out) == (0, "w\\xf6rld\n")


async def test_json_is_one_document(tmp_path: Path) -> None:
    """With --json a program reads one line of JSON, and nothing else."""
    done = await execute("ask", "Grüße", "--json", folder=tmp_path, PYTHONIOENCODING="ascii")

    found = IDS.match(done.err)
    assert found is not None
    assert done.out.count("\n") == 1
    assert json.loads(done.out) == {
        "thread_id": found[2],
        "run_id": found[1],
        "status": "completed",
        "text": "Grüße",
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        "recovered": False,
    }


async def test_file_keeps_the_thread(tmp_path: Path) -> None:
    """With --db the next question goes on where the last one ended."""
    first = await execute("ask", "One", "--db", "chat.db", folder=tmp_path)
    found = IDS.match(first.err)
    assert found is not None
    go_on = f"--thread {found[2]}"

    second = await execute("ask", "Two", "--db", "chat.db", *go_on.split(), folder=tmp_path)

    assert first.err.endswith(f"continue: openai-runs ask TEXT {go_on} --db chat.db\n")
    assert second.out == "Two\n"
    async with LocalServer(tmp_path / "chat.db") as server, AsyncClient(server.url) as client:
        messages = [one.text async for one in client.messages.list(found[2], order="asc")]
        left = [one async for one in client.assistants.list()]
    assert messages == ["One", "One", "Two", "Two"]
    assert left == []


async def test_file_that_is_served_is_asked_through_its_server(tmp_path: Path) -> None:
    """One server per file: `ask` goes to the one there is."""
    async with serving("--db", "kept.db", folder=tmp_path) as server:
        done = await execute("ask", "Hello!", "--db", "kept.db", folder=tmp_path)
        found = IDS.match(done.err)
        assert found is not None
        async with AsyncClient(server.url) as client:
            run = await client.runs.retrieve(found[1], thread_id=found[2])

    assert (done.code, done.out, run.status) == (0, "Hello!\n", "completed")


async def test_model_is_asked_with_its_key(tmp_path: Path) -> None:
    """--model-url needs no server in between; the key is sent there and shown nowhere."""
    chunks = [
        {"choices": [{"index": 0, "delta": {"content": text}}]} for text in ("Blue ", "light.")
    ]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"

    def answer(request: Received) -> Action:
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
        return Raw(f"{head}{body}".encode())

    async with HostileServer(answer) as model:
        where = ["--model-url", model.url, "--model-key-env", "KEY", "--model", "phi4"]
        done = await execute(
            "ask", "Why?", *where, "--instructions", "Be brief.", folder=tmp_path, KEY="sk-model"
        )

    assert (done.code, done.out) == (0, "Blue light.\n")
    assert "sk-model" not in done.err
    (request,) = model.requests
    assert request.headers["authorization"] == "Bearer sk-model"
    assert request.json["model"] == "phi4"
    assert [one["content"] for one in request.json["messages"]] == ["Be brief.", "Why?"]


async def test_address_and_key_come_from_the_environment(tmp_path: Path) -> None:
    """As for every client of this wire; an option wins over them."""
    async with RunsServer(api_key="sk-right") as server:
        env = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "sk-right", "MINE": "sk-wrong"}
        done = await execute("ask", "x", folder=tmp_path, **env)
        refused = await execute("ask", "x", "--api-key-env", "MINE", folder=tmp_path, **env)

    assert (done.code, done.out) == (0, f"{server.default_reply}\n")
    assert (refused.code, refused.out) == (1, "")
    assert "--api-key-env" in refused.err
    assert "sk-wrong" not in refused.err


@pytest.mark.parametrize("option", ["--db", "--model-url"])
async def test_options_win_over_the_environment(option: str, tmp_path: Path) -> None:
    """Who names a file or a model means it, whatever OPENAI_BASE_URL says."""
    value = "chat.db" if option == "--db" else "http://127.0.0.1:1/v1"

    done = await execute("ask", "x", option, value, folder=tmp_path, OPENAI_BASE_URL="no url")

    assert done.code == (0 if option == "--db" else 4)


async def test_assistant_of_the_question_is_removed(
    runs_server: RunsServer, runs_client: AsyncClient, tmp_path: Path
) -> None:
    """The server keeps the thread, and no assistant that nobody asked for."""
    where = ["--base-url", runs_server.url, "--model", "m", "--instructions", "Be brief."]

    done = await execute("ask", "x", *where, folder=tmp_path)

    assert done.code == 0
    (created,) = runs_server.seen("POST", "/assistants")
    assert (created.json["model"], created.json["instructions"]) == ("m", "Be brief.")
    assert [one async for one in runs_client.assistants.list()] == []


async def test_named_assistant_is_asked_and_kept(
    runs_server: RunsServer, runs_client: AsyncClient, tmp_path: Path
) -> None:
    """--model and --instructions then hold for the one run."""
    assistant = await runs_client.assistants.create(model="its own")
    where = ["--base-url", runs_server.url, "--assistant", assistant.id, "--model", "another"]

    done = await execute("ask", "x", *where, "--instructions", "Be brief.", folder=tmp_path)

    assert done.code == 0
    (created,) = runs_server.seen("POST", "/threads/*/runs")
    assert (created.json["model"], created.json["instructions"]) == ("another", "Be brief.")
    assert [one.id async for one in runs_client.assistants.list()] == [assistant.id]


async def test_question_that_waits_for_tools_exits_3(
    runs_server: RunsServer, runs_client: AsyncClient, tmp_path: Path
) -> None:
    """The calls are told, in words and as JSON, and the run goes on waiting."""
    assistant = await runs_client.assistants.create(model="m", tools=[LOOK_UP])
    where = ["--base-url", runs_server.url, "--assistant", assistant.id]
    runs_server.call_tool("look_up", {"x": 1}, text="Let me see.")
    runs_server.call_tool("look_up", {"x": 1})

    words = await execute("ask", "x", *where, folder=tmp_path)
    document = await execute("ask", "x", *where, "--json", folder=tmp_path)

    assert (words.code, document.code, words.out) == (3, 3, "Let me see.\n")
    assert 'requires_action: look_up({"x":1})' in words.err
    assert "runs.resume(" in words.err
    told = json.loads(document.out)
    (call,) = told["required_action"]["submit_tool_outputs"]["tool_calls"]
    assert (told["status"], call["function"]["name"]) == ("requires_action", "look_up")
    run = await runs_client.runs.retrieve(told["run_id"], thread_id=told["thread_id"])
    assert run.needs_action


@pytest.mark.parametrize(
    ("ending", "reason"),
    [("fail", "failed (server_error): No luck."), ("incomplete", "incomplete (max_completion")],
)
async def test_run_that_does_not_complete_exits_4(
    ending: str, reason: str, runs_server: RunsServer, tmp_path: Path
) -> None:
    """What was written before is shown, and why there is no more."""
    if ending == "fail":
        runs_server.fail(message="No\nluck.")
    else:
        runs_server.incomplete(text="Half an")

    done = await execute("ask", "x", "--base-url", runs_server.url, folder=tmp_path)

    assert (done.code, done.out) == (4, "" if ending == "fail" else "Half an\n")
    assert reason in done.err
    assert ("--model" in done.err) is (ending == "fail")


async def test_run_that_expires_exits_4(tmp_path: Path) -> None:
    """The server's own deadline ended it."""
    async with RunsServer(run_lifetime=1) as server:
        server.hang(text="Once upon")
        done = await execute("ask", "x", "--base-url", server.url, "--json", folder=tmp_path)

    told = json.loads(done.out)
    assert (done.code, told["status"], told["text"]) == (4, "expired", "Once upon")


async def test_refusals_name_the_ids_and_what_to_do(
    runs_server: RunsServer, runs_client: AsyncClient, tmp_path: Path
) -> None:
    """A thread that is busy, and one that is not there."""
    runs_server.hang()
    assistant = await runs_client.assistants.create(model="m")
    run = await runs_client.threads.create_and_run(assistant_id=assistant.id)
    where = ["--base-url", runs_server.url, "--thread"]

    busy = await execute("ask", "x", *where, run.thread_id, folder=tmp_path)
    missing = await execute("ask", "x", *where, "thread_none", folder=tmp_path)

    assert (busy.code, busy.out, missing.code, missing.out) == (1, "", 1, "")
    assert f"openai-runs runs wait {run.id} --thread {run.thread_id}" in busy.err
    assert "thread_none" in missing.err
    assert "Traceback" not in busy.err + missing.err


async def test_thread_without_a_run_is_removed(runs_server: RunsServer, tmp_path: Path) -> None:
    """A question that was refused leaves nothing on the server."""
    where = ["--base-url", runs_server.url, "--assistant", "asst_none"]

    done = await execute("ask", "x", *where, folder=tmp_path)

    assert (done.code, "asst_none" in done.err) == (1, True)
    assert len(runs_server.seen("POST", "/threads")) == 1
    assert len(runs_server.seen("DELETE", "/threads/*")) == 1


def test_server_that_is_not_there_is_one_sentence(in_process: InProcess) -> None:
    """No connection: which address, and which option names it."""
    done = in_process("ask", "x", "--base-url", "http://127.0.0.1:1/v1")

    assert (done.code, done.out) == (1, "")
    assert done.err.endswith(
        "openai-runs: no connection to 127.0.0.1:1: Connection refused (POST "
        "http://127.0.0.1:1/v1/assistants); is it running? "
        "`openai-runs serve --port 1` starts one\n"
    )


def test_server_of_the_environment_is_named_as_such(in_process: InProcess) -> None:
    """Who did not type the address reads where it is from."""
    done = in_process("ask", "x", OPENAI_BASE_URL="http://127.0.0.1:1/v1")

    assert done.err.endswith("starts one (the address is from OPENAI_BASE_URL)\n")
    assert len(done.err.splitlines()) == 1


def test_unusable_file_is_one_sentence(in_process: InProcess) -> None:
    """A database that cannot be opened is named, with the option."""
    done = in_process("ask", "x", "--db", "missing/chat.db")

    assert (done.code, done.out) == (1, "")
    assert "missing/chat.db" in done.err
    assert "--db" in done.err
    assert len(done.err.splitlines()) == 1


def test_answer_cannot_steer_the_terminal(runs_server: RunsServer, tmp_path: Path) -> None:
    """A model's escape codes are shown, not obeyed."""
    runs_server.reply("Boo\x1b]0;title\x07!\r\nDone.")

    shown, code = run_on_terminal("ask", "x", "--base-url", runs_server.url, folder=tmp_path)

    assert code == 0
    assert "Boo\\x1b]0;title\\x07!\r\nDone.\r\n" in shown
    assert "\x1b]" not in shown


def test_unencrypted_address_is_warned_of_in_words(in_process: InProcess) -> None:
    """The warning names no line of our code."""
    where = ["--base-url", "http://192.0.2.1/v1", "--timeout", "0.01"]

    done = in_process("ask", "x", *where)

    assert done.code == 6
    assert "not encrypted" in done.err
    assert ".py" not in done.err
