"""Pydantic models in the calls of tools, against the real server."""

from __future__ import annotations

from typing import Annotated, Any

import pydantic
import pytest
from pydantic import BaseModel, Field

from openai_runs import AsyncClient, LocalToolCall, tool
from openai_runs.testing import RunsServer
from tests.e2e.tooling import answer, answered, run_tools


class Item(BaseModel):
    """What is ordered."""

    name: str
    count: int = Field(default=1, ge=1)

    @pydantic.field_validator("name")
    @classmethod
    def check(cls, name: str) -> str:
        """Reject some."""
        if name == "dodo":
            msg = "it is extinct"
            raise ValueError(msg)
        if name == "gold":
            return str(1 / 0)
        return name


class Receipt(BaseModel):
    """What was ordered."""

    items: list[Item]
    note: str | None = None

    @pydantic.computed_field  # type: ignore[prop-decorator]  # as pydantic says it is written
    @property
    def total(self) -> int:
        """Return how many things there are."""
        return sum(item.count for item in self.items)


@tool
def order(
    items: list[Item], limit: Annotated[int, Field(ge=1, description="At most.")] = 9
) -> Receipt:
    """Order things."""
    return Receipt(items=items[:limit])


async def test_function_gets_models_and_returns_one(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """The result is what `model_dump_json` writes; hooks see the models too."""
    seen: list[Any] = []

    def note(call: LocalToolCall, output: str | None) -> None:
        seen.append(call.arguments)

    runs_server.call_tool("order", {"items": [{"name": "tea", "count": 2}, {"name": "cup"}]})

    await run_tools(runs_client, order, on_tool_call=note)

    items = [Item(name="tea", count=2), Item(name="cup")]
    assert answered(runs_server)[0]["output"] == Receipt(items=items).model_dump_json()
    assert seen == [{"items": items}] * 2
    (sent,) = runs_server.seen("POST", "runs")
    assert sent.json["tools"][0]["function"]["parameters"]["properties"]["items"] == {
        "type": "array",
        "items": {"$ref": "#/$defs/Item"},
    }


UNFIT: dict[str, tuple[dict[str, Any], str]] = {
    "bound": (
        {"items": [{"name": "tea", "count": 0}]},
        ": Input should be greater than or equal to 1 - at `$.items[0].count`",
    ),
    "missing": ({"items": [{"count": 1}]}, ": Field required - at `$.items[0].name`"),
    "validator": (
        {"items": [{"name": "dodo"}]},
        ": Value error, it is extinct - at `$.items[0].name`",
    ),
    "annotated": (
        {"items": [], "limit": 0},
        ": Input should be greater than or equal to 1 - at `$.limit`",
    ),
    "error-of-its-own": ({"items": [{"name": "gold"}]}, ""),
}


@pytest.mark.parametrize(("arguments", "problem"), UNFIT.values(), ids=UNFIT)
async def test_arguments_that_do_not_validate_are_an_error_output(
    runs_server: RunsServer, runs_client: AsyncClient, arguments: dict[str, Any], problem: str
) -> None:
    """The model reads which field is wrong and why, and nothing of what is inside."""
    runs_server.call_tool("order", arguments)

    await run_tools(runs_client, order)

    assert answer(runs_server) == {"error": f"the arguments do not fit{problem}"}
