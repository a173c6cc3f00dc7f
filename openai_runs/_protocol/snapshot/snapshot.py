"""The snapshot of a stream: run, messages and steps, built from the events so far.

Theory of operation. Pieces of the same `index` belong together at each level of nesting;
within one, texts are concatenated (a list of pieces, joined when read), everything else is replaced
by what comes later. So a delta costs the same however
long the message is. Objects are built when asked for and kept until the next piece. A
whole object of an event (`created`, `in_progress`) fills the gaps that the pieces leave, and
its last form (`completed` and the like) replaces them.

A stream may contradict itself: an event `completed` whose data waits for tool outputs, or a run
that completes although it waits. Of a run the data is used. A message or a step that ends by the
name of its event alone is kept as ended, since some servers send an old status with it. In all
these cases `is_contradicted` is true, and the reader must poll to know the end.

Servers skip indices, repeat ids, send pieces before `created` and objects twice:
docs/pages/explain/protocol.md says which.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from operator import attrgetter
from typing import Any, Final, TypeVar

from msgspec.structs import replace

from openai_runs._printing import Pairs, Printed
from openai_runs._protocol.events import (
    EVENTS,
    contradicts,
    ends_in_name,
    is_end_of,
    status_in_name,
)
from openai_runs._protocol.lifecycle import may_become
from openai_runs._protocol.snapshot.delta_merge import Slots
from openai_runs.types.deltas import (
    ContentDelta,
    MessageDelta,
    MessageDeltaBody,
    RunStepDeltaBody,
    ToolCallsDelta,
    UnknownStepDetailsDelta,
)
from openai_runs.types.events import (
    Event,
    MessageDeltaEvent,
    MessageEvent,
    RunEvent,
    RunStepDeltaEvent,
    RunStepEvent,
    ThreadEvent,
    UnknownEvent,
)
from openai_runs.types.messages import Message, MessageRole
from openai_runs.types.runs import Run, RunStatus
from openai_runs.types.steps import (
    MessageCreationDetails,
    RunStep,
    StepDetails,
    ToolCallsDetails,
    UnknownStepDetails,
)
from openai_runs.types.threads import Thread

__all__ = ["Snapshot"]

T = TypeVar("T", Message, RunStep)

_id_of: Final = attrgetter("id")
_MAX_PENDING: Final = 256
"""Pieces that are kept before they are applied, some 100 KB, even without a read."""
_ONLY_AFTER_OUTPUTS: Final = frozenset(
    {RunStatus.COMPLETED, RunStatus.INCOMPLETE, RunStatus.FAILED}
)
"""What a run that waits for tool outputs cannot become in the same stream."""
_IN_PROGRESS: Final = "in_progress"


class _GrowingMessage:
    """A message as far as it is known."""

    def __init__(self, message_id: str) -> None:
        self._id = message_id
        self._whole: Message | None = None  # from the last event with a whole message
        self._role: str | None = None
        self._content = Slots()
        self.built: Message | None = None
        self.is_final = False

    def replace(self, message: Message, *, final: bool) -> None:
        if self.is_final and not final:
            return
        self._whole = message
        self.built = None
        if final:
            self.is_final = True
            self._content = Slots()

    def add(self, deltas: list[MessageDeltaBody]) -> None:
        if self.is_final:
            return
        pieces: list[ContentDelta] = []
        for delta in deltas:
            if delta.role:
                self._role = delta.role
            if delta.content:
                pieces += delta.content
        self._content.add(pieces, () if self._whole is None else self._whole.content)
        self.built = None

    def build(self, run: Run | None) -> Message:
        if self.built is None:
            whole = self._whole or self._unseen(run)
            if self._content:
                whole = replace(whole, content=self._content.build(whole.content))
            self.built = whole
        return self.built

    def _unseen(self, run: Run | None) -> Message:
        return Message(
            id=self._id,
            status=_IN_PROGRESS,
            role=self._role or "assistant",
            thread_id=run.thread_id if run is not None else "",
            run_id=run.id if run is not None else None,
            assistant_id=run.assistant_id if run is not None else None,
        )


class _GrowingStep:
    """A step as far as it is known."""

    def __init__(self, step_id: str) -> None:
        self._id = step_id
        self._whole: RunStep | None = None  # from the last event with a whole step
        self._details: StepDetails | None = None  # other than tool calls
        self._calls = Slots()
        self.built: RunStep | None = None
        self._is_final = False

    def replace(self, step: RunStep, *, final: bool) -> None:
        if self._is_final and not final:
            return
        self._whole = step
        self.built = None
        if final:
            self._is_final = True
            self._calls = Slots()
            self._details = None

    def add(self, delta: RunStepDeltaBody) -> None:
        details = delta.step_details
        if self._is_final or details is None:
            return
        if isinstance(details, ToolCallsDelta):
            self._calls.add(details.tool_calls or ())
            self._details = None
        elif isinstance(details, UnknownStepDetailsDelta):
            self._details = UnknownStepDetails(details)
        elif details.message_creation is not None:
            self._details = MessageCreationDetails(message_creation=details.message_creation)
        self.built = None

    def build(self, run: Run | None) -> RunStep:
        if self.built is None:
            whole = self._whole or self._unseen(run)
            details = self._details
            if details is None and self._calls:
                details = ToolCallsDetails(tool_calls=self._calls.build(whole.tool_calls))
            if details is not None:
                whole = replace(whole, step_details=details, type=details.type)
            self.built = whole
        return self.built

    def _unseen(self, run: Run | None) -> RunStep:
        return RunStep(
            id=self._id,
            status=_IN_PROGRESS,
            step_details=UnknownStepDetails(),
            thread_id=run.thread_id if run is not None else "",
            run_id=run.id if run is not None else "",
            assistant_id=run.assistant_id if run is not None else "",
        )


class Snapshot(Printed):
    """The run, its messages and its steps, as the events so far show them."""

    thread: Thread | None
    """The thread, where the stream began with making one."""
    run: Run | None
    """The run of the latest event; never set back to an older state."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.thread = None
        self.run = None
        self._messages: dict[str, _GrowingMessage] = {}
        self._steps: dict[str, _GrowingStep] = {}
        self._text: str | None = ""
        self._pending: list[MessageDelta] = []
        self._run_is_contradicted = self._run_is_polled = self._waits_for_outputs = False
        self._contradicted: set[str] = set()

    def _printed(self) -> Pairs:
        """Return the run and the text so far."""
        shown: Pairs = [("thread", self.thread), ("run", self.run), ("text", self.text)]
        return [(name, value) for name, value in shown if value]

    def apply(self, event: Event) -> None:
        """Apply the next event."""
        if self._pending and event.__class__ is not MessageDeltaEvent:
            self._apply_pending()
        _FOLDS[event.__class__](self, event)

    def fold_thread(self, event: ThreadEvent) -> None:
        """Keep the thread."""
        self.thread = event.data

    def fold_message_delta(self, event: MessageDeltaEvent) -> None:
        """Keep the piece, to be applied on the next read: the most frequent event."""
        self._pending.append(event.data)
        if len(self._pending) >= _MAX_PENDING:
            self._apply_pending()

    def fold_step_delta(self, event: RunStepDeltaEvent) -> None:
        """Add the piece to its step."""
        self._step(self._step_id(event.data.id)).add(event.data.delta)

    def fold_unknown(self, event: UnknownEvent) -> None:
        """Do nothing: no object of the snapshot is known to have changed."""

    @property
    def is_contradicted(self) -> bool:
        """Return whether events contradict each other or themselves: poll the run to decide."""
        return self._run_is_contradicted or bool(self._contradicted)

    @property
    def has_unfinished(self) -> bool:
        """Return whether a message or a step is still in progress, as far as is known."""
        messages = any(message.status == _IN_PROGRESS for message in self.messages)
        return messages or any(step.status == _IN_PROGRESS for step in self.steps)

    def contradicts(self, object_id: str) -> bool:
        """Return whether only an event's name says that this message or step has ended."""
        return object_id in self._contradicted

    def outputs_submitted(self) -> None:
        """Expect the run to go on from where it waited for outputs."""
        self._waits_for_outputs = False

    def verified(self) -> None:
        """Clear all contradictions: the run was polled, and its next event is accepted."""
        self._run_is_contradicted = False
        self._run_is_polled = True
        self._contradicted.clear()

    @property
    def messages(self) -> list[Message]:
        """Return the messages, in the order in which they appeared."""
        if self._pending:
            self._apply_pending()
        return [message.build(self.run) for message in self._messages.values()]

    @property
    def steps(self) -> list[RunStep]:
        """Return the steps, in the order in which they appeared."""
        return [step.build(self.run) for step in self._steps.values()]

    @property
    def text(self) -> str:
        """Return the text that the run has written, a blank line between its messages."""
        if self._text is None or self._pending:
            written = (message for message in self.messages if message.role != MessageRole.USER)
            self._text = "\n\n".join(message.text for message in written if message.text)
        return self._text

    def message(self, message_id: str) -> Message | None:
        """Return the message as far as it is known; None if nothing is."""
        if self._pending:
            self._apply_pending()
        message = self._messages.get(message_id)
        return None if message is None else message.build(self.run)

    def step(self, step_id: str) -> RunStep | None:
        """Return the step as far as it is known; None if nothing is."""
        step = self._steps.get(step_id)
        return None if step is None else step.build(self.run)

    def text_of(self, message_id: str) -> str:
        """Return the text of the message so far; empty if there is none."""
        message = self.message(message_id)
        return "" if message is None else message.text

    def _apply_pending(self) -> None:
        """Add the pieces of messages that have come since the last read."""
        pending, self._pending = self._pending, []
        for message_id, deltas in groupby(pending, _id_of):
            self._message(message_id).add([delta.delta for delta in deltas])

    def _message(self, message_id: str) -> _GrowingMessage:
        self._text = None
        message = self._messages.get(message_id)
        if message is None:
            message = self._messages[message_id] = _GrowingMessage(message_id)
        return message

    def _step_id(self, given: str) -> str:
        """Return the id of the step that a delta is about; some servers give it the run's."""
        is_the_runs = self._steps and self.run is not None and given == self.run.id
        return next(reversed(self._steps)) if is_the_runs else given

    def _step(self, step_id: str) -> _GrowingStep:
        step = self._steps.get(step_id)
        if step is None:
            step = self._steps[step_id] = _GrowingStep(step_id)
        return step

    def fold_message(self, event: MessageEvent) -> None:
        """Replace the message by its latest form."""
        message, final = event.data, ends_in_name(event)
        twin = self._twin_of(message) if final else None
        if twin is not None and message.id in self._messages:
            del self._messages[twin]
        elif twin is not None:
            message = replace(message, id=twin)
        self._note_contradiction(message.id, event, final=final)
        message = _ended(message, event)
        self._message(message.id).replace(message, final=final)

    def fold_step(self, event: RunStepEvent) -> None:
        """Replace the step by its latest form."""
        final = ends_in_name(event)
        self._note_contradiction(event.data.id, event, final=final)
        step = _ended(event.data, event)
        self._step(step.id).replace(step, final=final)

    def _note_contradiction(
        self, object_id: str, event: MessageEvent | RunStepEvent, *, final: bool
    ) -> None:
        if contradicts(event):
            self._contradicted.add(object_id)
        elif final:
            self._contradicted.discard(object_id)

    def _twin_of(self, message: Message) -> str | None:
        """Return the id under which the pieces of this message came, if it was another.

        Some servers write the id of another object into one of a message's events.
        """
        text = message.text
        if not text or self.text_of(message.id):
            return None
        for message_id, other in self._messages.items():
            if not other.is_final and other.build(self.run).text == text:
                return message_id
        return None

    def fold_run(self, event: RunEvent) -> None:
        """Replace the run, unless it was seen in a later state."""
        run, known = event.data, self.run
        if known is None:  # objects built before have no run id
            for message in self._messages.values():
                message.built = None
            for step in self._steps.values():
                step.built = None
        is_possible = True
        if known is not None and known.id == run.id and not self._run_is_polled:
            is_possible = may_become(known.status, run.status)
            skips = self._waits_for_outputs and run.status in _ONLY_AFTER_OUTPUTS
            self._run_is_contradicted = skips or not is_possible
        self._run_is_contradicted |= contradicts(event)
        self._run_is_polled = False
        self._waits_for_outputs = run.needs_action
        if is_possible:
            self.run = run


def _ended(data: T, event: MessageEvent | RunStepEvent) -> T:
    """Return the object with the end that only the event's name says."""
    name = status_in_name(event.event)
    is_missing = ends_in_name(event) and not is_end_of(event, data.status)
    return replace(data, status=name) if is_missing else data


_FOLDS: Final[dict[type[Event], Callable[[Snapshot, Any], None]]] = {
    **{row.event: getattr(Snapshot, row.fold) for row in EVENTS},
    UnknownEvent: Snapshot.fold_unknown,
}
"""The class of an event -> the method that applies it, as the events table says."""
