"""`AsyncClient`: puts the parts together and owns the connections."""

from __future__ import annotations

import os
import re
import ssl as ssl_module
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, Self, TypeVar, Unpack, overload
from urllib.parse import unquote

import aiohttp  # noqa: TC002 - tools evaluate the annotations of the signature
import msgspec
from msgspec import UNSET, UnsetType

from openai_runs._client.arguments import CallOptions
from openai_runs._client.core.pipeline import Pipeline, with_extra_body
from openai_runs._client.core.rate_limiter import LimitState, RateLimiter
from openai_runs._client.core.state import ClientState, Outage
from openai_runs._client.embedded import Embedded, check_path, find_server, make_server
from openai_runs._client.encoding import plain
from openai_runs._client.polling.scheduler import Scheduler
from openai_runs._client.polling.waiter import Waiter
from openai_runs._client.resources.assistants import Assistants
from openai_runs._client.resources.messages import Messages
from openai_runs._client.resources.runs import Runs
from openai_runs._client.resources.threads import Threads
from openai_runs._client.settings import (
    Credential,
    Runtime,
    Settings,
    check_base_url,
    no_base_url,
)
from openai_runs._client.usage import named, suggesting, with_keywords_of
from openai_runs._protocol.lenient import decoder_for
from openai_runs._protocol.spec import QueryValue, RequestSpec, Retry, encode_body, encode_query
from openai_runs._tracing import ClientTracing
from openai_runs._transport import Transport
from openai_runs.config import (
    ASSISTANTS_VERSION,
    CONNECT_TIMEOUT,
    MAX_CONNECTIONS,
    MAX_RETRIES,
    MAX_STREAM_BYTES,
    REQUEST_TIMEOUT,
    PollPolicy,
    RateLimits,
    RetryPolicy,
    check_timeout,
    from_env,
)

__all__ = ["AsyncClient"]

T = TypeVar("T")
_IDEMPOTENT: Final = frozenset({"GET", "DELETE"})
_PATH: Final = r"(?a:(?:/(?:[\w\-.~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})*)+\Z)"
"""RFC 3986 section 3.3, absolute."""


class Beta:
    """`client.beta`: the client's own resources once more."""

    def __init__(self, assistants: Assistants, threads: Threads) -> None:
        self.assistants = assistants
        """The same as `client.assistants`."""
        self.threads = threads
        """The same as `client.threads`, with `.runs` and `.messages` below it."""

    def __repr__(self) -> str:
        return "<client.beta: assistants, threads, under the official SDK's names>"


