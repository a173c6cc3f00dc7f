"""Functions of the user's, by the name of their module."""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from openai_runs import tool
from openai_runs._cli.ending import USAGE, Stop

__all__ = ["load_function"]


def load_function(name: str) -> Callable[..., Any]:
    """Return the function that `MODULE:FUNCTION` names, of the folder we are in or installed.

    Raises:
        Stop: There is none, its module cannot be imported, or it can be no tool.
    """
    module, _, attribute = name.partition(":")
    if not attribute or not all(part.isidentifier() for part in module.split(".")):
        path = Path(module).with_suffix("")
        meant = f", such as {path.name}:{attribute or 'look_up'}" if path.name else ""
        raise _wrong(name, f"write it as MODULE:FUNCTION{meant}")
    found = getattr(_imported(name, module), attribute, None)
    if not callable(found):
        raise _wrong(name, f"the module {module} has no function {attribute}")
    try:
        tool(found)
    except TypeError as error:
        raise _wrong(name, str(error)) from error
    return found  # type: ignore[no-any-return]  # of a module we do not know


def _imported(name: str, module: str) -> ModuleType:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            sentence = f"there is no module {error.name} in {folder} or installed"
            raise _wrong(name, sentence) from error
        raise _wrong(name, _failed(module, error)) from error
    except (Exception, SystemExit) as error:  # whatever the code of the module raises
        raise _wrong(name, _failed(module, error)) from error
    finally:
        sys.path.remove(folder)


def _failed(module: str, error: BaseException) -> str:
    return f"the module {module} cannot be imported: {type(error).__name__}: {error}"


def _wrong(name: str, sentence: str) -> Stop:
    return Stop(f"--tools {name}: {sentence}", USAGE)
