"""What a stream has told so far: the run, its messages and its steps, growing.

Theory of operation. Pieces of the same `index` belong together at each level of nesting;
within one, texts are put one after the other (a list of pieces, joined when somebody
reads), everything else is replaced by what comes later. So a delta costs the same however
long the message is. Objects are built when asked for and kept until the next piece. What an
object of the stream says of itself (`created`, `in_progress`) fills the gaps that the
pieces leave, and its last form (`completed` and the like) takes their place.

A stream may contradict itself: a name that says `completed` over data that waits for tool
outputs, or a run that completes although it waits. Of a run the data decides. A message or a
step that ends by its name alone is kept as ended, since some servers send an old status with
it. In all these cases `is_contradicted` asks the reader to poll before it believes the end.

Servers skip indices, repeat ids, send pieces before `created` and objects twice:
docs/pages/explain/protocol.md says which.
"""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter
from typing import Final, TypeVar

from msgspec.structs import replace

from openai_runs._protocol.events import (
    MESSAGE_ENDS,
    STEP_ENDS,
    contradicts,
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
"""Pieces that wait to be taken in, some 100 KB, before they are even if nobody looks."""
_ONLY_AFTER_OUTPUTS: Final = frozenset(
    {RunStatus.COMPLETED, RunStatus.INCOMPLETE, RunStatus.FAILED}
)
"""What a run that waits for tool outputs cannot become in the same stream."""


class _GrowingMessage:
    """A message as far as it is known."""

    def __init__(self, message_id: str) -> None:
        self._id = message_id
        self._told: Message | None = None  # what an event says of the message as a whole
        self._role: str | None = None
        self._content = Slots()
        self.built: Message | None = None
        self.is_settled = False

    def take(self, message: Message, *, settled: bool) -> None:
        if self.is_settled and not settled:
            return
        self._told = message
        self.built = None
        if settled:
            self.is_settled = True
            self._content = Slots()

    def add(self, deltas: list[MessageDeltaBody]) -> None:
        if self.is_settled:
            return
        pieces: list[ContentDelta] = []
        for delta in deltas:
            if delta.role:
                self._role = delta.role
            if delta.content:
                pieces += delta.content
        self._content.add(pieces, () if self._told is None else self._told.content)
        self.built = None

    def build(self, run: Run | None) -> Message:
        if self.built is None:
            told = self._told or self._untold(run)
            if self._content:
                told = replace(told, content=self._content.build(told.content))
            self.built = told
        return self.built

    def _untold(self, run: Run | None) -> Message:
        return Message(
            id=self._id,
            status="in_progress",
            role=self._role or "assistant",
            thread_id=run.thread_id if run is not None else "",
            run_id=run.id if run is not None else None,
            assistant_id=run.assistant_id if run is not None else None,
        )


class _GrowingStep:
    """A step as far as it is known."""

    def __init__(self, step_id: str) -> None:
        self._id = step_id
        self._told: RunStep | None = None  # what an event says of the step as a whole
        self._details: StepDetails | None = None  # other than tool calls
        self._calls = Slots()
        self.built: RunStep | None = None
        self._is_settled = False

    def take(self, step: RunStep, *, settled: bool) -> None:
        if self._is_settled and not settled:
            return
        self._told = step
        self.built = None
        if settled:
            self._is_settled = True
            self._calls = Slots()
            self._details = None

    def add(self, delta: RunStepDeltaBody) -> None:
        details = delta.step_details
        if self._is_settled or details is None:
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
            told = self._told or self._untold(run)
            details = self._details
            if details is None and self._calls:
                details = ToolCallsDetails(tool_calls=self._calls.build(told.tool_calls))
            if details is not None:
                told = replace(told, step_details=details, type=details.type)
            self.built = told
        return self.built

    def _untold(self, run: Run | None) -> RunStep:
        return RunStep(
            id=self._id,
            status="in_progress",
            step_details=UnknownStepDetails(),
            thread_id=run.thread_id if run is not None else "",
            run_id=run.id if run is not None else "",
            assistant_id=run.assistant_id if run is not None else "",
        )


class Snapshot:
    """What a stream has told so far: the run, its messages and steps, growing."""

    thread: Thread | None
    """The thread, where the stream began with making one."""
    run: Run | None
    """The run as it was last told; never set back to an older state."""

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

    def apply(self, event: Event) -> None:
        """Take in the next event."""
        if isinstance(event, MessageDeltaEvent):
            self._pending.append(event.data)  # the most frequent of all: many at once, later
            if len(self._pending) >= _MAX_PENDING:
                self._catch_up()
            return
        if self._pending:
            self._catch_up()
        if isinstance(event, RunStepDeltaEvent):
            self._step(self._step_id(event.data.id)).add(event.data.delta)
        elif isinstance(event, MessageEvent):
            self._take_message(event)
        elif isinstance(event, RunStepEvent):
            self._take_step(event)
        elif isinstance(event, RunEvent):
            self._take_run(event)
        elif isinstance(event, ThreadEvent):
            self.thread = event.data

    @property
    def is_contradicted(self) -> bool:
        """Return whether events contradict each other or themselves: poll the run to know."""
        return self._run_is_contradicted or bool(self._contradicted)

    def contradicts(self, object_id: str) -> bool:
        """Return whether the end of this message or step is known by an event's name alone."""
        return object_id in self._contradicted

    def outputs_submitted(self) -> None:
        """Expect the run to go on from where it waited for outputs."""
        self._waits_for_outputs = False

    def verified(self) -> None:
        """Forget all contradictions: the run was polled, and its next event is the truth."""
        self._run_is_contradicted = False
        self._run_is_polled = True
        self._contradicted.clear()

    @property
    def messages(self) -> list[Message]:
        """Return the messages, in the order in which they appeared."""
        if self._pending:
            self._catch_up()
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
            self._catch_up()
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

    def _catch_up(self) -> None:
        """Take in the pieces of messages that have come since somebody looked."""
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

    def _take_message(self, event: MessageEvent) -> None:
        message, settled = event.data, status_in_name(event.event) in MESSAGE_ENDS
        twin = self._twin_of(message) if settled else None
        if twin is not None and message.id in self._messages:
            del self._messages[twin]
        elif twin is not None:
            message = replace(message, id=twin)
        self._note_contradiction(message.id, event, settled=settled)
        message = _ended(message, event.event, MESSAGE_ENDS)
        self._message(message.id).take(message, settled=settled)

    def _take_step(self, event: RunStepEvent) -> None:
        settled = status_in_name(event.event) in STEP_ENDS
        self._note_contradiction(event.data.id, event, settled=settled)
        step = _ended(event.data, event.event, STEP_ENDS)
        self._step(step.id).take(step, settled=settled)

    def _note_contradiction(
        self, object_id: str, event: MessageEvent | RunStepEvent, *, settled: bool
    ) -> None:
        if contradicts(event):
            self._contradicted.add(object_id)
        elif settled:
            self._contradicted.discard(object_id)

    def _twin_of(self, message: Message) -> str | None:
        """Return the id under which the pieces of this message came, if it was another.

        Some servers write the id of another object into one of a message's events.
        """
        text = message.text
        if not text or self.text_of(message.id):
            return None
        for message_id, other in self._messages.items():
            if not other.is_settled and other.build(self.run).text == text:
                return message_id
        return None

    def _take_run(self, event: RunEvent) -> None:
        run, known = event.data, self.run
        if known is None:  # what came before may name its run now
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


def _ended(told: T, event: str, ends: frozenset[str]) -> T:
    """Return the object with the end that the event's name tells, where it does not say so."""
    word = status_in_name(event)
    return replace(told, status=word) if word in ends and told.status not in ends else told
