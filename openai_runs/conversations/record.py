"""What is stored of one conversation, and each move of it, as pure functions.

Theory of operation. A conversation has a thread, messages that wait, and at most one turn: the
messages that one run answers. Who waits or answers has a lease, which it renews; one whose lease
has expired was killed. `begin` is asked by whoever waits, again and again, and says what to do:

    turn       its lease   who asks                          what `begin` does
    ---------  ----------  --------------------------------  ----------------------------------
    none       -           is next in line                   makes the turn: ANSWER
    none       -           has others before it              WAIT
    none       -           was answered in another's turn    ANSWERED
    of others  holds       anybody                           WAIT
    of others  expired     anybody                           takes the turn over: RECOVER
    its own    -           adopted it, or one of its         takes the turn over: RESUME
               expired     messages

Next in line is, where each message has a run of its own (`queue`), the first message whose lease
holds: those before it are of processes that were killed, and its run answers them, too. Where
messages are answered together, it is the last one whose lease holds, and its run answers all.

A turn has a key before its run is created, and the run's id as soon as it is known: so the next
holder finds the run of a process that was killed, or sends the same create under the same key.
What may not live here: clock, chance and storage. Times are Unix seconds, given by the caller.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final, NamedTuple

import msgspec

__all__ = ["Answered", "Message", "Next", "Position", "Record", "Turn"]

_KEPT: Final = 20
"""Answered turns that are remembered, for messages that were answered in another's turn."""


class Message(msgspec.Struct):
    """A message that waits, or is answered."""

    id: int
    """Its place in the order of arrival."""
    text: str
    owner: str
    """Who waits for the answer."""
    until: float
    """When the lease of who waits expires."""


class Turn(msgspec.Struct):
    """What is answered by one run."""

    lead: int
    """The message whose reply shows the answer."""
    messages: list[Message]
    owner: str
    until: float
    """When the lease of who answers expires."""
    key: str
    """Idempotency key of the run's create."""
    thread_id: str | None = None
    run_id: str | None = None
    is_stopped: bool = False
    is_reset: bool = False
    """Whether the conversation goes on in another thread."""

    @property
    def ids(self) -> list[int]:
        """Return the ids of its messages."""
        return [message.id for message in self.messages]


class Answered(msgspec.Struct):
    """A turn that is over."""

    ids: list[int]
    thread_id: str | None
    run_id: str | None


class Next(Enum):
    """What whoever asks has to do."""

    WAIT = auto()
    """Ask again."""
    ANSWER = auto()
    """Create the run of the turn."""
    RESUME = auto()
    """Find the run of the turn, which a killed process has begun, and show its answer."""
    RECOVER = auto()
    """Find that run and wait for its end, then ask again."""
    ANSWERED = auto()
    """Nothing: the run of another message has answered this one."""
    LOST = auto()
    """Nothing: its lease expired, and another process answers the message."""


class Position(NamedTuple):
    """The answer of `begin`."""

    next: Next
    turn: Turn | Answered | None = None
    """The turn at work, however has it; where the message was answered, that turn."""


