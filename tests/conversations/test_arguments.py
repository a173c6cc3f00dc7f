"""What a reply and its conversations are made with, and records that cannot be read."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from openai_runs import ConfigError
from openai_runs.conversations import Entry, Reply, SQLiteStore
from openai_runs.server import Call, CallTools
from openai_runs.text import write_messages
from tests.conversations.talking import KEY, Bot, shown

HALF = "\ud83d"


@pytest.mark.parametrize(
    ("key", "text", "options", "wanted"),
    [
        pytest.param(KEY, None, {}, (TypeError, "text"), id="no-text"),
        pytest.param(KEY, b"hi", {}, (TypeError, "text"), id="bytes"),
        pytest.param(KEY, 7, {}, (TypeError, "text"), id="number"),
        pytest.param(KEY, HALF, {}, (ConfigError, "text"), id="half-a-character"),
        pytest.param(HALF, "hi", {}, (ConfigError, "key"), id="half-in-the-key"),
        pytest.param(
            KEY, "hi", {"idempotency_key": 7}, (TypeError, "idempotency_key"), id="key-is-a-number"
        ),
    ],
)
async def test_text_that_cannot_be_sent_is_an_error_before_it_is_stored(
    bot: Bot, key: Any, text: Any, options: dict[str, Any], wanted: tuple[type[Exception], str]
) -> None:
    """It names the argument."""
    async with bot.conversations() as conversations:
        kind, name = wanted
        with pytest.raises(kind, match=name):
            conversations.reply(key, text, **options)

    assert not bot.file.exists()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(
            b'{"last_id":1,"waiting":[{"id":1,"text":null,"owner":"a","until":0}]}', id="no-text"
        ),
        pytest.param(b"{", id="cut"),
        pytest.param(b"\xff", id="no-json"),
    ],
)
async def test_abandoned_passes_over_a_record_that_cannot_be_read(
    bot: Bot, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged once, and the others are answered."""
    bot.model.add("answer")
    store = SQLiteStore(bot.file)
    left = b'{"last_id":1,"waiting":[{"id":1,"text":"hi","owner":"a","until":0}]}'
    await store.change('"ada"', lambda _: (Entry(data, is_open=True), None))
    await store.change('"bob"', lambda _: (Entry(left, is_open=True), None))
    await store.aclose()
    answers: list[str] = []
    done = anyio.Event()

    async def answer(reply: Reply) -> None:
        answers.extend(await shown(reply))
        done.set()

    async with bot.conversations(lease=0.2) as conversations, anyio.create_task_group() as tasks:
        tasks.start_soon(conversations.answer_abandoned, answer)
        with anyio.fail_after(20):
            await done.wait()
        tasks.cancel_scope.cancel()

    assert answers == ["answer"]
    assert [one.message for one in caplog.records if one.levelname == "ERROR"] == [
        'the record of conversation "ada" cannot be read'
    ]


async def test_reply_that_is_iterated_without_its_block_is_an_error(bot: Bot) -> None:
    """It would yield nothing, since nothing was sent; also where it is passed on."""

    async def send(text: str) -> None:
        raise AssertionError(text)

    async with bot.conversations() as conversations:
        with pytest.raises(TypeError, match="async with"):
            [text async for text in conversations.reply(KEY, "hi")]
        with pytest.raises(TypeError, match="async with"):
            await write_messages(conversations.reply(KEY, "hi"), send, send_again, limit=400)

    assert not bot.file.exists()


async def send_again(_: None, text: str) -> None:
    """Edit nothing."""
    raise AssertionError(text)


def weather() -> str:
    """Return the weather."""
    return "sunny"


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        pytest.param({"foo": 1}, "'foo'", id="unknown"),
        pytest.param({"tools": weather}, r"write tools=\[weather\]", id="one-tool"),
        pytest.param({"tools": 7}, "tools must be a list", id="tools-are-a-number"),
        pytest.param({"timeout": "1"}, "timeout", id="timeout-is-a-text"),
    ],
)
async def test_argument_that_no_run_takes_is_an_error_at_once(
    bot: Bot, options: dict[str, Any], wanted: str
) -> None:
    """Of the class where it is made, of a reply where that is made: nothing is stored."""
    with pytest.raises(TypeError, match=wanted):
        bot.conversations(**options)
    async with bot.conversations() as conversations:
        with pytest.raises(TypeError, match=wanted):
            conversations.reply(KEY, "hi", **options)

    assert not bot.file.exists()


async def test_tools_are_read_once(bot: Bot) -> None:
    """An iterator of them serves all runs."""
    bot.model.add(CallTools([Call("weather")]), "a", CallTools([Call("weather")]), "b")

    async with bot.conversations(tools=iter([weather])) as conversations:
        assert await shown(conversations.reply(KEY, "1")) == ["a"]
        assert await shown(conversations.reply(KEY, "2")) == ["b"]
