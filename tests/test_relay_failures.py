"""What a browser is shown of a run that failed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from openai_runs import AsyncClient, relay
from openai_runs.testing import RunsServer
from tests.relaying import frames_of, started


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("server_error", "The answer failed."),
        (
            "rate_limit_exceeded",
            "Too much is asked of the assistant at present: try again later.",
        ),
        ("invalid_prompt", "The assistant cannot answer this."),
        ("of_another_server", "The answer failed."),
    ],
)
async def test_browser_is_shown_why_a_run_failed(
    code: Any,
    words: str,
    runs_server: RunsServer,
    runs_client: AsyncClient,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The error's code, and a fixed sentence for it: its text may name hosts, and is logged."""
    text = "The model endpoint http://10.0.0.7/v1 failed."
    runs_server.fail(code, text)
    run = await started(runs_client)

    stream = runs_client.runs.follow(run.id, thread_id=run.thread_id)
    body = b"".join([part async for part in relay.sse(stream)])
    (record,) = [one for one in caplog.records if one.name == "openai_runs.relay"]

    failed = msgspec.json.decode(frames_of(body)[-2].data)
    assert failed["status"] == "failed"
    assert failed["last_error"] == {"code": code, "message": words}
    assert b"10.0.0.7" not in body
    assert text in record.getMessage()
    assert vars(record)["run_id"] == run.id


async def test_browser_is_shown_the_text_of_a_failed_run_where_it_is_shown_all(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """With `full`, as the server sent it."""
    runs_server.fail("server_error", "Too much at once.")
    run = await started(runs_client)

    stream = runs_client.runs.follow(run.id, thread_id=run.thread_id)
    seen = frames_of([part async for part in relay.sse(stream, full=True)])

    failed = msgspec.json.decode(seen[-2].data)
    assert failed["last_error"]["message"] == "Too much at once."
