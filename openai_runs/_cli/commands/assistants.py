"""`openai-runs assistants create`, `update`, `delete` and `show`."""

import shlex
from pathlib import Path
from typing import Any, Final

import msgspec

from openai_runs import AsyncClient
from openai_runs._cli.commands.lists import carry_out_at
from openai_runs._cli.connecting import ECHO, Place, check_ids
from openai_runs._cli.describing import describe_assistant
from openai_runs._cli.ending import USAGE, Stop
from openai_runs._cli.functions import load_functions
from openai_runs._cli.outputs import print_json, print_text, printable, say
from openai_runs.types import Assistant

__all__ = ["Draft", "create", "delete", "show", "update"]

_COLUMN: Final = 14
"""Characters before the words."""


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """What the command was given."""

    model: str | None
    name: str | None
    instructions: str | None
    instructions_file: Path | None
    tools: tuple[str, ...]
    json: bool
    place: Place


def create(draft: Draft) -> int:
    """Create the assistant, and print its id; return the exit code.

    Raises:
        Stop: The arguments cannot work, or the server refuses them.
        Closed: Nobody reads it.
    """
    given = _given(draft)

    async def work(client: AsyncClient) -> None:
        assistant = await client.assistants.create(**given)
        if draft.json:
            print_json(assistant.to_dict())
        else:
            print_text(printable(assistant.id))
            say(f"ask it: {_next(assistant, draft)}")

    return carry_out_at(draft.place, work, make=True)


def update(assistant_id: str, draft: Draft) -> int:
    """Change what was given of the assistant, and print its id; return the exit code.

    Raises:
        Stop: The arguments cannot work, or the server refuses them.
        Closed: Nobody reads it.
    """
    check_ids(draft.place, assistant=assistant_id)
    given = _given(draft)
    if not given:
        sentence = "nothing to change: give --model, --name, --instructions or --tools"
        raise Stop(sentence, USAGE)

    async def work(client: AsyncClient) -> None:
        assistant = await client.assistants.update(assistant_id, **given)
        print_json(assistant.to_dict()) if draft.json else print_text(printable(assistant.id))

    return carry_out_at(draft.place, work)


def delete(assistant_id: str, place: Place, *, as_json: bool) -> int:
    """Delete the assistant, and print its id; return the exit code.

    Raises:
        Stop: It cannot be deleted.
        Closed: Nobody reads it.
    """
    check_ids(place, assistant=assistant_id)

    async def work(client: AsyncClient) -> None:
        deleted = await client.assistants.delete(assistant_id)
        print_json(deleted.to_dict()) if as_json else print_text(printable(f"{deleted.id} deleted"))

    return carry_out_at(place, work)


def show(assistant_id: str, place: Place, *, as_json: bool) -> int:
    """Print the assistant; return the exit code.

    Raises:
        Stop: It cannot be shown.
        Closed: Nobody reads it.
    """
    check_ids(place, assistant=assistant_id)

    async def work(client: AsyncClient) -> None:
        assistant = await client.assistants.retrieve(assistant_id)
        print_json(assistant.to_dict()) if as_json else print_text(_described(assistant))

    return carry_out_at(place, work)


def _given(draft: Draft) -> dict[str, Any]:
    """Return the arguments of the call: what the command was given."""
    arguments: dict[str, Any] = {
        "model": draft.model,
        "name": draft.name,
        "instructions": _instructions(draft),
        "tools": load_functions(draft.tools) or None,
    }
    return {name: value for name, value in arguments.items() if value is not None}


def _described(assistant: Assistant) -> str:
    lines = (f"{name:<{_COLUMN}}{text}" for name, text in describe_assistant(assistant))
    return printable("\n".join(line.replace("\n", f"\n{' ' * _COLUMN}") for line in lines))


def _instructions(draft: Draft) -> str | None:
    path = draft.instructions_file
    if path is None:
        return draft.instructions
    if draft.instructions is not None:
        sentence = "--instructions-file is read in place of --instructions: use one of the two"
        raise Stop(sentence, USAGE)
    try:
        return path.read_text("utf-8")
    except OSError as error:
        sentence = f"--instructions-file {path}: cannot be read: {error.strerror}"
        raise Stop(sentence, USAGE) from error
    except UnicodeDecodeError as error:
        sentence = f"--instructions-file {path}: is no text in UTF-8"
        raise Stop(sentence, USAGE) from error


def _next(assistant: Assistant, draft: Draft) -> str:
    """Return how to ask the assistant, as it can be typed."""
    tools = "".join(f" --tools {shlex.quote(name)}" for name in draft.tools)
    # A file alone has no model: the command that asks brings one.
    is_modelless = draft.place.db is not None and draft.model != ECHO
    model = " --model-url URL" if is_modelless else ""
    return (
        f'openai-runs ask "Hello!" --assistant {assistant.id}{tools}{draft.place.options()}{model}'
    )
