"""The requests a stream is made of: how each is begun, found again, and undone.

A run with tools is streamed in legs: one answers the create, one more each submission of
tool outputs. A leg whose stream broke before its first event is found again by what its
request left behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

import msgspec

from openai_runs._client.arguments import CallOptions
from openai_runs._client.core.call import is_transient
from openai_runs._client.core.deadline import Deadline
from openai_runs._client.core.pipeline import Pipeline
from openai_runs._client.flows.submit_outputs import SubmitFlow
from openai_runs._client.polling.waiter import Waiter, look
from openai_runs._protocol.endpoints import STREAM_RUN
from openai_runs._transport import StreamReply
from openai_runs.errors import APIError, BadRequestError, ConflictError
from openai_runs.types.runs import Run

__all__ = [
    "AnswerRequest",
    "FollowRequest",
    "StreamRequest",
    "SubmitRequest",
    "follow",
]

_SUBMITS: Final = 3
"""Times that outputs are sent while their run goes on asking for them."""


class StreamRequest(Protocol):
    """One request that a stream answers."""

    from_the_start: bool
    """Whether the leg's first event is the first of its run."""
    after: str | None
    """The event that the caller has seen before; None: none that the caller has named."""
    ids: Mapping[str, str]
    """Of the thread and the run; empty where the run is yet to be made."""

    @property
    def thread_id(self) -> str | None:
        """Return the thread, if there is one before the run is made."""
        ...

    @property
    def key(self) -> str | None:
        """Return the `Idempotency-Key` of a create; None where nothing is created."""
        ...

    async def open(self, options: CallOptions) -> Run | StreamReply:
        """Return the stream; a `Run` where the server has none, or only that could be saved.

        `options` hold what is left of the time.
        """
        ...

    async def find(self, options: CallOptions) -> Run | StreamReply | None:
        """Return what the request has done although its stream was lost; None: nobody knows."""
        ...

    async def undo(self) -> None:
        """Cancel the run the request may have started or moved, for at most 5 s."""
        ...

    def settled(self) -> None:
        """Take note that the run is known."""
        ...


class _OfARun:
    """What the legs of a run have in common that is already there."""

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
        """Return the run's thread."""
        return self.ids["thread_id"]

    def settled(self) -> None:
        """Do nothing: the run was known before."""

    async def undo(self) -> None:
        """Cancel the run."""
        ids = self.ids
        await self._waiter.cancel_quietly(ids["run_id"], ids["thread_id"], self._options)


class SubmitRequest(_OfARun):
    """Tool outputs are submitted, and the run goes on."""

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
        self._submission = SubmitFlow(pipeline, ids, outputs, options, stream=True)

    async def open(self, options: CallOptions) -> Run | StreamReply:
        """Submit; where the reply is lost, look at the run before anything is sent again."""
        return await self._submission.open(options.get("timeout"))

    async def find(self, options: CallOptions) -> Run | StreamReply | None:
        """Ask again under the same key where that is safe, else return the run as it is."""
        if self._pipeline.honours_keys():
            return await self.open(options)
        return await look(self._pipeline, self.ids, options)


class AnswerRequest(SubmitRequest):
    """The outputs of local tools are submitted, for as long as their run asks for them."""

    def __init__(
        self,
        pipeline: Pipeline,
        waiter: Waiter,
        ids: Mapping[str, str],
        outputs: list[dict[str, Any]],
        deadline: Deadline,
    ) -> None:
        """Build the request; `deadline` is the time and the options of the whole call."""
        super().__init__(pipeline, waiter, ids, outputs, deadline.wait_options.options)
        self._deadline = deadline

    async def open(self, options: CallOptions) -> Run | StreamReply:
        """Submit; a server that is away is waited for, since the outputs are worth it.

        Where it refuses them, the run has ended or somebody else has answered: it is returned.
        """
        submits = 0
        while True:
            try:
                return await super().open(self._deadline.left())
            except (BadRequestError, ConflictError) as refusal:
                run = await self._submission.verify(refusal)
                if run is None:
                    raise
                return run
            except APIError as failure:
                submits += 1
                if submits >= _SUBMITS or not is_transient(failure):
                    raise
            run = await self._see()
            if not self._submission.is_awaited_by(run):
                return run

    async def _see(self) -> Run:
        """Return the run as soon as it can be seen, bearing what any wait for a run bears."""
        plan = msgspec.structs.replace(
            self._deadline.wait_options,
            timeout=self._deadline.seconds_left(),
            on_cancel="leave",  # whoever opens a leg undoes it
            on_status=None,  # what is seen here is told by the events that follow
            until=lambda status: True,
        )
        ids = self.ids
        return await self._waiter.wait(ids["run_id"], thread_id=ids["thread_id"], plan=plan)


class FollowRequest(_OfARun):
    """A run that is already there is followed."""

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
        """Take the stream up where the server offers that, else return the run."""
        in_time: CallOptions = {**self._options, "timeout": options.get("timeout")}
        run = await look(self._pipeline, self.ids, in_time)
        if not self._pipeline.resumes():
            return run
        try:
            return await self._follow(in_time)
        except APIError:
            return run  # its events are gone: what is stored of it tells the rest

    async def _follow(self, options: CallOptions) -> Run | StreamReply:
        try:
            return await follow(self._pipeline, self.ids, self.after, options)
        except (BadRequestError, ConflictError):
            if self.from_the_start:
                raise
            # The place is lost, or was never one of this run: everything is told anew.
            self.after, self.from_the_start = None, True
            return await follow(self._pipeline, self.ids, None, options)

    async def find(self, options: CallOptions) -> Run | StreamReply | None:
        """Begin again."""
        return await self.open(options)


async def follow(
    pipeline: Pipeline, ids: Mapping[str, str], after: str | None, options: CallOptions
) -> Run | StreamReply:
    """Return the stream of a run from after the event `after` on.

    Endpoint: GET /threads/{thread_id}/runs/{run_id}/stream

    Raises:
        ConflictError: The server no longer has that place.
        APIError: The stream cannot be had.

    Cancellation: closes the request.
    """
    if after:
        headers = {**(options.get("extra_headers") or {}), "Last-Event-ID": after}
        options = {**options, "extra_headers": headers}
    return await pipeline.open_stream(pipeline.request(STREAM_RUN, ids, options), options)
