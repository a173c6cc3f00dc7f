"""The result of a run in one object, and how it is gathered."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final, Generic

import msgspec

from openai_runs._client.arguments import CallOptions, ListCall
from openai_runs._client.core.deadline import Deadline, within
from openai_runs._client.core.paging import AsyncPaginator, paginate
from openai_runs._client.core.pipeline import Pipeline
from openai_runs._client.core.size_limit import SizeLimit
from openai_runs._client.flows.tool_loop import ToolLoop, run_to_end
from openai_runs._client.polling.waiter import Waiter
from openai_runs._client.tools.json_schema import ObjectSchema, schema_of
from openai_runs._printing import Pairs, Printed, inline
from openai_runs._protocol.endpoints import LIST_MESSAGES, LIST_RUN_STEPS
from openai_runs._protocol.json_repair import around_fence
from openai_runs._tracing import NoSpan, Span
from openai_runs.errors import APIResponseValidationError, NotFoundError
from openai_runs.types.messages import Message, RefusalContent
from openai_runs.types.runs import Run, RunStatus, Usage
from openai_runs.types.steps import RunStep
from openai_runs.types.timeline import Timeline

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    T = TypeVar("T", default=Any)
else:  # typing has defaults since Python 3.13
    from typing import TypeVar

    T = TypeVar("T")

__all__ = ["RunResult", "gather", "gather_steps", "run_to_result"]

Item = TypeVar("Item")

_AROUND_CHARS: Final = 100
"""Characters that an error shows of what a model wrote around its JSON."""


class RunResult(Printed, msgspec.Struct, Generic[T], frozen=True, kw_only=True, dict=True):
    """A run with what it wrote and did; `T` is the type of `parsed`."""

    run: Run
    messages: list[Message]
    """The messages this run wrote, oldest first."""
    steps: list[RunStep]
    """The steps, oldest first; empty where the server has no steps endpoint."""
    recovered: bool = False
    """Whether its stream reconnected, or was completed by polling the run."""
    response_format: type[T] | None = None
    """The type that `parsed` is an instance of."""

    @property
    def text(self) -> str:
        """Return the text of all messages, a blank line between them."""
        return "\n\n".join(message.text for message in self._readable() if message.text)

    @property
    def usage(self) -> Usage | None:
        """Return the tokens used; None until the run is finished."""
        return self.run.usage

    @cached_property
    def parsed(self) -> T:
        """The last text as an instance of `response_format`, read when first asked for.

        None if no type was given, the run is not completed, or the model refused; type checkers
        know of the type alone, for whom `run.raise_for_status()` comes first.

        Raises:
            APIResponseValidationError: The text does not fit the type; it is still in `text`.
        """
        readable = self._readable()
        refused = any(isinstance(part, RefusalContent) for one in readable for part in one.content)
        if self.response_format is None or refused or self.run.status != RunStatus.COMPLETED:
            return None  # type: ignore[return-value]  # see above
        text = next((one.text for one in reversed(readable) if one.text), "")
        schema: ObjectSchema[T] = schema_of(self.response_format)  # type: ignore[arg-type]  # hashable
        try:
            return schema.decode(text)
        except (msgspec.MsgspecError, RecursionError, UnicodeError) as problem:
            around = around_fence(text)[:_AROUND_CHARS]
            where = f"; around a code fence there is {around!r}" if around else ""
            error = APIResponseValidationError(
                f"its text does not fit {self.response_format.__name__}: {problem}{where}",
                method="run",
                url=self.run.id,
                excerpt=text,
            )
            error.locate(thread_id=self.run.thread_id, run_id=self.run.id)
            raise error from problem

    def timeline(self, *, now: float | None = None) -> Timeline:
        """Return where the run's time went: `run.timeline(steps)`.

        Args:
            now: Unix seconds; what is not over lasts until then.
        """
        return self.run.timeline(self.steps, now=now)

    def _printed(self) -> Pairs:
        """Return the run, its text, and what else there is."""
        pairs: Pairs = [("run", self.run), ("text", self.text), ("messages", self.messages)]
        pairs += [("steps", self.steps)]
        if self.recovered:
            pairs.append(("recovered", True))
        if self.response_format is not None:
            pairs.append(("response_format", self.response_format))
        return pairs

    def _repr_markdown_(self) -> str:
        """Return the text as the model wrote it, below a line about the run, for a notebook."""
        run, usage = self.run, self.usage
        said = [f"**{inline(run.status)}**", inline(run.id)]
        if usage is not None:
            said.append(f"{usage.total_tokens:,} tokens")
        if run.last_error is not None:
            said.append(inline(f"{run.last_error.code}: {run.last_error.message}"))
        return f"{', '.join(said)}\n\n{self.text}".rstrip()

    def _readable(self) -> list[Message]:
        return [message for message in self.messages if isinstance(message, Message)]


async def gather(
    pipeline: Pipeline,
    run: Run,
    options: CallOptions,
    *,
    response_format: type[T] | None = None,
    max_bytes: int | None = None,
) -> RunResult[T]:
    """Return the run with the messages it wrote and the steps it took.

    Endpoint: GET /threads/{thread_id}/messages and GET .../runs/{run_id}/steps

    Args:
        pipeline: What is sent through.
        run: The run.
        options: Of each request; `timeout` covers all pages of both lists.
        response_format: The type of the result's `parsed`.
        max_bytes: Bytes that both lists may have; None: the client's `max_stream_bytes`.

    Raises:
        APIError: A list could not be fetched.
        APIResponseValidationError: The lists are larger than `max_bytes`.
        APITimeoutError: The time was up.
    """
    each: CallOptions = {**options, "timeout": None}
    return await within(
        options.get("timeout"),
        "gathering the result",
        partial(_gather, pipeline, run, each, response_format, max_bytes),
        thread_id=run.thread_id,
        run_id=run.id,
    )


async def _gather(
    pipeline: Pipeline,
    run: Run,
    options: CallOptions,
    response_format: type[T] | None,
    max_bytes: int | None,
) -> RunResult[T]:
    in_order: ListCall = {"order": "asc", "limit": 100}
    in_order.update(options)  # type: ignore[typeddict-item]  # ListCall has these keys
    thread = {"thread_id": run.thread_id}
    listed: AsyncPaginator[Message] = paginate(
        pipeline, LIST_MESSAGES, thread, "runs.result", in_order, extra={"run_id": run.id}
    )
    # Filtered here as well: not every server knows the run_id filter.
    size = SizeLimit(max_bytes or pipeline.settings.max_stream_bytes)
    messages = [one async for one in _items(listed, size, run) if _is_written_by(run, one)]
    steps = await _list_steps(pipeline, run, in_order, "runs.result", size)
    return RunResult(run=run, messages=messages, steps=steps, response_format=response_format)


async def gather_steps(pipeline: Pipeline, run: Run, options: CallOptions) -> list[RunStep]:
    """Return all steps of the run, oldest first; none where the server has no steps endpoint.

    Endpoint: GET /threads/{thread_id}/runs/{run_id}/steps

    Raises:
        APIError: The list could not be fetched.
        APIResponseValidationError: The list is larger than the client's `max_stream_bytes`.
        APITimeoutError: The time was up.
    """
    in_order: ListCall = {"order": "asc", "limit": 100}
    in_order.update({**options, "timeout": None})  # type: ignore[typeddict-item]  # as above
    size = SizeLimit(pipeline.settings.max_stream_bytes)
    return await within(
        options.get("timeout"),
        "gathering the steps",
        partial(_list_steps, pipeline, run, in_order, "runs.timeline", size),
        thread_id=run.thread_id,
        run_id=run.id,
    )


async def _list_steps(
    pipeline: Pipeline, run: Run, in_order: ListCall, operation: str, size: SizeLimit
) -> list[RunStep]:
    ids = {"thread_id": run.thread_id, "run_id": run.id}
    try:
        listed: AsyncPaginator[RunStep] = paginate(
            pipeline, LIST_RUN_STEPS, ids, operation, in_order
        )
        return [step async for step in _items(listed, size, run)]
    except NotFoundError:
        return []  # the run exists, so it is a server without steps (astra)


async def _items(listed: AsyncPaginator[Item], size: SizeLimit, run: Run) -> AsyncGenerator[Item]:
    """Yield every item of a list of the run's; a list that never ends is an error."""
    async for page in listed.pages():
        size.add(b"" if page.http is None else page.http.content, len(page.data))
        if size.is_exceeded:
            error = APIResponseValidationError(
                f"the run's messages and steps exceed max_stream_bytes={size.max_bytes}",
                method="run",
                url=run.id,
            )
            error.locate(thread_id=run.thread_id, run_id=run.id)
            raise error
        for item in page.data:
            yield item


def _is_written_by(run: Run, message: object) -> bool:
    # Perhaps no `Message`: an item that could not be decoded may lack either.
    role, run_id = getattr(message, "role", None), getattr(message, "run_id", None)
    return role == "assistant" and run_id == run.id


async def run_to_result(
    pipeline: Pipeline,
    waiter: Waiter,
    deadline: Deadline,
    run: Run | str,
    thread_id: str,
    *,
    tools: ToolLoop,
    response_format: type[T] | None,
    span: Span | NoSpan,
) -> RunResult[T]:
    """Wait for the run, answer its tool calls round after round, and gather its result.

    What came of it is noted in `span`.

    Raises:
        RunWaitTimeout: The time was up; `.run` is the last state seen.
        ToolError: The run asked for tools more than `max_rounds` times.
        APIError: A request was rejected, or the server is unreachable.

    Cancellation: leaves the run alone, or cancels it with `on_cancel="cancel"`.
    """
    if isinstance(run, Run):
        span.set_run(run)
    ended = await run_to_end(pipeline, waiter, tools, deadline, run, thread_id)
    result = await gather(pipeline, ended, deadline.left(), response_format=response_format)
    span.set_run(result.run)
    span.set_output(lambda: result.text)
    return result
