"""The examples in the docstrings of the archive are true."""

import doctest
import importlib
import pkgutil

import pytest

from openai_runs import archive

MODULES = sorted(module.name for module in pkgutil.iter_modules(archive.__path__))


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name: str) -> None:
    """Each `>>>` line yields the line beneath it."""
    module = importlib.import_module(f"{archive.__name__}.{name}")

    assert doctest.testmod(module).failed == 0
