"""One exchange over HTTP: bytes out, bytes back, aiohttp's exceptions translated.

The client's only module that knows aiohttp; the server's `chat` backend uses it too. A whole answer
is read here; a stream is returned as a `StreamReply`, to be read as it comes. No retries, no
credentials, no JSON: those live in the layers above. Redirects are never followed, bodies are
bounded, and every deadline is anyio's, since aiohttp's `total` can swallow a cancellation (aiohttp
issue 5979).
"""

from __future__ import annotations

import asyncio
import math
import os
import select
import ssl as ssl_module
from collections.abc import Mapping
from functools import partial
from io import BytesIO
from time import monotonic
from typing import Any, Final, Literal, NamedTuple, overload
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import aiohttp
import aiohttp.connector
import anyio
from yarl import URL

from openai_runs._aio import is_cancelled
from openai_runs._protocol.advice.connecting import Cause, advice
from openai_runs._protocol.masking import secrets_of
from openai_runs._tracing import Span
from openai_runs._transport_errors import (
    NEVER_SENT,
    Lost,
    cause_of,
    reason_of,
    unusable,
    unused_proxy,
)
from openai_runs.config import (
    CLOSING_MEMORY,
    CONNECT_TIMEOUT,
    MAX_ANSWER_BYTES,
    MAX_CONNECTIONS,
    REUSE_IDLE,
)
from openai_runs.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APITimeoutError,
    ConfigError,
)

__all__ = ["Reply", "StreamReply", "Transport"]

_LARGE_BODY: Final = 1 << 20
"""Bytes above which aiohttp wants a file to read from, so as not to hold up the event loop."""
_REPEATABLE: Final = frozenset({"GET", "HEAD", "DELETE"})
"""Methods of requests that are sent again where their connection was lost."""
_BEGINNINGS: Final = (b"event:", b"data:", b"id:", b"retry:", b":")
"""Of streams of events."""
_LONGEST_BEGINNING: Final = 16
"""Bytes in which one stands, blank lines before it included."""
_POLL: Final = getattr(select, "poll", None)
"""Not there on Windows."""


class Reply(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    """By case-insensitive name."""
    content: bytes
    """Decompressed."""


class StreamReply:
    """An answer that is read as it comes; to be closed by its owner."""

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        method: str,
        shown: str,
        secrets: tuple[str, ...],
        *,
        begun: bytes = b"",
    ) -> None:
        """Wrap a response whose head has come; none of its errors repeats a secret.

        `begun` are bytes of the answer that were read before.
        """
        self._begun = begun
        self.secrets = secrets
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self.content = b""
        self._response = response
        self._method = method
        self._shown = shown
        self.span: Span | None = None
        """Ends when the answer is closed, if there is one."""

    async def read(self) -> bytes:
        """Return the bytes that have come, at least one; none at the end of the answer.

        Raises:
            APIConnectionError: The connection was lost, or was closed by us.

        Cancellation: loses nothing; the next call returns what came.
        """
        if self._begun:
            begun, self._begun = self._begun, b""
            return begun
        try:
            return await self._response.content.readany()
        except asyncio.CancelledError:
            if not self._response.closed or is_cancelled():
                raise
            reason, cause = "the client was closed", None
        except (aiohttp.ClientError, OSError) as error:
            (reason, _), cause = reason_of(error, self.secrets), cause_of(error, self.secrets)
        failure = APIConnectionError(reason, method=self._method, url=self._shown)
        if self.span is not None:
            self.span.fail(failure)
        raise failure from cause

    def close(self) -> None:
        """Release the connection: to the pool if all was read, else it is closed."""
        self._response.close()
        if self.span is not None:
            self.span.end()


