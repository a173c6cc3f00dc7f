"""A key and a prompt that no log record, no exception and no error answer of the suite may hold.

A pytest plugin, which tests/conftest.py loads: whatever a test does, it fails if one of the
two turns up where it must not. Tests use `CANARY_KEY` for a key and `CANARY_PROMPT` for
what a user writes; the key is in the environment of each test besides.
"""

from __future__ import annotations

import functools
import logging
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

__all__ = ["CANARY_KEY", "CANARY_PROMPT", "WATCH", "Watch"]

CANARY_KEY = "canary-q7Zx41Lw9-of-all-tests"
"""Of no form that a pattern could know."""
CANARY_PROMPT = "Hello from canary w8Kp30Vt"
_CORES = {"key": "q7Zx41Lw9", "prompt": "w8Kp30Vt"}
"""What is searched for: found also where the rest is cut off, quoted or escaped."""


class Watch(logging.Handler):
    """Remembers where a canary was seen; as a log handler, it looks at each record."""

    def __init__(self) -> None:
        """See nothing yet."""
        super().__init__()
        self.leaks: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Search a record: the message, the arguments, the traceback."""
        self.search(f"a record of {record.name}", _rendered(record))

    def search_answer(self, status: int, headers: Mapping[str, str], text: str) -> None:
        """Search an answer: no one holds a key; an object may hold its own text, no error does."""
        self.search(
            f"an answer {status}", f"{text}{dict(headers)}", *([] if status >= 400 else ["key"])
        )

    def search_error(self, error: BaseException) -> None:
        """Search an exception; a fact, such as a run, may hold what was asked, but no key."""
        where = f"a {type(error).__name__}"
        self.search(where, f"{error}{error.args!r}")
        self.search(where, repr(vars(error)), "key")

    def search(self, where: str, text: str, *kinds: str) -> None:
        """Search a text for canaries of these kinds, or of all."""
        for kind in kinds or _CORES:
            if _CORES[kind] in text:
                self.leaks.append(f"the {kind} is in {where}: {text[:500]}")

    def take(self) -> list[str]:
        """Return what was seen, and forget it."""
        leaks, self.leaks = self.leaks, []
        return leaks


STANDARD = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})
"""Attributes of every record; others, such as ids, are searched."""
WATCH = Watch()
"""Of the whole suite."""


def _rendered(record: logging.LogRecord) -> str:
    parts = [record.getMessage(), repr(record.args), record.exc_text or "", record.stack_info or ""]
    parts.append(
        repr({name: value for name, value in vars(record).items() if name not in STANDARD})
    )
    if record.exc_info and record.exc_info[1] is not None:
        parts += traceback.format_exception(record.exc_info[1])
    return "\n".join(parts)


def _searching(make: Callable[..., None]) -> Callable[..., None]:
    """Return a constructor that has the exception searched once it is made."""

    @functools.wraps(make)
    def made(self: BaseException, *args: Any, **kw: Any) -> None:
        make(self, *args, **kw)
        WATCH.search_error(self)

    return made


def _trees(base: type[Any]) -> Iterator[type[Any]]:
    yield base
    for kind in base.__subclasses__():
        yield from _trees(kind)


def pytest_configure() -> None:
    """Watch all loggers, at DEBUG, and each error of ours as it is made.

    A `Refusal` is an error answer of the server, whichever client asked for it.
    """
    # Here and not above: pytest rewrites the asserts of a plugin that nobody has imported yet.
    from openai_runs.errors import OpenAIRunsError
    from openai_runs.server.api_errors import Refusal

    logging.getLogger().addHandler(WATCH)
    logging.getLogger().setLevel(logging.DEBUG)
    kinds = {*_trees(OpenAIRunsError), *_trees(Refusal)}
    for kind in kinds:
        if "__init__" in vars(kind):
            kind.__init__ = _searching(kind.__init__)


@pytest.fixture(autouse=True)
def canaries() -> Iterator[Watch]:
    """No canary gets out; what the test's servers and clients do when they close counts too."""
    WATCH.take()
    yield WATCH
    leaks = WATCH.take()
    assert not leaks, "\n".join(leaks)
