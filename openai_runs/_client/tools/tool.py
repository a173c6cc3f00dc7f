"""Local tools: functions of the caller's with the definition that is sent for them.

A function's annotations become the schema of its arguments (`signature`), its docstring the
descriptions.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial, update_wrapper
from types import MethodType
from typing import Any, Final, Generic, ParamSpec, TypeVar, overload

import msgspec
from msgspec import UNSET, UnsetType

from openai_runs._client.tools.json_schema import as_strict, summary
from openai_runs._client.tools.signature import ToolContext, docstring_of, name_of, parameters_of
from openai_runs.config import check_timeout
from openai_runs.types.runs import Run

__all__ = ["LocalTool", "LocalToolCall", "as_sent", "to_local_tools", "tool"]

P = ParamSpec("P")
R = TypeVar("R")

_NAME: Final = r"[A-Za-z0-9_-]{1,64}"


class LocalToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call of a local tool, as passed to `approve` and `on_tool_call`.

    `approve` is also asked about calls of hosted tools that the server makes once they are
    approved; their `type` is not `function`.
    """

    id: str
    name: str
    """The name the model used; there may be no such tool."""
    arguments: Mapping[str, Any]
    """As the function gets them; empty if they could not be read."""
    raw: str
    """The JSON text the model wrote."""
    run: Run
    type: str = "function"
    """The kind of tool; `mcp` for one of an MCP server."""
    server_label: str | None = None
    """The MCP server that has the tool."""


