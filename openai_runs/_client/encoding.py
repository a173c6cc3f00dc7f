"""Python values as the JSON that is sent.

What msgspec cannot encode by itself, such as pydantic models and iterables, is converted. A model
is recognised by its methods: pydantic is not imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Protocol, cast

import msgspec

from openai_runs._protocol.spec import check_text
from openai_runs.types.runs import ToolOutput

__all__ = ["Model", "as_text", "plain", "tool_outputs_of"]


class Model(Protocol):
    """An instance of a pydantic model."""

    def model_dump_json(self) -> str:
        """Return its JSON."""


def tool_outputs_of(
    outputs: Iterable[ToolOutput | Mapping[str, Any] | Model],
) -> list[dict[str, Any]]:
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
    elif _is_model(item, "model_dump"):
        pair = _given(item)
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
    return msgspec.json.encode(value, enc_hook=_result).decode()


def plain(value: Any) -> Any:
    """Return `value` as JSON would hold it, so that it can be sent more than once.

    >>> plain({"ids": (i for i in range(2))})
    {'ids': [0, 1]}

    Raises:
        TypeError: It cannot be written as JSON.
    """
    return msgspec.to_builtins(value, enc_hook=_convert)


def _result(value: Any) -> Any:
    """Return what msgspec can encode in place of a tool's result, or of a part of it."""
    if _is_model(value, "model_dump_json"):
        return msgspec.Raw(value.model_dump_json().encode())
    return _convert(value)


def _convert(value: Any) -> Any:
    """Return what msgspec can encode in place of `value`, which it cannot."""
    if _is_model(value, "model_dump"):
        return _given(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable):
        return list(value)
    name = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
    msg = f"{name} cannot be written as JSON"
    raise TypeError(msg)


def _is_model(value: object, method: str) -> bool:
    """Return whether `value` is a pydantic model, or what has this method of one."""
    return not isinstance(value, type) and callable(getattr(value, method, None))


def _given(model: Any) -> Any:
    """Return a model as it is sent: a None that only stands for "not given" is left out.

    Defaults are sent, such as the `type` of a part; so is a None that was set, as null.
    """
    return _merged(
        model.model_dump(mode="json", by_alias=True, exclude_none=True),
        model.model_dump(mode="json", by_alias=True, exclude_unset=True),
    )


def _merged(some: Any, others: Any) -> Any:
    """Return what either dump has."""
    if isinstance(some, dict) and isinstance(others, dict):
        both = some.keys() & others.keys()
        return {**some, **others, **{name: _merged(some[name], others[name]) for name in both}}
    if isinstance(some, list) and isinstance(others, list) and len(some) == len(others):
        return [_merged(one, other) for one, other in zip(some, others, strict=True)]
    return some
