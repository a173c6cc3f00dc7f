"""The requests of a stream: how each is sent, found again, and undone.

A run with tools is streamed by several requests: the create, and each submission of tool
outputs. One whose stream broke before its first event is found by its result: the run with its
key, or the run that no longer waits. `session` decides when to send which.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from openai_runs._client.arguments import CallOptions
from openai_runs._client.core.pipeline import Pipeline
from openai_runs._client.flows.submit_outputs import SubmitFlow
from openai_runs._client.polling.waiter import Waiter, retrieve_run
from openai_runs._protocol.endpoints import STREAM_RUN
from openai_runs._transport import StreamReply
from openai_runs.errors import APIError, BadRequestError, ConflictError
from openai_runs.types.runs import Run

__all__ = [
    "FollowRequest",
    "StreamRequest",
    "SubmitRequest",
    "follow",
]


class StreamRequest(Protocol):
    """One request that a stream answers."""

    from_the_start: bool
    """Whether the stream's first event is the first of its run."""
    after: str | None
    """The id of the last event the caller has received before; None: not given."""
    ids: Mapping[str, str]
    """Of the thread and the run; empty where the run is yet to be made."""

    @property
    def thread_id(self) -> str | None:
        """Return the thread's id, if there is a thread before the run is made."""
        ...

    @property
    def key(self) -> str | None:
        """Return the `Idempotency-Key` of a create; None where nothing is created."""
        ...

    async def open(self, options: CallOptions) -> Run | StreamReply:
        """Return the stream; a `Run` where the server has no stream, or its reply was lost.

        `options` hold what is left of the time.
        """
        ...

    async def find(self, options: CallOptions) -> Run | StreamReply | None:
        """Return the stream or run of a request whose reply was lost; None: not found."""
        ...

    async def undo(self) -> None:
        """Cancel the run the request may have started or moved, for at most 5 s."""
        ...

    def on_run_known(self) -> None:
        """The run is known: undoing is cancelling it, and no longer this request's."""
        ...


class _RunRequest:
    """What requests about a run that exists have in common."""

    key: str | None = None

    def __init__(
        self,
        pipeline: Pipeline,
        waiter: Waiter,
        ids: Mapping[str, str],
        options: CallOptions,
        *,
        after: str | None = None,
        from_the_start: bool = False,
    ) -> None:
        self._pipeline = pipeline
        self._waiter = waiter
        self._options = options
        self.ids = ids
        self.after = after
        self.from_the_start = from_the_start

    @property
    def thread_id(self) -> str | None:
        """Return the id of the run's thread."""
        return self.ids["thread_id"]

    def on_run_known(self) -> None:
        """Do nothing: the run was known before."""

    async def undo(self) -> None:
        """Cancel the run."""
        ids = self.ids
        await self._waiter.cancel_quietly(ids["run_id"], ids["thread_id"], self._options)


class SubmitRequest(_RunRequest):
    """Submits tool outputs; the run goes on."""

    def __init__(
        self,
        pipeline: Pipeline,
        waiter: Waiter,
        ids: Mapping[str, str],
        outputs: list[dict[str, Any]],
        options: CallOptions,
    ) -> None:
        """Build the request; an `idempotency_key` of the caller's is used."""
        super().__init__(pipeline, waiter, ids, options)
        self._flow = SubmitFlow(pipeline, ids, outputs, options, stream=True)

    async def open(self, options: CallOptions) -> Run | StreamReply:
        """Submit; where the reply is lost, the run is polled before anything is sent again."""
        return await self._flow.open(options.get("timeout"))

    async def find(self, options: CallOptions) -> Run | StreamReply | None:
        """Send it again under the same key where that is safe, else return the run as it is."""
        if self._pipeline.honours_keys():
            return await self.open(options)
        return await retrieve_run(self._pipeline, self.ids, options)


class FollowRequest(_RunRequest):
    """Follows an existing run."""

    def __init__(
        self,
        pipeline: Pipeline,
        waiter: Waiter,
        ids: Mapping[str, str],
        after: str | None,
        options: CallOptions,
    ) -> None:
        """Begin after the event `after`, or with the run's first."""
        super().__init__(pipeline, waiter, ids, options, after=after, from_the_start=after is None)

    async def open(self, options: CallOptions) -> Run | StreamReply:
        """Resume the stream where the server offers that, else return the run."""
        in_time: CallOptions = {**self._options, "timeout": options.get("timeout")}
        run = await retrieve_run(self._pipeline, self.ids, in_time)
        if not self._pipeline.resumes():
            return run
        try:
            return await self._follow(in_time)
        except APIError:
            return run  # its events are deleted: the rest is backfilled

    async def _follow(self, options: CallOptions) -> Run | StreamReply:
        try:
            return await follow(self._pipeline, self.ids, self.after, options)
        except (BadRequestError, ConflictError):
            if self.from_the_start:
                raise
            # The event is deleted, or of another run: follow from the first event.
            self.after, self.from_the_start = None, True
            return await follow(self._pipeline, self.ids, None, options)

    async def find(self, options: CallOptions) -> Run | StreamReply | None:
        """Open the stream again."""
        return await self.open(options)


async def follow(
    pipeline: Pipeline, ids: Mapping[str, str], after: str | None, options: CallOptions
) -> Run | StreamReply:
    """Return the stream of a run from after the event `after` on.

    Endpoint: GET /threads/{thread_id}/runs/{run_id}/stream

    Raises:
        ConflictError: The server no longer has that event.
        APIError: The request failed.
    """
    if after:
        headers = {**(options.get("extra_headers") or {}), "Last-Event-ID": after}
        options = {**options, "extra_headers": headers}
    return await pipeline.open_stream(pipeline.build_request(STREAM_RUN, ids, options), options)
