"""Public is what an `__all__` lists; what it lists is documented."""

import importlib
import inspect
import re
from types import ModuleType

import pytest

import openai_runs
from openai_runs import errors

MODULES = [
    "openai_runs",
    "openai_runs.archive",
    "openai_runs.batch",
    "openai_runs.config",
    "openai_runs.conversations",
    "openai_runs.errors",
    "openai_runs.otel",
    "openai_runs.relay",
    "openai_runs.server",
    "openai_runs.testing",
    "openai_runs.text",
    "openai_runs.types",
    "openai_runs.web",
    "openai_runs.web.aiohttp",
    "openai_runs.web.starlette",
]

FIXED = [
    "AsyncClient",
    "PollPolicy",
    "RetryPolicy",
    "Run",
    "RunResult",
    "RunStatus",
    "RunStep",
    "await_run",
]
"""Names that other people's checks import from the root."""


def order(name: str) -> tuple[int, str]:
    """Sort as ruff's RUF022 does: CONSTANTS, Classes, functions."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


@pytest.fixture(params=MODULES)
def module(request: pytest.FixtureRequest) -> ModuleType:
    """Each public module in turn."""
    return importlib.import_module(request.param)


def test_names_are_sorted_and_real(module: ModuleType) -> None:
    """Each listed name exists, once, in ruff's order."""
    listed = list(vars(module)["__all__"])

    assert listed == sorted(set(listed), key=order)
    assert [name for name in listed if not hasattr(module, name)] == []


def test_names_are_complete(module: ModuleType) -> None:
    """What a public module defines or re-exports without an underscore is listed."""
    # What a single file imports from its neighbours is its own affair; a package re-exports.
    home = "openai_runs" if hasattr(module, "__path__") else module.__name__
    bound = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith(home)
    }

    assert bound - set(vars(module)["__all__"]) == set()


def test_names_are_documented(module: ModuleType) -> None:
    """Each public class and function says what it is."""
    values = {name: getattr(module, name) for name in vars(module)["__all__"]}
    documentable = {n: v for n, v in values.items() if inspect.isclass(v) or inspect.isroutine(v)}

    assert [name for name, value in documentable.items() if not value.__doc__] == []


def test_root_has_the_fixed_names_and_every_error() -> None:
    """The names promised to others stay, and no error hides in a module."""
    tree = [name for name in errors.__all__ if is_error(getattr(errors, name))]

    assert set(openai_runs.__all__) >= {*FIXED, *tree}


def test_dir_of_the_root_lists_its_names() -> None:
    """Completion in a shell finds names that are loaded lazily."""
    assert set(openai_runs.__all__) <= set(dir(openai_runs))


def test_error_drawing_matches_the_classes() -> None:
    """The tree drawn on top of `errors.py` is the tree of its classes."""
    drawing = (errors.__doc__ or "").split("\n\n")[1]
    path: list[str] = []
    drawn: dict[str, str] = {}
    for line in drawing.splitlines():
        found = re.match(r"(?P<indent> *)(?P<name>\w+)", line)
        assert found, line
        path[len(found["indent"]) // 2 :] = [found["name"]]
        drawn[found["name"]] = path[-2] if len(path) > 1 else "Exception"

    classes = [value for value in vars(errors).values() if is_error(value)]

    assert drawn == {error.__name__: error.__bases__[0].__name__ for error in classes}


def is_error(value: object) -> bool:
    """Tell whether `value` belongs to our tree."""
    return isinstance(value, type) and issubclass(value, errors.OpenAIRunsError)
