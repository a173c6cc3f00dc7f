"""A real model, small as it is, is asked through our client and `openai-runs serve`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from openai_runs import AsyncClient, Run, await_run
from openai_runs.types.events import MessageDeltaEvent
from tests.canaries import CANARY_KEY
from tests.e2e.referee import environments

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
CAPITAL = "What is the capital of France?"
"""What even this model knows."""

pytestmark = [pytest.mark.model, pytest.mark.timeout(300)]


@contextmanager
def started(command: list[str]) -> Iterator[str]:
    """Start a process that prints its URL at the end of its first line; yield that."""
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.kill()


@pytest.fixture(scope="module")
def model() -> Iterator[str]:
    """Yield the URL of the model, from an environment that is made if there is none."""
    environments.make(environments.SMALL_MODEL)
    python = environments.python(environments.SMALL_MODEL)
    with started([str(python), str(HERE / "serving.py")]) as url:
        yield f"{url}/v1"


@pytest.fixture(scope="module")
def server(model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the URL of `openai-runs serve` in front of the model."""
    db = tmp_path_factory.mktemp("model") / "runs.db"
    command = [sys.executable, "-m", "openai_runs", "serve", "--port", "0", "--db", str(db)]
    with started([*command, "--model-url", model]) as url:
        yield url


@pytest.fixture
async def client(server: str) -> AsyncIterator[AsyncClient]:
    """Yield a client of the server."""
    async with AsyncClient(server, api_key=CANARY_KEY) as one:
        yield one


async def asked(client: AsyncClient, question: str, **fields: Any) -> dict[str, Any]:
    """Return what starts a run that answers a question on a new thread."""
    assistant = await client.assistants.create(model="smollm2", instructions="Be brief.")
    thread = await client.threads.create(messages=[{"role": "user", "content": question}])
    return {"thread_id": thread.id, "assistant_id": assistant.id, **fields}


async def ended(client: AsyncClient, run: Run) -> tuple[Run, str]:
    """Return the run at its end, and what it has written."""
    run = await await_run(client, run, timeout=120)
    messages = await client.messages.list(run.thread_id, run_id=run.id)
    return run, "".join(message.text for message in messages.data)


async def test_question_is_answered_when_a_real_model_is_asked(client: AsyncClient) -> None:
    """Its words, and its own count of tokens."""
    run, text = await ended(client, await client.runs.create(**await asked(client, CAPITAL)))

    assert run.status == "completed"
    assert "Paris" in text
    assert run.usage is not None
    assert run.usage.prompt_tokens > 10
    assert run.usage.completion_tokens > 3


async def test_thread_goes_on_when_a_real_model_has_answered(client: AsyncClient) -> None:
    """Question and answer are sent with the next question."""
    fields = await asked(client, CAPITAL)
    first, _ = await ended(client, await client.runs.create(**fields))
    question = {"role": "user", "content": "And what is the capital of Germany?"}

    second, text = await ended(
        client, await client.runs.create(**fields, additional_messages=[question])
    )

    assert second.status == "completed"
    assert "Berlin" in text
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.prompt_tokens > first.usage.prompt_tokens


async def test_deltas_are_the_answer_when_a_real_model_is_streamed(client: AsyncClient) -> None:
    """What comes in pieces is what is stored."""
    async with client.runs.stream(**await asked(client, CAPITAL)) as stream:
        pieces = [e.data.text async for e in stream if isinstance(e, MessageDeltaEvent)]
        result = await stream.result()

    assert len(pieces) > 2
    assert "".join(pieces) == result.text
    assert "Paris" in result.text
    assert result.run.status == "completed"


@pytest.mark.parametrize(
    ("name", "what"), [("weather", "Oslo"), ("weather", "New York"), ("forecast", "Rome")]
)
@pytest.mark.parametrize("streamed", [False, True], ids=["polled", "streamed"])
async def test_tool_is_called_when_a_real_model_asks_for_it(
    client: AsyncClient, name: str, what: str, streamed: bool
) -> None:
    """The arguments that it wrote reach the function, and the output reaches the model."""
    calls: list[str] = []

    async def called(of: str) -> str:
        calls.append(of)
        return f"It is fine in {of} today."

    called.__name__ = name
    called.__doc__ = f"Return the {name}."
    fields = await asked(client, f"Use the tool {name} for {what}.")
    options: dict[str, Any] = {"tools": [called], "timeout": 120}
    if streamed:
        async with client.runs.stream(**fields, **options) as stream:
            result = await stream.result()
    else:
        result = await client.runs.run_tools(**fields, **options)

    assert result.run.status == "completed"
    assert calls == [what]
    assert result.text
    pages = client.runs.steps.list(result.run.id, thread_id=result.run.thread_id)
    assert {step.type async for step in pages} == {"tool_calls", "message_creation"}


async def test_run_is_incomplete_when_a_real_model_meets_its_limit(client: AsyncClient) -> None:
    """The text up to there is kept."""
    fields = await asked(
        client, "Write a very long story, of many chapters.", max_completion_tokens=256
    )

    run, text = await ended(client, await client.runs.create(**fields))

    assert run.status == "incomplete"
    assert run.incomplete_details is not None
    assert run.incomplete_details.reason == "max_completion_tokens"
    assert text


async def test_model_is_free_when_its_run_is_cancelled(client: AsyncClient) -> None:
    """It takes one question at a time: the next would wait for a story that nobody reads."""
    story = await asked(client, "Count from one to one thousand, each number on its own line.")
    async with client.runs.stream(**story) as stream:
        async for event in stream:
            if isinstance(event, MessageDeltaEvent):
                break
        assert stream.run is not None
        await client.runs.cancel(stream.run.id, thread_id=stream.run.thread_id)
    with anyio.fail_after(60):
        run, text = await ended(client, await client.runs.create(**await asked(client, CAPITAL)))

    assert run.status == "completed"
    assert "Paris" in text


async def test_oldest_are_left_out_when_the_context_of_a_real_model_is_full(
    client: AsyncClient,
) -> None:
    """It refuses what is longer than its context; the question is answered all the same."""
    fields = await asked(client, CAPITAL)
    for number in range(12):
        for role in ("user", "assistant"):
            text = f"Remark {number}. " + "The weather was fine and everybody went out. " * 6
            await client.messages.create(fields["thread_id"], role=role, content=text)
    question = {"role": "user", "content": CAPITAL}

    run, text = await ended(
        client, await client.runs.create(**fields, additional_messages=[question])
    )

    assert run.last_error is None
    assert run.status == "completed"
    assert text
