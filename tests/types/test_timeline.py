"""Where a run's time went, from its stamps and its steps, whatever a server sends."""

import json
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openai_runs import Run, RunStep
from openai_runs._protocol.lenient import decoder_for
from openai_runs.types import Page, Timeline
from openai_runs.types.timeline import format_seconds

T0 = 1_700_000_000
"""When each run here was created, in Unix seconds."""
STAMPS = ("completed_at", "failed_at", "cancelled_at", "expired_at", "expires_at")


def run_of(status: str = "completed", **fields: Any) -> Run:
    """Return a run as a server sends it; times are seconds after its creation."""
    wire = {"id": "run_1", "thread_id": "thread_1", "status": status, "created_at": 0, **fields}
    return decoder_for(Run).decode(json.dumps(_moved(wire)).encode())


def step_of(number: int, start: int | None, end: int | None = None, **fields: Any) -> RunStep:
    """Return a step as a server sends it: a message, unless `tools` names functions."""
    names: list[str] | None = fields.pop("tools", None)
    details: dict[str, Any] = {
        "type": "message_creation",
        "message_creation": {"message_id": "msg_1"},
    }
    if names is not None:
        calls = [
            {"id": f"call_{n}", "type": "function", "function": {"name": name, "arguments": "{}"}}
            if name != "code_interpreter"
            else {"id": f"call_{n}", "type": name, "code_interpreter": {"input": "1"}}
            for n, name in enumerate(names)
        ]
        details = {"type": "tool_calls", "tool_calls": calls}
    wire = {
        "id": f"step_{number}",
        "run_id": "run_1",
        "type": details["type"],
        "status": "in_progress" if end is None else "completed",
        "step_details": details,
        "created_at": start,
        "completed_at": end,
        **fields,
    }
    wire = {name: value for name, value in wire.items() if value is not None}
    return decoder_for(RunStep).decode(json.dumps(_moved(wire)).encode())


def _moved(wire: dict[str, Any]) -> dict[str, Any]:
    stamped = {name for name in wire if name.endswith("_at") and wire[name] is not None}
    return {name: value + T0 if name in stamped else value for name, value in wire.items()}


def parts(timeline: Timeline) -> list[tuple[str, int | None, int | None]]:
    """Return what each entry is, when it began after the run, and how long it took."""
    return [
        (entry.title, None if entry.start is None else entry.start - T0, entry.duration)
        for entry in timeline.entries
    ]


USAGE = {"prompt_tokens": 1000, "completion_tokens": 234, "total_tokens": 1234}
WHOLE = run_of(started_at=2, completed_at=16, usage=USAGE)
STEPS = [
    step_of(1, 3, 9, tools=["get_weather", "get_time", "get_weather"], usage=USAGE),
    step_of(2, 10, 15),
]


def test_entries_fill_the_time_of_a_run() -> None:
    """The queue, each step and each gap between them stand in their order, without a hole."""
    timeline = WHOLE.timeline(STEPS)

    assert parts(timeline) == [
        ("queued", 0, 2),
        ("outside of steps", 2, 1),
        ("tools: get_weather x2, get_time", 3, 6),
        ("outside of steps", 9, 1),
        ("message", 10, 5),
        ("outside of steps", 15, 1),
    ]
    assert (timeline.duration, sum(entry.duration or 0 for entry in timeline.entries)) == (16, 16)
    totals = timeline.totals
    assert (totals.queued, totals.tools, totals.message, totals.gap) == (2, 6, 5, 3)


@pytest.mark.parametrize("seed", range(3))
def test_steps_come_in_any_order(seed: int) -> None:
    """Newest first as the API lists them, from a generator, or twice: it is the same timeline."""
    steps = [*STEPS, step_of(2, 10)]
    random.Random(seed).shuffle(steps)

    assert WHOLE.timeline(step for step in steps) == WHOLE.timeline(STEPS)


