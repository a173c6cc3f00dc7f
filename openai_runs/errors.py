"""Every exception this package raises.

OpenAIRunsError
  ConfigError (ValueError)                 a setting that cannot work
  APIError                                 a call went wrong
    APIConnectionError                     no answer
      APITimeoutError (TimeoutError)       no answer in time
    APIResponseValidationError             an answer that cannot be read
    APIStatusError                         an answer that says no
      BadRequestError                      400
        ActiveRunError                     the thread already has an active run
      AuthenticationError                  401
      PermissionDeniedError                403
      NotFoundError                        404
      ConflictError                        409
      UnprocessableEntityError             422
      RateLimitError                       429
      InternalServerError                  500 and above
  StreamError                              a stream went wrong
    StreamInterrupted                      it was cut and could not be finished
    StreamTooLarge                         it exceeds `max_stream_bytes`
  RunError                                 a run did not end as hoped
    RunFailed
    RunExpired
    RunCancelled
    RunIncomplete
    RunRequiresAction
    RunWaitTimeout (TimeoutError)          the wait ended, the run goes on
  ToolError                                a local tool could not be used

Constructors take facts and write their own sentence. No type of ours is imported
here, so that every room may raise; run errors hold what `RunLike` asks for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Protocol

__all__ = [
    "APIConnectionError",
    "APIError",
    "APIResponseValidationError",
    "APIStatusError",
    "APITimeoutError",
    "ActiveRunError",
    "AuthenticationError",
    "BadRequestError",
    "ConfigError",
    "ConflictError",
    "ErrorLike",
    "InternalServerError",
    "NotFoundError",
    "OpenAIRunsError",
    "PermissionDeniedError",
    "RateLimitError",
    "RunCancelled",
    "RunError",
    "RunExpired",
    "RunFailed",
    "RunIncomplete",
    "RunLike",
    "RunRequiresAction",
    "RunWaitTimeout",
    "StreamError",
    "StreamInterrupted",
    "StreamTooLarge",
    "ToolError",
    "UnprocessableEntityError",
]

_EXCERPT_CHARS: Final = 200
_MAX_REASON_CHARS: Final = 2000
"""Characters of a run's error text that are searched."""
_HINT: Final = re.compile(
    r"(?i)\b(?:try again|retry|wait)(?:[ -](?:again|in|after|for|about)\b){0,4}+:?+\s{0,4}+"
)
"""What stands before the time after which to try again."""
_PART: Final = re.compile(
    r"(?i)(\d{1,9}+(?:\.\d{1,9}+)?+)\s{0,4}+(milli|ms|[smhd])"
    r"(?:seconds?+|econds?+|ecs?+|inutes?+|ins?+|ours?+|rs?+|ays?+)?+(?![a-z])[\s,]{0,4}+"
)
"""A number and its unit: `1.5s`, `22 seconds`, `6m`."""
_BARE: Final = re.compile(r"(\d{1,9}+(?:\.\d{1,9}+)?+)\s{0,4}+(?:[.,;)!](?!\d)|$)")
"""A number of seconds without a unit."""
_SECONDS: Final = {"milli": 0.001, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SPENT: Final = re.compile(r"(?i)\bbilling\b|current quota")
"""How a text says that a quota is used up, which no waiting helps."""
_PASSING_CODES: Final = frozenset({"rate_limit_exceeded", "server_error"})
"""Codes of failures that a new run may not meet."""


class ErrorLike(Protocol):
    """What a run error reads of `Run.last_error`."""

    @property
    def code(self) -> str:
        """Return the error's code."""
        ...

    @property
    def message(self) -> str:
        """Return the error's text."""
        ...


class RunLike(Protocol):
    """What a run error needs to know of a run."""

    @property
    def id(self) -> str:
        """Return the run's id."""
        ...

    @property
    def thread_id(self) -> str:
        """Return the id of the run's thread."""
        ...

    @property
    def status(self) -> str:
        """Return the run's status."""
        ...

    @property
    def last_error(self) -> ErrorLike | None:
        """Return why the run failed, if it did."""
        ...


def _rebuild(cls: type[OpenAIRunsError], args: tuple[Any, ...], facts: dict[str, Any]) -> Any:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(facts)
    return error


class OpenAIRunsError(Exception):
    """The base of everything this package raises on purpose."""

    thread_id: str | None = None
    """The thread the call was about, where known."""
    run_id: str | None = None
    """The run the call was about, where known."""

    def __init__(
        self, message: str, *, thread_id: str | None = None, run_id: str | None = None
    ) -> None:
        """Keep the sentence and the ids."""
        super().__init__(message)
        self.message = message
        if thread_id is not None:
            self.thread_id = thread_id
        if run_id is not None:
            self.run_id = run_id

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by facts, since constructors differ."""
        return _rebuild, (type(self), self.args, self.__dict__.copy())

    def locate(self, *, thread_id: str | None, run_id: str | None) -> None:
        """Fill in the ids that are not known yet.

        Args:
            thread_id: The thread's, where it is known.
            run_id: The run's, where it is known.
        """
        if self.thread_id is None:
            self.thread_id = thread_id
        if self.run_id is None:
            self.run_id = run_id

    def __str__(self) -> str:
        """Return the sentence, with the ids it does not name itself."""
        where = [
            f"{name}={value!r}"
            for name, value in (("thread_id", self.thread_id), ("run_id", self.run_id))
            if value is not None and value not in self.message
        ]
        return f"{self.message} ({', '.join(where)})" if where else self.message


class ConfigError(OpenAIRunsError, ValueError):
    """A setting that cannot work, or a text that cannot be sent; raised before any request."""


class APIError(OpenAIRunsError):
    """A call of the API went wrong."""

    status_code: int | None = None
    """HTTP status, where there was an answer."""
    code: str | None = None
    """The server's error code."""
    param: str | None = None
    """The argument the server complains of."""
    type: str | None = None
    """The server's error type."""
    request_id: str | None = None
    """`x-request-id` of the answer, to quote to whoever runs the server."""
    body: Any = None
    """The decoded error body, or its text."""
    attempts: int = 1
    """How often the request was sent."""
    retry_after: float | None = None
    """Seconds the server asked us to wait, where it did."""
    maybe_created: bool = False
    """True if the server may have carried the call out although no answer came."""
    idempotency_key: str | None = None
    """The key the call was sent with: `runs.recover` finds a lost run by it, and a server that
    remembers keys answers the same call with the same key as it did the first time."""
    advice: str = ""
    """What to do next, where it is known; the text ends with it."""
    retry_budget_spent: bool = False
    """True if a retry was allowed and not made, since the client's budget for retries is spent; the
    text says on what."""

    def __str__(self) -> str:
        """Return what happened, the facts, and what to do next."""
        return "; ".join(filter(None, [f"{super().__str__()}{self._facts()}", self.advice]))

    def _facts(self) -> str:
        return ""

    def explain_spent_budget(self, why: str) -> None:
        """Say in the text that no retry was made, and why.

        Args:
            why: What the budget was spent on, and what to do.
        """
        self.retry_budget_spent = True
        self.message = f"{self.message}; {why}"
        self.args = (self.message,)


class APIConnectionError(APIError):
    """No answer: refused, reset, not resolved, or cut short."""

    sent: bool = True
    """False if the request provably never reached the server."""
    retryable: bool = True
    """False where trying again cannot help, as with a certificate that is not trusted."""
    reason: str = ""
    """What happened, without the request."""

    def __init__(
        self, what: str, *, method: str = "", url: str = "", sent: bool = True, **ids: str | None
    ) -> None:
        """Say what happened to which request; `url` carries no query and no secret."""
        request = f" ({method} {url})" if url else ""
        super().__init__(f"{what}{request}", **ids)
        self.reason = what
        self.sent = sent


class APITimeoutError(APIConnectionError, TimeoutError):
    """No answer in time."""


class APIResponseValidationError(APIError):
    """An answer came, but it is not JSON, has a wrong shape, or is too large."""

    def __init__(
        self,
        problem: str,
        *,
        method: str = "",
        url: str = "",
        status_code: int | None = None,
        excerpt: str = "",
        request_id: str | None = None,
    ) -> None:
        """Say what is wrong with the answer; at most 200 characters of it are shown."""
        shown = f": {excerpt[:_EXCERPT_CHARS]!r}" if excerpt else ""
        super().__init__(f"unreadable answer to {method} {url}: {problem}{shown}")
        self.status_code = status_code
        self.request_id = request_id
        self.body = excerpt or None


class APIStatusError(APIError):
    """The server answered with an error status."""

    def __init__(
        self,
        message: str,
        *,
        status_code: int,
        code: str | None = None,
        param: str | None = None,
        type: str | None = None,  # the wire's name, and the official SDK's
        request_id: str | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Keep what the server said."""
        super().__init__(message)
        self.status_code: int = status_code
        self.code = code
        self.param = param
        self.type = type
        self.request_id = request_id
        self.body = body
        self.headers: dict[str, str] = dict(headers or {})

    def _facts(self) -> str:
        """Return the status, and what is needed to report it."""
        facts = [f"HTTP {self.status_code}"]
        facts += [
            f"{name}={value!r}"
            for name, value in (("code", self.code), ("param", self.param))
            if value is not None
        ]
        if self.request_id:
            facts.append(f"request_id={self.request_id!r}")
        return f" [{', '.join(facts)}]"


class BadRequestError(APIStatusError):
    """400: the request is wrong, or does not fit the state of the object."""


class ActiveRunError(BadRequestError):
    """400: the thread already has an active run."""

    blocking_run_id: str | None = None
    """The run that is in the way."""


class AuthenticationError(APIStatusError):
    """401: no key, or a wrong one."""


class PermissionDeniedError(APIStatusError):
    """403: the key may not do this."""


class NotFoundError(APIStatusError):
    """404: no such object, or no such endpoint."""


class ConflictError(APIStatusError):
    """409: the request contradicts an earlier one."""


class UnprocessableEntityError(APIStatusError):
    """422: the request is well formed but not accepted."""


class RateLimitError(APIStatusError):
    """429: too many requests, or the quota is used up."""


class InternalServerError(APIStatusError):
    """500 and above: the server failed."""


class StreamError(OpenAIRunsError):
    """A stream went wrong: the server sent an error event, or one that cannot be read."""

    code: str | None = None
    """What the server calls the error, where it does."""
    type: str | None = None
    """Which kind of error the server says it is."""
    body: Any = None
    """What the server sent, as JSON values or as text."""


class StreamInterrupted(StreamError):
    """A stream was cut and could not be finished by polling either."""

    text_so_far: str = ""
    """The text received before the cut."""
    idempotency_key: str | None = None
    """The key of a create whose run is not known; see `runs.recover`."""


class StreamTooLarge(StreamError):
    """A stream exceeds `max_stream_bytes`; the run goes on, and the stream's snapshot is kept."""

    text_so_far: str = ""
    """The text received before the limit."""
    max_stream_bytes: int = 0
    """The limit."""


class RunError(OpenAIRunsError):
    """A run did not end as hoped; `.run` is its last known state."""

    _verb = "ended as"

    def __init__(self, run: RunLike) -> None:
        """Write the sentence from the run itself."""
        sentence = f"run {run.id!r} {self._verb} {run.status!r}{self._reason(run)}"
        super().__init__(sentence, thread_id=run.thread_id, run_id=run.id)
        self.run = run

    def _reason(self, run: RunLike) -> str:
        error = run.last_error
        if error is None:
            return ""
        return f" ({error.code}): {' '.join(error.message.split())[:_EXCERPT_CHARS]}"


class RunFailed(RunError):
    """The run ended as `failed`; `.run.last_error` says why."""

    @property
    def retry_after(self) -> float | None:
        """Return the seconds after which the reason says to try again; None if it says nothing."""
        hints = _HINT.finditer(self._text)
        found = (_seconds_at(self._text, hint.end()) for hint in hints)
        return next((seconds for seconds in found if seconds is not None), None)

    @property
    def retryable(self) -> bool:
        """Return whether a new run may help: it failed for a cause that may pass.

        False for a rejected prompt, a quota that is used up, and a reason that is not known.
        """
        if self.retry_after is not None:
            return True
        is_spent = _SPENT.search(self._text) is not None
        reason = self.run.last_error
        return reason is not None and reason.code in _PASSING_CODES and not is_spent

    @property
    def _text(self) -> str:
        reason = self.run.last_error
        return "" if reason is None else reason.message[:_MAX_REASON_CHARS]


def _seconds_at(text: str, place: int) -> float | None:
    """Return the seconds that a text names at a place, in parts such as `1m 30s`."""
    seconds = None
    while (part := _PART.match(text, place)) is not None:
        seconds = (seconds or 0) + float(part[1]) * _SECONDS[part[2].lower()]
        place = part.end()
    bare = _BARE.match(text, place) if seconds is None else None
    return float(bare[1]) if bare is not None else seconds


class RunExpired(RunError):
    """The run was not finished before its `expires_at`."""

    def _reason(self, run: RunLike) -> str:
        created, expires = (getattr(run, name, None) for name in ("created_at", "expires_at"))
        within = "in time"
        if isinstance(created, int) and isinstance(expires, int):
            within = f"within {expires - created} s"
        return f": it was not finished {within}; start a new run on its thread"


class RunCancelled(RunError):
    """The run was cancelled, or is being cancelled."""


class RunIncomplete(RunError):
    """The run stopped at a token limit; `.run.incomplete_details` says which."""

    def _reason(self, run: RunLike) -> str:
        limit = getattr(getattr(run, "incomplete_details", None), "reason", None)
        if not isinstance(limit, str) or not limit:
            return super()._reason(run)
        hint = f"; raise {limit} of the run" if limit.startswith("max_") else ""
        return f" ({limit[:_EXCERPT_CHARS]}){hint}"


class RunRequiresAction(RunError):
    """The run waits for tool outputs."""

    _verb = "is waiting in"

    def _reason(self, run: RunLike) -> str:
        kind = getattr(getattr(run, "required_action", None), "kind", "submit_tool_outputs")
        if kind == "submit_tool_approval":
            return f" for {kind!r}; answer it with runs.resume(..., approve=...)"
        if kind != "submit_tool_outputs":
            return f" for {kind[:_EXCERPT_CHARS]!r}, which cannot be answered here; cancel the run"
        return "; answer its tool calls with runs.submit_tool_outputs()"


class RunWaitTimeout(RunError, TimeoutError):
    """The wait ended before the run did; the run itself goes on."""

    def __init__(self, run: RunLike, waited: float) -> None:
        """Say how long was waited, in seconds, and what the run was doing."""
        OpenAIRunsError.__init__(
            self,
            f"run {run.id!r} was still {run.status!r} after {waited:.1f} s; it goes on: "
            "wait again with its two ids, or cancel it",
            thread_id=run.thread_id,
            run_id=run.id,
        )
        self.run = run
        self.waited = waited


class ToolError(OpenAIRunsError):
    """A local tool could not be used."""
