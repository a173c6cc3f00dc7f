"""Docstrings of public functions say what the signature cannot: arguments, errors, cancellation."""

import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from openai_runs import AsyncClient
from openai_runs.errors import OpenAIRunsError
from tests.test_public_api import MODULES

RESOURCES = ["assistants", "threads", "messages", "runs", "runs.steps"]
SECTIONS = ["Example", "Endpoint", "Args", "Returns", "Yields", "Raises", "Cancellation"]
MADE_BY_THE_PACKAGE = {
    "Assistants",
    "HTTPInfo",
    "Messages",
    "RunStream",
    "Runs",
    "Steps",
    "Threads",
}
"""Classes of which users get instances and make none; a docstring may say so, with "made by"."""

SAID_BY_THE_SIGNATURE = re.compile(r"\w+_id|options")
"""Parameters that need no line: ids, and the options that every call takes."""
EMPTY = re.compile(
    r"^\s+\w+_id: The \w+'s id\.$|\*\*\w+: See `CallOptions`\.$"
    r"|Cancellation: closes the request\.$",
    re.MULTILINE,
)
"""What a docstring need not say."""
READS = re.compile(r"^Endpoint: (GET|none)", re.MULTILINE)
"""Cancelled, such a call has changed nothing."""

_SECTION = re.compile(rf"^({'|'.join(SECTIONS)}):", re.MULTILINE)
_ARGUMENTS = re.compile(r"^Args:\n((?:[ \t]+.*\n?|\n)*)", re.MULTILINE)


class Documented(NamedTuple):
    """A public function, and where its words are."""

    name: str
    function: Callable[..., Any]
    text: str
    """Its docstring; with that of the class, if it is a constructor."""

    @property
    def sections(self) -> list[str]:
        """Return the names of the sections, in order."""
        return _SECTION.findall(self.text)

    @property
    def parameters(self) -> list[str]:
        """Return what a caller may give; the keywords of a TypedDict explain themselves there."""
        code = self.function.__code__
        several = bool(code.co_flags & inspect.CO_VARARGS) + bool(
            code.co_flags & inspect.CO_VARKEYWORDS
        )
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + several]
        return [name for name in names if name not in {"self", "cls"} and name[0] != "_"]


def methods(name: str, cls: type) -> Iterator[Documented]:
    """Yield the public methods of a class that are written here."""
    made_by_us = (
        issubclass(cls, OpenAIRunsError)
        or cls.__name__ in MADE_BY_THE_PACKAGE
        or "made by `" in (cls.__doc__ or "").lower()
    )
    for member, value in inspect.getmembers(cls):
        function = inspect.unwrap(getattr(value, "__func__", value))
        is_ours = inspect.isfunction(function) and function.__module__.startswith("openai_runs")
        if is_ours and (member[0] != "_" or (member == "__init__" and not made_by_us)):
            text = inspect.getdoc(function) or ""
            if member == "__init__":
                text = f"{inspect.getdoc(cls) or ''}\n{text}"
            yield Documented(f"{name}.{member}", function, text)


def public_classes() -> Iterator[tuple[str, type]]:
    """Yield the classes that users meet, the client's resources among them."""
    for module in map(importlib.import_module, MODULES):
        for name in vars(module)["__all__"]:
            value = getattr(module, name)
            if isinstance(value, type):
                yield f"{module.__name__}.{name}", value
    client = AsyncClient(base_url="http://127.0.0.1:9/v1")
    for resource in RESOURCES:
        owner: Any = client
        for part in resource.split("."):
            owner = getattr(owner, part)
        yield f"client.{resource}", type(owner)


def public_functions() -> dict[str, Documented]:
    """Return every public function and method, once, by its name."""
    found: dict[Callable[..., Any], Documented] = {}
    for module in map(importlib.import_module, MODULES):
        for name in vars(module)["__all__"]:
            value = getattr(module, name)
            if inspect.isfunction(value):
                text = inspect.getdoc(value) or ""
                found.setdefault(value, Documented(f"{module.__name__}.{name}", value, text))
    for name, cls in public_classes():
        for method in methods(name, cls):
            found.setdefault(method.function, method)
    return {documented.name: documented for documented in found.values()}


FUNCTIONS = public_functions()
CLASSES = dict(public_classes())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstring_says_what_the_signature_cannot(name: str) -> None:
    """It is there, its sections are in their order; what is no id and no option is explained."""
    documented = FUNCTIONS[name]
    arguments = "".join(_ARGUMENTS.findall(documented.text))
    explained = set(re.findall(r"[`*\s,](\w+)(?:, [`*\w, ]+)?(?: \([^)]*\))?:", arguments))
    order = [SECTIONS.index(section) for section in documented.sections]

    assert documented.text.strip()
    assert order == sorted(order)
    needed = [p for p in documented.parameters if not SAID_BY_THE_SIGNATURE.fullmatch(p)]
    assert [p for p in needed if p not in explained] == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstring_does_not_repeat_the_signature(name: str) -> None:
    """That `thread_id` is the thread's id, or that a cancelled request is closed, goes unsaid."""
    assert EMPTY.findall(FUNCTIONS[name].text) == []


@pytest.mark.parametrize(
    "name", [name for name, f in FUNCTIONS.items() if inspect.iscoroutinefunction(f.function)]
)
def test_coroutine_says_what_a_cancellation_does(name: str) -> None:
    """Unless it only reads: a caller whose time is up knows what is left, and what is raised."""
    documented = FUNCTIONS[name]
    sections = documented.sections

    assert "Cancellation" in sections or READS.search(documented.text)
    assert "Endpoint" not in sections or "Raises" in sections


@pytest.mark.parametrize("resource", RESOURCES)
def test_call_of_a_resource_names_its_endpoint(resource: str) -> None:
    """Each coroutine of the client's resources says which request it makes."""
    silent = [
        name
        for name, documented in FUNCTIONS.items()
        if name.rpartition(".")[0] == f"client.{resource}"
        and inspect.iscoroutinefunction(documented.function)
        and "Endpoint" not in documented.sections
    ]

    assert silent == []


@pytest.mark.parametrize("name", CLASSES)
def test_class_and_its_properties_are_documented(name: str) -> None:
    """Whoever completes a name in an editor is told what it is."""
    cls = CLASSES[name]
    properties = {
        member: value
        for member, value in inspect.getmembers(cls, lambda value: isinstance(value, property))
        if member[0] != "_" and value.fget.__module__.startswith("openai_runs")  # aiohttp's own
    }

    assert cls.__doc__
    assert [f"{name}.{member}" for member, value in properties.items() if not value.__doc__] == []
