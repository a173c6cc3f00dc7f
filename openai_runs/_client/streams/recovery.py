"""Recovery of a stream whose connection was lost: it reconnects, or polls and fetches.

`Reconnector` reconnects to the stream after its last event. `ResultFetcher` waits for the run and
lists its messages and steps, where the stream cannot be resumed. `Reconnector.reconnect` decides
which of the two; `session` decides when a connection is lost, and `backfill` which events the
fetched objects amount to.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import anyio
import msgspec

from openai_runs._client.arguments import CallOptions
from openai_runs._client.core.call import is_transient
from openai_runs._client.core.deadline import Deadline
from openai_runs._client.core.pipeline import Pipeline
from openai_runs._client.flows.results import RunResult
from openai_runs._client.polling.waiter import Waiter, retrieve_run
from openai_runs._client.streams.requests import StreamRequest, follow
from openai_runs._log_ids import ids_of
from openai_runs._protocol.retry import backoff, poll_pause
from openai_runs._protocol.snapshot.snapshot import Snapshot
from openai_runs._transport import StreamReply
from openai_runs.config import HOLD_MARGIN, MIN_POLL_DELAY
from openai_runs.errors import APIError, OpenAIRunsError, StreamInterrupted
from openai_runs.types.messages import Message, MessageRole
from openai_runs.types.runs import Run

__all__ = ["Gather", "Reconnector", "ResultFetcher", "interrupted"]

_LOG: Final = logging.getLogger("openai_runs.client")

Gather = Callable[[Run, CallOptions], Awaitable[RunResult]]
"""Lists a run's messages and steps."""

_LISTINGS: Final = 5
"""Times that messages are listed while one of a finished run still shows as in progress."""


class ResultFetcher:
    """Fetches the run of one stream, and its result."""

    def __init__(
        self,
        pipeline: Pipeline,
        waiter: Waiter,
        deadline: Deadline,
        gather: Gather,
        response_format: type | None,
    ) -> None:
        self._response_format = response_format
        self._pipeline = pipeline
        self._waiter = waiter
        self._deadline = deadline
        self._gather = gather
        self.has_cancelled = False
        """Whether a cancelled wait has had the run cancelled."""

    async def fetch(self, run: Run | str, thread_id: str, *, notified: str) -> RunResult:
        """Return the result of the run, once it has ended or waits for outputs.

        `on_status` is not called with `notified`, the status it was called with last.

        Raises:
            RunWaitTimeout: The time was up; `.run` is the last state seen.
            APIError: The server is unreachable, or rejects the request.

        Cancellation: leaves the run alone, or cancels it with `on_cancel="cancel"`.
        """
        try:
            run = await self._wait(run, thread_id, notified)
        except anyio.get_cancelled_exc_class():
            self.has_cancelled = self._deadline.wait_options.on_cancel == "cancel"
            raise
        for count in range(1, _LISTINGS + 1):
            result = await self._gather(run, self._deadline.left())
            if not _is_behind(result):
                break
            await self.pause(count)
        return result

    async def _wait(self, run: Run | str, thread_id: str, notified: str) -> Run:
        on_status = self._deadline.wait_options.on_status

        def notify(run: Run) -> Awaitable[object] | object:
            return on_status(run) if on_status is not None and run.status != notified else None

        options = msgspec.structs.replace(
            self._deadline.wait_options,
            timeout=self._deadline.seconds_left(),
            on_status=None if on_status is None else notify,
        )
        return await self._waiter.wait(run, thread_id=thread_id, options=options)

    def result_of(self, run: Run, snapshot: Snapshot, *, recovered: bool) -> RunResult:
        """Return the result as the stream's events have built it; sends nothing."""
        return RunResult(
            run=run,
            messages=[one for one in snapshot.messages if one.role != MessageRole.USER],
            steps=snapshot.steps,
            recovered=recovered,
            response_format=self._response_format,
        )

    async def poll(self, ids: Mapping[str, str]) -> Run:
        """Return the run as it is now, by one request within the timeout of a poll.

        Raises:
            APIError: The request failed.
        """
        left = self._deadline.seconds_left()
        timeout = HOLD_MARGIN if left is None else min(HOLD_MARGIN, left)
        options: CallOptions = {**self._deadline.wait_options.options, "timeout": timeout}
        return await retrieve_run(self._pipeline, ids, options)

    async def poll_until_seen(self, ids: Mapping[str, str]) -> Run:
        """Return the run as soon as it can be retrieved; tolerates the same failures as a wait.

        Raises:
            APIError: The server is unreachable, or rejects the request.
        """
        options = msgspec.structs.replace(
            self._deadline.wait_options,
            timeout=self._deadline.seconds_left(),
            on_cancel="leave",  # the stream cancels the run itself
            on_status=None,  # called for the events that follow
            until=lambda status: True,
        )
        return await self._waiter.wait(ids["run_id"], thread_id=ids["thread_id"], options=options)

    async def pause(self, count: int) -> None:
        """Sleep as a wait does after its `count`th poll, at most for what is left."""
        runtime = self._pipeline.settings.runtime
        pause = max(
            poll_pause(self._deadline.wait_options.policy, count, runtime.chance()), MIN_POLL_DELAY
        )
        left = self._deadline.seconds_left()
        await runtime.sleep(pause if left is None else min(pause, left))


