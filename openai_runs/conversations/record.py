"""What is stored of one conversation, and each move of it, as pure functions.

Theory of operation. A conversation has a thread, messages that wait, and at most one claim: the
messages that one run answers. Who waits or answers has a lease, which it renews; one whose lease
has expired was killed. `begin` is asked by whoever waits, again and again, and says what to do:

    claim      its lease   who asks                          what `begin` does
    ---------  ----------  --------------------------------  ----------------------------------
    none       -           is next in line                   makes the claim: ANSWER
    none       -           has others before it              WAIT
    none       -           is not in line any more           LOST
    recovered  -           anybody else                      as where there is none
    any        -           was answered with another         ANSWERED
    of others  holds       anybody                           WAIT
    of others  expired     one of its messages               takes the claim over: RESUME
    of others  expired     anybody else                      takes the claim over: RECOVER
    its own    -           adopted it                        RESUME

Next in line is, where each message has a run of its own (`queue`), the first message whose lease
holds: those before it are of processes that were killed, and its run answers them, too. Where
messages are answered together, it is the last one whose lease holds, and its run answers all.

A claim that was recovered has its answer, which nobody has seen yet. It stays until the next claim
has it in `earlier`, and comes back where that one ends before its reply has shown it.

A claim has a key before its run is created, and the run's id as soon as it is known: so the next
holder finds the run of a process that was killed, or sends the same create under the same key.
What may not live here: clock, chance and storage. Times are Unix seconds, given by the caller.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final, NamedTuple

import msgspec

__all__ = ["Answered", "Claim", "Message", "Next", "Position", "Record", "Status"]

_KEPT: Final = 20
"""Answered claims that are remembered, for messages that were answered in another's claim."""
_KEPT_KEYS: Final = 100
"""Keys of messages that are remembered: a message is delivered again soon, or not at all."""


class Message(msgspec.Struct):
    """A message that waits, or is answered."""

    id: int
    """Its place in the order of arrival."""
    text: str
    owner: str
    """Who waits for the answer."""
    until: float
    """When the lease of who waits expires."""


class Claim(msgspec.Struct):
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
    is_recovered: bool = False
    """Whether its run is over, and its answer waits to be shown."""
    earlier: list[Claim] = []
    """Those that were recovered, and are shown with this one."""

    @property
    def ids(self) -> list[int]:
        """Return the ids of its messages."""
        return [message.id for message in self.messages]


class Answered(msgspec.Struct):
    """A claim that is over."""

    ids: list[int]
    thread_id: str | None
    run_id: str | None
    is_stopped: bool = False


class Next(Enum):
    """What whoever asks has to do."""

    WAIT = auto()
    """Ask again."""
    ANSWER = auto()
    """Create the run of the claim."""
    RESUME = auto()
    """Find the run of the claim, which a killed process has begun, and show its answer."""
    RECOVER = auto()
    """Find that run and wait for its end, then ask again."""
    ANSWERED = auto()
    """Nothing: the run of another message has answered this one."""
    LOST = auto()
    """Nothing: its lease expired, and another process answers the message."""


class Position(NamedTuple):
    """The answer of `begin`."""

    next: Next
    claim: Claim | Answered | None = None
    """The claim at work, however has it; where the message was answered, that claim."""


class Status(NamedTuple):
    """Where a conversation is, in whichever process.

    Attributes:
        thread_id: None before the first answer is begun, and after a reset.
        run_id: The run at work; None where there is none, or it is not known yet.
        is_busy: Whether a message waits, or is answered.
        waiting: Texts of the messages that no run has yet, in order.
    """

    thread_id: str | None
    run_id: str | None
    is_busy: bool
    waiting: list[str]


