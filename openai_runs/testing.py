"""A pytest plugin: the real server on a free port, with a model that follows a script.

Enable it in the root `conftest.py` with `pytest_plugins = ["openai_runs.testing"]`; it needs
`pytest`, `pytest-asyncio` and the `server` extra. `runs_server` is a `RunsServer`, `runs_client`
an `AsyncClient` for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import PurePosixPath
from types import SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypedDict, Unpack

import anyio
import msgspec
import pytest
from aiohttp import web
from anyio.from_thread import start_blocking_portal

from openai_runs._client.client import AsyncClient
from openai_runs.errors import ConfigError

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

    # the server extra may be missing until a server is made
    from openai_runs.server import Call, ModelRequest, ScriptedTurn

__all__ = [
    "ReceivedRequest",
    "RunsServer",
    "Which",
    "repair_aioresponses",
    "runs_client",
    "runs_server",
]

_PREFIX: Final = "/v1"
_CREDENTIALS: Final = frozenset({"authorization", "proxy-authorization", "api-key", "cookie"})
_LIMITS: Final = {"max_completion_tokens": "length", "max_prompt_tokens": "prompt_length"}


class Which(TypedDict, total=False):
    """Which requests a fault strikes, and when; left out: the next one, whatever it is."""

    times: float
    """How many of them; `math.inf` for all."""
    method: str | None
    """Only requests with this method."""
    path: str | None
    """Only requests whose path, below `/v1`, matches as in `PurePath.match`:
    `/threads/*/runs` is a whole path, `runs/*` the end of one."""
    after: bool
    """Strike after the server has done its work, so that a run is stored although its
    creator sees an error. What the server itself refuses stays refused."""


class ReceivedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request as the server received it."""

    method: str
    path: str
    """Below `/v1`, such as `/threads/thread_1/runs`."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Names in lower case; without credentials."""
    json: Any
    """The decoded body; None if it was empty or no JSON."""

    def matches(self, method: str | None, path: str | None) -> bool:
        """Return whether this is such a request; see `Which` for `path`."""
        if method is not None and method.upper() != self.method:
            return False
        return path is None or PurePosixPath(self.path).match(path)


class _Fault(msgspec.Struct, kw_only=True):
    """Something that goes wrong with the next requests of a kind."""

    act: Callable[[web.Request], Awaitable[web.Response | None]]
    """What happens; None: nothing more, the request goes its way."""
    times: float = 1
    method: str | None = None
    path: str | None = None
    after: bool = False


