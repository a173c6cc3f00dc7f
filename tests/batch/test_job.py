"""A batch in one process: what becomes of its lines, and how it goes on."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from openai_runs import AsyncClient, AuthenticationError, Progress
from openai_runs.batch import Batch, BatchError, BatchStatus, read_csv, read_jsonl, status
from openai_runs.server import EchoBackend, LocalServer
from tests.batch.batching import (
    Folder,
    Moody,
    batch_line,
    errors_of,
    results_of,
    write_lines,
)


async def test_lines_become_results_in_the_form_of_the_vendor(folder: Folder) -> None:
    """Completed runs go to one file, all others to the one beside it."""
    folder.write(a="hello", b="bad one")

    status = await folder.run()

    (result,) = results_of(folder.out)
    assert result.keys() == {"id", "custom_id", "response", "error"}
    assert result["custom_id"] == "a"
    assert result["error"] is None
    assert result["response"]["status_code"] == 200
    assert result["response"]["body"]["object"] == "thread.run"
    assert result["response"]["body"]["text"] == "hello"
    (error,) = errors_of(folder.path)
    assert error["custom_id"] == "b"
    assert error["error"] == {"code": "invalid_prompt", "message": "No such thing."}
    assert error["response"]["body"]["status"] == "failed"
    assert (status.total, status.completed, status.failed) == (2, 1, 1)
    assert status.out == str(folder.out)
    assert status.errors == str(folder.path / "out.errors.jsonl")
    assert status.reasons == {"invalid_prompt": 1}
    assert status.tokens > 0


async def test_second_start_sends_nothing_where_all_is_done(folder: Folder) -> None:
    """Lines with an outcome are read, compared, and left."""
    folder.write(a="hello", b="bad one")
    await folder.run()
    requests = folder.server.requests

    status = await folder.run()

    assert folder.server.requests == requests
    assert (status.completed, status.failed) == (1, 1)


async def test_rejected_line_is_an_error_with_the_answer(folder: Folder) -> None:
    """The server's words stand in the response, as the vendor's Batch API has it."""
    write_lines(folder.source, [batch_line("a", "asst_missing", "hello")])

    status = await folder.run()

    (error,) = errors_of(folder.path)
    assert error["response"]["status_code"] == 404
    assert "asst_missing" in error["response"]["body"]["error"]["message"]
    assert [reason[:3] for reason in status.reasons] == ["404"]


async def test_status_is_one_line(folder: Folder) -> None:
    """For a log, or the end of a program."""
    folder.write(a="hello", b="bad", c="you")

    with pytest.raises(BatchError):
        await folder.run(concurrency=1, max_failures=1)
    left = await anyio.to_thread.run_sync(status, folder.checkpoint)
    whole = await folder.run()

    tokens = f"{left.tokens:,} tokens"
    assert str(left) == f"1 completed, 1 failed; 1 left: the same command goes on; {tokens}"
    assert str(whole) == f"2 completed, 1 failed; {whole.tokens:,} tokens"


async def test_changed_line_is_named(folder: Folder) -> None:
    """The same custom id with another body would be another run under an old result."""
    folder.write(a="hello", b="you")
    await folder.run()
    folder.write(c="first", a="hello", b="You")

    with pytest.raises(BatchError, match=r"line 3 of the input, custom_id 'b', .*as line 2"):
        await folder.run()

    assert folder.results() == {"a": "hello", "b": "you"}


async def test_changed_template_is_named(folder: Folder) -> None:
    """Each row has the same text as before, and another body."""
    source = folder.path / "in.csv"
    source.write_text("q\nhello\n")
    body = batch_line("", folder.server.assistant_id, "{q}")["body"]
    await folder.batch().run(read_csv(source, body), out=folder.out)
    changed = batch_line("", folder.server.assistant_id, "{q}!")["body"]

    with pytest.raises(
        BatchError, match=r"'row-2', is not what it was when .*: the template .--pr"
    ):
        await folder.batch().run(read_csv(source, changed), out=folder.out)


async def test_changed_row_is_named(folder: Folder) -> None:
    """The template is that of the first start, so it is not blamed for it."""
    source = folder.path / "in.csv"
    source.write_text("q\nhello\n")
    body = batch_line("", folder.server.assistant_id, "{q}")["body"]
    await folder.batch().run(read_csv(source, body), out=folder.out)
    source.write_text("q\nyou\n")

    with pytest.raises(
        BatchError, match=r"'row-2', is not what it was when .*: its row has change"
    ):
        await folder.batch().run(read_csv(source, body), out=folder.out)


async def test_custom_id_that_comes_twice_is_named_with_both_lines(folder: Folder) -> None:
    """Nothing is sent before: all lines of a file are checked first."""
    line = batch_line("a", folder.server.assistant_id, "hello")
    write_lines(folder.source, [line, batch_line("b", folder.server.assistant_id, "x"), line])
    requests = folder.server.requests

    with pytest.raises(BatchError, match="lines 1 and 3 of the input have the same custom_id 'a'"):
        await folder.run()

    assert folder.server.requests == requests


async def test_progress_is_called_as_lines_end(folder: Folder) -> None:
    """First with what earlier starts have done."""
    folder.write(a="hello")
    await folder.run()
    folder.write(a="hello", b="you", c="bad")
    seen: list[tuple[int, int, int | None]] = []

    def note(now: Progress) -> None:
        seen.append((now.done, now.running, now.total))

    await folder.run(progress=note, concurrency=1)

    assert seen == [(1, 0, 3), (2, 0, 3), (3, 0, 3)]


async def test_progress_counts_what_earlier_starts_did_of_pairs(folder: Folder) -> None:
    """Their lines are known as they are read."""
    body = batch_line("", folder.server.assistant_id, "hello")["body"]
    pairs = [("a", body), ("b", body)]
    await folder.batch().run(pairs[:1], out=folder.out)
    batch = folder.batch()

    await batch.run(pairs, out=folder.out)

    assert (batch.progress.earlier, batch.progress.done) == (1, 2)


async def test_what_progress_raises_ends_the_batch(folder: Folder) -> None:
    """The outcome it was called for is written; the next start goes on."""
    folder.write(a="hello", b="you")

    def refuse(now: Progress) -> None:
        if now.done:
            message = "enough"
            raise LookupError(message)

    with pytest.raises(LookupError, match="enough"):
        await folder.run(progress=refuse, concurrency=1)

    assert len(folder.results()) == 1
    await folder.run()
    assert len(folder.results()) == 2


async def test_progress_must_be_callable(folder: Folder) -> None:
    """It is known before anything is opened."""
    with pytest.raises(TypeError, match="progress must be callable, got 5"):
        folder.batch(progress=5)


async def test_failure_that_may_pass_is_retried_when_asked(folder: Folder, backend: Moody) -> None:
    """With another run, after the time that the failure names; others are not."""
    folder.write(a="flaky", b="bad")

    status = await folder.run(retry_failed=True)

    assert folder.results() == {"a": "flaky"}
    assert [one["custom_id"] for one in errors_of(folder.path)] == ["b"]
    assert backend.asked == {"flaky": 2, "bad": 1}
    assert status.reasons == {"invalid_prompt": 1}


async def test_line_that_waits_for_its_retry_leaves_its_slot_to_others(
    folder: Folder, backend: Moody
) -> None:
    """The only slot there is: all other lines end before the retries of the first two are due."""
    folder.write(a="limited one", b="limited two", **{f"id{n}": f"fine {n}" for n in range(8)})

    def stop(now: Progress) -> None:
        if now.done == 8:
            batch.stop()

    batch = folder.batch(retry_failed=True, concurrency=1, progress=stop)
    await batch.run(read_jsonl(folder.source), out=folder.out)

    assert folder.results().keys() == {f"id{n}" for n in range(8)}
    assert {question: n for question, n in backend.asked.items() if "limited" in question} == {
        "limited one": 1,
        "limited two": 1,
    }


async def test_failure_of_an_earlier_start_is_retried_when_asked(
    folder: Folder, backend: Moody
) -> None:
    """Its line leaves the file of errors."""
    folder.write(a="flaky", b="bad", c="fine")
    first = await folder.run()
    assert {one["custom_id"] for one in errors_of(folder.path)} == {"a", "b"}

    second = await folder.run(retry_failed=True)

    assert (first.completed, second.completed) == (1, 2)
    assert folder.results().keys() == {"a", "c"}
    assert [one["custom_id"] for one in errors_of(folder.path)] == ["b"]
    assert backend.asked["bad"] == 1


async def test_run_that_waits_for_tools_goes_on_once_they_are_given(folder: Folder) -> None:
    """It is the same run, not another."""

    def look_up(city: str) -> str:
        """Look a city up."""
        return f"{city} is fine"

    function = {"name": "look_up", "parameters": {"type": "object", "required": ["city"]}}
    function["parameters"]["properties"] = {"city": {"type": "string"}}  # type: ignore[index]
    line = batch_line("a", folder.server.assistant_id, "Use the tool look_up for Oslo.")
    line["body"]["tools"] = [{"type": "function", "function": function}]
    write_lines(folder.source, [line])
    first = await folder.run()

    second = await folder.run(tools=[look_up], retry_failed=True)

    assert first.reasons == {"requires_action": 1}
    assert (second.completed, second.failed) == (1, 0)
    assert "Oslo is fine" in folder.results()["a"]
    assert await anyio.to_thread.run_sync(folder.server.count, "runs") == 1


async def test_batch_stops_after_so_many_failures(folder: Folder) -> None:
    """What was not begun is left to the next start."""
    folder.write(**{f"id{n}": f"bad {n}" for n in range(20)})

    with pytest.raises(BatchError, match="stopped after 3 failures, .*invalid_prompt"):
        await folder.run(concurrency=1, max_failures=3)

    assert len(errors_of(folder.path)) == 3


@pytest.mark.parametrize("failures", [1, 3, 19])
async def test_failures_that_come_together_stop_the_batch(
    folder: Folder, backend: Moody, failures: int
) -> None:
    """More may fail than the limit says: all that are in progress; nothing else is begun."""
    folder.write(**{f"id{n}": f"wait bad {n}" for n in range(60)})

    async with anyio.create_task_group() as group:
        group.start_soon(_stopped, folder, failures)
        await backend.waiting.wait()
        backend.open.set()

    assert failures <= len(errors_of(folder.path)) <= failures + 20
    assert await anyio.to_thread.run_sync(lambda: status(folder.checkpoint).waiting) > 0


async def _stopped(folder: Folder, failures: int) -> None:
    batch = folder.batch(concurrency=20, max_failures=failures)
    with pytest.raises(BatchError) as caught:
        await batch.run(read_jsonl(folder.source), out=folder.out)
    failed = batch.progress.failed
    assert re.match(rf"stopped after {failed} failures?, the last of them", str(caught.value))


async def test_stop_finishes_what_is_in_progress(folder: Folder, backend: Moody) -> None:
    """And begins nothing else; the next start does."""
    folder.write(a="wait", b="next", c="last")
    batch = folder.batch(concurrency=1)
    found: list[BatchStatus] = []

    async def work() -> None:
        found.append(await batch.run(read_jsonl(folder.source), out=folder.out))

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        await backend.waiting.wait()
        batch.stop()
        backend.open.set()

    assert (found[0].completed, found[0].waiting) == (1, 2)
    assert (await folder.run()).completed == 3


async def test_cancelled_batch_goes_on_with_the_same_run(folder: Folder, backend: Moody) -> None:
    """The run is left to the server, and taken over by the next start."""
    folder.write(a="wait")
    async with anyio.create_task_group() as group:
        group.start_soon(folder.run)
        await backend.waiting.wait()
        group.cancel_scope.cancel()
    backend.open.set()

    status = await folder.run()

    assert status.completed == 1
    assert await anyio.to_thread.run_sync(folder.server.count, "runs") == 1


async def test_rejected_key_ends_the_batch(folder: Folder) -> None:
    """It would be rejected for each line: no line is counted as failed."""
    folder.write(a="one", b="two")
    async with (
        LocalServer(backend=EchoBackend(), api_key="right") as locked,
        AsyncClient(locked.url, "wrong") as client,
    ):
        batch = Batch(client, checkpoint=folder.checkpoint)
        with pytest.raises(AuthenticationError):
            await batch.run(read_jsonl(folder.source), out=folder.out)

    assert errors_of(folder.path) == []
    assert (await folder.run()).completed == 2


@pytest.mark.parametrize("kind", ["list", "generator", "async generator"])
async def test_input_may_be_any_iterable(folder: Folder, kind: str) -> None:
    """Pairs of a custom id and a body."""
    body = batch_line("", folder.server.assistant_id, "hello")["body"]
    pairs = [(f"id{n}", body) for n in range(5)]

    async def slowly() -> AsyncIterator[tuple[str, Any]]:
        for pair in pairs:
            yield pair

    items: Any = {"list": pairs, "generator": iter(pairs), "async generator": slowly()}[kind]
    batch = folder.batch()
    status = await batch.run(items, out=folder.out)

    assert status.completed == 5
    assert batch.progress.total == (5 if kind == "list" else None)


async def test_error_of_the_input_is_raised_once_the_rest_is_finished(folder: Folder) -> None:
    """What came before it has its results."""
    body = batch_line("", folder.server.assistant_id, "hello")["body"]

    def broken() -> Any:
        yield "a", body
        message = "the database is gone"
        raise RuntimeError(message)

    with pytest.raises(RuntimeError, match="the database is gone"):
        await folder.batch().run(broken(), out=folder.out)

    assert folder.results() == {"a": "hello"}


async def test_input_longer_than_memory_is_read_as_a_stream(folder: Folder) -> None:
    """At most `concurrency` bodies of an iterable are there at once."""
    body = batch_line("", folder.server.assistant_id, "hello")["body"]
    ahead: list[int] = []
    batch = folder.batch(concurrency=3)

    def items() -> Any:
        for number in range(50):
            ahead.append(number - batch.progress.done)
            yield f"id{number}", body

    await batch.run(items(), out=folder.out)

    assert max(ahead) <= 4


@pytest.mark.parametrize(
    ("item", "kind", "words"),
    [
        (7, TypeError, "pairs of a custom id and a body"),
        ("hi", TypeError, "pairs of a custom id and a body, got str"),
        (("a", {"assistant_id": object()}), BatchError, "line 1 of the input"),
        (("a", {"assistant_id": "asst_1", "model": "\ud800"}), BatchError, "cannot be sent"),
        ((7, {"assistant_id": "asst_1"}), BatchError, "custom_id must be a text"),
    ],
    ids=["no-pair", "two-letters", "no-json", "no-text", "no-id"],
)
async def test_item_that_cannot_be_sent_is_an_error_of_the_input(
    folder: Folder, item: Any, kind: type[Exception], words: str
) -> None:
    """As a wrong line of a file is."""
    with pytest.raises(kind, match=words):
        await folder.batch().run([item], out=folder.out)


@pytest.mark.parametrize("path", ["in.csv", Path("in.csv")], ids=["text", "path"])
async def test_path_is_no_input_by_itself(folder: Folder, path: Any) -> None:
    """Its letters would be items; what reads it is named, before anything is opened."""
    with pytest.raises(TypeError, match=r"read 'in\.csv' by read_csv or read_jsonl"):
        await folder.batch().run(path, out=folder.out)

    assert not folder.checkpoint.exists()


async def test_prompts_alone_are_a_batch(folder: Folder) -> None:
    """With an assistant of its own nothing else is needed."""
    batch = folder.batch(assistant={"model": "echo"})

    await batch.run([("a", "Hello"), ("b", "you")], out=folder.out)

    assert folder.results() == {"a": "Hello", "b": "you"}


async def test_body_that_the_client_cannot_send_fails_alone(folder: Folder) -> None:
    """Its line is an error, and the others have their results."""
    line = batch_line("a", folder.server.assistant_id, "hello")
    line["body"]["metadata"] = "no object"
    write_lines(folder.source, [line, batch_line("b", folder.server.assistant_id, "you")])

    status = await folder.run()

    assert (status.completed, status.failed) == (1, 1)
    assert folder.results() == {"b": "you"}
