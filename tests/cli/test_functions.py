"""`--tools`: functions of a module or a file, the same for each command that calls them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from openai_runs import AsyncClient
from openai_runs.testing import RunsServer
from tests.cli.conftest import InProcess

TOOL = '''
def look_up(order: str) -> str:
    """Look up an order.

    Args:
        order: Its number.
    """
    return f"order {order} left our warehouse"
'''
MANY = """
from json import dumps
async def look_up_order(order: str) -> str: ...
def _hidden() -> None: ...
def cancel_order(order: str) -> str: ...
"""
ASKED = "Use the tool look_up for 1042."
SAID = "look_up says: order 1042 left our warehouse\n"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Yield the folder of the command, with functions; their modules are forgotten afterwards."""
    (tmp_path / "orders.py").write_text(TOOL)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "lookups.py").write_text("from near import look_up\n")
    (tmp_path / "shop" / "near.py").write_text(TOOL)
    (tmp_path / "shop" / "parts.py").write_text(TOOL)
    yield tmp_path
    for name in ("orders", "many", "shop", "shop.parts", "lookups", "near"):
        sys.modules.pop(name, None)


NAMES = {
    "module": "orders:look_up",
    "module of a package": "shop.parts:look_up",
    "file": "orders.py:look_up",
    "file here": "./orders.py:look_up",
    "file elsewhere, with its neighbours": "shop/lookups.py:look_up",
    "absolute": "{folder}/orders.py:look_up",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_function_answers_the_calls_of_a_question(
    name: str, in_process: InProcess, folder: Path
) -> None:
    """Wherever it is; what it is called with is shown, and the next question has it, too."""
    name = name.format(folder=folder)

    done = in_process("ask", ASKED, "--tools", name, "--db", "c.db")

    assert (done.code, done.out) == (0, SAID)
    assert 'calls look_up({"order":"1042"})\n' in done.err
    assert f" --tools {name} --db c.db\n" in done.err
    assert sys.path.count(str(folder)) == 0


def test_answer_as_json_has_no_other_line(in_process: InProcess, folder: Path) -> None:
    """Calls are said on standard error alone."""
    done = in_process("ask", ASKED, "--tools", "orders:look_up", "--json")

    assert (done.code, done.out.count("\n")) == (0, 1)
    assert f'"text":"{SAID.strip()}"' in done.out


MISTAKES = {
    "no function named": ("orders", "or FILE.py:FUNCTION, such as orders:look_up"),
    "a file alone": ("./orders.py", "or FILE.py:FUNCTION, such as ./orders.py:look_up"),
    "a path without its ending": ("./orders:look_up", "such as orders:look_up"),
    "nothing": ("", "write it as MODULE:FUNCTION or FILE.py:FUNCTION"),
    "no module": ("nowhere:look_up", "there is no module nowhere in "),
    "no file": ("nowhere.py:look_up", "there is no file "),
    "a file with others": (
        "many.py",
        "FILE.py:FUNCTION, such as many.py:look_up_order or many.py:cancel_order",
    ),
    "a module with others": ("many", "such as many:look_up_order or many:cancel_order"),
    "a file that cannot be parsed": ("broken.py", "such as broken.py:look_up"),
    "another function": (
        "many.py:look_up",
        "the file many.py has no function look_up; it has look_up_order, cancel_order",
    ),
    "no function in a file": ("orders.py:nothing", "the file orders.py has no function nothing"),
    "no function in a module": ("orders:nothing", "the module orders has no function nothing"),
    "a name that is taken": ("json.py:look_up", "another module is named json: give the file"),
}


@pytest.mark.parametrize("command", ["ask x", "chat", "assistants create --model m --db c.db"])
@pytest.mark.parametrize(("name", "words"), MISTAKES.values(), ids=MISTAKES)
def test_mistake_is_said_in_the_same_words_by_each_command(
    name: str, words: str, command: str, in_process: InProcess, folder: Path
) -> None:
    """Before anything is started."""
    (folder / "json.py").write_text(TOOL)
    (folder / "broken.py").write_text("def (")
    (folder / "many.py").write_text(MANY)

    done = in_process(*command.split(), "--tools", name)

    assert (done.code, done.out) == (2, "")
    assert f"--tools {name}: " in done.err
    assert words in done.err
    assert not (folder / "c.db").exists()


def test_two_functions_of_one_name_are_a_mistake(in_process: InProcess, folder: Path) -> None:
    """The model could not tell them apart; it was a traceback."""
    names = ["--tools", "orders:look_up", "--tools", "shop.parts:look_up"]

    done = in_process("ask", "x", *names)

    assert (done.code, done.out) == (2, "")
    assert "--tools shop.parts:look_up: there is a function look_up already" in done.err


async def make_assistant(url: str) -> str:
    """Create an assistant with a function that nobody here has."""
    function = {"name": "look_up", "parameters": {"type": "object", "properties": {}}}
    async with AsyncClient(url, None) as client:
        tools = [{"type": "function", "function": function}]
        return (await client.assistants.create(model="m", tools=tools)).id


def test_call_that_nothing_answers_names_the_option(
    in_process: InProcess, runs_server: RunsServer
) -> None:
    """Which function is missing, the option for it, and how the run that waits goes on."""
    assistant_id = asyncio.run(make_assistant(runs_server.url))
    runs_server.call_tool("look_up", {"x": 1})

    done = in_process("ask", "x", "--assistant", assistant_id, "--base-url", runs_server.url)

    assert (done.code, done.out) == (3, "")
    assert "the function that answers look_up with --tools MODULE:FUNCTION; this run" in done.err
    assert '`runs.resume("run_' in done.err


def test_named_function_answers_for_an_assistant(
    in_process: InProcess, runs_server: RunsServer, folder: Path
) -> None:
    """Whose run was left waiting without it."""
    assistant_id = asyncio.run(make_assistant(runs_server.url))
    runs_server.call_tool("look_up", {"order": "7"})
    runs_server.reply("It left.")
    where = ["--assistant", assistant_id, "--base-url", runs_server.url]

    done = in_process("ask", "x", *where, "--tools", "orders:look_up")

    assert (done.code, done.out) == (0, "It left.\n")
    (outputs,) = runs_server.seen("POST", "/threads/*/runs/*/submit_tool_outputs")
    assert outputs.json["tool_outputs"][0]["output"] == "order 7 left our warehouse"
