"""The seam between the package and a tracer: what is traced, and nothing of how.

`openai_runs.otel` is the implementation; nothing else imports OpenTelemetry. Where tracing is off,
the attribute that holds it is None, and what is called often checks only that. A span is made the
current one only within one coroutine or one `with` block, never across a yield: a stream, whose
iteration may be left anywhere, holds its span and makes it current for each step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final, ParamSpec, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from types import TracebackType

    from openai_runs.types.runs import Run, Usage

__all__ = ["NO_SPAN", "ClientTracing", "NoSpan", "ServerTracing", "Span"]

P = ParamSpec("P")
T = TypeVar("T")


class Span(Protocol):
    """One span. Every method may be called after the end, and does nothing then."""

    def set_run(self, run: Run) -> None:
        """Note which run it is about, and its status and tokens."""
        ...

    def set_outcome(
        self, status: str, usage: Usage | None = None, *, error_type: str | None = None
    ) -> None:
        """Note how the work ended: a status or finish reason, the tokens, the kind of error."""
        ...

    def set_http_status(self, status: int) -> None:
        """Note the status of the answer."""
        ...

    def set_input(self, make: Callable[[], str]) -> None:
        """Note what went in, if content is captured; `make` is not called otherwise."""
        ...

    def set_output(self, make: Callable[[], str]) -> None:
        """Note what came out, if content is captured; `make` is not called otherwise."""
        ...

    def fail(self, error: BaseException | str) -> None:
        """Note the first error, or kind of error; a cancellation is none."""
        ...

    def headers(self) -> dict[str, str]:
        """Return the headers that make a request part of this span's trace."""
        ...

    def active(self) -> AbstractContextManager[None]:
        """Make it the current span of a block that has no yield."""
        ...

    def end(self) -> None:
        """End it; a second call does nothing."""
        ...


@runtime_checkable
class ClientTracing(Protocol):
    """The spans of a client."""

    def start_invocation(
        self, body: Mapping[str, object], thread_id: str | None, run_id: str | None
    ) -> Span:
        """Return the span of a run, begun; `body` is that of its create, or empty."""
        ...

    def invocation(
        self, body: Mapping[str, object], thread_id: str | None, run_id: str | None
    ) -> AbstractContextManager[Span]:
        """As `start_invocation`: current within the block, and ended with it."""
        ...

    def start_request(  # noqa: PLR0917 - one attempt, as the pipeline has it at hand
        self,
        operation: str,
        method: str,
        url: str,
        thread_id: str | None,
        run_id: str | None,
        attempt: int,
    ) -> Span:
        """Return the span of one attempt of a request, begun; `url` has no query."""
        ...

    def tool(self, name: str, call_id: str, arguments: str) -> AbstractContextManager[Span]:
        """Return the span of one call of a local tool: current within the block."""
        ...


@runtime_checkable
class ServerTracing(Protocol):
    """The spans of a server."""

    def served(
        self, method: str, route: str, headers: Mapping[str, str]
    ) -> AbstractContextManager[Span]:
        """Return the span of a request, in the trace its headers name."""
        ...

    def keeping(self, build: Callable[P, T], run_id: Callable[[T], str]) -> Callable[P, T]:
        """Return `build`; the run it makes is executed in the trace that is current now."""
        ...

    def forget(self, run_id: str) -> None:
        """Forget the trace of a run that is over."""
        ...

    def execution(self, run: Run) -> AbstractContextManager[Span]:
        """Return the span of one execution of the run, in the trace kept for it."""
        ...

    def chat(self, model: str) -> AbstractContextManager[Span]:
        """Return the span of one model call."""
        ...


class NoSpan:
    """The span where tracing is off, and the block of it."""

    def set_run(self, run: Run) -> None:
        """Do nothing."""

    def set_output(self, make: Callable[[], str]) -> None:
        """Do nothing."""

    def __enter__(self) -> NoSpan:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Do nothing."""


NO_SPAN: Final = NoSpan()
