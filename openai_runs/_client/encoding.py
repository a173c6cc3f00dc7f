"""Python values as the JSON that is sent.

What msgspec cannot encode by itself, such as pydantic models and iterables, is converted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, cast

import msgspec

from openai_runs._protocol.spec import check_text
from openai_runs.types.runs import ToolOutput

__all__ = ["as_text", "plain", "tool_outputs_of"]


def tool_outputs_of(outputs: Iterable[ToolOutput | Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return tool outputs as they are sent; an output that is no text becomes JSON text."""
    if isinstance(outputs, (Mapping, str)):
        msg = "tool_outputs must be a list of {'tool_call_id', 'output'}"
        raise TypeError(msg)
    return [_tool_output(item, f"tool_outputs[{number}]") for number, item in enumerate(outputs)]


def _tool_output(item: object, name: str) -> dict[str, Any]:
    if isinstance(item, Mapping):
        pair = dict(item)
    elif isinstance(item, ToolOutput):
        pair = msgspec.structs.asdict(item)
    else:
        msg = f"a tool output must be a mapping or a ToolOutput, got {type(item).__name__}"
        raise TypeError(msg)
    if "output" in pair and not isinstance(pair["output"], str):
        try:
            pair["output"] = as_text(pair["output"])
        except UnicodeEncodeError:
            check_text(f"{name}.output", plain(pair["output"]))
            raise
    return cast("dict[str, Any]", plain(pair))


def as_text(value: object) -> str:
    """Return a tool's result as it is sent: a text as it is, anything else as JSON.

    >>> as_text({"degrees": 12}), as_text("12 degrees"), as_text(None)
    ('{"degrees":12}', '12 degrees', 'null')

    Raises:
        TypeError: It cannot be written as JSON.
    """
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, str):
        return str(value)
    return msgspec.json.encode(value, enc_hook=_convert).decode()


def plain(value: Any) -> Any:
    """Return `value` as JSON would hold it, so that it can be sent more than once.

    >>> plain({"ids": (i for i in range(2))})
    {'ids': [0, 1]}

    Raises:
        TypeError: It cannot be written as JSON.
    """
    return msgspec.to_builtins(value, enc_hook=_convert)


def _convert(value: Any) -> Any:
    """Return what msgspec can encode in place of `value`, which it cannot."""
    dump = getattr(value, "model_dump", None)
    if callable(dump):  # a pydantic model, such as the official SDK's objects
        return dump(mode="json")
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable):
        return list(value)
    msg = f"{type(value).__name__} cannot be written as JSON"
    raise TypeError(msg)
