"""The records of all conversations: read and changed through the store, and waited for.

What may not live here: requests about runs, but for the cancel of one that is stopped.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, TypeVar

import anyio
import msgspec

from openai_runs import AsyncClient, BadRequestError, ConfigError, NotFoundError
from openai_runs.conversations.errors import UnreadableRecordError
from openai_runs.conversations.outcomes import Outcomes
from openai_runs.conversations.record import Claim, Record
from openai_runs.conversations.store import Entry, Store

__all__ = [
    "RESUMING",
    "Access",
    "Key",
    "check_text",
    "read_key",
    "write_key",
]

_logger = logging.getLogger("openai_runs.conversations")

T = TypeVar("T")
Key = str | int | tuple[str | int, ...]
"""Names a conversation, such as a user and a channel."""

RESUMING: Final = frozenset(
    {
        "approve",
        "extra_headers",
        "extra_query",
        "interval",
        "max_output_bytes",
        "max_parallel",
        "max_rounds",
        "on_tool_call",
        "poll",
        "request_timeout",
        "response_format",
        "timeout",
        "tool_timeout",
    }
)
"""Arguments of a run that also apply where it is resumed."""
_STOPPED: Final = frozenset({"cancelled", "cancelling"})
_KEYS: Final[msgspec.json.Decoder[Key]] = msgspec.json.Decoder(Key)
_RECORDS: Final = msgspec.json.Decoder(Record)


def check_text(name: str, text: object) -> None:
    """Raise unless this is a text that can be stored and sent.

    Args:
        name: The argument's, for the error.
        text: What was given.

    Raises:
        TypeError: It is no text.
        ConfigError: It holds half of a surrogate pair.
    """
    if not isinstance(text, str):
        msg = f"{name} must be a str, got {type(text).__name__}"
        raise TypeError(msg)
    try:
        text.encode()
    except UnicodeEncodeError:
        msg = (
            f"{name} holds half of a surrogate pair, which cannot be sent; "
            "text.encode('utf-8', 'replace').decode() replaces it"
        )
        raise ConfigError(msg) from None


def write_key(key: Key) -> str:
    """Return a key as the store has it.

    Raises:
        TypeError: It is no key.
        ConfigError: A text in it holds half of a surrogate pair.
    """
    parts = key if isinstance(key, tuple) else (key,)
    if not parts or not all(isinstance(part, str | int) for part in parts):
        msg = f"key must be a str, an int or a tuple of them, got {key!r}"
        raise TypeError(msg)
    for part in parts:
        check_text("key", str(part))
    return msgspec.json.encode(key).decode()


def read_key(text: str) -> Key:
    """Return the key that the store has as this text."""
    return _KEYS.decode(text)


class Access:
    """What the replies of one `Conversations` share."""

    def __init__(self, client: AsyncClient, store: Store, lease: float) -> None:
        self.client = client
        self.store = store
        self.lease = lease
        self.closing = anyio.Event()
        """Set when the replies that are open have to end."""
        self.on_stop: dict[str, Callable[[], None]] = {}
        """By owner of a claim in this process: what ends its tools."""
        self.outcomes = Outcomes()
        self._changes: dict[str, anyio.Event] = {}
        self._open: set[anyio.Event] = set()

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Have `close_replies` wait for the end of this block."""
        ended = anyio.Event()
        self._open.add(ended)
        try:
            yield
        finally:
            self._open.remove(ended)
            ended.set()

    async def close_replies(self) -> None:
        """End all replies, which leave their messages to the next process, and wait for that."""
        self.closing.set()
        for ended in list(self._open):
            await ended.wait()

    @property
    def now(self) -> float:
        """Return the time, which all processes that share the store know alike."""
        return time.time()

    @property
    def until(self) -> float:
        """Return when a lease that begins now expires."""
        return self.now + self.lease

    async def change(
        self, key: str, move: Callable[[Record], T], *, replace_unreadable: bool = False
    ) -> T:
        """Make a move of a conversation, and return what it returns.

        Args:
            key: The conversation's.
            move: What changes the record.
            replace_unreadable: Whether a record that cannot be read is replaced by an empty one.

        Raises:
            UnreadableRecordError: The record cannot be read.
        """
        replaced = 0

        def on_data(data: bytes | None) -> tuple[Entry | None, T]:
            nonlocal replaced
            replaced = 0
            try:
                record = Record() if data is None else _RECORDS.decode(data)
            except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
                if not replace_unreadable:
                    raise self._unreadable(key, error) from error
                record, replaced = Record(), len(data or b"")
            answer = move(record)
            written = msgspec.json.encode(record)
            return (None if written == data else Entry(written, record.is_open)), answer

        answer = await self.store.change(key, on_data)
        if replaced:
            words = (
                "the record of conversation %s could not be read, and is replaced by an empty one: "
                "its %d bytes are gone, with the messages that waited in it; a run at work goes on"
            )
            _logger.warning(words, key, replaced)
        return answer

    def _unreadable(self, key: str, error: Exception) -> UnreadableRecordError:
        return UnreadableRecordError(
            f"the record of conversation {key} in {self.store!r} cannot be read: {error}; "
            f"await conversations.reset({read_key(key)!r}) replaces it by an empty one"
        )

    def next_change(self, key: str) -> anyio.Event:
        """Return an event that is set when an answer of this process ends."""
        return self._changes.setdefault(key, anyio.Event())

    def notify(self, key: str) -> None:
        """Wake all that wait for an answer's end in this process."""
        if (event := self._changes.pop(key, None)) is not None:
            event.set()

    async def stop(
        self,
        key: str,
        move: Callable[[Record], Claim | None],
        *,
        replace_unreadable: bool = False,
    ) -> bool:
        """Stop the answer at work, of whichever process; return whether it does not end otherwise.

        Where its run is not known yet, its holder cancels it as soon as it is. Tools at work end
        at once in this process, and when the lease is renewed in another one.
        """
        claim = await self.change(key, move, replace_unreadable=replace_unreadable)
        if claim is None:
            return False
        try:
            if claim.run_id is not None and claim.thread_id is not None:
                return await self.cancel(claim.run_id, claim.thread_id)
        finally:
            if (end_tools := self.on_stop.get(claim.owner)) is not None:
                end_tools()
        return True

    async def cancel(self, run_id: str, thread_id: str) -> bool:
        """Cancel a run, unless it is over; return whether it does not end otherwise."""
        runs = self.client.runs
        try:
            await runs.cancel(run_id, thread_id=thread_id)
        except NotFoundError:
            return False  # its thread is deleted
        except BadRequestError:
            with suppress(NotFoundError):
                run = await runs.retrieve(run_id, thread_id=thread_id)
                return run.status in _STOPPED
            return False
        return True
