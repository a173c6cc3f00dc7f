"""What a batch reads: JSON lines, CSV with a template; what is wrong is named by its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from openai_runs.batch import BatchError, read_csv, read_jsonl, read_rows
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


async def test_prompt_in_place_of_a_body_is_what_the_user_says(tmp_path: Path) -> None:
    """On a new thread, in a template as in a pair; the assistant is that of the batch."""
    path = tmp_path / "in.csv"
    path.write_text("name\nAda\n")

    (row,) = read_csv(path, "Greet {name}!")
    pairs = [line async for chunk in chunks([("a", "Greet Ada!")]) for line in chunk]

    message = {"role": "user", "content": "Greet Ada!"}
    assert row.body == pairs[0].body == {"thread": {"messages": [message]}}


class Ticket(msgspec.Struct):
    """What an answer is read as."""

    urgent: bool


async def test_type_as_response_format_is_sent_as_its_schema(tmp_path: Path) -> None:
    """In a template and in the body of a pair; the caller's mapping is left as it is."""
    path = tmp_path / "in.csv"
    path.write_text("q\na\n")
    body = {"assistant_id": "asst_1", "response_format": Ticket, "instructions": "{q}"}

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

    (line,) = read_csv(path, {"assistant_id": "{q}", "instructions": given})

    assert line.body["instructions"] == filled


PLACES: dict[str, tuple[str, str]] = {
    "other letters": ("{full name}", r"\{full name\} is no .* did you mean \{Full Name\}\?"),
    "spaces inside": ("{ Full Name }", r"\{ Full Name \} is no .* mean \{Full Name\}\?"),
    "a word too many": ("{the Full Name}", r"mean \{Full Name\}\?"),
    "one letter too few": ("{tex}", r"mean \{text\}\?"),
    "nothing similar": ("{body}", r"\{body\} is no column; there are Full Name, text$"),
    "no place": ("Answer!", r"no column is used, .* write \{Full Name\} .* are Full Name, text"),
    "places of another kind": ("$text <text>", "no column is used"),
}


@pytest.mark.parametrize("name", PLACES)
def test_template_that_would_not_be_filled_is_refused(tmp_path: Path, name: str) -> None:
    """Hundreds of runs with the place itself in their prompts would be paid for."""
    content, why = PLACES[name]
    path = tmp_path / "in.csv"
    path.write_text("Full Name,text\nAda,Hello\n")

    with pytest.raises(BatchError, match=why):
        list(read_csv(path, {"assistant_id": "asst_1", "instructions": content}))


def test_rows_of_ids_alone_need_no_place(tmp_path: Path) -> None:
    """The same prompt several times is a batch as well."""
    path = tmp_path / "in.csv"
    path.write_text("custom_id\na\nb\n")

    rows = list(read_csv(path, {"assistant_id": "asst_1", "instructions": "Roll a die."}))

    assert [row.custom_id for row in rows] == ["a", "b"]


SHEETS: dict[str, str] = {
    "empty rows": "q,a\n\n1,x\n,\n2,y\n,,,\n \n",
    "an empty row on top": "\n,\nq,a\n1,x\n2,y\n",
    "spaces in the columns": " q , a\n1,x\n2,y\n",
    "columns without a name": "q,a,,\n1,x,,\n2,y,,\n",
    "a mark on top": "\ufeffq,a\r\n1,x\r\n2,y\r\n",
}


@pytest.mark.parametrize("name", SHEETS)
def test_csv_as_spreadsheets_write_it_is_read(tmp_path: Path, name: str) -> None:
    """Each row with a value is one, under the names that a reader sees."""
    path = tmp_path / "in.csv"
    path.write_bytes(SHEETS[name].encode())

    rows = [(row["q"], row["a"]) for _, row in read_rows(path)]
    lines = list(read_csv(path, {"assistant_id": "asst_1", "instructions": "{q}{a}"}))

    assert rows == [("1", "x"), ("2", "y")]
    assert [line.body["instructions"] for line in lines] == ["1x", "2y"]


@pytest.mark.parametrize(
    "text", ["q\n1\n\n2\n", 'custom_id,q\na,"1\n1"\nb,2\n'], ids=["by-line", "by-column"]
)
def test_rows_have_the_ids_of_the_batch(tmp_path: Path, text: str) -> None:
    """So a row stands beside its result."""
    path = tmp_path / "in.csv"
    path.write_text(text)

    ids = [custom_id for custom_id, _ in read_rows(path)]

    lines = read_csv(path, {"assistant_id": "asst_1", "instructions": "{q}"})
    assert ids == [line.custom_id for line in lines]


def test_mark_on_top_of_json_lines_is_left_out(tmp_path: Path) -> None:
    """Editors of another system write one."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + msgspec.json.encode(GOOD) + b"\n")

    assert [line.custom_id for line in read_jsonl(path)] == ["a"]


CSV: dict[str, tuple[str, str]] = {
    "an unknown column": ("a,b\n1,2\n", r"\{q\} is no column; there are a, b$"),
    "too few values": (
        "q,b\n1\n",
        "line 2 .* has 1 value for 2 columns; one that is empty has its comma",
    ),
    "too many values": ("q,b\n1,2,3\n", "line 2 .* has 3 values .* stands in double quotes"),
    "a column twice": ("q,q\n1,2\n", "line 1 .* same name 'q'"),
    "an open quote": (
        'q\n1\n\n"2\n3\n',
        r"in\.csv: the row on line 4 has a quote that nothing ends",
    ),
    "a wrong quote": ('q\n"1"2\n', r"in\.csv: the row on line 2 cannot be read as CSV: "),
    "a long value": (f"q\n{'x' * 131_073}\n", "line 2 has a value of more than 131,072 char"),
    "nothing": ("", r"in\.csv: is empty"),
    "nothing but empty rows": ("\n,,\n", r"in\.csv: is empty"),
    "another encoding": (
        "q\na\nM\udcfcller\n",
        r"in\.csv: line 3 is not UTF-8 \(byte 0xfc\): save it as CSV UTF-8",
    ),
    "another encoding of the columns": ("q\udcff\n", "line 1 is not UTF-8"),
    "semicolons": ("q;b\n1;2\n", "its columns are separated by ';', and must be by"),
    "tabs": ("q\tb\n1\t2\n", "its columns are separated by tabs, and must be by commas"),
    "semicolons and a comma": ("q;b\n1,5;2\n", "separated by ';', and must be by commas"),
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


NAMED: dict[str, tuple[str, str | None, str]] = {
    "an empty id": ("id,q\na,1\n,2\n", "id", "line 3 of the input: its column 'id' is empty"),
    "an empty custom_id": ("custom_id,q\n,2\n", None, "its column 'custom_id' is empty"),
    "semicolons": ("id;q\na;1\n", "id", r"in\.csv: its columns are separated by ';', .* no column"),
    "tabs": ("id\tq\na\t1\n", "id", r"in\.csv: its columns are separated by tabs, .* no column"),
    "a value with a comma": ("q\n1,2\n", None, "2 values for 1 column; one with a comma"),
}


@pytest.mark.parametrize("name", NAMED)
def test_csv_whose_rows_have_no_names_is_refused(tmp_path: Path, name: str) -> None:
    """In the words of the file: its columns, and what separates them."""
    text, id_column, why = NAMED[name]
    path = tmp_path / "in.csv"
    path.write_text(text)

    with pytest.raises(BatchError, match=why):
        list(read_csv(path, "Say {q}", id_column=id_column))