class Transport:
    """A pool of connections; made in any place, opened in the loop that first uses it."""

    def __init__(
        self,
        *,
        session: aiohttp.ClientSession | None = None,
        max_connections: int = MAX_CONNECTIONS,
        connect_timeout: float = CONNECT_TIMEOUT,
        proxy: str | None = None,
        ssl: ssl_module.SSLContext | bool = True,
        trust_env: bool = False,
        reuse_idle: float = REUSE_IDLE,
    ) -> None:
        """Keep the settings; a session of the caller's is used as it is and never closed."""
        if isinstance(max_connections, bool) or not isinstance(max_connections, int):
            message = f"max_connections must be an integer, got {max_connections!r}"
            raise TypeError(message)
        if max_connections < 1:
            message = f"max_connections must be at least 1, got {max_connections!r}"
            raise ValueError(message)
        self._session = session
        self._owned = session is None
        self._max_connections = max_connections
        self._connect_timeout = connect_timeout
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout)
        self._always: dict[str, Any] = {
            "allow_redirects": False,
            "raise_for_status": False,
            "timeout": self._timeout,
            "proxy": proxy,
            "ssl": ssl,
        }
        # A POST without a body has no type either; aiohttp sends a GET without one.
        self._bodiless = {**self._always, "skip_auto_headers": ("Content-Type",)}
        self._trust_env = trust_env
        self._reuse_idle = reuse_idle
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = os.getpid()
        self._closed = False

    @overload
    async def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout: float,
        max_bytes: int = MAX_ANSWER_BYTES,
        stream: Literal[False] = False,
    ) -> Reply: ...
    @overload
    async def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout: float,
        max_bytes: int = MAX_ANSWER_BYTES,
        stream: bool | Literal["any"],
    ) -> Reply | StreamReply: ...
    async def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout: float,
        max_bytes: int = MAX_ANSWER_BYTES,
        stream: bool | Literal["any"] = False,
    ) -> Reply | StreamReply:
        """Return the answer to one request, sent once.

        Args:
            method: HTTP method.
            url: Absolute and already encoded.
            headers: All headers but those aiohttp adds itself.
            body: The body, or None.
            timeout: Seconds for all of it, waiting for a free connection included; of a
                stream, until its head is there.
            max_bytes: The most that is read of the decompressed answer, if it is no stream.
            stream: Whether to return a `StreamReply`, to be closed, where the server answers
                with success and anything but JSON or a web page, whatever its type says; "any":
                whatever it answers.

        Raises:
            APITimeoutError: It took longer than `timeout`, or connecting took too long.
            APIConnectionError: No answer; `.sent` is False if the server never saw the request.
            APIResponseValidationError: The answer is larger than `max_bytes`.
            ConfigError: The transport is closed, or belongs to another event loop or process, or
                `url` is none.

        Cancellation: closes the connection.
        """
        session = self._open()
        failure: APIConnectionError | ConfigError
        try:
            with anyio.CancelScope(deadline=anyio.current_time() + timeout):
                to, data = URL(url, encoded=True), None if body is None else _payload(body)
                how = self._bodiless if body is None and method != "GET" else self._always
                response = await session.request(method, to, data=data, headers=headers, **how)
                may_stream = stream is not False and response.status < 300
                if stream == "any" or (may_stream and _is_stream(response.content_type)):
                    return _stream_reply(response, method, url, headers)
                try:  # by hand: aiohttp releases the connection once the answer is read
                    content = await response.content.readany()
                    if may_stream and _begins_stream(content):
                        return _stream_reply(response, method, url, headers, content)
                    if not response.content.at_eof() or len(content) > max_bytes:
                        content = await _read_on(response, content, max_bytes, _shown(url))
                    return Reply(response.status, response.headers, content)
                except BaseException:
                    response.close()
                    raise
            failure, cause = _too_late(method, _shown(url), timeout), None
        except asyncio.CancelledError:
            if is_cancelled():
                raise  # else a pool was closed, ours or that of the caller's session
            failure, cause = _closed_under(method, _shown(url)), None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            failure = self._translate(error, method, url, timeout, secrets_of(headers, url))
            cause = cause_of(error, secrets_of(headers, url))
        raise failure from cause

    def _translate(
        self, error: Exception, method: str, url: str, timeout: float, secrets: tuple[str, ...]
    ) -> APIConnectionError | ConfigError:
        """Return one of our errors for one of aiohttp's or the system's."""
        shown = _shown(url)
        problem = unusable(error, shown, secrets)
        if problem is not None:
            return problem
        sent = not isinstance(error, (*NEVER_SENT, aiohttp.ClientHttpProxyError))
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            where = urlsplit(url).netloc.rpartition("@")[2]
            reason = f"no connection to {where} within {self._connect_timeout:g} s"
            cause = Cause.UNREACHABLE
            failure: APIConnectionError = APITimeoutError(
                reason, method=method, url=shown, sent=sent
            )
        elif isinstance(error, TimeoutError):
            return _too_late(method, shown, timeout)
        else:
            reason, cause = reason_of(error, secrets)
            failure = APIConnectionError(reason, method=method, url=shown, sent=sent)
            failure.retryable = not isinstance(error, aiohttp.ClientSSLError)
        failure.advice = advice(
            cause, url, uses_environment=self._trust_env, unused=unused_proxy(url)
        )
        return failure

    @property
    def is_owned(self) -> bool:
        """Return whether the session is ours, so that no hook of the caller's sees what it does."""
        return self._owned

    @property
    def max_connections(self) -> int:
        """Return how many connections may be open at once, to one server."""
        connector = None if self._session is None else self._session.connector
        if self._owned or connector is None:
            return self._max_connections
        theirs = (connector.limit, connector.limit_per_host)  # 0: no limit
        return min(self._max_connections, *(limit for limit in theirs if limit > 0))

    async def aclose(self) -> None:
        """Close the connections; a second call does nothing."""
        self._closed = True
        if self._owned and self._session is not None:
            session, self._session = self._session, None
            await session.close()

    def claim(self) -> None:
        """Bind to the running event loop and this process, by the first call.

        Raises:
            ConfigError: The transport is closed, or belongs to another loop or process.
        """
        if self._closed:
            message = "this client is closed; make a new one"
            raise ConfigError(message)
        loop = asyncio.get_running_loop()
        if self._loop is not loop or self._pid != os.getpid():
            self._adopt_loop(loop)

    def _open(self) -> aiohttp.ClientSession:
        self.claim()
        session = self._session
        if session is None:
            session = self._session = self._new_session()
        elif session.closed:
            message = "the aiohttp.ClientSession this client was given is closed"
            raise ConfigError(message)
        return session

    def _adopt_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._pid != os.getpid() and self._loop is not None:
            message = "this client was used before a fork; make a new one in the child"
            raise ConfigError(message)
        if self._loop is not None:
            message = "this client was first used in another event loop; make one for each loop"
            raise ConfigError(message)
        self._loop, self._pid = loop, os.getpid()

    def _new_session(self) -> aiohttp.ClientSession:
        connector = _Connector(self._max_connections, self._reuse_idle)
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=self._trust_env,
            timeout=self._timeout,
            middlewares=(connector.send_once,),
        )


