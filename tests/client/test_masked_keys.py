"""A key that a server quotes is in no part of an error, however it is written there."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from openai_runs import APIStatusError, AsyncClient, OpenAIRunsError
from tests.client.ledger import error
from tests.support import Answer, HostileServer, ManualClock

CANARY = "cAn/ary=012+3456&789"
ESCAPED = {
    "literal": CANARY,
    "slashes": CANARY.replace("/", "\\/"),
    "all of it": "".join(f"\\u{ord(one):04X}" for one in CANARY),
    "percent": "".join(f"%{ord(one):02x}" for one in CANARY),
    "HTML": CANARY.replace("&", "&amp;").replace("/", "&#x2F;"),
    "JSON in JSON": CANARY.replace("/", "\\\\\\/").replace("&", "\\\\u0026"),
}
STREAM_HEAD = {"Content-Type": "text/event-stream"}


def answers_with(key: str) -> dict[str, Answer]:
    """Return the answers that quote a key, in each place of which something is shown."""
    return {
        "message": Answer(401, body=f'{{"error": {{"message": "no {key}"}}}}'.encode()),
        "other fields": Answer(
            403, body=f'{{"error": {{"message": "m", "code": "{key}", "{key}": 1}}}}'.encode()
        ),
        "a page": Answer(401, body=f"<p>{'x' * 185}{key}</p>".encode()),
        "no JSON": Answer(body=f"<p>{key}</p>".encode()),
        "a wrong value": Answer(body=f'{{"id": "run_1", "object": "{key}"}}'.encode()),
        "not UTF-8": Answer(body=key.encode() + b"\xff"),
        "an error event": Answer(
            headers=STREAM_HEAD,
            body=f'event: error\ndata: {{"error": {{"message": "no {key}"}}}}\n\n'.encode(),
        ),
        "a broken event": Answer(
            headers=STREAM_HEAD,
            body=f'event: thread.run.created\ndata: {{"id": 5, "x": "{key}"}}\n\n'.encode(),
        ),
    }


async def read_run(client: AsyncClient) -> None:
    """Ask for a run."""
    await client.runs.retrieve("run_1", thread_id="thread_1")


async def read_stream(client: AsyncClient) -> None:
    """Read the stream of a new run."""
    async with client.runs.stream("thread_1", assistant_id="a") as stream:
        await stream.until_done()


@pytest.mark.parametrize("place", answers_with(""))
@pytest.mark.parametrize("written", ESCAPED.values(), ids=ESCAPED)
async def test_quoted_key_is_in_no_part_of_an_error(place: str, written: str) -> None:
    """Neither as it is nor escaped: in text, arguments, attributes, causes, contexts, pickles."""
    async with (
        HostileServer(lambda _: answers_with(written)[place]) as server,
        AsyncClient(server.url, lambda: CANARY, seams=ManualClock().runtime()) as client,
    ):
        with pytest.raises(OpenAIRunsError) as caught:
            await (read_stream if "event" in place else read_run)(client)

    told, problem = "", caught.value
    errors: list[BaseException | None] = [problem]
    while errors:
        one = errors.pop()
        if one is not None:
            errors += [one.__cause__, one.__context__]
            told += f"{one} {one!r} {one.args!r} {vars(one)!r}"
    told += repr(pickle.loads(pickle.dumps(problem)).__dict__)
    for text in (CANARY, written, CANARY[:10], "cAn\\/ary", "cAn&#x2F;", "\\u0063\\u0041"):
        assert text not in told


@pytest.mark.parametrize("where", ["default_headers", "extra_headers", "default_query"])
async def test_credentials_elsewhere_are_masked_too(where: str) -> None:
    """Those in headers and query parameters that are named like one."""
    answer = error(401, f"no {CANARY}")
    options: Any = {where: {"api-key": CANARY}} if where != "extra_headers" else {}
    extra: Any = {where: {"x-api-key": CANARY}} if where == "extra_headers" else {}
    async with (
        HostileServer(lambda _: answer) as server,
        AsyncClient(server.url, None, **options) as client,
    ):
        with pytest.raises(APIStatusError, match=r"no \*\*\*") as caught:
            await client.runs.retrieve("run_1", thread_id="thread_1", **extra)

    assert CANARY not in repr(vars(caught.value))
