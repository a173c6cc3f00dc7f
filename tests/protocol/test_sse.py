"""Server-sent events are read by the standard's rules, however the network cuts the bytes."""

import re
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openai_runs._protocol.sse import COMMENT, EventTooLarge, Frame, SSEParser, encode

BOM = b"\xef\xbb\xbf"


def whole(text: bytes) -> list[Frame]:
    """Return the events of a stream that arrives in one chunk."""
    return SSEParser().feed(text)


def cut(text: bytes, places: list[int]) -> list[Frame]:
    """Return the events of a stream that arrives cut at these places."""
    parser = SSEParser()
    return [frame for chunk in chunks(text, places) for frame in parser.feed(chunk)]


def chunks(text: bytes, places: list[int]) -> list[bytes]:
    """Return the stream cut at these places, some of them beyond its end."""
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[begin:end] for begin, end in pairwise(edges)]


def feed_pieces(parser: SSEParser, text: bytes, size: int, frames: list[Frame]) -> None:
    """Put the events of a stream that arrives in chunks of `size` bytes into `frames`."""
    for begin in range(0, len(text) + size, size):
        frames += parser.feed(text[begin : begin + size])


def by_the_standard(text: bytes) -> list[Frame]:
    """Return the events as section 9.2.6 says it, one line after the other."""
    frames: list[Frame] = []
    event, data, last_id = b"", b"", b""
    *lines, _ = re.split(rb"\r\n|\n|\r", text.removeprefix(BOM))
    for line in lines:
        if not line:
            if data:
                frames.append(Frame(event.decode(errors="replace"), data[:-1], as_id(last_id)))
            event = data = b""
        elif not line.startswith(b":"):
            field, _, value = line.partition(b":")
            value = value[1:] if value.startswith(b" ") else value
            if field == b"event":
                event = value
            elif field == b"data":
                data += value + b"\n"
            elif field == b"id" and b"\0" not in value:
                last_id = value
    return frames


def as_id(value: bytes) -> str:
    """Return an id as text."""
    return value.decode(errors="replace")


RULES = {
    "an event": (b"event: a\ndata: 1\n\n", [("a", b"1", "")]),
    "a known name": (b"event: done\nid: 7\ndata: [DONE]\n\n", [("done", b"[DONE]", "7")]),
    "no name": (b"data: 1\n\n", [("", b"1", "")]),
    "id before data": (b"event: a\nid: 7\ndata: 1\n\n", [("a", b"1", "7")]),
    "id after data": (b"event: a\ndata: 1\nid: 7\n\n", [("a", b"1", "7")]),
    "id stays in force": (b"id: 7\ndata: 1\n\ndata: 2\n\n", [("", b"1", "7"), ("", b"2", "7")]),
    "empty id resets": (b"id: 7\ndata: 1\n\nid\ndata: 2\n\n", [("", b"1", "7"), ("", b"2", "")]),
    "id: and a space resets": (b"id: 7\n\nid: \ndata: 2\n\n", [("", b"2", "")]),
    "id with NUL is ignored": (b"id: 7\n\nid: 8\0\ndata: 1\n\n", [("", b"1", "7")]),
    "id of an event without data counts": (b"id: 7\n\ndata: 1\n\n", [("", b"1", "7")]),
    "several data lines": (b"data: 1\ndata: 2\ndata:\ndata: 3\n\n", [("", b"1\n2\n\n3", "")]),
    "data lines around others": (b"data: 1\nevent: a\ndata: 2\n\n", [("a", b"1\n2", "")]),
    "empty data is data": (b"data:\n\n", [("", b"", "")]),
    "field without colon": (b"event: a\ndata\n\n", [("a", b"", "")]),
    "no data, no event": (b"event: a\n\n", []),
    "name does not outlive its event": (b"event: a\n\ndata: 1\n\n", [("", b"1", "")]),
    "last name wins": (b"event: a\nevent: b\ndata: 1\n\n", [("b", b"1", "")]),
    "no space after the colon": (b"event:a\ndata:1\n\n", [("a", b"1", "")]),
    "one space is removed": (b"event:  a\ndata:  1\n\n", [(" a", b" 1", "")]),
    "colons in a value": (b"event: a:b\ndata: 1: 2\n\n", [("a:b", b"1: 2", "")]),
    "comment": (b": ping\n\nevent: a\n: in between\ndata: 1\n\n:\n\n", [("a", b"1", "")]),
    "retry is not read": (b"retry: 1500\ndata: 1\n\n", [("", b"1", "")]),
    "unknown field": (b"what: 1\ndata: 1\nDATA: 2\n data: 3\n\n", [("", b"1", "")]),
    "blank lines": (b"\n\n\ndata: 1\n\n\n\n\ndata: 2\n\n", [("", b"1", ""), ("", b"2", "")]),
    "CRLF": (b"event: a\r\ndata: 1\r\n\r\ndata: 2\r\n\r\n", [("a", b"1", ""), ("", b"2", "")]),
    "CR": (b"event: a\rdata: 1\r\rdata: 2\r\r", [("a", b"1", ""), ("", b"2", "")]),
    "mixed ends": (b"event: a\rdata: 1\ndata: 2\r\n\n", [("a", b"1\n2", "")]),
    "byte order mark": (BOM + b"data: 1\n\n", [("", b"1", "")]),
    "only one mark, at the start": (BOM + BOM + b"data: 1\n\n", []),
    "mark in mid-stream": (b"data: 1\n\n" + BOM + b"data: 2\n\n", [("", b"1", "")]),
    "half an event at the end": (b"data: 1\n\ndata: 2\n", [("", b"1", "")]),
    "half a line at the end": (b"data: 1\n\ndata: 2", [("", b"1", "")]),
    "bad UTF-8": (b"event: \xff\nid: \xff\ndata: \xff\n\n", [("\ufffd", b"\xff", "\ufffd")]),
    "only part of a mark": (BOM[:2] + b"data: 1\n\n", []),
    "nothing": (b"", []),
}


