"""What every call takes besides its own arguments."""

from __future__ import annotations

from typing import Any

import pytest

from openai_runs import AsyncClient
from openai_runs.types import CodeInterpreterTool
from tests.client.test_arguments import sent


async def test_extras_are_laid_over_what_the_method_sends() -> None:
    """`extra_body` wins over the body, `extra_query` over the query, `extra_headers` over ours."""
    request = await sent(
        "runs.create",
        thread_id="t",
        assistant_id="a",
        model="m",
        include=["step_details.tool_calls[*].file_search.results[*].content"],
        extra_body={"model": "n", "new": {"x": CodeInterpreterTool()}},
        extra_query={"api-version": "v1", "list": ["a", "b"], "flag": True, "none": None},
        extra_headers={"openai-beta": "assistants=v3", "X-New": "1", "content-TYPE": "text/x"},
    )

    assert request.json == {
        "assistant_id": "a",
        "model": "n",
        "new": {"x": {"type": "code_interpreter"}},
    }
    assert request.query == {
        "include[]": ["step_details.tool_calls[*].file_search.results[*].content"],
        "api-version": ["v1"],
        "list[]": ["a", "b"],
        "flag": ["true"],
    }
    assert request.headers["openai-beta"] == "assistants=v3"
    assert request.headers["content-type"] == "text/x"
    assert request.headers["x-new"] == "1"


@pytest.mark.parametrize("name", ["extra_body", "extra_query", "extra_headers", "timeout"])
async def test_option_of_none_is_no_option(name: str) -> None:
    """Code that passes options on need not leave them out."""
    request = await sent("threads.create", **{name: None})

    assert request.json == {}
    assert request.query == {}


@pytest.mark.parametrize("name", ["timeout", "request_timeout"])
@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (0, ValueError),
        (-1, ValueError),
        (float("nan"), ValueError),
        ("5", TypeError),
        (True, TypeError),
    ],
    ids=str,
)
async def test_bad_time_is_refused_before_anything_is_sent(
    name: str, value: Any, kind: type[Exception]
) -> None:
    """The error names the argument."""
    async with AsyncClient("http://127.0.0.1:9/v1") as client:
        with pytest.raises(kind, match=name):
            await client.threads.create(**{name: value})


@pytest.mark.parametrize("value", ["later", None, True])
async def test_unknown_reaction_to_a_busy_thread_is_refused(value: Any) -> None:
    """`on_active_run` takes three words."""
    async with AsyncClient("http://127.0.0.1:9/v1") as client:
        with pytest.raises(ValueError, match="on_active_run"):
            await client.runs.create("t", assistant_id="a", on_active_run=value)
