"""One reply: a message waits in line, and its answer is streamed.

`record` says who is next; here is what is done then. A task renews the lease as long as
the block is open, and ends with it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Final, TypeVar
from uuid import uuid4

import anyio

from openai_runs import (
    APIError,
    NotFoundError,
    OpenAIRunsError,
    Run,
    RunResult,
    RunStream,
    StreamInterrupted,
)
from openai_runs.config import CONVERSATION_POLL
from openai_runs.conversations.access import RESUMING, Access, Key, write_key
from openai_runs.conversations.creating import Options, has_thread, leave, stream_of
from openai_runs.conversations.errors import (
    DuplicateMessageError,
    LeaseLostError,
    ThreadGoneError,
    is_final,
)
from openai_runs.conversations.finding import find_run, joined, raise_if_gone, results_of, text_of
from openai_runs.conversations.outcomes import Outcome, log_new_thread
from openai_runs.conversations.record import Answered, Claim, Next, Position, Record
from openai_runs.conversations.stopping import StoppableWait

__all__ = ["Reply"]

T = TypeVar("T")

_RENEWALS: Final = 4
"""Times a lease is renewed before it would expire."""
_EXPIRED: Final = "its lease expired"
_CLOSED: Final = "its conversations were closed"
_FIRST_PAUSE: Final = 0.05
_PAUSE_FACTOR: Final = 1.5


class Reply:
    """The reply to one message, as an async context manager. Made by `Conversations.reply`.

    Entering waits for the message's claim. Iterating yields all of the answer so far, again and
    again, for a message that is edited in place. Where a process was killed in mid-answer, that
    answer comes first, as in `earlier`, and a blank line. Leaving the block before the answer's
    end, or being cancelled in it, cancels the run; leaving it lets the next message have its
    claim. A run whose connection is lost goes on: `StreamInterrupted` leaves it to the next
    reply, as a process that was killed does.

    Iterating and `result` raise what `RunStream.text_snapshots` and `RunStream.result` raise:
    `RunCancelled` where the reply was stopped or interrupted.
    """

    def __init__(
        self,
        access: Access,
        options: Options,
        key: Key,
        text: str,
        adopted: tuple[str, int] | None = None,
        *,
        message_key: str | None = None,
    ) -> None:
        self.key = key
        """The conversation."""
        self.text = text
        """The message; empty where a process that was killed had received it."""
        self.earlier: list[RunResult] = []
        """Answers that a process which was killed had begun, and that were waited for.

        Iterating yields their text before that of the reply; those that were stopped are left
        out there. They count as shown once that text is yielded, or the block is left without an
        error: else the next reply to the conversation has them again.
        """
        self._recovered: dict[str, RunResult] = {}
        self._access = access
        self._options = options
        self._key = write_key(key)
        self._message_key = message_key
        self._is_adopted = adopted is not None
        self._owner, self._id = adopted or (uuid4().hex, 0)
        self._block: AbstractAsyncContextManager[None] | None = None
        self._stream: RunStream | None = None
        self._result: RunResult | None = None
        self._answered: Answered | None = None
        self._run_id: str | None = None
        self._is_handed_over = self._is_kept = self._is_left = False
        self._on_added: Callable[[], None] | None = None
        self._wait = StoppableWait(access)

    def __repr__(self) -> str:
        state = "not opened; use `async with`" if self._block is None else repr(self._stream)
        return f"<Reply to {self.key!r}: {state}>"

    @property
    def run(self) -> Run | None:
        """Return the run as the last event left it; None before its first event."""
        if self._stream is not None:
            return self._stream.run
        return None if self._result is None else self._result.run

    @property
    def stream(self) -> RunStream | None:
        """Return the answer's stream, for its events; None where it is not streamed here.

        It is closed with the block.
        """
        return self._stream

    @property
    def is_merged(self) -> bool:
        """Return whether the reply to a later message answers this one; it yields nothing here."""
        return self._answered is not None

    @property
    def is_left(self) -> bool:
        """Return whether the message is kept in the store, and is answered later; after the block.

        By `abandoned`, the next reply of the conversation, or another process.
        """
        return self._is_left

    def keep(self, on_added: Callable[[], None] | None = None) -> None:
        """Have the message left to `abandoned` where the server cannot be reached.

        For a sender that is not there any more when it is answered. To be called before the
        block is entered.

        Args:
            on_added: Called once the message is in its conversation: from then on it is answered,
                also after a kill, and may be acknowledged.
        """
        self._is_kept, self._on_added = True, on_added

    async def __aenter__(self) -> Reply:
        """Add the message to its conversation, and wait for its claim."""
        self._block = self._held()
        await self._block.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        """Let the next message have its answer; a run that is left before its end is cancelled."""
        assert self._block is not None
        return await self._block.__aexit__(kind, error, trace)

    def __aiter__(self) -> AsyncIterator[str]:
        """Yield all of the answer's text so far, at most every `every` seconds.

        Raises:
            TypeError: The reply is not entered.
        """
        if self._block is None:
            msg = "a reply is iterated in its block: `async with conversations.reply(...) as reply`"
            raise TypeError(msg)
        return self._snapshots()

    async def result(self) -> RunResult:
        """Return the run that answered the message, with what it wrote.

        Endpoint: none where the answer was streamed to its end, else as `runs.result`

        Raises:
            RunWaitTimeout: The time was up; `.run` is the last state seen.
            OpenAIRunsError: See `RunStream.result`; also where no run could be created.
        """
        if self._stream is not None:
            return await self._unless_gone(self._stream.result)
        if self._result is None:
            answered = self._answered
            if answered is None or answered.run_id is None or answered.thread_id is None:
                msg = f"no run answered the message of conversation {self._key}"
                raise OpenAIRunsError(msg)
            runs = self._access.client.runs
            run = await runs.retrieve(answered.run_id, thread_id=answered.thread_id)
            self._result = await runs.result(run)
        return self._result

    async def _snapshots(self) -> AsyncIterator[str]:
        earlier = text_of(self.earlier)
        if earlier:
            yield earlier
            await self._access.change(self._key, self._see_earlier)
        if self._stream is not None:
            snapshots = self._stream.text_snapshots(every=self._options.every)
            following = partial(anext, snapshots, None)
            while (text := await self._unless_gone(following)) is not None:
                yield joined(earlier, text)
        elif self._result is not None and self._result.text:
            yield joined(earlier, self._result.text)
        if self.run is not None:
            self.run.raise_for_status()

    async def _unless_gone(self, wait: Callable[[], Awaitable[T]]) -> T:
        """Return what a wait for the stream returns; where its thread is gone, say so."""
        try:
            return await self._wait.unless_stopped(wait)
        except StreamInterrupted as error:
            if self._options.missing_thread == "raise":  # else the next reply begins a new one
                await raise_if_gone(self._access.client, error, stored_key=self._key, key=self.key)
            raise

    def _see_earlier(self, record: Record) -> None:
        record.see_earlier(self._id, self._owner)

    # --- the lease

    @asynccontextmanager
    async def _held(self) -> AsyncIterator[None]:
        """Hold a place in the conversation, and its lease, as long as the block is open."""
        failure: Exception | None = None
        is_clean = False
        try:
            with self._access.opened():
                async with anyio.create_task_group() as tasks:
                    try:
                        await self._add()
                        self._access.on_stop[self._owner] = self._stop
                        tasks.start_soon(self._renew)
                        tasks.start_soon(self._leave_at_close)
                        async with self._claimed():
                            yield
                        is_clean = True
                    except Exception as error:  # raised below: a task group would wrap it
                        failure = error
                    finally:
                        await self._end(failure, is_clean=is_clean)
                    tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        if failure is not None:
            raise failure

    async def _add(self) -> None:
        if not self._id:
            add = partial(
                Record.add,
                text=self.text,
                owner=self._owner,
                until=self._access.until,
                key=self._message_key,
            )
            self._id = await self._access.change(self._key, add)
            if not self._id:
                msg = f"conversation {self._key} has received this message before"
                raise DuplicateMessageError(msg)
        if self._on_added is not None:
            self._on_added()

    async def _renew(self) -> None:
        while True:
            await anyio.sleep(self._access.lease / _RENEWALS)
            renew = partial(self._renew_in, until=self._access.until)
            is_held, is_stopped = await self._access.change(self._key, renew)
            if not is_held:
                raise self._lost()
            if is_stopped:
                await self._wait.cancel_again()
                self._wait.stop()

    def _renew_in(self, record: Record, *, until: float) -> tuple[bool, bool]:
        is_held = record.renew(message_id=self._id, owner=self._owner, until=until)
        return is_held, record.is_stopped(self._owner)

    def _stop(self) -> None:
        self._wait.stop()

    async def _leave_at_close(self) -> None:
        await self._access.closing.wait()
        raise self._lost(_CLOSED)

    def _lost(self, reason: str = _EXPIRED) -> LeaseLostError:
        """Leave the run and the message to another process, and return the error that says so."""
        self._is_handed_over = True
        if self._stream is not None:
            self._stream.set_on_cancel("leave")
        return LeaseLostError(
            f"message {self._id} of conversation {self._key} is left to another process: {reason}"
        )

    async def _end(self, failure: Exception | None, *, is_clean: bool) -> None:
        """End the claim; one whose run may go on is left, as by a process that was killed."""
        is_cut = self._is_cut(failure)
        is_created = isinstance(failure, APIError) and failure.maybe_created

        def end(record: Record) -> bool:
            if is_clean:
                self._see_earlier(record)
            claim = record.claim
            has_run = claim is not None and claim.run_id is not None
            is_unsent = record.is_stopped(self._owner) and not has_run and not is_created
            is_kept = (self._is_kept or self._is_adopted) and not is_unsent
            if self._is_handed_over or (is_kept and is_cut):
                record.leave(owner=self._owner)
                return True
            if self._message_key is not None and not is_created:
                record.forget(self._id, self._message_key, is_unsent=failure is not None)
            leave = is_cut and (has_run or is_created)
            record.end(self._id, self._owner, leave=leave)
            return leave and claim is not None and self._id in claim.ids

        with anyio.CancelScope(shield=True):
            self._is_left = await self._access.change(self._key, end)
        run = getattr(failure, "run", None) or self.run
        outcome = Outcome(failure, run, is_cut=is_cut, is_left=self._is_left)
        self._access.outcomes.log(self._id, self._key, outcome, is_merged=self.is_merged)
        self._access.on_stop.pop(self._owner, None)
        self._access.notify(self._key)

    def _is_cut(self, error: Exception | None) -> bool:
        """Return whether an error is of the way to the run, and says nothing of the run."""
        if self._stream is not None and (run := self._stream.run) is not None:
            return isinstance(error, StreamInterrupted) and error.run_id == run.id
        is_api = isinstance(error, APIError | StreamInterrupted)
        return is_api and not is_final(error) and self._result is None

    # --- the claim

    @asynccontextmanager
    async def _claimed(self) -> AsyncIterator[None]:
        """Wait in line, and stream its answer as long as the block is open."""
        position = await self._next()
        if position.next is Next.LOST:
            raise self._lost()
        if isinstance(position.claim, Answered):
            self._answered = position.claim
            yield
            return
        assert position.claim is not None
        self.earlier = await results_of(
            self._access.client, position.claim.earlier, self._recovered
        )
        if self.earlier and not text_of(self.earlier):  # there is nothing to show
            await self._access.change(self._key, self._see_earlier)
        if position.next is Next.RESUME:
            self._result = await self._resume(position.claim)
        if self._result is not None:
            yield
            return
        async with await self._opened(position.claim, self._take):
            assert self._stream is not None
            try:
                yield
            except StreamInterrupted as error:
                if self._is_cut(error):
                    self._stream.set_on_cancel("leave")
                raise
        if (run := self._stream.run) is not None and run.needs_action:
            await self._access.cancel(run.id, run.thread_id)  # it waits for tools nobody has

    async def _next(self) -> Position:
        """Return once there is something to do for this message."""
        pause = _FIRST_PAUSE
        while True:
            changed = self._access.next_change(self._key)
            position = await self._access.change(self._key, self._begin)
            claim = position.claim
            if position.next is Next.RECOVER and isinstance(claim, Claim):
                await self._recover(claim)
                pause = _FIRST_PAUSE
                continue
            if position.next is not Next.WAIT:
                return position
            if isinstance(claim, Claim) and self._interrupts(claim):
                await self._access.stop(self._key, Record.stop)
            with anyio.move_on_after(pause):
                await changed.wait()
            pause = min(pause * _PAUSE_FACTOR, CONVERSATION_POLL)

    def _begin(self, record: Record) -> Position:
        access = self._access
        return record.begin(
            self._id,
            self._owner,
            now=access.now,
            until=access.until,
            key=uuid4().hex,
            together=self._options.when_busy != "queue",
        )

    def _interrupts(self, claim: Claim) -> bool:
        is_older = self._id not in claim.ids and not claim.is_stopped
        return self._options.when_busy == "interrupt" and is_older

    def _take(self, stream: RunStream) -> None:
        self._stream = stream

    async def _opened(self, claim: Claim, before: Callable[[RunStream], None]) -> RunStream:
        """Return the stream of the claim's run, once the server has accepted that.

        Args:
            claim: Whose run it is.
            before: Called with the stream before anything is sent.

        Raises:
            ThreadGoneError: The thread is not at the server, and no new one is wanted.
        """
        client = self._access.client
        try:
            return await self._sent(claim, before)
        except NotFoundError as error:
            if claim.thread_id is None or await has_thread(client, claim.thread_id):
                raise
            if self._options.missing_thread == "raise":
                raise ThreadGoneError(
                    error, thread_id=claim.thread_id, stored_key=self._key, key=self.key
                ) from error
        log_new_thread(claim.thread_id, self._key)
        begin = partial(Record.start_over, owner=self._owner, key=uuid4().hex)
        begun = await self._access.change(self._key, begin)
        if begun is None:
            raise self._lost()
        return await self._sent(begun, before)

    async def _sent(self, claim: Claim, before: Callable[[RunStream], None]) -> RunStream:
        stream = await self._open(claim)
        before(stream)
        return await stream.__aenter__()

    async def _open(self, claim: Claim) -> RunStream:
        """Return the stream of the claim's run, which is created under the claim's key."""
        client, thread_id = self._access.client, claim.thread_id
        if thread_id is None:
            thread_id = (await client.threads.create()).id
            await self._start(thread_id, None)
        on_status, is_left = self._on_status, self._is_handed_over
        return stream_of(
            client, self._options, claim, thread_id, on_status=on_status, is_left=is_left
        )

    async def _on_status(self, run: Run) -> None:
        """Note the run when it is first seen, and cancel it if it was stopped before."""
        if run.id != self._run_id:
            self._run_id = run.id
            if await self._start(run.thread_id, run.id):
                self._wait.is_stopped = True
                await self._access.cancel(run.id, run.thread_id)
        self._wait.see(run, is_at_tools=run.needs_action)

    async def _start(self, thread_id: str, run_id: str | None) -> bool:
        start = partial(Record.start, owner=self._owner, thread_id=thread_id, run_id=run_id)
        return await self._access.change(self._key, start)

    # --- what a process that was killed has left

    async def _recover(self, claim: Claim) -> None:
        """Bring the claim of a killed process to its end; its answer is in `earlier`.

        Where that cannot succeed the claim ends all the same: the next run answers its messages,
        as far as they are on the thread.
        """
        has_answer = False
        self._run_id = None
        if self._options.when_busy == "interrupt":
            stopped = await self._access.change(self._key, Record.stop)
            claim = stopped or claim
        try:
            result = await self._resume(claim)
            if result is None:
                stream = await self._opened(claim, leave)
                async with stream:
                    result = await self._wait.unless_stopped(stream.result)
            self._recovered[result.run.id] = result
            has_answer = True
        except OpenAIRunsError as error:
            if not is_final(error):
                raise
            run_id, thread_id = self._run_id or claim.run_id, claim.thread_id
            if run_id is not None and thread_id is not None:
                await self._access.cancel(run_id, thread_id)
        end = partial(Record.end_recovered, owner=self._owner, has_answer=has_answer)
        await self._access.change(self._key, end)
        self._run_id, self._wait = None, StoppableWait(self._access)

    async def _resume(self, claim: Claim) -> RunResult | None:
        """Return the result of the claim's run; None if it cannot be found."""
        run = await find_run(self._access.client, claim)
        if run is None:
            return None
        if claim.is_stopped:
            await self._access.cancel(run.id, run.thread_id)
        arguments = {k: v for k, v in self._options.arguments.items() if k in RESUMING}
        self._wait.see(run, is_at_tools=True)
        resume = partial(
            self._access.client.runs.resume,
            run.id,
            thread_id=run.thread_id,
            tools=self._options.tools or [],
            on_timeout="cancel",
            **arguments,
        )
        result = await self._wait.unless_stopped(resume)
        await self._start(run.thread_id, run.id)
        return result
