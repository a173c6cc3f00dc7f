"""The examples in the docstrings of the protocol are true."""

import doctest
import importlib
import pkgutil

import pytest

from openai_runs import _protocol

MODULES = sorted(module.name for module in pkgutil.iter_modules(_protocol.__path__))


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name: str) -> None:
    """Each `>>>` line yields the line beneath it."""
    module = importlib.import_module(f"{_protocol.__name__}.{name}")

    assert doctest.testmod(module).failed == 0


def test_there_are_examples() -> None:
    """The modules above are found, with examples in them."""
    found = doctest.DocTestFinder().find(importlib.import_module(f"{_protocol.__name__}.retry"))

    assert sum(len(test.examples) for test in found) >= 4
