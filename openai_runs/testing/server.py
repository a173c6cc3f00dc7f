"""The real server in a thread of its own, with a model that follows a script."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypedDict, Unpack

import anyio
import msgspec
from aiohttp import web
from anyio import to_thread

from openai_runs._extras import needs
from openai_runs.errors import ConfigError
from openai_runs.testing.hosting import HostedServer
from openai_runs.testing.received import ReceivedRequest, decoded, without_credentials

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

    # the server extra may be missing until a server is made
    from openai_runs.server import Call, ModelRequest, ScriptedBackend, ScriptedTurn

__all__ = ["RunsServer", "Which"]

_PREFIX: Final = "/v1"
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
    creator sees an error. What the server itself refuses stays refused, and an event stream
    has passed by then: a `FaultProxy` strikes in its middle."""


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
    Open it with `with` or `async with`.

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
        db: The SQLite file; None: a temporary one, removed on close.
        port: 0: any free one, kept by `restart`.
        options: What else `LocalServer` takes besides backend and middlewares, such as
            `run_lifetime=1`.

    Raises:
        ConfigError: On opening: the server extra is not installed.
    """

    def __init__(self, db: str | Path | None = None, *, port: int = 0, **options: Any) -> None:
        self._turns: deque[ScriptedTurn] = deque()
        self._faults: list[_Fault] = []
        self._backend: ScriptedBackend | None = None
        self._options = options
        self._hosted = HostedServer(db, port, self._settings)
        self.default_reply = "This is the scripted reply."
        """What the model says when no turn is left."""
        self.requests: list[ReceivedRequest] = []
        """What the server received, oldest first; a request with a wrong key is not among it."""

    def __repr__(self) -> str:
        return f"<RunsServer at {self._hosted.url or 'no address: not started; use `with`'}>"

    @property
    def url(self) -> str:
        """Return the base URL for clients; it stays the same while the server is stopped.

        Raises:
            RuntimeError: The server is not open.
        """
        if not self._hosted.url:
            message = "the server is not open: use `with` or `async with`"
            raise RuntimeError(message)
        return self._hosted.url

    @property
    def model_requests(self) -> list[ModelRequest]:
        """Return the calls the server made to its model, oldest first."""
        return [] if self._backend is None else self._backend.requests

    def seen(self, method: str | None = None, path: str | None = None) -> list[ReceivedRequest]:
        """Return the received requests of that kind; see `Which` for `path`.

        Args:
            method: Such as `GET`; None: any.
            path: As in `Which`; None: any.
        """
        return [request for request in self.requests if request.matches(method, path)]

    def reply(self, text: str, *, delay: float = 0) -> None:
        """Have the model say `text`, after `delay` seconds.

        Args:
            text: All of it.
            delay: Seconds before the first word.
        """
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
        """Have the model ask for several `openai_runs.server.Call` at once.

        Args:
            *calls: In the order of the run's tool calls.
            text: What the model says along with them.
            delay: Seconds before it asks.
        """
        from openai_runs.server import CallTools

        self._turns.append(CallTools(list(calls), text=text, delay=delay))

    def fail(
        self,
        code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"] = "server_error",
        message: str = "The scripted model failed.",
        *,
        delay: float = 0,
    ) -> None:
        """Have the model call fail, so that the run ends `failed` with this `last_error`.

        Args:
            code: Of `last_error`.
            message: Of `last_error`.
            delay: Seconds before it fails.
        """
        from openai_runs.server import Fail

        self._turns.append(Fail(message, code=code, delay=delay))

    def incomplete(
        self,
        reason: Literal["max_completion_tokens", "max_prompt_tokens"] = "max_completion_tokens",
        *,
        text: str = "",
        delay: float = 0,
    ) -> None:
        """Have the model stop at a token limit, after `text`; the run ends `incomplete`.

        Args:
            reason: Of `incomplete_details`.
            text: What the model had said by then.
            delay: Seconds before it speaks.
        """
        from openai_runs.server import Cut

        self._turns.append(Cut(text, reason=_LIMITS[reason], delay=delay))

    def hang(self, *, text: str = "") -> None:
        """Have the model say `text` and never end; the run can be cancelled, or expires.

        Args:
            text: What it says before it falls silent.
        """
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
        """Close the connection in place of the next answers; see `Which`.

        Args:
            **which: See `Which`.
        """
        self._faults.append(_Fault(act=_disconnect, **which))

    def hang_connection(self, **which: Unpack[Which]) -> None:
        """Never answer the next requests; see `Which`.

        Args:
            **which: See `Which`.
        """

        async def hang(request: web.Request) -> web.Response:
            await self._hosted.stopping()
            return await _disconnect(request)

        self._faults.append(_Fault(act=hang, **which))

    def delay(self, seconds: float, **which: Unpack[Which]) -> None:
        """Hold the next requests, or with `after` their answers; see `Which`.

        Args:
            seconds: For each of them.
            **which: See `Which`.
        """

        async def wait(request: web.Request) -> None:
            await anyio.sleep(seconds)

        self._faults.append(_Fault(act=wait, **which))

    async def stop(self, *, drop: bool = True) -> None:
        """Stop serving until `start`; what is stored, the turns and the faults stay.

        Runs at work go back into the queue, as when any server stops.

        Args:
            drop: Cut all connections first, in mid-answer, as a crash does. False: answers
                under way are ended properly first, for which they have 5 s.

        Cancellation: the server stops nevertheless.
        """
        await to_thread.run_sync(partial(self._hosted.stop, drop=drop))

    async def start(self) -> None:
        """Serve again, on the same port and file; queued runs begin.

        Raises:
            OSError: Another program has taken the port.
            RuntimeError: The server was not opened, or it is not stopped.

        Cancellation: the server starts nevertheless.
        """
        await to_thread.run_sync(self._hosted.start)

    async def restart(self, *, drop: bool = True) -> None:
        """Stop and start again, on the same port and file; see `stop` for `drop`.

        Args:
            drop: As of `stop`.

        Raises:
            OSError: Another program has taken the port.
            RuntimeError: The server was not opened, or it is stopped.

        Cancellation: the step under way is finished; a server that has stopped stays so.
        """
        await self.stop(drop=drop)
        await self.start()

    def __enter__(self) -> Self:
        """Start the server."""
        self._hosted.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the server, hanging connections and runs included."""
        self._hosted.close()

    async def __aenter__(self) -> Self:
        """Start the server, without blocking the event loop."""
        await self._hosted.aopen()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the server, without blocking the event loop."""
        await self._hosted.aclose()

    def _settings(self) -> dict[str, Any]:
        # Not before it is opened, and there not in the caller's event loop: importing takes long.
        try:
            from openai_runs.server import ScriptedBackend
        except ImportError as error:
            raise ConfigError(needs("the server", error)) from error
        if self._backend is None:
            self._backend = ScriptedBackend(self._next_turn)
        return {**self._options, "backend": self._backend, "middlewares": [self._meddle]}

    def _next_turn(self, request: ModelRequest) -> ScriptedTurn:
        return self._turns.popleft() if self._turns else self.default_reply

    @web.middleware
    async def _meddle(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        received = _received(request, await request.read())
        self.requests.append(received)
        if request.transport is not None:
            self._hosted.connections.add(request.transport)
        fault = self._take(received)
        if fault is None:
            return await handler(request)
        done = await handler(request) if fault.after else None
        answer = await fault.act(request)
        if done is not None and (answer is None or done.prepared):
            return done
        return await handler(request) if answer is None else answer

    def _take(self, received: ReceivedRequest) -> _Fault | None:
        for fault in self._faults:
            if received.matches(fault.method, fault.path):
                fault.times -= 1
                if fault.times <= 0:
                    self._faults.remove(fault)
                return fault
        return None


def _received(request: web.Request, body: bytes) -> ReceivedRequest:
    return ReceivedRequest(
        method=request.method,
        path=request.path.removeprefix(_PREFIX),
        query=dict(request.query),
        headers=without_credentials(request.headers.items()),
        json=decoded(body),
    )


async def _disconnect(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.close()
    return web.Response()  # goes nowhere
