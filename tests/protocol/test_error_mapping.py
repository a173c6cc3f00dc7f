"""Error answers of every form become the same few facts, on one line and without secrets."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openai_runs import errors
from openai_runs._protocol.error_mapping import (
    blocking_run_id,
    error_facts,
    excerpt,
    status_error,
    value_facts,
)
from openai_runs._protocol.masking import mask_value
from tests.samples import ERRORS, load, raw

FORMS: dict[str, tuple[type[errors.APIStatusError], dict[str, str | None]]] = {
    "400_active_run.json": (
        errors.ActiveRunError,
        {
            "message": "Thread thread_abc already has an active run run_xyz.",
            "code": None,
            "param": None,
            "type": "invalid_request_error",
            "blocking_run_id": "run_xyz",
        },
    ),
    "400_message_while_active.json": (errors.ActiveRunError, {"blocking_run_id": "run_xyz"}),
    "401_key.json": (
        errors.AuthenticationError,
        {"message": "Incorrect API key provided: ***.", "code": "invalid_api_key"},
    ),
    "404_run.json": (errors.NotFoundError, {"message": "No run found with id 'run_1'."}),
    "429_quota.json": (errors.RateLimitError, {"code": "insufficient_quota"}),
    "400_azure_no_type.json": (
        errors.BadRequestError,
        {"message": "Bad", "code": "400", "type": None},
    ),
    "400_azure_filter.json": (
        errors.BadRequestError,
        {"message": "The response was filtered", "code": "content_filter", "param": "prompt"},
    ),
    "400_integer_code.json": (errors.BadRequestError, {"message": "Bad", "code": "400"}),
    "400_message_array.json": (errors.BadRequestError, {"message": "One.; Two.", "type": "t"}),
    "400_string.json": (errors.BadRequestError, {"message": "out of luck", "code": None}),
    "422_fastapi.json": (errors.UnprocessableEntityError, {"message": "field required"}),
    "500_fastapi.json": (errors.InternalServerError, {"message": "Internal Server Error"}),
    "401_apim.json": (
        errors.AuthenticationError,
        {"message": "Access denied due to missing subscription key."},
    ),
    "500_flat.json": (errors.InternalServerError, {"message": "Boom", "code": "server_error"}),
    "502_proxy.html": (
        errors.InternalServerError,
        {"message": "a web page in place of an answer of the API: '502 Bad Gateway'"},
    ),
}


def test_every_sample_has_its_row() -> None:
    """No error sample lies unused."""
    assert set(FORMS) == set(ERRORS)


@pytest.mark.parametrize("name", FORMS)
def test_error_form_is_understood(name: str) -> None:
    """Class, text, code, param and type of each form that known servers send."""
    cls, facts = FORMS[name]
    status = int(name[:3])

    error = status_error(status, {"x-request-id": "req_1"}, raw(f"errors/{name}"))

    assert type(error) is cls
    assert {fact: getattr(error, fact) for fact in facts} == facts
    assert (error.status_code, error.request_id) == (status, "req_1")
    assert "\n" not in str(error)
    if name.endswith(".json"):
        assert error.body == mask_value(load(f"errors/{name}"))


def body(**fields: Any) -> bytes:
    """Return an error body in the API's own form."""
    return msgspec.json.encode({"error": fields})


@pytest.mark.parametrize(
    ("status", "cls"),
    [
        (400, errors.BadRequestError),
        (401, errors.AuthenticationError),
        (403, errors.PermissionDeniedError),
        (404, errors.NotFoundError),
        (405, errors.APIStatusError),
        (408, errors.APIStatusError),
        (409, errors.ConflictError),
        (410, errors.APIStatusError),
        (422, errors.UnprocessableEntityError),
        (429, errors.RateLimitError),
        (500, errors.InternalServerError),
        (503, errors.InternalServerError),
        (599, errors.InternalServerError),
    ],
)
def test_status_decides_the_class(status: int, cls: type[errors.APIStatusError]) -> None:
    """The official SDK's classes, so that users keep their `except` lines."""
    error = status_error(status, {}, body(message="m"))

    assert type(error) is cls
    assert error.message == "m"


