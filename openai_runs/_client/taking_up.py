"""Taking up a stream whose connection is gone, where that can be done."""

from __future__ import annotations

from collections.abc import Mapping

from openai_runs._client.attempts import Timed
from openai_runs._client.call import may_heal
from openai_runs._client.fetching import Fetcher
from openai_runs._client.legs import Leg, follow
from openai_runs._client.pipeline import Pipeline
from openai_runs._protocol.retry import backoff
from openai_runs._transport import StreamReply
from openai_runs.errors import APIError, OpenAIRunsError, StreamInterrupted
from openai_runs.types.runs import Run

__all__ = ["TakingUp", "interrupted"]


class TakingUp:
    """The tries to take one stream up again."""

    def __init__(self, pipeline: Pipeline, timed: Timed, fetcher: Fetcher) -> None:
        """Keep the three; nothing has been tried yet."""
        self._pipeline = pipeline
        self._timed = timed
        self._fetcher = fetcher
        self.tries = 0
        """Tries since the last event came."""

    async def next(
        self, leg: Leg, ids: Mapping[str, str], last_id: str
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
        options = self._timed.left()
        try:
            if last_id or leg.from_the_start:
                return await follow(self._pipeline, ids, last_id, options)
            return await leg.find(options)
        except APIError:
            return None  # such as 409: the place is lost; what is stored tells the rest

    async def _pause(self) -> None:
        seams, policy = self._pipeline.settings.seams, self._pipeline.settings.retry
        pause, left = (
            backoff(policy, self.tries - 1, None, seams.chance()),
            self._timed.seconds_left(),
        )
        await seams.sleep(pause if left is None else min(pause, left))

    async def _find(self, leg: Leg) -> Run | StreamReply | None:
        """Return what `find` finds, bearing a server that is away as any wait does."""
        now = self._pipeline.settings.seams.monotonic
        began, looks = now(), 0
        while True:
            try:
                return await leg.find(self._timed.left())
            except APIError as error:
                limit = self._timed.plan.policy.max_outage
                left = self._timed.seconds_left()
                if left is not None:
                    limit = min(limit, left)
                if now() - began >= limit or not may_heal(error):
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
