"""The bots of the guide, on the platforms' own libraries, before local servers in their place."""

from __future__ import annotations

import ast
import itertools
import json
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from openai_runs import AsyncClient
from openai_runs.conversations import Conversations
from openai_runs.server import Call, CallTools, Fail, Hang, LocalServer, Say, ScriptedBackend
from openai_runs.testing import RunsServer
from openai_runs.types import FunctionToolCall
from tests.test_docs import PAGES_FOLDER, Block, blocks_of

PROGRAMS = ["discord_bot.py", "telegram_bot.py"]
DEAD = "http://127.0.0.1:9/v1"
LONG = "A sentence with a 😀. " * 300
BOT = {"id": "1", "username": "bot", "discriminator": "0", "avatar": None, "bot": True}
ADA = {"id": "2", "username": "ada", "discriminator": "0", "avatar": None}


def program(name: str) -> Block:
    """Return a program of the guide."""
    (found,) = (
        block for block in blocks_of(PAGES_FOLDER / "guides" / "bots.md") if block.file == name
    )
    return found


def names_of(name: str) -> dict[str, Any]:
    """Load a program, and return its names."""
    block = program(name)
    names: dict[str, Any] = {"__name__": name}
    exec(compile(block.source, block.place, "exec"), names)
    return names


@pytest.mark.parametrize("name", PROGRAMS)
def test_bot_has_at_most_30_statements(name: str) -> None:
    """Whoever reads the guide has written it in an hour."""
    tree = ast.parse(program(name).source)
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    start = [node for node in tree.body if "__main__" in ast.unparse(node)]

    assert len(statements) - len(start) <= 30


class Platform:
    """What a chat shows: messages by their numbers, and how long they may be."""

    def __init__(self, limit: int) -> None:
        self.texts: dict[int, str] = {}
        self.refusals = 0
        """How many of the next messages are refused for now."""
        self.updates: list[dict[str, Any]] = []
        """What is delivered to a bot that polls."""
        self.edits = 0
        self._limit = limit

    def put(self, text: str, number: int | None = None) -> int:
        """Send a message, or edit one."""
        units = len(text.encode("utf-16-le")) // 2 if self._limit == 4096 else len(text)
        assert 0 < units <= self._limit
        assert number is None or self.texts[number] != text
        self.edits += number is not None
        number = 100 + len(self.texts) if number is None else number
        self.texts[number] = text
        return number

    @property
    def shown(self) -> list[str]:
        """Return the texts, the oldest first."""
        return list(self.texts.values())


@asynccontextmanager
async def talking(model: ScriptedBackend, file: Path) -> AsyncIterator[Conversations]:
    """Yield conversations with a scripted model."""
    async with LocalServer(backend=model) as server, AsyncClient(server.url) as client:
        assistant = await client.assistants.create(model="scripted")
        async with Conversations(
            client, assistant_id=assistant.id, store=file, every=0.02
        ) as conversations:
            yield conversations


# --- Telegram


@asynccontextmanager
async def telegram(platform: Platform) -> AsyncIterator[Any]:
    """Yield a bot of aiogram's, with a server of ours in place of Telegram's."""
    from aiogram import Bot
    from aiogram.client.session.aiohttp import AiohttpSession
    from aiogram.client.telegram import TelegramAPIServer

    async def call(request: web.Request) -> web.Response:
        form = await request.post()
        if request.match_info["method"] == "getMe":
            me = {"id": 1, "is_bot": True, "first_name": "Bot", "username": "bot"}
            return web.json_response({"ok": True, "result": me})
        if request.match_info["method"] == "getUpdates":
            updates, platform.updates = platform.updates, []
            if not updates:
                await anyio.sleep(0.1)  # polls are long
            return web.json_response({"ok": True, "result": updates})
        if platform.refusals:
            platform.refusals -= 1
            refusal = {"ok": False, "error_code": 429, "description": "Too Many Requests"}
            return web.json_response({**refusal, "parameters": {"retry_after": 1}}, status=429)
        text, edited = str(form["text"]), form.get("message_id")
        number = platform.put(text, int(str(edited)) if edited else None)
        chat = {"id": int(str(form["chat_id"])), "type": "private"}
        # Telegram trims what it is sent.
        message = {"message_id": number, "date": 1, "chat": chat, "text": text.strip()}
        return web.json_response({"ok": True, "result": message})

    application = web.Application()
    application.router.add_post("/bot{token}/{method}", call)
    async with TestServer(application) as server:
        api = TelegramAPIServer.from_base(str(server.make_url("")))
        async with Bot("1:token", session=AiohttpSession(api=api)) as bot:
            yield bot


def update_of(text: str, number: int = 1) -> dict[str, Any]:
    """Return what Telegram sends for a message."""
    ada = {"id": 2, "is_bot": False, "first_name": "Ada"}
    entities = [{"type": "bot_command", "offset": 0, "length": len(text)}] if text[0] == "/" else []
    message = {
        "message_id": number,
        "date": 1,
        "chat": {"id": 2, "type": "private"},
        "from": ada,
        "text": text,
        "entities": entities,
    }
    return {"update_id": number, "message": message}


