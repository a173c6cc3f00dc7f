"""A failed run names the endpoint of its model, and what to look at."""

import json

import pytest

from openai_runs.config import RetryPolicy
from tests.server.backends.chat.test_backend import Ask, Stalled, answer, ask, endpoint
from tests.server.backends.chat.test_reader import DONE, HEAD, chunk

__all__ = ["ask"]


async def test_failure_names_the_endpoint_without_its_secrets(
    ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    """In the run and in the log: the URL without credentials, and what the endpoint said in one."""
    caplog.set_level("INFO")
    async with endpoint(answer({"error": {"message": "said of a prompt"}}, 500)) as used:
        shown = used.url
        used.url = used.url.replace("//", "//me:pass-word@")
        _, run = await ask(used, api_key=None)

    message = (
        f"The model endpoint {shown.replace('//', '//***@')} answered HTTP 500: said of a prompt"
    )
    assert run["last_error"]["message"] == message
    assert (
        f"run {run['id']}: the model endpoint {shown.replace('//', '//***@')} failed: HTTP 500"
        in (caplog.text)
    )
    assert "prompt" not in caplog.text
    assert "pass-word" not in caplog.text + json.dumps(run)


SECRET = chunk(content="said of a prompt")
UNFINISHED = HEAD.replace(b"connection: close", b"content-length: 99999\r\nconnection: close")
CAUSES: dict[str, tuple[bytes, str]] = {
    "cut": (HEAD + SECRET, "The model's answer ended without a reason"),
    "silent": (Stalled(HEAD + SECRET), "The model endpoint did not answer within 0.1 s, after it"),
    "lost": (UNFINISHED + SECRET, "lost"),
    "empty": (HEAD + DONE, "the answer was empty"),
    "no answer": (answer(b"said of a prompt"), "it sent no chat completion"),
    "a word": (HEAD + SECRET + chunk(finish="prompted"), "an unknown finish reason"),
    "an error": (answer({"error": {"message": "said of a prompt"}}), "server_error"),
}


@pytest.mark.parametrize("how", CAUSES)
async def test_log_says_why_a_model_failed_and_quotes_nothing(
    ask: Ask, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """In the words of the run where they are ours."""
    reply, words = CAUSES[how]
    caplog.set_level("INFO")
    async with endpoint(reply) as used:
        await ask(used, idle_timeout=0.1, retry=RetryPolicy(max_retries=0))
    (record,) = (one for one in caplog.records if "the model endpoint" in one.getMessage())

    assert words in record.getMessage()
    assert "prompt" not in caplog.text


@pytest.mark.parametrize(
    ("listed", "known"),
    [
        (["phi4", "qwen3"], " It lists phi4, qwen3."),
        (
            [f"phi{number}" for number in range(9)],
            " It lists phi8, phi7, phi6, phi5, phi4 and 4 more.",
        ),
        ([], ""),
        (None, ""),
    ],
    ids=["few", "many", "none", "no list"],
)
async def test_unknown_model_names_those_that_are_there(
    ask: Ask, listed: list[str] | None, known: str
) -> None:
    """What the endpoint lists is said where it does not have the model that a run names."""
    async with endpoint(answer({"error": {"message": "model 'phi9' not found"}}, 404)) as used:
        used.models = listed
        _, run = await ask(used, model="phi9")

    message = f"The model endpoint {used.url} answered HTTP 404: model 'phi9' not found"
    assert run["last_error"]["message"] == (f"{message}.{known}" if known else message)


async def test_url_without_a_path_may_lack_v1(ask: Ask) -> None:
    """An endpoint that does not know the path is asked for with one that has /v1."""
    async with endpoint(answer(b"404 page not found", 404)) as used:
        used.url = used.url.removesuffix("/v1")
        _, run = await ask(used)

    assert run["last_error"]["message"] == (
        f"The model endpoint {used.url} answered HTTP 404: 404 page not found. "
        f"Is the path /v1 missing, as in {used.url}/v1?"
    )


async def test_missing_key_is_asked_for(ask: Ask) -> None:
    """A 401 says that the server has no key, and where to name one."""
    async with endpoint(answer({"error": {"message": "no key"}}, 401)) as used:
        _, run = await ask(used, api_key=None)

    assert run["last_error"]["message"] == (
        f"The model endpoint {used.url} wants a key, and the server has none (HTTP 401): "
        "name one with --model-key-env, or ChatBackend(api_key=)."
    )
