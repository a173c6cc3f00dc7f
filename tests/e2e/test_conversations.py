"""A conversation goes on, whatever came of its runs, before endpoints that refuse what they may."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from openai_runs import AsyncClient, PollPolicy
from openai_runs.config import RetryPolicy
from openai_runs.server import ChatBackend, LocalServer
from openai_runs.types.events import MessageDeltaEvent
from tests.canaries import CANARY_KEY
from tests.e2e.conversing import INSTRUCTIONS, KINDS, MORE, assistant, converse, perform
from tests.server.backends.fake_endpoints import Endpoint, opened
from tests.server.backends.fake_refusals import (
    CONTENT_RULES,
    DIALECTS,
    LENIENT,
    REFUSING,
    STRICT,
)
from tests.server.support import ManualClock
from tests.tiers import few

AT_ONCE = RetryPolicy(initial=0.0)
OPTIONS: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.9,
    "max_completion_tokens": 500,
    "response_format": {"type": "json_object"},
    "parallel_tool_calls": False,
    "tool_choice": "required",
    "reasoning_effort": "low",
}
"""All that a run may ask for, with values that are not the default."""
ENDPOINTS = {"strict": (STRICT, "strict"), "lenient": (LENIENT, "loose")}
LEARNT = {"null", "opening", "system"}
"""What an endpoint may have to say once, beside the fields it does not know."""


@asynccontextmanager
async def serving(db: Path, endpoint: Endpoint, **options: Any) -> AsyncIterator[AsyncClient]:
    """Put a server in front of an endpoint; yield a client of it."""
    backend = ChatBackend(endpoint.url, retry=AT_ONCE)
    async with (
        LocalServer(db, backend, **options) as server,
        AsyncClient(
            server.url, api_key=CANARY_KEY, retry=AT_ONCE, poll=PollPolicy(initial=0.01)
        ) as client,
    ):
        yield client


def repeated(endpoint: Endpoint, allowed: int = 1) -> dict[str, int]:
    """Return which rules were broken that need not be, or more often than learning takes."""
    return {
        rule: count
        for rule, count in endpoint.refused.items()
        if rule != "context"
        and count > (allowed if rule in LEARNT or rule.startswith("field ") else 0)
    }


def is_context_learnt(endpoint: Endpoint) -> bool:
    """Tell whether no messages that were too many were sent a second time."""
    return all(n == 1 for (rule, _), n in endpoint.repeated.items() if rule == "context")


def order_of(seed: int) -> list[str]:
    """Return the kinds in an order of its own for each seed but 0, and then with more of them."""
    if not seed:
        return KINDS
    kinds = [*KINDS, *MORE]
    random.Random(seed).shuffle(kinds)
    # What is learnt counts as learnt with the first answer.
    return ["plain", *kinds, "plain"]


@pytest.mark.parametrize("seed", few(range(30), kept=[0, 1], rest=pytest.mark.seeds))
@pytest.mark.parametrize("kind", ENDPOINTS)
async def test_conversation_goes_on_when_runs_before_it_ended_in_any_way(
    tmp_path: Path, kind: str, seed: int
) -> None:
    """20 runs and more on one thread: each ends as its answer says, and spoils none behind it."""
    rules, style = ENDPOINTS[kind]
    async with opened(rules, style=style) as endpoint, serving(tmp_path / "a", endpoint) as client:
        wrong = await converse(client, order_of(seed), assistant_id=await assistant(client))

    assert wrong == []
    assert repeated(endpoint) == {}
    assert is_context_learnt(endpoint)


@pytest.mark.parametrize("kind", ENDPOINTS)
async def test_conversations_go_on_when_several_threads_have_them_at_once(
    tmp_path: Path, kind: str
) -> None:
    """What is learnt from one is of use to all, and nothing is mixed up."""
    rules, style = ENDPOINTS[kind]
    wrong: list[str] = []

    async def talk(first: int) -> None:
        wrong.extend(await converse(client, order_of(first), first=first, assistant_id=of))

    async with opened(rules, style=style) as endpoint, serving(tmp_path / "a", endpoint) as client:
        of = await assistant(client)
        async with anyio.create_task_group() as group:
            for first in (100, 200, 300):
                group.start_soon(talk, first)

    assert wrong == []
    assert repeated(endpoint, allowed=3) == {}


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_conversation_goes_on_when_every_optional_field_is_refused_once(
    tmp_path: Path, dialect: str
) -> None:
    """In the words of each kind of endpoint; what is learnt is not tried again."""
    async with (
        opened(REFUSING, dialect) as endpoint,
        serving(tmp_path / "a", endpoint) as client,
    ):
        fields = {"assistant_id": await assistant(client), **OPTIONS}
        wrong = await converse(client, KINDS, **fields)

    assert wrong == []
    assert repeated(endpoint) == {}
    first = endpoint.requests[-1].body["messages"][0]
    assert INSTRUCTIONS in first["content"]


@pytest.mark.parametrize("rules", CONTENT_RULES)
async def test_turn_without_text_is_sent_in_a_form_that_the_endpoint_takes(
    tmp_path: Path, rules: str
) -> None:
    """Null, an empty text, or no such field: one of them is tried after the other."""
    async with (
        opened([*CONTENT_RULES[rules], *STRICT[1:7]]) as endpoint,
        serving(tmp_path / "a", endpoint) as client,
    ):
        kinds = ["tool", "thought", "tools"]
        wrong = await converse(client, kinds, assistant_id=await assistant(client))

    assert wrong == []
    assert all(count == 1 for count in endpoint.refused.values()), endpoint.refused


async def test_oldest_turns_are_left_out_when_one_run_fills_the_context(tmp_path: Path) -> None:
    """Eight rounds of tools before an endpoint that takes 12 messages."""
    async with opened(STRICT) as endpoint, serving(tmp_path / "a", endpoint) as client:
        of = await assistant(client)
        wrong = await converse(client, ["plain", "many", "plain"], assistant_id=of)

    assert wrong == []
    assert repeated(endpoint) == {}
    assert endpoint.refused["context"] > 0


async def test_connection_to_the_model_is_closed_when_its_run_is_cancelled(tmp_path: Path) -> None:
    """An endpoint that goes on for nobody is told so at once."""
    async with opened(LENIENT) as endpoint, serving(tmp_path / "a", endpoint) as client:
        thread = await client.threads.create()
        fields: dict[str, Any] = {"thread_id": thread.id, "assistant_id": await assistant(client)}
        run = await perform(client, fields, "cancel", 1)
        with anyio.fail_after(20):
            while not endpoint.hung_up:  # noqa: ASYNC110 - nobody announces it
                await anyio.sleep(0.01)

    assert run.status == "cancelled"


async def test_connection_to_the_model_is_closed_when_its_run_expires(tmp_path: Path) -> None:
    """The text up to there is kept, and the thread goes on."""
    clock = ManualClock(time.time())
    async with (
        opened(STRICT) as endpoint,
        serving(tmp_path / "a", endpoint, clock=clock) as client,
    ):
        thread = await client.threads.create()
        fields: dict[str, Any] = {"thread_id": thread.id, "assistant_id": await assistant(client)}
        question = {"role": "user", "content": "1: cancel"}
        async with client.runs.stream(**fields, additional_messages=[question]) as stream:
            async for event in stream:
                if isinstance(event, MessageDeltaEvent):
                    clock.advance(3600)
            expired = stream.run
        with anyio.fail_after(20):
            while not endpoint.hung_up:  # noqa: ASYNC110 - nobody announces it
                await anyio.sleep(0.01)
        run = await perform(client, fields, "tool", 2)
        texts = [message.text async for message in client.messages.list(thread.id)]

    assert expired is not None
    assert expired.status == "expired"
    assert "Ha" in texts[-2]
    assert run.status == "completed"


async def test_thread_goes_on_when_it_has_messages_that_no_run_wrote(tmp_path: Path) -> None:
    """Two users in a row, an assistant that begins, and the same again behind an answer."""
    said = [("assistant", "Hello."), ("assistant", "Ask."), ("user", "I"), ("user", "see.")]
    async with opened(STRICT) as endpoint, serving(tmp_path / "a", endpoint) as client:
        thread = await client.threads.create()
        fields: dict[str, Any] = {"thread_id": thread.id, "assistant_id": await assistant(client)}
        ended = []
        for number in (1, 2, 3):
            for role, text in said:
                await client.messages.create(thread.id, role=role, content=text)
            ended.append(await perform(client, fields, "tool", number))

    assert [run.status for run in ended] == ["completed"] * 3
    assert repeated(endpoint) == {}
