"""What a batch reads: JSON lines, CSV with a template; what is wrong is named by its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from openai_runs.batch import BatchError, read_csv, read_jsonl
from openai_runs.batch.inputs import chunks
from tests.batch.batching import batch_line

GOOD = batch_line("a", "asst_1", "Hello")
BAD: dict[str, tuple[Any, str]] = {
    "no JSON": (None, "is not JSON"),
    "a list": ([1], "no JSON object"),
    "no id": ({**GOOD, "custom_id": None}, "custom_id"),
    "an empty id": ({**GOOD, "custom_id": ""}, "custom_id"),
    "another method": ({**GOOD, "method": "GET"}, "GET /v1/threads/runs"),
    "another url": ({**GOOD, "url": "/v1/responses"}, "/v1/responses"),
    "no body": ({**GOOD, "body": None}, "body must be an object"),
    "an assistant of no text": ({**GOOD, "body": {"assistant_id": 1}}, "body.assistant_id"),
    "a thread of text": ({**GOOD, "body": {"assistant_id": "a", "thread": "t"}}, "body.thread"),
    "a stream": ({**GOOD, "body": {"assistant_id": "a", "stream": True}}, "cannot stream"),
}


@pytest.mark.parametrize("name", BAD)
def test_line_that_cannot_be_sent_is_named(tmp_path: Path, name: str) -> None:
    """The number is that of the file, blank lines counted."""
    value, why = BAD[name]
    line = b"{" if value is None else msgspec.json.encode(value)
    path = tmp_path / "in.jsonl"
    path.write_bytes(msgspec.json.encode(GOOD) + b"\n\n" + line + b"\n")

    with pytest.raises(BatchError, match=f"line 3 of the input: .*{why}"):
        list(read_jsonl(path))


def test_lines_are_read_again_from_the_start(tmp_path: Path) -> None:
    """A file is checked first, and then carried out."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(msgspec.json.encode(GOOD))  # without a line feed at its end
    lines = read_jsonl(path)

    assert [line.custom_id for line in lines] == [line.custom_id for line in lines] == ["a"]


def test_digest_is_of_the_content_alone(tmp_path: Path) -> None:
    """Spaces and the order of keys change nothing, a word does."""
    texts = ['{"assistant_id":"a","model":"m"}', '{ "model": "m", "assistant_id": "a" }']
    texts.append('{"assistant_id":"a","model":"n"}')
    path = tmp_path / "in.jsonl"
    line = '{{"custom_id":"{}","url":"/v1/threads/runs","body":{}}}\n'
    path.write_text("".join(line.format(n, text) for n, text in enumerate(texts)))

    first, second, third = (one.digest for one in read_jsonl(path))

    assert first == second != third


def test_template_is_filled_from_the_columns(tmp_path: Path) -> None:
    """All texts are filled, also keys of nested objects' values; a value is no place again."""
    path = tmp_path / "in.csv"
    path.write_text(
        'custom_id,name,the text\nx1,Ada,"{name}, ""hi""\nthere"\n', encoding="utf-8-sig"
    )
    message = {"role": "user", "content": "{name} says {the text} {}"}
    template = {"assistant_id": "asst_1", "thread": {"messages": [message]}, "temperature": 0.5}

    (line,) = read_csv(path, template)

    assert (line.number, line.custom_id) == (3, "x1")
    assert line.body["thread"]["messages"][0]["content"] == 'Ada says {name}, "hi"\nthere {}'
    assert line.body["temperature"] == 0.5


def test_rows_without_ids_are_named_by_their_line(tmp_path: Path) -> None:
    """The first row is line 2."""
    path = tmp_path / "in.csv"
    path.write_text("q\na\nb\n")

    rows = list(read_csv(path, {"assistant_id": "asst_1", "instructions": "{q}"}))

    assert [row.custom_id for row in rows] == ["row-2", "row-3"]


class Ticket(msgspec.Struct):
    """What an answer is read as."""

    urgent: bool


