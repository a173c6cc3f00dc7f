"""Creating a run exactly once, also when the answer is lost.

Theory of operation. A create carries its idempotency key as one of the run's metadata pairs
(`_protocol.create_marker`). Where the answer is lost, the run is looked up on the thread by that
marker before anything is sent again. There is no marker where the caller uses all 16 pairs, where
`RetryPolicy.adopt` is off, where the thread is created with the run, and where the server is known
to remember idempotency keys: then the same request is sent again and answered as the first was.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from openai_runs._client.arguments import Arguments, CallOptions, follow_up_options
from openai_runs._client.core.call import Ambiguity
from openai_runs._client.core.deadline import Deadline
from openai_runs._client.core.event_reader import EventReader
from openai_runs._client.core.pipeline import Pipeline, with_extra_body
from openai_runs._client.flows.active_runs import when_free
from openai_runs._client.polling.waiter import Waiter
from openai_runs._protocol.create_marker import add_marker, find_marked, has_marker, strip_marker
from openai_runs._protocol.endpoints import CREATE_RUN, GET_RUN, LIST_RUNS, Endpoint
from openai_runs._protocol.spec import QueryValue, RequestSpec, check_header
from openai_runs._protocol.sse import EventTooLarge
from openai_runs._transport import StreamReply
from openai_runs.config import ADOPT_DELAY
from openai_runs.errors import ActiveRunError, APIConnectionError, APIError, StreamError
from openai_runs.types.events import RunEvent
from openai_runs.types.runs import Run

__all__ = ["CreateRunFlow", "recovered_run"]

_GET_MARKED_RUN: Final = msgspec.structs.replace(GET_RUN, keeps_marker=True)
_LIST_MARKED_RUNS: Final = msgspec.structs.replace(LIST_RUNS, keeps_marker=True)
_NEWEST: Final[Mapping[str, QueryValue]] = {"limit": 20, "order": "desc"}
"""The runs of a thread among which a lost one is searched."""


class CreateRunFlow:
    """One create of a run, on a thread or with a thread of its own.

    It is also the first `StreamRequest` of a stream. Where the thread is busy and the caller
    waits for it, each attempt is a create with a key of its own; what can be found or undone is
    the last one.

    Args:
        pipeline: What is sent through.
        waiter: Waits for a run that blocks the thread, and cancels what is undone.
        endpoint: `CREATE_RUN`, or `CREATE_THREAD_AND_RUN`.
        given: The call's arguments.
        thread_id: The thread; None where it is created with the run.
        stream: Whether to request a stream.
    """

    from_the_start = True
    after: str | None = None
    ids: Mapping[str, str] = MappingProxyType({})

    def __init__(
        self,
        pipeline: Pipeline,
        waiter: Waiter,
        endpoint: Endpoint[Run],
        given: Arguments,
        *,
        thread_id: str | None = None,
        stream: bool = False,
    ) -> None:
        self._pipeline = pipeline
        self._waiter = waiter
        self._endpoint = endpoint
        self._given = given
        self._stream = stream
        self.thread_id = thread_id
        include = given.start.get("include")
        self._query = None if include is None else {"include": [*include]}
        self.key: str | None = None
        """The `Idempotency-Key` of the last attempt; None before the first."""
        self._spec: RequestSpec[Any] | None = None
        self._options = given.call
        self._is_marked = False
        self._ambiguity = Ambiguity()

    def make(self) -> Coroutine[Any, Any, Run]:
        """Return the run, created exactly once; to be awaited.

        Raises:
            ActiveRunError: The thread has an active run that is not this call's.
            APIError: The call failed; `.maybe_created` says whether the run may exist.

        Cancellation: closes the request; `undo` finds and cancels what it may have created.
        """
        return self._when_free()

    def make_within(self, deadline: Deadline) -> Coroutine[Any, Any, Run]:
        """Return what `make` does; where it ends early, it is undone if the call asks for it."""
        return deadline.start(self.make(), self.undo)

    def open(self, options: CallOptions) -> Coroutine[Any, Any, Run | StreamReply]:
        """Return the stream of the run; a `Run` where the server does not stream; to be awaited.

        The call's own options hold the time. Raises and is cancelled as `make`.
        """
        return self._when_free()

    def on_run_known(self) -> None:
        """The run is known: undoing is cancelling it, and no longer this request's."""
        self._ambiguity.maybe_sent = False

    async def find(self, options: CallOptions) -> Run | StreamReply | None:
        """Return what the last attempt has created; None if it cannot be found.

        Raises:
            APIError: A request failed.
        """
        if self._spec is None:
            return None
        if self._pipeline.honours_keys():
            again: CallOptions = {**self._options, "timeout": options.get("timeout")}
            found: Run | StreamReply = await self._pipeline.send(self._spec, again)
            return found
        if self._is_marked and self.thread_id is not None and self.key is not None:
            return await _created_run(self._pipeline, self.thread_id, self.key, options)
        return None

    async def undo(self) -> None:
        """Cancel the run if one may have been created, for at most 5 s.

        Cancellation: is delayed by those 5 s.
        """
        if self._ambiguity.maybe_sent:
            what = f"undoing a create on thread {self.thread_id or '(new)'}"
            ids = {} if self.thread_id is None else {"thread_id": self.thread_id}
            await self._waiter.quietly(what, self._find_and_cancel, ids)

    async def _find_and_cancel(self) -> None:
        options = follow_up_options(self._options)
        found = await self.find(options)
        if found is None:
            return
        run = await _first_run(found, self._pipeline.settings.request_timeout)
        if run is not None and run.is_active:
            await self._waiter.cancel_if_active(run.id, run.thread_id, options)

    def _when_free(self) -> Coroutine[Any, Any, Any]:
        # No coroutine itself, so that a call which does not wait is not a frame deeper.
        if self.thread_id is None:  # a thread that is created with its run is never busy
            return self._attempt(self._given.call)
        return when_free(
            self._waiter,
            self._pipeline,
            self.thread_id,
            mode=self._given.start.get("on_active_run", "raise"),
            options=self._given.call,
            attempt=self._attempt,
        )

    async def _attempt(self, options: CallOptions) -> Run | StreamReply:
        spec = self._prepare(options)
        answer: Run | StreamReply = await self._pipeline.send(
            spec,
            self._options,
            verify=self._verify if self._is_marked else None,
            ambiguity=self._ambiguity,
        )
        # The run's id is not known before the stream's first event.
        self._ambiguity.maybe_sent = not isinstance(answer, Run)
        return answer

    def _prepare(self, options: CallOptions) -> RequestSpec[Any]:
        """Build the request of the next attempt, under the caller's key or a new one."""
        key = options.get("idempotency_key")
        if key is not None:
            check_header("Idempotency-Key", key)  # it is in the body, too
        self.key = self._pipeline.settings.runtime.new_key() if key is None else key
        self._options = {**options, "idempotency_key": self.key, "extra_body": None}
        self._ambiguity = Ambiguity()
        body = with_extra_body(self._given.body, options)
        if self._stream:
            body["stream"] = True
        ids: dict[str, Any] = {}
        if self._endpoint is CREATE_RUN:
            ids["thread_id"] = self.thread_id
            self._is_marked = self._add_marker(body, self.key)
        spec = self._pipeline.build_request(
            self._endpoint, ids, self._options, query=self._query, body=body
        )
        self._spec = msgspec.structs.replace(spec, stream=True) if self._stream else spec
        return self._spec

    def _add_marker(self, body: dict[str, Any], key: str) -> bool:
        if not self._pipeline.settings.retry.adopt or self._pipeline.honours_keys():
            return False
        marked = add_marker(body.get("metadata"), key)
        if marked is None:
            return False
        body["metadata"] = marked
        return True

    async def _verify(self, failure: APIError) -> Run | None:
        """Return the run if this call has created it although `failure` came back."""
        assert self.thread_id is not None  # a create with a marker has a thread
        assert self.key is not None
        options = follow_up_options(self._options)
        blocking = failure.blocking_run_id if isinstance(failure, ActiveRunError) else None
        if blocking is None:
            return await _created_run(self._pipeline, self.thread_id, self.key, options)
        ids = {"thread_id": self.thread_id, "run_id": blocking}
        spec = self._pipeline.build_request(_GET_MARKED_RUN, ids, options)
        run = await self._pipeline.send(spec, options)
        return strip_marker(run) if has_marker(run, self.key) else None