async def test_telegram_bot_edits_and_splits_its_answer(tmp_path: Path) -> None:
    """And goes on after a refused edit, a repeated message, a failed run, a stop and a reset."""
    platform = Platform(4096)
    model = ScriptedBackend(
        [Say(LONG, chunk=600, pause=0.03), Fail(text="half"), Hang("For ever"), "fresh"]
    )
    dispatcher = names_of("telegram_bot.py")["dispatcher"]
    async with telegram(platform) as bot, talking(model, tmp_path / "bot.db") as conversations:
        numbers = itertools.count(1)

        async def feed(text: str, number: int = 0) -> None:
            update = update_of(text, number or next(numbers))
            await dispatcher.feed_raw_update(bot, update, conversations=conversations)

        await feed("/start")
        await feed("/unknown")
        platform.refusals = 2
        await feed("Hello", 50)
        await feed("Hello", 50)
        assert "".join(platform.shown) == LONG
        assert len(platform.texts) == 2
        assert platform.edits > 1

        await feed("And now?")
        assert platform.shown[2:] == ["half", "(The answer ended here: RunFailed.)"]

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(feed, "Again?")
            while len(platform.texts) < 5:  # noqa: ASYNC110 - the task's doing
                await anyio.sleep(0.01)
            await feed("/stop")
        assert platform.shown[4:] == ["For ever", "(The answer ended here: RunCancelled.)"]

        await feed("/reset")
        await feed("New?")
        assert platform.shown[6:] == ["fresh"]
        assert len(model.requests[-1].messages) == 1


@pytest.fixture
async def scripted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ScriptedBackend]:
    """Return the model of the server and the assistant that the environment names."""
    model = ScriptedBackend()
    monkeypatch.chdir(tmp_path)
    async with LocalServer(backend=model) as server, AsyncClient(server.url) as client:
        assistant = await client.assistants.create(model="scripted")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("ASSISTANT", assistant.id)
        yield model


async def test_telegram_bot_that_is_stopped_in_mid_answer_gives_it_at_the_next_start(
    monkeypatch: pytest.MonkeyPatch, scripted: ScriptedBackend
) -> None:
    """A signal ends its polling, and its handlers are still at work."""
    scripted.add(CallTools([Call("weather", {"city": "Oslo"})]), Say("one two", chunk=3, pause=0.5))
    platform = Platform(4096)
    names = names_of("telegram_bot.py")
    platform.updates = [update_of("Hello")]
    monkeypatch.setenv("TELEGRAM_TOKEN", "1:token")

    async with telegram(platform) as bot:
        names["Bot"] = lambda token: bot
        for shown in (["one"], ["one", "one two"]):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(names["main"])
                with anyio.fail_after(20):
                    while platform.shown != shown:  # noqa: ASYNC110 - the bot's doing
                        await anyio.sleep(0.01)
                await names["dispatcher"].stop_polling()

    (call,) = scripted.requests[-1].turns[0].tool_calls
    assert isinstance(call, FunctionToolCall)
    assert call.function.output == "It is sunny in Oslo."


async def test_telegram_bot_says_so_when_its_server_does_not_answer(tmp_path: Path) -> None:
    """The user is not left without a word."""
    platform = Platform(4096)
    dispatcher = names_of("telegram_bot.py")["dispatcher"]
    async with (
        telegram(platform) as bot,
        AsyncClient(DEAD, max_retries=0) as client,
        Conversations(client, assistant_id="a", store=tmp_path / "bot.db") as made,
    ):
        await dispatcher.feed_raw_update(bot, update_of("Hello"), conversations=made)

    assert platform.shown == ["(The answer ended here: APIConnectionError.)"]


async def test_telegram_bot_starts_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs_server: RunsServer
) -> None:
    """Its `main` opens what it needs, and hands it to the dispatcher."""
    names = names_of("telegram_bot.py")
    handed: list[object] = []

    async def start_polling(bot: object, *, conversations: object) -> None:
        handed.append(conversations)

    monkeypatch.setenv("OPENAI_BASE_URL", runs_server.url)
    monkeypatch.setenv("ASSISTANT", "asst_1")
    monkeypatch.setenv("TELEGRAM_TOKEN", "1:token")
    names["dispatcher"].start_polling = start_polling
    await names["main"]()

    assert isinstance(handed[0], Conversations)


# --- Discord


