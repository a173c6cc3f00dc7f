"""A batch in one process: what becomes of its lines, and how it goes on."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio.abc import SocketAttribute, SocketStream

from openai_runs import AsyncClient, AuthenticationError, BadRequestError, Progress
from openai_runs.batch import Batch, BatchError, BatchStatus, read_csv, read_jsonl, status
from openai_runs.server import EchoBackend, LocalServer
from tests.batch.batching import Folder, Moody, batch_line, errors_of, results_of, write_lines


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


def rejected(text: str, **wrong: Any) -> dict[str, Any]:
    """Return a template that the server rejects."""
    return {"thread": {"messages": [{"role": "user", "content": text}]}, **wrong}


async def test_rejection_of_each_line_ends_the_batch_and_the_template_may_be_mended(
    folder: Folder,
) -> None:
    """A typo costs the first lines, and no run; put right, all of them have results."""
    source = folder.path / "in.csv"
    source.write_text("q\n" + "".join(f"text {n}\n" for n in range(100)))
    wrong = read_csv(source, rejected("{q}", tread={}))

    with pytest.raises(BatchError, match=r"rejected each of the first 20 lines .*tread.*may chan"):
        await folder.batch(assistant=ECHO).run(wrong, out=folder.out)
    assert 20 <= len(errors_of(folder.path)) < 40

    right = read_csv(source, rejected("{q}"))
    mended = await folder.batch(assistant=ECHO).run(right, out=folder.out)

    assert (mended.completed, mended.failed) == (100, 0)
    assert errors_of(folder.path) == []
    assert folder.results()["row-2"] == "text 0"
    assert await anyio.to_thread.run_sync(folder.server.count, "runs") == 100


async def test_rejected_lines_end_no_batch_that_has_results(folder: Folder) -> None:
    """Many bad rows among good ones, or several kinds of them, are no fault of the template."""
    bad = [(f"id{n}", rejected("x", tread={})) for n in range(30)]
    other = ("other", rejected("x", treed={}))

    one = await folder.batch(assistant=ECHO, concurrency=1).run(
        [*anonymous("fine"), *bad], out=folder.out
    )
    again = Batch(folder.client, checkpoint=folder.path / "two.db", assistant=ECHO, concurrency=1)
    two = await again.run([other, *bad], out=folder.path / "two.jsonl")

    assert (one.completed, one.failed) == (1, 30)
    assert (two.completed, two.failed) == (0, 31)


async def test_line_that_was_rejected_may_change(folder: Folder) -> None:
    """It has no run; one that failed with a run, beside it, may not."""
    pairs = [("a", rejected("a", tread={})), ("b", rejected("bad")), ("c", rejected("c"))]
    await folder.batch(assistant=ECHO).run(pairs, out=folder.out)

    pairs[0] = ("a", rejected("a"))
    status = await folder.batch(assistant=ECHO).run(pairs, out=folder.out)
    pairs[1] = ("b", rejected("good"))
    with pytest.raises(BatchError, match="custom_id 'b', is not what it was"):
        await folder.batch(assistant=ECHO).run(pairs, out=folder.out)

    assert (status.completed, status.failed) == (2, 1)
    assert [one["custom_id"] for one in errors_of(folder.path)] == ["b"]


async def test_line_that_changes_leaves_the_file_of_errors_to_those_that_fail_now(
    folder: Folder,
) -> None:
    """The file is written anew while the batch is at work, and no line of it is lost."""
    pairs = [(name, rejected(name, tread={})) for name in ("a", "b")]
    await folder.batch(assistant=ECHO).run([*pairs, ("c", rejected("c"))], out=folder.out)

    pairs[1] = ("b", rejected("b"))
    await folder.batch(assistant=ECHO, concurrency=1).run(
        [("d", rejected("bad d")), pairs[0], pairs[1], ("e", rejected("bad e"))], out=folder.out
    )

    assert [one["custom_id"] for one in errors_of(folder.path)] == ["a", "d", "e"]


async def test_custom_id_that_comes_twice_is_named_with_both_lines(folder: Folder) -> None:
    """Nothing is sent before: all lines of a file are checked first."""
    line = batch_line("a", folder.server.assistant_id, "hello")
    write_lines(folder.source, [line, batch_line("b", folder.server.assistant_id, "x"), line])
    requests = folder.server.requests

    with pytest.raises(BatchError, match="lines 1 and 3 of the input have the same custom_id 'a'"):
        await folder.run()

    assert folder.server.requests == requests


ECHO = {"model": "echo", "instructions": "Repeat."}


def anonymous(*texts: str) -> list[tuple[str, dict[str, Any]]]:
    """Return pairs whose bodies name no assistant."""
    pairs = [(text, {"role": "user", "content": text}) for text in texts]
    return [(text, {"thread": {"messages": [message]}}) for text, message in pairs]


async def test_lines_without_an_assistant_get_that_of_the_batch(folder: Folder) -> None:
    """It is made once for the checkpoint; a line that names one keeps it."""
    pairs = anonymous("one", "two")
    named = batch_line("", folder.server.assistant_id, "three")["body"]

    await folder.batch(assistant=ECHO).run(pairs[:1], out=folder.out)
    await folder.batch(assistant=ECHO).run([*pairs, ("three", named)], out=folder.out)

    runs = {one["custom_id"]: one["response"]["body"] for one in results_of(folder.out)}
    assert runs["one"]["assistant_id"] == runs["two"]["assistant_id"]
    assert runs["one"]["assistant_id"] != folder.server.assistant_id
    assert runs["one"]["instructions"] == "Repeat."
    assert runs["three"]["assistant_id"] == folder.server.assistant_id
    assert await anyio.to_thread.run_sync(folder.server.count, "assistants") == 2


async def test_assistant_of_other_settings_is_an_error(folder: Folder) -> None:
    """Results of two assistants in one file would look the same."""
    await folder.batch(assistant=ECHO).run(anonymous("one"), out=folder.out)
    other = {**ECHO, "instructions": "Shout."}

    with pytest.raises(BatchError, match="the settings of the assistant are not what they were"):
        await folder.batch(assistant=other).run(anonymous("one", "two"), out=folder.out)


async def test_assistant_that_the_server_refuses_may_be_mended(folder: Folder) -> None:
    """No line has failed, and the checkpoint takes the other settings."""
    wrong = {"model": "echo", "temperature": 99}
    with pytest.raises(BadRequestError):
        await folder.batch(assistant=wrong).run(anonymous("one"), out=folder.out)

    status = await folder.batch(assistant=ECHO).run(anonymous("one"), out=folder.out)

    assert (status.completed, status.failed) == (1, 0)


async def test_line_without_any_assistant_is_an_error(folder: Folder) -> None:
    """It is named; of a CSV file it is the template, before anything is sent."""
    source = folder.path / "in.csv"
    source.write_text("q\nhello\n")
    requests = folder.server.requests

    with pytest.raises(BatchError, match="line 1 of the input: body has no assistant_id"):
        await folder.batch().run(anonymous("one"), out=folder.out)
    with pytest.raises(BatchError, match="^rows have no assistant_id: put one into the body, or"):
        await folder.batch().run(read_csv(source, {"instructions": "{q}"}), out=folder.out)

    assert folder.server.requests == requests


async def test_assistant_needs_a_model(folder: Folder) -> None:
    """It is known before anything is opened."""
    with pytest.raises(ValueError, match="assistant has no model"):
        folder.batch(assistant={"instructions": "Repeat."})


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


async def test_stop_before_the_first_line_ends_the_wait_for_a_server_that_is_silent(
    tmp_path: Path,
) -> None:
    """The assistant of the batch is asked for in vain; nothing is in progress."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(SocketAttribute.local_port)
    async with (
        listener,
        AsyncClient(f"http://127.0.0.1:{port}/v1", api_key=None) as client,
        anyio.create_task_group() as group,
    ):
        batch = Batch(client, checkpoint=tmp_path / "batch.db", assistant=ECHO)

        async def stop(stream: SocketStream) -> None:
            async with stream:
                batch.stop()
                await anyio.sleep_forever()

        group.start_soon(listener.serve, stop)
        with anyio.fail_after(30):
            status = await batch.run([("a", "Hello")], out=tmp_path / "out.jsonl")
        group.cancel_scope.cancel()

    assert (status.completed, status.failed) == (0, 0)


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


