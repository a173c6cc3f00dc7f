"""What came of a run, asked for: the wait for its end, and then its messages and steps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import anyio

from openai_runs._client.arguments import CallOptions
from openai_runs._client.core.deadline import Deadline
from openai_runs._client.core.pipeline import Pipeline
from openai_runs._client.flows.results import RunResult
from openai_runs._client.polling.waiter import Waiter, look
from openai_runs._protocol.retry import poll_pause
from openai_runs._protocol.snapshot.snapshot import Snapshot
from openai_runs.config import HOLD_MARGIN, MIN_POLL_DELAY
from openai_runs.types.messages import Message, MessageRole
from openai_runs.types.runs import Run

__all__ = ["Gather", "ResultFetcher"]

Gather = Callable[[Run, CallOptions], Awaitable[RunResult]]

_LOOKS: Final = 5
"""Times that messages are listed which a finished run cannot still be writing."""


class ResultFetcher:
    """Fetches the result of one stream's run."""

    def __init__(
        self,
        pipeline: Pipeline,
        waiter: Waiter,
        deadline: Deadline,
        gather: Gather,
        response_format: type | None,
    ) -> None:
        """Keep them; `gather` lists a run's messages and steps."""
        self._response_format = response_format
        self._pipeline = pipeline
        self._waiter = waiter
        self._deadline = deadline
        self._gather = gather
        self.has_cancelled = False
        """Whether a cancelled wait has had the run cancelled."""

    async def fetch(self, run: Run | str, thread_id: str) -> RunResult:
        """Return what came of the run, once it is settled.

        Raises:
            RunWaitTimeout: The time was up; `.run` is the last state seen.
            APIError: The server is gone, or refuses.

        Cancellation: leaves the run alone, or cancels it with `on_cancel="cancel"`.
        """
        try:
            run = await self._waiter.wait_within(self._deadline, run, thread_id)
        except anyio.get_cancelled_exc_class():
            self.has_cancelled = self._deadline.wait_options.on_cancel == "cancel"
            raise
        for count in range(1, _LOOKS + 1):
            result = await self._gather(run, self._deadline.left())
            if not _is_behind(result):
                break
            await self.pause(count)
        return result

    def told(self, run: Run, snapshot: Snapshot, *, recovered: bool) -> RunResult:
        """Return what came of the run, as the stream's events have told it."""
        return RunResult(
            run=run,
            messages=[one for one in snapshot.messages if one.role != MessageRole.USER],
            steps=snapshot.steps,
            recovered=recovered,
            response_format=self._response_format,
        )

    async def look(self, ids: Mapping[str, str]) -> Run:
        """Return the run as it is now, within what a poll may take.

        Raises:
            APIError: The look failed.

        Cancellation: closes the request.
        """
        left = self._deadline.seconds_left()
        timeout = HOLD_MARGIN if left is None else min(HOLD_MARGIN, left)
        options: CallOptions = {**self._deadline.wait_options.options, "timeout": timeout}
        return await look(self._pipeline, ids, options)

    async def pause(self, count: int) -> None:
        """Sleep as a wait does after its `count`th look, at most for what is left."""
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
