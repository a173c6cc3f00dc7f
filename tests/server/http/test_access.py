"""The key is compared as it was sent, byte by byte, and there is one of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest

from openai_runs.server import LocalServer
from tests.server.hostile_requests import ask

KEY = b"sk-exact-0123456789"


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """The port of a server that asks for a key."""
    async with LocalServer(api_key=KEY.decode()) as server:
        found = urlsplit(server.url).port
        assert found is not None
        yield found


async def status_of(port: int, *headers: bytes) -> int:
    """Return the status of a list of assistants; a refusal is an error of the API."""
    lines = [b"GET /v1/assistants HTTP/1.1", b"Host: a", b"Connection: close", *headers]
    answer = await ask(port, b"\r\n".join(lines) + b"\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split(b" ")[1])
    assert b"\r\nx-request-id: req_" in head.lower()
    assert status == 200 or json.loads(body)["error"]["type"] == "invalid_request_error"
    return status


REFUSED = {
    "no-break-space-behind": b"Authorization: Bearer " + KEY + b"\xc2\xa0",
    "no-break-space-before": b"Authorization: Bearer \xc2\xa0" + KEY,
    "no-break-space-latin-1": b"Authorization: Bearer " + KEY + b"\xa0",
    "next-line": b"Authorization: Bearer " + KEY + b"\xc2\x85",
    "em-space": b"Authorization: Bearer " + KEY + b"\xe2\x80\x83",
    "line-separator": b"Authorization: Bearer " + KEY + b"\xe2\x80\xa8",
    "zero-width-space": b"Authorization: Bearer " + KEY + b"\xe2\x80\x8b",
    "ideographic-space": b"Authorization: Bearer \xe3\x80\x80" + KEY,
    "byte-order-mark": b"Authorization: Bearer " + KEY + b"\xef\xbb\xbf",
    "separator-control": b"Authorization: Bearer " + KEY + b"\x1c",
    "unit-separator": b"Authorization: Bearer " + KEY + b"\x1f",
    "form-feed": b"Authorization: Bearer " + KEY + b"\x0c",
    "vertical-tab": b"Authorization: Bearer \x0b" + KEY,
    "nul": b"Authorization: Bearer " + KEY + b"\x00",
    "blank-inside": b"Authorization: Bearer sk- " + KEY[3:],
    "upper-case-key": b"Authorization: Bearer " + KEY.upper(),
    "scheme-of-another": b"Authorization: Basic " + KEY,
    "scheme-alone": b"Authorization: Bearer",
    "scheme-with-no-break-space": b"Authorization: Bearer\xc2\xa0" + KEY,
    "no-scheme": b"Authorization: " + KEY,
    "with-a-comma": b"Authorization: Bearer " + KEY + b", Bearer x",
    "api-key-with-no-break-space": b"api-key: " + KEY + b"\xc2\xa0",
    "empty": b"Authorization: ",
    "none": b"X-Other: " + KEY,
}


@pytest.mark.parametrize("header", REFUSED.values(), ids=REFUSED)
async def test_key_that_is_not_exact_is_refused(port: int, header: bytes) -> None:
    """Nothing but spaces and tabs around it is dropped."""
    assert await status_of(port, header) in {400, 401}  # 400: what no header may hold


ACCEPTED = {
    "exact": b"Authorization: Bearer " + KEY,
    "scheme-in-lower-case": b"authorization: bearer " + KEY,
    "scheme-in-upper-case": b"AUTHORIZATION: BEARER " + KEY,
    "spaces-between": b"Authorization: Bearer   " + KEY,
    "blanks-around": b"Authorization: \t Bearer " + KEY + b" \t ",
    "azure": b"api-key: " + KEY,
}


@pytest.mark.parametrize("header", ACCEPTED.values(), ids=ACCEPTED)
async def test_key_is_accepted_as_http_allows_to_write_it(port: int, header: bytes) -> None:
    """The scheme has no case, and blanks around a value are none of it."""
    assert await status_of(port, header) == 200


SEVERAL = {
    "same": (b"Authorization: Bearer " + KEY, b"Authorization: Bearer " + KEY),
    "right-first": (b"Authorization: Bearer " + KEY, b"Authorization: Bearer wrong"),
    "right-last": (b"Authorization: Bearer wrong", b"Authorization: Bearer " + KEY),
    "other-case": (b"authorization: Bearer " + KEY, b"AUTHORIZATION: Basic x"),
    "azure": (b"api-key: " + KEY, b"api-key: wrong"),
    "basic-first": (b"Authorization: Basic x", b"Authorization: Bearer " + KEY),
}


@pytest.mark.parametrize("headers", SEVERAL.values(), ids=SEVERAL)
async def test_several_keys_are_refused(port: int, headers: tuple[bytes, bytes]) -> None:
    """A proxy in front may have checked another one than we would."""
    assert await status_of(port, *headers) == 401
