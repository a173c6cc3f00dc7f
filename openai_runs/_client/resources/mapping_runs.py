"""Runs: the call that carries out a batch of them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, TypeVar, Unpack

import anyio
import msgspec

from openai_runs._client.arguments import (
    CallOptions,
    RunSettings,
    StartOptions,
    Tools,
    WaitArguments,
    follow_up_options,
    refuse,
    tool_options_of,
)
from openai_runs._client.core.deadline import Deadline
from openai_runs._client.core.pipeline import Pipeline
from openai_runs._client.flows.create_run import Attempts, Creation, thread_and_run
from openai_runs._client.flows.results import RunResult
from openai_runs._client.flows.run_map import Batch, Items, RunMap
from openai_runs._client.flows.tool_loop import ToolLoop
from openai_runs._client.polling.waiter import Waiter
from openai_runs._client.resources.tool_runs import type_in
from openai_runs._client.resources.waiting_runs import WaitingRuns
from openai_runs._client.tools.executor import ToolOptions, check_count
from openai_runs._client.tools.tool import localized
from openai_runs._protocol.endpoints import GET_ASSISTANT
from openai_runs._protocol.spec import check_header, check_id
from openai_runs.errors import APIError, ConfigError, OpenAIRunsError
from openai_runs.types.runs import Run

__all__ = ["MapCall", "MappingRuns"]

K = TypeVar("K")

_LOG: Final = logging.getLogger("openai_runs.client")


class MapCall(RunSettings, StartOptions, CallOptions, WaitArguments, ToolOptions, total=False):
    """Everything `runs.map` takes by keyword, besides items, concurrency and tools."""

    assistant_id: str


class MappingRuns(WaitingRuns):
    """The call of `client.runs` that carries out many runs."""

    def map(
        self,
        items: Items[K],
        *,
        concurrency: int,
        tools: Tools | None = None,
        **arguments: Unpack[MapCall],
    ) -> RunMap[K]:
        """Return the results of many runs, each with its item's key, as they end.

        Endpoint: POST /threads/{thread_id}/runs or POST /threads/runs, then as `run_tools`

        Nothing is sent before the first result is asked for (or the block is entered):

        ```python
        async with client.runs.map(items, concurrency=50, assistant_id=assistant.id) as results:
            async for key, outcome in results:
                if isinstance(outcome, RunResult):
                    print(key, outcome.text)
        ```

        Each item is a key, which may be anything and come twice, and the arguments of a
        create: with a `thread_id` those of `runs.create`, else those of
        `threads.create_and_run`. Items are taken from the input only while fewer than
        `concurrency` are going or waiting to be read, so it may be endless.

        One run that fails ends no other. A request that fails is tried again for
        `PollPolicy.max_outage` seconds, outside of the client's budget for retries (see
        `RetryPolicy.patience`), unless the client has `max_retries=0`; no run is started twice.

        Args:
            items: Pairs of a key and arguments, as an iterable or async iterable. It is asked
                for one at a time in the event loop: one that blocks holds up everything. An
                async generator is closed when it is not needed any more.
            concurrency: Items that are going, or done and not yet read; at least 1.
            tools: Functions that answer the tool calls of each run, and definitions of other
                tools. Without any function a run that asks for tools ends here as it waits.
            **arguments: What holds for each item that does not say otherwise: `assistant_id`,
                the settings of a run, `CallOptions` (`timeout` is for one item, all its
                requests), `WaitArguments`, `ToolOptions`, `on_active_run` and `include`.

        Returns:
            An async iterator of `(key, outcome)`, in the order in which they end. An outcome
            is a `RunResult`, also of a run that failed, expired or was cancelled, or the
            error that ended the item; arguments that cannot be sent are a `ConfigError` that
            names the key.

        Raises:
            TypeError: An argument is of the wrong kind, or a function cannot be a tool.
            ValueError: An argument is out of bounds.

        Cancellation: see `RunMap`.
        """
        wanted = check_count("concurrency", {"concurrency": concurrency}, 1)
        job = _Job(self._pipeline, tools, dict(arguments))
        return RunMap(Batch(items, job.carry_out, wanted), self._pipeline.shared.background)


class _Job:
    """How one item is carried out."""

    def __init__(self, pipeline: Pipeline, tools: Tools | None, given: dict[str, Any]) -> None:
        known = MapCall.__annotations__.keys() - {"idempotency_key"}  # one key, one run
        refuse("runs.map", given.keys() - known)
        self._given = given if tools is None else {**given, "tools": localized(tools)}
        checked = dict(self._given)
        ToolLoop(checked.get("tools", ()), tool_options_of(checked))
        for name, value in (given.get("extra_headers") or {}).items():
            check_header(name, value)
        if "assistant_id" in given:
            check_id("assistant_id", given["assistant_id"])
        plan = Deadline(pipeline, checked).wait_options
        self._pipeline = _patient(pipeline, plan.policy.max_outage)
        self._waiter = Waiter(self._pipeline)
        self._runs = MappingRuns(self._pipeline, self._waiter)
        self._asking = anyio.Lock()
        self._has_asked = False

    async def carry_out(self, key: object, item: Mapping[str, Any]) -> RunResult:
        """Return what came of the item.

        Raises:
            ConfigError: Its arguments cannot be sent.
            OpenAIRunsError: Something else went wrong.

        Cancellation: leaves the run alone, or cancels it with `on_cancel="cancel"`.
        """
        try:
            start = _Start(self._pipeline, self._waiter, self._merged(item))
            if start.thread_id is None:
                with anyio.move_on_after(start.deadline.seconds_left()):
                    await self._know_server(start)
            run = await start.make()
        except (TypeError, ValueError, RecursionError) as error:
            if isinstance(error, OpenAIRunsError):
                raise
            msg = f"the item {key!r:.200} cannot be sent: {error}"
            raise ConfigError(msg) from error
        runs, deadline = self._runs, start.deadline
        return await runs._to_its_end(run, run.thread_id, start.tools, deadline, start.kind)

    async def _know_server(self, start: _Start) -> None:
        """Ask for the assistant, where no answer has told yet if this server remembers keys.

        Until it is known, a thread made with its run could not be asked for a second time.
        """
        async with self._asking:
            features = self._pipeline.shared.features
            base = self._pipeline.settings.base_url
            if self._has_asked or base is None or base in features:
                return
            ids = {"assistant_id": start.assistant_id}
            looking = follow_up_options(start.deadline.call_options)
            try:
                await self._pipeline.send(
                    self._pipeline.request(GET_ASSISTANT, ids, looking), looking
                )
            except APIError as error:  # not what was asked for: the create will say it
                _LOG.debug("no answer told what the server can do: %s", error)
            self._has_asked = True

    def _merged(self, item: object) -> dict[str, Any]:
        if not isinstance(item, Mapping):
            msg = f"its arguments must be a mapping, got {type(item).__name__}"
            raise TypeError(msg)
        merged = {**self._given, **item}
        if item.get("thread_id") is None:  # a thread that is made with its run is never busy
            for name in StartOptions.__annotations__.keys() - item.keys():
                merged.pop(name, None)
        return merged


class _Start:
    """The create of one item's run."""

    def __init__(self, pipeline: Pipeline, waiter: Waiter, taken: dict[str, Any]) -> None:
        tools = taken.get("tools")
        loop = ToolLoop(tools or (), tool_options_of(taken))
        if tools is not None:
            taken["tools"] = loop.tools
        self.tools = loop if loop.is_local else None
        """What answers tool calls, where functions were given."""
        self.kind = type_in(taken.get("response_format"))
        self.deadline = Deadline(pipeline, taken)
        taken.update(self.deadline.call_options)
        self.thread_id: str | None = taken.pop("thread_id", None)
        self.assistant_id: str = taken.pop("assistant_id", None)
        create: Attempts | Creation
        if self.thread_id is None:
            create = thread_and_run(pipeline, taken, self.assistant_id)
            self._create: Callable[[], Awaitable[Run]] = create.make
        else:
            create = Attempts(pipeline, self.thread_id, self.assistant_id, taken)
            self._create = partial(create.make, waiter)
        self._undo = partial(create.undo, waiter)

    def make(self) -> Awaitable[Run]:
        """Return the run, started within the item's time; to be awaited."""
        return self.deadline.start(self._create(), self._undo)


def _patient(pipeline: Pipeline, patience: float) -> Pipeline:
    """Return the same way to the server, but one that is tried for `patience` seconds."""
    settings = pipeline.settings
    retry = settings.retry
    if retry.patience is not None:
        return pipeline
    retry = msgspec.structs.replace(retry, patience=patience)
    return Pipeline(msgspec.structs.replace(settings, retry=retry), pipeline.shared)