def test_steps_of_one_second_keep_their_order() -> None:
    """Stamps are whole seconds: those of the same one stand as listed, whichever way that was."""
    run = run_of(started_at=1, completed_at=9)
    steps = [step_of(n, start, end) for n, start, end in [(1, 2, 2), (2, 2, 2), (3, 5, 5)]]

    expected = ["step_1", "step_2", "step_3"]
    for given_steps in (steps, steps[::-1]):
        entries = run.timeline(given_steps).entries
        assert [entry.step_id for entry in entries if entry.step_id] == expected


def test_step_of_another_run_is_refused() -> None:
    """Steps of another run would make a timeline of neither."""
    with pytest.raises(ValueError, match="step step_1 is of run run_2, and not of run_1"):
        WHOLE.timeline([step_of(1, 3, 9, run_id="run_2")])


def test_table_is_readable() -> None:
    """`print(timeline)` shows start, duration, tokens and status of each entry, and totals."""
    expected = """\
run_1 completed, 16 s, 1,234 tokens (1,000 in, 234 out)
      start        time  what                                tokens  status
        0 s         2 s  queued
        2 s         1 s  outside of steps
        3 s         6 s  tools: get_weather x2, get_time      1,234  completed
        9 s         1 s  outside of steps
       10 s         5 s  message                                     completed
       15 s         1 s  outside of steps
total: queued 2 s, message 5 s, tools 6 s, outside of steps 3 s"""

    assert str(WHOLE.timeline(STEPS)) == expected
    assert repr(WHOLE.timeline(STEPS)) == expected


def test_timeline_is_json() -> None:
    """It can be stored and read again."""
    timeline = WHOLE.timeline(STEPS)

    assert json.loads(timeline.to_json(indent=2)) == timeline.to_dict()
    assert msgspec.json.decode(timeline.to_json(), type=Timeline) == timeline
    assert timeline.to_dict()["entries"][2]["names"] == ["get_weather", "get_time", "get_weather"]


