"""`openai-runs chat`: one message after the other on a thread."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, Protocol

import anyio
import anyio.to_thread
import msgspec

from openai_runs import AsyncClient, Message, OpenAIRunsError, Run, RunResult, RunStatus
from openai_runs._cli.answering import (
    POLL,
    activity_of,
    is_news,
    next_step,
    pass_on,
    say_calls,
    show_rest,
    temporary_assistant,
    unanswered,
    warn_of_echo,
)
from openai_runs._cli.connecting import Place, check_ids, connect, explained
from openai_runs._cli.describing import verdict
from openai_runs._cli.ending import USAGE, Stop, code_of
from openai_runs._cli.functions import load_functions
from openai_runs._cli.interrupting import carry_out, show_outages
from openai_runs._cli.outputs import say
from openai_runs._cli.terminal.answer import AnswerDisplay
from openai_runs._client.arguments import CreateRunArguments
from openai_runs._client.streams.run_stream import RunStream

__all__ = ["Talk", "perform"]

_NAME: Final = "openai-runs chat"
"""Of the assistant that is made for the chat, in case it cannot be removed."""
_COMMANDS: Final = {
    "/help": "show this",
    "/new": "start a new thread",
    "/thread": "show the thread's id; /thread ID goes on with that one",
    "/quit": "end, as Ctrl-D does",
}
_HISTORY: Final = 50
"""Messages of a thread that is continued which the arrow keys find."""


class Talk(msgspec.Struct, frozen=True, kw_only=True):
    """What the command was given."""

    thread: str | None
    assistant: str | None
    model: str | None
    instructions: str | None
    tools: tuple[str, ...]
    place: Place


class Source(Protocol):
    """Where messages come from."""

    async def read(self) -> str | None:
        """Return the next one; None at the end."""
        ...


class _Lines:
    """Messages that are piped in, one on each line."""

    async def read(self) -> str | None:
        """Return the next line."""
        line = await anyio.to_thread.run_sync(sys.stdin.buffer.readline, abandon_on_cancel=True)
        return line.decode("utf-8", "replace").rstrip("\r\n") if line else None


def perform(talk: Talk) -> int:
    """Answer each message; return the exit code.

    Raises:
        Stop: The arguments contradict each other, or a piped message cannot be answered.
        Closed: Nobody reads the answers any more.
    """
    check_ids(talk.place, thread=talk.thread, assistant=talk.assistant)
    given = "--thread" if talk.thread else "--assistant" if talk.assistant else None
    if given is not None and not talk.place.is_lasting(os.environ):
        sentence = f"{given} is known to a server or in a file: add --base-url or --db"
        raise Stop(sentence, USAGE)
    tools = load_functions(talk.tools)
    prompt = None
    if sys.stdin is not None and sys.stdin.isatty():
        from openai_runs._cli.terminal.prompt import Prompt  # a part of the extra `cli`

        prompt = Prompt(_COMMANDS)
    logging.getLogger("openai_runs.client").addFilter(is_news)
    show_outages()
    chat = Chat(talk, tools, prompt or _Lines(), is_typed=prompt is not None)
    if prompt is not None:
        chat.on_thread = prompt.remember
    try:
        return carry_out(chat.run)
    except OpenAIRunsError as error:
        raise explained(error, talk.place) from error


class Chat:
    """Messages and answers, until there are no more messages."""

    def __init__(
        self, talk: Talk, tools: list[Callable[..., Any]], source: Source, *, is_typed: bool
    ) -> None:
        """Keep what is needed; `run` begins."""
        self.on_thread: Callable[[list[str]], None] = lambda texts: None
        """Called with what was asked before on a thread that is continued."""
        self._talk = talk
        self._tools = tools
        self._source = source
        self._is_typed = is_typed
        self._thread_id = talk.thread
        self._model = talk.model or talk.place.default_model(os.environ)
        self._answering: anyio.CancelScope | None = None
        self._code = 0

    async def run(self) -> int:
        """Return the exit code: of the last answer where messages are piped, else 0."""
        async with connect(self._talk.place, poll=POLL) as client:
            await warn_of_echo(client, self._talk.model, self._talk.place)
            async with self._assistant(client) as assistant_id:
                if self._thread_id is not None:
                    await self._go_on_with(client, self._thread_id)
                if self._is_typed:
                    say("/help lists the commands, Ctrl-C stops an answer, Ctrl-D ends")
                with self._interrupts():
                    await self._talk_on(client, assistant_id)
        if self._thread_id is not None:
            talk = self._talk
            options = [("--assistant", talk.assistant), ("--model", talk.model)]
            options += [("--tools", name) for name in talk.tools]
            say(next_step("chat", self._thread_id, talk.place, options))
        return 0 if self._is_typed else self._code

    async def _talk_on(self, client: AsyncClient, assistant_id: str) -> None:
        while (text := await self._source.read()) is not None:
            text = text.strip()
            if text == "/quit":
                return
            if not text:
                continue
            try:
                if text.startswith("/") and not text.startswith("//"):
                    await self._obey(client, *text.split())
                else:
                    await self._answer(client, assistant_id, text.removeprefix("/"))
            except OpenAIRunsError as error:
                if not self._is_typed:
                    raise
                say(f"openai-runs: {explained(error, self._talk.place)}", dim=False)

    async def _answer(self, client: AsyncClient, assistant_id: str, text: str) -> None:
        """Show the answer to one message; a Ctrl-C meanwhile ends it, and the run."""
        result = None
        with anyio.CancelScope() as self._answering:
            try:
                result = await self._stream(client, assistant_id, text)
            finally:
                self._answering = None
        if result is None:
            say("stopped")  # that the server did not cancel the run has been said
        else:
            self._conclude(result.run)

    async def _stream(self, client: AsyncClient, assistant_id: str, text: str) -> RunResult:
        stream: RunStream | None = None
        display = AnswerDisplay(lambda: "stopping" if self._is_stopping else activity_of(stream))
        with display:
            try:
                stream = client.runs.stream(
                    await self._thread(client),
                    assistant_id=assistant_id,
                    on_status=say_calls,
                    on_cancel="cancel",
                    on_active_run="wait",  # one that was stopped may still be ending
                    **self._arguments(text),
                )
                async with stream:
                    result = await pass_on(stream, display)
                await show_rest(result, display)
            finally:
                display.stop()
                if display.is_amid_line and sys.stdout.isatty():
                    say("")
        return result

    @property
    def _is_stopping(self) -> bool:
        return self._answering is not None and self._answering.cancel_called

    def _arguments(self, text: str) -> CreateRunArguments:
        talk = self._talk
        sent: CreateRunArguments = {"additional_messages": [{"role": "user", "content": text}]}
        if talk.assistant is not None and talk.model is not None:
            sent["model"] = talk.model  # an assistant of our own was made with it
        if talk.assistant is not None and talk.instructions is not None:
            sent["instructions"] = talk.instructions
        if self._tools:  # else the assistant's own
            sent["tools"] = self._tools
        return sent

    def _conclude(self, run: Run) -> None:
        self._code = code_of(run.status)
        if run.status != RunStatus.COMPLETED:
            say(verdict(run), dim=False)
        if run.needs_action:
            say(unanswered(run))

    async def _obey(self, client: AsyncClient, command: str, *words: str) -> None:
        match command, words:
            case "/help", ():
                for name, what in _COMMANDS.items():
                    say(f"{name:<9}{what}", dim=False)
            case "/new", ():
                self._thread_id = None
                say(f"thread {await self._thread(client)}")
            case "/thread", ():
                say(f"thread {self._thread_id or '(begins with the first message)'}", dim=False)
            case "/thread", (thread_id,):
                await self._go_on_with(client, thread_id)
            case _ if command in _COMMANDS:
                said = " ".join(words)
                say(f"{command} does not take {said!r}; /help lists the commands", dim=False)
            case _:
                say(f"unknown command {command}; /help lists the commands", dim=False)

    async def _go_on_with(self, client: AsyncClient, thread_id: str) -> None:
        """Go on with a thread that is there."""
        try:
            check_ids(self._talk.place, thread=thread_id)
        except Stop as error:
            say(str(error), dim=False)
            return
        page = await client.messages.list(thread_id, limit=_HISTORY)
        said = [one for one in reversed(page.data) if isinstance(one, Message)]
        self._thread_id = thread_id
        self.on_thread([one.text for one in said if one.role == "user" and one.text])
        say(f"thread {thread_id}, {len(said)}{'+' if page.has_more else ''} messages")

    async def _thread(self, client: AsyncClient) -> str:
        if self._thread_id is None:
            self._thread_id = (await client.threads.create()).id
        return self._thread_id

    @asynccontextmanager
    async def _assistant(self, client: AsyncClient) -> AsyncIterator[str]:
        talk = self._talk
        if talk.assistant is not None:
            yield talk.assistant
            return
        made = temporary_assistant(
            client,
            model=self._model,
            name=_NAME,
            instructions=talk.instructions,
            is_removed=talk.place.is_lasting(os.environ),
        )
        async with made as assistant_id:
            yield assistant_id

    @contextmanager
    def _interrupts(self) -> Iterator[None]:
        """Let Ctrl-C end the answer where somebody types, and else the command."""
        if not self._is_typed:
            yield
            return
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    def _interrupt(self) -> None:
        if self._answering is not None:
            self._answering.cancel()
