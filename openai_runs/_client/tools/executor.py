"""Running the tool calls of one round: all at once, each to an output, whatever happens.

Whatever a tool does becomes a text for the model, and no exception of a tool's reaches the
caller; only what `approve` or `on_tool_call` raise does.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import copy_context
from functools import partial
from typing import Any, Final, TypedDict

import anyio
import anyio.lowlevel
import msgspec
from msgspec import UNSET

from openai_runs._client.encoding import as_text
from openai_runs._client.tools.signature import ToolContext
from openai_runs._client.tools.tool import LocalTool, LocalToolCall
from openai_runs._log_ids import LogIds
from openai_runs._protocol.json_repair import read_json
from openai_runs._tracing import ClientTracing, Span
from openai_runs.config import (
    MAX_OUTPUT_BYTES,
    MAX_PARALLEL_TOOLS,
    TOOL_TIMEOUT,
    check_count,
    check_timeout,
)
from openai_runs.errors import ToolError
from openai_runs.types.runs import RequiredApproval, RequiredCall, RequiredToolCall, Run

__all__ = ["ToolCalls", "ToolOptions"]

Approval = Callable[[LocalToolCall], Awaitable[bool | str] | bool | str]
ToolCallback = Callable[[LocalToolCall, str | None], Awaitable[object] | object]


class ToolOptions(TypedDict, total=False):
    """How local tools are called."""

    max_parallel: int
    """Calls at the same time; default 10."""
    max_rounds: int
    """Times a run may ask for tools before it is given up; default 20."""
    tool_timeout: float | None
    """Seconds for one call of a tool that has no time-out of its own; default 60. None: what
    the run has left."""
    max_output_bytes: int
    """Bytes that all outputs of one round may have; default 512,000, what OpenAI took."""
    approve: Approval | None
    """Called before each tool call, also of a hosted tool that waits for approval; True allows it,
    a string rejects it with that reason."""
    on_tool_call: ToolCallback | None
    """Called before each tool call (output None) and after it (with the output)."""


_LOG: Final = logging.getLogger("openai_runs.tools")
_OUT_OF_TIME: Final = "the run's time was up before the tool had finished"
_PASSING: Final = (KeyboardInterrupt, SystemExit, GeneratorExit)
"""What ends the program, or this coroutine, and is no failure of a tool."""


class ToolCalls:
    """Runs the calls of a run's rounds with the caller's functions.

    Raises:
        TypeError: An option is of the wrong kind.
        ValueError: An option is out of bounds.
    """

    def __init__(self, tools: Mapping[str, LocalTool[..., Any]], options: ToolOptions) -> None:
        """Check the options; `tools` are by name."""
        self._tools = tools
        self._max_parallel = check_count(
            "max_parallel", options.get("max_parallel", MAX_PARALLEL_TOOLS)
        )
        self._max_bytes = check_count(
            "max_output_bytes", options.get("max_output_bytes", MAX_OUTPUT_BYTES)
        )
        self._timeout = check_timeout("tool_timeout", options.get("tool_timeout", TOOL_TIMEOUT))
        self._approve = options.get("approve")
        self._on_tool_call = options.get("on_tool_call")
        for name, hook in (("approve", self._approve), ("on_tool_call", self._on_tool_call)):
            if hook is not None and not callable(hook):
                msg = f"{name} must be callable, got {hook!r}"
                raise TypeError(msg)

    async def outputs(
        self,
        run: Run,
        calls: Sequence[RequiredCall],
        seconds: float,
        tracing: ClientTracing | None = None,
    ) -> dict[str, str]:
        """Return the output of each call, by its id.

        Args:
            run: The run that waits.
            calls: Its calls, each id once.
            seconds: What is left for all of them; calls that are not finished by then get an
                output that says so.
            tracing: What makes a span of each call.

        Raises:
            BaseException: What `approve` or `on_tool_call` raised; the other calls are cancelled.

        Cancellation: cancels async tools; sync tools finish in their threads; their
        results are discarded.
        """
        found: dict[str, str] = {}
        failures: list[BaseException] = []
        limiter = anyio.CapacityLimiter(self._max_parallel)

        async def one(call: RequiredCall) -> None:
            try:
                found[call.id] = await self._output(run, call, limiter, tracing)
            except anyio.get_cancelled_exc_class():
                raise
            except BaseException as error:  # raised below, alone and not in a group
                failures.append(error)
                group.cancel_scope.cancel()

        with anyio.move_on_after(max(seconds, 0.0)):
            async with anyio.create_task_group() as group:
                for call in calls:
                    group.start_soon(one, call)
        if failures:
            raise failures[0]
        every = {call.id: found.get(call.id, _error(_OUT_OF_TIME)) for call in calls}
        return _fitting(every, self._max_bytes)

    @property
    def can_approve(self) -> bool:
        """Return whether there is somebody to ask for an approval."""
        return self._approve is not None

    async def approvals(
        self, run: Run, calls: Sequence[RequiredApproval], seconds: float
    ) -> dict[str, bool]:
        """Return whether `approve` allows each call of a hosted tool, by the call's id.

        Args:
            run: The run that waits.
            calls: Its calls, each id once.
            seconds: What is left for all of them; calls not decided by then are not allowed.

        Raises:
            BaseException: What `approve` raised.
        """
        decided = {call.id: False for call in calls}
        with anyio.move_on_after(max(seconds, 0.0)):
            for call in calls:
                decided[call.id] = await self._refusal(_hosted(call, run)) is None
        return decided

    async def _output(
        self,
        run: Run,
        call: RequiredCall,
        limiter: anyio.CapacityLimiter,
        tracing: ClientTracing | None,
    ) -> str:
        if not isinstance(call, RequiredToolCall):
            return _error(f"tool calls of type {call.type!r} cannot be answered here")
        name, raw = call.function.name, call.function.arguments
        shown = LocalToolCall(id=call.id, name=name, arguments={}, raw=raw, run=run)
        tool = self._tools.get(name)
        if tool is None:
            known = ", ".join(self._tools) or "none"
            output = _error(f"there is no tool named {name!r}; there are: {known}")
            return await self._notified(shown, output)
        try:
            arguments = tool.read(raw)
        except (msgspec.MsgspecError, RecursionError, UnicodeError) as problem:
            return await self._notified(shown, _error(f"the arguments do not fit: {problem}"))
        except Exception:
            words = "reading the arguments of %s failed"
            _LOG.warning(words, _named(shown), exc_info=True, extra=_log_ids(shown))
            return await self._notified(shown, _error("the arguments do not fit"))
        shown = msgspec.structs.replace(shown, arguments=arguments)
        refusal = await self._refusal(shown)
        if refusal is not None:
            return await self._notified(shown, _error(refusal))
        async with limiter:
            await self._notify(shown, None)
            return await self._notified(shown, await self._called(tool, shown, tracing))

    async def _refusal(self, call: LocalToolCall) -> str | None:
        """Return why the call must not be made, or None."""
        if self._approve is None:
            return None
        answer = self._approve(call)
        if inspect.isawaitable(answer):
            answer = await answer
        if isinstance(answer, str):
            return answer or "the call was not approved"
        return None if answer else "the call was not approved"

    async def _notified(self, call: LocalToolCall, output: str) -> str:
        await self._notify(call, output)
        return output

    async def _notify(self, call: LocalToolCall, output: str | None) -> None:
        if self._on_tool_call is not None:
            outcome = self._on_tool_call(call, output)
            if inspect.isawaitable(outcome):
                await outcome

    async def _called(
        self, tool: LocalTool[..., Any], call: LocalToolCall, tracing: ClientTracing | None
    ) -> str:
        """Return the tool's output, or an error as the output."""
        if tracing is None:
            return await self._attempted(tool, call, None)
        with tracing.tool(call.name, call.id, call.raw) as span:
            output = await self._attempted(tool, call, span)
            span.set_output(lambda: output)
            return output

    async def _attempted(
        self, tool: LocalTool[..., Any], call: LocalToolCall, span: Span | None
    ) -> str:
        limit = self._timeout if tool.timeout is UNSET else tool.timeout
        timeout = math.inf if limit is None else limit
        context = ToolContext(run=call.run, call_id=call.id)
        act = partial(tool.function, **tool.completed(call.arguments, context))
        if _LOG.isEnabledFor(logging.DEBUG):
            _LOG.debug("calling %s with %s", _named(call), call.raw, extra=_log_ids(call))
        try:
            with anyio.move_on_after(timeout):
                return await _result(tool, act, call)
        except ToolError as refusal:
            _note(span, refusal)
            return _error(refusal.message)
        except _PASSING:
            raise
        except anyio.get_cancelled_exc_class():
            await anyio.lowlevel.checkpoint_if_cancelled()
            # This task was not cancelled: the tool cancelled itself.
            _LOG.warning("%s was cancelled from within", _named(call), extra=_log_ids(call))
            _note(span, "cancelled")
            return _error("the tool was cancelled")
        except BaseException as error:
            _note(span, error)
            _LOG.warning("%s failed", _named(call), exc_info=True, extra=_log_ids(call))
            return _error("the tool failed")
        _note(span, "timeout")
        words = "%s did not finish within %.3g s"
        _LOG.warning(words, _named(call), timeout, extra=_log_ids(call))
        return _error(f"the tool did not finish within {timeout:.3g} s")