ODD = {
    "nothing": (b"", "no error text"),
    "null": (b"null", "null"),
    "list": (b'["a", "b"]', '["a", "b"]'),
    "list of errors": (b'[{"error": {"code": 400, "message": "no signature"}}]', "no signature"),
    "list in an error": (b'{"errors": [{"message": "one"}, {"message": "two"}]}', "one; two"),
    "number": (b"5", "5"),
    "string": (b'"out of\\nluck"', "out of luck"),
    "error null": (b'{"error": null}', '{"error": null}'),
    "error empty": (b'{"error": {}}', '{"error": {}}'),
    "error list": (b'{"error": [1]}', '{"error": [1]}'),
    "message null": (b'{"error": {"message": null}}', '{"error": {"message": null}}'),
    "message object": (b'{"error": {"message": {"a": 1}}}', '{"a":1}'),
    "message in message": (b'{"error": {"message": {"message": "deep"}}}', "deep"),
    "message number": (b'{"error": {"message": 5}}', "5"),
    "detail in error": (b'{"error": {"detail": "why"}}', "why"),
    "oauth": (b'{"error": "invalid_token", "error_description": "d"}', "invalid_token"),
    "many lines": (b'{"error": {"message": "a\\r\\nb\\u001b[31m\\u2028c  d"}}', "a b [31m c d"),
    "not UTF-8": (b'{"error": {"message": "\xff"}}', "\ufffd"),
    "encoded twice": (b'"{\\"error\\": {\\"message\\": \\"Not now.\\"}}"', "Not now."),
    "broken": (b'{"error": {"mess', '{"error": {"mess'),
    "too deep to read": (b"[" * 100_000, "[" * 200),
    "long": (body(message="x" * 100_000), "x" * 500),
    "spaces": (b" \r\n ", "no error text"),
}


@pytest.mark.parametrize(("content", "message"), ODD.values(), ids=ODD)
def test_odd_body_still_gives_one_line(content: bytes, message: str) -> None:
    """Whatever stands in the body, the error has a text of bounded length on one line."""
    error = status_error(400, {}, content)

    assert error.message == message


@pytest.mark.parametrize("content", [each for each, _ in ODD.values()], ids=ODD)
def test_facts_of_a_body_are_those_of_its_error(content: bytes) -> None:
    """Who needs no exception reads the same text; where none is meant as one, there is none."""
    facts = error_facts(content)

    assert facts.get("message") in {None, status_error(400, {}, content).message}


def test_deep_message_does_not_break_the_reader() -> None:
    """A body that is JSON, but made to exhaust the stack, is shown as an excerpt."""
    for depth in (50, 200, 400, 600, 900):
        content = b'{"error": {"message": ' + b"[" * depth + b'"x"' + b"]" * depth + b"}}"
        assert status_error(500, {}, content).message


def test_error_that_is_too_deep_says_nothing() -> None:
    """A JSON value that somebody else has read, as of a model's endpoint."""
    value: Any = "x"
    for _ in range(100_000):
        value = {"error": value}

    assert value_facts(value) == {}


@given(st.binary(max_size=300), st.integers(300, 599))
def test_no_body_breaks_the_reader(content: bytes, status: int) -> None:
    """Any bytes under any status give an error that can be printed on one line."""
    assert len(str(status_error(status, {}, content)).splitlines()) == 1


@pytest.mark.parametrize("secret", ["sk-proj-1234567890abcdef", "sk-1234567890123456"])
def test_what_has_the_shape_of_a_key_is_masked(secret: str) -> None:
    """A server that echoes somebody's key does not get it into a log of ours."""
    for content in (
        body(message=f"wrong key {secret} given"),
        msgspec.json.encode({"error": f"wrong key {secret} given"}),
        msgspec.json.encode(f"wrong key {secret} given"),
        f"<p>wrong key {secret} given".encode(),
    ):
        error = status_error(401, {}, content)

        assert "***" in error.message
        assert secret not in f"{error} {error!r} {error.body}"


WORDS = [
    "Send it in an Authorization header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
    "Incorrect API key provided: sk-...abcd.",
    "Incorrect API key provided: sk-1234*****abcd.",
    "api key: none",
    "Bearer realm",
]


@pytest.mark.parametrize("words", WORDS)
def test_words_about_keys_are_not_masked(words: str) -> None:
    """What tells how to send a key survives, also under a short key that is a word."""
    error = status_error(401, {}, body(message=words), secrets=["key", "x", "none"])

    assert error.message == words


def test_key_is_masked_before_the_text_is_cut() -> None:
    """Its first half is not shown where the bound falls into it."""
    key = "abcdefghijklmnopqrstuvwxyz" * 4
    for before in range(100, 201, 10):
        for blanks in (0, 700):
            content = b"x" * before + b" " * blanks + key.encode() + b"y" * 100_000
            shown = excerpt(content, secrets=[key])
            assert "abcd" not in shown, before
        error = status_error(500, {}, body(message="x" * (before + 350) + key), secrets=[key])
        assert "abcd" not in error.message
    assert "abcd" not in excerpt(b"z " * 100 + (key.encode() + b" ") * 5000, secrets=[key])