@named("client")
class AsyncClient:
    """Talks to one server of the Assistants protocol, from one event loop.

    Use it with `async with`, or call `aclose` when done, in any task.
    """

    @suggesting
    def __init__(
        self,
        base_url: str | None = None,
        api_key: Credential | None | UnsetType = UNSET,
        *,
        organization: str | None = None,
        project: str | None = None,
        request_timeout: float = REQUEST_TIMEOUT,
        max_stream_bytes: int = MAX_STREAM_BYTES,
        connect_timeout: float = CONNECT_TIMEOUT,
        max_retries: int = MAX_RETRIES,
        retry: RetryPolicy | None = None,
        poll: PollPolicy | None = None,
        limits: RateLimits | None = None,
        default_headers: Mapping[str, str] | None = None,
        default_query: Mapping[str, Any] | None = None,
        max_connections: int = MAX_CONNECTIONS,
        session: aiohttp.ClientSession | None = None,
        proxy: str | None = None,
        ssl: ssl_module.SSLContext | bool = True,
        trust_env: bool = False,
        assistants_version: Literal["v1", "v2"] | str = ASSISTANTS_VERSION,
        tracing: ClientTracing | None = None,
        seams: Runtime | None = None,
    ) -> None:
        """Check the settings; no connection is made before the first request.

        Args:
            base_url: The server's URL up to the resources, such as
                `http://127.0.0.1:8080/v1`; None: `OPENAI_BASE_URL`.
            api_key: A key, or a sync or async callable called before each request; None sends
                no key; not given: `OPENAI_API_KEY`, if that is set.
            organization: Sent as `OpenAI-Organization`; None: `OPENAI_ORG_ID`.
            project: Sent as `OpenAI-Project`; None: `OPENAI_PROJECT_ID`.
            request_timeout: Seconds for one attempt.
            max_stream_bytes: Bytes read of one whole stream, decompressed.
            connect_timeout: Seconds to open a connection.
            max_retries: Retries after the first attempt; `retry` wins where given.
            retry: How retries are paced, and whether a run is found whose create got no answer.
            poll: How waits are paced where the server gives no hint.
            limits: What may be used of the server, by this client and its copies together.
            default_headers: Sent with each request.
            default_query: Sent with each request.
            max_connections: Connections open at once.
            session: A session of the caller's, used as it is and never closed here.
            proxy: URL of an HTTP proxy.
            ssl: A context, True for the system's trust, False for no verification.
            trust_env: Take proxies and credentials from the environment and `.netrc`.
            assistants_version: `v2`, or `v1` for the protocol's first version.
            tracing: An `openai_runs.otel.Tracing`, for spans of OpenTelemetry; None: no spans.
            seams: Sleep, clocks and random numbers, for tests.

        Raises:
            ConfigError: There is no base URL, or one that cannot be used safely.
            ValueError: A setting is out of bounds.
        """
        env = from_env(os.environ)
        url = base_url if base_url is not None else env.base_url
        if url is None:
            raise no_base_url()
        check_timeout("connect_timeout", connect_timeout)
        settings = Settings(
            base_url=check_base_url(url),
            credential=env.api_key if api_key is UNSET else api_key,
            organization=organization if organization is not None else env.organization,
            project=project if project is not None else env.project,
            request_timeout=check_timeout("request_timeout", request_timeout) or REQUEST_TIMEOUT,
            max_stream_bytes=max_stream_bytes,
            retry=retry or RetryPolicy(max_retries=max_retries),
            poll=poll or PollPolicy(),
            default_headers=dict(default_headers or {}),
            default_query=dict(default_query or {}),
            assistants_version=assistants_version,
            runtime=seams or Runtime(),
            tracing=tracing,
        )
        transport = Transport(
            session=session,
            max_connections=max_connections,
            connect_timeout=connect_timeout,
            proxy=proxy,
            ssl=ssl,
            trust_env=trust_env,
        )
        state = ClientState(transport, limiter=RateLimiter(limits, settings.runtime))
        self._assemble(settings, state, _scheduler(state, settings.runtime))

    def _assemble(
        self,
        settings: Settings,
        state: ClientState,
        scheduler: Scheduler,
        embedded: Embedded | None = None,
    ) -> None:
        self._settings = settings
        self._state = state
        self._scheduler = scheduler
        self._embedded = embedded
        self._owner = True
        pipeline = self._pipeline = Pipeline(settings, state)
        waiter = Waiter(pipeline, scheduler)
        self.assistants = Assistants(pipeline)
        """Assistants: create, retrieve, update, list, delete."""
        self.messages = Messages(pipeline, waiter)
        """Messages: create, retrieve, update, list, delete."""
        self.runs = Runs(pipeline, waiter)
        """Runs and, below it, steps."""
        self.threads = Threads(pipeline, waiter, runs=self.runs, messages=self.messages)
        """Threads: create, retrieve, update, delete, create_and_run."""

    @classmethod
    @suggesting
    @with_keywords_of(__init__)
    def azure(
        cls,
        endpoint: str,
        credential: Credential,
        api_version: str = "v1",
        **options: Any,
    ) -> AsyncClient:
        """Return a client for Azure AI Foundry (classic).

        Args:
            endpoint: The project's endpoint, `https://.../api/projects/NAME`.
            credential: A key (sent as `api-key`), a callable that returns a bearer token, or
                a credential of `azure.identity.aio`; the latter two are called before each
                request, so a token may expire during a wait.
            api_version: Sent as `api-version`.
            **options: Keyword arguments of `AsyncClient`.

        Raises:
            ConfigError: The endpoint cannot be used.
        """
        query = {"api-version": api_version, **(options.pop("default_query", None) or {})}
        client = cls(endpoint, credential, default_query=query, **options)
        # The environment's organization and project are OpenAI's, and mean nothing to Azure.
        owner = {name: options.get(name) for name in ("organization", "project")}
        settings = msgspec.structs.replace(client._settings, key_header="api-key", **owner)
        client._assemble(settings, client._state, client._scheduler)
        return client

    @classmethod
    @suggesting
    def local(
        cls,
        path: str | Path | None = None,
        *,
        model_url: str | None = None,
        model_key: str | None = None,
        backend: Any = None,
        api_key: str | None = None,
        request_timeout: float = REQUEST_TIMEOUT,
        max_stream_bytes: int = MAX_STREAM_BYTES,
        retry: RetryPolicy | None = None,
        poll: PollPolicy | None = None,
        tracing: ClientTracing | None = None,
        seams: Runtime | None = None,
    ) -> AsyncClient:
        """Return a client of the embedded server, which the first request starts.

        The server listens on loopback and ends with the client. Where another process
        already serves the same file, the client connects to that one.

        Args:
            path: The SQLite file; None: a temporary one, deleted at the end.
            model_url: A chat-completions endpoint's base URL, the part before
                `/chat/completions`; None: the `echo` backend answers.
            model_key: The key of that endpoint.
            backend: A backend of `openai_runs.server`, in place of both.
            api_key: The key of a server that already serves the file, if it has one.
            request_timeout: Seconds for one attempt.
            max_stream_bytes: Bytes read of one whole stream, decompressed.
            retry: How retries are paced.
            poll: How waits are paced.
            tracing: An `openai_runs.otel.Tracing`, for spans of the client and of the embedded
                server; None: no spans.
            seams: Sleep, clocks and random numbers, for tests.

        Raises:
            ConfigError: `path` is the URL of a database; or the extra `server` is not installed
                (at the first request).
        """
        check_path(path)
        client = cls.__new__(cls)
        make = partial(make_server, path, model_url=model_url, model_key=model_key)
        embedded = Embedded(
            partial(make, backend=backend, tracing=tracing),
            partial(find_server, path),
        )
        settings = Settings(
            base_url=None,
            credential=api_key,
            request_timeout=check_timeout("request_timeout", request_timeout) or REQUEST_TIMEOUT,
            max_stream_bytes=max_stream_bytes,
            retry=retry or RetryPolicy(),
            poll=poll or PollPolicy(),
            runtime=seams or Runtime(),
            tracing=tracing,
        )
        limiter = RateLimiter(None, settings.runtime)
        state = ClientState(Transport(), embedded.start, limiter=limiter)
        client._assemble(settings, state, _scheduler(state, settings.runtime), embedded)
        return client

    @suggesting
    def with_options(
        self,
        *,
        base_url: str | None = None,
        api_key: Credential | None = None,
        request_timeout: float | None = None,
        max_stream_bytes: int | None = None,
        max_retries: int | None = None,
        retry: RetryPolicy | None = None,
        poll: PollPolicy | None = None,
        default_headers: Mapping[str, str] | None = None,
        default_query: Mapping[str, Any] | None = None,
        assistants_version: str | None = None,
    ) -> AsyncClient:
        """Return a copy with other settings that shares this client's connections.

        The copy need not be closed; it ends with this client. What is left out, or None, stays as
        it is.

        Args:
            base_url: Where to send; the key goes along, unless `api_key` gives another.
            api_key: A key, or a function that returns one.
            request_timeout: Seconds for one attempt.
            max_stream_bytes: Bytes read of one whole stream, decompressed.
            max_retries: Attempts beyond the first; a short form of `retry`.
            retry: How failed attempts are retried.
            poll: How waits are paced.
            default_headers: Merged into the present ones.
            default_query: Merged into the present one.
            assistants_version: `v1` or `v2`.

        Raises:
            ConfigError: `base_url` cannot be used.
            TypeError: A setting is of the wrong kind.
            ValueError: A setting is out of its range.
        """
        old = self._settings
        changes: dict[str, Any] = {
            "base_url": None if base_url is None else check_base_url(base_url),
            "credential": api_key,
            "request_timeout": check_timeout("request_timeout", request_timeout),
            "max_stream_bytes": max_stream_bytes,
            "poll": poll,
            "assistants_version": assistants_version,
            "default_headers": {**old.default_headers, **(default_headers or {})},
            "default_query": {**old.default_query, **(default_query or {})},
        }
        if retry is None and max_retries is not None:
            retry = msgspec.structs.replace(old.retry, max_retries=max_retries)
        changes["retry"] = retry
        given = {name: value for name, value in changes.items() if value is not None}
        copy = type(self).__new__(type(self))
        settings = msgspec.structs.replace(old, **given)
        copy._assemble(settings, self._state, self._scheduler, self._embedded)
        copy._owner = False
        return copy

    @cached_property
    def beta(self) -> Beta:
        """The same resources under the names of the official SDK: `client.beta.threads.runs`."""
        return Beta(self.assistants, self.threads)

    @property
    def base_url(self) -> str | None:
        """The server's URL; None until the embedded server has been started."""
        return self._pipeline.settings.base_url

    @property
    def limits(self) -> LimitState:
        """What the rate limiter of this client and its copies has done, and the limits it knows."""
        return self._state.limiter.state()

    @property
    def outage(self) -> Outage | None:
        """Since when the server gives this client and its copies no usable answer; None: it does.

        For a display of a long wait, which retries for as long as its policy says. A 429 is an
        answer: `limits.refused_for` and `limits.paused` say what they hold back.
        """
        failure = self._state.failure
        if failure is None:
            return None
        return Outage(self._pipeline.settings.runtime.monotonic() - failure[0], failure[1])

    @overload
    async def request(
        self,
        method: str,
        path: str,
        *,
        json: Mapping[str, Any] | None = None,
        query: Mapping[str, QueryValue] | None = None,
        **options: Unpack[CallOptions],
    ) -> dict[str, Any]: ...

    @overload
    async def request(
        self,
        method: str,
        path: str,
        *,
        into: type[T],
        json: Mapping[str, Any] | None = None,
        query: Mapping[str, QueryValue] | None = None,
        **options: Unpack[CallOptions],
    ) -> T: ...

    async def request(
        self,
        method: str,
        path: str,
        *,
        into: Any = dict[str, Any],
        json: Mapping[str, Any] | None = None,
        query: Mapping[str, QueryValue] | None = None,
        **options: Unpack[CallOptions],
    ) -> Any:
        """Return the answer of an endpoint that has no method here, such as Foundry's threads.

        Args:
            method: HTTP method; GET and DELETE are idempotent, others are not.
            path: Below the base URL, beginning with `/`; ids in it must be quoted already.
            into: What the answer is decoded into; a dict if not given.
            json: The body.
            query: The query; a list is sent as `name[]=...`.

        Raises:
            ValueError: The path could lead elsewhere.
            APIError: The call failed.

        Cancellation: closes the request; one that is not idempotent may have been carried out.
        """
        spec = _raw_request(
            method,
            path,
            query={**self._settings.default_query, **(query or {})},
            body=json,
            options=options,
            into=into,
        )
        return await self._pipeline.send(spec, options)

    async def aclose(self) -> None:
        """Close the connections, and end the embedded server; a second call does nothing.

        Cancellation: what could not be closed in time is abandoned, and the embedded server ends.
        """
        if not self._owner:
            return
        try:
            await self._state.aclose()
        finally:
            if self._embedded is not None:
                await self._embedded.stop()

    close = aclose

    async def __aenter__(self) -> Self:
        """Start the embedded server, if there is one."""
        if self._pipeline.settings.base_url is None:
            await self._pipeline.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the client."""
        await self.aclose()

    def __repr__(self) -> str:
        """Show no credential."""
        state = "; closed" if self._state.is_closed else ""
        if self.base_url is None:
            return f"<AsyncClient of a local server{state or '; not started: use `async with`'}>"
        return f"<AsyncClient of {self.base_url}{state}>"

    if not TYPE_CHECKING:

        def __enter__(self) -> NoReturn:
            msg = "AsyncClient needs `async with`, not `with`"
            raise TypeError(msg)

        def __exit__(self, *_: object) -> None:
            """Be there, since Python asks for it before it enters."""


def _scheduler(state: ClientState, runtime: Runtime) -> Scheduler:
    """Return the scheduler of a client and its copies."""
    connections = state.transport.max_connections
    return Scheduler(state.background, state.limiter, runtime, connections)


def _raw_request(
    method: str,
    path: str,
    *,
    query: Mapping[str, QueryValue],
    body: Mapping[str, Any] | None,
    options: CallOptions,
    into: Any,
) -> RequestSpec[Any]:
    """Return the request; as in the table, what creates or changes something is not idempotent.

    Raises:
        ValueError: The path could lead elsewhere, or the method is no word.
    """
    if not re.match(_PATH, path) or {".", ".."} & set(unquote(path).split("/")):
        message = f"path must begin with '/', be quoted, and hold no query or dots, got {path!r}"
        raise ValueError(message)
    if not (method.isascii() and method.isalpha()):
        message = f"method must be a word such as 'GET', got {method!r}"
        raise ValueError(message)
    if options.get("extra_body"):
        body = with_extra_body(body, options)
    return RequestSpec(
        operation=f"{method.upper()} {path}",
        method=method.upper(),
        path=path,
        query=encode_query({**query, **(options.get("extra_query") or {})}),
        body=None if body is None else encode_body(plain(body)),
        decode=decoder_for(into).decode,
        retry=Retry.IDEMPOTENT if method.upper() in _IDEMPOTENT else Retry.NOT_IDEMPOTENT,
    )
