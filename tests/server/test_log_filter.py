"""A log line keeps what a developer needs, and not a word of a library's."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from io import StringIO

import pytest

from openai_runs.server.log_filter import ContentFilter, filtered_logger
from tests.canaries import CANARY_KEY, CANARY_PROMPT

OURS = "openai_runs.server.of_a_test"
FOREIGN = "of_a_library"


def written(name: str, log: Callable[[logging.Logger], None]) -> str:
    """Return what a handler with the filter, as `serve` has one, writes of that logger's record."""
    text = StringIO()
    handler = logging.StreamHandler(text)
    handler.addFilter(ContentFilter())
    logger = logging.getLogger(name)
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        log(logger)
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates
    return text.getvalue()


def fail_in_sqlite() -> None:
    """Have SQLite refuse a row."""
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute("CREATE TABLE runs (id TEXT UNIQUE)")
        for _ in range(2):
            database.execute("INSERT INTO runs VALUES (?)", [CANARY_PROMPT])


def fail_in_pythons_sqlite() -> None:
    """Read what is no text, which Python's own layer quotes."""
    with closing(sqlite3.connect(":memory:")) as database:
        text = CANARY_PROMPT.encode() + b"\xff"
        database.execute("SELECT CAST(? AS TEXT)", [text]).fetchall()


def fail_in_the_system() -> None:
    """Open a file that is not there."""
    with open(f"/nowhere/{CANARY_KEY}"):
        pass


def fail_in_a_parser() -> None:
    """Fail as a parser that quotes what it read."""
    raise ValueError({"Authorization": CANARY_KEY})


def fail_in_a_chain() -> None:
    """Fail with a cause that has a context, and with a note."""
    try:
        try:
            fail_in_a_parser()
        except ValueError:
            fail_in_sqlite()
    except sqlite3.Error as error:
        problem = LookupError(CANARY_PROMPT)
        problem.add_note(CANARY_KEY)
        raise problem from error


def fail_in_a_group() -> None:
    """Fail with several exceptions at once."""
    raise ExceptionGroup(CANARY_KEY, [ValueError(CANARY_PROMPT), LookupError(CANARY_KEY)])


FAILURES = {
    fail_in_sqlite: ["sqlite3.IntegrityError: UNIQUE constraint failed: runs.id"],
    fail_in_pythons_sqlite: ["sqlite3.OperationalError"],
    fail_in_the_system: ["FileNotFoundError: No such file or directory"],
    fail_in_a_parser: ["ValueError"],
    fail_in_a_chain: [
        "ValueError",
        "sqlite3.IntegrityError: UNIQUE constraint failed: runs.id",
        "LookupError",
    ],
    fail_in_a_group: ["ExceptionGroup", "ValueError", "LookupError"],
}
"""What fails, and the lines of its traceback that name exceptions."""


@pytest.mark.parametrize("name", [OURS, FOREIGN])
@pytest.mark.parametrize("fail", FAILURES, ids=lambda fail: fail.__name__)
def test_traceback_has_the_frames_and_no_words(name: str, fail: Callable[[], None]) -> None:
    """Where it failed is kept, and what the exceptions are called; nothing that they say."""

    def log(logger: logging.Logger) -> None:
        try:
            fail()
        except Exception:
            logger.exception("run %s failed", "run_1")

    text = written(name, log)

    assert f"in {fail.__name__}\n" in text
    assert CANARY_KEY not in text
    assert CANARY_PROMPT not in text
    assert set(FAILURES[fail]) <= set(text.splitlines())


def test_own_line_keeps_its_words_but_not_those_of_an_exception() -> None:
    """An exception among the arguments is named by its class."""
    error = ValueError(CANARY_PROMPT)

    text = written(OURS, lambda logger: logger.warning("run %s failed: %s", "run_1", error))

    assert text == "run run_1 failed: ValueError\n"


def test_line_of_a_library_is_only_the_place_it_comes_from() -> None:
    """Its words may hold anything, and so may its arguments."""

    def log(logger: logging.Logger) -> None:
        logger.warning(f"{CANARY_KEY} %s", CANARY_PROMPT)  # noqa: G004

    text = written(FOREIGN, log)

    assert text.startswith(f"{FOREIGN}: its words are left out (test_log_filter.log, line ")


async def test_exception_that_nobody_awaits_is_logged_without_its_words() -> None:
    """The event loop quotes tasks, callbacks and exceptions; the filter does not."""

    def log(logger: logging.Logger) -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_future()
        task.set_result(CANARY_PROMPT)
        loop.call_exception_handler(
            {
                "message": f"Exception in callback {CANARY_KEY}",
                "exception": ValueError(CANARY_PROMPT),
                "future": task,
            }
        )

    text = written("asyncio", log)

    assert text.startswith("asyncio: its words are left out (base_events.")
    assert text.endswith("\nValueError\n")


def test_own_loggers_are_filtered_whatever_handlers_there_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In a program of somebody else's, with handlers of its own, the filter is on our loggers."""
    for name in ("openai_runs.server", OURS):
        try:
            fail_in_a_parser()
        except ValueError as error:
            filtered_logger(name).exception("run_1 failed: %s", error)

    assert [record.getMessage() for record in caplog.records] == ["run_1 failed: ValueError"] * 2
    assert [record.exc_info for record in caplog.records] == [None, None]
    assert caplog.text.count("in fail_in_a_parser") == 2
    assert CANARY_KEY not in caplog.text


def test_second_pass_changes_nothing() -> None:
    """A record meets the filter at our logger and again at the handler of `serve`."""

    def log(logger: logging.Logger) -> None:
        try:
            fail_in_a_parser()
        except ValueError as error:
            filtered_logger(logger.name).exception("run_1 failed: %s", error)

    assert written(f"{OURS}.twice", log) == written(f"{OURS}.once", log)


def record_of(name: str, extra: dict[str, object]) -> logging.LogRecord:
    """Return a record with these attributes, once it was filtered."""
    record = logging.getLogger(name).makeRecord(
        name, logging.WARNING, "file.py", 1, "words", (), None, extra=extra
    )
    assert ContentFilter().filter(record)
    return record


def test_attributes_of_ours_are_kept_and_exceptions_named_by_their_class() -> None:
    """Ids are what a JSON formatter is for; an exception may quote anything."""
    extra = {"run_id": "run_1", "cause": ValueError(CANARY_KEY)}

    record = record_of(OURS, extra)

    assert (vars(record)["run_id"], vars(record)["cause"]) == ("run_1", "ValueError")


@pytest.mark.parametrize(
    "value", [CANARY_KEY, {"Authorization": CANARY_KEY}, ValueError(CANARY_KEY)]
)
def test_attributes_of_a_library_are_left_out(value: object) -> None:
    """As its words are: aiohttp's access log has headers as attributes."""
    record = record_of(FOREIGN, {"request_header": value})

    assert CANARY_KEY not in repr(vars(record))
    assert not hasattr(record, "request_header")
