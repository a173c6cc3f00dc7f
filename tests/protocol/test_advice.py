"""What to do next: each cause has its own advice, and what nothing is known of has none."""

import pickle

import pytest

from openai_runs._protocol.advice.answers import Rejected, advice_for, page_advice
from openai_runs._protocol.advice.connecting import Cause, advice, certificate_cause
from openai_runs._protocol.advice.pages import page_text
from openai_runs._protocol.error_mapping import status_error

BASE = "http://runs.example:8000"
PAGE = b"<html><head><title>404 Not Found</title></head></html>"


def rejected(
    status: int,
    message: str = "",
    *,
    code: str = "",
    base: str = f"{BASE}/v1",
    path: str = "/threads",
    content: bytes = b"{}",
    location: str = "",
    has_key: bool = True,
) -> str:
    """Return the advice for such an answer."""
    facts = Rejected(status, message, code, content, location, base, path, has_key)
    return advice_for(facts)


MISSING = "is the path /v1 missing? Try base_url="
UNKNOWN: dict[str, tuple[str, str, str]] = {
    "no path": (BASE, "/threads", f"{MISSING}'{BASE}/v1'"),
    "prefix that a proxy strips": (f"{BASE}/api", "/threads", f"{MISSING}'{BASE}/api/v1'"),
    "prefix that the server sees": (f"{BASE}/openai", "/openai/threads", f"{MISSING}'{BASE}/v1'"),
    "v1 twice": (f"{BASE}/v1/v1", "/v1/v1/threads", f"try base_url='{BASE}/v1'"),
    "azure's prefix and v1": (
        f"{BASE}/openai/v1",
        "/openai/v1/threads",
        f"try base_url='{BASE}/v1'",
    ),
    "right already": (f"{BASE}/v1", "/v1/threads", ""),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_unknown_url_names_the_base_url_to_try(case: str) -> None:
    """Only where /v1 is really missing, or in another place; by the path that the server saw."""
    base, seen, expected = UNKNOWN[case]

    said = rejected(404, f"Invalid URL (POST {seen})", code="unknown_url", base=base)

    assert said == expected


@pytest.mark.parametrize(
    "message", ["Not Found", "404 page not found", "404: Not Found", "not found."]
)
def test_path_that_another_server_does_not_know(message: str) -> None:
    """Without a path /v1 is missing; with one it may be the endpoint of a model."""
    serve = f"`openai-runs serve --model-url {BASE}/v1` serves this API"

    assert rejected(404, message, base=BASE) == f"{MISSING}'{BASE}/v1'"
    assert rejected(404, message) == f"is it a model's endpoint? {serve}"


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, "No thread found with id 'thread_1'."),
        (404, "Resource not found"),
        (400, "Thread thread_1 already has an active run run_1."),
        (500, "The server had an error."),
        (429, "Too many requests"),
    ],
)
def test_errors_of_the_api_itself_need_no_advice(status: int, message: str) -> None:
    """What the server says of an object, a state or a limit stands alone."""
    assert rejected(status, message, base=BASE) == ""


def test_key_is_asked_for_where_none_was_sent() -> None:
    """A 401 says whether a key was missing or wrong."""
    assert rejected(401, has_key=False) == "pass api_key= or set OPENAI_API_KEY"
    assert rejected(401) == "is api_key= or OPENAI_API_KEY the key of this server?"


def test_proxy_that_wants_credentials() -> None:
    """A plain request over a proxy is answered by it with a 407."""
    assert rejected(407).endswith("credentials in its URL: http://USER:PASSWORD@HOST:PORT")


REDIRECTS: dict[str, tuple[str, str]] = {
    "same path": (
        "https://new.example/v1/threads",
        "if you trust it, set base_url='https://new.example/v1'",
    ),
    "same place in TLS": (
        "https://runs.example:8000/v1/threads",
        "write https:// in base_url",
    ),
    "login": ("/login", "set base_url to the address it names if you trust it"),
}


@pytest.mark.parametrize("case", REDIRECTS)
def test_redirect_names_the_base_url_to_set(case: str) -> None:
    """Where it leads to the same path elsewhere, that place; else its address."""
    location, expected = REDIRECTS[case]

    assert rejected(307, location=location) == expected