async def test_type_as_response_format_is_sent_as_its_schema(tmp_path: Path) -> None:
    """In a template and in the body of a pair; the caller's mapping is left as it is."""
    path = tmp_path / "in.csv"
    path.write_text("q\na\n")
    body = {"assistant_id": "asst_1", "response_format": Ticket}

    (row,) = read_csv(path, body)
    pairs = [line async for chunk in chunks([("a", body)]) for line in chunk]

    sent = row.body["response_format"]
    assert sent["json_schema"]["name"] == "Ticket"
    assert sent["json_schema"]["schema"]["required"] == ["urgent"]
    assert [line.body["response_format"] for line in pairs] == [sent]
    assert body["response_format"] is Ticket


async def test_type_without_a_schema_is_named_by_its_place(tmp_path: Path) -> None:
    """It is known before the file is read."""
    body = {"assistant_id": "asst_1", "response_format": int}

    with pytest.raises(BatchError, match="the template: .*int"):
        read_csv(tmp_path / "in.csv", body)
    with pytest.raises(BatchError, match="line 1 of the input: .*int"):
        [line async for line in chunks([("a", body)])]


TEMPLATES: dict[str, tuple[Any, str]] = {
    "an assistant of no text": ({"assistant_id": 1}, "the template.assistant_id must be"),
    "a thread of text": ({"assistant_id": "a", "thread": "t"}, "the template.thread must be"),
    "a stream": ({"assistant_id": "a", "stream": True}, "the template.stream: a batch cannot"),
    "a list": ([], "the template must be an object, got list"),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_that_cannot_be_sent_is_named_and_not_a_row(tmp_path: Path, name: str) -> None:
    """All rows would have the same fault."""
    template, why = TEMPLATES[name]
    path = tmp_path / "in.csv"
    path.write_text("q\na\n")

    with pytest.raises(BatchError, match=f"^{why}"):
        list(read_csv(path, template))


BRACES = {
    "an object": ('{"a": {"b": 1}}', '{"a": {"b": 1}}'),
    "doubled around a column": ("{{q}}", "{Ada}"),
    "nothing inside": ("{} and {", "{} and {"),
    "no name": ("{no column}", "{no column}"),
}


@pytest.mark.parametrize("name", BRACES)
def test_braces_around_no_column_stand_for_themselves(tmp_path: Path, name: str) -> None:
    """No escape is needed, and a doubled brace is two."""
    given, filled = BRACES[name]
    path = tmp_path / "in.csv"
    path.write_text("q\nAda\n")

    (line,) = read_csv(path, {"assistant_id": "asst_1", "instructions": given})

    assert line.body["instructions"] == filled


CSV: dict[str, tuple[str, str]] = {
    "an unknown column": ("a,b\n1,2\n", r"the template has \{q\}, and the columns are a, b"),
    "too few values": ("q,b\n1\n", "line 2 .* has not 2 values"),
    "too many values": ("q,b\n1,2,3\n", "line 2 .* has not 2 values"),
    "a column twice": ("q,q\n1,2\n", "line 1 .* same name"),
    "an open quote": ('q\n"1\n', "cannot be read as CSV"),
    "another encoding": (
        "q\na\nM\udcfcller\n",
        r"in\.csv: line 3 is not UTF-8 \(byte 0xfc\): save it as CSV UTF-8",
    ),
    "another encoding of the columns": ("q\udcff\n", "line 1 is not UTF-8"),
    "semicolons": ("q;b\n1;2\n", "its columns are separated by ';', not by commas"),
    "tabs": ("q\tb\n1\t2\n", "its columns are separated by tabs, not by commas"),
}


@pytest.mark.parametrize("name", CSV)
def test_csv_that_does_not_fit_is_refused(tmp_path: Path, name: str) -> None:
    """The error says which line, or which place of the template."""
    text, why = CSV[name]
    path = tmp_path / "in.csv"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))

    with pytest.raises(BatchError, match=why):
        list(read_csv(path, {"assistant_id": "asst_1", "instructions": "{q}"}))


@pytest.mark.parametrize(
    "read", [read_jsonl, lambda path: read_csv(path, GOOD["body"])], ids=["jsonl", "csv"]
)
def test_file_that_is_not_there_is_named(tmp_path: Path, read: Any) -> None:
    """The reason is the system's."""
    with pytest.raises(BatchError, match=r"in\.jsonl: cannot be read: No such file"):
        list(read(tmp_path / "in.jsonl"))
