"""What the log may say: one filter, so that no line quotes a request, an answer or a key.

The words of an exception or of a library's log line are not ours, and may quote anything: a header
that cannot be parsed, the value of a column, the `repr` of a task. They are left out, and
what a developer needs is kept: where it happened, the class of the exception, its traceback.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import traceback
from collections.abc import Iterator
from typing import Final

__all__ = ["ContentFilter", "describe", "filtered_logger", "safe_words"]

_OURS: Final = "openai_runs"
_CAUSE: Final = "\nThe above exception was the direct cause of the following exception:\n\n"
_STANDARD: Final = frozenset(
    {*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName"}
)
"""Attributes that every record has, or is given by a formatter; all others are the writer's."""
_CONTEXT: Final = "\nDuring handling of the above exception, another exception occurred:\n\n"


class ContentFilter(logging.Filter):
    """Rewrites each record so that it can quote nothing; lets all of them pass.

    A record of our own loggers keeps its words, but an exception among its arguments is
    named by its class, as is one among its attributes. Of any other logger's record only the place
    it comes from is kept, and no attribute that its writer gave it.
    Either keeps its traceback, without the messages of the exceptions.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record in place; a second pass changes nothing."""
        ours = record.name == _OURS or record.name.startswith(f"{_OURS}.")
        if not ours:
            record.msg = "%s: its words are left out (%s.%s, line %s)"
            record.args = (record.name, record.module, record.funcName, record.lineno)
            record.exc_text = None
            for name in record.__dict__.keys() - _STANDARD:
                delattr(record, name)
        else:
            if isinstance(record.args, tuple):
                record.args = tuple(map(_safe, record.args))
            for name in record.__dict__.keys() - _STANDARD:
                setattr(record, name, _safe(getattr(record, name)))
        if record.exc_info:
            error = record.exc_info[1]
            record.exc_text = None if error is None else "".join(_lines(error, set())).rstrip("\n")
            record.exc_info = None  # a formatter, or a tool that reads locals, would print it whole
        return True


_FILTER: Final = ContentFilter()


def filtered_logger(name: str) -> logging.Logger:
    """Return a logger of ours whose records are filtered, whatever handlers the program has."""
    logger = logging.getLogger(name)
    logger.addFilter(_FILTER)
    return logger


filtered_logger("openai_runs.server")  # in each module of the server the same logger


def describe(error: BaseException) -> str:
    """Return the class of an exception, and its message where that cannot quote anything.

    >>> describe(ValueError("sk-..."))
    'ValueError'
    >>> describe(OSError(28, "sk-..."))
    'OSError: No space left on device'
    """
    words = _safe_message(error)
    return f"{_name(error)}: {words}" if words else _name(error)


def safe_words(error: BaseException) -> str:
    """Return the message of an exception where it cannot quote anything, else its class.

    >>> safe_words(ValueError("sk-..."))
    'ValueError'
    """
    return _safe_message(error) or _name(error)


def _safe(value: object) -> object:
    return describe(value) if isinstance(value, BaseException) else value


def _safe_message(error: BaseException) -> str:
    if isinstance(error, sqlite3.Error) and hasattr(error, "sqlite_errorname"):
        return str(error)  # SQLite's own words: names of the schema, and never a bound value
    if type(error).__module__ == "builtins" and isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return ""


def _name(error: BaseException) -> str:
    kind = type(error)
    if kind.__module__ in {"builtins", "__main__"}:
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def _lines(error: BaseException, seen: set[int]) -> Iterator[str]:
    """Yield a traceback as Python prints it, without the messages."""
    seen.add(id(error))
    cause, words = error.__cause__, _CAUSE
    if cause is None and not error.__suppress_context__:
        cause, words = error.__context__, _CONTEXT
    if cause is not None and id(cause) not in seen:
        yield from _lines(cause, seen)
        yield words
    if error.__traceback__ is not None:
        yield "Traceback (most recent call last):\n"
        yield from traceback.format_tb(error.__traceback__)
    yield f"{describe(error)}\n"
    if isinstance(error, BaseExceptionGroup):
        for number, part in enumerate(error.exceptions, 1):
            yield f"---- {number} of {len(error.exceptions)} in the group ----\n"
            yield from _lines(part, seen)
