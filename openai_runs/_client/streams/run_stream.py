"""The public face of a stream: iteration, texts, and the result.

Reading, tools and reconnecting are in `session`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Generic, Literal

import msgspec
from anyio.lowlevel import checkpoint

from openai_runs._client.arguments import Arguments
from openai_runs._client.core.deadline import Deadline
from openai_runs._client.core.pipeline import Pipeline
from openai_runs._client.flows.results import RunResult, T, gather
from openai_runs._client.flows.tool_loop import local_tools
from openai_runs._client.polling.waiter import Waiter
from openai_runs._client.streams.requests import StreamRequest
from openai_runs._client.streams.session import State, StreamSession
from openai_runs._client.usage import NotAwaited
from openai_runs._protocol.snapshot.snapshot import Snapshot
from openai_runs.config import STREAM_IDLE, check_count, check_timeout
from openai_runs.types.events import Event, MessageDeltaEvent, MessageEvent
from openai_runs.types.messages import Message, MessageRole
from openai_runs.types.runs import Run
from openai_runs.types.steps import RunStep

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["RunStream", "stream_of"]

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
_AFTERWARDS: Final = "`await stream.result()`, or `stream.snapshot`"
_BURST: Final = 256
"""Events that are returned before other tasks run, some 5 ms of work."""


class RunStream(NotAwaited, Generic[T]):
    """The events of a run, as an async context manager and iterator.

    One iteration spans the whole run. Where the connection is lost, the stream reconnects, or
    is completed by polling the run. Where local tools were given, their
    calls are answered and the run goes on. Made by `runs.stream`,
    `runs.submit_tool_outputs_stream`, `runs.follow` and `threads.create_and_run_stream`.

    Iterating raises, besides what the first request may raise:
        StreamError: The server sent an error event.
        StreamInterrupted: The connection was lost, or an event cannot be read, and recovery failed;
            `.text_so_far` has the text that came.
        StreamTooLarge: The stream exceeds `max_stream_bytes`; `.text_so_far` has the text so far.
        RunWaitTimeout: The time was up; `.run` is the last state seen.
        ToolError: The run asked for tools more than `max_rounds` times, or waits for an action of
            a kind that cannot be answered.

    Cancellation: an event that is awaited may be cancelled and awaited again, except while
    a request is begun or tools run, after which the stream is over. Leaving the block
    before the end closes the connection and leaves the run alone, or cancels it with
    `on_cancel="cancel"`.
    """

    _call = "a RunStream"

    def __init__(
        self,
        session: StreamSession,
        body: Mapping[str, Any] = _NOTHING,
        *,
        is_traced: bool = False,
    ) -> None:
        """Iterate the events of `session`; nothing is sent before the block is entered."""
        self._session = session
        self._body = body
        self._is_traced = is_traced
        self._is_closed = self._is_read = False
        self._is_over = self._is_cut = False
        self._burst = 0
        self._result: RunResult[T] | None = None

    @property
    def run(self) -> Run | None:
        """Return the run as the last event left it; None before its first event."""
        return self._session.snapshot.run

    @property
    def snapshot(self) -> Snapshot:
        """Return what the events so far have built: run, messages, steps, text; it grows."""
        return self._session.snapshot

    @property
    def recovered(self) -> bool:
        """Return whether the stream reconnected, or was completed by polling the run."""
        return self._session.recovered

    @property
    def is_reconnecting(self) -> bool:
        """Return whether the connection was lost, and the run is not at its end.

        Not where the server is back and cannot go on from the last event: the run is polled then.
        """
        return self._session.is_reconnecting

    @property
    def last_event_id(self) -> str:
        """Return the id of the last event in the run's stream; empty without one."""
        return self._session.last_id

    async def __aenter__(self) -> RunStream[T]:
        """Send the request, and return once the server has accepted it."""
        if self._session.state is State.NEW:
            self._is_read = True
            try:
                await (
                    self._traced(self._session.open()) if self._is_traced else self._session.open()
                )
            finally:
                self._is_read = False
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connection; a run that is left before its end follows `on_cancel`."""
        await self._leave(early=error is not None or not self._is_at_end)

    async def aclose(self) -> None:
        """Close the connection; a run that is left before its end follows `on_cancel`.

        Cancellation: the run is still cancelled with `on_cancel="cancel"`.
        """
        await self._leave(early=not self._is_at_end)

    @property
    def _is_at_end(self) -> bool:
        """Return whether all events were returned, and no other task awaits the next."""
        return self._session.is_exhausted and not self._is_read

    async def _leave(self, *, early: bool) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._is_cut = not self._session.is_exhausted
        self._session.close()
        if early and self._session.deadline.wait_options.on_cancel == "cancel":
            await self._undo()
        self._session.end_span()

    async def _undo(self) -> None:
        span = self._session.span
        if span is None:
            await self._session.undo()
            return
        try:
            with span.active():
                await self._session.undo()
        finally:
            self._session.end_span()

    def __aiter__(self) -> RunStream:
        """Return itself; a new iteration continues after the last event.

        Raises:
            RuntimeError: An iteration has come to the end, or the stream was closed before it.
        """
        if self._is_over or self._is_cut:
            how = "closed before its end" if self._is_cut else "read to its end"
            message = f"this stream was {how}, and its events come once; use {_AFTERWARDS}"
            raise RuntimeError(message)
        return self

    def __repr__(self) -> str:
        return f"<RunStream of {self._session.run_id or 'a new run'}: {self._state}>"

    @property
    def _state(self) -> str:
        if self._is_closed:
            return f"closed; use {_AFTERWARDS}"
        if self._session.state is State.NEW:
            return "not opened; use `async with`"
        if self._session.is_exhausted:
            return f"read to its end; use {_AFTERWARDS}"
        return "open; use `async for`"

    async def __anext__(self) -> Event:
        """Return the next event."""
        session = self._session
        self._burst += 1
        if self._burst >= _BURST:
            await self._yield_to_others()
        while not session.ready:
            if session.is_exhausted:
                self._is_over = True
                raise StopAsyncIteration
            await self._advance(None)
        return session.pop_at_once() or await session.pop()

    async def next_events(self, *, within: float) -> list[Event] | None:
        """Return what comes next: all events that are there; None at the end of the stream.

        Args:
            within: Seconds after which an empty list is returned where there is a connection
                to read and nothing comes. All else that a stream does to go on, such as
                answering tool calls, is carried to its end however long it takes. An empty
                list is also returned when `is_reconnecting` has changed and nothing has come.

        Raises:
            OpenAIRunsError: See the class.

        Cancellation: see the class.
        """
        session = self._session
        until, was_reconnecting = session.now() + within, self.is_reconnecting
        while not session.ready:
            if session.is_exhausted:
                return None
            await self._advance(until if session.is_reading else None)
            is_late = session.is_reading and session.now() >= until
            if not session.ready and (is_late or self.is_reconnecting != was_reconnecting):
                return []
        events = [await session.pop()]
        while session.ready and not session.will_notify:
            events.append(await session.pop())
        return events

    def set_on_cancel(self, on_cancel: Literal["leave", "cancel"]) -> None:
        """Change what becomes of the run where the stream is left before its end.

        Args:
            on_cancel: `leave` lets it go on, `cancel` cancels it.

        Raises:
            ValueError: It is neither of the two.
        """
        if on_cancel not in ("leave", "cancel"):
            message = f"on_cancel must be 'leave' or 'cancel', got {on_cancel!r}"
            raise ValueError(message)
        deadline = self._session.deadline
        deadline.wait_options = msgspec.structs.replace(deadline.wait_options, on_cancel=on_cancel)

    async def _yield_to_others(self) -> None:
        """Let other tasks run, after very many events that came at once."""
        self._burst = 0
        await checkpoint()

    async def _advance(self, until: float | None) -> None:
        if self._is_read:
            message = "another task is reading this stream; give each reader a stream of its own"
            raise RuntimeError(message)
        self._is_read = True
        try:
            if self._is_traced:
                await self._traced(self._session.advance(until))
            else:
                await self._session.advance(until)
        finally:
            self._is_read = False

    async def _traced(self, work: Awaitable[None]) -> None:
        """Await a step of the session within the span of the run, which ends with the last."""
        session = self._session
        if session.span is None:
            session.start_span(self._body)
        assert session.span is not None
        try:
            with session.span.active():
                await work
        except BaseException as error:
            session.span.fail(error)
            raise
        finally:
            if session.is_exhausted:
                session.end_span()

    async def text_deltas(self) -> AsyncIterator[str]:
        """Yield the text as it comes; all pieces together are the result's `.text`.

        Where the server restarted a text after a crash, with other words than before, the
        pieces end where the two differ; `.snapshot` and the result have the right text.

        Raises:
            RunFailed, RunExpired, RunCancelled, RunIncomplete: After the last piece, where
                the run did not end as hoped.
            OpenAIRunsError: See the class.
        """
        emitted: dict[str, list[str]] = {}
        async for event in self:
            text = ""
            if isinstance(event, MessageDeltaEvent):
                text = event.data.text
            elif isinstance(event, MessageEvent) and event.data.role != MessageRole.USER:
                text = self._rest_of(event.data, emitted)
            if text:
                if emitted and event.data.id not in emitted:
                    yield "\n\n"
                emitted.setdefault(event.data.id, []).append(text)
                yield text
        self._check_end()

    def _rest_of(self, message: Message, emitted: Mapping[str, list[str]]) -> str:
        """Return the text that no piece has emitted of a message that came as a whole."""
        known = self.snapshot.message
        if known(message.id) is None:  # its pieces have another id, and were emitted
            return ""
        ids = (
            [message.id]
            if message.id in emitted
            else [one for one in emitted if known(one) is None]
        )
        before = "".join(piece for one in ids for piece in emitted[one])
        return message.text.removeprefix(before) if message.text.startswith(before) else ""

    async def text_snapshots(self, *, every: float = 1.0) -> AsyncIterator[str]:
        """Yield all of the text so far, for a message that is edited in place.

        Args:
            every: Seconds between two texts, at least; the last one comes at once.

        Raises:
            RunFailed, RunExpired, RunCancelled, RunIncomplete: After the last text, where
                the run did not end as hoped.
            OpenAIRunsError: See the class.
        """
        check_timeout("every", every)
        session = self._session
        shown, due, is_new = "", 0.0, False
        while not session.is_exhausted:
            self._burst += 1
            if self._burst >= _BURST:
                await self._yield_to_others()
            if is_new and session.now() >= due:
                is_new = False
                if (text := self.snapshot.text) != shown:
                    shown, due = text, session.now() + every
                    yield text
            elif session.ready:
                event = await session.pop()
                is_new = is_new or isinstance(event, (MessageDeltaEvent, MessageEvent))
            elif is_new and not session.is_reading:
                due = 0.0  # tools or a wait come next: show what there is before
            else:
                await self._advance(due if is_new else None)
        if (text := self.snapshot.text) != shown:
            yield text
        self._check_end()

    async def until_done(self) -> None:
        """Read the stream to its end.

        Raises:
            RunWaitTimeout: The time was up; `.run` is the last state seen.
            OpenAIRunsError: See the class.

        Cancellation: as of the stream; `on_cancel` says what becomes of the run.
        """
        if not (self._is_over or self._is_cut):
            async for _ in self:
                pass

    async def result(self) -> RunResult[T]:
        """Return the result of the run, reading the stream to its end first.

        After the block as well: where it was left early, the run is waited for.

        Endpoint: none where the stream has emitted everything, else as `runs.result`

        Raises:
            RunWaitTimeout: The time was up; `.run` is the last state seen.
            OpenAIRunsError: See the class.
        """
        if self._result is None:
            await self.until_done()
            self._result = await self._session.result()
        return self._result

    async def get_final_run(self) -> Run:
        """Return the run at its end, under the official SDK's name.

        Raises:
            RunWaitTimeout: The time was up; `.run` is the last state seen.
            OpenAIRunsError: See the class.

        Cancellation: as of `result`.
        """
        return (await self.result()).run

    async def get_final_messages(self) -> list[Message]:
        """Return the messages the run wrote, under the official SDK's name.

        Raises:
            RunWaitTimeout: The time was up; `.run` is the last state seen.
            OpenAIRunsError: See the class.

        Cancellation: as of `result`.
        """
        return (await self.result()).messages

    async def get_final_run_steps(self) -> list[RunStep]:
        """Return the run's steps, under the official SDK's name.

        Raises:
            RunWaitTimeout: The time was up; `.run` is the last state seen.
            OpenAIRunsError: See the class.

        Cancellation: as of `result`.
        """
        return (await self.result()).steps

    def _check_end(self) -> None:
        if self.run is not None and self.run.is_terminal:
            self.run.raise_for_status()


def stream_of(
    pipeline: Pipeline, waiter: Waiter, request: StreamRequest, given: Arguments
) -> RunStream[Any]:
    """Return the stream that begins with `request`; its result is gathered as by `runs.result`.

    Raises:
        TypeError: An option is of the wrong kind.
        ValueError: An option is out of bounds.
    """
    max_bytes = given.stream.get("max_stream_bytes")
    if max_bytes is not None:
        check_count("max_stream_bytes", max_bytes)
    session = StreamSession(
        pipeline,
        waiter,
        Deadline(pipeline.settings.runtime, given.call, given.wait),
        request,
        gather=partial(
            gather, pipeline, response_format=given.response_format, max_bytes=max_bytes
        ),
        idle=check_timeout("idle_timeout", given.stream.get("idle_timeout")) or STREAM_IDLE,
        tools=local_tools(given),
        response_format=given.response_format,
        max_bytes=max_bytes,
    )
    is_traced = pipeline.settings.tracing is not None
    return RunStream(session, given.body, is_traced=is_traced)
