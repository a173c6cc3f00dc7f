"""Where a run's time went: a list of stretches of time, read from the run and its steps.

Stamps on the wire are whole seconds, may be missing, and may contradict each other, since a server
can have more than one clock. No duration here is negative, and nothing lies outside of the run.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal

import msgspec
from msgspec import field

from openai_runs.types.base import Unknown
from openai_runs.types.runs import Run, RunLastError, RunStatus, Usage
from openai_runs.types.steps import FunctionToolCall, MessageCreationDetails, RunStep, StepToolCall

__all__ = [
    "Timeline",
    "TimelineEntry",
    "TimelineTotals",
    "build_timeline",
    "format_rows",
    "format_seconds",
]

_WIDTH: Final = 80
"""Columns of the table."""
_TITLE: Final = 34
"""Columns for what an entry is."""
_WORDS: Final = {"hosted_tools": "hosted tools", "gap": "outside of steps"}
"""What a kind of entry is called, where its name is no plain word."""
_MINUTE: Final = 60
_HOUR: Final = 3600
_NEVER_STARTED: Final = frozenset({RunStatus.QUEUED, RunStatus.CANCELLED, RunStatus.EXPIRED})
"""Statuses of a run that may have ended, or still be, in the queue."""

_BACKWARDS: Final = "its end is before its start"
_OUTSIDE: Final = "its times are outside of the run's"
_NO_START: Final = "the server sent no start"
_NO_END: Final = "the server sent no end"
_LEFT_OPEN: Final = "it was never ended; the run was"


class TimelineEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One stretch of a run's time."""

    kind: Literal["queued", "message", "tools", "hosted_tools", "step", "gap"]
    """`tools`: functions of the caller's are called, and the run waits for their outputs; the time
    in which the model wrote the calls is included. `hosted_tools`: the server runs them. `gap`: no
    step stands for this time. `step`: of a kind this version does not know."""
    names: list[str] = field(default_factory=list)
    """Which tools were called, or what an unknown step is called."""
    step_id: str | None = None
    """Null where no step stands for it."""
    start: int | None
    """Unix seconds; null where the server did not say."""
    end: int | None
    """Unix seconds; null where it is not over, or the server did not say."""
    duration: int | None
    """Seconds, up to now where it is not over and `now` was given; null where it is unknown."""
    status: str = ""
    """Of the step; empty where no step stands for it."""
    usage: Usage | None = None
    """The tokens of the step."""
    error: RunLastError | None = None
    """Why the step failed."""
    note: str = ""
    """What is odd about its times."""

    @property
    def title(self) -> str:
        """Return what it is, in words."""
        text = _WORDS.get(self.kind, self.kind)
        return f"{text}: {_counted(self.names)}" if self.names else text


