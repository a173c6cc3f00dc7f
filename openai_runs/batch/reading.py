"""The lines a batch has written, read again: each as an object, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, overload

import msgspec

from openai_runs import Message, Run, RunResult
from openai_runs._printing import Pairs, Printed
from openai_runs._protocol.lenient import decoder_for
from openai_runs.batch.errors import BatchError
from openai_runs.types.messages import Text, TextContent

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    T = TypeVar("T", default=Any)
else:  # typing has defaults since Python 3.13
    from typing import TypeVar

    T = TypeVar("T")

__all__ = ["BatchResult", "Failure", "read_results"]

_OK: Final = 200
_NOTHING: Final = msgspec.Raw(b"null")


class Failure(Printed, msgspec.Struct, frozen=True, kw_only=True):
    """Why a line of a batch did not complete."""

    code: str | None = None
    """Of the run's `last_error` or of the server's answer; else its status or the exception."""
    message: str = ""


class BatchResult(Printed, msgspec.Struct, Generic[T], frozen=True, kw_only=True, dict=True):
    """What came of one line of a batch; `T` is the type of `parsed`."""

    id: str
    """Of the request that created the run."""
    custom_id: str
    """Of the line of the input."""
    run: Run | None = None
    """The run as it ended; None where none was created."""
    messages: list[Message] = []
    """The messages the run wrote, oldest first."""
    error: Failure | None = None
    """Why it did not complete; None where it did."""
    response_format: type[T] | None = None
    """The type that `parsed` is an instance of."""

    @property
    def text(self) -> str:
        """Return the text of all messages, a blank line between them, as `RunResult.text`."""
        return "" if self._result is None else self._result.text

    @property
    def parsed(self) -> T:
        """The last text as an instance of `response_format`, as `RunResult.parsed`.

        None if no type was given, the line did not complete, or the model refused; type checkers
        know of the type alone, for whom a check of `error` comes first.

        Raises:
            APIResponseValidationError: The text does not fit the type; it is still in `text`.
        """
        return None if self._result is None else self._result.parsed  # type: ignore[return-value]  # see above

    @cached_property
    def _result(self) -> RunResult[T] | None:
        if self.run is None:
            return None
        kind = self.response_format
        return RunResult(run=self.run, messages=self.messages, steps=[], response_format=kind)

    def _printed(self) -> Pairs:
        """Return the id of the line, its error or its text, and the run."""
        pairs: Pairs = [("custom_id", self.custom_id), ("error", self.error), ("text", self.text)]
        return [(name, value) for name, value in [*pairs, ("run", self.run)] if value]


class _Response(msgspec.Struct):
    status_code: int
    body: msgspec.Raw = _NOTHING


class _Line(msgspec.Struct):
    custom_id: str
    response: _Response | None
    error: Failure | None
    id: str = ""


class _Answer(msgspec.Struct):
    """What stands beside the run in the body of a response."""

    text: str = ""
    messages: list[Message] | None = None


_LINE: Final = msgspec.json.Decoder(_Line)


@overload
def read_results(
    path: str | Path, *, errors: str | Path | None = None, response_format: type[T]
) -> Iterator[BatchResult[T]]: ...
@overload
def read_results(
    path: str | Path, *, errors: str | Path | None = None, response_format: type | None = None
) -> Iterator[BatchResult]: ...
def read_results(
    path: str | Path, *, errors: str | Path | None = None, response_format: type | None = None
) -> Iterator[BatchResult[Any]]:
    """Yield the results that a batch has written, in the order in which they came.

    A last line that is cut off, of a batch that is at work or was killed, is left out: the batch
    writes it whole.

    Args:
        path: The file of completed runs: `out` of `Batch.run`.
        errors: The file of all others, read after it; one that is not there has no lines, since
            a batch makes it with the first failure.
        response_format: The type that `parsed` shall be an instance of.

    Raises:
        BatchError: A file cannot be read, or a line is no result; the text names both.
    """
    yield from _results(Path(path), response_format)
    if errors is not None:
        yield from _results(Path(errors), response_format, may_lack=True)


def _results(
    path: Path, kind: type | None, *, may_lack: bool = False
) -> Iterator[BatchResult[Any]]:
    try:
        with path.open("rb") as file:
            for number, text in enumerate(file, 1):
                if not text.strip():
                    continue
                try:
                    result = _result(text, kind)
                except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
                    if not text.endswith(b"\n"):
                        return
                    msg = f"{path}: line {number} is no result of a batch: {error}"
                    raise BatchError(msg) from error
                yield result
    except OSError as error:
        if may_lack and isinstance(error, FileNotFoundError):
            return
        msg = f"{path}: cannot be read: {error.strerror}"
        raise BatchError(msg) from error


def _result(text: bytes, kind: type | None) -> BatchResult[Any]:
    line = _LINE.decode(text)
    run, messages = None, []
    if line.response is not None and line.response.status_code == _OK:
        run = decoder_for(Run).decode(line.response.body)
        messages = _messages(decoder_for(_Answer).decode(line.response.body))
    elif line.error is None:
        msg = "it has neither a run nor an error"
        raise msgspec.ValidationError(msg)
    return BatchResult(
        id=line.id,
        custom_id=line.custom_id,
        run=run,
        messages=messages,
        error=line.error,
        response_format=kind,
    )


def _messages(answer: _Answer) -> list[Message]:
    """Return the messages; of a line without them, its text as one."""
    if answer.messages is not None:
        return answer.messages
    content = TextContent(text=Text(value=answer.text))
    return [Message(id="", role="assistant", content=[content])] if answer.text else []
