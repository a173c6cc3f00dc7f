"""A run's stream relayed to a browser, as bytes that any web framework can send.

Framework-free: a `RunStream` comes in, server-sent events go out. Which user may follow which
run is not known here; the endpoint checks that. Which events a browser is shown stands in the
events table (`_protocol.events`).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Generator, Iterable, Iterator, Mapping
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal

import anyio
import msgspec

from openai_runs._log_ids import ids_of
from openai_runs._protocol.events import ALL_FIELDS, shown_fields
from openai_runs._protocol.sse import COMMENT, encode
from openai_runs.config import HEARTBEAT_INTERVAL, check_timeout
from openai_runs.errors import (
    OpenAIRunsError,
    RunWaitTimeout,
    StreamError,
    StreamInterrupted,
    ToolError,
)
from openai_runs.types.events import Event, EventName

if TYPE_CHECKING:
    from openai_runs._client.streams.run_stream import RunStream

__all__ = ["HEADERS", "Frames", "error_frame", "sse"]

HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Content-Type": "text/event-stream; charset=utf-8",
        "Cache-Control": "no-store",
        "X-Accel-Buffering": "no",  # nginx sends at once what it has
    }
)
"""Headers of an answer that is made of frames."""

_BEGIN: Final = b"retry: 1000\n\n"
"""The first bytes: they send the headers on their way, and no event. A browser that loses the
connection comes back after this many milliseconds."""
_DONE: Final = encode(EventName.DONE, b"[DONE]")
_CONNECTION: Final = {
    True: encode("reconnecting", b"{}"),
    False: encode("reconnected", b"{}"),
}
"""Whether the connection to the run is lost -> what a browser is sent when that changes."""
_FAILURES: Final[tuple[tuple[type[OpenAIRunsError], str, str], ...]] = (
    (RunWaitTimeout, "run_wait_timeout", "The run takes longer than this answer may; it goes on."),
    (StreamInterrupted, "stream_interrupted", "The connection to the run was lost."),
    (StreamError, "stream_error", "The run's stream ended with an error."),
    (ToolError, "tool_error", "The run asks for tools that it cannot be given."),
    (OpenAIRunsError, "upstream_error", "The run could not be followed any further."),
)
"""Error -> the code and message a browser is sent; the first class that fits. The error's own
text may name hosts, ids of requests, or a tool's output: it is logged."""
_RUN_FAILURES: Final = {
    "rate_limit_exceeded": "Too much is asked of the assistant at present: try again later.",
    "invalid_prompt": "The assistant cannot answer this.",
}
"""`last_error.code` of a run -> the message a browser is sent; the run's own text is logged."""
_RUN_FAILURE: Final = "The answer failed."
_UNKNOWN_FAILURE: Final = ["server_error", "The answer could not be made."]

_logger = logging.getLogger("openai_runs.relay")