class TimelineTotals(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds for each kind of entry; entries that overlap count each."""

    queued: int = 0
    message: int = 0
    tools: int = 0
    hosted_tools: int = 0
    step: int = 0
    gap: int = 0


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run's time went. `print()` shows it as a table."""

    run_id: str
    thread_id: str
    status: str
    start: int | None
    """When the run was created, in Unix seconds."""
    end: int | None
    """When it ended, in Unix seconds; null while it is active, and where nothing says."""
    duration: int | None
    """Seconds from its start to its end, or up to now where `now` was given."""
    usage: Usage | None
    """The tokens of the run; the sum of its steps' where the run has none."""
    error: RunLastError | None
    entries: list[TimelineEntry]
    """In the order of their starts."""
    totals: TimelineTotals

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        built: dict[str, Any] = msgspec.to_builtins(self)
        return built

    def to_json(self, *, indent: int | None = None) -> str:
        """Return it as JSON text.

        Args:
            indent: Spaces for each level; None: all on one line.
        """
        text = msgspec.json.encode(self)
        return (text if indent is None else msgspec.json.format(text, indent=indent)).decode()

    def __str__(self) -> str:
        """Return a table of at most 80 columns."""
        return "\n".join([*map(_fitted, _summary(self)), format_rows(self)])

    __repr__ = __str__


def build_timeline(run: Run, steps: Iterable[RunStep], now: float | None) -> Timeline:
    """Return where the run's time went; see `Run.timeline`.

    Raises:
        ValueError: A step is of another run.
    """
    frame = _Frame(run, _in_order(run, steps), now)
    entries = [*frame.entries()]
    totals = dict.fromkeys(TimelineTotals.__struct_fields__, 0)
    for entry in entries:
        totals[entry.kind] += entry.duration or 0
    return Timeline(
        run_id=run.id,
        thread_id=run.thread_id,
        status=run.status,
        start=frame.start,
        end=frame.limit,
        duration=frame.up_to_end(frame.start),
        usage=run.usage or _sum(entry.usage for entry in entries),
        error=run.last_error,
        entries=entries,
        totals=TimelineTotals(**totals),
    )


def format_rows(timeline: Timeline) -> str:
    """Return the table of a timeline, at most 80 columns wide, without its summary."""
    return "\n".join(map(_fitted, _table(timeline)))


def format_seconds(seconds: int | None) -> str:
    """Return a duration in words.

    >>> format_seconds(7), format_seconds(125), format_seconds(7260), format_seconds(None)
    ('7 s', '2 min 05 s', '2 h 01 min', '?')
    """
    if seconds is None:
        return "?"
    if seconds < _MINUTE:
        return f"{seconds} s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE} min {seconds % _MINUTE:02} s"
    return f"{seconds // _HOUR} h {seconds % _HOUR // _MINUTE:02} min"


class _Frame:
    """The time between a run's start and its end, and the entries that fill it."""

    def __init__(self, run: Run, steps: list[RunStep], now: float | None) -> None:
        self._run = run
        self._steps = steps
        known = [at for step in steps for at in (_start_of(step), _end_of(step)) if at is not None]
        begun = _stamp(run.started_at)
        known += [begun] if begun is not None else []
        self.start = _stamp(run.created_at) or min(known, default=None)
        self.limit: int | None = None
        """When the run ended."""
        if run.is_terminal:
            self.limit = _ended(run) or max(known, default=None)
        elif now is not None:
            now = max(int(now), *known, self.start or 0)
        self._until: int | None = self.limit if run.is_terminal else now  # type: ignore[assignment]
        if self.limit is not None and self.start is not None:
            self.limit = self._until = max(self.limit, self.start)

    def up_to_end(self, start: int | None) -> int | None:
        """Return the seconds from `start` to the end of the run, or to now."""
        if start is None or self._until is None:
            return None
        return max(self._until - start, 0)

    def entries(self) -> Iterator[TimelineEntry]:
        """Yield what fills the time, first to last."""
        cursor = self._queue_end()
        if cursor is not None and self.start is not None and cursor > self.start:
            yield _without_step("queued", self.start, cursor)
        elif cursor is None and not self._steps:
            if self._run.status in _NEVER_STARTED:
                yield self._open("queued", self.start, self.limit)
                return
            cursor = self.start  # it ran, and nothing says since when
        is_waited_for = False
        for step in self._steps:
            entry = self._entry(step)
            if cursor is not None and entry.start is not None and entry.start > cursor:
                yield _without_step("gap", cursor, entry.start)
            yield entry
            is_waited_for |= entry.kind == "tools" and entry.end is None
            known = [at for at in (cursor, entry.end) if at is not None]
            cursor = max(known) if entry.end is not None else None
        if self._run.needs_action and not is_waited_for:
            names = [call.function.name for call in self._run.tool_calls]
            yield self._open("tools", cursor, None, names)
        elif cursor is not None and (self._until is None or self._until > cursor):
            yield self._open("gap", cursor, self.limit)

    def _queue_end(self) -> int | None:
        """Return when the run began; a server may stamp `started_at` again after each wait."""
        first = min((at for at in map(_start_of, self._steps) if at is not None), default=None)
        known = [at for at in (_stamp(self._run.started_at), first) if at is not None]
        return self._clipped(min(known)) if known else None

    def _entry(self, step: RunStep) -> TimelineEntry:
        """Return the stretch of time of one step."""
        start, end = _start_of(step), _end_of(step)
        note = _NO_START if start is None else ""
        if start is not None:
            inside = self._clipped(start)
            note = _OUTSIDE if inside != start else note
            start = inside
        is_over = _text(getattr(step, "status", None)) not in {"in_progress", ""}
        if end is not None:
            inside = self._clipped(end)
            note = _OUTSIDE if inside != end else note
            end = inside
            if start is not None and end < start:
                note, end = note or _BACKWARDS, start
        elif is_over:
            note = note or _NO_END
        elif self.limit is not None:
            note, end = note or _LEFT_OPEN, self.limit
        duration = None if start is None or end is None else end - start
        kind, names = _kind_of(step)
        return TimelineEntry(
            kind=kind,
            names=names,
            step_id=_text(getattr(step, "id", None)) or None,
            start=start,
            end=end,
            duration=self.up_to_end(start) if end is None and not is_over else duration,
            status=_text(getattr(step, "status", None)),
            usage=step.usage if isinstance(step, RunStep) else None,
            error=step.last_error if isinstance(step, RunStep) else None,
            note=note,
        )

    def _open(
        self,
        kind: Literal["queued", "tools", "gap"],
        start: int | None,
        end: int | None,
        names: list[str] | None = None,
    ) -> TimelineEntry:
        """Return a stretch that lasts until the end of the run."""
        return TimelineEntry(
            kind=kind, names=names or [], start=start, end=end, duration=self.up_to_end(start)
        )

    def _clipped(self, at: int) -> int:
        after = max(at, self.start or at)
        return after if self.limit is None else min(after, self.limit)


def _without_step(kind: Literal["queued", "gap"], start: int, end: int) -> TimelineEntry:
    return TimelineEntry(kind=kind, start=start, end=end, duration=end - start)


def _in_order(run: Run, steps: Iterable[RunStep]) -> list[RunStep]:
    """Return the steps oldest first, each once, the version with an end before one without."""
    by_id: dict[object, RunStep] = {}
    for number, step in enumerate(steps):
        of = getattr(step, "run_id", None)
        if of and of != run.id:
            message = f"step {getattr(step, 'id', '?')} is of run {of}, and not of {run.id}"
            raise ValueError(message)
        key = getattr(step, "id", None) or number
        if key not in by_id or _end_of(by_id[key]) is None:
            by_id[key] = step
    given = list(by_id.values())
    starts = [at for at in map(_start_of, given) if at is not None]
    if starts and starts[0] > starts[-1]:
        given.reverse()  # newest first, as the API lists them: those of one second keep their order
    return sorted(given, key=lambda step: (_start_of(step) or 0, _end_of(step) or float("inf")))


def _kind_of(
    step: RunStep,
) -> tuple[Literal["message", "tools", "hosted_tools", "step"], list[str]]:
    """Return the kind of a step's entry, and the names that tell it from others."""
    if isinstance(step, RunStep):
        if isinstance(step.step_details, MessageCreationDetails):
            return "message", []
        if step.type == "tool_calls" or step.tool_calls:
            is_ours = any(isinstance(call, FunctionToolCall) for call in step.tool_calls)
            names = [_name_of(call) for call in step.tool_calls]
            return ("tools" if is_ours else "hosted_tools"), names
    kind = _text(getattr(step, "type", None))
    return "step", [kind] if kind else []


def _name_of(call: StepToolCall) -> str:
    if isinstance(call, FunctionToolCall):
        return call.function.name
    name = call.get("name") if isinstance(call, Unknown) else None
    return f"{call.type} {name}" if isinstance(name, str) else call.type


def _start_of(step: RunStep) -> int | None:
    return _stamp(getattr(step, "created_at", None))


def _end_of(step: RunStep) -> int | None:
    """Return when a step ended; Foundry's `expires_at` is the end of one that expired."""
    names = ["completed_at", "failed_at", "cancelled_at", "expired_at"]
    if getattr(step, "status", None) == "expired":
        names.append("expires_at")
    found = (_stamp(getattr(step, name, None)) for name in names)
    return next((at for at in found if at is not None), None)


def _ended(run: Run) -> int | None:
    """Return when a run ended, as far as it says so."""
    stamps = [run.completed_at, run.failed_at, run.cancelled_at]
    if run.status == RunStatus.EXPIRED:
        stamps.append(run.expires_at)
    return next((at for at in map(_stamp, stamps) if at is not None), None)


def _stamp(value: object) -> int | None:
    """Return a time of the wire; None for what is no time, such as the default of 0."""
    return value if isinstance(value, int) and value > 0 else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _sum(usages: Iterable[Usage | None]) -> Usage | None:
    known = [usage for usage in usages if usage is not None]
    if not known:
        return None
    return Usage(
        prompt_tokens=sum(usage.prompt_tokens for usage in known),
        completion_tokens=sum(usage.completion_tokens for usage in known),
        total_tokens=sum(usage.total_tokens for usage in known),
    )


def _counted(names: list[str]) -> str:
    """Return names, those that come again once with their number."""
    numbers: dict[str, int] = {}
    for name in names:
        numbers[name] = numbers.get(name, 0) + 1
    return ", ".join(f"{name} x{n}" if n > 1 else name for name, n in numbers.items())


def _summary(timeline: Timeline) -> Iterator[str]:
    """Yield what the run is, and why it failed."""
    usage = timeline.usage
    tokens = f", {usage.total_tokens:,} tokens" if usage else ""
    tokens += f" ({usage.prompt_tokens:,} in, {usage.completion_tokens:,} out)" if usage else ""
    yield f"{timeline.run_id} {timeline.status}, {format_seconds(timeline.duration)}{tokens}"
    if timeline.error is not None:
        yield f"  {timeline.error.code}: {timeline.error.message}"


def _table(timeline: Timeline) -> Iterator[str]:
    """Yield the head, a line for each entry, and the totals."""
    yield f"{'start':>11}{'time':>12}  {'what':<{_TITLE}}{'tokens':>8}  status"
    for entry in timeline.entries:
        offset = None
        if entry.start is not None and timeline.start is not None:
            offset = entry.start - timeline.start
        tokens = f"{entry.usage.total_tokens:,}" if entry.usage else ""
        is_open = entry.end is None and entry.duration is not None
        time = f"{format_seconds(entry.duration)}{'+' if is_open else ''}"
        title = _cut(entry.title, _TITLE)
        line = f"{format_seconds(offset):>11}{time:>12}  {title:<{_TITLE}}{tokens:>8}"
        yield f"{line}  {entry.status}".rstrip()
        if entry.error is not None:
            yield f"{'':25}{entry.error.code}: {entry.error.message}"
        if entry.note:
            yield f"{'':25}{entry.note}"
    totals = timeline.totals
    named = ((_WORDS.get(name, name), getattr(totals, name)) for name in totals.__struct_fields__)
    spent = [f"{name} {format_seconds(seconds)}" for name, seconds in named if seconds]
    if spent:
        yield f"total: {', '.join(spent)}"


def _fitted(line: str) -> str:
    return _cut("".join(char if char.isprintable() else " " for char in line), _WIDTH)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."
