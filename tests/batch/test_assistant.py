"""The assistant of a batch, which lines get that name none."""

from __future__ import annotations

import anyio.to_thread
import pytest

from openai_runs import BadRequestError
from openai_runs.batch import BatchError, read_csv
from tests.batch.batching import ECHO, Folder, anonymous, batch_line, results_of


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

    with pytest.raises(BatchError, match="the assistant is not what it was at the first start"):
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


async def test_lines_without_an_assistant_get_one_that_is_there(folder: Folder) -> None:
    """None is made, and the next start gives the same."""
    given = folder.server.assistant_id

    for pairs in (anonymous("one"), anonymous("one", "two")):
        await folder.batch(assistant=given).run(pairs, out=folder.out)

    runs = [one["response"]["body"] for one in results_of(folder.out)]
    assert [run["assistant_id"] for run in runs] == [given, given]
    assert await anyio.to_thread.run_sync(folder.server.count, "assistants") == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param("given", "other", id="another-id"),
        pytest.param("given", ECHO, id="one-to-make"),
        pytest.param(ECHO, "given", id="one-that-is-there"),
    ],
)
async def test_assistant_that_is_not_that_of_the_first_start_is_an_error(
    folder: Folder, first: object, second: object
) -> None:
    """Results of two assistants in one file would look the same."""
    made = await folder.client.assistants.create(model="echo")
    ids = {"given": folder.server.assistant_id, "other": made.id}
    one, other = (ids[each] if isinstance(each, str) else each for each in (first, second))
    await folder.batch(assistant=one).run(anonymous("one"), out=folder.out)

    with pytest.raises(BatchError, match="the assistant is not what it was at the first start"):
        await folder.batch(assistant=other).run(anonymous("one", "two"), out=folder.out)


async def test_assistant_that_is_not_there_ends_the_batch_before_its_first_line(
    folder: Folder,
) -> None:
    """No line fails, and the checkpoint takes the right one."""
    with pytest.raises(BatchError, match="this server has no assistant asst_gone"):
        await folder.batch(assistant="asst_gone").run(anonymous("one"), out=folder.out)

    status = await folder.batch(assistant=ECHO).run(anonymous("one"), out=folder.out)

    assert (status.completed, status.failed) == (1, 0)


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        pytest.param(ECHO, "batch batch", id="of-the-checkpoint"),
        pytest.param({**ECHO, "name": "Ada"}, "Ada", id="given"),
    ],
)
async def test_assistant_that_a_batch_makes_has_a_name(
    folder: Folder, settings: dict[str, str], wanted: str
) -> None:
    """It is known in a list of assistants by the name of the checkpoint."""
    await folder.batch(assistant=settings).run(anonymous("one"), out=folder.out)

    page = await folder.client.assistants.list(limit=1)
    assert page.data[0].name == wanted