class Record(msgspec.Struct):
    """One conversation."""

    thread_id: str | None = None
    last_id: int = 0
    waiting: list[Message] = []
    claim: Claim | None = None
    answered: list[Answered] = []
    keys: list[str] = []
    """Of the last messages that came with a key."""

    @property
    def is_open(self) -> bool:
        """Return whether there is a message without an answer."""
        return bool(self.waiting) or self.claim is not None

    def status(self) -> Status:
        """Return where the conversation is."""
        claim = self.claim
        run_id = None if claim is None or claim.is_reset else claim.run_id
        begun = [] if claim is None or claim.run_id is not None else claim.messages
        texts = [message.text for message in (*begun, *self.waiting)]
        return Status(self.thread_id, run_id, self.is_open, texts)

    def add(self, text: str, owner: str, until: float, key: str | None = None) -> int:
        """Append a message and return its id; 0 where one with this key has come before."""
        if key is not None:
            if key in self.keys:
                return 0
            self.keys = [*self.keys, key][-_KEPT_KEYS:]
        self.last_id += 1
        self.waiting.append(Message(self.last_id, text, owner, until))
        return self.last_id

    def forget(self, message_id: int, key: str, *, is_unsent: bool) -> None:
        """Forget the key of a message that no run has: it is answered when it comes again.

        Not where it was stopped: nobody wants that answer.

        Args:
            message_id: The message.
            key: What it came with.
            is_unsent: Whether no run was created for it where it is claimed.
        """
        claim = self.claim
        is_waiting = any(message.id == message_id for message in self.waiting)
        is_claimed = claim is not None and message_id in claim.ids
        has_no_run = is_unsent and (claim is None or claim.run_id is None)
        is_stopped = claim is not None and claim.is_stopped
        over = [one for one in self.answered if message_id in one.ids and not one.is_stopped]
        is_unanswered = is_claimed and has_no_run and not is_stopped
        if is_waiting or is_unanswered or any(one.run_id is None for one in over):
            self.keys = [one for one in self.keys if one != key]

    def begin(
        self, message_id: int, owner: str, *, now: float, until: float, key: str, together: bool
    ) -> Position:
        """Return what the owner of a message has to do; see the table above.

        Args:
            message_id: The message.
            owner: Who asks.
            now: The time.
            until: When the lease of a claim that begins now expires.
            key: Idempotency key of a claim that begins now.
            together: Whether one run answers all messages that wait.
        """
        for over in self.answered:
            if message_id in over.ids:
                return Position(Next.ANSWERED, over)
        claim = self.claim
        if claim is not None and (not claim.is_recovered or message_id in claim.ids):
            return self._position_at(claim, message_id, owner, now, until)
        selected = self._line_up(message_id, now, together=together)
        if selected is None:
            is_mine = any(one.id == message_id and one.owner == owner for one in self.waiting)
            return Position(Next.WAIT if is_mine else Next.LOST)
        self.waiting = [message for message in self.waiting if message not in selected]
        earlier: list[Claim] = []
        if claim is not None:
            earlier, claim.earlier = [*claim.earlier, claim], []
            self._close(claim)
        self.claim = Claim(message_id, selected, owner, until, key, self.thread_id, earlier=earlier)
        return Position(Next.ANSWER, self.claim)

    def _position_at(
        self, claim: Claim, message_id: int, owner: str, now: float, until: float
    ) -> Position:
        is_mine = message_id in claim.ids
        if claim.owner != owner:
            if claim.until > now:
                return Position(Next.WAIT, claim)
            claim.owner, claim.until, claim.is_recovered = owner, until, False
            if is_mine:
                claim.lead = message_id
        return Position(Next.RESUME if is_mine else Next.RECOVER, claim)

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
        claim = self.claim
        if claim is not None and claim.owner == owner:
            claim.until = until
            return True
        is_claimed = claim is not None and message_id in claim.ids and claim.lead != message_id
        return bool(mine) or is_claimed or any(message_id in over.ids for over in self.answered)

    def start(self, owner: str, *, thread_id: str | None, run_id: str | None) -> bool:
        """Note thread and run of the owner's claim; return whether it was stopped meanwhile."""
        claim = self.claim
        if claim is None or claim.owner != owner:
            return True
        if claim.thread_id is None:
            claim.thread_id = thread_id
            self.thread_id = self.thread_id if claim.is_reset else thread_id
        claim.run_id = run_id
        return claim.is_stopped

    def start_over(self, owner: str, *, key: str) -> Claim | None:
        """Have the owner's claim begin on a new thread, under a new key; None: it has none.

        After a reset the conversation keeps the thread that it has since.
        """
        claim = self.claim
        if claim is None or claim.owner != owner:
            return None
        if not claim.is_reset:
            self.thread_id = None
        claim.key, claim.thread_id, claim.run_id = key, None, None
        return claim

    def end(self, message_id: int, owner: str, *, leave: bool = False) -> None:
        """End the claim of a message's owner, or forget the message if it still waits.

        A claim that its owner was only recovering is left to the next one that asks.

        Args:
            message_id: The message.
            owner: Who answered it.
            leave: Whether its own claim is left, too: its run may go on.
        """
        self.waiting = [message for message in self.waiting if message.owner != owner]
        claim = self.claim
        if claim is None or claim.owner != owner:
            return
        claim.until = 0.0
        if message_id in claim.ids and not leave:
            self._close(claim)

    def is_stopped(self, owner: str) -> bool:
        """Return whether the owner answers, and has been stopped."""
        claim = self.claim
        if claim is None or claim.owner != owner or claim.is_recovered:
            return False
        return claim.is_stopped

    def leave(self, owner: str) -> None:
        """Let the leases of an owner expire: what it has is left as by a kill."""
        for message in self.waiting:
            if message.owner == owner:
                message.until = 0.0
        if self.claim is not None and self.claim.owner == owner:
            self.claim.until = 0.0

    def end_recovered(self, owner: str, *, has_answer: bool) -> None:
        """End a claim that the owner has recovered; its own message goes on waiting."""
        claim = self.claim
        if claim is None or claim.owner != owner:
            return
        if has_answer:
            claim.is_recovered = True
        else:
            self._close(claim)

    def see_earlier(self, message_id: int, owner: str) -> None:
        """Note that the reply to the owner's message has shown what was recovered before it."""
        claim = self.claim
        if claim is not None and claim.owner == owner and message_id in claim.ids:
            claim.earlier = []

    def _close(self, claim: Claim) -> None:
        """End a claim; what was recovered before it, and is not seen, comes back."""
        self.claim = None
        over = Answered(claim.ids, claim.thread_id, claim.run_id, claim.is_stopped)
        self.answered = [*self.answered, over][-_KEPT:]
        if claim.earlier:
            *before, last = claim.earlier
            last.owner, last.until, last.earlier = claim.owner, claim.until, before
            self.answered = [one for one in self.answered if one.ids != last.ids]
            self.claim = last

    def stop(self, run_id: str | None = None) -> Claim | None:
        """Mark the claim as stopped and return it; None where it has another run than this."""
        claim = self.claim
        if claim is None or claim.is_recovered or run_id not in (None, claim.run_id):
            return None
        claim.is_stopped = True
        return claim

    def reset(self) -> Claim | None:
        """Forget the thread; mark the claim as stopped and return it."""
        self.thread_id = None
        if self.claim is not None:
            self.claim.is_reset = True
        return self.stop()

    def held_until(self, now: float) -> float:
        """Return when the leases of all that wait or answer have expired; 0 where none holds."""
        leases = [message.until for message in self.waiting]
        if self.claim is not None:
            leases.append(self.claim.until)
        return max((until for until in leases if until > now), default=0.0)

    def adopt(self, owner: str, *, now: float, until: float) -> int | None:
        """Take the last message of processes that were killed, where nobody else will.

        Returns:
            Its id; None where there is none, or somebody who is alive waits.
        """
        claim = self.claim
        if any(message.until > now for message in self.waiting):
            return None
        if claim is not None:
            if claim.until > now:
                return None
            claim.owner, claim.until, claim.is_recovered = owner, until, False
            return claim.lead
        if not self.waiting:
            return None
        last = self.waiting[-1]
        last.owner, last.until = owner, until
        return last.id
