"""The fuzz tests bite: a fault fails them and names its seed, and a seed is always one case."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import msgspec
import pytest

from openai_runs import Message, Run, RunResult
from tests.client.broadcaster import message_json
from tests.fuzz.__main__ import summed
from tests.fuzz.description import described
from tests.fuzz.exchanging import Answered, answers_in, judge
from tests.fuzz.hammering import FIRST, hammer
from tests.fuzz.honest_server import HonestServer, Truth
from tests.fuzz.http_grammar import draw
from tests.fuzz.lies import Lie, lie
from tests.fuzz.lying_server import LyingServer, check
from tests.openapi import OPERATIONS
from tests.support import run_json

IDS = dict.fromkeys(("assistant_id", "thread_id", "run_id", "message_id", "step_id"), "x")
REFUSAL = b'{"error": {"message": "no", "type": "invalid_request_error"}}'
HEADERS = {"x-request-id": "req_1", "content-type": "application/json"}


async def test_failure_names_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line is what repeats the case."""
    monkeypatch.delenv("FUZZ_FIGURES", raising=False)

    async def attempt(seed: int) -> str:
        message = "a fault"
        raise LookupError(message)

    with pytest.raises(AssertionError, match=rf"FUZZ_SEED={FIRST} FUZZ_CASES=1 \(x\): LookupError"):
        await hammer("x", attempt, count=3, at_once=1)


@pytest.mark.parametrize("seed", range(20))
def test_seed_is_always_the_same_case(seed: int) -> None:
    """Of requests and of lies."""
    truth = Truth(run_json())

    assert draw(seed, IDS) == draw(seed, IDS)
    assert lie(Random(seed), truth) == lie(Random(seed), truth)


@pytest.mark.parametrize(
    "answer",
    [
        Answered(500, HEADERS, REFUSAL),
        Answered(503, HEADERS, REFUSAL),
        Answered(404, {"content-type": "application/json"}, REFUSAL),
        Answered(400, {**HEADERS, "content-type": "text/plain"}, REFUSAL),
        Answered(400, HEADERS, b'{"error": {"message": "", "type": "x"}}'),
    ],
    ids=["500", "503", "no-id", "no-json", "no-message"],
)
def test_answer_that_is_none_of_the_api_fails(answer: Answered) -> None:
    """The judge of broken HTTP sees each of them."""
    judge([Answered(400, HEADERS, REFUSAL)])

    with pytest.raises(AssertionError):
        judge([answer])


def test_answers_of_a_pipeline_are_told_apart() -> None:
    """Interim ones are no answers, and chunks are put together."""
    received = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n"
        b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n"
    )

    found = answers_in(received)

    assert [(one.status, one.body) for one in found] == [(200, b"{}"), (200, b"[]"), (404, b"")]


@pytest.mark.parametrize("what", ["cut at 5 of 9, chunked", "events: left out 3"])
def test_half_text_of_a_completed_run_fails(what: str) -> None:
    """Unless the lie was about the text."""
    server = LyingServer(Random(0), HonestServer(has_tools=False, polls=0), set(), 0.0)
    message = message_json("Hello", "completed")
    run = read(run_json("completed"), Run)
    result = RunResult(run=run, messages=[read(message, Message)], steps=[])

    server.sent = [Lie([], what, may_change_text=True)]
    check(server, result)

    server.sent = [Lie([], what)]
    with pytest.raises(AssertionError, match="completed with the text 'Hello'"):
        check(server, result)


def read(value: dict[str, Any], kind: type[Any]) -> Any:
    """Return the object of this JSON."""
    return msgspec.convert(value, kind)


def test_description_has_every_operation() -> None:
    """Schemathesis reads what was written for it as one operation each."""
    assert len(list(described().get_all_operations())) == len(OPERATIONS)


def test_figures_of_all_parts_are_one_line() -> None:
    """The line that `poe long fuzz` keeps."""
    parts = [
        {"part": "http", "cases": 1200, "failures": 0, "mib": 3},
        {"part": "sdk", "cases": 40, "failures": 1, "mib": 0},
    ]

    assert summed([json.dumps(part) for part in parts]) == (
        "fuzz: 1,240 cases, 1 failures: "
        "http 1,200 (peak memory +3 MiB); sdk 40 (peak memory +0 MiB)"
    )
