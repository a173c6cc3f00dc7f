"""Spans of OpenTelemetry, for a client, a server, or both.

Needs the extra `otel`, which is `opentelemetry-api`. Nothing else imports OpenTelemetry, and only
its API is used: where spans go is decided by the SDK that your program sets up, and without one
nothing is recorded. The names are those of the GenAI conventions, which are still in development;
all of them stand here as literal texts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar
from urllib.parse import urlsplit

from openai_runs._extras import needs
from openai_runs.config import MAX_KEPT_TRACES, VERSION
from openai_runs.errors import APIStatusError, ConfigError

try:
    from opentelemetry import context as contexts
    from opentelemetry import propagate, trace
    from opentelemetry.trace import SpanKind, Status, StatusCode
except ImportError as missing:
    # The package has another name than its module.
    _text = needs("openai_runs.otel", ModuleNotFoundError(name="opentelemetry-api"))
    raise ConfigError(_text) from missing

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from openai_runs.types.runs import Run, Usage

__all__ = ["Tracing"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

_OPERATION: Final = "gen_ai.operation.name"
_PROVIDER: Final = "gen_ai.provider.name"
_CONVERSATION: Final = "gen_ai.conversation.id"
_AGENT: Final = "gen_ai.agent.id"
_REQUEST_MODEL: Final = "gen_ai.request.model"
_RESPONSE_MODEL: Final = "gen_ai.response.model"
_RESPONSE_ID: Final = "gen_ai.response.id"
_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
_TOOL_NAME: Final = "gen_ai.tool.name"
_TOOL_CALL: Final = "gen_ai.tool.call.id"
_TOOL_TYPE: Final = "gen_ai.tool.type"
_MESSAGES: Final = ("gen_ai.input.messages", "gen_ai.output.messages")
_TOOL_TEXTS: Final = ("gen_ai.tool.call.arguments", "gen_ai.tool.call.result")
_METHOD: Final = "http.request.method"
_RESENDS: Final = "http.request.resend_count"
_HTTP_STATUS: Final = "http.response.status_code"
_ROUTE: Final = "http.route"
_URL: Final = "url.full"
_ADDRESS: Final = "server.address"
_PORT: Final = "server.port"
_ERROR: Final = "error.type"
_RUN: Final = "openai_runs.run.id"
_STATUS: Final = "openai_runs.run.status"

_OPENAI: Final = "openai"
"""The provider: whoever answers, it is asked in OpenAI's protocol."""
_FAILED: Final = frozenset({"failed", "expired"})
"""Statuses of a run that are an error of its span."""


