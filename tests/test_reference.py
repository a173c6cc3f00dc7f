"""The reference has an entry for every public name."""

import importlib
import inspect
import re
import sys
from pathlib import Path

import griffe
import pytest

from openai_runs import AsyncClient

PAGES = Path(__file__).resolve().parents[1] / "docs" / "pages" / "reference"
MODULES = [
    "openai_runs",
    "openai_runs.archive",
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
RENDERED = {
    name
    for page in PAGES.glob("*.md")
    for name in re.findall(r"^::: ([\w.]+)$", page.read_text(), re.MULTILINE)
}
"""What a page asks mkdocstrings for: a name, or a module and so all names in it."""


def homes(module: str, name: str) -> list[str]:
    """Return the modules that have this name: where it is public, and where it was written."""
    value = getattr(importlib.import_module(module), name)
    written = getattr(value, "__module__", "")
    rooms = [room for room in sys.modules if room.startswith(f"{module}.")]
    own = [room for room in rooms if vars(sys.modules[room]).get(name) is value]
    return [module, "openai_runs", *([written] if written in own else own)]


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_has_an_entry(module: str) -> None:
    """Whoever meets a name in a guide finds what it takes, returns and raises."""
    missing = [
        name
        for name in vars(importlib.import_module(module))["__all__"]
        if not any({home, f"{home}.{name}"} & RENDERED for home in homes(module, name))
    ]

    assert missing == []


def test_every_resource_of_the_client_has_an_entry() -> None:
    """Users reach these by attribute and not by name, so no `__all__` lists them."""
    client = AsyncClient(base_url="http://127.0.0.1:9/v1")
    resources = [
        client.assistants,
        client.messages,
        client.runs,
        client.runs.steps,
        client.threads,
    ]
    names = [f"{type(found).__module__}.{type(found).__name__}" for found in resources]

    assert [name for name in names if name not in RENDERED] == []


def test_reference_shows_every_keyword() -> None:
    """As `help` does: the extension of the docs unpacks the TypedDicts, what they inherit too."""
    extensions = griffe.load_extensions(str(PAGES.parents[1] / "unpack_keywords.py"))
    package = griffe.load("openai_runs", extensions=extensions, docstring_parser="google")
    client = AsyncClient(base_url="http://127.0.0.1:9/v1")
    shown, taken = {}, {}
    for resource in (client.assistants, client.messages, client.runs, client.threads):
        kind = type(resource)
        members = package[kind.__module__.partition(".")[2]][kind.__name__].functions
        for name, method in inspect.getmembers(kind, inspect.isfunction):
            if not name.startswith("_"):
                shown[f"{kind.__name__}.{name}"] = [one.name for one in members[name].parameters]
                taken[f"{kind.__name__}.{name}"] = [*inspect.signature(method).parameters]

    assert shown == taken
