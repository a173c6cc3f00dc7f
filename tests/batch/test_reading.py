"""The results of a batch, read again as objects."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import anyio.to_thread
import msgspec
import pydantic
import pytest

from openai_runs import APIResponseValidationError, AsyncClient, Message, Run, RunResult
from openai_runs.batch import Batch, BatchError, read_csv, read_jsonl, read_results, read_rows
from openai_runs.batch.results import error_line, error_of, result_line
from openai_runs.server import (
    EchoBackend,
    Finish,
    ModelEvent,
    ModelRequest,
    TextDelta,
    ToolCallDelta,
)
from openai_runs.types import UnknownItem
from openai_runs.types.messages import RefusalContent, Text, TextContent, UnknownContent
from tests.batch.batching import ECHO, Folder, batch_line, site, write_lines


class Ticket(msgspec.Struct):
    """What an answer is read as."""

    urgent: bool


def said(*content: Any) -> Message:
    """Return a message; a text stands for a part with it."""
    parts = [TextContent(text=Text(value=one)) if isinstance(one, str) else one for one in content]
    return Message(id="msg_1", role="assistant", run_id="run_1", content=parts)


def ended(status: str = "completed") -> Run:
    """Return a run."""
    return Run(id="run_1", thread_id="thread_1", status=status)


class Case(NamedTuple):
    """What a run wrote, and what its text is read as."""

    messages: list[Any]
    parsed: Ticket | None | type[Exception]
    status: str = "completed"


JSON = '{"urgent": true}'
CASES = {
    "an object": Case([said(JSON)], Ticket(urgent=True)),
    "an object after other words": Case([said("Let me see."), said(JSON)], Ticket(urgent=True)),
    "an object before nothing": Case([said(JSON), said()], Ticket(urgent=True)),
    "an object in a fence": Case([said(f"```json\n{JSON}\n```")], Ticket(urgent=True)),
    "an object in two parts": Case([said(JSON[:5], JSON[5:])], Ticket(urgent=True)),
    "a part of another kind": Case(
        [said(UnknownContent({"type": "sound", "id": 1}), JSON)], Ticket(urgent=True)
    ),
    "a message of another kind": Case(
        [UnknownItem({"object": "sound", "text": 1}), said(JSON)], Ticket(urgent=True)
    ),
    "a refusal": Case([said(RefusalContent(refusal="No."))], None),
    "another object": Case([said('{"urgent": 3}')], APIResponseValidationError),
    "an object before other words": Case([said(JSON), said("So.")], APIResponseValidationError),
    "nothing": Case([], APIResponseValidationError),
    "half an object": Case([said(JSON[:5])], None, "incomplete"),
    "an object of a failed run": Case([said(JSON)], None, "failed"),
}


@pytest.mark.parametrize("name", CASES)
def test_result_is_read_as_the_run_was(tmp_path: Path, name: str) -> None:
    """Text, messages and `parsed` are those of `runs.result`, whatever a model has written."""
    case = CASES[name]
    was = RunResult(
        run=ended(case.status), messages=case.messages, steps=[], response_format=Ticket
    )
    error = error_of(was)
    line = result_line("id", "a", was) if error is None else error_line("id", "a", error, was)
    path = tmp_path / "out.jsonl"
    path.write_bytes(line)

    (result,) = read_results(path, response_format=Ticket)

    assert (result.id, result.custom_id, result.run) == ("id", "a", was.run)
    assert (result.text, result.messages) == (was.text, was.messages)
    assert (result.error is None) == (case.status == "completed")
    if isinstance(case.parsed, type):
        with pytest.raises(case.parsed, match="run run_1: its text does not fit Ticket") as raised:
            result.parsed  # noqa: B018
        with pytest.raises(case.parsed) as before:
            was.parsed  # noqa: B018
        assert str(raised.value) == str(before.value)
    else:
        assert result.parsed == was.parsed == case.parsed


class Talking(EchoBackend):
    """Says something before it calls a tool, as models do, and then answers with an object."""

    async def respond(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Answer."""
        if any(turn.tool_calls for turn in request.turns):
            yield TextDelta(JSON)
            yield Finish()
            return
        yield TextDelta("Let me see.")
        yield ToolCallDelta(index=0, id="call_1", name="look_up", arguments="{}")
        yield Finish()


