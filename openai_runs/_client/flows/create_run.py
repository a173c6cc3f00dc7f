"""Starting a run so that it is started once.

A create that is in doubt is settled by looking: the run carries this call's key as one
of its metadata pairs (`_protocol.adoption`), unless the caller uses all 16, adoption is
turned off, or the server is known to remember idempotency keys and needs no mark.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Mapping
from functools import partial
from typing import Any

from openai_runs._client.arguments import (
    CallOptions,
    CreateRunArguments,
    CreateThreadAndRunArguments,
    body_of,
    follow_up_options,
    options_of,
)
from openai_runs._client.core.call import Doubt
from openai_runs._client.core.event_reader import first_run
from openai_runs._client.core.pipeline import Pipeline
from openai_runs._client.encoding import plain
from openai_runs._client.flows.active_runs import when_free
from openai_runs._client.polling.waiter import Waiter
from openai_runs._protocol.create_marker import carries, find, mark, strip_marker
from openai_runs._protocol.endpoints import (
    CREATE_RUN,
    CREATE_THREAD_AND_RUN,
    GET_RUN,
    LIST_RUNS,
    Endpoint,
)
from openai_runs._protocol.spec import QueryValue, RequestSpec, check_id
from openai_runs._transport import StreamReply
from openai_runs.config import ADOPT_DELAY
from openai_runs.errors import ActiveRunError, APIError
from openai_runs.types.runs import Run

__all__ = ["Attempts", "Creation", "look_for", "thread_and_run"]


class Creation:
    """One create of a run, which can be settled and undone."""

    def __init__(
        self,
        pipeline: Pipeline,
        endpoint: Endpoint[Run],
        thread_id: str | None,
        body: Mapping[str, Any],
        options: CallOptions,
        *,
        query: Mapping[str, QueryValue] | None = None,
        stream: bool = False,
    ) -> None:
        """Build the request; `thread_id` is None where the thread is made with the run."""
        self._pipeline = pipeline
        self.thread_id = thread_id
        key = options.get("idempotency_key")
        self.key = pipeline.settings.runtime.new_key() if key is None else key
        sent = {**body, **plain(options.get("extra_body") or {})}
        if stream:
            sent["stream"] = True
        self._options: CallOptions = {**options, "idempotency_key": self.key, "extra_body": None}
        self._marked = endpoint is CREATE_RUN and self._mark(sent)
        self._doubt = Doubt()
        ids: dict[str, Any] = {"thread_id": thread_id} if "thread_id" in endpoint.ids else {}
        self._spec: RequestSpec[Run] = pipeline.request(
            endpoint, ids, self._options, query=query, body=sent
        )

    async def make(self) -> Run:
        """Return the run, made by this call once and only once.

        Raises:
            ActiveRunError: The thread has an active run that is not this call's.
            APIError: The call failed; `.maybe_created` says whether the run may exist.

        Cancellation: closes the request; `undo` finds and cancels what it may have made.
        """
        run = await self._pipeline.send(
            self._spec,
            self._options,
            settle=self._settle if self._marked else None,
            doubt=self._doubt,
        )
        self._doubt.unsure = False
        return strip_marker(run)

    async def open(self) -> Run | StreamReply:
        """Return the stream of the run this call makes; a `Run` if there is none to be had.

        Raises and is cancelled as `make`.
        """
        opened = await self._pipeline.open_stream(
            self._spec,
            self._options,
            settle=self._settle if self._marked else None,
            doubt=self._doubt,
        )
        # Until its first event has come, only the server knows which run it is.
        self._doubt.unsure = not isinstance(opened, Run)
        return opened

    def settled(self) -> None:
        """Take note that the caller knows the run: there is nothing to undo any more."""
        self._doubt.unsure = False

    async def find(self, options: CallOptions) -> Run | StreamReply | None:
        """Return what this call has made although its answer was lost; None if it cannot be told.

        Raises:
            APIError: Looking failed.

        Cancellation: closes the request.
        """
        if self._pipeline.honours_keys():
            # The same key and body again: the answer is that of the first.
            again: CallOptions = {**self._options, "timeout": options.get("timeout")}
            return await self._pipeline.open_stream(self._spec, again)
        if self._marked and self.thread_id is not None:
            return await look_for(self._pipeline, self.thread_id, self.key, options)
        return None

    async def undo(self, waiter: Waiter) -> None:
        """Cancel the run if this call may have made one, for at most 5 s.

        Cancellation: is held off for those 5 s.
        """
        if self._doubt.unsure:
            what = f"undoing a create on thread {self.thread_id or '(new)'}"
            await waiter.quietly(what, partial(self._undo, waiter))

    async def _undo(self, waiter: Waiter) -> None:
        looking = follow_up_options(self._options)
        found = await self.find(looking)
        run = (
            None
            if found is None
            else await first_run(found, self._pipeline.settings.request_timeout)
        )
        if run is not None and run.is_active:
            await waiter.cancel(run.id, run.thread_id, looking)

    def _mark(self, sent: dict[str, Any]) -> bool:
        if not self._pipeline.settings.retry.adopt or self._pipeline.honours_keys():
            return False
        marked = mark(sent.get("metadata"), self.key)
        if marked is None:
            return False
        sent["metadata"] = marked
        return True

    async def _settle(self, failure: APIError) -> Run | None:
        """Return the run this call made, although its answer was lost."""
        assert self.thread_id is not None  # marked creates have a thread
        looking = follow_up_options(self._options)
        blocking = failure.blocking_run_id if isinstance(failure, ActiveRunError) else None
        if blocking is not None:
            ids = {"thread_id": self.thread_id, "run_id": blocking}
            spec = self._pipeline.request(GET_RUN, ids, looking)
            run = await self._pipeline.send(spec, looking)
            return run if carries(run, self.key) else None
        return await look_for(self._pipeline, self.thread_id, self.key, looking)


async def look_for(
    pipeline: Pipeline, thread_id: str, key: str, options: CallOptions
) -> Run | None:
    """Return the run of the thread that was created with `key`, looking twice.

    Endpoint: GET /threads/{thread_id}/runs, the newest 20; `options` hold for each look

    Raises:
        APIError: The list could not be fetched.

    Cancellation: closes the request.
    """
    ids = {"thread_id": thread_id}
    query: dict[str, QueryValue] = {"limit": 20, "order": "desc"}
    for look in range(2):
        if look:
            await pipeline.settings.runtime.sleep(ADOPT_DELAY)
        spec = pipeline.request(LIST_RUNS, ids, options, query=query)
        page = await pipeline.send(spec, options)
        found = find(page.data, key)
        if found is not None:
            return await _fresh(pipeline, found, options)
    return None


async def _fresh(pipeline: Pipeline, run: Run, options: CallOptions) -> Run:
    """Return the run as an answer of its own, or as it was found if that fails."""
    ids = {"thread_id": run.thread_id, "run_id": run.id}
    try:
        return await pipeline.send(pipeline.request(GET_RUN, ids, options), options)
    except APIError:
        return run  # it is ours and exists: failing now would invite a second create


class Attempts:
    """The creates of one `runs.create`: a new one each time the thread was busy."""

    def __init__(
        self,
        pipeline: Pipeline,
        thread_id: str,
        assistant_id: str,
        taken: dict[str, Any],
        *,
        stream: bool = False,
    ) -> None:
        """Take the arguments apart; nothing is sent yet."""
        self._stream = stream
        self._pipeline = pipeline
        self.thread_id = thread_id
        self._options = options_of(taken)
        self._mode = taken.pop("on_active_run", "raise")
        include: Iterable[str] | None = taken.pop("include", None)
        self._query = None if include is None else {"include": [*include]}
        body = body_of("runs.create", CreateRunArguments, taken)
        check_id("assistant_id", assistant_id)
        self._body = {"assistant_id": assistant_id, **body}
        self.last: Creation | None = None

    def make(self, waiter: Waiter) -> Coroutine[Any, Any, Run]:
        """Return the run, once the thread is free for it; to be awaited."""
        return when_free(
            waiter,
            self._pipeline,
            self.thread_id,
            mode=self._mode,
            options=self._options,
            attempt=self._once,
        )

    def open(self, waiter: Waiter) -> Coroutine[Any, Any, Run | StreamReply]:
        """Return the run's stream, once the thread is free for it; to be awaited."""
        return when_free(
            waiter,
            self._pipeline,
            self.thread_id,
            mode=self._mode,
            options=self._options,
            attempt=self._open_once,
        )

    async def undo(self, waiter: Waiter) -> None:
        """Cancel what the last create may have started."""
        if self.last is not None:
            await self.last.undo(waiter)

    def _once(self, options: CallOptions) -> Coroutine[Any, Any, Run]:
        return self._next(options).make()

    def _open_once(self, options: CallOptions) -> Coroutine[Any, Any, Run | StreamReply]:
        return self._next(options).open()

    def _next(self, options: CallOptions) -> Creation:
        self.last = Creation(
            self._pipeline,
            CREATE_RUN,
            self.thread_id,
            self._body,
            options,
            query=self._query,
            stream=self._stream,
        )
        return self.last


def thread_and_run(
    pipeline: Pipeline, taken: dict[str, Any], assistant_id: str, *, stream: bool = False
) -> Creation:
    """Return the create of a run whose thread is made with it; nothing is sent yet."""
    options = options_of(taken)
    body = body_of("threads.create_and_run", CreateThreadAndRunArguments, taken)
    check_id("assistant_id", assistant_id)
    body["assistant_id"] = assistant_id
    return Creation(pipeline, CREATE_THREAD_AND_RUN, None, body, options, stream=stream)