class Tracing:
    """Switches spans on: given as `tracing=` to a client, a server, or both.

    One object may be shared by any number of them.

    Args:
        capture_content: Whether spans hold what was said: texts of messages, arguments and outputs
            of tools. Off by default; keys are never in spans.
        tracer_provider: Makes the spans; None: OpenTelemetry's global one.

    Raises:
        ConfigError: OpenTelemetry is not installed (when this module is imported).
    """

    def __init__(
        self,
        *,
        capture_content: bool = False,
        tracer_provider: trace.TracerProvider | None = None,
    ) -> None:
        self._captures = capture_content
        self._tracer = trace.get_tracer("openai_runs", VERSION, tracer_provider)
        self._kept: dict[str, Context] = {}
        """By run: the context of the request that created it."""
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        """Show whether content is captured."""
        return f"Tracing(capture_content={self._captures})"

    # --- the client

    def start_invocation(
        self, body: Mapping[str, object], thread_id: str | None, run_id: str | None
    ) -> _Span:
        """Return the span of a run, begun; called by the client.

        Args:
            body: What the create of the run sends, or nothing.
            thread_id: The thread.
            run_id: The run.
        """
        agent = body.get("assistant_id")
        attributes = {
            _OPERATION: "invoke_agent",
            _PROVIDER: _OPENAI,
            _AGENT: agent,
            _CONVERSATION: thread_id,
            _REQUEST_MODEL: body.get("model"),
            _RUN: run_id,
            _RESPONSE_ID: run_id,
        }
        name = f"invoke_agent {agent}" if agent else "invoke_agent"
        return self._start(name, SpanKind.CLIENT, attributes)

    @contextmanager
    def invocation(
        self, body: Mapping[str, object], thread_id: str | None, run_id: str | None
    ) -> Iterator[_Span]:
        """Return the block of a run's span; called by the client.

        Args:
            body: What the create of the run sends, or nothing.
            thread_id: The thread.
            run_id: The run.
        """
        with _block(self.start_invocation(body, thread_id, run_id)) as span:
            yield span

    def start_request(  # noqa: PLR0917 - as the pipeline has it at hand
        self,
        operation: str,
        method: str,
        url: str,
        thread_id: str | None,
        run_id: str | None,
        attempt: int,
    ) -> _Span:
        """Return the span of one attempt of a request, begun; called by the client.

        Args:
            operation: What is asked for.
            method: Of HTTP.
            url: Without its query.
            thread_id: The thread.
            run_id: The run.
            attempt: Which attempt it is, from 1.
        """
        parts = urlsplit(url)
        attributes = {
            _METHOD: method,
            _URL: url,
            _ADDRESS: parts.hostname,
            _PORT: parts.port or (443 if parts.scheme == "https" else 80),
            _RESENDS: attempt - 1 or None,
            _CONVERSATION: thread_id,
            _RUN: run_id,
        }
        name = method if " " in operation else f"{method} {operation}"
        return self._start(name, SpanKind.CLIENT, attributes)

    @contextmanager
    def tool(self, name: str, call_id: str, arguments: str) -> Iterator[_Span]:
        """Return the block of one tool call; called by the client.

        Args:
            name: Of the function.
            call_id: Of the call.
            arguments: Its JSON text.
        """
        attributes = {
            _OPERATION: "execute_tool",
            _TOOL_NAME: name,
            _TOOL_CALL: call_id,
            _TOOL_TYPE: "function",
        }
        span = self._start(f"execute_tool {name}", SpanKind.INTERNAL, attributes, _TOOL_TEXTS)
        span.set_input(lambda: arguments)
        with _block(span):
            yield span

    # --- the server

    @contextmanager
    def served(self, method: str, route: str, headers: Mapping[str, str]) -> Iterator[_Span]:
        """Return the block of a request; called by the server.

        Args:
            method: Of HTTP.
            route: The path, with names in place of ids.
            headers: Of the request.
        """
        attributes = {_METHOD: method, _ROUTE: route}
        parent = propagate.extract({name.lower(): value for name, value in headers.items()})
        with _block(self._start(f"{method} {route}", SpanKind.SERVER, attributes, at=parent)) as it:
            yield it

    def keeping(self, build: Callable[_P, _T], run_id: Callable[[_T], str]) -> Callable[_P, _T]:
        """Return `build`, which keeps the present context for the run; called by the server.

        Args:
            build: What makes the run.
            run_id: Returns the id of what `build` makes.
        """
        here = contexts.get_current()

        def keep(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            made = build(*args, **kwargs)
            with self._lock:
                while len(self._kept) >= MAX_KEPT_TRACES:
                    del self._kept[next(iter(self._kept))]
                self._kept[run_id(made)] = here
            return made

        return keep

    def forget(self, run_id: str) -> None:
        """Forget the context of a run that is over; called by the server."""
        with self._lock:
            self._kept.pop(run_id, None)

    @contextmanager
    def execution(self, run: Run) -> Iterator[_Span]:
        """Return the block of one execution of a run; called by the server.

        Args:
            run: The run.
        """
        attributes = {
            _OPERATION: "invoke_agent",
            _PROVIDER: _OPENAI,
            _AGENT: run.assistant_id,
            _CONVERSATION: run.thread_id,
            _REQUEST_MODEL: run.model,
            _RUN: run.id,
            _RESPONSE_ID: run.id,
        }
        with self._lock:
            parent = self._kept.get(run.id)
        name = f"invoke_agent {run.assistant_id}"
        # Without a context that was kept, a trace of its own: the server was restarted since.
        at = contexts.Context() if parent is None else parent
        with _block(self._start(name, SpanKind.INTERNAL, attributes, at=at)) as span:
            yield span

    @contextmanager
    def chat(self, model: str) -> Iterator[_Span]:
        """Return the block of one model call; called by the server.

        Args:
            model: The model that is asked.
        """
        attributes = {_OPERATION: "chat", _PROVIDER: _OPENAI, _REQUEST_MODEL: model}
        with _block(self._start(f"chat {model}", SpanKind.CLIENT, attributes)) as span:
            yield span

    def _start(
        self,
        name: str,
        kind: SpanKind,
        attributes: Mapping[str, Any],
        texts: tuple[str, str] = _MESSAGES,
        *,
        at: Context | None = None,
    ) -> _Span:
        known = {key: value for key, value in attributes.items() if value is not None}
        span = self._tracer.start_span(name, context=at, kind=kind, attributes=known)
        return _Span(span, kind, texts if self._captures else None)


class _Span:
    """One span, in the package's own words."""

    def __init__(self, span: trace.Span, kind: SpanKind, texts: tuple[str, str] | None) -> None:
        """Wrap a span that has begun; `texts` name the attributes of its content."""
        self._span = span
        self._kind = kind
        self._texts = texts
        self._has_failed = self._has_ended = False

    def set_run(self, run: Run) -> None:
        self._set(_RUN, run.id)
        self._set(_RESPONSE_ID, run.id)
        self._set(_CONVERSATION, run.thread_id)
        self._set(_AGENT, run.assistant_id)
        self._set(_RESPONSE_MODEL, run.model)
        error = run.last_error
        kind = error.code if error is not None and error.code else run.status
        self._note(run.status, run.usage, kind if run.status in _FAILED else None)
        self._set(_STATUS, run.status)

    def set_outcome(
        self, status: str, usage: Usage | None = None, *, error_type: str | None = None
    ) -> None:
        self._note(status, usage, error_type)
        name = _FINISH_REASONS if self._kind is SpanKind.CLIENT else _STATUS
        self._set(name, [status] if name == _FINISH_REASONS else status)

    def _note(self, status: str, usage: Usage | None, error_type: str | None) -> None:
        if usage is not None:
            self._set(_INPUT_TOKENS, usage.prompt_tokens)
            self._set(_OUTPUT_TOKENS, usage.completion_tokens)
        if error_type is not None:
            self.fail(error_type)

    def set_http_status(self, status: int) -> None:
        self._set(_HTTP_STATUS, status)
        if status >= (400 if self._kind is SpanKind.CLIENT else 500):
            self.fail(str(status))

    def set_input(self, make: Callable[[], str]) -> None:
        if self._texts is not None:
            self._set(self._texts[0], make())

    def set_output(self, make: Callable[[], str]) -> None:
        if self._texts is not None:
            self._set(self._texts[1], make())

    def fail(self, error: BaseException | str) -> None:
        if isinstance(error, BaseException):
            if not isinstance(error, Exception):
                return  # cancelled, or left: no error of this work
            self._locate(error)
        if self._has_failed or self._has_ended:
            return
        self._has_failed = True
        # No message: it may repeat what was said.
        self._set(_ERROR, error if isinstance(error, str) else _type_of(error))
        self._span.set_status(Status(StatusCode.ERROR))

    def _locate(self, error: Exception) -> None:
        run = getattr(error, "run", None)
        if run is not None and hasattr(run, "last_error"):
            self.set_run(run)
        for name, key in (("thread_id", _CONVERSATION), ("run_id", _RUN)):
            self._set(key, getattr(error, name, None))

    def _set(self, name: str, value: Any) -> None:
        if value is not None and not self._has_ended:
            self._span.set_attribute(name, value)

    def headers(self) -> dict[str, str]:
        carrier: dict[str, str] = {}
        propagate.inject(carrier, trace.set_span_in_context(self._span))
        return carrier

    @contextmanager
    def active(self) -> Iterator[None]:
        with trace.use_span(self._span, record_exception=False, set_status_on_exception=False):
            yield

    def end(self) -> None:
        if not self._has_ended:
            self._has_ended = True
            self._span.end()

    def __del__(self) -> None:
        """End the span of a stream that nobody has closed."""
        self.end()


@contextmanager
def _block(span: _Span) -> Iterator[_Span]:
    """Make the span current, and end it with what ends the block."""
    try:
        with span.active():
            yield span
    except BaseException as error:
        span.fail(error)
        raise
    finally:
        span.end()


def _type_of(error: BaseException) -> str:
    """Return the kind of an error: an HTTP status, a code of ours, or the name of its class."""
    if isinstance(error, APIStatusError):
        return str(error.status_code)
    kind = type(error)
    name = kind.__qualname__
    return name if kind.__module__ == "builtins" else f"{kind.__module__}.{name}"
