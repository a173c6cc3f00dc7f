"""Functions of the user's, by the name of their module or its file."""

import ast
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from inspect import isfunction
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from openai_runs import tool
from openai_runs._cli.ending import USAGE, Stop

__all__ = ["FORM", "load_functions"]

FORM: Final = "MODULE:FUNCTION"
"""How a function is named."""
_SUFFIX: Final = ".py"
_SHOWN: Final = 5
"""Functions that are listed where none is named."""


def load_functions(names: Iterable[str]) -> list[Callable[..., Any]]:
    """Return the functions that are named `MODULE:FUNCTION` or `FILE.py:FUNCTION`.

    A module is looked for in the folder we are in, then among those installed.

    Raises:
        Stop: There is none, its module cannot be imported, or it can be no tool.
    """
    found: dict[str, Callable[..., Any]] = {}
    for name in names:
        function = _load(name)
        called = tool(function).name
        if called in found:
            raise _wrong(name, f"there is a function {called} already")
        found[called] = function
    return list(found.values())


def _load(name: str) -> Callable[..., Any]:
    place, _, attribute = name.rpartition(":")
    is_file = place.endswith(_SUFFIX)
    if not attribute.isidentifier() or not (is_file or _is_dotted(place)):
        raise _wrong(name, f"write it as {FORM} or FILE.py:FUNCTION{_meant(name)}")
    module = _of_file(name, Path(place)) if is_file else _imported(name, place, Path.cwd())
    found = getattr(module, attribute, None)
    if not callable(found):
        kind = "file" if is_file else "module"
        here = ", ".join(_functions_of(module))
        known = f"; it has {here}" if here else ""
        raise _wrong(name, f"the {kind} {place} has no function {attribute}{known}")
    try:
        tool(found)
    except TypeError as error:
        raise _wrong(name, str(error)) from error
    return found  # type: ignore[no-any-return]  # of a module we do not know


def _is_dotted(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def _meant(name: str) -> str:
    """Return an example that is close to what was written."""
    place, _, attribute = name.partition(":")
    module = place if place.endswith(_SUFFIX) or _is_dotted(place) else Path(place).stem
    if not module or attribute:
        return f", such as {module}:{attribute}" if module else ""
    names = _defined_in(Path(module) if module.endswith(_SUFFIX) else _file_of(module))
    return ", such as " + " or ".join(f"{module}:{one}" for one in names or ["look_up"])


def _file_of(module: str) -> Path:
    return Path(*module.split(".")).with_suffix(_SUFFIX)


def _defined_in(path: Path) -> list[str]:
    """Return the public functions of a file, which is not executed; none if it cannot be read."""
    try:
        tree = ast.parse(path.expanduser().read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    names = [one.name for one in tree.body if isinstance(one, kinds)]
    return [name for name in names if not name.startswith("_")][:_SHOWN]


def _functions_of(module: ModuleType) -> list[str]:
    """Return the public functions that a module defines."""
    own = [name for name, one in vars(module).items() if _is_own(module, one)]
    return [name for name in own if not name.startswith("_")][:_SHOWN]


def _is_own(module: ModuleType, one: object) -> bool:
    return isfunction(one) and one.__module__ == module.__name__


def _of_file(name: str, path: Path) -> ModuleType:
    path = path.expanduser().absolute()
    if not path.is_file():
        raise _wrong(name, f"there is no file {path}")
    module = _imported(name, path.stem, path.parent)
    if module.__file__ is None or not path.samefile(module.__file__):
        raise _wrong(name, f"another module is named {path.stem}: give the file another name")
    return module


def _imported(name: str, module: str, folder: Path) -> ModuleType:
    sys.path.insert(0, str(folder))
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
        sys.path.remove(str(folder))


def _failed(module: str, error: BaseException) -> str:
    return f"the module {module} cannot be imported: {type(error).__name__}: {error}"


def _wrong(name: str, sentence: str) -> Stop:
    return Stop(f"--tools {name}: {sentence}", USAGE)
