"""How `openai-runs batch run` begins and ends: the first prompt, and what is left in the end."""

from __future__ import annotations

import signal
from pathlib import Path

import anyio.to_thread
import pytest

from tests.batch.batching import Moody, Site, launch, results_of
from tests.cli.processes import execute, finish
from tests.cli.test_batch import FILES, backend, server, write

__all__ = ["backend", "server"]

LEFT = "all starts: 1 completed, 0 failed; 2 left, 1 of them begun: the same command goes on; "


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["term", "hup"])
async def test_signal_that_ends_a_batch_says_what_is_left(
    tmp_path: Path, server: Site, backend: Moody, number: signal.Signals
) -> None:
    """As Ctrl-C does, and where the results are."""
    write(tmp_path, server, "one", "wait", "last")
    process = await launch(tmp_path, server.url, "--concurrency", "1")
    await backend.waiting.wait()
    process.send_signal(number)
    done = await finish(process)
    backend.open.set()

    assert done.code == 128 + number
    assert "this start: 1 done" in done.err
    assert LEFT in done.err
    assert done.err.endswith("results in out.jsonl\n")
    assert (await finish(await launch(tmp_path, server.url))).code == 0


async def test_signal_before_anything_is_done_says_what_is_left(
    tmp_path: Path, server: Site, backend: Moody
) -> None:
    """There is a run, and the same command waits for it."""
    write(tmp_path, server, "wait")
    process = await launch(tmp_path, server.url)
    await backend.waiting.wait()
    process.send_signal(signal.SIGTERM)
    done = await finish(process)
    backend.open.set()

    assert done.code == 128 + signal.SIGTERM
    assert "0 completed, 0 failed; 1 left, 1 of them begun: the same command goes on" in done.err


async def test_error_that_ends_a_batch_says_what_is_left(tmp_path: Path, server: Site) -> None:
    """The sentence of the error comes last."""
    write(tmp_path, server, "one", "bad", "last")

    options = ["--concurrency", "1", "--max-failures", "1"]
    done = await finish(await launch(tmp_path, server.url, *options))

    assert done.code == 1
    assert "all starts: 1 completed, 1 failed; 1 left: the same command goes on; " in done.err
    assert done.err.splitlines()[-1].startswith("openai-runs: stopped after 1 failure")


PROMPTS = {
    "a value": ("Say {q}", "the first prompt: Say one\n"),
    "an open brace": ("Say {q} {Question text", "the first prompt: Say one {Question text\n"),
    "no column": ("{the question} {q}", "the first prompt: {the question} one\n"),
    "lines": ("Say\n{q}", "the first prompt: Say one\n"),
    "long": ("{q} " + 400 * "x", "the first prompt: one xxx"),
}


@pytest.mark.parametrize("name", PROMPTS)
async def test_first_prompt_is_shown_as_it_is_sent(tmp_path: Path, server: Site, name: str) -> None:
    """Before all the others are paid for; where all is done, it is not."""
    prompt, words = PROMPTS[name]
    (tmp_path / "in.csv").write_text("q\none\n")
    options = [*FILES, "--prompt", prompt, "--model", "echo", "--base-url", server.url]

    done = await execute("batch", "run", "in.csv", *options, folder=tmp_path)
    again = await execute("batch", "run", "in.csv", *options, folder=tmp_path)

    assert (done.code, again.code) == (0, 0)
    assert words in done.err
    assert max(map(len, done.err.splitlines())) < 400
    assert "the first prompt" not in again.err


async def test_head_of_a_file_is_tried_on_the_checkpoint_of_the_whole(
    tmp_path: Path, server: Site
) -> None:
    """Its rows are not sent again."""
    options = [*FILES, "--prompt", "{q}", "--model", "echo", "--base-url", server.url]
    (tmp_path / "head.csv").write_text("q\none\ntwo\n")
    (tmp_path / "in.csv").write_text("q\none\ntwo\nthree\n")

    head = await execute("batch", "run", "head.csv", *options, folder=tmp_path)
    whole = await execute("batch", "run", "in.csv", *options, folder=tmp_path)

    assert (head.code, whole.code) == (0, 0)
    assert "2 of 3 lines done" in whole.err
    assert len(results_of(tmp_path / "out.jsonl")) == 3
    assert await anyio.to_thread.run_sync(server.count, "runs") == 3
