"""Where coverage is measured: not around tests, and not in tests that cover what others do.

A pytest plugin, which tests/conftest.py loads. Python 3.11 executes everything about half as
fast while it is traced, whether the code is ours or not. Without coverage this does nothing.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

__all__ = ["UNMEASURED", "is_measured", "tracing"]

ROOT = Path(__file__).resolve().parents[1]
UNMEASURED = (
    # Whole programs, and much that is drawn: what they run is covered by tests of one thing each.
    "tests/batch/test_kills.py",
    "tests/cli/test_guide.py",
    "tests/e2e/test_bot_guides.py",
    "tests/e2e/test_conversations.py",
    "tests/e2e/test_conversations_killed.py",
    "tests/fuzz",
    "tests/protocol/test_endpoints.py",
    "tests/soak",
    "tests/test_docs.py",
    # Rules about the sources, which are read and not run.
    "tests/test_architecture.py",
    "tests/test_docstrings.py",
    "tests/test_log_ids.py",
    "tests/test_patterns.py",
    "tests/test_reference.py",
    "tests/test_words.py",
)
"""Folders and files whose tests cover nothing that no other test covers."""


def is_measured(path: Path) -> bool:
    """Return whether coverage counts what the tests of this file run."""
    return not any(path.is_relative_to(ROOT / name) for name in UNMEASURED)


@contextmanager
def tracing(tracer: Any) -> Iterator[None]:
    """Trace with this, in this thread and in those that it starts; None: not at all."""
    before = sys.gettrace(), threading.gettrace()
    switch(tracer, tracer and _STATE.of_threads)
    try:
        yield
    finally:
        switch(*before)


def switch(tracer: Any, of_threads: Any) -> None:
    """Trace from here on with these."""
    threading.settrace(of_threads)
    sys.settrace(tracer)


class _State:
    """What coverage traces with, and whether it is for the test that runs."""

    tracer: Any = None
    of_threads: Any = None
    is_on = False


_STATE = _State()


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Stop tracing until a test runs; what the package does as it is imported is traced before."""
    if sys.gettrace() is None:
        return
    if not session.config.pluginmanager.has_plugin("dsession"):  # has workers run the tests
        package = importlib.import_module("openai_runs")
        for module in pkgutil.walk_packages(package.__path__, "openai_runs."):
            importlib.import_module(module.name)
    _STATE.tracer, _STATE.of_threads = sys.gettrace(), threading.gettrace()
    switch(None, None)


def pytest_sessionfinish() -> None:
    """Leave to coverage what it began with."""
    if _STATE.tracer is not None:
        switch(_STATE.tracer, _STATE.of_threads)


def _measured() -> Generator[None, object, object]:
    if not _STATE.is_on:
        return (yield)
    with tracing(_STATE.tracer):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Decide for each test."""
    _STATE.is_on = _STATE.tracer is not None and is_measured(item.path)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup() -> Generator[None, object, object]:
    """Trace what a fixture does."""
    return (yield from _measured())


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Generator[None, object, object]:
    """Trace the test itself."""
    return (yield from _measured())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, object, object]:
    """Trace what fixtures do at the end."""
    return (yield from _measured())
