"""The chat backend, in front of endpoints of every mood."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from openai_runs.config import RetryPolicy
from openai_runs.errors import ConfigError
from openai_runs.server import ChatBackend
from tests.canaries import CANARY_KEY
from tests.server.backends.listening import listening
from tests.server.conftest import Serve
from tests.server.support import FUNCTION, Caller

KEY = CANARY_KEY
QUICK = RetryPolicy(initial=0.0)


def completion(
    content: str | None = "Hello back.", finish: str = "stop", **message: Any
) -> dict[str, Any]:
    """Return a chat completion."""
    return {
        "id": "c1",
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, **message},
                "finish_reason": finish,
            }
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }


def answer(body: Any, status: int = 200, *headers: str) -> bytes:
    """Return an HTTP answer."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [f"HTTP/1.1 {status} X", f"content-length: {len(content)}", "connection: close"]
    return "\r\n".join([*head, *headers, "", ""]).encode() + content


class Stalled(bytes):
    """The beginning of an answer that never goes on."""


class Pinging(bytes):
    """An answer after which comments come until the client is gone."""


class Endpoint:
    """A model endpoint on a bare socket: what it sends is what the test says."""

    def __init__(self, answers: list[bytes | None]) -> None:
        self.answers = answers
        self.requests: list[tuple[str, Any]] = []
        self.models: list[str] | None = None
        """What its list of models has; None: there is no list."""
        self.url = ""
        self.asked = anyio.Event()

    def reply_to(self, body: Any) -> bytes | None:
        """Return what a request is answered with."""
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    async def serve(self, stream: Any) -> None:
        """Read one request, send the next answer; None: hang until the client gives up."""
        async with stream:
            head, _, body = (await stream.receive()).partition(b"\r\n\r\n")
            if head.startswith(b"GET"):
                await stream.send(self._list())
                return
            lines = head.decode().lower().split("\r\n")
            length = next(int(x.split(":")[1]) for x in lines if x.startswith("content-length"))
            while len(body) < length:
                body += await stream.receive()
            self.requests.append((head.decode(), json.loads(body)))
            self.asked.set()
            reply = self.reply_to(self.requests[-1][1])
            if reply is not None:
                await stream.send(reply)
            while isinstance(reply, Pinging):
                await stream.send(b": ping\n\n")
                await anyio.sleep(0.05)
            if reply is None or isinstance(reply, Stalled):
                await stream.receive()  # until the other side hangs up

    def _list(self) -> bytes:
        listed = [{"id": name} for name in self.models or ()]
        return answer({"data": listed}, 404 if self.models is None else 200)


@asynccontextmanager
async def endpoint(
    *answers: bytes | None, kind: type[Endpoint] = Endpoint
) -> AsyncIterator[Endpoint]:
    """Open a model endpoint; the last answer is repeated."""
    used = kind(list(answers))

    async with listening(used.serve) as used.url:
        yield used


Ask = Callable[..., Awaitable[tuple[Caller, Any]]]


@pytest.fixture
async def ask(serve: Serve) -> Ask:
    """A function that puts a server in front of an endpoint and runs one run to its end."""

    async def run_once(used: Endpoint, *, fields: Any = None, **options: Any) -> tuple[Caller, Any]:
        options = {"api_key": KEY, "retry": QUICK, **options}
        caller = await serve(backend=ChatBackend(used.url, **options))
        return caller, await caller.settled(await caller.start("Hello", **(fields or {})))

    return run_once


async def test_text_is_asked_for_and_answered(ask: Ask) -> None:
    """System instructions first, the thread after them, the key in its header, usage counted."""
    async with endpoint(answer(completion())) as used:
        caller, run = await ask(used, fields={"instructions": "Be brief.", "model": "m1"})

    head, body = used.requests[0]
    assert head.startswith("POST /v1/chat/completions HTTP/1.1")
    assert f"authorization: bearer {KEY}".lower() in head.lower()
    assert body["model"] == "m1"
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
    ]
    assert body["tools"] == [FUNCTION]
    assert {"temperature", "top_p", "response_format", "reasoning_effort"}.isdisjoint(body)
    assert run["status"] == "completed"
    assert run["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    assert (await caller.messages(run))[-1]["content"][0]["text"]["value"] == "Hello back."


async def test_settings_of_the_run_are_passed_on(ask: Ask) -> None:
    """All that the run says about the call is in the call."""
    schema = {
        "type": "json_schema",
        "json_schema": {"name": "s", "schema": {"type": "object"}, "strict": True},
    }
    fields = {
        "temperature": 0,
        "top_p": 0.5,
        "max_completion_tokens": 300,
        "response_format": schema,
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "parallel_tool_calls": False,
        "reasoning_effort": "low",
        "truncation_strategy": {"type": "last_messages", "last_messages": 2},
        "additional_messages": [
            {"role": "assistant", "content": "Second"},
            {"role": "user", "content": "Third"},
        ],
    }
    async with endpoint(answer(completion())) as used:
        await ask(used, fields=fields, model="other", max_tokens_field="max_tokens")

    body = used.requests[0][1]
    assert body["model"] == "other"
    assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0, 0.5, 300)
    assert body["response_format"] == schema
    assert body["tool_choice"] == fields["tool_choice"]
    assert body["parallel_tool_calls"] is False
    assert body["reasoning_effort"] == "low"
    assert [m["content"] for m in body["messages"] if m["role"] != "system"] == ["Second", "Third"]