@pytest.mark.parametrize(("text", "events"), RULES.values(), ids=RULES)
def test_stream_is_read_by_the_rules(text: bytes, events: list[tuple[str, bytes, str]]) -> None:
    """Name, data and id come out as the standard says, in one chunk or byte by byte."""
    expected = [Frame(*event) for event in events]

    assert whole(text) == expected
    assert cut(text, list(range(len(text)))) == expected
    assert by_the_standard(text) == expected


LINES = st.sampled_from(
    [
        b"data: {}",
        b"data:1",
        b"data",
        b"event: thread.run.created",
        b"event: thread.message.delta",
        b"event: x",
        b"event",
        b"id: 1-2",
        b"id: \0",
        b"id: ",
        b"retry: 100",
        b"retry: x",
        b": ping",
        b"",
        b"",
        b"",
        b"\xc3\xa4",
        BOM,
    ]
)
LIKELY = st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\n", b"\r", b"\r\n"]))).map(
    lambda lines: b"".join(line + end for line, end in lines)
)
ANY = st.binary() | st.lists(st.sampled_from(b"d:\n\r \0") | st.integers(0, 255)).map(bytes)
TEXTS = st.builds(lambda bom, text: bom + text, st.sampled_from([b"", BOM]), LIKELY | ANY)
PLACES = st.lists(st.integers(0, 1000))


@given(TEXTS, PLACES)
def test_every_cut_gives_the_same_events(text: bytes, places: list[int]) -> None:
    """Where the network cuts a stream changes nothing of what is read."""
    expected = by_the_standard(text)

    assert whole(text) == expected
    assert cut(text, places) == expected
    assert cut(text, list(range(len(text)))) == expected


ONE_LINE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=20)
IDS = ONE_LINE.map(lambda text: text.replace("\0", ""))
SENT = st.tuples(ONE_LINE, st.binary(max_size=40).filter(lambda data: b"\r" not in data), IDS)


