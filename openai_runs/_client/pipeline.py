"""The way of every request: credentials, attempts, and reading the answer.

One method for a call (`send`), one for a poll (`poll`: a single attempt, outside the
retry loop and its budget). What may be repeated is decided by `_protocol.retry`; how a
create in doubt is settled is told by the resource, which knows where to look.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

import anyio
import msgspec

from openai_runs._client.arguments import CallOptions, check_options, plain
from openai_runs._client.settings import Settings, lay_over
from openai_runs._client.shared import Shared
from openai_runs._protocol import faults, retry
from openai_runs._protocol.endpoints import Endpoint
from openai_runs._protocol.spec import QueryValue, RequestSpec, Retry, check_header
from openai_runs._transport import Reply
from openai_runs.config import check_timeout
from openai_runs.errors import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    RateLimitError,
)
from openai_runs.types.base import Answer
from openai_runs.types.http import HTTPInfo

__all__ = ["Pipeline", "Polled", "Settle"]

T = TypeVar("T")
Settle = Callable[[APIError], Awaitable[T | None]]
"""Looks whether a request in doubt was carried out; None if it was not."""

_LOG: Final = logging.getLogger("openai_runs.client")
_FEATURES: Final = "openai-runs-features"
_OWN_FEATURES: Final = frozenset({"idempotency", "prefer-wait"})
"""What the embedded server offers, known before it has answered anything."""
_NO_OPTIONS: Final[CallOptions] = {}


class Polled(NamedTuple):
    """One answered poll."""

    answer: Any
    headers: Mapping[str, str]
    held: bool
    """Whether the server held the request back until something changed."""


class _Call(msgspec.Struct, kw_only=True):
    """A request with what stays the same between its attempts, and how far it got."""

    spec: Any
    """A `RequestSpec[T]`."""
    url: str
    headers: dict[str, str]
    key: str | None
    timeout: float
    """Seconds for one attempt."""
    deadline: float | None
    attempts: int = 0
    pending: bool = False
    """Whether an attempt is under way."""
    doubted: bool = False
    """Whether an attempt may have been carried out although it failed."""

    @property
    def guarded(self) -> bool:
        """Return whether carrying it out twice would do harm."""
        return bool(self.spec.retry == Retry.GUARDED)

    @property
    def shown_url(self) -> str:
        """Return the URL without its query, for messages."""
        return self.url.partition("?")[0]


class Pipeline:
    """Sends requests for one set of settings."""

    def __init__(self, settings: Settings, shared: Shared) -> None:
        """Join the settings of one client to what its copies share."""
        self.settings = settings
        self.shared = shared

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
    ) -> T:
        """Return the answer, after as many attempts as are safe and allowed.

        Args:
            spec: The request.
            options: `timeout`, `request_timeout`, `extra_headers`, `idempotency_key`.
            settle: Asked when a guarded request is in doubt; what it finds is returned,
                and where it finds nothing the request may be sent again.

        Raises:
            APITimeoutError: `timeout` or an attempt's time-out passed.
            APIError: Refused, unreadable or unreachable, and retrying is spent or unsafe.

        Cancellation: closes the connection; a guarded request may have been carried out.
        """
        timeout = check_timeout("timeout", options.get("timeout"))
        call = await self._prepare(spec, options, timeout)
        with anyio.move_on_after(timeout):
            return await self._deliver(call, settle)
        error = APITimeoutError(
            f"{spec.operation} got no answer within {timeout:.3g} s",
            method=spec.method,
            url=call.shown_url,
            sent=call.pending or call.doubted,
        )
        call.doubted = call.doubted or call.pending
        raise self._explain(error, call)

    async def poll(
        self, spec: RequestSpec[T], options: CallOptions, *, hold: int, timeout: float
    ) -> Polled:
        """Return the answer to one attempt, with the headers a wait goes by.

        Args:
            spec: A GET.
            options: `extra_headers`.
            hold: Seconds the server is asked to hold the request; 0 does not ask.
            timeout: Seconds for the attempt.

        Raises:
            APIError: The attempt failed; nothing is repeated here.

        Cancellation: closes the connection.
        """
        call = await self._prepare(spec, {**options, "request_timeout": timeout}, None)
        held = hold > 0 and self.shared.held < self.shared.max_held
        if held:
            lay_over(call.headers, {"Prefer": f"wait={hold}"})
        self.shared.held += held
        try:
            reply = await self._exchange(call, await self.settings.credentials_within(timeout))
            self._learn(reply)
            if reply.status >= 300:
                raise self._status_error(call, reply)
        except APIError as error:
            self._explain(error, call)
            raise
        finally:
            self.shared.held -= held
        held = held and "preference-applied" in reply.headers
        return Polled(self._read(call, reply), reply.headers, held)

    def holds(self) -> bool:
        """Return whether this server has said that it holds a poll back until news come."""
        return "prefer-wait" in self.shared.features.get(self.settings.base_url or "", ())

    def honours_keys(self) -> bool:
        """Return whether this server has said that it remembers idempotency keys."""
        return "idempotency" in self.shared.features.get(self.settings.base_url or "", ())

    async def _deliver(self, call: _Call, settle: Settle[T] | None) -> T:
        while True:
            credentials = await self.settings.credentials()
            try:
                reply = await self._exchange(call, credentials)
            except APIConnectionError as error:
                call.pending = False
                failure: APIError = error
            except APIResponseValidationError as error:  # too large: it would be so again
                call.doubted = True
                self._explain(error, call)
                raise
            else:
                call.pending = False
                self._learn(reply)
                if reply.status < 300:
                    self.shared.budget.succeeded()
                    return self._read(call, reply)  # type: ignore[no-any-return]
                failure = self._status_error(call, reply)
            if _is_gone(call, failure):
                return call.spec.decode(call.spec.gone)  # type: ignore[no-any-return]
            guarded = call.guarded and not self.honours_keys()
            unsure = _is_unsure(failure)
            if settle is not None and guarded and (unsure or _is_refusal(call, failure)):
                found = await self._settle(settle, failure, call)
                if found is not None:
                    return found
            call.doubted = call.doubted or unsure
            self._explain(failure, call)
            safe = not guarded or _is_harmless(failure) or (unsure and settle is not None)
            await self.settings.seams.sleep(self._pause(call, failure, safe=safe))

    def _pause(self, call: _Call, failure: APIError, *, safe: bool) -> float:
        """Return the seconds to the next attempt, or raise `failure` if there is none."""
        settings = self.settings
        spent = call.attempts > settings.retry.max_retries
        if not safe or spent or not _may_heal(failure) or retry.is_too_long(failure.retry_after):
            raise failure
        chance = settings.seams.chance()
        pause = retry.backoff(settings.retry, call.attempts, failure.retry_after, chance)
        if call.deadline is not None and settings.seams.monotonic() + pause >= call.deadline:
            error = APITimeoutError(
                f"{call.spec.operation} would have to wait {pause:.3g} s more, past its deadline; "
                f"last failure: {failure.message[:200]}",
                method=call.spec.method,
                url=call.shown_url,
                sent=call.doubted,
            )
            raise self._explain(error, call) from failure
        if not self.shared.budget.take():
            raise failure
        name, kind = call.spec.operation, type(failure).__name__
        _LOG.debug("%s attempt %d failed (%s); again in %.3f s", name, call.attempts, kind, pause)
        return pause

    async def _settle(self, settle: Settle[T], failure: APIError, call: _Call) -> T | None:
        """Return what `settle` finds; where it cannot look, nothing may be sent again."""
        call.doubted = True
        try:
            return await settle(failure)
        except APIError as error:
            failure.add_note(f"looking whether it was carried out failed as well: {error}")
            raise self._explain(failure, call) from error

    async def _prepare(
        self, spec: RequestSpec[Any], options: CallOptions, timeout: float | None
    ) -> _Call:
        check_options(spec.operation, options)
        settings = self.settings
        attempt_timeout = check_timeout("request_timeout", options.get("request_timeout"))
        headers = settings.headers()
        if spec.body is not None:
            lay_over(headers, {"Content-Type": "application/json"})
        key = options.get("idempotency_key")
        if spec.retry == Retry.GUARDED:
            key = settings.seams.new_key() if key is None else key
            if not check_header("Idempotency-Key", key):
                msg = "idempotency_key must not be empty"
                raise ValueError(msg)
            lay_over(headers, {"Idempotency-Key": key})
        extra = options.get("extra_headers")
        if extra:
            lay_over(headers, {name: check_header(name, value) for name, value in extra.items()})
        base = settings.base_url
        if base is None:
            base = await self.start()
        query = f"?{spec.query}" if spec.query else ""
        return _Call(
            spec=spec,
            url=f"{base}{spec.path}{query}",
            headers=headers,
            key=key,
            timeout=attempt_timeout or settings.request_timeout,
            deadline=None if timeout is None else settings.seams.monotonic() + timeout,
        )

    async def start(self) -> str:
        """Start the embedded server and return its URL."""
        if self.shared.start is None:  # a client always has an address or a server to start
            msg = "no base_url and nothing to start"
            raise AssertionError(msg)
        base = await self.shared.start()
        self.shared.features.setdefault(base, _OWN_FEATURES)
        self.settings = msgspec.structs.replace(self.settings, base_url=base)
        return base

    def _exchange(self, call: _Call, credentials: dict[str, str]) -> Awaitable[Reply]:
        """Return the next attempt, to be awaited; a coroutine of its own would be a frame more."""
        call.attempts += 1
        call.pending = True
        lay_over(credentials, call.headers)
        return self.shared.transport.exchange(
            call.spec.method,
            call.url,
            headers=credentials,
            body=call.spec.body,
            timeout=call.timeout,
        )

    def _learn(self, reply: Reply) -> None:
        said = reply.headers.get(_FEATURES)
        if said is None and reply.status >= 300:
            return  # a proxy's error says nothing about the server behind it
        base = self.settings.base_url or ""
        features = frozenset(part.strip() for part in said.split(",")) if said else frozenset()
        if self.shared.features.get(base) != features:
            self.shared.features[base] = features

    def _status_error(self, call: _Call, reply: Reply) -> APIStatusError:
        host = call.url.split("/", 3)[2].rpartition("@")[2].partition(":")[0].lower()
        error = faults.status_error(reply.status, reply.headers, reply.content, host=host)
        error.retry_after = retry.retry_after(reply.headers, self.settings.seams.wall())
        return error

    def _read(self, call: _Call, reply: Reply) -> Any:
        try:
            answer = call.spec.decode(reply.content)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            failure = APIResponseValidationError(
                str(error) or type(error).__name__,
                method=call.spec.method,
                url=call.shown_url,
                status_code=reply.status,
                excerpt=faults.excerpt(reply.content),
                request_id=reply.headers.get("x-request-id"),
            )
            call.doubted = True
            raise self._explain(failure, call) from error
        if isinstance(answer, Answer):
            answer.__dict__["_http"] = HTTPInfo(
                reply.status, reply.headers, reply.content, call.attempts
            )
        return answer

    def _explain(self, error: APIError, call: _Call) -> APIError:
        """Add to `error` what the caller needs to go on from here."""
        error.locate(thread_id=call.spec.thread_id, run_id=call.spec.run_id)
        error.attempts = call.attempts
        error.maybe_created = call.guarded and call.doubted
        error.idempotency_key = call.key
        return error


def _is_unsure(failure: APIError) -> bool:
    """Return whether the request may have been carried out although it failed."""
    if isinstance(failure, APIStatusError):
        return retry.in_doubt(failure.status_code)
    return isinstance(failure, APIConnectionError) and failure.sent


def _is_harmless(failure: APIError) -> bool:
    """Return whether the request provably was not carried out, and may be sent again."""
    if isinstance(failure, APIConnectionError):
        return not failure.sent
    return isinstance(failure, RateLimitError)


def _is_refusal(call: _Call, failure: APIError) -> bool:
    """Return whether the server said no perhaps because an earlier attempt had worked."""
    return call.doubted and failure.status_code in {400, 409}


def _may_heal(failure: APIError) -> bool:
    if isinstance(failure, APIStatusError):
        return retry.is_retryable(failure.status_code, failure.headers, failure.code)
    return isinstance(failure, APIConnectionError) and failure.retryable


def _is_gone(call: _Call, failure: APIError) -> bool:
    """Return whether a DELETE sent again was told that the first one had worked."""
    return call.doubted and call.spec.gone != b"" and failure.status_code == 404
