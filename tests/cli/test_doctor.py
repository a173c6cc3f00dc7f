"""`openai-runs doctor`: each line is ok, warn or fail, with what to do next."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from openai_runs.batch.checkpoint import Checkpoint
from openai_runs.server import LocalServer
from openai_runs.testing import RunsServer
from tests.cli.conftest import InProcess
from tests.cli.processes import execute, files_in, run_on_terminal, serving
from tests.support import Action, Answer, HostileServer, Received


def lines_of(out: str) -> dict[str, str]:
    """Return topic -> state of the lines that begin with a state."""
    found = re.findall(r"^(ok|warn|fail) +(\S+(?: \S+)?)  ", out, re.MULTILINE)
    return {topic: state for state, topic in found}


def test_alone_it_says_what_is_installed(in_process: InProcess, tmp_path: Path) -> None:
    """Python, the package with its libraries, the extras, and what the environment says."""
    done = in_process("doctor", OPENAI_API_KEY="sk-doctor")

    assert (done.code, done.err) == (0, "")
    found = lines_of(done.out)
    assert found.keys() >= {"python", "package", "extra cli", "extra server", "environment"}
    assert "OPENAI_API_KEY set" in done.out
    assert "sk-doctor" not in done.out
    assert files_in(tmp_path) == []


async def test_database_is_checked_and_its_server_named(tmp_path: Path) -> None:
    """The same file, free and served."""
    async with serving("--db", "kept.db", folder=tmp_path) as server:
        served = await execute("doctor", "--db", "kept.db", folder=tmp_path)
        await server.end(15)
    free = await execute("doctor", "--db", "kept.db", folder=tmp_path)
    missing = await execute("doctor", "--db", "none.db", folder=tmp_path)

    assert (served.code, free.code, missing.code) == (0, 0, 1)
    assert f"served at {server.url}" in served.out
    assert "free: no server has the file" in free.out
    assert "'none.db' is not there" in " ".join(missing.out.split())
    assert files_in(tmp_path) == ["kept.db", "kept.db.lock"]


def test_checkpoint_of_a_batch_is_no_database_to_restore(
    in_process: InProcess, tmp_path: Path
) -> None:
    """The command that reads it is named."""
    Checkpoint(tmp_path / "batch.db").close()

    done = in_process("doctor", "--db", "batch.db")

    assert done.code == 1
    text = " ".join(done.out.split())
    assert "batch.db: it is the checkpoint of a batch" in text
    assert "`openai-runs batch status batch.db`" in text
    assert "restore" not in text


def model(request: Received) -> Action:
    """List two models, and answer the first."""
    if request.method == "GET":
        return Answer(json={"data": [{"id": "phi4"}, {"id": "qwen3"}]})
    if request.json["model"] != "phi4":
        return Answer(404, json={"error": {"message": f"no {request.json['model']} here"}})
    message = {"role": "assistant", "content": "OK"}
    return Answer(json={"choices": [{"index": 0, "finish_reason": "stop", "message": message}]})


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [([], 0, "2 models"), (["--model", "qwen3"], 1, "no qwen3 here")],
    ids=["first listed", "--model"],
)
async def test_model_is_asked_one_word(
    options: list[str], code: int, words: str, tmp_path: Path
) -> None:
    """Reached and asked, as a run would; the key is sent there and shown nowhere."""
    async with HostileServer(model) as endpoint:
        where = ["--model-url", endpoint.url, "--model-key-env", "KEY", *options]
        done = await execute("doctor", *where, folder=tmp_path, KEY="sk-model")

    assert done.code == code
    assert words in " ".join(done.out.split())
    assert lines_of(done.out)["answer"] == ("fail" if code else "ok")
    (asked,) = endpoint.seen("POST")
    assert asked.headers["authorization"] == "Bearer sk-model"
    assert "sk-model" not in done.out + done.err


async def test_endpoints_of_a_file_are_asked_for_their_models(tmp_path: Path) -> None:
    """Each with a model that goes there; one that is away fails, and not the others."""
    async with HostileServer(model) as endpoint:
        (tmp_path / "models.toml").write_text(
            f'[endpoints.here]\nurl = "{endpoint.url}"\n'
            '[endpoints.away]\nurl = "http://127.0.0.1:1/v1"\n'
            '[models]\n"gpt-*" = { endpoint = "here", model = "phi4" }\n'
            '"o3" = { endpoint = "away" }\n'
        )
        done = await execute("doctor", "--config", "models.toml", "--json", folder=tmp_path)

    document = json.loads(done.out)
    states = [(one["topic"], one["state"]) for one in document["findings"]]
    assert (done.code, document["works"]) == (1, False)
    assert [one for one in states if one[0] in {"model", "answer"}] == [
        ("model", "ok"),
        ("answer", "ok"),
        ("model", "fail"),
    ]


async def test_server_is_examined(tmp_path: Path) -> None:
    """Its address and key come from the environment, as for clients."""
    async with LocalServer(api_key="sk-right") as server:
        env = {"OPENAI_BASE_URL": server.url}
        right = await execute("doctor", folder=tmp_path, OPENAI_API_KEY="sk-right", **env)
        wrong = await execute("doctor", folder=tmp_path, OPENAI_API_KEY="sk-wrong", **env)
        named = ["doctor", "--api-key-env", "SHOP_KEY"]
        other = await execute(*named, folder=tmp_path, SHOP_KEY="sk-wrong", **env)

    assert (right.code, wrong.code, other.code) == (0, 1, 1)
    assert "refused the key in OPENAI_API_KEY" in " ".join(wrong.out.split())
    assert "refused the key in SHOP_KEY" in " ".join(other.out.split())
    assert "has assistants, threads, messages, runs, steps" in right.out
    assert "--api-key-env" in wrong.out
    assert "sk-" not in right.out + wrong.out.replace("sk-...", "")


def test_lines_fit_a_terminal(runs_server: RunsServer, tmp_path: Path) -> None:
    """At 80 columns nothing is broken by the terminal."""
    shown, code = run_on_terminal(
        "doctor", "--base-url", "http://127.0.0.1:1/v1", "--db", "none.db", folder=tmp_path
    )

    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert code == 1
    assert max(map(len, plain.split("\r\n"))) <= 80
    assert "\x1b[1;31mfail" in shown


MISTAKES: dict[str, Any] = {
    "two ways": ["--config", "x.toml", "--model-url", "http://127.0.0.1:1/v1"],
    "model of nothing": ["--model", "phi4"],
    "key of nothing": ["--model-key-env", "KEY"],
    "no file": ["--config", "missing.toml"],
    "no key": ["--api-key-env", "NO_SUCH"],
}


@pytest.mark.parametrize("options", MISTAKES.values(), ids=MISTAKES)
def test_contradictions_are_wrong_usage(options: list[str], in_process: InProcess) -> None:
    """Nothing is checked."""
    done = in_process("doctor", *options, KEY="sk-model")

    assert (done.code, done.out) == (2, "")