class RunsServer:
    """The real server in a thread of its own, with a scripted model and faults on demand.

    Each model call takes the next turn that `reply`, `call_tool`, `call_tools`, `fail`,
    `incomplete` or `hang` put in line, over all runs; with none left, the model says
    `default_reply`. Each fault strikes the next requests of its kind, the oldest first.

    Its event loop is its own, so tests may be synchronous, block, or use any loop scope.

    Example:
        ```python
        async def test_status_survives_a_bad_moment(runs_server, runs_client):
            runs_server.reply("Sunny.")
            runs_server.fault(503, method="GET", path="/threads/*/runs/*")
            assistant = await runs_client.assistants.create(model="any")
            thread = await runs_client.threads.create()

            run = await runs_client.runs.create_and_poll(thread.id, assistant_id=assistant.id)

            assert (await runs_client.runs.result(run)).text == "Sunny."
        ```

    Args:
        options: What `LocalServer` takes besides file, backend and middlewares, such as
            `run_lifetime=1`.

    Raises:
        ConfigError: The server extra is not installed.
    """

    def __init__(self, **options: Any) -> None:
        try:
            from openai_runs import server
        except ImportError as error:
            msg = f"runs_server needs the server extra ({error}): pip install 'openai-runs[server]'"
            raise ConfigError(msg) from error
        self._turns: deque[ScriptedTurn] = deque()
        self._faults: list[_Fault] = []
        self._resources = ExitStack()
        self._closing: anyio.Event | None = None
        self._backend = server.ScriptedBackend(self._next_turn)
        self._server = server.LocalServer(
            backend=self._backend, middlewares=[self._meddle], **options
        )
        self.default_reply = "This is the scripted reply."
        """What the model says when no turn is left."""
        self.requests: list[ReceivedRequest] = []
        """What the server received, oldest first; a request with a wrong key is not among it."""

    @property
    def url(self) -> str:
        """Return the base URL for clients."""
        return self._server.url

    @property
    def model_requests(self) -> list[ModelRequest]:
        """Return the calls the server made to its model, oldest first."""
        return self._backend.requests

    def seen(self, method: str | None = None, path: str | None = None) -> list[ReceivedRequest]:
        """Return the received requests of that kind; see `Which` for `path`."""
        return [request for request in self.requests if request.matches(method, path)]

    def reply(self, text: str, *, delay: float = 0) -> None:
        """Have the model say `text`, after `delay` seconds."""
        from openai_runs.server import Say

        self._turns.append(Say(text, delay=delay))

    def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any] | str = {},
        *,
        id: str = "",
        text: str = "",
        delay: float = 0,
    ) -> None:
        """Have the model ask for one tool call.

        Args:
            name: The function's name; the run need not know it.
            arguments: A mapping, or the JSON text itself, which may be broken.
            id: The call's id; empty: the server makes one.
            text: What the model says along with it.
            delay: Seconds before it asks.
        """
        from openai_runs.server import Call

        self.call_tools(Call(name, arguments, id), text=text, delay=delay)

    def call_tools(self, *calls: Call, text: str = "", delay: float = 0) -> None:
        """Have the model ask for several `openai_runs.server.Call` at once."""
        from openai_runs.server import CallTools

        self._turns.append(CallTools(list(calls), text=text, delay=delay))

    def fail(
        self,
        code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"] = "server_error",
        message: str = "The scripted model failed.",
        *,
        delay: float = 0,
    ) -> None:
        """Have the model call fail, so that the run ends `failed` with this `last_error`."""
        from openai_runs.server import Fail

        self._turns.append(Fail(message, code=code, delay=delay))

    def incomplete(
        self,
        reason: Literal["max_completion_tokens", "max_prompt_tokens"] = "max_completion_tokens",
        *,
        text: str = "",
        delay: float = 0,
    ) -> None:
        """Have the model stop at a token limit, after `text`; the run ends `incomplete`."""
        from openai_runs.server import Cut

        self._turns.append(Cut(text, reason=_LIMITS[reason], delay=delay))

    def hang(self, *, text: str = "") -> None:
        """Have the model say `text` and never end; the run can be cancelled, or expires."""
        from openai_runs.server import Hang

        self._turns.append(Hang(text))

    def fault(
        self,
        status: int,
        *,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        **which: Unpack[Which],
    ) -> None:
        """Answer the next requests with this HTTP status.

        Args:
            status: Such as 429 or 503.
            headers: Such as `{"retry-after": "1"}`.
            json: The body; None: an error in OpenAI's shape.
            **which: See `Which`.
        """
        body = {"error": {"message": "A scripted fault.", "type": "server_error"}}

        async def answer(request: web.Request) -> web.Response:
            text = msgspec.json.encode(body if json is None else json)
            return web.Response(
                status=status, body=text, headers=headers, content_type="application/json"
            )

        self._faults.append(_Fault(act=answer, **which))

    def drop(self, **which: Unpack[Which]) -> None:
        """Close the connection in place of the next answers; see `Which`."""
        self._faults.append(_Fault(act=_disconnect, **which))

    def hang_connection(self, **which: Unpack[Which]) -> None:
        """Never answer the next requests; see `Which`."""

        async def hang(request: web.Request) -> web.Response:
            if self._closing is not None:
                await self._closing.wait()
            return await _disconnect(request)

        self._faults.append(_Fault(act=hang, **which))

    def delay(self, seconds: float, **which: Unpack[Which]) -> None:
        """Hold the next requests, or with `after` their answers; see `Which`."""

        async def wait(request: web.Request) -> None:
            await anyio.sleep(seconds)

        self._faults.append(_Fault(act=wait, **which))

    def __enter__(self) -> Self:
        """Start the server."""
        with ExitStack() as opened:
            portal = opened.enter_context(start_blocking_portal("asyncio"))
            opened.enter_context(portal.wrap_async_context_manager(self._server))
            self._closing = portal.call(anyio.Event)
            opened.callback(portal.call, self._closing.set)
            self._resources = opened.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the server, hanging connections and runs included."""
        self._resources.close()

    def _next_turn(self, request: ModelRequest) -> ScriptedTurn:
        return self._turns.popleft() if self._turns else self.default_reply

    @web.middleware
    async def _meddle(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        received = _received(request, await request.read())
        self.requests.append(received)
        fault = self._take(received)
        if fault is None:
            return await handler(request)
        done = await handler(request) if fault.after else None
        answer = await fault.act(request)
        if answer is not None:
            return answer
        return done if done is not None else await handler(request)

    def _take(self, received: ReceivedRequest) -> _Fault | None:
        for fault in self._faults:
            if received.matches(fault.method, fault.path):
                fault.times -= 1
                if fault.times <= 0:
                    self._faults.remove(fault)
                return fault
        return None


def _received(request: web.Request, body: bytes) -> ReceivedRequest:
    try:
        json = msgspec.json.decode(body)
    except msgspec.DecodeError:
        json = None
    headers = {name.lower(): value for name, value in request.headers.items()}
    return ReceivedRequest(
        method=request.method,
        path=request.path.removeprefix(_PREFIX),
        query=dict(request.query),
        headers={name: value for name, value in headers.items() if name not in _CREDENTIALS},
        json=json,
    )


async def _disconnect(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.close()
    return web.Response()  # goes nowhere


@pytest.fixture
def runs_server() -> Iterator[RunsServer]:
    """The real server, with a database of its own and a model that follows a script."""
    try:
        server = RunsServer()
    except ConfigError as problem:
        pytest.fail(str(problem), pytrace=False)
    with server:
        yield server


def _async_fixture(function: Callable[..., AsyncIterator[AsyncClient]]) -> Any:
    try:
        from pytest_asyncio import fixture
    except ImportError:
        return pytest.fixture(_without_asyncio, name=function.__name__)
    return fixture(function)


def _without_asyncio() -> None:
    pytest.fail("runs_client needs pytest-asyncio: pip install pytest-asyncio", pytrace=False)


@_async_fixture
async def runs_client(runs_server: RunsServer) -> AsyncIterator[AsyncClient]:
    """A client of `runs_server`, closed at the end."""
    async with AsyncClient(runs_server.url, api_key="test") as client:
        yield client


def repair_aioresponses() -> bool:
    """Mend aioresponses 0.7.9 for aiohttp 3.14 in this process; True if it needed that.

    aiohttp 3.14 made `stream_writer` a required argument of `ClientResponse`, and its reader now
    pauses a transport that a mocked answer does not have, so bodies over 128 KiB fail as well
    (aioresponses issue 289). Both are probed by building an answer, so each half of the repair
    vanishes on the day upstream is mended. Safe to call more than once.
    """
    from aiohttp import ClientResponse, StreamReader
    from aiohttp.client_proto import ResponseHandler
    from aioresponses import core
    from yarl import URL

    def builds(size: int) -> bool:
        try:
            core.RequestMatch("http://probe")._build_response(URL("http://probe"), body=b"x" * size)
        except (TypeError, AssertionError):
            return False
        return True

    class MockedResponse(ClientResponse):
        """A `ClientResponse` that may be made without the request's stream writer."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.setdefault("stream_writer", SimpleNamespace(output_size=0))
            super().__init__(*args, **kwargs)

    def unpaused_reader(loop: Any = None) -> StreamReader:
        # 1 GiB: no mocked body reaches it, so the missing transport is never paused.
        return StreamReader(ResponseHandler(loop=loop), limit=2**30, loop=loop)

    mended = builds(1)
    if not mended:
        core.ClientResponse = MockedResponse  # type: ignore[attr-defined]  # not exported, but used
    mended_large = builds(1 << 18)
    if not mended_large:
        core.stream_reader_factory = unpaused_reader  # type: ignore[attr-defined]  # as above
    return not (mended and mended_large)