ODD: dict[str, tuple[Run, list[RunStep], list[tuple[str, int | None, int | None]], str]] = {
    "step ends before it starts": (
        run_of(started_at=1, completed_at=9),
        [step_of(1, 5, 3)],
        [
            ("queued", 0, 1),
            ("outside of steps", 1, 4),
            ("message", 5, 0),
            ("outside of steps", 5, 4),
        ],
        "its end is before its start",
    ),
    "step of a clock that is behind": (
        run_of(started_at=1, completed_at=9),
        [step_of(1, -30, 4)],
        [("message", 0, 4), ("outside of steps", 4, 5)],
        "its times are outside of the run's",
    ),
    "step of a clock that is ahead": (
        run_of(started_at=1, completed_at=9),
        [step_of(1, 3, 40)],
        [("queued", 0, 1), ("outside of steps", 1, 2), ("message", 3, 6)],
        "its times are outside of the run's",
    ),
    "no started_at": (
        run_of(completed_at=9),
        [step_of(1, 3, 9)],
        [("queued", 0, 3), ("message", 3, 6)],
        "",
    ),
    "started_at stamped again after a wait": (
        run_of(started_at=8, completed_at=12),
        [step_of(1, 2, 7, tools=["f"]), step_of(2, 8, 12)],
        [("queued", 0, 2), ("tools: f", 2, 5), ("outside of steps", 7, 1), ("message", 8, 4)],
        "",
    ),
    "started before it was created": (
        run_of(started_at=-5, completed_at=4),
        [step_of(1, 0, 4)],
        [("message", 0, 4)],
        "",
    ),
    "no end of a completed step": (
        run_of(started_at=1, completed_at=9),
        [step_of(1, 3, None, status="completed")],
        [("queued", 0, 1), ("outside of steps", 1, 2), ("message", 3, None)],
        "the server sent no end",
    ),
    "no start of a step": (
        run_of(started_at=1, completed_at=9),
        [step_of(1, None, 4)],
        [("queued", 0, 1), ("message", None, None), ("outside of steps", 4, 5)],
        "the server sent no start",
    ),
    "step left in progress by a cancelled run": (
        run_of("cancelled", started_at=1, cancelled_at=9),
        [step_of(1, 3)],
        [("queued", 0, 1), ("outside of steps", 1, 2), ("message", 3, 6)],
        "it was never ended; the run was",
    ),
    "expired while it waited": (
        run_of("expired", started_at=1, expires_at=600),
        [step_of(1, 3, None, status="expired", expired_at=600, tools=["f"])],
        [("queued", 0, 1), ("outside of steps", 1, 2), ("tools: f", 3, 597)],
        "",
    ),
    "expired step of Foundry": (
        run_of("expired", started_at=1),
        [step_of(1, 3, None, status="expired", expires_at=600, tools=["f"])],
        [("queued", 0, 1), ("outside of steps", 1, 2), ("tools: f", 3, 597)],
        "",
    ),
    "Foundry's expires_at of a step in progress": (
        run_of("in_progress", started_at=1),
        [step_of(1, 3, None, expires_at=600)],
        [("queued", 0, 1), ("outside of steps", 1, 2), ("message", 3, None)],
        "",
    ),
    "incomplete without an end": (
        run_of("incomplete", started_at=1),
        [step_of(1, 3, 7)],
        [("queued", 0, 1), ("outside of steps", 1, 2), ("message", 3, 4)],
        "",
    ),
    "steps at the same time": (
        run_of(started_at=0, completed_at=9),
        [step_of(1, 1, 8), step_of(2, 2, 4)],
        [
            ("outside of steps", 0, 1),
            ("message", 1, 7),
            ("message", 2, 2),
            ("outside of steps", 8, 1),
        ],
        "",
    ),
    "all within one second": (
        run_of(started_at=0, completed_at=0),
        [step_of(1, 0, 0)],
        [("message", 0, 0)],
        "",
    ),
    "cancelled in the queue": (run_of("cancelled", cancelled_at=7), [], [("queued", 0, 7)], ""),
    "queued": (run_of("queued"), [], [("queued", 0, None)], ""),
    "no steps": (
        run_of(started_at=2, completed_at=9),
        [],
        [("queued", 0, 2), ("outside of steps", 2, 7)],
        "",
    ),
    "no steps and no start": (run_of(completed_at=9), [], [("outside of steps", 0, 9)], ""),
    "hosted tools": (
        run_of(started_at=0, completed_at=4),
        [step_of(1, 0, 4, tools=["code_interpreter"])],
        [("hosted tools: code_interpreter", 0, 4)],
        "",
    ),
    "unknown step": (
        run_of(started_at=0, completed_at=4),
        [step_of(1, 0, 4, type="thinking", step_details={"type": "thinking"})],
        [("step: thinking", 0, 4)],
        "",
    ),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_times_are_taken_as_far_as_they_go(case: str) -> None:
    """Nothing is negative, nothing outside of the run, and what is not known is not invented."""
    run, steps, expected, note = ODD[case]

    timeline = run.timeline(steps)

    assert parts(timeline) == expected
    assert [entry.note for entry in timeline.entries if entry.note] == [note] * bool(note)
    assert note in str(timeline)


def test_time_of_what_is_not_over_needs_now() -> None:
    """Without a clock an open step has no duration; with one it lasts until now."""
    run, steps = run_of("in_progress", started_at=1), [step_of(1, 3)]

    assert parts(run.timeline(steps))[-1] == ("message", 3, None)
    timeline = run.timeline(steps, now=T0 + 10.9)
    assert parts(timeline)[-1] == ("message", 3, 7)
    assert (timeline.end, timeline.duration) == (None, 10)
    assert "7 s+" in str(timeline)


def test_clock_that_is_behind_the_servers_makes_nothing_negative() -> None:
    """`now` from another machine may be before what the server stamped."""
    timeline = run_of("in_progress", started_at=1).timeline([step_of(1, 3)], now=T0 - 500)

    assert parts(timeline) == [("queued", 0, 1), ("outside of steps", 1, 2), ("message", 3, 0)]


@pytest.mark.parametrize("steps", [[], [step_of(1, 3, tools=["look_up"])]], ids=["none", "open"])
def test_run_that_waits_for_outputs_says_for_which_tools(steps: list[RunStep]) -> None:
    """Once, from its step where there is one, else from the run."""
    call = {"id": "c", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
    action = {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": [call]}}
    run = run_of("requires_action", started_at=3, required_action=action)

    entries = run.timeline(steps, now=T0 + 9).entries

    assert [(entry.title, entry.duration) for entry in entries] == [
        ("queued", 3),
        ("tools: look_up", 6),
    ]


def test_errors_and_tokens_are_shown() -> None:
    """A step's error stands below it; tokens are the run's, or the sum of its steps'."""
    error = {"code": "server_error", "message": "out of\n\x1b[2Jmemory " * 10}
    step = step_of(1, 1, None, status="failed", failed_at=4, last_error=error, usage=USAGE)
    timeline = run_of("failed", started_at=1, failed_at=4, last_error=error).timeline([step])

    assert timeline.usage is not None
    assert timeline.usage.total_tokens == 1234
    assert timeline.entries[-1].error == timeline.error == step.last_error
    assert str(timeline).count("server_error: out of") == 2
    assert "\x1b" not in str(timeline)


def test_step_that_cannot_be_read_has_an_entry() -> None:
    """An item of a list that is no step costs its tokens, and not the timeline."""
    items = [{"id": "step_9", "type": "x", "status": 7, "created_at": "soon"}, {"no": "names"}]
    wire = json.dumps({"object": "list", "data": items}).encode()
    steps = decoder_for(Page[RunStep]).decode(wire).data

    timeline = WHOLE.timeline(steps)

    assert [entry.title for entry in timeline.entries if entry.kind == "step"] == [
        "step: x",
        "step",
    ]


stamps = st.none() | st.integers(-50, 200)
statuses = st.sampled_from(
    ["queued", "in_progress", "requires_action", "cancelled", "completed", "expired", "new"]
)


@given(
    status=statuses,
    run_stamps=st.fixed_dictionaries(dict.fromkeys((*STAMPS[:3], "started_at"), stamps)),
    rows=st.lists(st.tuples(stamps, stamps, st.booleans(), statuses), max_size=5),
    now=st.none() | st.floats(T0 - 100, T0 + 300),
)
def test_no_duration_is_negative(
    status: str, run_stamps: dict[str, int | None], rows: list[Any], now: float | None
) -> None:
    """Whatever the stamps are: durations, limits, JSON and table hold."""
    run = run_of(status, **run_stamps)
    steps = [
        step_of(n, start, end, status=of, tools=["look_up"] if is_tool else None)
        for n, (start, end, is_tool, of) in enumerate(rows)
    ]

    timeline = run.timeline(steps, now=now)

    assert all((entry.duration or 0) >= 0 for entry in timeline.entries)
    times = [at for e in timeline.entries for at in (e.start, e.end) if at is not None]
    assert timeline.start is not None
    assert all(at >= timeline.start for at in times)
    assert timeline.end is None or all(at <= timeline.end for at in times)
    assert len([entry for entry in timeline.entries if entry.step_id]) == len(steps)
    assert max(map(len, str(timeline).splitlines())) <= 80
    assert msgspec.json.decode(timeline.to_json(), type=Timeline) == timeline


def test_durations_are_in_words() -> None:
    """Seconds, minutes or hours, two units at most."""
    shown = [format_seconds(each) for each in (None, 7, 125, 7260)]

    assert shown == ["?", "7 s", "2 min 05 s", "2 h 01 min"]