@asynccontextmanager
async def other_server() -> AsyncIterator[AsyncClient]:
    """Yield a client of a server that knows nothing of the batch."""
    async with (
        LocalServer(backend=EchoBackend()) as other,
        AsyncClient(other.url, api_key=None) as client,
    ):
        yield client


async def test_other_server_ends_the_batch_before_a_line_is_begun(folder: Folder) -> None:
    """It does not know the assistant of the batch; on the first one the same call goes on."""
    await folder.batch(assistant=ECHO).run(anonymous("one"), out=folder.out)
    pairs = anonymous("one", "two", "three")

    async with other_server() as client:
        batch = Batch(client, checkpoint=folder.checkpoint, assistant=ECHO)
        with pytest.raises(BatchError, match=r"does not know asst_.*the one of the last start\?"):
            await batch.run(pairs, out=folder.out)

    assert errors_of(folder.path) == []
    assert (await folder.batch(assistant=ECHO).run(pairs, out=folder.out)).completed == 3


async def test_other_server_ends_the_batch_where_a_line_was_begun(
    folder: Folder, backend: Moody
) -> None:
    """It does not know the thread and the run; the line stays open, and has one run in the end."""
    folder.write(a="wait")
    async with anyio.create_task_group() as group:
        group.start_soon(folder.run)
        await backend.waiting.wait()
        group.cancel_scope.cancel()
    backend.open.set()

    async with other_server() as client:
        batch = Batch(client, checkpoint=folder.checkpoint)
        with pytest.raises(BatchError, match=r"does not know thread_.*the one of the last start\?"):
            await batch.run(read_jsonl(folder.source), out=folder.out)

    assert errors_of(folder.path) == []
    assert (await folder.run()).completed == 1
    assert await anyio.to_thread.run_sync(folder.server.count, "runs") == 1


async def test_assistant_that_is_deleted_meanwhile_ends_the_batch(
    folder: Folder, backend: Moody
) -> None:
    """The lines after it stay open: no other would fare better."""
    batch = folder.batch(assistant=ECHO, concurrency=1)

    async def work() -> None:
        with pytest.raises(BatchError, match="does not know asst_"):
            await batch.run(anonymous("wait", "next", "last"), out=folder.out)

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        await backend.waiting.wait()
        (made, *_) = (await folder.client.assistants.list(limit=1, order="desc")).data
        await folder.client.assistants.delete(made.id)
        backend.open.set()

    assert errors_of(folder.path) == []
    assert len(folder.results()) == 1


async def test_assistant_of_a_line_that_was_missing_may_be_there_at_the_next_start(
    folder: Folder,
) -> None:
    """Another server was asked, where the line failed: `retry_failed` sends it again."""
    folder.write(a="hello")
    async with other_server() as client:
        batch = Batch(client, checkpoint=folder.checkpoint)
        wrong = await batch.run(read_jsonl(folder.source), out=folder.out)
    assert [reason[:3] for reason in wrong.reasons] == ["404"]

    right = await folder.run(retry_failed=True)

    assert (right.completed, right.failed) == (1, 0)


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