class LocalTool(Generic[P, R]):
    """A function that a model may call; calling this object calls the function.

    Made by `tool`, or of a plain function wherever `tools=` takes one.

    Args:
        function: Sync or async; each of its parameters needs an annotation.
        name: What the model calls it; None: the function's name.
        description: The description that is sent; None: the docstring's first paragraph.
        strict: Send the schema in the subset of strict mode, and ask for strict mode.
        timeout: Seconds one call may take; None: what the run has left; left out: the
            `tool_timeout` of the call that runs it.

    Raises:
        TypeError: A parameter has no annotation, one without a JSON schema, or is of a kind
            that cannot be given by name.
        ValueError: The name, or the time-out, is out of bounds.
    """

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str | None = None,
        description: str | None = None,
        strict: bool = False,
        timeout: float | None | UnsetType = UNSET,
    ) -> None:
        update_wrapper(self, function, updated=())  # not an object's own attributes
        self.function = function
        """The function as it was given."""
        self.name: str = name_of(function) if name is None else name
        """Letters, digits, `_` and `-`, at most 64 characters."""
        if not isinstance(self.name, str) or not re.fullmatch(_NAME, self.name):
            msg = (
                f"tool name {self.name!r} must be 1 to 64 of A-Z, a-z, 0-9, _ and -; "
                "give another one with @tool(name=...)"
            )
            raise ValueError(msg)
        self.description = summary(docstring_of(function)) if description is None else description
        """Empty if the function has no docstring."""
        if inspect.isasyncgenfunction(function):
            msg = f"tool {self.name!r} is an async generator; return a list instead"
            raise TypeError(msg)
        self.strict = strict
        self.timeout = timeout if timeout is UNSET else check_timeout("timeout", timeout)
        self._parameters = parameters_of(function, self.name)
        self.parameters: dict[str, Any] = self._parameters.schema
        """The JSON schema of the arguments."""
        if strict:
            self.parameters = as_strict(self.parameters, f"tool {self.name!r}")

    @property
    def definition(self) -> dict[str, Any]:
        """Return the tool as it is sent: `{"type": "function", "function": {...}}`."""
        function: dict[str, Any] = {"name": self.name, "parameters": self.parameters}
        if self.description:
            function["description"] = self.description
        if self.strict:
            function["strict"] = True
        return {"type": "function", "function": function}

    @property
    def is_async(self) -> bool:
        """Return whether calling it gives a coroutine; others run in a worker thread."""
        called = getattr(self.function, "__call__", None)  # noqa: B004 - the method itself
        return any(map(inspect.iscoroutinefunction, (self.function, called)))

    def read(self, text: str) -> dict[str, Any]:
        """Return the arguments that `text` holds, by name, without those left out.

        Args:
            text: JSON as the model wrote it.

        Raises:
            msgspec.MsgspecError: They are no JSON, or do not fit; the message names the path.
            RecursionError: They are nested too deeply.
            UnicodeError: They are no text.
        """
        return self._parameters.read(text)

    def completed(self, arguments: Mapping[str, Any], context: ToolContext) -> dict[str, Any]:
        """Return the arguments with `context` among them, if the function takes one.

        Args:
            arguments: As `read` returned them.
            context: The run and the id of the call.
        """
        name = self._parameters.context
        return {**arguments} if name is None else {**arguments, name: context}

    @property
    def is_unbound(self) -> bool:
        """Return whether it is an unbound method."""
        return self._parameters.is_unbound

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function."""
        return self.function(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> LocalTool[..., R]:
        """Return the tool bound to `instance`, where it is a method."""
        if instance is None or not self.is_unbound:
            return self
        return LocalTool(
            MethodType(self.function, instance),
            name=self.name,
            description=self.description,
            strict=self.strict,
            timeout=self.timeout,
        )

    def __repr__(self) -> str:
        """Show the name."""
        return f"<LocalTool {self.name}>"


@overload
def tool(
    function: Callable[P, R],
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    strict: bool = False,
    timeout: float | None | UnsetType = UNSET,
) -> LocalTool[P, R]: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    strict: bool = False,
    timeout: float | None | UnsetType = UNSET,
) -> Callable[[Callable[P, R]], LocalTool[P, R]]: ...


def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    strict: bool = False,
    timeout: float | None | UnsetType = UNSET,
) -> Any:
    """Return the function as a tool; a decorator, bare or with arguments.

    Annotations become the JSON schema of the arguments: whatever msgspec can read, with
    `Annotated[int, msgspec.Meta(ge=0, description="...")]` for bounds and descriptions.
    The docstring's first paragraph describes the tool, its `Args:` the parameters.

    Args:
        function: Sync (run in a worker thread) or async.
        name: What the model calls it; None: the function's name.
        description: The description that is sent; None: the docstring's first paragraph.
        strict: Send the schema in the subset of strict mode, and ask for strict mode.
        timeout: Seconds one call may take; None: what the run has left; left out: the
            `tool_timeout` of the call that runs it (60).

    Raises:
        TypeError: A parameter has no annotation, one without a JSON schema, or is of a kind
            that cannot be given by name.
        ValueError: The name, or the time-out, is out of bounds.
    """
    options: dict[str, Any] = {
        "name": name,
        "description": description,
        "strict": strict,
        "timeout": timeout,
    }
    if function is None:
        return partial(LocalTool, **options)
    return LocalTool(function, **options)


def to_local_tools(tools: Iterable[object]) -> list[object]:
    """Return the list with each function in it as a `LocalTool`; definitions stay as they are.

    Raises:
        TypeError: `tools` is no list, or a function cannot be a tool.
        ValueError: A function has a name that no tool may have, or two have the same.
    """
    items = [_as_local(item) if callable(item) else item for item in _each(tools)]
    names = [item.name for item in items if isinstance(item, LocalTool)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        msg = f"two tools are named {twice!r}; rename one with @tool(name=...)"
        raise ValueError(msg)
    return items


def as_sent(tools: object) -> object:
    """Return a `tools` argument as it is sent: functions by their definitions.

    Raises:
        TypeError: A function cannot be a tool.
        ValueError: A function has a name that no tool may have, or two have the same.
    """
    if tools is None:
        return None
    items = to_local_tools(tools)  # type: ignore[arg-type]  # it checks the type
    return [item.definition if isinstance(item, LocalTool) else item for item in items]


def _each(tools: Any) -> Iterator[object]:
    if callable(tools) or isinstance(tools, (str, Mapping)) or not isinstance(tools, Iterable):
        name = getattr(tools, "__name__", None)
        got = f"the function {name}; write tools=[{name}]" if name else repr(tools)
        msg = f"tools must be a list of functions and definitions, got {got}"
        raise TypeError(msg)
    return iter(tools)


def _as_local(function: Callable[..., Any]) -> LocalTool[..., Any]:
    if isinstance(function, type):
        msg = f"{function.__name__} is a class; pass an instance, a method or a function as a tool"
        raise TypeError(msg)
    local = function if isinstance(function, LocalTool) else LocalTool(function)
    if local.is_unbound:
        msg = f"tool {local.name!r} is an unbound method: pass the method of an instance"
        raise TypeError(msg)
    return local