async def test_tool_calls_go_there_and_back(serve: Serve) -> None:
    """The calls wait for outputs; the next request shows both, under ids that pair them."""
    calls = [
        {"id": "call_a", "type": "function", "function": {"name": "weather", "arguments": "{bad"}},
        {"id": "call_a", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
    ]
    first = completion("Let me see.", "tool_calls", tool_calls=calls)
    async with endpoint(answer(first), answer(completion("Sunny."))) as used:
        caller = await serve(backend=ChatBackend(used.url))
        waiting = await caller.settled(await caller.start("Hello", tool_choice="required"))
        run = await caller.settled((await caller.submit(waiting, "22 C")).json)

    wanted = waiting["required_action"]["submit_tool_outputs"]["tool_calls"]
    ids = [call["id"] for call in wanted]
    body = used.requests[1][1]
    assert wanted[0]["function"] == {"name": "weather", "arguments": "{bad"}
    assert ids[0] == "call_a"
    assert len(set(ids)) == 2
    assert body["messages"][-3]["content"] == "Let me see."
    sent = [call["id"] for call in body["messages"][-3]["tool_calls"]]
    assert sent[0] == "call_a"
    assert len(set(sent)) == 2
    assert body["messages"][-2:] == [
        {"role": "tool", "tool_call_id": call_id, "content": "22 C"} for call_id in sent
    ]
    assert used.requests[0][1]["tool_choice"] == "required"
    assert "tool_choice" not in body
    assert run["status"] == "completed"
    assert run["usage"]["total_tokens"] == 20


async def test_images_are_passed_on_by_their_url(serve: Serve) -> None:
    """Parts stay parts; what has no URL fails with a reason instead of being left out."""
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    upload = {"type": "image_file", "image_file": {"file_id": "file_1"}}
    async with endpoint(answer(completion())) as used:
        caller = await serve(backend=ChatBackend(used.url))
        content = [{"type": "text", "text": "Look"}, image]
        seen = await caller.start(additional_messages=[{"role": "user", "content": content}])
        await caller.settled(seen)
        refused = await caller.start(additional_messages=[{"role": "user", "content": [upload]}])
        refused = await caller.settled(refused)

    assert used.requests[0][1]["messages"][-1]["content"][-1]["image_url"]["url"].endswith("a.png")
    assert len(used.requests) == 1
    assert refused["last_error"]["code"] == "invalid_prompt"


async def test_length_is_incomplete(ask: Ask) -> None:
    """What was written is kept, and nobody takes it for the whole."""
    async with endpoint(answer(completion("Half a", "length"))) as used:
        caller, run = await ask(used)

    message = (await caller.messages(run))[-1]
    assert run["incomplete_details"] == {"reason": "max_completion_tokens"}
    assert (message["status"], message["content"][0]["text"]["value"]) == ("incomplete", "Half a")


BROKEN: dict[str, tuple[bytes, str, str, int]] = {
    "401": (
        answer({"error": {"message": f"Incorrect key {KEY}"}}, 401),
        "server_error",
        "refused the server's key (HTTP 401)",
        1,
    ),
    "404": (answer({"error": {"message": "no such model"}}, 404), "server_error", "no such", 1),
    "400": (
        answer({"error": {"message": f"too long, {KEY}"}}, 400),
        "invalid_prompt",
        "HTTP 400: too long, ***",
        1,
    ),
    "fastapi": (
        answer({"detail": [{"loc": ["body", "model"], "msg": "unknown model"}]}, 422),
        "invalid_prompt",
        "HTTP 422: unknown model",
        1,
    ),
    "fastapi-text": (answer({"detail": "no room"}, 500), "server_error", "500: no room", 3),
    "flat": (answer({"message": "no\nsuch model"}, 404), "server_error", "no such model", 1),
    "429": (
        answer({"error": {"message": "slow down"}}, 429, "retry-after: 0"),
        "rate_limit_exceeded",
        "slow down",
        3,
    ),
    "429-for-long": (
        answer({}, 429, "retry-after: 9999"),
        "rate_limit_exceeded",
        "HTTP 429",
        1,
    ),
    "quota": (
        answer({"error": {"message": "pay", "code": "insufficient_quota"}}, 429),
        "rate_limit_exceeded",
        "pay",
        1,
    ),
    "500": (answer(b"<html>oops</html>", 500), "server_error", "HTTP 500", 3),
    "redirect": (
        answer(b"", 307, "location: http://127.0.0.1:1/"),
        "server_error",
        "HTTP 307",
        1,
    ),
    "html": (answer(b"<html>hello</html>"), "server_error", "no chat completion, but 'hello'", 1),
    "truncated-json": (
        answer(json.dumps(completion()).encode()[:-20]),
        "server_error",
        "no chat completion",
        1,
    ),
    "cut-off": (answer(completion()).replace(b"length: ", b"length: 9"), "server_error", "", 3),
    "empty": (answer(b""), "server_error", "the answer was empty", 3),
    "no-choices": (answer({"choices": []}), "server_error", "the answer was empty", 3),
    "wrong-shape": (answer({"choices": "many"}), "server_error", "no chat completion", 1),
    "nothing": (answer(completion(None)), "server_error", "the answer was empty", 3),
    "nameless": (
        answer(completion(None, tool_calls=[{"id": "a", "function": {"arguments": "{}"}}])),
        "server_error",
        "tool without a name",
        1,
    ),
    "deep": (answer(b'{"choices": ' + b"[" * 9_000), "server_error", "no chat completion", 1),
    "redirect-that-stays": (
        answer(b"", 308, "location: https://models.example/v1"),
        "server_error",
        "HTTP 308: a redirect, which is never followed",
        1,
    ),
    "no-http": (b"SSH-2.0-OpenSSH_9.0\r\n", "server_error", "failed: no proper HTTP: ", 3),
    "closed": (b"", "server_error", "closed the connection without an answer; did it stop", 3),
    "filtered": (answer(completion("Half", "content_filter")), "invalid_prompt", "filter", 1),
    "large": (
        answer(completion("x" * 20_000)),
        "server_error",
        "longer answer than is read",
        1,
    ),
}


@pytest.mark.parametrize("mood", BROKEN)
async def test_endpoint_that_fails_fails_the_run(
    ask: Ask, mood: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With a code, a reason and no key in it; nothing half is left as a completed message."""
    reply, code, words, attempts = BROKEN[mood]
    caplog.set_level("DEBUG")
    async with endpoint(reply) as used:
        caller, run = await ask(used, max_answer_bytes=10_000)

    assert run["status"] == "failed"
    assert run["last_error"]["code"] == code
    assert words in run["last_error"]["message"]
    assert len(used.requests) == attempts
    assert all(m["status"] == "incomplete" for m in (await caller.messages(run))[1:])
    assert KEY not in json.dumps(run)
    assert KEY not in caplog.text


async def test_endpoint_that_recovers_is_asked_again(ask: Ask) -> None:
    """A 500 and a lost connection are forgotten when the third attempt is answered."""
    async with endpoint(answer({}, 500), b"", answer(completion())) as used:
        _, run = await ask(used)

    assert run["status"] == "completed"
    assert len(used.requests) == 3


@pytest.mark.parametrize(
    "reply",
    [None, Stalled(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{")],
    ids=["silence", "drip"],
)
async def test_endpoint_that_hangs_fails_the_run(ask: Ask, reply: bytes | None) -> None:
    """Neither silence nor an answer that never ends holds a run up for ever."""
    async with endpoint(reply) as used:
        _, run = await ask(used, timeout=0.3)

    assert run["last_error"]["code"] == "server_error"
    assert "did not answer within 0.3 s" in run["last_error"]["message"]


async def test_endpoint_that_is_not_there_fails_the_run(ask: Ask) -> None:
    """A refused connection is tried again, and then told."""
    used = Endpoint([])
    used.url = "http://127.0.0.1:9"

    _, run = await ask(used)

    assert run["last_error"] == {
        "code": "server_error",
        "message": (
            "The model endpoint http://127.0.0.1:9 failed: no connection to 127.0.0.1:9: "
            "Connection refused; is it running?"
        ),
    }


async def test_cancelled_run_lets_go_of_the_endpoint(serve: Serve) -> None:
    """The connection is closed, not left to run out."""
    async with endpoint(None) as used:
        caller = await serve(backend=ChatBackend(used.url))
        run = await caller.reaches(await caller.start(), "in_progress")
        with anyio.fail_after(10):
            await used.asked.wait()
            await caller.post(f"/threads/{run['thread_id']}/runs/{run['id']}/cancel")
            ended = await caller.settled(run | {"status": "queued"})

    assert ended["status"] == "cancelled"


@pytest.mark.parametrize("url", ["", "ftp://x", "localhost:8080", "http://", "file:///etc"])
def test_url_of_no_endpoint_is_refused(url: str) -> None:
    """Only HTTP, and only with a host."""
    with pytest.raises(ConfigError, match=r"http\(s\) URL"):
        ChatBackend(url)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://x/v1/chat/completions/", "must end before /chat/completions"),
        ("http://x/v1?key=sk-hidden", "no query"),
        ("http://me:sk-hidden@x/v1#part", "no fragment"),
        ("http://x:99999/v1", "port"),
        ("http://x:a/v1", "port"),
        ("http://x\n/v1", "blanks"),
    ],
    ids=["whole", "query", "fragment", "port", "port-text", "line"],
)
def test_url_that_nothing_can_be_put_behind_is_refused(url: str, words: str) -> None:
    """Before any run meets it, and without what may be a secret."""
    with pytest.raises(ConfigError, match=words) as refused:
        ChatBackend(url)

    assert "sk-hidden" not in str(refused.value)


def test_key_is_not_shown() -> None:
    """Neither by `repr` nor by the attributes' own."""
    assert KEY not in repr(ChatBackend("http://localhost/v1", api_key=KEY))
