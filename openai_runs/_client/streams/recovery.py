"""Taking up a stream whose connection is gone, where that can be done."""

from __future__ import annotations

from collections.abc import Mapping

from openai_runs._client.core.call import is_transient
from openai_runs._client.core.deadline import Deadline
from openai_runs._client.core.pipeline import Pipeline
from openai_runs._client.streams.fetching import ResultFetcher
from openai_runs._client.streams.requests import StreamRequest, follow
from openai_runs._protocol.retry import backoff
from openai_runs._transport import StreamReply
from openai_runs.errors import APIError, OpenAIRunsError, StreamInterrupted
from openai_runs.types.runs import Run

__all__ = ["Reconnector", "interrupted"]


class Reconnector:
    """The tries to take one stream up again."""

    def __init__(self, pipeline: Pipeline, deadline: Deadline, fetcher: ResultFetcher) -> None:
        """Keep the three; nothing has been tried yet."""
        self._pipeline = pipeline
        self._deadline = deadline
        self._fetcher = fetcher
        self.tries = 0
        """Tries since the last event came."""

    async def next(
        self, leg: StreamRequest, ids: Mapping[str, str], last_id: str
    ) -> Run | StreamReply | None:
        """Return the stream from where it broke; None if only the run itself can be asked.

        Args:
            leg: The leg that broke.
            ids: Of thread and run; empty if no event has told them yet.
            last_id: The last event that came; empty if it has no place.

        Raises:
            StreamInterrupted: Nobody knows which run it is.
            APIError: Looking for the run failed for longer than a wait bears.

        Cancellation: closes the request; the try can be made again.
        """
        self.tries += 1
        if self.tries > 1:
            await self._pause()
        is_spent = self.tries > self._pipeline.settings.retry.max_retries + 1
        if not ids:
            found = None if is_spent else await self._find(leg)
            if found is None:
                message = "the stream was cut before it told which run it is of"
                raise StreamInterrupted(message)
            return found
        if is_spent or not self._pipeline.resumes():
            return None
        options = self._deadline.left()
        try:
            if last_id or leg.from_the_start:
                return await follow(self._pipeline, ids, last_id, options)
            return await leg.find(options)
        except APIError:
            return None  # such as 409: the place is lost; what is stored tells the rest

    async def _pause(self) -> None:
        runtime, policy = self._pipeline.settings.runtime, self._pipeline.settings.retry
        pause, left = (
            backoff(policy, self.tries - 1, None, runtime.chance()),
            self._deadline.seconds_left(),
        )
        await runtime.sleep(pause if left is None else min(pause, left))

    async def _find(self, leg: StreamRequest) -> Run | StreamReply | None:
        """Return what `find` finds, bearing a server that is away as any wait does."""
        now = self._pipeline.settings.runtime.monotonic
        began, looks = now(), 0
        while True:
            try:
                return await leg.find(self._deadline.left())
            except APIError as error:
                limit = self._deadline.wait_options.policy.max_outage
                left = self._deadline.seconds_left()
                if left is not None:
                    limit = min(limit, left)
                if now() - began >= limit or not is_transient(error):
                    raise
            looks += 1
            await self._fetcher.pause(looks)


def interrupted(error: OpenAIRunsError, cut: OpenAIRunsError | None) -> StreamInterrupted:
    """Return what a stream ends with that was `cut`, when all else failed with `error`."""
    if isinstance(error, StreamInterrupted):
        return error
    how = f" ({cut})" if cut is not None else ""
    message = f"the stream was cut{how}, and asking for the run did not help either: {error}"
    return StreamInterrupted(message)
