"""The result of a run in one object, and how it is gathered."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import cached_property, partial
from typing import Any, Final, TypeVar

import msgspec

from openai_runs._client.arguments import CallOptions, ListCall
from openai_runs._client.core.deadline import Deadline, within
from openai_runs._client.core.paging import AsyncPaginator, paginate
from openai_runs._client.core.pipeline import Pipeline
from openai_runs._client.core.size_limit import SizeLimit
from openai_runs._client.flows.tool_loop import ToolLoop, run_to_end
from openai_runs._client.polling.waiter import Waiter
from openai_runs._client.tools.json_schema import schema_of
from openai_runs._printing import Pairs, Printed, inline
from openai_runs._protocol.endpoints import LIST_MESSAGES, LIST_RUN_STEPS
from openai_runs._protocol.json_repair import around_fence
from openai_runs.errors import APIResponseValidationError, NotFoundError
from openai_runs.types.messages import Message, RefusalContent
from openai_runs.types.runs import Run, RunStatus, Usage
from openai_runs.types.steps import RunStep

__all__ = ["RunResult", "gather", "run_to_result"]

T = TypeVar("T")

_AROUND_CHARS: Final = 100
"""Characters that an error shows of what a model wrote around its JSON."""


class RunResult(Printed, msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A run with what it wrote and did."""

    run: Run
    messages: list[Message]
    """The messages this run wrote, oldest first."""
    steps: list[RunStep]
    """The steps, oldest first; empty where the server has no steps endpoint."""
    recovered: bool = False
    """Whether its stream reconnected, or was completed by polling the run."""
    response_format: type | None = None
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
    def parsed(self) -> Any:
        """The last text as an instance of `response_format`, read when first asked for.

        None if no type was given, the run is not completed, or the model refused.

        Raises:
            APIResponseValidationError: The text does not fit the type; it is still in `text`.
        """
        readable = self._readable()
        refused = any(isinstance(part, RefusalContent) for one in readable for part in one.content)
        if self.response_format is None or refused or self.run.status != RunStatus.COMPLETED:
            return None
        text = next((one.text for one in reversed(readable) if one.text), "")
        try:
            return schema_of(self.response_format).decode(text)
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
    response_format: type | None = None,
    max_bytes: int | None = None,
) -> RunResult:
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
    response_format: type | None,
    max_bytes: int | None,
) -> RunResult:
    in_order: ListCall = {"order": "asc", "limit": 100}
    in_order.update(options)  # type: ignore[typeddict-item]  # ListCall has these keys
    thread = {"thread_id": run.thread_id}
    listed: AsyncPaginator[Message] = paginate(
        pipeline, LIST_MESSAGES, thread, "runs.result", in_order, extra={"run_id": run.id}
    )
    # Filtered here as well: not every server knows the run_id filter.
    size = SizeLimit(max_bytes or pipeline.settings.max_stream_bytes)
    messages = [one async for one in _items(listed, size, run) if _is_written_by(run, one)]
    steps: list[RunStep]
    try:
        ids = {**thread, "run_id": run.id}
        listed_steps = paginate(pipeline, LIST_RUN_STEPS, ids, "runs.result", in_order)
        steps = [step async for step in _items(listed_steps, size, run)]
    except NotFoundError:
        # The thread exists, as its messages do: a server without steps (astra).
        steps = []
    return RunResult(run=run, messages=messages, steps=steps, response_format=response_format)


async def _items(listed: AsyncPaginator[T], size: SizeLimit, run: Run) -> AsyncGenerator[T]:
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
    response_format: type | None,
) -> RunResult:
    """Wait for the run, answer its tool calls round after round, and gather its result.

    Raises:
        RunWaitTimeout: The time was up; `.run` is the last state seen.
        ToolError: The run asked for tools more than `max_rounds` times.
        APIError: A request was rejected, or the server is unreachable.

    Cancellation: leaves the run alone, or cancels it with `on_cancel="cancel"`.
    """
    run = await run_to_end(pipeline, waiter, tools, deadline, run, thread_id)
    return await gather(pipeline, run, deadline.left(), response_format=response_format)