async def _created_run(
    pipeline: Pipeline, thread_id: str, key: str, options: CallOptions
) -> Run | None:
    """Return the run of the thread that was created with `key`; None after two polls.

    Endpoint: GET /threads/{thread_id}/runs, the newest 20; `options` hold for each request

    Raises:
        APIError: The list could not be fetched.
    """
    for poll in range(2):
        if poll:
            await pipeline.settings.runtime.sleep(ADOPT_DELAY)
        run = find_marked(await _newest(pipeline, thread_id, options), key)
        if run is not None:
            return strip_marker(await _retrieved(pipeline, run, options))
    return None


async def recovered_run(pipeline: Pipeline, thread_id: str, key: str | None) -> Run | None:
    """Return the run created with `key`, or the thread's active run where there is no key.

    Raises:
        APIError: The list could not be fetched.
    """
    if key is not None:
        return await _created_run(pipeline, thread_id, key, {})
    runs = await _newest(pipeline, thread_id, {})
    return next((strip_marker(run) for run in runs if getattr(run, "is_active", False)), None)


async def _newest(pipeline: Pipeline, thread_id: str, options: CallOptions) -> list[Run]:
    spec = pipeline.build_request(
        _LIST_MARKED_RUNS, {"thread_id": thread_id}, options, query=_NEWEST
    )
    return (await pipeline.send(spec, options)).data


async def _retrieved(pipeline: Pipeline, run: Run, options: CallOptions) -> Run:
    """Return the run as an answer of its own; as it was listed if that fails."""
    ids = {"thread_id": run.thread_id, "run_id": run.id}
    try:
        return await pipeline.send(pipeline.build_request(GET_RUN, ids, options), options)
    except APIError:
        return run  # it exists: an error here would suggest a second create


async def _first_run(reply: Run | StreamReply, wait: float) -> Run | None:
    """Return the run that a create has started, whether it is answered by a stream or not.

    Closes the stream; `wait` is the seconds until its first event about a run.
    """
    if isinstance(reply, Run):
        return reply
    reader = EventReader(reply)
    try:
        while events := await reader.read(wait):
            for event in events:
                if isinstance(event, RunEvent):
                    return event.data
    except (APIConnectionError, StreamError, EventTooLarge):
        return None
    finally:
        reader.close()
    return None