class _Connector(aiohttp.TCPConnector):
    """A pool that sends a request that may not be repeated over no connection that may be closing.

    A server may close a connection just as a request is sent over it. A GET is sent again then; of
    a POST nobody knows whether it was carried out. So a POST uses no connection that was idle for
    long, and none that the server has closed. Of a server that has not yet answered over a
    connection that was used before, one POST at a time tries that; where it is lost, each POST has
    a new connection from then on.
    """

    def __init__(self, limit: int, reuse_idle: float) -> None:
        """Allow `limit` connections, and `reuse_idle` seconds without a request on one."""
        super().__init__(limit=limit, ttl_dns_cache=300)
        self._reuse_idle = reuse_idle
        self._idle_since: WeakKeyDictionary[object, float] = WeakKeyDictionary()
        """When each connection was given back."""
        self._reusing: dict[aiohttp.ClientRequest, object] = {}
        """POSTs over connections that were used before, and their servers, by connection key."""
        self._keeping: set[object] = set()
        """Servers that have answered over such a connection."""
        self._closed_at: dict[object, float] = {}
        """When other servers have last closed one in place of an answer."""

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> aiohttp.connector.Connection:
        """Return a connection from the pool that may be used for the request, or a new one."""
        connection = await super().connect(req, traces, timeout)
        if req.method not in _REPEATABLE:
            while not self._may_use(req, connection):
                connection.close()
                connection = await super().connect(req, traces, timeout)
        connection.add_callback(partial(self._note_idle, connection.protocol))
        return connection

    def _may_use(
        self, req: aiohttp.ClientRequest, connection: aiohttp.connector.Connection
    ) -> bool:
        since = self._idle_since.get(connection.protocol)
        if since is None:
            return True
        now, server = monotonic(), req.connection_key
        if now - since > self._reuse_idle or _has_ended(connection):
            return False
        if server not in self._keeping:
            is_closing = now - self._closed_at.get(server, -math.inf) < CLOSING_MEMORY
            if is_closing or server in self._reusing.values():
                return False
        self._reusing[req] = server
        return True

    def _note_idle(self, protocol: object) -> None:
        self._idle_since[protocol] = monotonic()

    async def send_once(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Keep aiohttp from sending GET and DELETE a second time by itself: we count attempts.

        Learns whether the server answers over connections that were used before.
        """
        try:
            response = await handler(request)
            if request in self._reusing and self._reusing[request] not in self._keeping:
                self._keeping.add(self._reusing[request])
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
            if request in self._reusing:
                self._keeping.discard(self._reusing[request])
                self._closed_at[self._reusing[request]] = monotonic()
            is_new = request not in self._reusing
            is_closed = is_new and isinstance(error, aiohttp.ServerDisconnectedError)
            raise Lost(reason_of(error)[0], Cause.CLOSED if is_closed else Cause.OTHER) from error
        finally:
            if request in self._reusing:
                del self._reusing[request]
        return response


def _has_ended(connection: aiohttp.connector.Connection) -> bool:
    """Return whether the server has closed a connection over which nothing is to come.

    The event loop learns it only when it is idle. Bytes that nobody asked for count as well.
    """
    transport = connection.transport
    idle = None if transport is None else transport.get_extra_info("socket")
    if idle is None or _POLL is None:
        return False
    poll = _POLL()
    poll.register(idle.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _closed_under(method: str, shown: str) -> APIConnectionError:
    """Return the error for a call that waited for a connection of a pool that was closed."""
    error = APIConnectionError("the client was closed", method=method, url=shown, sent=False)
    error.retryable = False
    return error


def _is_stream(content_type: str) -> bool:
    """Return whether an answer that may be a stream is one, by whatever name, and no page."""
    return "json" not in content_type and "html" not in content_type


def _stream_reply(
    response: aiohttp.ClientResponse,
    method: str,
    url: str,
    headers: Mapping[str, str],
    begun: bytes = b"",
) -> StreamReply:
    return StreamReply(response, method, _shown(url), secrets_of(headers, url), begun=begun)


def _begins_stream(content: bytes) -> bool:
    """Return whether an answer begins as events do, which neither JSON nor a page does.

    >>> _begins_stream(b"event: thread.run.created"), _begins_stream(b'{"data": []}')
    (True, False)
    """
    return content[:_LONGEST_BEGINNING].lstrip(b"\xef\xbb\xbf\r\n").startswith(_BEGINNINGS)


async def _read_on(
    response: aiohttp.ClientResponse, begun: bytes, max_bytes: int, shown: str
) -> bytes:
    """Return an answer of which `begun` has come; one that will be too large is not awaited."""
    declared = response.content_length
    size = declared if declared is not None and "Content-Encoding" not in response.headers else 0
    if size <= max_bytes:
        size, chunks = len(begun), [begun]
        while size <= max_bytes:
            chunk = await response.content.readany()
            if not chunk:
                return b"".join(chunks)
            chunks.append(chunk)
            size += len(chunk)
    message = f"it is larger than {max_bytes} bytes"
    raise APIResponseValidationError(
        message, method=response.method, url=shown, status_code=response.status
    )


def _payload(body: bytes) -> bytes | BytesIO:
    return body if len(body) <= _LARGE_BODY else BytesIO(body)


def _shown(url: str) -> str:
    """Return the URL as errors show it: without its query, which may hold a key."""
    return url.partition("?")[0]


def _too_late(method: str, shown: str, timeout: float) -> APIConnectionError:
    what = f"no answer within {timeout:.3g} s"
    return APITimeoutError(what, method=method, url=shown, sent=True)
