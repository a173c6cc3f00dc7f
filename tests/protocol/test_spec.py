"""Ids, headers and queries cannot change which request is sent."""

import enum
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from openai_runs._protocol.spec import (
    QueryValue,
    check_header,
    check_id,
    encode_body,
    encode_query,
)
from openai_runs.types import FunctionDefinition, FunctionTool, ToolOutput, UnknownTool

REFUSED = {
    "empty": "",
    "dot": ".",
    "dots": "..",
    "up": "../x",
    "slash": "a/b",
    "backslash": "a\\b",
    "query": "a?b",
    "fragment": "a#b",
    "quoted dots": "%2e%2e",
    "quoted slash": "a%2fb",
    "line break": "a\r\nb",
    "trailing line break": "run_1\n",
    "nul": "a\x00b",
    "space": "a b",
    "tab": "a\tb",
    "delete": "a\x7f",
    "C1 control": "a\x85b",
    "surrogate": "a\ud800",
    "too long": "a" * 257,
    "too long and odd": "é" * 257,
}


@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED)
def test_id_that_could_change_the_url_is_refused(value: str) -> None:
    """The error names the argument, on one line."""
    with pytest.raises(ValueError, match=r"\Arun_id.*\Z") as caught:
        check_id("run_id", value)

    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("value", [None, 5, b"run_1", ["run_1"], object()])
def test_id_of_another_kind_is_refused(value: object) -> None:
    """What is no text is a `TypeError` that names the argument and the kind."""
    with pytest.raises(TypeError, match=f"run_id must be a string, got {type(value).__name__}"):
        check_id("run_id", value)


@given(st.text(max_size=260))
@example("run_abc123")
@example("a" * 256)
@example("...")
@example("-")
@example("a:b@c;d=e,f&g+h~")
@example("／．．／")
@example("ǆ\u0301")
def test_accepted_id_never_changes_the_path(value: str) -> None:
    """Whoever parses the URL sees one part that is the id, between the parts around it."""
    try:
        quoted = check_id("run_id", value)
    except ValueError:
        return

    url = f"https://example.invalid/v1/threads/t/runs/{quoted}/cancel"
    before, after = "/v1/threads/t/runs/", "/cancel"
    split = urlsplit(url)
    assert split.path == before + quoted + after
    assert unquote(split.path) == before + value + after
    assert (split.query, split.fragment, split.netloc) == ("", "", "example.invalid")
    parsed = URL(url, encoded=True)
    assert parsed.raw_path == split.path
    assert parsed.parts == ("/", "v1", "threads", "t", "runs", value, "cancel")
    assert URL(url).raw_parts[:5] == parsed.raw_parts[:5]
    assert len(URL(url).parts) == len(parsed.parts)
    assert quoted.isascii()


GOOD_HEADERS = ["", "Bearer sk-1", "a\tb", "grüße", "x" * 8000]


@pytest.mark.parametrize("value", GOOD_HEADERS)
def test_header_values_are_kept(value: str) -> None:
    """What can be sent is sent as it is."""
    assert check_header("X-Trace", value) == value


@pytest.mark.parametrize("name", ["", "X Trace", "X-Trace\r\nEvil", "X:", "Ü", "X\x00"])
def test_header_names_are_tokens(name: str) -> None:
    """A name that could smuggle a second header in is refused."""
    with pytest.raises(ValueError, match="cannot be the name of a header"):
        check_header(name, "1")


@pytest.mark.parametrize(
    "sign", ["\r\nX: 1", "\n", "\r", "\x00", "\x0b", "\x1b[31m", "\x7f", "\ud800"]
)
def test_header_with_a_control_character_is_refused(sign: str) -> None:
    """The error names the header and does not show the value, which may be a key."""
    with pytest.raises(ValueError, match="'Authorization'") as caught:
        check_header("Authorization", f"Bearer sk-secret{sign}")

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("value", [None, 5, b"sk-secret"])
def test_header_of_another_kind_is_refused(value: object) -> None:
    """What is no text is a `TypeError` that does not show it."""
    with pytest.raises(TypeError, match="'X-Key' must be a string") as caught:
        check_header("X-Key", value)

    assert "secret" not in str(caught.value)


QUERIES: list[tuple[dict[str, QueryValue], str]] = [
    ({}, ""),
    ({"after": None}, ""),
    ({"limit": 20, "order": "asc"}, "limit=20&order=asc"),
    ({"flag": True, "other": False}, "flag=true&other=false"),
    ({"share": 0.5}, "share=0.5"),
    ({"include": ["a", "b"]}, "include%5B%5D=a&include%5B%5D=b"),
    ({"include": []}, ""),
    ({"after": "a&b=c#d é"}, "after=a%26b%3Dc%23d+%C3%A9"),
]


@pytest.mark.parametrize(("values", "text"), QUERIES)
def test_query_is_encoded(values: dict[str, QueryValue], text: str) -> None:
    """None is left out, booleans are JSON's, lists repeat their name with brackets."""
    assert encode_query(values) == text


@given(st.dictionaries(st.text(min_size=1), st.text()))
def test_query_comes_back_as_it_was(values: dict[str, str]) -> None:
    """No value can add a parameter or end the query."""
    parsed = URL(f"https://example.invalid/?{encode_query(values)}", encoded=True)

    assert dict(parsed.query) == values
    assert parsed.fragment == ""


class Color(enum.Enum):
    """An enum of the caller's."""

    RED = "red"


BODIES: list[tuple[dict[str, Any], str]] = [
    ({}, "{}"),
    ({"a": None}, '{"a":null}'),
    ({"tool_outputs": [ToolOutput(tool_call_id="c", output="é")]},
     '{"tool_outputs":[{"tool_call_id":"c","output":"é"}]}'),
    ({"tools": [FunctionTool(function=FunctionDefinition(name="f")), UnknownTool(type="mcp")]},
     '{"tools":[{"type":"function","function":{"name":"f"}},{"type":"mcp"}]}'),
    ({"color": Color.RED}, '{"color":"red"}'),
]  # fmt: skip


@pytest.mark.parametrize(("values", "text"), BODIES)
def test_body_is_written_as_on_the_wire(values: dict[str, Any], text: str) -> None:
    """Structs, raw tools and enums become their JSON; None is null."""
    assert encode_body(values).decode() == text


def test_body_that_cannot_be_json_is_a_type_error() -> None:
    """The mistake is seen before any request."""
    with pytest.raises(TypeError):
        encode_body({"a": object()})


def test_object_in_place_of_its_id_is_named() -> None:
    """Its id is what was meant."""
    thread: Any = SimpleNamespace(id="thread_1")

    with pytest.raises(TypeError, match=r"got SimpleNamespace; pass its \.id"):
        check_id("thread_id", thread)
