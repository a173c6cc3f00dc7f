"""The public face: conversations by key, one answer at a time in each."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from hashlib import sha256
from types import TracebackType
from typing import Any, Final, get_args
from uuid import uuid4

import anyio
import msgspec

from openai_runs import AsyncClient, NotFoundError, OpenAIRunsError
from openai_runs._log_ids import ids_of
from openai_runs.config import CONVERSATION_LEASE, check_timeout
from openai_runs.conversations.access import Access, Key, check_text, read_key, write_key
from openai_runs.conversations.creating import MissingThread, Options, WhenBusy, has_thread
from openai_runs.conversations.errors import (
    ThreadGoneError,
    UnreadableRecordError,
)
from openai_runs.conversations.offers import Offer
from openai_runs.conversations.record import Record, Status
from openai_runs.conversations.reply import Reply
from openai_runs.conversations.store import SQLiteStore, Store

__all__ = ["Conversations"]

_logger = logging.getLogger("openai_runs.conversations")

_RESERVED: Final = frozenset(
    {
        "additional_messages",
        "assistant_id",
        "idempotency_key",
        "on_active_run",
        "on_cancel",
        "on_status",
        "on_timeout",
    }
)
"""Arguments of a run that are set here."""


class Conversations:
    """Keeps a thread for each conversation, and answers its messages one after the other.

    For bots: many users write at the same time, several messages in a row, to one process or to
    several that share a store. Messages of a conversation are answered in the order in which
    they arrived at the store, each by a completed run unless that fails, is stopped or is
    interrupted. A process that is killed blocks a conversation for `lease` seconds at most; the
    answer that it had begun is found again and waited for, and the messages that waited in it
    are answered by the next reply, or by `abandoned`.

    Example:
        ```python
        from openai_runs.conversations import Conversations

        async with Conversations(client, assistant_id=assistant.id) as conversations:
            async with conversations.reply(("ada", "general"), "Hello!") as reply:
                async for text in reply:
                    print(text)
        ```

    Args:
        client: What requests are made with. It is not closed.
        assistant_id: Who answers.
        store: A path, for an SQLite file that only its owner can read, or an object with the
            methods of `Store`, which is not closed.
        when_busy: What becomes of messages that come while another one is answered. `queue`:
            each has a run of its own. `join`: all that wait are answered together by the next
            run. `interrupt`: the run at work is cancelled, and then as `join`.
        missing_thread: What becomes of a message whose thread is not at the server any more.
            `raise`: its reply raises `ThreadGoneError`, until a `reset`. `new`: it begins a new
            thread, without what was said before, and a warning is logged.
        every: Seconds between two snapshots of an answer, at least.
        lease: Seconds after which a process that does not renew its lease counts as killed. The
            clocks of all that share a store have to agree much better.
        tools: Functions that answer the run's tool calls, and definitions of other tools. None:
            the assistant's tools, which nobody answers.
        **arguments: What else `client.runs.stream` takes, for each run: `timeout`, for example.

    Raises:
        TypeError: An argument is of the wrong kind, or is set by this class.
        ValueError: An argument is out of bounds.
    """

    def __init__(
        self,
        client: AsyncClient,
        *,
        assistant_id: str,
        store: str | os.PathLike[str] | Store = "conversations.db",
        when_busy: WhenBusy = "queue",
        missing_thread: MissingThread = "raise",
        every: float = 1.0,
        lease: float = CONVERSATION_LEASE,
        tools: Iterable[Any] | None = None,
        **arguments: Any,
    ) -> None:
        check_timeout("every", every)
        check_timeout("lease", lease)
        self._is_own_store = isinstance(store, str | os.PathLike)
        opened = SQLiteStore(store) if isinstance(store, str | os.PathLike) else store
        self._access = Access(client, opened, lease)
        if missing_thread not in get_args(MissingThread):
            msg = f"missing_thread must be 'raise' or 'new', got {missing_thread!r}"
            raise ValueError(msg)
        self._options = Options(
            assistant_id=assistant_id,
            missing_thread=missing_thread,
            when_busy=_mode(when_busy),
            every=every,
            tools=_listed(tools),
            arguments=_checked(arguments),
        )
        self._check()

    def _check(self, options: Options | None = None) -> None:
        """Raise what the stream of a run would raise for these arguments; nothing is sent."""
        options = options or self._options
        self.client.runs.stream(
            "thread",
            assistant_id=options.assistant_id,
            tools=options.tools,
            **options.arguments,
        )

    def __repr__(self) -> str:
        return f"<Conversations of {self._options.assistant_id} in {self._access.store!r}>"

    async def __aenter__(self) -> Conversations:
        """Return itself; the store is opened by the first reply."""
        self._access.closing = anyio.Event()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the replies that are still open, as `aclose` does."""
        await self.aclose()

    async def aclose(self) -> None:
        """End the replies that are still open, and close the store that was opened here.

        Nothing is lost, as by a kill: runs go on at the server, and the next process finds them
        and the messages that waited. Blocks of replies raise `LeaseLostError`, those that are
        entered later as well; `abandoned` ends. Call it while the client is open.

        Cancellation: the replies end without being waited for, and the store is closed.
        """
        try:
            await self._access.close_replies()
        finally:
            if self._is_own_store:
                with anyio.CancelScope(shield=True):
                    await self._access.store.aclose()

    @property
    def client(self) -> AsyncClient:
        """Return the client that requests are made with."""
        return self._access.client

    async def status(self, key: Key) -> Status:
        """Return where a conversation is: its thread, the run at work, and what waits.

        Nothing is requested from the server of the API.

        Args:
            key: Names the conversation.

        Raises:
            UnreadableRecordError: Its record cannot be read; the text says how to go on.

        Cancellation: changes nothing.
        """
        return await self._access.change(write_key(key), Record.status)

    async def _gone(self, key: Key, thread_id: str, error: NotFoundError) -> ThreadGoneError | None:
        """Return the error that says that a conversation's thread is gone; None: it is there."""
        if await has_thread(self.client, thread_id):
            return None
        return ThreadGoneError(error, thread_id=thread_id, stored_key=write_key(key), key=key)

    def reply(
        self,
        key: Key,
        text: str,
        *,
        when_busy: WhenBusy | None = None,
        idempotency_key: str | None = None,
        **arguments: Any,
    ) -> Reply:
        """Return the reply to a message, to be entered and iterated.

        Nothing is stored or sent before the block is entered. There the message gets its place
        in the conversation, and waits for its claim.

        Args:
            key: Names the conversation: a str, an int, or a tuple such as `(user, channel)`.
            text: The message.
            when_busy: In place of that of the class.
            idempotency_key: Names the message in its conversation, where it may be delivered more
                than once. Entering the reply to a second one raises `DuplicateMessageError`; the
                last 100 keys are remembered. The key of a message that no run has, since the
                server was unreachable, is forgotten: it may come again.
            **arguments: What `client.runs.stream` takes, for this run; also those of the class.

        Raises:
            TypeError: An argument is of the wrong kind, such as the `text` of a photo, which is
                None, or is set by this class.
            ConfigError: A text holds half of a surrogate pair.
            ValueError: `when_busy` is none of the three.
        """
        check_text("text", text)
        mode = self._options.when_busy if when_busy is None else _mode(when_busy)
        merged = {**self._options.arguments, **_checked(arguments)}
        tools = _listed(merged.pop("tools", self._options.tools))
        options = self._options._replace(when_busy=mode, arguments=merged, tools=tools)
        self._check(options)
        hashed = None
        if idempotency_key is not None:
            if not isinstance(idempotency_key, str):
                msg = f"idempotency_key must be a str, got {type(idempotency_key).__name__}"
                raise TypeError(msg)
            # Of any length, and of any bytes that aiohttp has read as a header.
            hashed = sha256(idempotency_key.encode(errors="surrogatepass")).hexdigest()[:32]
        return Reply(self._access, options, key, text, message_key=hashed)

    async def stop(self, key: Key, run_id: str | None = None) -> bool:
        """Cancel the answer at work, of whichever process; return whether there is one to cancel.

        False also where its run had ended by itself when the stop came.

        Endpoint: POST /threads/{thread_id}/runs/{run_id}/cancel

        Its reply ends with `RunCancelled`, and a tool that runs for it is cancelled: at once in
        this process, within a quarter of the lease in another one. A sync tool finishes in its
        thread; its output is discarded. Messages that wait are answered next.

        Args:
            key: Names the conversation.
            run_id: The run that is meant: a request may come late, and nothing is cancelled where
                another one is at work by then. None: whichever is at work.

        Raises:
            APIError: The cancel failed, as where the server is unreachable. The stop is kept in
                the store: whoever answers cancels again when the lease is renewed.
            UnreadableRecordError: The record cannot be read; `reset` replaces it.

        Cancellation: the answer may be cancelled all the same.
        """
        return await self._access.stop(write_key(key), lambda record: record.stop(run_id))

    async def reset(self, key: Key) -> None:
        """Begin a new thread with the next message, and stop the answer at work.

        Endpoint: POST /threads/{thread_id}/runs/{run_id}/cancel, where there is one

        The old thread is left on the server. A record that cannot be read, as one that is damaged
        or of another version, is replaced by an empty one, and a warning logged.

        Args:
            key: Names the conversation.

        Raises:
            APIError: The cancel failed; the next message begins a new thread all the same.

        Cancellation: the next message may begin a new thread all the same.
        """
        await self._access.stop(write_key(key), Record.reset, replace_unreadable=True)

    async def abandoned(self) -> AsyncIterator[Reply]:
        """Yield a reply for each conversation whose messages a process has left, until `aclose`.

        It was killed, or closed its conversations. To be entered as those of `reply`, soon: `.key`
        says where the answer belongs. It answers
        all that was left in the conversation. Where somebody who is alive waits in the same
        conversation, those messages are answered there.

        What a reply has left again, as while the server cannot be reached, is yielded again after
        half the lease at least, and then after twice as long each time, up to a minute.

        A record that cannot be read is logged once, and passed over.

        Cancellation: ends the search.
        """
        closing = self._access.closing
        unreadable: set[str] = set()
        offers: dict[str, Offer] = {}
        while not closing.is_set():
            again = self._access.now + self._access.lease / 2
            for key in await self._access.store.open_keys():
                previous = offers.get(key)
                if key in unreadable or (previous is not None and not previous.is_due):
                    continue
                try:
                    reply, held_until = await self._adopt(key)
                except (UnreadableRecordError, msgspec.MsgspecError):  # the record, or its key
                    unreadable.add(key)
                    _logger.exception("the record of conversation %s cannot be read", key)
                    continue
                again = min(again, held_until or again)  # of whom is alive it is renewed before
                if reply is not None:
                    offers[key] = Offer(reply, previous, self._access.lease / 2)
                    yield reply
            with anyio.move_on_after(again - self._access.now):
                await closing.wait()

    async def _adopt(self, key: str) -> tuple[Reply | None, float]:
        """Return a reply to what was left in a conversation, if any, or when a lease expires."""
        owner, access = uuid4().hex, self._access
        now, until = access.now, access.until

        def adopt(record: Record) -> tuple[int | None, float]:
            held_until = record.held_until(now)
            return record.adopt(owner, now=now, until=until), held_until

        message_id, held_until = await access.change(key, adopt)
        if message_id is None:
            return None, held_until
        return Reply(access, self._options, read_key(key), "", (owner, message_id)), 0.0

    async def answer_abandoned(self, answer: Callable[[Reply], Awaitable[object]]) -> None:
        """Call a function with each reply of `abandoned`, in a task of its own, until `aclose`.

        To be run beside the rest of a bot. What the function raises is logged, unless the message
        is answered later: an outage of the server is logged once.

        Args:
            answer: Enters the reply, and sends its texts to where `reply.key` says.

        Cancellation: ends the search and the calls; the runs of their replies are cancelled.
        """
        async with anyio.create_task_group() as tasks:
            async for reply in self.abandoned():
                tasks.start_soon(_answer, answer, reply)


async def _answer(answer: Callable[[Reply], Awaitable[object]], reply: Reply) -> None:
    words = "an abandoned message of conversation %s was not answered: %s: %s"
    try:
        await answer(reply)
    except OpenAIRunsError as error:
        level = logging.DEBUG if reply.is_left else logging.ERROR  # an outage is logged once
        key, name = write_key(reply.key), type(error).__name__
        _logger.log(level, words, key, name, error, extra=ids_of(error))
    except Exception as error:
        _logger.exception(words, write_key(reply.key), type(error).__name__, error)


def _mode(when_busy: WhenBusy) -> WhenBusy:
    if when_busy not in get_args(WhenBusy):
        msg = f"when_busy must be 'queue', 'join' or 'interrupt', got {when_busy!r}"
        raise ValueError(msg)
    return when_busy


def _listed(tools: Any) -> Any:
    """Return tools that can be read more than once; what is no list is refused by `_check`."""
    is_iterator = isinstance(tools, Iterable) and not isinstance(tools, str | Mapping)
    return list(tools) if is_iterator else tools


def _checked(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    if reserved := sorted(_RESERVED & arguments.keys()):
        msg = f"Conversations sets {', '.join(map(repr, reserved))} itself"
        raise TypeError(msg)
    return arguments