def look_up() -> str:
    """Look it up."""
    return "urgent"


async def test_answer_after_tool_calls_is_parsed(tmp_path: Path) -> None:
    """What the model has said before the calls is in the text, and no part of the object."""
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    async with (
        site(tmp_path / "server.db", backend=Talking) as server,
        AsyncClient(server.url, api_key=None) as client,
    ):
        write_lines(source, [batch_line("a", server.assistant_id, "Is it urgent?")])
        batch = Batch(client, checkpoint=tmp_path / "batch.db", tools=[look_up])
        await batch.run(read_jsonl(source), out=out)

    (result,) = read_results(out, response_format=Ticket)

    assert result.text == f"Let me see.\n\n{JSON}"
    assert result.parsed == Ticket(urgent=True)


async def test_tickets_become_objects_and_a_spreadsheet(folder: Folder) -> None:
    """From CSV to CSV: each row with its answer, in the order of the rows, or with its error."""
    source = folder.path / "tickets.csv"
    with source.open("w", newline="") as file:
        rows = [["customer", "text"], ["Ada", JSON], ["Grace", "bad"], ["Alan", '{"urgent":false}']]
        csv.writer(file).writerows(rows)
    body = {
        "assistant_id": folder.server.assistant_id,
        "response_format": Ticket,
        "thread": {"messages": [{"role": "user", "content": "{text}"}]},
    }
    await folder.batch().run(read_csv(source, body), out=folder.out)

    errors = folder.path / "out.errors.jsonl"
    found = read_results(folder.out, errors=errors, response_format=Ticket)
    results = {result.custom_id: result for result in found}
    written = folder.path / "answers.csv"
    with written.open("w", newline="") as file:
        writer = csv.writer(file)
        for custom_id, row in read_rows(source):
            result = results[custom_id]
            urgent = result.parsed.urgent if result.error is None else result.error.code
            writer.writerow([row["customer"], urgent])

    assert written.read_text().split() == ["Ada,True", "Grace,invalid_prompt", "Alan,False"]


@dataclasses.dataclass
class Plain:
    """A dataclass."""

    urgent: bool


class Model(pydantic.BaseModel):
    """A pydantic model."""

    urgent: bool


@pytest.mark.parametrize("kind", [Ticket, Plain, Model])
def test_parsed_is_of_the_kind_that_was_asked_for(tmp_path: Path, kind: type) -> None:
    """The kinds of structured output: Structs, dataclasses, pydantic models."""
    path = tmp_path / "out.jsonl"
    path.write_bytes(
        result_line("id", "a", RunResult(run=ended(), messages=[said(JSON)], steps=[]))
    )

    (result,) = read_results(path, response_format=kind)

    assert result.parsed == kind(urgent=True)
    assert result.parsed is result.parsed


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """Return a file of three results."""
    path = tmp_path / "out.jsonl"
    result = RunResult(run=ended(), messages=[said("Hi.")], steps=[])
    path.write_bytes(b"".join(result_line("id", name, result) for name in "abc"))
    return path


@pytest.mark.parametrize("left", [0, 1, 5, 300, -2], ids=["nothing", "1", "5", "300", "its-end"])
def test_last_line_that_is_cut_off_is_left_out(lines: Path, left: int) -> None:
    """A batch is at work, or was killed; the next start completes the line."""
    whole = lines.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    lines.write_bytes(whole[:last] + whole[last:][:left])

    assert [result.custom_id for result in read_results(lines)] == ["a", "b"]


