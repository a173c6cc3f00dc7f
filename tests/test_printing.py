"""What is printed can be read: ids and status first, nothing empty, two lines of a terminal."""

import copy
import io
import pickle
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from openai_runs import LimitState, Message, Page, RateLimits, Run, Thread
from openai_runs._client.flows.results import RunResult
from openai_runs._printing import shown
from openai_runs.config import REPR_CHARS
from openai_runs.types import (
    Assistant,
    CodeInterpreterTool,
    CreateRun,
    FunctionCall,
    FunctionDefinition,
    FunctionTool,
    HTTPInfo,
    ImageFile,
    ImageFileContent,
    MessageDelta,
    MessageDeltaBody,
    MessageDeltaEvent,
    RateLimit,
    RequiredAction,
    RequiredToolCall,
    RunEvent,
    RunLastError,
    SubmitToolOutputsAction,
    Text,
    TextContent,
    TextContentDelta,
    TextDelta,
    Unknown,
    UnknownEvent,
    Usage,
)

RUN_ID, THREAD_ID = "run_zkpfwFZFr8chpJ241U5dHRlK", "thread_uN4p7gSuy54dCQbfM31d77FK"
CALL = RequiredToolCall(id="call_1", function=FunctionCall(name="add", arguments='{"a": 1}'))
ACTION = RequiredAction(
    kind="submit_tool_outputs",
    submit_tool_outputs=SubmitToolOutputsAction(tool_calls=[CALL, CALL]),
)


def a_run(**fields: Any) -> Run:
    """Return a run with as much in it as servers send."""
    return Run(
        **{
            "id": RUN_ID,
            "thread_id": THREAD_ID,
            "assistant_id": "asst_RJpXZX2vRvJcP3HQg7BKlqTQ",
            "status": "completed",
            "model": "phi4",
            "created_at": 1795922705,
            "instructions": "Be brief. " * 50,
            "tools": [FunctionTool(function=FunctionDefinition(name="add"))] * 20,
            "usage": Usage(prompt_tokens=140, completion_tokens=40, total_tokens=180),
            "temperature": 1.0,
            **fields,
        }
    )


def a_message(text: str, **fields: Any) -> Message:
    """Return a message of one text."""
    content = [TextContent(text=Text(value=text))]
    return Message(**{"id": "msg_1", "role": "assistant", "content": content, **fields})


def a_delta(text: str) -> MessageDelta:
    """Return a piece of a message."""
    part = TextContentDelta(index=0, text=TextDelta(value=text))
    return MessageDelta(id="msg_1", delta=MessageDeltaBody(content=[part]))


