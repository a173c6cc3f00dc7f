"""`openai-runs assistants`: create one, list them, show one."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from openai_runs.testing import RunsServer
from tests.cli.conftest import InProcess
from tests.cli.processes import Finished, files_in
from tests.cli.test_functions import TOOL

STEP = re.compile(r"ask it: openai-runs (.*)\n")


def created(done: Finished) -> str:
    """Return the id that was printed, and nothing beside it."""
    assert (done.code, done.out.count("\n")) == (0, 1)
    return done.out.strip()


def test_assistant_is_created_and_asked_by_the_command_that_is_shown(
    in_process: InProcess, tmp_path: Path
) -> None:
    """The id alone on standard output; the next step can be typed as it is, tools included."""
    (tmp_path / "made_orders.py").write_text(TOOL)
    given = ["--model", "echo", "--tools", "made_orders.py:look_up", "--db", "it is.db"]

    done = in_process("assistants", "create", *given)

    step = STEP.fullmatch(done.err)
    assert step is not None
    words = shlex.split(step[1])
    assert words == [
        *("ask", "Hello!", "--assistant", created(done)),
        *("--tools", "made_orders.py:look_up", "--db", "it is.db"),
    ]
    asked = in_process("ask", "Use the tool look_up for 1042.", *words[2:])
    assert (asked.code, asked.out) == (0, "look_up says: order 1042 left our warehouse\n")


def test_everything_that_was_given_is_shown(in_process: InProcess, tmp_path: Path) -> None:
    """In words, each below its name, and as JSON as the server has it."""
    (tmp_path / "shown_orders.py").write_text(TOOL)
    (tmp_path / "support.md").write_text("Be brief.\nBe kind. 世界 \x1b[2J")
    given = ["--model", "phi4", "--name", "Bob", "--tools", "shown_orders:look_up"]
    where = ["--db", "c.db"]
    done = in_process(
        "assistants", "create", *given, "--instructions-file", "support.md", *where, "--json"
    )
    made = json.loads(done.out)

    words = in_process("assistants", "show", made["id"], *where)
    document = in_process("assistants", "show", made["id"], *where, "--json")

    assert (done.err, words.err) == ("", "")
    assert made["instructions"] == (tmp_path / "support.md").read_text()
    assert made["tools"][0]["function"]["parameters"]["required"] == ["order"]
    assert json.loads(document.out) == made
    assert re.sub(r"created .*\n", "created\n", words.out) == (
        f"assistant     {made['id']}\nname          Bob\nmodel         phi4\ncreated\n"
        "tools         look_up\n"
        f"instructions  Be brief.\n{' ' * 14}Be kind. 世界 \\x1b[2J\n"
    )


def test_assistants_are_listed_newest_first_in_pages(
    in_process: InProcess, runs_server: RunsServer
) -> None:
    """Id, time, model and name; the line for the next page can be typed."""
    where = ["--base-url", runs_server.url]
    empty = in_process("assistants", "list", *where)
    ids = [
        created(in_process("assistants", "create", "--model", "phi4", *more, *where))
        for more in ([], ["--name", "Bob"], ["--instructions", "Be brief."])
    ]

    page = in_process("assistants", "list", "--limit", "2", *where)
    more = re.fullmatch(r"more: openai-runs (.*)\n", page.err)
    assert more is not None
    rest = in_process(*more[1].split())

    assert empty == (0, "", "none\n")
    head, first, second = page.out.splitlines()
    assert head.split() == ["assistant", "created", "model", "name"]
    assert [first.split()[0], second.split()[0]] == ids[:0:-1]
    assert second.endswith("  phi4   Bob")
    assert rest.out.splitlines()[1].split()[0] == ids[0]


def test_next_step_names_the_server_and_its_key(
    in_process: InProcess, runs_server: RunsServer
) -> None:
    """And for a file, that a model is needed which is not the echo."""
    where = ["--base-url", runs_server.url, "--api-key-env", "SHOP_KEY"]
    served = in_process("assistants", "create", "--model", "phi4", *where, SHOP_KEY="sk-shop")
    alone = in_process("assistants", "create", "--model", "phi4", "--db", "c.db")

    assert served.err.endswith(f" --base-url {runs_server.url} --api-key-env SHOP_KEY\n")
    assert "sk-shop" not in served.err
    assert alone.err.endswith(" --db c.db --model-url URL\n")


MISTAKES = {
    "no model": (["create", "--db", "c.db"], 2, "--model is required: model that answers"),
    "no server": (["create", "--model", "m"], 2, "which server is meant?"),
    "two instructions": (
        ["create", "--model", "m", "--instructions", "a", "--instructions-file", "b"],
        2,
        "use one of the two",
    ),
    "no such file": (
        ["create", "--model", "m", "--db", "c.db", "--instructions-file", "none.md"],
        2,
        "--instructions-file none.md: cannot be read: No such file",
    ),
    "not UTF-8": (
        ["create", "--model", "m", "--db", "c.db", "--instructions-file", "latin.md"],
        2,
        "--instructions-file latin.md: is no text in UTF-8",
    ),
    "no tool": (
        ["create", "--model", "m", "--db", "c.db", "--tools", "json:nothing"],
        2,
        "has no function nothing",
    ),
    "no file to list": (["list", "--db", "none.db"], 1, "there is no database 'none.db'"),
    "no id": (["show", "--db", "none.db"], 2, "ASSISTANT_ID is required: the assistant's id, as"),
    "bad id": (["show", "a/b", "--db", "none.db"], 2, "a/b"),
}


@pytest.mark.parametrize(("arguments", "code", "words"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_one_sentence(
    arguments: list[str], code: int, words: str, in_process: InProcess, tmp_path: Path
) -> None:
    """2 where nothing was asked; no file is made for it."""
    (tmp_path / "latin.md").write_bytes("Grüße".encode("latin-1"))

    done = in_process("assistants", *arguments)

    assert (done.code, done.out) == (code, "")
    assert words in done.err
    assert files_in(tmp_path) == ["latin.md"]


REFUSALS = {
    "unknown": (["show", "asst_none"], "No assistant found with id 'asst_none'"),
    "too long": (["create", "--model", "m", "--name", "x" * 300], "Invalid 'name'"),
}


@pytest.mark.parametrize(("arguments", "words"), REFUSALS.values(), ids=REFUSALS)
def test_refusal_of_the_server_is_one_sentence(
    arguments: list[str], words: str, in_process: InProcess, runs_server: RunsServer
) -> None:
    """With exit code 1."""
    done = in_process("assistants", *arguments, "--base-url", runs_server.url)

    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert words in done.err


def test_assistant_is_updated_with_what_is_given(in_process: InProcess, tmp_path: Path) -> None:
    """All else stays as it is; the id alone on standard output."""
    (tmp_path / "new.md").write_text("Be brief.")
    where = ["--db", "u.db"]
    given = ["--model", "echo", "--name", "Bob", "--instructions", "Be kind.", *where]
    made = created(in_process("assistants", "create", *given))

    first = in_process("assistants", "update", made, "--name", "Ada", *where)
    second = in_process(
        "assistants", "update", made, "--instructions-file", "new.md", "--json", *where
    )

    assert (first.code, first.out, first.err) == (0, f"{made}\n", "")
    found = json.loads(second.out)
    assert (found["id"], found["model"], found["name"]) == (made, "echo", "Ada")
    assert found["instructions"] == "Be brief."


def test_update_without_a_change_is_refused(in_process: InProcess) -> None:
    """Nothing would be sent."""
    made = created(in_process("assistants", "create", "--model", "echo", "--db", "n.db"))

    done = in_process("assistants", "update", made, "--db", "n.db")

    assert (done.code, done.out) == (2, "")
    assert "nothing to change: give --model, --name, --instructions or --tools" in done.err


def test_assistant_is_deleted_and_gone(in_process: InProcess) -> None:
    """The id on standard output; a second time there is none."""
    where = ["--db", "d.db"]
    made = created(in_process("assistants", "create", "--model", "echo", *where))

    done = in_process("assistants", "delete", made, *where)
    again = in_process("assistants", "delete", made, *where)
    listed = in_process("assistants", "list", *where)

    assert (done.code, done.out, done.err) == (0, f"{made} deleted\n", "")
    assert (again.code, again.out) == (1, "")
    assert made in again.err
    assert made not in listed.out


def test_deletion_is_printed_as_json(in_process: InProcess) -> None:
    """As the API has it."""
    where = ["--db", "j.db"]
    made = created(in_process("assistants", "create", "--model", "echo", *where))

    done = in_process("assistants", "delete", made, "--json", *where)

    assert json.loads(done.out) == {"id": made, "object": "assistant.deleted", "deleted": True}


@pytest.mark.parametrize("command", ["delete", "update"])
@pytest.mark.parametrize("given", ["run_1", "thread_1", "../threads/thread_1"])
def test_id_of_something_else_is_neither_deleted_nor_updated(
    in_process: InProcess, command: str, given: str
) -> None:
    """Before anything is sent."""
    name = ["--name", "Ada"] if command == "update" else []

    done = in_process("assistants", command, given, *name, "--base-url", "http://127.0.0.1:9/v1")

    assert (done.code, done.out) == (2, "")
    assert given in done.err
