"""What a stream does to go on: read, take up a broken connection, answer tools, catch up.

Theory of operation. A stream is made of legs (`legs`), each answered by one connection (`feed`).
Where there is no connection to read, `_step` is what has to be done next; None at the end. Events
are applied to the snapshot when they are taken, so the run is never ahead of them. No task runs in
the background: work is done while somebody awaits `advance`, and no cancel scope outlives that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import anyio
import msgspec

from openai_runs._client.core.deadline import Deadline
from openai_runs._client.core.event_reader import EventReader
from openai_runs._client.core.pipeline import Pipeline
from openai_runs._client.flows.results import RunResult
from openai_runs._client.flows.tool_loop import ToolLoop, is_look, waiting_calls
from openai_runs._client.polling.handle import tell
from openai_runs._client.polling.waiter import Waiter
from openai_runs._client.streams.backfill import missing_events
from openai_runs._client.streams.fetching import Gather, ResultFetcher
from openai_runs._client.streams.idle_timer import IdleTimer
from openai_runs._client.streams.recovery import Reconnector, interrupted
from openai_runs._client.streams.requests import AnswerRequest, StreamRequest
from openai_runs._protocol.events import named_by_its_data
from openai_runs._protocol.lifecycle import is_settled, seconds_to_expiry
from openai_runs._protocol.snapshot.snapshot import Snapshot
from openai_runs._transport import StreamReply
from openai_runs.config import MAX_ID_CHARS
from openai_runs.errors import (
    APIConnectionError,
    APIError,
    APITimeoutError,
    BadRequestError,
    ConflictError,
    OpenAIRunsError,
    RunWaitTimeout,
    StreamError,
    StreamInterrupted,
    ToolError,
)
from openai_runs.types.events import Event, EventName, RunEvent
from openai_runs.types.runs import Run

__all__ = ["StreamSession"]

E = TypeVar("E", bound=OpenAIRunsError)


class StreamSession:
    """One stream, from its first request to its last event."""

    def __init__(
        self,
        pipeline: Pipeline,
        waiter: Waiter,
        deadline: Deadline,
        leg: StreamRequest,
        *,
        gather: Gather,
        idle: float,
        tools: ToolLoop | None = None,
        response_format: type | None = None,
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            pipeline: What requests are sent through.
            waiter: Waits for the run where its stream cannot be taken up again.
            deadline: The call's time and options.
            leg: The first leg.
            gather: Fetches a run's messages and steps.
            idle: Seconds without an event before the run is looked at.
            tools: Answers tool calls; None: the stream ends where the run waits for outputs.
            response_format: Of the result's `parsed`.
        """
        self._pipeline = pipeline
        self._waiter = waiter
        self._leg = leg
        self._fetcher = ResultFetcher(pipeline, waiter, deadline, gather, response_format)
        self._taking_up = Reconnector(pipeline, deadline, self._fetcher)
        self._tools = tools
        self.now = pipeline.settings.runtime.monotonic
        self._patience = IdleTimer(self.now, timeout=deadline.seconds_left(), idle=idle)
        self._feed: EventReader | None = None
        self._step: Callable[[], Awaitable[None]] | None = self._begin
        self._ids = dict(leg.ids)
        self._date: Any = {}
        self._dated = self._patience.began
        self._leg_is_over = self._is_fresh = self._is_closed = False
        self._is_undone = self._is_polled = self._has_moved = False
        self._failure: OpenAIRunsError | None = None
        self._reported = ""
        self.deadline = deadline
        self.snapshot = Snapshot()
        self.ready: deque[Event] = deque()
        """Events that have come and were not taken yet."""
        self.last_id = ""
        self.recovered = False
        """Whether the connection was lost and the rest was told in another way."""
        self.is_whole = False
        """Whether the snapshot holds all of the run, and not only this leg of it."""

    @property
    def is_over(self) -> bool:
        """Return whether there are no more events."""
        return not (self._step or self._feed or self.ready)

    @property
    def is_reading(self) -> bool:
        """Return whether there is a connection to read."""
        return self._feed is not None

    @property
    def is_open(self) -> bool:
        """Return whether the first leg has been opened, or was tried to be."""
        return self._step != self._begin

    async def advance(self, until: float | None = None) -> None:
        """Bring events into `ready`, or the stream nearer to its end.

        Args:
            until: When to return without an event while there is a connection to read; all
                other work is not begun at all where this is given.

        Cancellation: loses nothing while reading; a request under way is closed, and tools
        that run are cancelled, after which the stream is over.
        """
        if self._feed is not None:
            await self._read(self._feed, until)
        elif self._step is not None and until is None:
            await self._step()

    def take_at_once(self, *, is_in_time: bool = False) -> Event | None:
        """Return what `take` does where nothing has to be awaited for it, else None."""
        event, deadline = self.ready[0], self._patience.deadline
        is_late = deadline is not None and not is_in_time and self.now() >= deadline
        if is_late or isinstance(event, RunEvent):
            return None
        self.ready.popleft()
        self.snapshot.apply(event)
        if event.id and len(event.id) <= MAX_ID_CHARS:
            self.last_id = event.id
        return event

    async def take(self) -> Event:
        """Return the next event of `ready`, with the snapshot brought up to it.

        Raises `RunWaitTimeout` where the time was up. Cancellation: leaves the event there.
        """
        await self._check_time()
        event = self.take_at_once(is_in_time=True) or self.ready[0]
        if not isinstance(event, RunEvent):
            return event
        if self._ids.get("run_id", event.data.id) != event.data.id:
            return self.ready.popleft()  # of another run: told, and not taken for ours
        if event.data.status != self._reported:
            self._reported = event.data.status
            await tell(
                self.deadline.wait_options.on_status, event.data, self._patience.seconds_left()
            )
        if self.ready:  # else somebody has closed the stream meanwhile
            self.ready.popleft()
        self.snapshot.apply(event)
        if event.id and len(event.id) <= MAX_ID_CHARS:
            self.last_id = event.id
        self.is_whole = self.is_whole or event.event == EventName.RUN_CREATED
        self._know(event.data)
        return named_by_its_data(event)

    @property
    def will_report(self) -> bool:
        """Return whether the caller's `on_status` may be called before the next event is taken."""
        return self.deadline.wait_options.on_status is not None and isinstance(
            self.ready[0], RunEvent
        )

    async def _check_time(self) -> None:
        if self._patience.seconds_left() <= 0 and not self._leg_is_over:
            self.close()
            raise await self._late()

    def close(self) -> None:
        """Let go of the connection; there are no more events."""
        self._is_closed = True
        self._drop()
        self._step = None
        self.ready.clear()

    async def undo(self) -> None:
        """Cancel the run, or what may have been started, for at most 5 s, and only once."""
        if self._is_undone or self._fetcher.has_cancelled:
            return
        self._is_undone = True
        run = self.snapshot.run
        if self._ids and (run is None or run.is_active):
            options = self.deadline.wait_options.options
            await self._waiter.cancel_quietly(self._ids["run_id"], self._ids["thread_id"], options)
        elif not self._ids:
            await self._leg.undo()

    async def _begin(self) -> None:
        self._step = None  # whatever comes of it, a create is not begun again
        self._join(await self.deadline.start(self._leg.open(self.deadline.left()), self.undo))

    def _join(self, opened: Run | StreamReply) -> None:
        """Read the stream; where there is none to be had, the run itself tells what it can."""
        if self._is_closed:
            if isinstance(opened, StreamReply):
                opened.close()
        elif isinstance(opened, StreamReply):
            self._feed = EventReader(opened, after=self.last_id if self._pipeline.resumes() else "")
            self._date, self._dated = opened.headers, self.now()
            self._patience.heard()
            self._leg_is_over = self._is_polled = self._has_moved = False
            self._step = self._end_leg
        else:
            self._know(opened, is_news=False)
            self.recovered = True
            self._step = self._recover

    def _know(self, run: Run, *, is_news: bool = True) -> None:
        """Take note of which run this is, how long it has, and whether the leg is over."""
        self._pipeline.shared.limiter.on_run(run, is_new=not self._ids)
        self._ids = {"thread_id": run.thread_id, "run_id": run.id}
        self._leg.settled()
        self._patience.allow(seconds_to_expiry(run, self._date))
        if is_news:
            # Not a status nobody knows: more may come, and silence or the end is seen as such.
            self._leg_is_over = run.is_terminal or run.needs_action
            self._has_moved = self._has_moved or not run.needs_action

    async def _read(self, feed: EventReader, until: float | None) -> None:
        await self._check_time()
        if self._is_fresh:  # the caller may have taken long over what came last
            self._is_fresh = False
            self._patience.heard()
        limit = self._patience.limit(is_over=self._leg_is_over)
        wait = limit if until is None else min(limit, until)
        try:
            events = await feed.read(max(0.0, wait - self.now()))
        except APIConnectionError as error:
            self._cut(error)
        except StreamError as error:
            self.close()
            raise self._explain(error) from None
        else:
            if events:
                self._is_fresh = True
                self._taking_up.tries = 0
                self.ready.extend(events)
            elif events is None:
                self._leg_is_over |= feed.is_empty and self._leg.after is not None
                self._cut(None)
            elif self.now() >= limit:
                await self._overstay(feed)

    async def _overstay(self, feed: EventReader) -> None:
        """Find out why nothing comes: the end without its mark, a stall, or a long thought."""
        if self._leg_is_over:
            self._cut(None)
            return
        await self._check_time()
        self._patience.looked()
        heard, feed.heard = feed.heard, False
        is_lost = not heard and (self._pipeline.resumes() or not self._ids)
        failure: APIError | None = None
        try:
            run = await self._fetcher.look(self._ids) if self._ids else None
        except APIError as error:  # while bytes come, somebody is there
            is_lost, failure = not heard, error
        else:
            is_lost = is_lost or (run is not None and is_settled(run.status))
        if is_lost:
            self._cut(failure)

    def _cut(self, error: APIError | None) -> None:
        """Go on after the connection is gone: to the end of the leg, or to recovering."""
        self._drop()
        if self._is_closed:
            return
        if self._leg_is_over:
            self._step = self._end_leg
        else:
            self._failure = error
            self.recovered = True
            self._step = self._recover

    def _drop(self) -> None:
        if self._feed is not None:
            self._feed.close()
            self._feed = None

    async def _recover(self) -> None:
        """Take the stream up again where that can be done, else wait for the run and catch up."""
        try:
            opened = None
            if not self._leg_is_over:  # else it contradicts itself, and would do so again
                opened = await self._taking_up.next(self._leg, self._ids, self.last_id)
            if opened is None:
                await self._catch_up()
            else:
                self._join(opened)
        except OpenAIRunsError as error:
            self._step = None
            if isinstance(error, RunWaitTimeout) or self._patience.seconds_left() <= 0:
                raise
            lost = interrupted(error, self._failure)
            raise self._explain(lost) from (self._failure if lost is error else error)

    async def _catch_up(self) -> None:
        """Wait for the run and tell what was missed."""
        told = await self._fetch()
        if self._is_closed:
            return
        missed = missing_events(self.snapshot, told.run, told.messages, told.steps)
        self.ready.extend(missed)
        self.snapshot.verified()
        self._is_polled |= not self._leg_is_over
        self.recovered |= self._leg_is_over and bool(missed)
        self.is_whole = self._leg_is_over = True
        self._step = self._end_leg

    async def _fetch(self) -> RunResult:
        run = None if self.snapshot.is_contradicted else self.snapshot.run
        told = await self._fetcher.fetch(run or self._ids["run_id"], self._ids["thread_id"])
        self._reported = told.run.status
        return msgspec.structs.replace(told, recovered=self.recovered)

    async def result(self) -> RunResult:
        """Return what came of the run, waiting for it where the stream was left early."""
        run = self.snapshot.run
        is_told = self.is_whole and self._leg_is_over and not self.snapshot.is_contradicted
        if run is not None and is_told:
            return self._fetcher.told(run, self.snapshot, recovered=self.recovered)
        if not self._ids:
            message = "this stream was left before it told which run it is of"
            raise StreamError(message)
        return await self._fetch()

    async def _end_leg(self) -> None:
        """Answer the tool calls the leg ended with, if it did; else this was the last."""
        self._step = None
        run = self.snapshot.run
        if run is not None and self.snapshot.is_contradicted:
            self._step = self._recover
            return
        if run is None or self._tools is None or not waiting_calls(run):
            return
        self._leg_is_over = False  # whoever leaves the stream here asks the run what came of it
        try:
            is_told = self._has_moved and not self._is_polled
            repeats = self._tools.repeats(run, is_new=is_told)
            if is_look(repeats):  # a replica may lag behind the submit
                self._step = partial(self._look_again, repeats)
                return
            outputs = await self.deadline.start(self._outputs(run, self._tools), self.undo)
        except ToolError:
            if self.deadline.wait_options.on_timeout == "cancel":
                await self.undo()
            raise
        if self._is_closed:
            return
        leg = AnswerRequest(self._pipeline, self._waiter, self._ids, outputs, self.deadline)
        try:
            opened = await self.deadline.start(leg.open(self.deadline.left()), self.undo)
        except (BadRequestError, ConflictError):
            if not repeats:
                raise
            self._step = partial(self._look_again, repeats)  # they were taken before
            return
        self._leg = leg
        self.snapshot.outputs_submitted()
        self._join(opened)

    async def _look_again(self, count: int) -> None:
        await self._fetcher.pause(count)
        await self._check_time()
        await self._catch_up()

    async def _outputs(self, run: Run, tools: ToolLoop) -> list[dict[str, str]]:
        with anyio.move_on_after(self._patience.seconds_left()):
            if self._is_polled:
                return await tools.answer(run)
            return await tools.answer(run, self._date, age=self.now() - self._dated)
        raise await self._late()

    async def _late(self) -> OpenAIRunsError:
        waited, run = self.now() - self._patience.began, self.snapshot.run
        error: OpenAIRunsError = APITimeoutError(f"the stream told no run in {waited:.1f} s")
        error = error if run is None else RunWaitTimeout(run, waited)
        if self.deadline.wait_options.on_timeout == "cancel":
            await self.undo()
            error.add_note("the server was asked to cancel it (on_timeout='cancel')")
        return self._explain(error)

    def _explain(self, error: E) -> E:
        """Add to `error` what the caller needs to go on from here."""
        thread_id = self._ids.get("thread_id", self._leg.thread_id)
        error.locate(thread_id=thread_id, run_id=self._ids.get("run_id"))
        if isinstance(error, StreamInterrupted):
            error.text_so_far = self.snapshot.text
            error.idempotency_key = None if self._ids else self._leg.key
        return error
