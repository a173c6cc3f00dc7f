"""The way of every request: credentials, attempts, and reading the answer.

One method for a call (`send`), one for a call that is answered by a stream
(`open_stream`), one for a poll (`poll`: a single attempt, outside the retry loop and its
budget). What may be repeated is decided by `_protocol.retry`; how a
create in doubt is settled is told by the resource, which knows where to look.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

import anyio
import msgspec

from openai_runs._client.arguments import CallOptions
from openai_runs._client.core.call import (
    Call,
    Doubt,
    Polled,
    is_ambiguous,
    is_gone,
    is_refusal,
    is_transient,
    was_not_sent,
)
from openai_runs._client.core.preparing import Preparer
from openai_runs._client.core.state import ClientState
from openai_runs._client.encoding import plain
from openai_runs._client.settings import Settings, merge_headers
from openai_runs._protocol import error_mapping, retry
from openai_runs._protocol.endpoints import Endpoint
from openai_runs._protocol.masking import mask
from openai_runs._protocol.spec import QueryValue, RequestSpec
from openai_runs._transport import Reply, StreamReply
from openai_runs.config import MIN_POLL_DELAY
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

__all__ = ["Pipeline", "Settle"]

T = TypeVar("T")
Settle = Callable[[APIError], Awaitable[T | None]]
"""Looks whether a request in doubt was carried out; None if it was not."""

_LOG: Final = logging.getLogger("openai_runs.client")
_FEATURES: Final = "openai-runs-features"
_OWN_FEATURES: Final = frozenset({"idempotency", "prefer-wait", "resume"})
"""What the embedded server offers, known before it has answered anything."""
_REMAINING: Final = "x-ratelimit-remaining-requests"
_NO_OPTIONS: Final[CallOptions] = {}


class Pipeline:
    """Sends requests for one set of settings."""

    def __init__(self, settings: Settings, shared: ClientState) -> None:
        """Join the settings of one client to what its copies share."""
        self.settings = settings
        self.shared = shared
        self._preparer = Preparer()

    def request(
        self,
        endpoint: Endpoint[T],
        ids: Mapping[str, str],
        options: CallOptions = _NO_OPTIONS,
        *,
        query: Mapping[str, QueryValue] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> RequestSpec[T]:
        """Return the request with this client's and this call's extras laid over it."""
        if self.settings.default_query or options:
            extra_query = options.get("extra_query")
            if self.settings.default_query or extra_query:
                query = {**self.settings.default_query, **(query or {}), **(extra_query or {})}
            extra_body = options.get("extra_body")
            if extra_body:
                body = {**(body or {}), **plain(extra_body)}
        return endpoint.spec(ids, query=query, body=body)

    async def send(
        self,
        spec: RequestSpec[T],
        options: CallOptions = _NO_OPTIONS,
        *,
        settle: Settle[T] | None = None,
        doubt: Doubt | None = None,
    ) -> T:
        """Return the answer, after as many attempts as are safe and allowed.

        Args:
            spec: The request.
            options: `timeout`, `request_timeout`, `extra_headers`, `idempotency_key`.
            settle: Asked when a guarded request is in doubt; what it finds is returned,
                and where it finds nothing the request may be sent again.
            doubt: Told how the call was left, also when it is cancelled.

        Raises:
            APITimeoutError: `timeout` or an attempt's time-out passed.
            APIError: Refused, unreadable or unreachable, and retrying is spent or unsafe.

        Cancellation: closes the connection; a guarded request may have been carried out.
        """
        call = self._preparer.prepare(self.settings, spec, options)
        timeout = options.get("timeout")
        try:
            if timeout is None:
                return await self._deliver(call, settle)
            with anyio.move_on_after(timeout):
                return await self._deliver(call, settle)
        finally:
            call.doubted = call.doubted or call.pending
            if doubt is not None:
                doubt.unsure = call.doubted
        error = APITimeoutError(
            f"{spec.operation} got no answer within {timeout:.3g} s",
            method=spec.method,
            url=call.shown_url,
            sent=call.doubted,
        )
        raise self._explain(error, call)

    async def open_stream(
        self,
        spec: RequestSpec[T],
        options: CallOptions,
        *,
        settle: Settle[T] | None = None,
        doubt: Doubt | None = None,
    ) -> T | StreamReply:
        """Return the open stream, or the answer of a server that does not stream.

        Takes and raises what `send` does; `request_timeout` bounds the time to the stream's
        head. What `settle` finds is returned in place of a stream.

        Cancellation: closes the connection; a guarded request may have been carried out.
        """
        streamed = msgspec.structs.replace(spec, stream=True)
        return await self.send(streamed, options, settle=settle, doubt=doubt)

    async def poll(
        self,
        call: Call,
        *,
        hold: int,
        timeout: float,
        scope: anyio.CancelScope | None = None,
    ) -> Polled:
        """Return the answer to one attempt, with the headers a wait goes by.

        Args:
            call: A GET, made by `prepare` and polled any number of times, with the limiter's
                leave in its `turn`.
            hold: Seconds the server is asked to hold the request; 0 does not ask.
            timeout: Seconds for the attempt.
            scope: An unused scope by which to call the attempt off, which then fails.

        Raises:
            APIError: The attempt failed; nothing is repeated here.

        Cancellation: closes the connection.
        """
        call.timeout, call.attempts = timeout, 0
        try:
            if call.is_nowhere:
                await self._locate(call)
            headers = await self._asked(call) if self.settings.must_ask else dict(call.headers)
            if hold > 0:
                merge_headers(headers, {"Prefer": f"wait={hold}"})
            reply = await self._exchange(call, headers, scope)
            self._learn(call, reply)
            if reply.status >= 300:
                raise self._status_error(call, reply)
        except APIError as error:
            self._explain(error, call)
            raise
        held = hold > 0 and "preference-applied" in reply.headers
        return Polled(self._read(call, reply), reply.headers, held)

    @property
    def depends_on_context(self) -> bool:
        """Return whether what is sent may depend on who asks."""
        return callable(self.settings.credential) or not self.shared.transport.is_owned

    @property
    def must_prepare(self) -> bool:
        """Return whether somebody must be asked for a key or an address first."""
        return self.settings.must_ask or self.settings.base_url is None

    def resumes(self) -> bool:
        """Return whether this server has said that a run's stream can be taken up again."""
        return self.shared.offers(self.settings.base_url, "resume")

    def holds(self) -> bool:
        """Return whether a poll sent now would be held back by this server until news come."""
        return self.shared.offers(self.settings.base_url, "prefer-wait")

    def honours_keys(self) -> bool:
        """Return whether this server has said that it remembers idempotency keys."""
        return self.shared.offers(self.settings.base_url, "idempotency")

    async def _deliver(self, call: Call, settle: Settle[T] | None) -> T:
        if call.is_nowhere:
            await self._locate(call)
        while True:
            if self.shared.limiter.is_active:
                await self._take_turn(call)
            try:
                headers = await self._asked(call) if self.settings.must_ask else dict(call.headers)
                reply = await self._exchange(call, headers)
            except APIConnectionError as error:
                call.pending = False
                failure: APIError = error
            except APIResponseValidationError as error:  # too large: it would be so again
                call.doubted = True
                self._explain(error, call)
                raise
            else:
                call.pending = False
                self._learn(call, reply)
                if reply.status < 300:
                    self.shared.budget.succeeded()
                    return self._read(call, reply)  # type: ignore[no-any-return]
                failure = self._status_error(call, reply)
            answer = await self._go_on(call, failure, settle)
            if answer is not None:
                return answer

    async def _go_on(self, call: Call, failure: APIError, settle: Settle[T] | None) -> T | None:
        """Return the answer all the same, or None once the next attempt is due; else raise."""
        if is_gone(call, failure):
            return call.spec.decode(call.spec.gone)  # type: ignore[no-any-return]
        guarded = call.guarded and not self.honours_keys()
        unsure = is_ambiguous(failure)
        if settle is not None and guarded and (unsure or is_refusal(call, failure)):
            found = await self._settle(settle, failure, call)
            if found is not None:
                return found
        call.doubted = call.doubted or unsure
        self._explain(failure, call)
        safe = not guarded or was_not_sent(failure) or (unsure and settle is not None)
        await self.settings.runtime.sleep(self._pause(call, failure, safe=safe))
        return None

    def _pause(self, call: Call, failure: APIError, *, safe: bool) -> float:
        """Return the seconds to the next attempt, or raise `failure` if there is none."""
        settings = self.settings
        spent = call.is_spent(settings.retry, failure, settings.runtime.monotonic())
        if not safe or spent or not is_transient(failure) or retry.is_too_long(failure.retry_after):
            raise failure
        chance = settings.runtime.chance()
        pause = retry.backoff(settings.retry, call.attempts, failure.retry_after, chance)
        if call.refusals > settings.retry.max_retries:  # many, and `Retry-After` may be 0
            pause = max(pause, settings.retry.initial, MIN_POLL_DELAY)
        if call.deadline is not None and settings.runtime.monotonic() + pause >= call.deadline:
            error = APITimeoutError(
                f"{call.spec.operation} would have to wait {pause:.3g} s more, past its deadline; "
                f"last failure: {failure.message[:200]}",
                method=call.spec.method,
                url=call.shown_url,
                sent=call.doubted,
            )
            raise self._explain(error, call) from failure
        paced = settings.retry.patience is not None or isinstance(failure, RateLimitError)
        if not paced and not self.shared.budget.take():
            raise failure
        name, kind = call.spec.operation, type(failure).__name__
        _LOG.debug("%s attempt %d failed (%s); again in %.3f s", name, call.attempts, kind, pause)
        return pause

    async def _take_turn(self, call: Call) -> None:
        """Wait until the limiter lets the next attempt go, or its deadline is past."""
        try:
            call.turn = await self.shared.limiter.admit(call.spec.operation, call.deadline)
        except APITimeoutError as error:
            error.sent = call.doubted
            raise self._explain(error, call)  # noqa: B904 - the same error, with its ids

    async def _settle(self, settle: Settle[T], failure: APIError, call: Call) -> T | None:
        """Return what `settle` finds; where it cannot look, nothing may be sent again."""
        call.doubted = True
        try:
            return await settle(failure)
        except APIError as error:
            failure.add_note(f"looking whether it was carried out failed as well: {error}")
            raise self._explain(failure, call) from error

    def prepare(self, spec: RequestSpec[Any], options: CallOptions = _NO_OPTIONS) -> Call:
        """Return the call of `spec`, with its URL and headers put together, not sent yet.

        Raises:
            TypeError: An option is not one of `CallOptions`, or of the wrong kind.
            ValueError: An option cannot be sent, or is out of bounds.
        """
        return self._preparer.prepare(self.settings, spec, options)

    async def _locate(self, call: Call) -> None:
        """Complete the URL, for which the embedded server may have to be started."""
        call.url = f"{self.settings.base_url or await self.start()}{call.url}"

    async def _asked(self, call: Call) -> dict[str, str]:
        """Return the call's headers, with the key that there is now."""
        headers = await self.settings.credentials_within(call.timeout)
        merge_headers(headers, call.headers)
        return headers

    async def start(self) -> str:
        """Start the embedded server and return its URL."""
        if self.shared.start is None:  # a client always has an address or a server to start
            msg = "no base_url and nothing to start"
            raise AssertionError(msg)
        base = await self.shared.start()
        self.shared.features.setdefault(base, _OWN_FEATURES)
        self.settings = msgspec.structs.replace(self.settings, base_url=base)
        return base

    def _exchange(
        self, call: Call, headers: dict[str, str], scope: anyio.CancelScope | None = None
    ) -> Awaitable[Reply | StreamReply]:
        """Return the next attempt, to be awaited; a coroutine of its own would be a frame more."""
        call.attempts += 1
        call.pending, call.sent = True, headers
        return self.shared.transport.exchange(
            call.spec.method,
            call.url,
            headers=headers,
            body=call.spec.body,
            timeout=call.timeout,
            stream=call.spec.stream,
            scope=scope,
        )

    def _learn(self, call: Call, reply: Reply | StreamReply) -> None:
        if self.shared.limiter.is_active or _REMAINING in reply.headers:
            self.shared.limiter.learn(reply.status, reply.headers, call.turn)
        said = reply.headers.get(_FEATURES)
        if said is None and reply.status >= 300:
            return  # a proxy's error says nothing about the server behind it
        self.shared.learn(self.settings.base_url or "", said)

    def _status_error(self, call: Call, reply: Reply | StreamReply) -> APIStatusError:
        host = call.url.split("/", 3)[2].rpartition("@")[2].partition(":")[0].lower()
        error = error_mapping.status_error(
            reply.status, reply.headers, reply.content, host=host, secrets=call.secrets
        )
        error.retry_after = retry.retry_after(reply.headers, self.settings.runtime.wall())
        if isinstance(error, RateLimitError):
            self.shared.limiter.refused(error, call.turn)
        return error

    def _read(self, call: Call, reply: Reply | StreamReply) -> Any:
        if isinstance(reply, StreamReply):
            return reply
        try:
            answer = call.spec.decode(reply.content)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            problem: str | None = str(error) or type(error).__name__
        else:
            problem = None
        if problem is not None:  # not chained: the cause may quote the answer, and a key in it
            raise self._unreadable(problem, call, reply)
        if self.shared.limiter.counts_tokens:
            self.shared.limiter.saw(answer, call.spec.operation, call.turn)
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
        call.doubted = True
        return self._explain(failure, call)

    def _explain(self, error: APIError, call: Call) -> APIError:
        """Add to `error` what the caller needs to go on from here."""
        error.locate(thread_id=call.spec.thread_id, run_id=call.spec.run_id)
        error.attempts = call.attempts
        error.maybe_created = call.guarded and call.doubted
        error.idempotency_key = call.key
        return error