class Record(msgspec.Struct):
    """One conversation."""

    thread_id: str | None = None
    last_id: int = 0
    waiting: list[Message] = []
    turn: Turn | None = None
    answered: list[Answered] = []

    @property
    def is_open(self) -> bool:
        """Return whether there is a message without an answer."""
        return bool(self.waiting) or self.turn is not None

    def add(self, text: str, owner: str, until: float) -> int:
        """Append a message and return its id."""
        self.last_id += 1
        self.waiting.append(Message(self.last_id, text, owner, until))
        return self.last_id

    def begin(
        self, message_id: int, owner: str, *, now: float, until: float, key: str, together: bool
    ) -> Position:
        """Return what the owner of a message has to do; see the table above.

        Args:
            message_id: The message.
            owner: Who asks.
            now: The time.
            until: When the lease of a turn that begins now expires.
            key: Idempotency key of a turn that begins now.
            together: Whether one run answers all messages that wait.
        """
        for over in self.answered:
            if message_id in over.ids:
                return Position(Next.ANSWERED, over)
        if self.turn is not None:
            return self._position_at(self.turn, message_id, owner, now, until)
        taken = self._line_up(message_id, now, together=together)
        if taken is None:
            is_mine = any(one.id == message_id and one.owner == owner for one in self.waiting)
            return Position(Next.WAIT if is_mine else Next.LOST)
        self.waiting = [message for message in self.waiting if message not in taken]
        self.turn = Turn(message_id, taken, owner, until, key, self.thread_id)
        return Position(Next.ANSWER, self.turn)

    def _position_at(
        self, turn: Turn, message_id: int, owner: str, now: float, until: float
    ) -> Position:
        is_mine = message_id in turn.ids
        if turn.owner != owner:
            if turn.until > now:
                return Position(Next.WAIT, turn)
            turn.owner, turn.until = owner, until
            if is_mine:
                turn.lead = message_id
        return Position(Next.RESUME if is_mine else Next.RECOVER, turn)

    def _line_up(self, message_id: int, now: float, *, together: bool) -> list[Message] | None:
        """Return what a message's run answers; None while it is not next in line."""
        alive = [message.id for message in self.waiting if message.until > now]
        if message_id not in alive or message_id != alive[-1 if together else 0]:
            return None
        return [one for one in self.waiting if together or one.id <= message_id]

    def renew(self, message_id: int, owner: str, until: float) -> bool:
        """Extend the leases of an owner; return whether it has any, or was answered."""
        mine = [one for one in self.waiting if one.owner == owner]
        for message in mine:
            message.until = until
        turn = self.turn
        if turn is not None and turn.owner == owner:
            turn.until = until
            return True
        in_turn = turn is not None and message_id in turn.ids and turn.lead != message_id
        return bool(mine) or in_turn or any(message_id in over.ids for over in self.answered)

    def start(self, owner: str, *, thread_id: str | None, run_id: str | None) -> bool:
        """Note thread and run of the owner's turn; return whether it was stopped meanwhile."""
        turn = self.turn
        if turn is None or turn.owner != owner:
            return True
        if turn.thread_id is None:
            turn.thread_id = thread_id
            self.thread_id = self.thread_id if turn.is_reset else thread_id
        turn.run_id = run_id
        return turn.is_stopped

    def end(self, owner: str) -> None:
        """End the owner's turn, and forget its message if it still waits."""
        self.waiting = [message for message in self.waiting if message.owner != owner]
        turn = self.turn
        if turn is not None and turn.owner == owner:
            self.turn = None
            over = Answered(turn.ids, turn.thread_id, turn.run_id)
            self.answered = [*self.answered, over][-_KEPT:]

    def end_turn(self, owner: str) -> None:
        """End a turn that the owner has recovered; its own message goes on waiting."""
        waiting = self.waiting
        self.end(owner)
        self.waiting = waiting

    def stop(self) -> Turn | None:
        """Mark the turn as stopped and return it."""
        if self.turn is not None:
            self.turn.is_stopped = True
        return self.turn

    def reset(self) -> Turn | None:
        """Forget the thread; mark the turn as stopped and return it."""
        self.thread_id = None
        if self.turn is not None:
            self.turn.is_reset = True
        return self.stop()

    def adopt(self, owner: str, *, now: float, until: float) -> int | None:
        """Take the last message of processes that were killed, where nobody else will.

        Returns:
            Its id; None where there is none, or somebody who is alive waits.
        """
        turn = self.turn
        if any(message.until > now for message in self.waiting):
            return None
        if turn is not None:
            if turn.until > now:
                return None
            turn.owner, turn.until = owner, until
            return turn.lead
        if not self.waiting:
            return None
        last = self.waiting[-1]
        last.owner, last.until = owner, until
        return last.id
