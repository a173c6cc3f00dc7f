"""Errors: facts in, one line out, and the same again in another process."""

import copy
import pickle

import pytest

from openai_runs import errors
from openai_runs.types import Run, RunLastError

TREE = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, errors.OpenAIRunsError)
]
FAILED = Run(
    id="run_1",
    thread_id="thread_1",
    status="failed",
    last_error=RunLastError(code="server_error", message="It\nbroke " + "x" * 1000),
)


def make(cls: type[errors.OpenAIRunsError]) -> errors.OpenAIRunsError:
    """Return an error of this class, with every fact its constructor takes."""
    if issubclass(cls, errors.APIStatusError):
        return cls(
            "No run found",
            status_code=404,
            code="not_found",
            param="run_id",
            type="invalid_request_error",
            request_id="req_1",
            body={"error": {"message": "No run found"}},
            headers={"retry-after": "1"},
        )
    if issubclass(cls, errors.APIResponseValidationError):
        return cls("not JSON", method="GET", url="u", status_code=200, excerpt="x" * 900)
    if issubclass(cls, errors.APIConnectionError):
        return cls("refused", method="GET", url="http://h/p", sent=False, thread_id="thread_1")
    if issubclass(cls, errors.RunWaitTimeout):
        return cls(FAILED, 60.04)
    if issubclass(cls, errors.RunError):
        return cls(FAILED)
    return cls("it went wrong", thread_id="thread_1", run_id="run_1")


@pytest.mark.parametrize("cls", TREE)
def test_every_error_survives_pickling(cls: type[errors.OpenAIRunsError]) -> None:
    """Class, text and all facts are the same in another process, and in a copy."""
    error = make(cls)
    error.locate(thread_id="thread_9", run_id="run_9")
    vars(error)["attempts"] = 3
    error.add_note("seen by a test")

    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is cls
        assert (str(twin), twin.args, vars(twin)) == (str(error), error.args, vars(error))
        assert vars(twin)["attempts"] == 3


@pytest.mark.parametrize("cls", TREE)
def test_every_error_speaks_on_one_line(cls: type[errors.OpenAIRunsError]) -> None:
    """No line break, no final period, of bounded length, and documented."""
    text = str(make(cls))

    assert len(text.splitlines()) == 1
    assert not text.endswith(".")
    assert len(text) < 500
    assert cls.__doc__


@pytest.mark.parametrize(
    ("cls", "also"),
    [
        (errors.ConfigError, ValueError),
        (errors.APITimeoutError, TimeoutError),
        (errors.RunWaitTimeout, TimeoutError),
        (errors.ActiveRunError, errors.BadRequestError),
    ],
)
def test_errors_are_caught_by_their_builtin_names(
    cls: type[errors.OpenAIRunsError], also: type[Exception]
) -> None:
    """`except TimeoutError` and `except ValueError` work as users expect."""
    assert isinstance(make(cls), also)


def test_ids_are_filled_in_once_and_shown() -> None:
    """The first ids stay; those that the sentence does not name stand behind it."""
    error = errors.StreamError("the stream went wrong")
    assert (error.thread_id, error.run_id) == (None, None)

    error.locate(thread_id="thread_1", run_id=None)
    error.locate(thread_id="thread_2", run_id="run_1")

    assert (error.thread_id, error.run_id) == ("thread_1", "run_1")
    assert str(error) == "the stream went wrong (thread_id='thread_1', run_id='run_1')"


def test_ids_in_the_sentence_are_not_repeated() -> None:
    """A sentence that names the run is not made longer."""
    assert str(errors.RunFailed(FAILED)).count("run_1") == 1


def test_status_error_shows_what_is_needed_to_report_it() -> None:
    """Status, code, param and request id stand behind the server's text."""
    text = "No run found [HTTP 404, code='not_found', param='run_id', request_id='req_1']"

    assert str(make(errors.NotFoundError)) == text
    assert str(errors.APIStatusError("m", status_code=500)) == "m [HTTP 500]"


def test_run_errors_say_what_to_do() -> None:
    """A waiting run names the call that answers it, a wait that ended says the run goes on."""
    waiting = Run(id="run_1", thread_id="thread_1", status="requires_action")

    assert "runs.submit_tool_outputs()" in str(errors.RunRequiresAction(waiting))
    assert errors.RunWaitTimeout(waiting, 60.04).waited == 60.04
    assert "after 60.0 s; it goes on" in str(errors.RunWaitTimeout(waiting, 60.04))
    assert str(errors.RunCancelled(waiting)).startswith("run 'run_1' ended as 'requires_action'")


def test_connection_error_names_the_request() -> None:
    """Method and address without its query; both may be left out."""
    assert str(make(errors.APITimeoutError)).startswith("refused (GET http://h/p)")
    assert str(errors.APIConnectionError("refused")) == "refused"
    assert errors.APIConnectionError("refused").retryable


def test_unreadable_answer_shows_a_short_excerpt() -> None:
    """At most 200 characters of the body; the whole excerpt is `.body`."""
    error = errors.APIResponseValidationError("not JSON", excerpt="x" * 900, request_id="req_1")

    assert str(error).count("x") == 200
    assert error.body == "x" * 900
    assert errors.APIResponseValidationError("not JSON").body is None