def test_last_line_without_its_line_feed_is_read(lines: Path) -> None:
    """It is whole: editors take the line feed away."""
    lines.write_bytes(lines.read_bytes().rstrip())

    assert [result.custom_id for result in read_results(lines)] == ["a", "b", "c"]


DAMAGED: dict[str, tuple[bytes, str]] = {
    "half a line": (b'{"id": "x", "custom_', "JSON is malformed"),
    "no text": (b"\xff\xfe", "invalid"),
    "no object": (b"[1]", "Expected `object`"),
    "a line of the input": (msgspec.json.encode(batch_line("a", "asst", "Hi")), "`response`"),
    "no outcome": (b'{"custom_id": "a", "response": null, "error": null}', "neither a run nor"),
    "no run": (
        b'{"custom_id": "a", "response": {"status_code": 200, "body": {"id": "c"}}, "error": null}',
        "thread_id",
    ),
    "deep": (b'{"custom_id": ' + b"[" * 100_000, "custom_id"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_line_that_is_no_result_is_named(lines: Path, name: str) -> None:
    """By file and number, once those before it were read."""
    line, why = DAMAGED[name]
    whole = lines.read_bytes()
    lines.write_bytes(b"\n" + whole + line + b"\n" + whole)
    results = read_results(lines)

    assert [next(results).custom_id for _ in "abc"] == ["a", "b", "c"]
    with pytest.raises(BatchError, match=rf"out\.jsonl: line 5 is no result of a batch: .*{why}"):
        next(results)


def test_results_that_are_not_there_are_named(tmp_path: Path) -> None:
    """The reason is the system's; a folder is no file either."""
    with pytest.raises(BatchError, match=r"out\.jsonl: cannot be read: No such file"):
        list(read_results(tmp_path / "out.jsonl"))
    with pytest.raises(BatchError, match="cannot be read: Is a directory"):
        list(read_results(tmp_path))


async def test_errors_follow_the_results(folder: Folder) -> None:
    """A file of errors that is not there has none: nothing has failed yet."""
    errors = folder.path / "out.errors.jsonl"
    folder.write(a="good")
    await folder.run()
    assert [result.custom_id for result in read_results(folder.out, errors=errors)] == ["a"]
    refused = batch_line("c", folder.server.assistant_id, "x")
    refused["body"]["temperature"] = 9
    lines = [
        batch_line(name, folder.server.assistant_id, text)
        for name, text in [("a", "good"), ("b", "bad one")]
    ]
    write_lines(folder.source, [*lines, refused])

    await folder.batch(concurrency=1).run(read_jsonl(folder.source), out=folder.out)

    a, b, c = read_results(str(folder.out), errors=str(errors))
    assert a.error is None
    assert a.text == "good"
    assert b.error is not None
    assert b.error.code == "invalid_prompt"
    assert "No such thing." in b.error.message
    assert b.run is not None
    assert b.run.status == "failed"
    assert c.error is not None
    assert "temperature" in c.error.message
    assert (c.run, c.text, c.messages, c.parsed) == (None, "", [], None)
    assert repr(a).startswith("BatchResult(custom_id='a', text='good', run=Run(")
    assert repr(c).startswith("BatchResult(custom_id='c', error=Failure(code=")


def test_line_without_messages_has_its_text(tmp_path: Path) -> None:
    """Of a checkpoint whose first lines an older version wrote."""
    body = {"id": "run_1", "thread_id": "thread_1", "status": "completed", "text": JSON}
    response = {"status_code": 200, "request_id": None, "body": body}
    line = {"id": "id", "custom_id": "a", "response": response, "error": None}
    write_lines(tmp_path / "out.jsonl", [line])

    (result,) = read_results(tmp_path / "out.jsonl", response_format=Ticket)

    assert (result.text, result.parsed) == (JSON, Ticket(urgent=True))


def checked(source: Path, checkpoint: Path) -> list[tuple[str, dict[str, str]]]:
    """Return the rows, once they are compared with the checkpoint."""
    return list(read_rows(source, checkpoint=checkpoint))


MOVED = "id,q\nc,three\na,one\nb,two\n"


async def test_rows_that_have_ids_of_their_own_may_move(folder: Folder) -> None:
    """The checkpoint knows the column: rows are paired by it, and nothing is sent again."""
    source = folder.path / "in.csv"
    source.write_text("id,q\na,one\nb,two\n")
    await folder.batch(assistant=ECHO).run(read_csv(source, "{q}", id_column="id"), out=folder.out)
    source.write_text(MOVED)

    status = await folder.batch(assistant=ECHO).run(
        read_csv(source, "{q}", id_column="id"), out=folder.out
    )

    results = {result.custom_id: result.text for result in read_results(folder.out)}
    rows = await anyio.to_thread.run_sync(checked, source, folder.checkpoint)
    assert status.total == 3
    assert results == {"a": "one", "b": "two", "c": "three"}
    assert [(results[custom_id], row["q"]) for custom_id, row in rows] == [
        *(("three", "three"), ("one", "one"), ("two", "two"))
    ]


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        pytest.param("id", None, "those of the column 'id': go on with id_column='id'", id="left"),
        pytest.param(None, "id", "not those of a column by name: go on without", id="new"),
        pytest.param("id", "q", "those of the column 'id'", id="other"),
    ],
)
async def test_other_column_of_ids_is_an_error(
    folder: Folder, first: str | None, second: str | None, wanted: str
) -> None:
    """All rows would be carried out again, each under another id."""
    source = folder.path / "in.csv"
    source.write_text(MOVED)
    batch = folder.batch(assistant=ECHO)
    await batch.run(read_csv(source, "{q}", id_column=first), out=folder.out)

    with pytest.raises(BatchError, match=wanted):
        await batch.run(read_csv(source, "{q}", id_column=second), out=folder.out)


