"""The path of every request: headers and credentials, attempts, and reading the answer.

Theory of operation. `prepare` makes a `Call` of a `RequestSpec`: its URL, its headers (those
that many calls share are put together once), its key and the time it has. `send` makes as many
attempts of it as are safe and allowed; `open_stream` is `send` for a call that is answered by
a stream; `poll` is one attempt, outside of the retry loop and its budget. An attempt acquires
a permit of the rate limiter, asks for the credentials where a callable gives them, and is one
`Transport.exchange`. What its answer says goes to the limiter and to `ClientState`.

What is repeated after a failure is decided by `_protocol.retry`. Whether an ambiguous request
was carried out is verified by a callable that the caller of `send` passes.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractContextManager, suppress
from http import HTTPStatus
from typing import Any, Final, NamedTuple, TypeVar

import anyio
import msgspec

from openai_runs._client.arguments import CallOptions, check_options
from openai_runs._client.core.call import (
    Ambiguity,
    Call,
    Polled,
    is_already_deleted,
    is_ambiguous,
    is_duplicate_rejected,
    is_transient,
    was_not_sent,
)
from openai_runs._client.core.rate_limiter import REMAINING_REQUESTS
from openai_runs._client.core.state import ClientState
from openai_runs._client.core.traced import traced_exchange
from openai_runs._client.encoding import plain
from openai_runs._client.settings import Settings
from openai_runs._log_ids import ids_of
from openai_runs._protocol import error_mapping, retry
from openai_runs._protocol.advice.answers import page_advice
from openai_runs._protocol.advice.pages import is_page
from openai_runs._protocol.endpoints import Endpoint
from openai_runs._protocol.json_repair import repaired
from openai_runs._protocol.masking import mask
from openai_runs._protocol.spec import QueryValue, RequestSpec, Retry, check_header, merge_headers
from openai_runs._tracing import NO_SPAN, NoSpan, Span
from openai_runs._transport import Reply, StreamReply
from openai_runs.config import MAX_ANSWER_BYTES, MAX_ANSWER_PARTS, MIN_POLL_DELAY, check_timeout
from openai_runs.errors import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    RateLimitError,
)
from openai_runs.types.base import Answer
from openai_runs.types.http import HTTPInfo, request_id_of

__all__ = ["Pipeline", "Verify", "with_extra_body"]

T = TypeVar("T")
Verify = Callable[[APIError], Awaitable[T | None]]
"""Returns the result of an ambiguous request; None if it was not carried out."""

_LOG: Final = logging.getLogger("openai_runs.client")
_FEATURES: Final = "openai-runs-features"
_OWN_FEATURES: Final = frozenset({"idempotency", "prefer-wait", "resume"})
"""What the embedded server offers, known before it has answered anything."""
_TOO_MANY: Final = HTTPStatus.TOO_MANY_REQUESTS
_KEY: Final = "Idempotency-Key"
_STREAM: Final = "text/event-stream, application/json"
_NO_OPTIONS: Final[CallOptions] = {}


class _SharedHeaders(NamedTuple):
    """The headers that all calls of one kind have in common."""

    headers: dict[str, str]
    """Copied before anything is changed."""
    key_name: str
    """How the header of the idempotency key is spelled among them."""


class Pipeline:
    """Sends requests for one set of settings."""

    def __init__(self, settings: Settings, state: ClientState) -> None:
        """Join the settings of one client to the state it shares with its copies."""
        self.settings = settings
        self.state = state
        self._headers: dict[tuple[bool, bool, Retry], _SharedHeaders] = {}
        """By kind of call: asks for a stream, has a body, may be repeated."""

    def build_request(
        self,
        endpoint: Endpoint[T],
        ids: Mapping[str, str],
        options: CallOptions = _NO_OPTIONS,
        *,
        query: Mapping[str, QueryValue] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> RequestSpec[T]:
        """Return the request, with the extras of client and call merged into it; sends nothing."""
        if self.settings.default_query or options:
            extra_query = options.get("extra_query")
            if self.settings.default_query or extra_query:
                query = {**self.settings.default_query, **(query or {}), **(extra_query or {})}
            if options.get("extra_body"):
                body = with_extra_body(body, options)
        return endpoint.spec(ids, query=query, body=body)

    def prepare(self, spec: RequestSpec[Any], options: CallOptions = _NO_OPTIONS) -> Call:
        """Return the call of `spec`, with its URL and headers put together; sends nothing.

        Raises:
            TypeError: An option is not one of `CallOptions`, or of the wrong kind.
            ValueError: An option cannot be sent, or is out of bounds.
        """
        settings = self.settings
        kind = (spec.stream, spec.body is not None, spec.retry)
        common = self._headers.get(kind)
        if common is None:
            common = self._headers[kind] = _common_headers(settings, spec)
        call = Call(
            spec=spec,
            url=f"{settings.base_url or ''}{spec.path}{'?' if spec.query else ''}{spec.query}",
            has_address=settings.base_url is not None,
            headers=common.headers,
            timeout=settings.request_timeout,
        )
        if options:
            _apply_options(options, call, settings)
        if spec.retry is Retry.NOT_IDEMPOTENT:
            call.key = settings.runtime.new_key() if call.key is None else call.key
            call.headers = {**call.headers, common.key_name: call.key}
        extra = options.get("extra_headers")
        if extra:
            call.headers = dict(call.headers)
            checked = {name: check_header(name, value) for name, value in extra.items()}
            merge_headers(call.headers, checked)
        return call

    async def send(
        self,
        spec: RequestSpec[T],
        options: CallOptions = _NO_OPTIONS,
        *,
        verify: Verify[T] | None = None,
        ambiguity: Ambiguity | None = None,
    ) -> T:
        """Return the answer, after as many attempts as are safe and allowed.

        Args:
            spec: The request.
            options: `timeout`, `request_timeout`, `extra_headers`, `idempotency_key`.
            verify: Called when a request that is not idempotent is ambiguous; what it finds is
                returned, and where it finds nothing the request may be sent again.
            ambiguity: Set when the call ends, also when it is cancelled.

        Raises:
            APITimeoutError: `timeout` or an attempt's time-out passed.
            APIError: Rejected, unreadable or unreachable, and no retry is left or safe.

        Cancellation: closes the connection; the request may have been carried out.
        """
        call = self.prepare(spec, options)
        timeout = options.get("timeout")
        try:
            if timeout is None:
                return await self._send_attempts(call, verify)
            with anyio.move_on_after(timeout):
                return await self._send_attempts(call, verify)
        finally:
            call.maybe_sent = call.maybe_sent or call.is_pending
            if ambiguity is not None:
                ambiguity.maybe_sent = call.maybe_sent
        error = APITimeoutError(
            f"{spec.operation} got no answer within {timeout:.3g} s",
            method=spec.method,
            url=call.shown_url,
            sent=call.maybe_sent,
        )
        raise self._explain(error, call)

    async def open_stream(
        self,
        spec: RequestSpec[T],
        options: CallOptions,
        *,
        verify: Verify[T] | None = None,
        ambiguity: Ambiguity | None = None,
    ) -> T | StreamReply:
        """Return the open stream, or the answer of a server that does not stream.

        As `send`; `request_timeout` bounds the time to the stream's head. What `verify` finds
        is returned in place of a stream.
        """
        streamed = msgspec.structs.replace(spec, stream=True)
        return await self.send(streamed, options, verify=verify, ambiguity=ambiguity)

    async def poll(self, call: Call, *, hold: int, timeout: float) -> Polled:
        """Return the answer to one attempt, with the headers that pace a wait.

        Args:
            call: A GET, made by `prepare` and polled any number of times, with the limiter's
                permit in its `permit`.
            hold: Seconds the server is asked to hold the request; 0 does not ask.
            timeout: Seconds for the attempt.

        Raises:
            APIError: The attempt failed; nothing is repeated here.

        Cancellation: closes the connection.
        """
        call.timeout, call.attempts = timeout, 0
        try:
            if not call.has_address:
                await self._complete_url(call)
            has_dynamic_credentials = self.settings.has_dynamic_credentials
            headers = (
                await self._with_credentials(call) if has_dynamic_credentials else {**call.headers}
            )
            if hold > 0:
                call.prefer_name = call.prefer_name or _name_of("Prefer", call.headers)
                headers[call.prefer_name] = f"wait={hold}"
            reply = await self._exchange(call, headers)
            self._learn_features(reply)
            if reply.status >= 300:
                raise self._status_error(call, reply)
        except APIError as error:
            self.state.on_failure(error, self.settings.runtime.monotonic())
            self._explain(error, call)
            raise
        self.state.failure = None
        is_held = hold > 0 and "preference-applied" in reply.headers
        return Polled(self._parse(call, reply), reply.headers, is_held)

    @property
    def depends_on_context(self) -> bool:
        """Return whether what is sent may depend on the context of the caller."""
        return callable(self.settings.credential) or not self.state.transport.is_owned

    def resumes(self) -> bool:
        """Return whether this server has said that a run's stream can be resumed."""
        return self.state.offers(self.settings.base_url, "resume")

    def holds(self) -> bool:
        """Return whether this server has said that it holds polls until something changes."""
        return self.state.offers(self.settings.base_url, "prefer-wait")

    def honours_keys(self) -> bool:
        """Return whether this server has said that it remembers idempotency keys."""
        return self.state.offers(self.settings.base_url, "idempotency")

    async def _send_attempts(self, call: Call, verify: Verify[T] | None) -> T:
        if not call.has_address:
            await self._complete_url(call)
        while True:
            if self.state.limiter.is_active:
                await self._acquire_permit(call)
            try:
                has_dynamic_credentials = self.settings.has_dynamic_credentials
                headers = (
                    await self._with_credentials(call)
                    if has_dynamic_credentials
                    else {**call.headers}
                )
                reply = await self._exchange(call, headers)
            except APIConnectionError as error:
                call.is_pending = False
                failure: APIError = error
            except APIResponseValidationError as error:  # too large: it would be so again
                call.maybe_sent = True
                raise self._explain(_too_large(error, call), call) from None
            else:
                call.is_pending = False
                self._learn_features(reply)
                if reply.status < 300:
                    self.state.failure = None
                    self.state.budget.succeeded()
                    return self._parse(call, reply)  # type: ignore[no-any-return]
                failure = self._status_error(call, reply)
            answer = await self._before_retry(call, failure, verify)
            if answer is not None:
                return answer

    async def _before_retry(
        self, call: Call, failure: APIError, verify: Verify[T] | None
    ) -> T | None:
        """Return None once the next attempt is due, or the answer if none is needed; else raise."""
        self.state.on_failure(failure, self.settings.runtime.monotonic())
        if is_already_deleted(call, failure):
            return call.spec.decode(call.spec.deleted_body)  # type: ignore[no-any-return]
        may_repeat = call.is_idempotent or self.honours_keys()
        ambiguous = is_ambiguous(failure)
        if verify is not None and not may_repeat:
            if ambiguous or is_duplicate_rejected(call, failure):
                found = await self._verify(verify, failure, call)
                if found is not None:
                    return found
            may_repeat = ambiguous
        call.maybe_sent = call.maybe_sent or ambiguous
        self._explain(failure, call)
        is_safe = may_repeat or was_not_sent(failure)
        await self.settings.runtime.sleep(self._pause(call, failure, is_safe=is_safe))
        return None

    def _pause(self, call: Call, failure: APIError, *, is_safe: bool) -> float:
        """Return the seconds to the next attempt, or raise `failure` if there is none."""
        settings = self.settings
        spent = call.is_spent(settings.retry, failure, settings.runtime.monotonic())
        if (
            not is_safe
            or spent
            or not is_transient(failure)
            or retry.is_too_long(failure.retry_after)
        ):
            raise failure
        chance = settings.runtime.chance()
        pause = retry.backoff(settings.retry, call.attempts, failure.retry_after, chance)
        if call.rate_limited > settings.retry.max_retries:  # many, and `Retry-After` may be 0
            pause = max(pause, settings.retry.initial, MIN_POLL_DELAY)
        if call.deadline is not None and settings.runtime.monotonic() + pause >= call.deadline:
            error = APITimeoutError(
                f"{call.spec.operation} would have to wait {pause:.3g} s more, past its deadline; "
                f"last failure: {failure.message[:200]}",
                method=call.spec.method,
                url=call.shown_url,
                sent=call.maybe_sent,
            )
            error.advice = failure.advice
            raise self._explain(error, call) from failure
        paced = settings.retry.patience is not None or isinstance(failure, RateLimitError)
        name, kind = call.spec.operation, type(failure).__name__
        now = settings.runtime.monotonic()
        if not paced and not self.state.budget.acquire(kind, now):
            failure.explain_spent_budget(self.state.budget.why_spent(now))
            raise failure
        if _LOG.isEnabledFor(logging.DEBUG):
            failure.locate(thread_id=call.spec.thread_id, run_id=call.spec.run_id)
            words = "%s attempt %d failed (%s); again in %.3f s"
            _LOG.debug(words, name, call.attempts, kind, pause, extra=ids_of(failure))
        return pause

    async def _acquire_permit(self, call: Call) -> None:
        """Wait until the rate limiter permits the next attempt."""
        try:
            call.permit = await self.state.limiter.acquire(call.spec.operation, call.deadline)
        except APITimeoutError as error:
            error.sent = call.maybe_sent
            raise self._explain(error, call)  # noqa: B904 - the same error, with its ids

    async def _verify(self, verify: Verify[T], failure: APIError, call: Call) -> T | None:
        """Return what `verify` finds; where it fails, nothing may be sent again."""
        call.maybe_sent = True
        try:
            return await verify(failure)
        except APIError as error:
            failure.add_note(f"verifying whether the request was carried out also failed: {error}")
            raise self._explain(failure, call) from error

    async def _complete_url(self, call: Call) -> None:
        """Put the server's address into the URL; the embedded server may have to be started."""
        call.url = f"{self.settings.base_url or await self.start()}{call.url}"
        call.has_address = True

    async def _with_credentials(self, call: Call) -> dict[str, str]:
        """Return the call's headers, with the credentials that a callable gives now."""
        headers = await self.settings.credentials_within(call.timeout)
        merge_headers(headers, call.headers)
        return headers

    async def start(self) -> str:
        """Start the embedded server and return its URL."""
        if self.state.start is None:  # a client always has an address or a server to start
            msg = "no base_url and nothing to start"
            raise AssertionError(msg)
        base = await self.state.start()
        self.state.features.setdefault(base, _OWN_FEATURES)
        self.settings = msgspec.structs.replace(self.settings, base_url=base)
        return base

    def _exchange(
        self, call: Call, headers: dict[str, str]
    ) -> Coroutine[Any, Any, Reply | StreamReply]:
        """Return the next attempt, to be awaited; no coroutine itself, to save a frame."""
        call.attempts += 1
        call.is_pending, call.sent = True, headers
        if self.settings.tracing is not None:
            return traced_exchange(self.state.transport, self.settings.tracing, call, headers)
        return self.state.transport.exchange(
            call.spec.method,
            call.url,
            headers=headers,
            body=call.spec.body,
            timeout=call.timeout,
            stream=call.spec.stream,
        )

    def invocation(
        self,
        body: Mapping[str, Any] | None = None,
        thread_id: str | None = None,
        run_id: str | None = None,
    ) -> AbstractContextManager[Span | NoSpan]:
        """Return the block of a run's span: from its create to its end, or around its wait."""
        tracing = self.settings.tracing
        if tracing is None:
            return NO_SPAN
        return tracing.invocation(body or {}, thread_id, run_id)

    def _learn_features(self, reply: Reply | StreamReply) -> None:
        named = reply.headers.get(_FEATURES)
        if named is None and reply.status >= 300:
            return  # a proxy's error says nothing about the server behind it
        self.state.learn_features(self.settings.base_url or "", named)

    def _status_error(self, call: Call, reply: Reply | StreamReply) -> APIStatusError:
        host = call.url.split("/", 3)[2].rpartition("@")[2].partition(":")[0].lower()
        error = error_mapping.status_error(
            reply.status,
            reply.headers,
            reply.content,
            host=host,
            base_url=self.settings.base_url or "",
            path=call.spec.path,
            secrets=call.secrets,
        )
        error.retry_after = retry.retry_after(reply.headers, self.settings.runtime.wall())
        limiter = self.state.limiter
        if limiter.is_active or REMAINING_REQUESTS in reply.headers or reply.status == _TOO_MANY:
            limiter.on_headers(reply.status, reply.headers, call.permit, error=error)
        return error

    def _parse(self, call: Call, reply: Reply | StreamReply) -> Any:
        answer, problem = None, None
        if not isinstance(reply, StreamReply):
            if len(reply.content) > MAX_ANSWER_PARTS and _parts(reply.content) > MAX_ANSWER_PARTS:
                problem = f"it has more than {MAX_ANSWER_PARTS} objects and arrays"
                raise self._unreadable(problem, call, reply)
            try:
                answer = call.spec.decode(reply.content)
            except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
                problem = str(error) or type(error).__name__
                with suppress(msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
                    reply = reply._replace(content=repaired(reply.content) or reply.content)
                    answer, problem = call.spec.decode(reply.content), None
        limiter = self.state.limiter
        if limiter.is_active or REMAINING_REQUESTS in reply.headers:
            limiter.on_headers(reply.status, reply.headers, call.permit, answer=answer)
        if isinstance(reply, StreamReply):
            return reply
        if problem is not None:  # not chained: the cause may quote the answer, and a key in it
            raise self._unreadable(problem, call, reply)
        if isinstance(answer, Answer):
            answer.__dict__["_http"] = HTTPInfo(
                reply.status, reply.headers, reply.content, call.attempts
            )
        return answer

    def _unreadable(self, problem: str, call: Call, reply: Reply) -> APIError:
        secrets = call.secrets
        failure = APIResponseValidationError(
            mask(problem, secrets),
            method=call.spec.method,
            url=call.shown_url,
            status_code=reply.status,
            excerpt=error_mapping.excerpt(reply.content, secrets=secrets),
            request_id=mask(request_id_of(reply.headers) or "", secrets) or None,
        )
        if is_page(reply.content):
            failure.advice = page_advice(self.settings.base_url or "")
        call.maybe_sent = True
        return self._explain(failure, call)

    def _explain(self, error: APIError, call: Call) -> APIError:
        """Add to `error` what the caller needs to know of the call."""
        error.locate(thread_id=call.spec.thread_id, run_id=call.spec.run_id)
        error.attempts = call.attempts
        error.maybe_created = call.maybe_sent and not call.is_idempotent
        error.idempotency_key = call.key
        return error


def _parts(content: bytes) -> int:
    """Return how many objects and arrays this JSON has at most: of each, memory is taken."""
    return content.count(b"{") + content.count(b"[")


def _too_large(error: APIResponseValidationError, call: Call) -> APIResponseValidationError:
    """Return the error of an answer that is too large; of a list's page, with the way out."""
    if not call.spec.operation.startswith("list"):
        return error
    return APIResponseValidationError(
        f"it is larger than {MAX_ANSWER_BYTES} bytes; ask for fewer items at once with limit=",
        method=call.spec.method,
        url=call.shown_url,
        status_code=error.status_code,
    )


def with_extra_body(body: Mapping[str, Any] | None, options: CallOptions) -> dict[str, Any]:
    """Return a copy of `body` with the call's `extra_body` merged into it."""
    return {**(body or {}), **plain(options.get("extra_body") or {})}


def _common_headers(settings: Settings, spec: RequestSpec[Any]) -> _SharedHeaders:
    headers = settings.known_credentials()
    merge_headers(headers, settings.headers())
    if spec.stream:
        merge_headers(headers, {"Accept": _STREAM})
    if spec.body is not None:
        merge_headers(headers, {"Content-Type": "application/json"})
    if spec.retry is Retry.NOT_IDEMPOTENT:
        merge_headers(headers, {_KEY: ""})
    return _SharedHeaders(headers, _name_of(_KEY, headers))


def _name_of(name: str, headers: Mapping[str, str]) -> str:
    """Return how `name` is spelled in `headers`, or as it is given where it is not in them."""
    return next((one for one in headers if one.lower() == name.lower()), name)


def _apply_options(options: CallOptions, call: Call, settings: Settings) -> None:
    """Set the time and the key of a call as its options say."""
    check_options(call.spec.operation, options)
    timeout = check_timeout("timeout", options.get("timeout"))
    if timeout is not None:
        call.deadline = settings.runtime.monotonic() + timeout
    limit = check_timeout("request_timeout", options.get("request_timeout"))
    if limit is not None:
        call.timeout = limit
    key = options.get("idempotency_key")
    if key is not None and not call.is_idempotent and not check_header(_KEY, key):
        msg = "idempotency_key must not be empty"
        raise ValueError(msg)
    call.key = key