FAILED = a_run(status="failed", last_error=RunLastError(code="server_error", message="Oh. " * 99))
PRINTED: dict[str, tuple[object, str]] = {
    "run": (
        a_run(),
        f"Run(id='{RUN_ID}', status='completed', thread_id='{THREAD_ID}', model='phi4', ...)",
    ),
    "run-bare": (
        Run(id="run_1", thread_id="thread_1", status="queued"),
        "Run(id='run_1', status='queued', thread_id='thread_1')",
    ),
    "run-failed": (
        FAILED,
        (
            f"Run(id='{RUN_ID}', status='failed', last_error=RunLastError(code='server_error', "
            "message='Oh. Oh. Oh. Oh. Oh...' (396 chars)), ...)"
        ),
    ),
    "run-waiting": (
        Run(id="run_1", thread_id="thread_1", status="requires_action", required_action=ACTION),
        (
            "Run(id='run_1', status='requires_action', tool_calls=[RequiredToolCall(id='call_1', "
            "function=FunctionCall(name='add', ...)), ... 1 more], ...)"
        ),
    ),
    "thread": (Thread(id="thread_1", metadata={}), "Thread(id='thread_1')"),
    "message": (
        a_message("Hello!\nHow are you?"),
        "Message(id='msg_1', status='completed', role='assistant', text='Hello!\\nHow are you?')",
    ),
    "message-long": (
        a_message("word " * 1000),
        (
            "Message(id='msg_1', status='completed', role='assistant', "
            "text='word word word word word word word word word word word word word word ...' "
            "(5,000 chars))"
        ),
    ),
    "message-image": (
        Message(id="msg_1", content=[ImageFileContent(image_file=ImageFile(file_id="file_1"))]),
        (
            "Message(id='msg_1', status='completed', "
            "content=[ImageFileContent(image_file=ImageFile(file_id='file_1'))])"
        ),
    ),
    "assistant": (
        Assistant(id="asst_1", name="helper", model="phi4", tools=[CodeInterpreterTool()]),
        "Assistant(id='asst_1', name='helper', model='phi4', tools=[CodeInterpreterTool()])",
    ),
    "page": (
        Page(data=[a_run()] * 20, has_more=True),
        (
            f"Page(has_more=True, data=[Run(id='{RUN_ID}', status='completed', "
            f"thread_id='{THREAD_ID}', ...), ... 19 more])"
        ),
    ),
    "page-empty": (Page(data=[]), "Page(data=[])"),
    "result": (
        RunResult(run=a_run(), messages=[a_message("42")], steps=[]),
        (
            f"RunResult(run=Run(id='{RUN_ID}', status='completed', ...), text='42', "
            "messages=[Message(id='msg_1', status='completed', ...)], ...)"
        ),
    ),
    "event": (
        RunEvent(event="thread.run.completed", data=a_run(), id="1-9", raw=b"{}"),
        (
            f"RunEvent(event='thread.run.completed', data=Run(id='{RUN_ID}', "
            "status='completed', ...), id='1-9')"
        ),
    ),
    "delta": (
        MessageDeltaEvent(event="thread.message.delta", data=a_delta("Hel")),
        (
            "MessageDeltaEvent(event='thread.message.delta', "
            "data=MessageDelta(id='msg_1', text='Hel'))"
        ),
    ),
    "event-unknown": (
        UnknownEvent(event="banana", data={"a": 1}),
        "UnknownEvent(event='banana', data={'a': 1})",
    ),
    "unknown": (
        Unknown({"type": "hologram", "data": "x" * 500}),
        f"Unknown({{'type': 'hologram', 'data': '{'x' * 94}...' (500 chars)}})",
    ),
    "request": (CreateRun(assistant_id="asst_1"), "CreateRun(assistant_id='asst_1')"),
    "http": (
        HTTPInfo(200, {"x-request-id": "req_1", "authorization": "secret"}, b"{}", 1),
        "HTTPInfo(status=200, request_id='req_1')",
    ),
    "rate-limit": (RateLimit(remaining_requests=3), "RateLimit(remaining_requests=3)"),
    "limits": (RateLimits(requests_per_minute=60), "RateLimits(requests_per_minute=60)"),
    "limit-state": (
        LimitState(
            calls=2,
            polls=0,
            waiting=0,
            waited=0.0,
            refusals=0,
            paused=0.0,
            rate=None,
            remaining_requests=9,
            reset_requests=None,
            remaining_tokens=None,
            reset_tokens=None,
        ),
        (
            "LimitState(calls=2, polls=0, waiting=0, waited=0.0, refusals=0, paused=0.0, "
            "remaining_requests=9)"
        ),
    ),
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.parametrize("name", PRINTED)
def test_object_is_printed_in_two_lines(name: str) -> None:
    """Ids and status first, nothing null or default, what is long shortened with a count."""
    value, text = PRINTED[name]

    assert repr(value) == text
    assert len(text) <= REPR_CHARS


@given(JSON, st.integers(min_value=40, max_value=200))
def test_value_of_any_kind_fits(value: Any, room: int) -> None:
    """Whatever a server sends, how deep and how long it may be."""
    assert len(shown(value, room)) <= room


def test_deep_json_is_printed() -> None:
    """It is cut before it is too deep."""
    deep: Any = "x"
    for _ in range(5000):
        deep = [deep]

    assert len(repr(Unknown({"type": "deep", "data": deep}))) <= REPR_CHARS


@pytest.mark.parametrize("value", [a_run(), a_message("x" * 500), FAILED], ids=lambda v: v.id)
def test_printing_changes_nothing_else(value: Any) -> None:
    """Pickles, copies, hashes or not, equality and JSON are those of the fields."""
    fields = msgspec.structs.asdict(value)

    assert pickle.loads(pickle.dumps(value)) == copy.deepcopy(value) == value
    assert type(value)(**fields) == value
    assert dict(value) == value.to_dict() == msgspec.to_builtins(value)
    assert msgspec.json.decode(msgspec.json.encode(value), type=type(value)) == value
    assert vars(value) == {}


def printed_by_rich(value: object) -> str:
    """Return what rich prints on a terminal of 80 columns."""
    file = io.StringIO()
    Console(width=80, file=file, color_system=None).print(value)
    return file.getvalue()


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        pytest.param(a_run(), 32, id="run"),
        pytest.param(Page(data=[Thread(id="thread_1")] * 100), 10, id="page"),
        pytest.param(RunResult(run=a_run(), messages=[], steps=[]), 34, id="result"),
    ],
)
def test_rich_prints_no_walls(value: object, lines: int) -> None:
    """It shows a field a line, the beginning of a long text, and the first items of a list."""
    text = printed_by_rich(value)

    assert len(text.splitlines()) <= lines
    assert "None" not in text


def test_rich_counts_what_it_leaves_out() -> None:
    """The rest of a list, and the length of a text."""
    text = printed_by_rich(a_run())

    assert "... 15 more" in text
    assert "(500 chars)" in text
