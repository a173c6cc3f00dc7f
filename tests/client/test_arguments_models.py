"""Pydantic models as arguments, wherever a Struct or a mapping is one."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from openai_runs import AsyncClient
from tests.client.test_arguments import NAMES, SENDS, Sends, full, sent


class Open(BaseModel, extra="allow"):
    """A model of any fields."""

    not_given: str | None = None


def modelled(value: Any) -> Any:
    """Return `value` with a pydantic model for each object within it."""
    if isinstance(value, list):
        return [modelled(inner) for inner in value]
    if isinstance(value, dict):
        return Open(**{name: modelled(inner) for name, inner in value.items()})
    return value


@pytest.mark.parametrize("sends", SENDS, ids=NAMES)
async def test_body_given_as_pydantic_models_is_sent_as_objects(sends: Sends) -> None:
    """Messages, parts of content, tools, metadata: any object may be a model; nulls stay."""
    given = {name: modelled(value) for name, value in full(sends).items()}

    request = await sent(sends.method, **sends.ids, **given)

    assert request.json == full(sends)


class Part(BaseModel):
    """A part of a message, as one would write it; the official SDK has aliases too."""

    type_: Literal["text"] = Field(default="text", alias="type")
    text: str


class Post(BaseModel):
    """A message with defaults, and with fields that need not be given."""

    role: str = "user"
    content: list[Part]
    attachments: list[dict[str, str]] | None = None
    metadata: dict[str, str] | None = None


async def test_model_is_sent_with_its_defaults_and_without_what_was_not_given() -> None:
    """A None that was set is null, one that only stands for nothing is left out; aliases count."""
    parts = [Part(text="Hello")]
    posts = [Post(content=parts), Post(content=parts, attachments=None)]

    request = await sent(
        "runs.create", thread_id="t", assistant_id="a", additional_messages=iter(posts)
    )

    bare = {"role": "user", "content": [{"type": "text", "text": "Hello"}]}
    assert request.json["additional_messages"] == [bare, {**bare, "attachments": None}]


async def test_class_in_place_of_a_model_is_a_type_error() -> None:
    """It names what cannot be sent, before anything is."""
    async with AsyncClient("http://127.0.0.1:9/v1") as client:
        with pytest.raises(TypeError, match="the class Open cannot be written as JSON"):
            await client.threads.create(metadata=Open)  # type: ignore[arg-type]  # on purpose