async def test_column_of_ids_is_known_after_a_start_that_found_a_wrong_row(folder: Folder) -> None:
    """The rows before it are in the checkpoint, so another column is refused from then on."""
    source = folder.path / "in.csv"
    good = "id,q\n" + "".join(f"{n},text {n}\n" for n in range(501))
    source.write_text(good + "wrong\n")
    lines = read_csv(source, "{q}", id_column="id")
    with pytest.raises(BatchError, match="has 1 value for 2 columns"):
        await folder.batch(assistant=ECHO).run(lines, out=folder.out)
    source.write_text(good)

    with pytest.raises(BatchError, match="are those of the column 'id': go on with id_column='id'"):
        await folder.batch(assistant=ECHO).run(read_csv(source, "{q}"), out=folder.out)


async def test_column_of_ids_that_is_not_there_is_an_error(folder: Folder) -> None:
    """It names those that are."""
    source = folder.path / "in.csv"
    source.write_text("Id,q\na,one\n")

    with pytest.raises(BatchError, match="has no column 'id' for the ids; there are Id, q; did"):
        await folder.batch(assistant=ECHO).run(
            read_csv(source, "{q}", id_column="id"), out=folder.out
        )


@pytest.mark.parametrize(
    "now",
    [
        pytest.param("q\nzero\none\ntwo\n", id="row-at-the-top"),
        pytest.param("q\ntwo\none\n", id="sorted"),
        pytest.param("q\none\nTWO\n", id="changed"),
        pytest.param("custom_id,q\nx,one\ny,two\n", id="other-ids"),
    ],
)
async def test_rows_that_were_not_asked_about_are_refused_before_the_first(
    folder: Folder, now: str
) -> None:
    """Answers would stand beside the wrong rows."""
    source = folder.path / "in.csv"
    source.write_text("q\none\ntwo\n")
    await folder.batch(assistant=ECHO).run(read_csv(source, "{q}"), out=folder.out)
    source.write_text(now)

    with pytest.raises(BatchError, match="is not the row that was asked about|of another file"):
        await anyio.to_thread.run_sync(checked, source, folder.checkpoint)
