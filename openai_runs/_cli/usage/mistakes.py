"""What is wrong with a command line, in a sentence that says what to write."""

import shlex
from collections.abc import Sequence
from typing import Final

from cyclopts import (
    App,
    CycloptsError,
    MissingArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from openai_runs._cli.usage.ids import a, kind_of, uses

__all__ = ["explain"]

_COMMANDS: Final = "Available commands:"
"""Behind which cyclopts names the first of them."""
_OF_PLACE: Final = ("--base-url", "--api-key-env", "--db")
"""Options that say which server is meant."""


def explain(error: CycloptsError, app: App, arguments: Sequence[str]) -> str:
    """Return what is wrong; of what is missing what it is, of what is too much where it belongs."""
    said = " ".join(str(error).split())
    words, apps, _ = app.parse_commands(arguments)
    command = " ".join(["openai-runs", *(word for word in words if not word.startswith("-"))])
    match error:
        case MissingArgumentError():
            return _missing(error, said, apps[-1])
        case UnusedCliTokensError(unused_tokens=[str(token), *_]):
            return _too_much(token, command, _names(apps[-1]), _place(arguments))
        case UnknownCommandError(unused_tokens=[str(token), *_]) if kind := kind_of(token):
            known = uses(token, _place(arguments))
            return f"'{token}' is the id of {a(kind)}, and no command{known}"
        case UnknownCommandError():
            names = ", ".join(name for name in apps[-1] if not name.startswith("-"))
            return f"{said.partition(_COMMANDS)[0]}{_COMMANDS} {names}"
        case UnknownOptionError():
            return _instead(error, command, _names(apps[-1])) or said
    return said


def _missing(error: MissingArgumentError, said: str, app: App) -> str:
    if error.argument is None or error.keyword is not None or error.argument.tokens:
        return said
    if "Did you mean" in said:
        return said
    name = error.argument.name
    known = app.assemble_argument_collection(parse_docstring=True)
    purpose = next((one.parameter.help or "" for one in known if one.name == name), "")
    return f"{name} is required: {purpose[:1].lower()}{purpose[1:].rstrip('.')}"


def _too_much(token: str, command: str, names: Sequence[str], place: str) -> str:
    """Return where a word belongs that the command has no place for."""
    kind = kind_of(token)
    if kind is not None and f"--{kind}" in names:
        return f"'{token}' is the id of {a(kind)}: write --{kind} {token}"
    if kind is not None and f"{kind.upper()}_ID" in names:
        return f"unexpected '{token}': `{command}` takes one id of {a(kind)}"
    if kind is not None:
        return f"'{token}' is the id of {a(kind)}, and `{command}` takes none{uses(token, place)}"
    taken = [name for name in names if not name.startswith("-")]
    if not taken:
        return f"unexpected '{token}': `{command}` takes {'options alone' if names else 'nothing'}"
    return f"unexpected '{token}': {taken[-1]} is one argument; put it in quotes if it has blanks"


def _instead(error: UnknownOptionError, command: str, names: Sequence[str]) -> str:
    """Return how an id is written that was given as an option; an empty text if none was."""
    option = str(error.token.keyword or error.token.value)
    meant = option.removeprefix("--").removesuffix("-id")
    positional = [name for name in names if name.endswith("_ID")]
    if not positional or meant not in {"id", positional[0].removesuffix("_ID").lower()}:
        return ""
    return f"Unknown option: {option}. Write the id alone: `{command} {positional[0]}`"


def _names(app: App) -> list[str]:
    """Return the names of what a command takes."""
    if app.default_command is None:
        return []
    return [one.name for one in app.assemble_argument_collection()]


def _place(arguments: Sequence[str]) -> str:
    """Return the options that say which server is meant, as they were given."""
    pairs = zip(arguments, [*arguments[1:], ""], strict=True)
    given = [(name, value) for name, value in pairs if name in _OF_PLACE and value]
    return "".join(f" {name} {shlex.quote(value)}" for name, value in given)