def test_excerpt_is_short_and_plain() -> None:
    """At most 200 characters of the body, decoded as far as possible."""
    assert excerpt(b"a\xff\r\nb") == "a\ufffd b"
    assert excerpt(b"x" * 10_000) == "x" * 200
    assert excerpt("é".encode() * 10_000, limit=3) == "ééé"


@pytest.mark.parametrize(
    ("text", "run_id"),
    [
        ("Thread thread_1 already has an active run run_2.", "run_2"),
        ("Can't add messages to thread_1 while a run run_2 is active.", "run_2"),
        ("400: Thread thread_1 already has an active run run-A_b9", "run-A_b9"),
        ("Thread thread_1 has a run", None),
        ("", None),
    ],
)
def test_blocking_run_is_named_by_the_text(text: str, run_id: str | None) -> None:
    """The API gives this refusal no code; its text holds the id."""
    assert blocking_run_id(text) == run_id


def test_text_of_an_active_run_counts_on_a_400_only() -> None:
    """Another status that quotes the text is what its status says."""
    content = raw("errors/400_active_run.json")

    assert type(status_error(409, {}, content)) is errors.ConflictError
    assert type(status_error(500, {}, content)) is errors.InternalServerError


@pytest.mark.parametrize(
    ("host", "vendor"),
    [
        ("api.openai.com", True),
        ("eu.api.openai.com", True),
        ("myapi.openai.com.example", False),
        ("notapi.openai.com", False),
        ("127.0.0.1", False),
        ("", False),
    ],
)
def test_a_404_of_the_vendor_is_explained(host: str, vendor: bool) -> None:
    """It says since when the endpoints are gone, and what to do; others' 404 does not."""
    error = status_error(404, {}, body(message="Invalid URL"), host=host)

    assert ("2026-08-26" in error.message) is vendor
    assert ("AsyncClient.local()" in error.message) is vendor
    assert type(error) is errors.NotFoundError


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_explained_and_not_followed(status: int) -> None:
    """The text names where it points, without the query, which may hold a key."""
    headers = {"location": "https://example.invalid/v1?api-key=hidden"}

    error = status_error(status, headers, b"")

    assert type(error) is errors.APIStatusError
    assert "'https://example.invalid/v1'" in error.message
    assert "never followed" in error.message
    assert "hidden" not in str(error)


@pytest.mark.parametrize(
    ("headers", "request_id"),
    [
        ({"x-request-id": "a", "apim-request-id": "b"}, "a"),
        ({"apim-request-id": "b"}, "b"),
        ({"x-ms-request-id": "c"}, "c"),
        ({"x-request-id": ""}, None),
        ({}, None),
    ],
)
def test_request_id_is_found_under_each_name(headers: dict[str, str], request_id: str) -> None:
    """OpenAI's name first, then those of Azure."""
    assert status_error(500, headers, b"").request_id == request_id


def test_headers_are_kept_in_lower_case() -> None:
    """`error.headers` can be asked without knowing how the server spells them."""
    assert status_error(429, {"Retry-After": "7"}, b"").headers == {"retry-after": "7"}


def test_error_body_is_read_up_to_a_bound_when_a_server_sends_very_much() -> None:
    """What is beyond a MiB is left unread; the beginning still says what went wrong."""
    content = b'{"error": {"message": "no", "more": "' + b"\\u0061" * 2**19 + b'"}}'

    error = status_error(500, {}, content, secrets=["sk-secret-of-mine"])

    assert error.body == error.message
    assert error.message.startswith('{"error": {"message": "no"')
    assert len(error.message) <= 200


AZURE: dict[str, bool] = {
    "name.openai.azure.com": True,
    "name.openai.azure.us": True,
    "name.cognitiveservices.azure.com": True,
    "name.services.ai.azure.com": False,
    "openai.azure.com.example": False,
}


@pytest.mark.parametrize(("host", "explained"), AZURE.items())
def test_a_404_of_azure_openai_is_explained(host: str, explained: bool) -> None:
    """It names the day and the ways on; Foundry, which still speaks the protocol, is left out."""
    content = b'{"error": {"message": "Resource not found", "code": "404"}}'

    error = status_error(404, {}, content, host=host)

    assert type(error) is errors.NotFoundError
    assert error.message.startswith("Resource not found")
    assert ("2026-08-26" in error.message) is explained
    assert ("AsyncClient.local()" in error.message) is explained
    assert ("AsyncClient.azure()" in error.message) is explained
    assert "2026-08-26" not in status_error(403, {}, content, host=host).message
