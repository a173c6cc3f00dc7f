"""How types are described in JSON schemas, by the version of msgspec."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from typing import Any

import pytest


def names_of_two_types(refusal: str) -> AbstractContextManager[Any]:
    """Return what describes two types of one name: msgspec before 0.23 finds no second name."""
    known = tuple(int(part) for part in version("msgspec").split(".")[:2])
    return nullcontext() if known >= (0, 23) else pytest.raises(TypeError, match=refusal)


def required(schema: dict[str, Any], field: str) -> list[str]:
    """Return the required keys of the object that a field refers to."""
    name = schema["properties"][field]["$ref"].removeprefix("#/$defs/")
    keys: list[str] = schema["$defs"][name]["required"]
    return keys