def _note(span: Span | None, error: BaseException | str) -> None:
    if span is not None:
        span.fail(error)


def _fitting(outputs: Mapping[str, str], max_bytes: int) -> dict[str, str]:
    """Return the outputs, the largest replaced by errors until all fit into `max_bytes`.

    The limit is on all of them, since a server rejects the outputs of a round as a whole.
    """
    result = dict(outputs)
    sizes = {call_id: len(text.encode()) for call_id, text in result.items()}
    total = sum(sizes.values())
    for call_id in sorted(sizes, key=lambda name: -sizes[name]):
        if total <= max_bytes:
            break
        size = sizes[call_id]
        short = _error(f"the result has {size} bytes, too many to be sent; ask for less")
        if len(short) < size:
            result[call_id] = short
            total += len(short) - size
    return result


async def _result(tool: LocalTool[..., Any], act: Callable[[], Any], call: LocalToolCall) -> str:
    """Return what the function returns as text; a sync one runs, and is read, in a thread."""
    outcome = await (act() if tool.is_async else _in_thread(partial(_finished, act, call), call))
    if inspect.isawaitable(outcome):  # a sync function that hands out a coroutine
        outcome = await outcome
    return _sendable(outcome, call)


def _finished(act: Callable[[], Any], call: LocalToolCall) -> Any:
    outcome = act()
    return outcome if inspect.isawaitable(outcome) else _sendable(outcome, call)


