"""`openai-runs ask`: one question, answered word by word.

Standard output gets the answer alone. Whatever ends the command early ends the run it
started, too.
"""

import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import msgspec

from openai_runs import (
    AsyncClient,
    OpenAIRunsError,
    Run,
    RunStatus,
    RunWaitTimeout,
)
from openai_runs._cli.answering import (
    POLL,
    activity_of,
    is_news,
    next_step,
    pass_on,
    remove,
    say_calls,
    show_rest,
    temporary_assistant,
    unanswered,
    warn_of_echo,
)
from openai_runs._cli.connecting import Place, check_ids, connect, explained
from openai_runs._cli.describing import tokens, verdict
from openai_runs._cli.ending import TIMED_OUT, USAGE, Stop, code_of
from openai_runs._cli.functions import load_functions
from openai_runs._cli.interrupting import carry_out, show_outages
from openai_runs._cli.outputs import print_json, say
from openai_runs._cli.terminal.answer import AnswerDisplay
from openai_runs._client.arguments import CreateRunArguments
from openai_runs._client.streams.run_stream import RunStream

__all__ = ["Question", "perform"]

_MOMENT: Final = 0.001
"""Seconds: what is left when nothing is, as a time-out must not be zero."""
_NAME: Final = "openai-runs ask"
"""Of the assistant that is made for the question, in case it cannot be removed."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What the command was told."""

    text: str | None
    stdin: bool
    thread: str | None
    assistant: str | None
    model: str | None
    instructions: str | None
    tools: tuple[str, ...]
    timeout: float | None
    json: bool
    place: Place


def perform(question: Question) -> int:
    """Print the answer as it comes; return the exit code.

    Raises:
        Stop: The arguments contradict each other, or there is no answer to be had.
        Closed: Nobody reads it any more.
    """
    text, place = _text_of(question), question.place
    check_ids(question.place, thread=question.thread, assistant=question.assistant)
    given = "--thread" if question.thread else "--assistant" if question.assistant else None
    if given is not None and not place.is_lasting(os.environ):
        sentence = (
            f"{given} is known to a server or in a file: add --base-url (or set OPENAI_BASE_URL) "
            "or --db"
        )
        raise Stop(sentence, USAGE)
    tools = load_functions(question.tools)
    logging.getLogger("openai_runs.client").addFilter(is_news)
    show_outages()
    try:
        return carry_out(Asking(question, text, tools).run)
    except OpenAIRunsError as error:
        raise explained(error, place, timed=question.timeout is not None) from error


def _text_of(question: Question) -> str:
    text = question.text
    if text is not None and question.stdin:
        sentence = "- reads TEXT from standard input: give one of the two"
        raise Stop(sentence, USAGE)
    if text is None:
        text = _piped(even_typed=question.stdin)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        sentence = "TEXT is no text in UTF-8"
        raise Stop(sentence, USAGE) from error
    if not text.strip():
        sentence = "there is no TEXT: give it in quotes, or pipe it in"
        raise Stop(sentence, USAGE)
    return text


def _piped(*, even_typed: bool) -> str:
    """Return what is on standard input; of a terminal only if it was asked for."""
    if sys.stdin is None or (sys.stdin.isatty() and not even_typed):
        return ""
    return sys.stdin.buffer.read().decode("utf-8", "surrogateescape").rstrip("\n")


