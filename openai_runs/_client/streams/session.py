"""One stream of a run, from its first request to its last event, as a state machine.

Theory of operation. A run is streamed by one request after another (`requests`): the create,
and one more for each submission of tool outputs. Each is answered by one connection, which an
`EventReader` reads. `State` says what the session is doing, `MOVES` which state may follow.
`advance` does the work of the present state: it brings events into `ready`, or the session into
its next state. Events are applied to the snapshot when they are returned (`pop`), so the
snapshot is never ahead of the caller. That is why DRAINING begins when the caller receives the
run's last event, and not when it arrives.

    NEW         -> OPENING
    OPENING     -> READING | RECOVERING
    READING     -> DRAINING | ENDED | RECOVERING
    DRAINING    -> READING | ENDED | COMPLETE
    ENDED       -> ANSWERING | POLLING | VERIFYING | COMPLETE
    ANSWERING   -> READING | POLLING | RECOVERING
    POLLING     -> ENDED | RECOVERING
    VERIFYING   -> ENDED
    RECOVERING  -> READING | RECOVERING | ENDED

Each of them but DRAINING may also become CLOSED. When the caller closes the stream, DRAINING and
ENDED become COMPLETE, since all events of the run's present request were received; a run that is
given up is CLOSED, and polled by whoever asks for its result.

No task runs in the background: work is done within `advance`, and no cancel scope outlives it. A
second task may call `close` or `undo` meanwhile, so each step checks after an await whether the
session has ended.

Elsewhere: how to reconnect and fetch (`recovery`), which events a poll amounts to (`backfill`),
and what to do with a run that repeats its tool calls (`flows.tool_loop`).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from enum import Enum, auto
from typing import Any, Final, TypeVar

import anyio
import msgspec

from openai_runs._client.core.deadline import Deadline
from openai_runs._client.core.event_reader import EventReader, Gaps
from openai_runs._client.core.pipeline import Pipeline
from openai_runs._client.core.size_limit import SizeLimit
from openai_runs._client.flows.results import RunResult
from openai_runs._client.flows.tool_loop import Decision, Outputs, ToolLoop
from openai_runs._client.polling.handle import notify_status
from openai_runs._client.polling.waiter import Waiter
from openai_runs._client.streams.backfill import missing_events, missing_piece
from openai_runs._client.streams.idle_timer import IdleTimer
from openai_runs._client.streams.recovery import Gather, Reconnector, ResultFetcher, interrupted
from openai_runs._client.streams.requests import StreamRequest, SubmitRequest
from openai_runs._protocol.events import ends_in_name, named_by_its_data
from openai_runs._protocol.lifecycle import is_settled, seconds_to_expiry
from openai_runs._protocol.snapshot.snapshot import Snapshot
from openai_runs._protocol.sse import EventTooLarge
from openai_runs._tracing import Span
from openai_runs._transport import StreamReply
from openai_runs.config import MAX_ID_CHARS
from openai_runs.errors import (
    APIConnectionError,
    APIError,
    APITimeoutError,
    OpenAIRunsError,
    RunWaitTimeout,
    StreamError,
    StreamInterrupted,
    StreamTooLarge,
    ToolError,
)
from openai_runs.types.events import Event, EventName, MessageEvent, RunEvent
from openai_runs.types.runs import Run

__all__ = ["FINAL", "MOVES", "State", "StreamSession"]

E = TypeVar("E", bound=OpenAIRunsError)

_LOG: Final = logging.getLogger("openai_runs.client")


class State(Enum):
    """What a session is doing."""

    NEW = auto()
    """Nothing has been sent."""
    OPENING = auto()
    """The first request is in progress."""
    READING = auto()
    """A connection is read."""
    DRAINING = auto()
    """The run has ended or waits for outputs; waits up to `STREAM_DRAIN` for the stream's end."""
    ENDED = auto()
    """All events of this request have come."""
    ANSWERING = auto()
    """Tools run, and their outputs are submitted."""
    POLLING = auto()
    """Outputs were submitted and are still requested; polls again."""
    VERIFYING = auto()
    """Events contradict each other or could not be read: polls, and backfills the rest."""
    RECOVERING = auto()
    """There is no connection: reconnects, or waits for the run and backfills."""
    COMPLETE = auto()
    """All events of the run have come."""
    CLOSED = auto()
    """Closed by the caller or by an error."""


