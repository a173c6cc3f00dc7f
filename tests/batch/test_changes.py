"""A start that is not like an earlier one: what has changed is named, with what helps."""

from __future__ import annotations

from typing import Any

import anyio.to_thread
import pytest

from openai_runs.batch import BatchError, read_csv
from tests.batch.batching import ECHO, Folder, anonymous, results_of

LONG = {"instructions": "{q}", "metadata": {"note": "x" * 300}}
"""A template whose JSON is too long to be shown."""
TEMPLATES: dict[str, tuple[Any, str]] = {
    "a prompt": ("Say {q}", "'Say {q}'; put that back, or begin with another checkpoint"),
    "a body": ({"instructions": "{q}"}, r'{"instructions":"{q}"}; put that back'),
    "a prompt and more": (
        {"model": "echo", "thread": {"messages": [{"role": "user", "content": "{q}"}]}},
        r'{"model":"echo","thread":{"messages":[{"content":"{q}","role":"user"}]}}; put',
    ),
    "a long body": (LONG, "xxx...; put that back"),
}


@pytest.mark.parametrize("name", TEMPLATES)
async def test_template_of_the_last_start_is_shown(folder: Folder, name: str) -> None:
    """Whoever changed it may put it back; another custom_id would be no help."""
    first, words = TEMPLATES[name]
    source = folder.path / "in.csv"
    source.write_text("q\nhello\n")
    await folder.batch(assistant=ECHO).run(read_csv(source, first), out=folder.out)

    with pytest.raises(BatchError) as raised:
        await folder.batch().run(read_csv(source, "{q}!"), out=folder.out)

    assert words in str(raised.value)
    assert "custom_id," not in str(raised.value)


MOVED = {
    "on top": "q\nzero\none\ntwo\n",
    "sorted": "q\ntwo\none\n",
    "removed": "q\ntwo\n",
    "changed": "q\none\nTwo\n",
}


@pytest.mark.parametrize("name", MOVED)
async def test_row_that_is_known_by_its_line_may_have_moved(folder: Folder, name: str) -> None:
    """A column with the ids is the way out."""
    source = folder.path / "in.csv"
    source.write_text("q\none\ntwo\n")
    await folder.batch(assistant=ECHO).run(read_csv(source, "{q}"), out=folder.out)
    source.write_text(MOVED[name])

    with pytest.raises(BatchError, match=r"inserted, removed or sorted.*, with id_column"):
        await folder.batch().run(read_csv(source, "{q}"), out=folder.out)


async def test_row_with_an_id_has_not_moved(folder: Folder) -> None:
    """It may have another id."""
    source = folder.path / "in.csv"
    source.write_text("custom_id,q\na,one\n")
    await folder.batch(assistant=ECHO).run(read_csv(source, "{q}"), out=folder.out)
    source.write_text("custom_id,q\na,two\n")

    with pytest.raises(BatchError, match="its row has changed; give it another custom_id, or"):
        await folder.batch().run(read_csv(source, "{q}"), out=folder.out)


ASSISTANTS: dict[str, tuple[Any, str]] = {
    "another model": ({**ECHO, "model": "phi4"}, "model was 'echo', is 'phi4'; give what it"),
    "other instructions": ({**ECHO, "instructions": "No."}, "instructions was 'Repeat.', is 'No.'"),
    "no instructions": ({"model": "echo"}, "instructions was 'Repeat.', is not given"),
    "one that is there": ("asst_1", "it was made, of the model 'echo', and is one that is there"),
}


@pytest.mark.parametrize("name", ASSISTANTS)
async def test_setting_of_the_assistant_that_has_changed_is_named(
    folder: Folder, name: str
) -> None:
    """With what it was and is."""
    wanted, words = ASSISTANTS[name]
    await folder.batch(assistant=ECHO).run(anonymous("one"), out=folder.out)

    with pytest.raises(BatchError) as raised:
        await folder.batch(assistant=wanted).run(anonymous("one"), out=folder.out)

    assert words in str(raised.value)


async def test_lines_get_the_assistant_of_the_first_start_where_none_is_given(
    folder: Folder,
) -> None:
    """The checkpoint knows it."""
    await folder.batch(assistant=ECHO).run(anonymous("one"), out=folder.out)

    status = await folder.batch().run(anonymous("one", "two"), out=folder.out)

    runs = [one["response"]["body"] for one in results_of(folder.out)]
    assert status.completed == 2
    assert len({run["assistant_id"] for run in runs}) == 1
    assert await anyio.to_thread.run_sync(folder.server.count, "assistants") == 2