class Asking:
    """One question on its way."""

    def __init__(self, question: Question, text: str, tools: list[Callable[..., Any]]) -> None:
        """Begin to count the time."""
        self._question = question
        self._text = text
        self._tools = tools
        self._is_lasting = question.place.is_lasting(os.environ)
        self._model = question.model or question.place.default_model(os.environ)
        self._deadline = None if question.timeout is None else time.monotonic() + question.timeout
        self._stream: RunStream | None = None
        self._display = AnswerDisplay(
            lambda: activity_of(self._stream), shows_text=not question.json
        )
        self._run: Run | None = None

    async def run(self) -> int:
        """Return the exit code, once the answer is written.

        Cancellation: cancels the run and removes what was made for it.
        """
        async with connect(self._question.place, poll=POLL) as client:
            await warn_of_echo(client, self._question.model, self._question.place)
            with self._display:
                async with (
                    self._assistant(client) as assistant_id,
                    self._thread(client) as thread_id,
                ):
                    try:
                        return await self._ask(client, thread_id, assistant_id)
                    except BaseException as error:
                        self._break_line()
                        is_cancelled = isinstance(error, anyio.get_cancelled_exc_class())
                        if is_cancelled and self._run is not None and self._run.is_active:
                            say(f"the server was asked to cancel run {self._run.id}")
                        raise

    async def _ask(self, client: AsyncClient, thread_id: str, assistant_id: str) -> int:
        stream = self._stream = client.runs.stream(
            thread_id,
            assistant_id=assistant_id,
            timeout=self._seconds_left(),
            on_status=self._note,
            on_timeout="cancel",
            on_cancel="cancel",
            **self._arguments(),
        )
        async with stream:
            try:
                result = await pass_on(stream, self._display)
            except RunWaitTimeout as error:
                self._break_line()
                return self._give_up(stream, error)
        if not self._question.json:
            await show_rest(result, self._display)
        self._display.stop()
        run = result.run
        if self._question.json:
            print_json(_document(run, result.text, recovered=result.recovered))
        self._conclude(run, recovered=result.recovered)
        return code_of(run.status)

    def _arguments(self) -> CreateRunArguments:
        question = self._question
        sent: CreateRunArguments = {
            "additional_messages": [{"role": "user", "content": self._text}]
        }
        if question.assistant is not None and question.model is not None:
            sent["model"] = question.model  # an assistant of our own was made with it
        if question.assistant is not None and question.instructions is not None:
            sent["instructions"] = question.instructions
        if self._tools:  # else the assistant's own
            sent["tools"] = self._tools
        return sent

    def _give_up(self, stream: RunStream, error: RunWaitTimeout) -> int:
        assert stream.run is not None  # the error is made of it
        if self._question.json:
            text = stream.snapshot.text
            print_json(_document(stream.run, text, recovered=stream.recovered))
        say(
            f"run {stream.run.id} was still {stream.run.status} after {error.waited:.1f} s; "
            "the server was asked to cancel it"
        )
        return TIMED_OUT

    def _conclude(self, run: Run, *, recovered: bool) -> None:
        if recovered:
            say("recovered: the stream broke off, or there was none; nothing is missing")
        ending = [verdict(run)]
        if used := tokens(run.usage):
            ending.append(f"tokens {used}")
        say("; ".join(ending))
        if run.needs_action:
            say(unanswered(run))
        is_default = self._question.model is None and self._question.assistant is None
        if run.status == RunStatus.FAILED and is_default:
            say(f"it was asked of the model {self._model}; name another with --model")
        if run.is_terminal:
            question = self._question
            options = [("--assistant", question.assistant), ("--model", question.model)]
            options += [("--tools", name) for name in question.tools]
            say(next_step("ask TEXT", run.thread_id, question.place, options))

    def _note(self, run: Run) -> None:
        if self._run is None:
            say(f"run {run.id}, thread {run.thread_id}")
        self._run = run
        if self._tools:  # else the run ends with them
            say_calls(run)

    def _break_line(self) -> None:
        """Let what is said next begin a line, where both outputs are one terminal."""
        self._display.stop()
        if self._display.is_amid_line and sys.stdout.isatty():
            say("")

    def _seconds_left(self) -> float | None:
        if self._deadline is None:
            return None
        return max(self._deadline - time.monotonic(), _MOMENT)

    @asynccontextmanager
    async def _assistant(self, client: AsyncClient) -> AsyncIterator[str]:
        """Yield the id of the assistant to ask: the one named, or one for this question."""
        if self._question.assistant is not None:
            yield self._question.assistant
            return
        made = temporary_assistant(
            client,
            model=self._model,
            name=_NAME,
            instructions=self._question.instructions,
            timeout=self._seconds_left(),
            is_removed=self._is_lasting,
        )
        async with made as assistant_id:
            yield assistant_id

    @asynccontextmanager
    async def _thread(self, client: AsyncClient) -> AsyncIterator[str]:
        """Yield the id of the thread to ask on; a new one is kept once there is a run on it."""
        if self._question.thread is not None:
            yield self._question.thread
            return
        thread = await client.threads.create(timeout=self._seconds_left())
        try:
            yield thread.id
        finally:
            if self._run is None and self._is_lasting:
                await remove("thread", thread.id, client.threads.delete)


def _document(run: Run, text: str, *, recovered: bool) -> dict[str, Any]:
    """Return what `--json` prints; the last three keys only where they say something."""
    facts = {
        "thread_id": run.thread_id,
        "run_id": run.id,
        "status": run.status,
        "text": text,
        "usage": run.usage,
        "recovered": recovered,
    }
    reasons = {
        "required_action": run.required_action,
        "last_error": run.last_error,
        "incomplete_details": run.incomplete_details,
    }
    told = {name: value for name, value in reasons.items() if value is not None}
    return {**facts, **told}