class Frames:
    """The frames of one relayed stream: an async iterator of bytes.

    Opened by `await` or by `async with`, which raise what the first request raises, so that
    the framework can still answer with an error status. Left unopened, the first frame opens
    it. Whoever stops before the end closes it (`async with`, or `aclose`); a framework that
    just forgets it leaves that to the event loop, which closes forgotten generators.

    Made by `sse`.
    """

    def __init__(self, stream: RunStream, *, full: bool, heartbeat: float) -> None:
        # A function of the module: as a method it would hold `self`, and forgotten frames would
        # be closed only by the next garbage collection.
        self._errors: list[OpenAIRunsError] = []
        self._frames = _frames(stream, full, heartbeat, self._errors)
        self._stream = stream
        self._begin: bytes | None = None

    def __repr__(self) -> str:
        return f"<Frames of {self._stream!r}>"

    @property
    def error(self) -> OpenAIRunsError | None:
        """Return what the frame `error` was made of; None where the stream did not fail."""
        return self._errors[0] if self._errors else None

    def __await__(self) -> Generator[Any, None, Frames]:
        """Open the stream."""
        return self.__aenter__().__await__()

    async def __aenter__(self) -> Frames:
        """Open the stream, if it is not open.

        Raises:
            APIError: The first request was rejected, or it failed.
        """
        if self._begin is None:
            self._begin = await anext(self._frames)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the stream; what becomes of the run is up to `on_disconnect`."""
        await self.aclose()

    def __aiter__(self) -> Frames:
        """Return the frames: they are their own iterator."""
        return self

    async def __anext__(self) -> bytes:
        """Return the next frames, as many as have come."""
        if self._begin is None:
            await self.__aenter__()
        if self._begin:
            begin, self._begin = self._begin, b""
            return begin
        return await anext(self._frames)

    async def aclose(self) -> None:
        """Close the stream; what becomes of the run is up to `on_disconnect`.

        Cancellation: the run is cancelled all the same where that was asked for.
        """
        await self._frames.aclose()
        await self._stream.aclose()  # where it was passed in open, and no frame was ever read


def sse(
    stream: RunStream,
    *,
    on_disconnect: Literal["continue", "cancel"] | None = None,
    full: bool = False,
    heartbeat: float = HEARTBEAT_INTERVAL,
) -> Frames:
    r"""Return the stream's events as server-sent events, for a browser's `EventSource`.

    Under Starlette or FastAPI, and under aiohttp:

        return StreamingResponse(await relay.sse(stream), headers=relay.HEADERS)

        async with relay.sse(stream) as frames:
            response = web.StreamResponse(headers=relay.HEADERS)
            await response.prepare(request)
            async for frame in frames:
                await response.write(frame)

    Each event keeps its name and its `id`: a browser that loses the connection asks again with
    `Last-Event-ID`, which `runs.follow` takes as `last_event_id`. The last frame is `done`, or
    `error` with `{"code", "message", "run_id"}` where the stream failed on the way. Where the
    connection to the run is lost, `reconnecting` is sent, and `reconnected` when it is back.
    Events are read as fast as frames are taken, and no faster.

    Args:
        stream: The stream, not yet opened or just opened; it is closed at the end.
        on_disconnect: What becomes of the run when the frames are left before their end:
            `continue` leaves it alone, `cancel` cancels it, for which there are 5 s. None: as
            the stream's own `on_cancel` says, which by default leaves it.
        full: Send every event as the server sent it. Else a browser is sent what it can show:
            messages without metadata and attachments; of a run its ids, its status, and why it
            failed, as a code and a fixed sentence; no steps, instructions, tools, metadata or
            events of unknown kinds.
        heartbeat: Seconds without a frame after which a comment is sent, so that proxies keep
            the connection. None is sent while local tools run, and while a run is waited for
            because its stream cannot be resumed.

    Raises:
        TypeError: `heartbeat` is no number.
        ValueError: `heartbeat` or `on_disconnect` is out of bounds.

    Cancellation: closes the stream; what becomes of the run is up to `on_disconnect`.
    """
    if on_disconnect is not None:
        if on_disconnect not in ("continue", "cancel"):
            message = f"on_disconnect must be 'continue' or 'cancel', got {on_disconnect!r}"
            raise ValueError(message)
        stream.set_on_cancel("cancel" if on_disconnect == "cancel" else "leave")
    seconds = check_timeout("heartbeat", heartbeat)
    return Frames(stream, full=full, heartbeat=seconds or HEARTBEAT_INTERVAL)


async def _frames(
    stream: RunStream, full: bool, heartbeat: float, errors: list[OpenAIRunsError]
) -> AsyncGenerator[bytes]:
    last = _DONE
    async with stream:
        is_lost = stream.is_reconnecting  # a server that does not stream is waited for
        yield _BEGIN
        due = anyio.current_time() + heartbeat
        while True:
            try:
                events = await stream.next_events(within=max(0.0, due - anyio.current_time()))
            except OpenAIRunsError as error:
                _logger.warning("a relayed stream failed: %s", error, extra=ids_of(error))
                errors.append(error)
                last = error_frame(error)
                break
            if events is None:
                break
            frames = b"".join(_shown(events, full))
            if stream.is_reconnecting != is_lost:
                is_lost = stream.is_reconnecting
                frames = _CONNECTION[is_lost] + frames
            # Events that are left out do not keep a proxy from closing an idle connection.
            if frames or anyio.current_time() >= due:
                yield frames or COMMENT
                due = anyio.current_time() + heartbeat
        yield last


def _shown(events: Iterable[Event], full: bool) -> Iterator[bytes]:
    for event in events:
        names = shown_fields(event)
        # Deltas are most of a stream; sent as they came, they cost no decoding.
        if full or names is ALL_FIELDS:
            yield encode(event.event, event.json, id=event.id)
        elif names:
            yield encode(event.event, _reduced(event, names), id=event.id)


def _reduced(event: Event, names: tuple[str, ...]) -> bytes:
    """Return these fields of the event's object, as JSON."""
    whole: dict[str, Any] = msgspec.json.decode(event.json)
    shown = {name: whole[name] for name in names if name in whole}
    error = shown.get("last_error")
    if isinstance(error, dict):
        shown["last_error"] = _shown_error(error, whole)
    return msgspec.json.encode(shown)


def _shown_error(error: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a browser is shown of why a run failed, and log the rest."""
    code, ids = error.get("code"), {"run_id": run.get("id"), "thread_id": run.get("thread_id")}
    words = "a relayed run failed: %s: %s"
    _logger.warning(words, code, error.get("message"), extra=ids)
    return {"code": code, "message": _RUN_FAILURES.get(str(code), _RUN_FAILURE)}


def error_frame(error: Exception) -> bytes:
    """Return the frame that says to a browser what went wrong, in words that it may be shown.

    Args:
        error: What was raised; its own text is not sent.
    """
    found = (texts for kind, *texts in _FAILURES if isinstance(error, kind))
    code, message = next(found, _UNKNOWN_FAILURE)
    body = {"code": code, "message": message, "run_id": getattr(error, "run_id", None)}
    return encode(EventName.ERROR, msgspec.json.encode(body))
