"""What reading an answer costs, counted in steps and not in seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from openai_runs.server.backends.chat.failures import AttemptFailed
from openai_runs.server.backends.chat.reader import AnswerReader, Ending
from tests.server.backends.chat.test_reader import call, chunk

SLICE = 2**16


def steps(body: bytes) -> int:
    """Return how many calls reading an answer takes, of Python's functions and of C's."""
    count = 0

    def profile(frame: FrameType, event: str, arg: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    reader = AnswerReader(think="strip")
    sys.setprofile(profile)
    try:
        for at in range(0, len(body), SLICE):
            for _ in reader.feed(body[at : at + SLICE]):
                pass
        for _ in reader.finish(Ending.CLEAN):
            pass
    except AttemptFailed:
        pass
    finally:
        sys.setprofile(None)
    return count


def many_calls(count: int, *, index: bool, ids: bool) -> bytes:
    """Return one chunk of many calls."""
    pieces = [
        {
            **({"index": number} if index else {}),
            **({"id": f"call_{number}"} if ids else {}),
            "function": {"name": "f", "arguments": f'{{"a":{number}}}'},
        }
        for number in range(count)
    ]
    return chunk(tool_calls=pieces, finish="tool_calls")


def argued(*texts: str) -> bytes:
    """Return a call whose arguments come in these pieces, with its name each time."""
    return b"".join(chunk(**call(0, name="f", arguments=text)) for text in texts)


HUGE: dict[str, Callable[[int], bytes]] = {
    "calls in a chunk": lambda n: many_calls(n, index=True, ids=True),
    "calls without index": lambda n: many_calls(n, index=False, ids=True),
    "calls without anything": lambda n: many_calls(n, index=False, ids=False),
    "pieces of a call": lambda n: argued('{"a":"', *["b"] * n, '"}'),
    "pieces that repeat": lambda n: argued(*['{"a":"'] * n),
    "pieces that grow": lambda n: argued(*('{"a":"' + "b" * at for at in range(n))),
    "empty objects in pieces": lambda n: argued(*["{}"] * n),
    "empty objects in an object": lambda n: argued('{"a":[', *["{},"] * n),
    "empty events": lambda n: b"data: {}\n\n" * n,
    "empty lines": lambda n: b"\n" * n,
    "lines of an event": lambda n: b"data: {\n" * n,
    "lines of JSON": lambda n: b"{\n" * n,
    "values of a line": lambda n: b"{}" * n,
    "tags": lambda n: chunk(content="<") * n,
    "thoughts": lambda n: chunk(content="<think>x</think>") * n,
    "halves": lambda n: chunk(content="\ud83d") * n,
}


@pytest.mark.parametrize("what", HUGE)
def test_steps_grow_with_the_answer_and_no_faster(what: str) -> None:
    """Twice the answer takes about twice the steps."""
    once, twice = steps(HUGE[what](400)), steps(HUGE[what](800))

    assert twice < 2.3 * once


MEGABYTES: dict[str, bytes] = {
    "empty objects": argued("{}" * 1_000_000),
    "braces": argued("{" * 1_000_000),
    "objects in objects": argued('{"a":' * 200_000),
    "a text": chunk(content='"{}<' * 250_000),
    "a list": b"[" * 1_000_000,
    "a line": b"x" * 1_000_000,
    "a number": b'data: {"usage": {"prompt_tokens": %s}}\n\n' % (b"9" * 1_000_000),
}


@pytest.mark.parametrize("what", MEGABYTES)
def test_megabytes_in_one_value_are_a_few_steps(what: str) -> None:
    """Nothing looks at each character by itself."""
    assert steps(MEGABYTES[what]) < 10_000