@asynccontextmanager
async def discord(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """Put a server of ours in the place of Discord's, and yield its address."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it imports `audioop`
        from discord.http import Route

    def answer(body: dict[str, Any]) -> web.Response:
        # As Discord, without a charset: the library reads nothing else as JSON.
        return web.Response(body=json.dumps(body).encode(), content_type="application/json")

    def message_of(number: int) -> dict[str, Any]:
        return {**message_from(BOT, platform.texts[number]), "id": str(number)}

    async def send(request: web.Request) -> web.Response:
        return answer(message_of(platform.put((await request.json())["content"])))

    async def edit(request: web.Request) -> web.Response:
        number = int(request.match_info["number"])
        return answer(message_of(platform.put((await request.json())["content"], number)))

    async def me(request: web.Request) -> web.Response:
        return answer(BOT)

    async def application_of(request: web.Request) -> web.Response:
        body = {"id": "1", "name": "bot", "description": "", "bot_public": True}
        more = {"bot_require_code_grant": False, "verify_key": "", "flags": 0, "owner": ADA}
        return answer({**body, **more, "icon": None, "team": None, "summary": ""})

    async def typing(request: web.Request) -> web.Response:
        return web.Response(status=204)

    application = web.Application()
    application.router.add_get("/users/@me", me)
    application.router.add_get("/oauth2/applications/@me", application_of)
    application.router.add_post("/channels/{channel}/typing", typing)
    application.router.add_post("/channels/{channel}/messages", send)
    application.router.add_patch("/channels/{channel}/messages/{number}", edit)
    async with TestServer(application) as server:
        monkeypatch.setattr(Route, "BASE", str(server.make_url("")).rstrip("/"))
        yield Route.BASE


def message_from(author: dict[str, Any], text: str) -> dict[str, Any]:
    """Return what Discord sends for a message."""
    return {
        "id": "50",
        "channel_id": "7",
        "author": author,
        "content": text,
        "timestamp": "2026-01-01T00:00:00+00:00",
        "edited_timestamp": None,
        "tts": False,
        "mention_everyone": False,
        "mentions": [],
        "mention_roles": [],
        "attachments": [],
        "embeds": [],
        "pinned": False,
        "type": 0,
    }


async def test_discord_bot_edits_and_splits_its_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And goes on after a run that fails and a stop; what it says itself it does not answer."""
    platform = Platform(2000)
    model = ScriptedBackend([Say(LONG, chunk=600, pause=0.03), Fail(text="half"), Hang("For ever")])
    async with (
        discord(platform, monkeypatch),
        talking(model, tmp_path / "bot.db") as conversations,
    ):
        import discord as library

        async with names_of("discord_bot.py")["Bot"](intents=library.Intents.none()) as bot:
            bot.conversations = conversations
            await bot.login("token")

            def feed(text: str, author: dict[str, Any] = ADA) -> None:
                bot._connection.parse_message_create(message_from(author, text))

            async def until(count: int) -> None:
                while len(platform.texts) < count:  # noqa: ASYNC110 - the bot's doing
                    await anyio.sleep(0.01)

            feed("I said so", BOT)
            feed("Hello")
            feed("And now?")
            await until(6)
            assert "".join(platform.shown[:4]) == LONG
            assert platform.edits > 1
            assert platform.shown[4:] == ["half", "(The answer ended here: RunFailed.)"]

            feed("Again?")
            await until(7)
            feed("!stop")
            await until(8)
            assert platform.shown[6:] == ["For ever", "(The answer ended here: RunCancelled.)"]


async def test_discord_bot_that_is_stopped_in_mid_answer_gives_it_at_the_next_start(
    monkeypatch: pytest.MonkeyPatch, scripted: ScriptedBackend
) -> None:
    """Its handlers are tasks of the library, which are still at work then."""
    scripted.add(Say("one two", chunk=3, pause=0.5))
    platform = Platform(2000)
    monkeypatch.setenv("DISCORD_TOKEN", "token")
    wanted = iter([["one"], ["one", "one two"]])

    async def start(self: Any, token: str) -> None:
        await self.login(token)
        if not platform.texts:
            self._connection.parse_message_create(message_from(ADA, "Hello"))
        shown = next(wanted)
        with anyio.fail_after(20):
            while platform.shown != shown:  # noqa: ASYNC110 - the bot's doing
                await anyio.sleep(0.01)

    async with discord(platform, monkeypatch):
        names = names_of("discord_bot.py")
        names["Bot"].start = start
        await names["main"]()
        await names["main"]()

    assert platform.shown == ["one", "one two"]


async def test_discord_bot_starts_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs_server: RunsServer
) -> None:
    """Its `main` opens what it needs, and starts the bot."""
    async with discord(Platform(2000), monkeypatch):
        names = names_of("discord_bot.py")
        started: list[object] = []

        async def start(self: Any, token: str) -> None:
            started.append(self.conversations)

        monkeypatch.setenv("OPENAI_BASE_URL", runs_server.url)
        monkeypatch.setenv("ASSISTANT", "asst_1")
        monkeypatch.setenv("DISCORD_TOKEN", "token")
        names["Bot"].start = start
        await names["main"]()

    assert isinstance(started[0], Conversations)