def _sendable(value: object, call: LocalToolCall) -> str:
    try:
        text = as_text(value)
        text.encode()  # half of a surrogate pair cannot be encoded
    except Exception as problem:
        words = "the result of a tool cannot be written as JSON"
        _LOG.warning(words, exc_info=True, extra=_log_ids(call))
        msg = "the result cannot be written as JSON"
        raise ToolError(msg) from problem
    return text


async def _in_thread(work: Callable[[], object], call: LocalToolCall) -> object:
    """Return what `work` returns in a worker thread of its own.

    Not of a pool: a tool that hangs would occupy a worker of it, and hold up the exit of the
    program, which joins those.

    Cancellation: the thread goes on; what it returns is discarded.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[object, BaseException | None]] = loop.create_future()
    context = copy_context()

    def body() -> None:
        value, failure = None, None
        try:
            value = context.run(work)
        except BaseException as error:  # raised where the tool was called
            failure = error

        def set_result() -> None:  # without arguments, which asyncio's debug mode would log
            if not done.done():  # else the wait was cancelled
                done.set_result((value, failure))

        try:
            loop.call_soon_threadsafe(set_result)
        except RuntimeError:
            _LOG.debug("tool %s ended after its event loop", call.name, extra=_log_ids(call))

    threading.Thread(target=body, name=f"tool {call.name}", daemon=True).start()
    value, error = await done
    if error is not None:
        raise error
    return value


def _error(text: str) -> str:
    whole = text.encode("utf-8", "replace").decode()  # half a character cannot be sent
    return msgspec.json.encode({"error": whole}).decode()


def _hosted(call: RequiredApproval, run: Run) -> LocalToolCall:
    """Return the call of a hosted tool as `approve` gets it."""
    given = call.arguments
    raw = given if isinstance(given, str) else msgspec.json.encode(given).decode()
    read = read_json(raw.encode("utf-8", "replace"))
    return LocalToolCall(
        id=call.id,
        name=call.name,
        arguments=read if isinstance(read, dict) else {},
        raw=raw,
        run=run,
        type=call.type,
        server_label=call.server_label,
    )


def _log_ids(call: LocalToolCall) -> LogIds:
    return {"run_id": call.run.id, "thread_id": call.run.thread_id, "call_id": call.id}


def _named(call: LocalToolCall) -> str:
    return f"tool {call.name} (call {call.id} of run {call.run.id})"