@given(st.lists(SENT), PLACES)
def test_what_is_encoded_is_read_again(
    events: list[tuple[str, bytes, str]], places: list[int]
) -> None:
    """Names, data and ids survive the way; an event without an id has the one before it."""
    text = COMMENT.join(encode(event, data, id=id) for event, data, id in events)

    expected: list[Frame] = []
    for event, data, id in events:
        before = expected[-1].id if expected else ""
        expected.append(Frame(event, data, id or before))
    assert cut(text, places) == expected


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n"])
def test_line_breaks_in_data_stay_in_it(end: bytes) -> None:
    """A line break in the data begins another `data:` line, never another field."""
    text = encode("a", b"1" + end + b"event: b")

    assert text == b"event: a\ndata: 1\ndata: event: b\n\n"


@pytest.mark.parametrize(
    ("event", "id"), [("a\nb", ""), ("a\rb", ""), ("a", "1\n"), ("a", "\r1"), ("a", "\0")]
)
def test_name_and_id_that_would_end_their_line_are_refused(event: str, id: str) -> None:
    """Nobody can put a field of his own into a stream through a name or an id."""
    with pytest.raises(ValueError, match="on one line"):
        encode(event, b"{}", id=id)


def test_event_is_there_as_soon_as_its_blank_line_is() -> None:
    """A CR that ends the blank line is not held back for a LF that may never come."""
    parser = SSEParser()

    assert parser.feed(b"data: 1\r\n\r") == [Frame("", b"1", "")]
    assert parser.feed(b"\ndata: 2\r\n\r\n") == [Frame("", b"2", "")]


def test_line_has_no_limit_below_that_of_the_event() -> None:
    """A line of 700 KB is read, in one chunk as in many small ones."""
    text = b"event: a\ndata: " + b"x" * 700_000 + b"\n\n"
    small = list(range(0, len(text), 100))

    assert whole(text) == cut(text, small) == [Frame("a", b"x" * 700_000, "")]


def test_long_line_is_not_copied_for_each_of_its_pieces() -> None:
    """A byte more of a line costs the same, however long the line has become."""
    parser = SSEParser()
    parser.feed(b"data: ")
    costs: list[int] = []
    tracemalloc.start()
    try:
        for _ in range(4):
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            for _ in range(50_000):
                parser.feed(b"x")
            costs.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()

    assert max(costs) < 100_000  # bytes for 50,000 more, room to grow included
    assert parser.feed(b"\n\n") == [Frame("", b"x" * 200_000, "")]


OVER = {
    "one line": b"data: " + b"x" * 95 + b"\n\n",
    "a line that never ends": b"data: " + b"x" * 1000,
    "a comment that never ends": b":" + b"x" * 1000,
    "many data lines": b"data: " + b"x" * 40 + b"\ndata: " + b"x" * 60 + b"\n\n",
    "empty data lines": b"data\n" * 101,
    "a name": b"event: " + b"x" * 90 + b"\ndata: 123456\n\n",
}


@pytest.mark.parametrize("text", OVER.values(), ids=OVER)
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_event_over_the_limit_is_refused(text: bytes, size: int) -> None:
    """However an event outgrows its memory and however it is cut, it is refused for good."""
    parser = SSEParser(max_bytes=100)
    sent = b"data: 1\n\n" + text
    frames: list[Frame] = []

    with pytest.raises(EventTooLarge, match="exceeds 100 bytes"):
        feed_pieces(parser, sent, size, frames)

    assert frames == [Frame("", b"1", "")]
    with pytest.raises(EventTooLarge):
        parser.feed(b"data: 2\n\n")


WITHIN = {
    "one line": b"data: " + b"x" * 94 + b"\n\n",
    "comments": b": ping\n" * 1000 + b"data: 1\n\n",
    "many events": b"data: 1\n\n" * 1000,
    "unknown fields": b"x: 1\n" * 1000,
}


@pytest.mark.parametrize("text", WITHIN.values(), ids=WITHIN)
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_limit_counts_one_event_and_not_the_stream(text: bytes, size: int) -> None:
    """What an event does not hold does not count: comments, other fields, other events."""
    parser = SSEParser(max_bytes=100)

    frames: list[Frame] = []
    feed_pieces(parser, text, size, frames)

    assert frames == by_the_standard(text)
