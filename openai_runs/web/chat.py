"""Chats of a web back end: a conversation for each user, its answers as server-sent events.

Theory of operation. An answer is made in a task of the chat's own, which holds the user's place
in the conversation, and not in the task of a request: a browser that leaves, reloads or reads
slowly does not hold up the answer, nor the next one. The browser is sent what its `FrameBuffer`
holds; one that comes back follows the run itself, by the same events, in whichever process.

What may not live here: anything of a web framework.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sqlite3
from collections import Counter
from collections.abc import AsyncGenerator
from typing import Any, Final, Literal

import anyio

from openai_runs import (
    APIError,
    AsyncClient,
    ConfigError,
    NotFoundError,
    RunStream,
    StreamInterrupted,
    relay,
)
from openai_runs._log_ids import ids_of
from openai_runs.config import (
    CANCEL_GRACE,
    CHAT_DRAIN,
    CHAT_MAX_HELD,
    CHAT_MAX_WAITING,
    HEARTBEAT_INTERVAL,
    check_count,
    check_timeout,
)
from openai_runs.conversations import (
    Conversations,
    DuplicateMessageError,
    LeaseLostError,
    Reply,
    ThreadGoneError,
)
from openai_runs.web.errors import (
    EmptyMessageError,
    InvalidTextError,
    TooManyMessagesError,
    has_traceback,
)
from openai_runs.web.frame_buffer import FrameBuffer, frames_of
from openai_runs.web.history import History, ShownMessage, shown_messages
from openai_runs.web.responses import Responses
from openai_runs.web.tasks import Tasks

__all__ = ["Chat", "History", "ShownMessage"]

Key = str | int | tuple[str | int, ...]
OnDisconnect = Literal["continue", "cancel"]

_WAIT: Final = b": wait\n\n"
"""A comment."""
_DONE: Final = b"event: done\ndata: [DONE]\n\n"
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_ID: Final = re.compile(r"[\w-]{1,64}", re.ASCII)
_POLL: Final = 0.1
"""Seconds between two polls of the store for a run that is being created."""
_RUNS: Final = 100
"""Newest runs whose ends a history knows."""
_PAUSE: Final = 10.0
"""Seconds after which a search that failed is begun again."""

_logger = logging.getLogger("openai_runs.web")


class Chat(Conversations):
    """Conversations whose answers are sent to browsers; to be entered before it is used.

    A browser sends a message by POST, and reads the answer from the response's body: the frames
    of `send`. When it comes back, after a reload or a lost connection, it follows the answer
    at work by GET: the frames of `follow`. The page code for both is `SCRIPT`.

    Leaving the block ends all responses, without `done`. The answers at work have `drain` seconds,
    then they are left to the next process: runs go on at the server. As long as it is open,
    messages that another process has left are answered, too.

    Example:
        ```python
        from openai_runs.web import Chat

        async with Chat(client, assistant_id=assistant.id) as chat:
            async for frame in await chat.send("ada", "Hello!"):
                print(frame)
        ```

    Args:
        client: What requests are made with. It is not closed.
        assistant_id: Who answers.
        on_disconnect: What becomes of an answer whose browser leaves: `continue` has it written
            to its end, for the browser that comes back; `cancel` cancels its run.
        heartbeat: Seconds without a frame after which a comment is sent, so that proxies keep
            the connection.
        max_waiting: Messages of one user that may wait or be answered at a time in this process.
        drain: Seconds that answers at work have when the block is left, before they are left to
            the next process.
        **options: What else `Conversations` takes: `store`, `when_busy`,
            `missing_thread`, `tools`, `timeout`.

    Raises:
        TypeError: An argument is of the wrong kind, or is set by this class.
        ValueError: An argument is out of bounds.
    """

    def __init__(
        self,
        client: AsyncClient,
        *,
        assistant_id: str,
        on_disconnect: OnDisconnect = "continue",
        heartbeat: float = HEARTBEAT_INTERVAL,
        max_waiting: int = CHAT_MAX_WAITING,
        drain: float = CHAT_DRAIN,
        **options: Any,
    ) -> None:
        super().__init__(client, assistant_id=assistant_id, **options)
        check_count("max_waiting", max_waiting)
        self._cancels = _checked(on_disconnect) == "cancel"
        self._heartbeat = check_timeout("heartbeat", heartbeat) or HEARTBEAT_INTERVAL
        self._max_waiting = max_waiting
        self._drain = check_timeout("drain", drain) or 0.0
        self._waiting: Counter[Key] = Counter()
        self._search = anyio.CancelScope()
        self._tasks = Tasks()
        self._responses = Responses()

    async def __aenter__(self) -> Chat:
        """Begin to answer.

        Raises:
            ConfigError: The store's file cannot be used.
        """
        await super().__aenter__()
        if self._is_own_store:
            await self._check_store()
        await self._tasks.open()
        self._search = anyio.CancelScope()
        self._responses = Responses()
        self._tasks.start(self._answer_abandoned)
        return self

    async def _check_store(self) -> None:
        """Open the file of the store: an application that cannot use it does not start."""
        store = self._access.store
        try:
            await store.open_keys()
        except (sqlite3.Error, OSError) as error:
            message = f"{store!r} cannot be used for the conversations: {error}"
            raise ConfigError(message) from error

    def end_responses(self) -> None:
        """Have all responses end, without `done`: their browsers come back to the next process.

        `lifespan` and `cleanup_ctx` call it when a signal asks the process to end: servers wait for
        open responses before they close an application.
        """
        self._responses.end()

    async def aclose(self) -> None:
        """End the responses, leave what is not answered, and close the store that was opened here.

        Cancellation: cancels the answers at once, and closes the store.
        """
        self.end_responses()
        self._search.cancel()
        leaving = asyncio.get_running_loop().call_later(self._drain, self._access.closing.set)
        try:
            await self._tasks.aclose(self._drain + CANCEL_GRACE)
        finally:
            leaving.cancel()
            with anyio.CancelScope(shield=True):
                await super().aclose()

    async def send(
        self,
        key: Key,
        text: str,
        *,
        on_disconnect: OnDisconnect | None = None,
        idempotency_key: str | None = None,
        **arguments: Any,
    ) -> AsyncGenerator[bytes]:
        """Have a message answered, and return the frames of its answer.

        What goes wrong before the first frame is raised, so that the browser can be answered
        with an error status; later it is the frame `error`, as of `relay.sse`. A message that
        still waits in line after `heartbeat` seconds has its response begun. Where
        `CHAT_MAX_HELD` messages of this user wait or are answered, the frames of the next one
        end as soon as it is stored, without `done`, so that the browser keeps connections for
        other requests; it follows the answer with `follow`. Frames that are not taken never
        hold up the answer: where `CHAT_BUFFER_BYTES` wait, they end early, without `done`, and
        the browser comes back with `follow`.

        Args:
            key: Names the conversation: the user, as your application knows them.
            text: The message.
            on_disconnect: In place of that of the class.
            idempotency_key: Names the message: browsers and proxies may send a POST again whose
                answer was lost. The frames of the second one end at once, without `done`.
            **arguments: What else `Conversations.reply` takes.

        Raises:
            EmptyMessageError: `text` has nothing but white space.
            InvalidTextError: `text` has half of a surrogate pair.
            TooManyMessagesError: So many messages of this user wait already.
            APIError: The assistant is not on the server.
            ThreadGoneError: The thread is not on the server; not with `missing_thread="new"`.
            OpenAIRunsError: The answer could not be begun.
            RuntimeError: The chat is not open.

        Cancellation: as of a browser that leaves.
        """
        if not self._tasks.is_open:
            message = "the chat is not open; use it in its `async with` block"
            raise RuntimeError(message)
        _check_text(text)
        cancels = self._cancels if on_disconnect is None else _checked(on_disconnect) == "cancel"
        reply = self.reply(key, text, idempotency_key=idempotency_key, **arguments)
        if self._waiting[key] >= self._max_waiting:
            message = f"{self._waiting[key]} messages of one conversation are waiting"
            raise TooManyMessagesError(message)
        self._waiting[key] += 1
        buffer = FrameBuffer(cancels=cancels)
        self._responses.add(buffer)
        if self._responses.is_over or (self._waiting[key] > CHAT_MAX_HELD and not cancels):
            reply.keep(buffer.end)
        self._tasks.start(self._answer, reply, buffer)
        try:
            with anyio.move_on_after(self._heartbeat):
                await buffer.is_open.wait()
        except BaseException:
            buffer.leave()
            raise
        is_gone = isinstance(buffer.error, ThreadGoneError)
        if isinstance(buffer.error, NotFoundError) and not is_gone:  # the browser names no object
            message = f"the assistant is not on the server: {buffer.error}"
            raise APIError(message) from buffer.error
        if buffer.error is not None:
            raise buffer.error
        frames = frames_of(buffer, self._heartbeat)
        await anext(frames)
        return frames

    async def follow(
        self, key: Key, run_id: str | None = None, *, last_event_id: str | None = None
    ) -> AsyncGenerator[bytes] | None:
        """Return the frames of the answer at work, or of a run that the browser names.

        Endpoint: as `runs.follow`

        Args:
            key: Names the conversation. Only runs of its thread can be followed.
            run_id: The run whose events were lost on the way; None: the one at work.
            last_event_id: The last event of that run that the browser has seen.

        Returns:
            The frames; None where nothing is being answered.

        Raises:
            NotFoundError: The conversation has no such run.
            ThreadGoneError: The thread is not on the server.
            APIError: The run cannot be followed.

        Cancellation: changes nothing.
        """
        status = await self.status(key)
        if run_id is None:
            last_event_id = None
            with anyio.move_on_after(self._heartbeat):
                while status.is_busy and status.run_id is None:
                    await anyio.sleep(_POLL)
                    status = await self.status(key)
            if not status.is_busy:
                return None
            run_id = status.run_id
            if run_id is None:
                return _nothing()
        if status.thread_id is None or not _ID.fullmatch(run_id):
            raise _not_found(run_id=run_id)
        stream = self.client.runs.follow(
            run_id, thread_id=status.thread_id, last_event_id=last_event_id
        )
        try:
            frames = await relay.sse(stream, on_disconnect="continue", heartbeat=self._heartbeat)
        except NotFoundError as error:
            raise await self._gone(key, status.thread_id, error) or error from error.__cause__
        return self._responses.cut(frames)

    async def history(self, key: Key, *, before: str | None = None, limit: int = 20) -> History:
        """Return the newest messages of a conversation, or those before a message.

        Endpoint: GET /threads/{thread_id}/messages and GET /threads/{thread_id}/runs

        Args:
            key: Names the conversation.
            before: The `before` of the page that follows this one.
            limit: Messages, at most 100.

        Raises:
            NotFoundError: `before` can be no message.
            ThreadGoneError: The thread is not on the server; with `missing_thread="new"` the
                history is empty instead.
            APIError: The messages cannot be listed.
            ValueError: `limit` is out of bounds.
        """
        if before is not None and not _ID.fullmatch(before):
            raise _not_found(message_id=before)
        status = await self.status(key)
        waiting = status.waiting if before is None else []
        empty = History(messages=[], before=None, waiting=waiting)
        if status.thread_id is None:
            return empty
        try:
            page = await self.client.messages.list(
                status.thread_id, order="desc", limit=limit, after=before
            )
            runs = await self.client.runs.list(status.thread_id, order="desc", limit=_RUNS)
        except NotFoundError as error:
            gone = await self._gone(key, status.thread_id, error)
            if gone is not None and self._options.missing_thread == "new":
                return empty  # as the next message begins
            raise gone or error from error.__cause__
        messages = page.data[::-1]
        return History(
            messages=shown_messages(messages, runs.data, is_newest=before is None),
            before=messages[0].id if messages and page.has_more else None,
            waiting=waiting,
        )

    # --- the tasks

    async def _answer(self, reply: Reply, buffer: FrameBuffer) -> None:
        """Make an answer, and have it sent as far as there is a browser."""
        try:
            with buffer.scope:
                await self._relay(reply, buffer)
        except DuplicateMessageError:
            buffer.put(_WAIT)
        except LeaseLostError:
            buffer.end()  # another process answers: the browser comes back, and follows it
        except Exception as error:
            is_logged = not buffer.is_open.is_set() or error is buffer.sent_error
            if not is_logged:  # by the request, which ends with it, or by who has sent its frame
                trace = has_traceback(error)
                _logger.warning("an answer failed: %s", error, exc_info=trace, extra=ids_of(error))
            buffer.fail(error, relay.error_frame(error))
        finally:
            buffer.end()
            self._responses.discard(buffer)
            self._waiting[reply.key] -= 1
            if not self._waiting[reply.key]:
                del self._waiting[reply.key]

    async def _relay(self, reply: Reply, buffer: FrameBuffer) -> None:
        async with reply:
            stream = self._stream_of(reply)
            if stream is None:  # answered together with a later message
                buffer.put(_DONE)
                return
            async with relay.sse(stream, heartbeat=self._heartbeat) as frames:
                async for frame in frames:
                    buffer.put(frame)
            if isinstance(frames.error, StreamInterrupted):
                buffer.end()  # it has been sent
                buffer.sent_error = frames.error
                raise frames.error  # so that the run is left to the search

    def _stream_of(self, reply: Reply) -> RunStream | None:
        if reply.stream is None and reply.run is not None:  # begun by a killed process
            return self.client.runs.follow(reply.run.id, thread_id=reply.run.thread_id)
        return reply.stream

    async def _answer_abandoned(self) -> None:
        """Answer what killed processes have left; browsers that come back follow it."""
        with self._search:
            while True:
                try:
                    async for reply in self.abandoned():
                        self._start_unseen(reply)
                except Exception:
                    _logger.exception("the search for abandoned messages goes on in %g s", _PAUSE)
                await anyio.sleep(_PAUSE)

    def _start_unseen(self, reply: Reply) -> None:
        buffer = FrameBuffer(cancels=False)
        buffer.leave()
        self._waiting[reply.key] += 1
        self._tasks.start(self._answer, reply, buffer)


async def _nothing() -> AsyncGenerator[bytes]:
    """Yield nothing but a comment: a browser asks again where it has seen no `done`."""
    yield _WAIT


def _check_text(text: str) -> None:
    if not text.strip():
        message = "a message has nothing but white space"
        raise EmptyMessageError(message)
    if found := _SURROGATE.search(text):
        message = f"a message has half of a surrogate pair at {found.start()}"
        raise InvalidTextError(message)


def _checked(on_disconnect: OnDisconnect) -> OnDisconnect:
    if on_disconnect not in ("continue", "cancel"):
        message = f"on_disconnect must be 'continue' or 'cancel', got {on_disconnect!r}"
        raise ValueError(message)
    return on_disconnect


def _not_found(**ids: str) -> NotFoundError:
    shown = ", ".join(f"{name} {value[:64]!r}" for name, value in ids.items())
    return NotFoundError(f"the conversation has no {shown}", status_code=404)