MOVES: Final[dict[State, frozenset[State]]] = {
    State.NEW: frozenset({State.OPENING, State.CLOSED}),
    State.OPENING: frozenset({State.READING, State.RECOVERING, State.CLOSED}),
    State.READING: frozenset({State.DRAINING, State.ENDED, State.RECOVERING, State.CLOSED}),
    # READING: the run goes on after an event that seemed to be its last.
    State.DRAINING: frozenset({State.READING, State.ENDED, State.COMPLETE}),
    # ENDED -> CLOSED: the run asks for tools that it is given up for.
    State.ENDED: frozenset(
        {State.ANSWERING, State.POLLING, State.VERIFYING, State.COMPLETE, State.CLOSED}
    ),
    State.ANSWERING: frozenset({State.READING, State.RECOVERING, State.POLLING, State.CLOSED}),
    State.POLLING: frozenset({State.ENDED, State.RECOVERING, State.CLOSED}),
    State.VERIFYING: frozenset({State.ENDED, State.CLOSED}),
    # RECOVERING: the answer was the run and no stream, so the next attempt follows.
    State.RECOVERING: frozenset({State.READING, State.RECOVERING, State.ENDED, State.CLOSED}),
    State.COMPLETE: frozenset(),
    State.CLOSED: frozenset(),
}
"""From each state, the states that may follow."""
FINAL: Final = frozenset({State.COMPLETE, State.CLOSED})
"""States in which nothing is sent or read any more."""