def _is_behind(result: RunResult) -> bool:
    """Return whether the list of messages is of a replica that lags behind the run."""
    if not result.run.is_terminal:
        return False
    messages = (one for one in result.messages if isinstance(one, Message))
    return any(message.status == "in_progress" for message in messages)


class Reconnector:
    """The attempts to reconnect to one stream."""

    def __init__(self, pipeline: Pipeline, deadline: Deadline, fetcher: ResultFetcher) -> None:
        self._pipeline = pipeline
        self._deadline = deadline
        self._fetcher = fetcher
        self.attempts = 0
        """Attempts since the last event was received."""
        self.is_pointless = False
        """Whether the same event would break the stream again."""
        self.is_rejected = False
        """Whether the server is back, and rejects the request: the run is polled."""

    async def reconnect(
        self, request: StreamRequest, ids: Mapping[str, str], last_id: str
    ) -> Run | StreamReply | None:
        """Return the stream from where it broke; None if the run can only be polled.

        Where the server cannot be reached the run is polled until it answers, and returned: the
        next attempt follows. It can only be polled where the server has not named `resume` in
        `openai-runs-features`, where `max_retries + 1` attempts in a row brought no event, where
        an event is too large, and where the server rejects the request, as it does for an event
        that it no longer has.

        Args:
            request: The request whose stream broke.
            ids: Of thread and run; empty if no event has named them yet.
            last_id: The id of the last event that was received; empty if it has none.

        Raises:
            StreamInterrupted: It is unknown which run the stream is of.
            APIError: Finding the run failed for longer than a wait tolerates.

        Cancellation: closes the request; the attempt can be made again.
        """
        self.attempts += 1
        if self.attempts > 1:
            await self._pause()
        is_spent = self.attempts > self._pipeline.settings.retry.max_retries + 1
        if not ids:
            found = None if is_spent else await self._find(request)
            if found is None:
                message = "the connection was lost before the run's id was received"
                raise StreamInterrupted(message)
            return found
        if is_spent or self.is_pointless or not self._pipeline.resumes():
            return None
        options = self._deadline.left()
        try:
            if last_id or request.from_the_start:
                return await follow(self._pipeline, ids, last_id, options)
            return await request.find(options)
        except APIError as error:
            words = "reconnecting to run %s failed: %s"
            extra = {**ids_of(error), **ids}
            _LOG.debug(words, ids["run_id"], type(error).__name__, extra=extra)
            if not is_transient(error):
                self.is_rejected = True
                return None  # such as 409: the server no longer has that event; the run is polled
        run = await self._fetcher.poll_until_seen(ids)
        return run if run.is_active else None

    async def _pause(self) -> None:
        runtime, policy = self._pipeline.settings.runtime, self._pipeline.settings.retry
        pause = backoff(policy, self.attempts - 1, None, runtime.chance())
        left = self._deadline.seconds_left()
        await runtime.sleep(pause if left is None else min(pause, left))

    async def _find(self, request: StreamRequest) -> Run | StreamReply | None:
        """Return what `find` finds; retries for `PollPolicy.max_outage` seconds, as a wait does."""
        now = self._pipeline.settings.runtime.monotonic
        began, polls = now(), 0
        while True:
            try:
                return await request.find(self._deadline.left())
            except APIError as error:
                limit = self._deadline.wait_options.policy.max_outage
                left = self._deadline.seconds_left()
                if left is not None:
                    limit = min(limit, left)
                if now() - began >= limit or not is_transient(error):
                    raise
            polls += 1
            await self._fetcher.pause(polls)


def interrupted(error: OpenAIRunsError, cause: OpenAIRunsError | None) -> StreamInterrupted:
    """Return the error of a stream that `cause` interrupted and whose recovery failed."""
    how = f" ({cause})" if cause is not None else ""
    if isinstance(error, StreamInterrupted):
        return StreamInterrupted(f"{error.message}{how}") if how else error
    message = f"the stream was interrupted{how}, and recovery failed: {error}"
    return StreamInterrupted(message)