@pytest.mark.parametrize("status", [403, 404, 405, 500])
def test_page_of_another_service(status: int) -> None:
    """A web page is no answer of this API: the address may be wrong."""
    assert rejected(status, content=PAGE) == (
        f"another service answers there: is base_url='{BASE}/v1' right?"
    )
    assert rejected(status, content=PAGE, base=BASE) == page_advice(BASE) == f"{MISSING}'{BASE}/v1'"


@pytest.mark.parametrize("status", [502, 503, 504])
def test_page_of_a_gateway(status: int) -> None:
    """A proxy's own error says that what is behind it does not answer."""
    assert rejected(status, content=PAGE) == "a proxy answers: is the server behind it running?"


@pytest.mark.parametrize(
    "message",
    [
        "Client sent an HTTP request to an HTTPS server.",  # Go
        "400 The plain HTTP request was sent to HTTPS port",  # nginx
    ],
)
def test_answer_that_wants_tls(message: str) -> None:
    """Servers that say so in plain text are read."""
    assert rejected(400, message) == "write https:// in base_url"


LOOPBACK = "http://127.0.0.1:8123/v1/threads"
REMOTE = "https://runs.example/v1/threads"
CONTEXT = "ssl=ssl.create_default_context(cafile=...)"
PROXY = "Behind a proxy, pass proxy= or trust_env=True"


@pytest.mark.parametrize(
    ("cause", "url", "expected"),
    [
        (Cause.UNREACHABLE, LOOPBACK, "is it running? `openai-runs serve --port 8123` starts one"),
        (Cause.UNREACHABLE, "https://localhost:1/", "is it running?"),
        (Cause.UNREACHABLE, REMOTE, f"is it running, and the port right? {PROXY}"),
        (Cause.UNRESOLVED, REMOTE, f"is the name right? {PROXY}"),
        (
            Cause.UNTRUSTED,
            REMOTE,
            f"trust its authority: set SSL_CERT_FILE, or pass {CONTEXT}",
        ),
        (Cause.OTHER, REMOTE, ""),
    ],
)
def test_missing_answer_is_advised_by_its_cause(cause: Cause, url: str, expected: str) -> None:
    """A server of this machine can be started; another may be behind a proxy."""
    assert advice(cause, url) == expected


def test_environment_is_named_where_it_is_used_or_should_be() -> None:
    """A proxy of the environment that is not used is named; where it is used, so are its names."""
    unused = advice(Cause.UNRESOLVED, REMOTE, unused="HTTPS_PROXY")
    used = advice(Cause.UNRESOLVED, REMOTE, uses_environment=True)

    assert unused.endswith("HTTPS_PROXY is set and not used: pass trust_env=True to use it")
    assert used.endswith("Behind a proxy, set HTTPS_PROXY")
    assert advice(Cause.UNTRUSTED, REMOTE, uses_environment=True).endswith(": set SSL_CERT_FILE")


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (62, Cause.OTHER_NAME),
        (64, Cause.OTHER_NAME),
        (10, Cause.OUT_OF_DATE),
        (18, Cause.UNTRUSTED),
    ],
)
def test_certificate_is_refused_for_a_cause(code: int, cause: Cause) -> None:
    """Another name, another time and another authority are mended in different places."""
    assert certificate_cause(code) is cause


def test_advice_ends_the_text_and_is_pickled() -> None:
    """The text says what happened, the facts, and what to do; a copy says the same."""
    error = status_error(401, {}, b"", base_url=f"{BASE}/v1", path="/threads")

    assert str(error) == "no error text [HTTP 401]; pass api_key= or set OPENAI_API_KEY"
    assert error.message == "no error text"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_text_of_a_page_is_its_title_or_what_is_shown() -> None:
    """Styles and scripts are no text."""
    shown = page_text("<style>p {}</style><p class='a'>Bad <b>gateway</b><script>x()</script>!")

    assert shown.split() == ["Bad", "gateway", "!"]
    assert page_text("<head><title>502</title><p>Bad") == "502"