class StreamSession:
    """One stream, from its first request to its last event."""

    span: Span | None = None
    """The span of the run, once the stream is begun and if it is traced."""
    _has_just_read = False
    """Whether the last read returned events: the time the caller takes for them is no silence."""
    _has_moved = False
    """Whether this request's events show the run at work."""
    _is_polled = False
    """Whether the run's present state is known from a poll, and not from events."""
    _has_undone = False
    """Whether the run, or what may have been started, was cancelled."""

    def __init__(
        self,
        pipeline: Pipeline,
        waiter: Waiter,
        deadline: Deadline,
        request: StreamRequest,
        *,
        gather: Gather,
        idle: float,
        tools: ToolLoop,
        response_format: type | None = None,
        max_bytes: int | None = None,
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            pipeline: What requests are sent through.
            waiter: Waits for the run where its stream is lost for good.
            deadline: The call's time and options.
            request: The first request.
            gather: Lists a run's messages and steps.
            idle: Seconds without an event before the run is polled.
            tools: Answers tool calls; where it answers none, the stream ends.
            response_format: Of the result's `parsed`.
            max_bytes: Bytes read of the whole stream; None: the client's `max_stream_bytes`.
        """
        self._pipeline = pipeline
        self._waiter = waiter
        self._request = request
        self._fetcher = ResultFetcher(pipeline, waiter, deadline, gather, response_format)
        self._reconnector = Reconnector(pipeline, deadline, self._fetcher)
        self._tools = tools
        self.now = pipeline.settings.runtime.monotonic
        self._timer = IdleTimer(self.now, timeout=deadline.seconds_left(), idle=idle)
        self._reader: EventReader | None = None
        self._gaps = Gaps()
        self._size = SizeLimit(max_bytes or pipeline.settings.max_stream_bytes)
        self._ids = dict(request.ids)
        self._headers: Any = {}
        self._headers_at = self._timer.began
        self._failure: OpenAIRunsError | None = None
        self._notified_status = ""
        self.deadline = deadline
        self.state = State.NEW
        self.snapshot = Snapshot()
        self.ready: deque[Event] = deque()
        """Events that were received and not returned yet."""
        self.last_id = ""
        self.recovered = False
        """Whether the stream reconnected, or was completed by polling the run."""
        self.is_whole = False
        """Whether the snapshot holds all of the run, and not only this request's part of it."""

    def start_span(self, body: Mapping[str, Any]) -> None:
        """Begin the span of the run, if runs are traced; `body` is that of its create."""
        tracing = self._pipeline.settings.tracing
        if tracing is not None:
            thread_id = self._ids.get("thread_id", self._request.thread_id)
            self.span = tracing.start_invocation(body, thread_id, self._ids.get("run_id"))

    def end_span(self) -> None:
        """End the span of the run, with what is known of it."""
        if self.span is not None:
            if self.snapshot.run is not None:
                self.span.set_run(self.snapshot.run)
            self.span.set_output(lambda: self.snapshot.text)
            self.span.end()

    def _move(self, state: State) -> None:
        assert state in MOVES[self.state], f"{self.state.name} -> {state.name}"
        self.state = state

    @property
    def is_exhausted(self) -> bool:
        """Return whether there are no more events."""
        return self.state in FINAL and not self.ready

    @property
    def run_id(self) -> str | None:
        """Return the run's id; None while it is not known."""
        return self._ids.get("run_id")

    @property
    def is_reading(self) -> bool:
        """Return whether there is a connection to read."""
        return self._reader is not None

    # --- returning events

    def pop_at_once(self, *, is_in_time: bool = False) -> Event | None:
        """Return the next event as `pop` does, or None where that takes an await."""
        if self._gaps.in_deltas:
            self._fill_gap()
        event, deadline = self.ready[0], self._timer.deadline
        is_late = deadline is not None and not is_in_time and self.now() >= deadline
        if is_late or isinstance(event, RunEvent):
            return None
        self.ready.popleft()
        self._apply(event)
        return event

    def _fill_gap(self) -> None:
        """Insert what the next event's message has more than its pieces that could be read."""
        event = self.ready[0]
        if isinstance(event, MessageEvent) and ends_in_name(event):
            piece = missing_piece(self.snapshot, event.data)
            if piece is not None:
                self.ready.appendleft(piece)

    async def pop(self) -> Event:
        """Return the next event of `ready`, and apply it to the snapshot.

        Raises `RunWaitTimeout` where the time was up. Cancellation: leaves the event there.
        """
        await self._check_time()
        event = self.pop_at_once(is_in_time=True) or self.ready[0]
        if not isinstance(event, RunEvent):
            return event
        if self._ids.get("run_id", event.data.id) != event.data.id:
            return self.ready.popleft()  # of another run: returned, but not applied
        if event.data.status != self._notified_status:
            self._notified_status = event.data.status
            await notify_status(
                self.deadline.wait_options.on_status, event.data, self._timer.seconds_left()
            )
        if self.ready:  # else the stream was closed during the callback
            self.ready.popleft()
        self._apply(event)
        self.is_whole = self.is_whole or event.event == EventName.RUN_CREATED
        self._learn(event.data)
        self._note_end(event.data)
        return named_by_its_data(event)

    def _apply(self, event: Event) -> None:
        self.snapshot.apply(event)
        if event.id and len(event.id) <= MAX_ID_CHARS:
            self.last_id = event.id

    @property
    def will_notify(self) -> bool:
        """Return whether the caller's `on_status` may be called before the next event."""
        return self.deadline.wait_options.on_status is not None and isinstance(
            self.ready[0], RunEvent
        )

    def _learn(self, run: Run) -> None:
        """Remember which run this is, and how long it has."""
        self._pipeline.state.limiter.on_run(run, is_new=not self._ids)
        self._ids = {"thread_id": run.thread_id, "run_id": run.id}
        self._request.on_run_known()
        self._timer.allow(seconds_to_expiry(run, self._headers))

    def _note_end(self, run: Run) -> None:
        """Begin or stop draining, as the run of the last event says."""
        self._has_moved = self._has_moved or not run.needs_action
        # An unknown status is no end: more events may come, and `idle_timeout` bounds a silence.
        is_end = run.is_terminal or run.needs_action
        if self.state is State.READING and is_end:
            self._move(State.DRAINING)
        elif self.state is State.DRAINING and not is_end:
            self._move(State.READING)

    # --- the work of each state

    async def advance(self, until: float | None = None) -> None:
        """Bring events into `ready`, or the session into its next state.

        Args:
            until: When to return without an event while there is a connection to read; no
                other work is begun where this is given.

        Cancellation: loses nothing while reading, polling or recovering; a request in progress is
        closed, and tools that run are cancelled, after which the stream is over.
        """
        if self._reader is not None:
            await self._read(self._reader, until)
        elif until is None:
            match self.state:
                case State.NEW:
                    await self.open()
                case State.ENDED:
                    await self._go_on()
                case State.ANSWERING:
                    await self._answer()
                case State.POLLING:
                    await self._poll()
                case State.RECOVERING | State.VERIFYING:
                    await self._recover()

    async def open(self) -> None:
        """Send the first request, and return once the server has accepted it.

        Cancellation: closes the request; what it may have started is left, or cancelled with
        `on_cancel="cancel"`.
        """
        self._move(State.OPENING)
        # The request is awaited right here, so that opening a stream stays a few frames deep.
        try:
            opened = await self._request.open(self.deadline.left())
        except BaseException as error:
            must_undo = self._forget_early_undo()
            await self._fail(error)
            if must_undo:
                await self.undo()
            raise
        if self._forget_early_undo():
            if isinstance(opened, Run):
                self._learn(opened)
            self._join(opened)
            await self.undo()
        else:
            self._join(opened)

    def _forget_early_undo(self) -> bool:
        """Return whether another task has called `undo` before there was a run to cancel."""
        is_early = self._has_undone and not self._ids
        if is_early:
            self._has_undone = False
        return is_early

    async def _read(self, reader: EventReader, until: float | None) -> None:
        """READING, DRAINING: wait for events, until the limit of silence at most."""
        await self._check_time()
        if self._has_just_read:  # the caller may have worked long on what came last
            self._has_just_read = False
            self._timer.restart()
        limit = self._timer.limit(is_draining=self.state is State.DRAINING)
        wait = limit if until is None else min(limit, until)
        try:
            events = await reader.read(max(0.0, wait - self.now()))
        except APIConnectionError as error:
            self._disconnect(error)
        except EventTooLarge as error:
            self._reconnector.is_pointless = bool(self._ids)
            self._disconnect(StreamError(str(error)))
        except StreamError as error:
            self.close()
            raise self._explain(error) from None
        else:
            if events:
                self._has_just_read = True
                self._reconnector.attempts, self._reconnector.is_pointless = 0, False
                if self.state not in FINAL:
                    self.ready.extend(events)
            elif events is None:
                # No event after `request.after`: there is nothing to recover.
                is_end = reader.is_empty and self._request.after is not None
                self._disconnect(None, is_end=is_end)
            elif self.now() >= limit:
                await self._break_silence(reader)

    async def _break_silence(self, reader: EventReader) -> None:
        """Poll to find out why no event comes: a missing end mark, a stall, or a slow run."""
        if self.state is State.DRAINING:
            self._disconnect(None)
            return
        await self._check_time()
        self._timer.polled()
        is_alive, reader.is_alive = reader.is_alive, False
        is_lost = not is_alive and (self._pipeline.resumes() or not self._ids)
        failure: APIError | None = None
        try:
            run = await self._fetcher.poll(self._ids) if self._ids else None
        except APIError as error:  # while bytes come, the connection is alive
            is_lost, failure = not is_alive, error
        else:
            is_lost = is_lost or (run is not None and is_settled(run.status))
        if is_lost:
            self._disconnect(failure)

    async def _go_on(self) -> None:
        """ENDED: find out what follows: a poll, tools to answer, or nothing."""
        run = self.snapshot.run
        if run is not None and self._must_verify:
            self._move(State.VERIFYING)
        elif run is None:
            self._move(State.COMPLETE)
        else:
            try:
                follows = self._decide(run)
            except OpenAIRunsError as error:
                self._move(State.CLOSED)  # not complete: what becomes of the run is to be polled
                await self._fail(error)
                raise
            self._move(follows)

    def _decide(self, run: Run) -> State:
        if not self._tools.calls_of(run):
            return State.COMPLETE
        decision = self._tools.decide(run, has_moved=self._has_moved and not self._is_polled)
        return State.POLLING if decision is Decision.POLL else State.ANSWERING

    @property
    def _must_verify(self) -> bool:
        """Return whether the events contradict each other, or leave open what the run did."""
        if self.snapshot.is_contradicted or self._gaps.in_objects:
            return True
        return self._gaps.in_deltas and self.snapshot.has_unfinished

    async def _answer(self) -> None:
        """ANSWERING: call the tools, submit the outputs, and read what follows."""
        run = self.snapshot.run
        assert run is not None
        headers = None if self._is_polled else self._headers
        age = self.now() - self._headers_at
        try:
            with anyio.move_on_after(self._timer.seconds_left()) as scope:
                opened = await self._tools.round(
                    run,
                    self._submit,
                    headers=headers,
                    age=age,
                    tracing=self._pipeline.settings.tracing,
                )
            if scope.cancelled_caught:
                raise await self._late()
        except BaseException as error:
            await self._fail(error)
            raise
        if opened is None:
            if self.state is State.ANSWERING:
                self._move(State.POLLING)
            return
        self.snapshot.outputs_submitted()
        self._join(opened)

    async def _submit(self, outputs: Outputs) -> Run | StreamReply | None:
        if self.state in FINAL:  # somebody has closed the stream while the tools ran
            return None
        options = self.deadline.wait_options.options
        self._request = SubmitRequest(self._pipeline, self._waiter, self._ids, outputs, options)
        return await self._request.open(self.deadline.left())

    async def _poll(self) -> None:
        """POLLING: poll whether the run still requests the outputs that were submitted."""
        if self._tools.polls:
            await self._fetcher.pause(self._tools.polls)
        await self._check_time()
        try:
            run = await self._fetcher.poll_until_seen(self._ids)
        except OpenAIRunsError:
            self.close()
            raise
        if self.state in FINAL:
            return
        self._is_polled = True
        if self._tools.is_answered(run):
            self._move(State.ENDED)
        else:
            self.snapshot.outputs_submitted()
            self._begin_recovery("the run has moved on since")

    @property
    def is_reconnecting(self) -> bool:
        """Whether there is no connection, and none to a server that only lets the run be polled."""
        return self.state is State.RECOVERING and not self._reconnector.is_rejected

    async def _recover(self) -> None:
        """RECOVERING: reconnect where that can be done. Else, or VERIFYING: poll and backfill."""
        try:
            opened = None
            if self.is_reconnecting:
                opened = await self._reconnector.reconnect(self._request, self._ids, self.last_id)
                if self._reconnector.is_rejected:
                    return  # whoever shows that the connection is lost learns first that it is back
            if opened is None:
                await self._backfill()
            else:
                self._join(opened)
        except OpenAIRunsError as error:
            self.close()
            if isinstance(error, RunWaitTimeout) or self._timer.seconds_left() <= 0:
                raise
            lost = interrupted(error, self._failure)
            is_end = isinstance(error, StreamInterrupted)
            raise self._explain(lost) from (self._failure if is_end else error)

    async def _backfill(self) -> None:
        """Wait for the run and emit the events that were missed."""
        stored = await self._fetch()
        if self.state in FINAL:
            return
        missed = missing_events(self.snapshot, stored.run, stored.messages, stored.steps)
        self.ready.extend(missed)
        self.snapshot.verified()
        self._gaps.clear()
        if self.state is State.VERIFYING:
            self.recovered = self.recovered or bool(missed)
        else:
            self._is_polled = True
        self.is_whole = True
        self._move(State.ENDED)

    async def _fetch(self) -> RunResult:
        run = None if self.snapshot.is_contradicted else self.snapshot.run
        result = await self._fetcher.fetch(
            run or self._ids["run_id"], self._ids["thread_id"], notified=self._notified_status
        )
        self._notified_status = result.run.status
        return msgspec.structs.replace(result, recovered=self.recovered)

    async def result(self) -> RunResult:
        """Return the result of the run, waiting for it where the stream was left early."""
        run = self.snapshot.run
        if run is not None and self.is_whole and not self._must_verify:
            waits = run.needs_action and self.state is State.COMPLETE
            if run.is_terminal or waits:
                return self._fetcher.result_of(run, self.snapshot, recovered=self.recovered)
        if not self._ids:
            message = "the stream was closed before the run's id was received; there is no result"
            raise StreamError(message)
        return await self._fetch()

    # --- moving between states

    def _join(self, opened: Run | StreamReply) -> None:
        """Read the stream that a request was answered with; a run alone has to be recovered."""
        if self.state in FINAL:
            if isinstance(opened, StreamReply):
                opened.close()
        elif isinstance(opened, StreamReply):
            after = self.last_id if self._pipeline.resumes() else ""
            self._reader = EventReader(
                opened, after=after, gaps=self._gaps, size=self._size, ids=self._ids
            )
            self._headers, self._headers_at = opened.headers, self.now()
            self._timer.restart()
            self._is_polled = self._has_moved = False
            self._move(State.READING)
        else:
            self._learn(opened)
            self._begin_recovery("the server answered with the run, and with no stream")

    def _begin_recovery(self, reason: str) -> None:
        """Enter RECOVERING: reconnect or poll, as `Reconnector.reconnect` decides."""
        words = "the stream of run %s is recovered: %s"
        _LOG.debug(words, self._ids.get("run_id"), reason, extra=self._ids)
        self.recovered, self._reconnector.is_rejected = True, False
        self._move(State.RECOVERING)

    def _disconnect(self, error: OpenAIRunsError | None, *, is_end: bool = False) -> None:
        """Go on without the connection: to the end of this request, or to recovering."""
        self._drop()
        if self.state is State.DRAINING or (is_end and self.state is State.READING):
            self._move(State.ENDED)
        elif self.state is State.READING:
            self._failure = error
            lost = "it ended before the run did" if error is None else type(error).__name__
            self._begin_recovery(lost)

    def _drop(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def close(self) -> None:
        """Close the connection; there are no more events."""
        self._drop()
        if self.ready:
            self.is_whole = False  # these are never applied to the snapshot
            self.ready.clear()
        if self.state in {State.DRAINING, State.ENDED}:
            self._move(State.COMPLETE)
        elif self.state not in FINAL:
            self._move(State.CLOSED)

    async def _fail(self, error: BaseException) -> None:
        """Close, and cancel the run if `on_cancel` or `on_timeout` asks for it."""
        if self.span is not None:
            self.span.fail(error)
        self.close()
        options = self.deadline.wait_options
        if isinstance(error, anyio.get_cancelled_exc_class()):
            reaction: str = options.on_cancel
        else:
            is_late = isinstance(error, (APITimeoutError, ToolError))
            reaction = options.on_timeout if is_late else "leave"
        if reaction == "cancel":
            await self.undo()

    async def undo(self) -> None:
        """Cancel the run, or what may have been started, for at most 5 s, and only once."""
        if self._has_undone or self._fetcher.has_cancelled:
            return
        self._has_undone = True
        run = self.snapshot.run
        if self._ids and (run is None or run.is_active):
            options = self.deadline.wait_options.options
            await self._waiter.cancel_quietly(self._ids["run_id"], self._ids["thread_id"], options)
        elif not self._ids:
            await self._request.undo()

    # --- the time, and errors

    async def _check_time(self) -> None:
        if self._timer.seconds_left() <= 0 and self.state not in {State.DRAINING, State.ENDED}:
            self.close()
            raise await self._late()

    async def _late(self) -> OpenAIRunsError:
        waited, run = self.now() - self._timer.began, self.snapshot.run
        error: OpenAIRunsError = APITimeoutError(
            f"no event of the run was received within {waited:.1f} s"
        )
        error = error if run is None else RunWaitTimeout(run, waited)
        if self.deadline.wait_options.on_timeout == "cancel":
            await self.undo()
            error.add_note("the server was asked to cancel it (on_timeout='cancel')")
        return self._explain(error)

    def _explain(self, error: E) -> E:
        """Add to `error` what the caller needs to go on from here."""
        thread_id = self._ids.get("thread_id", self._request.thread_id)
        error.locate(thread_id=thread_id, run_id=self._ids.get("run_id"))
        if isinstance(error, (StreamInterrupted, StreamTooLarge)):
            error.text_so_far = self.snapshot.text
        if isinstance(error, StreamInterrupted):
            error.idempotency_key = None if self._ids else self._request.key
        if self.span is not None:
            self.span.fail(error)
        return error
