"""Known keys are found in what others wrote, however they are escaped there."""

from __future__ import annotations

import html
import json
from contextlib import suppress
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openai_runs._protocol.masking import mask, mask_value, quotes, secrets_of

KEY = "sE/c-r=e+t&k<y\\%41é🔑"
"""With what each way of writing a text escapes."""


def every(text: str, form: str) -> str:
    """Return the text with each of its characters escaped in one way."""
    return "".join(form.format(ord(one)) for one in text)


WRITTEN = {
    "as it is": KEY,
    "JSON": json.dumps(KEY)[1:-1],
    "JSON with slashes": json.dumps(KEY)[1:-1].replace("/", "\\/"),
    "JSON in JSON": json.dumps(json.dumps(KEY))[3:-3],
    "JSON three times": json.dumps(json.dumps(json.dumps(KEY)))[7:-7],
    "percent": quote(KEY, safe=""),
    "percent twice": quote(quote(KEY, safe=""), safe=""),
    "percent, all of it": "".join(f"%{byte:02x}" for byte in KEY.encode()),
    "HTML": html.escape(KEY),
    "HTML twice": html.escape(html.escape(KEY)),
    "HTML decimal": every(KEY, "&#{};"),
    "HTML hexadecimal": every(KEY, "&#x{:X};"),
    "HTML in JSON": json.dumps(html.escape(KEY))[1:-1],
    "over two lines": KEY[:6] + "\r\n  " + KEY[6:],
    "with a zero-width space": KEY[:6] + "\u200b" + KEY[6:],
    "over two lines of JSON": KEY[:6] + "\\n" + json.dumps(KEY[6:])[1:-1],
}


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
def test_key_is_masked_however_it_is_written(written: str) -> None:
    """What stands around it is left as it was, and each of its mentions goes."""
    assert mask(f"key '{written}' or '{written}'.", [KEY]) == "key '***' or '***'."
    assert mask_value({"a": [{written: f"<{written}>"}, 1]}, [KEY]) == {"a": [{"***": "<***>"}, 1]}


WAYS = [
    lambda one: one,
    lambda one: json.dumps(one)[1:-1],
    lambda one: "".join(
        f"\\u{unit:04x}" if unit % 2 else f"\\u{unit:04X}"
        for unit in memoryview(one.encode("utf-16-le")).cast("H")
    ),
    lambda one: "\\/" if one == "/" else one,
    lambda one: quote(one, safe=""),
    lambda one: f"&#{ord(one)};",
    lambda one: f"&#x{ord(one):x};",
    lambda one: json.dumps(json.dumps(one)[1:-1])[1:-1],
]
KEYS = st.text(
    # A raw backslash beside an escaped character is written by nobody, and means two things.
    alphabet=st.characters(exclude_categories=["C", "Z"], exclude_characters="\\"),
    min_size=8,
    max_size=30,
).filter(lambda key: len(key.replace("*", "")) >= 8)


def decoded(text: str) -> list[str]:
    """Return the text as whoever decodes it in one of the usual ways would read it."""
    found = [text, html.unescape(text), unquote(text)]
    with suppress(ValueError):
        found.append(str(json.loads(f'"{text}"')))
    return found


@given(KEYS, st.data())
def test_no_escape_hides_a_key(key: str, data: st.DataObject) -> None:
    """Each character in a way of its own: the key is not to be had by decoding what is left."""
    ways = data.draw(st.lists(st.sampled_from(WAYS), min_size=len(key), max_size=len(key)))
    written = "".join(way(one) for way, one in zip(ways, key, strict=True))

    left = mask(f"before {written} after", [key])

    assert "***" in left
    assert not [text for text in decoded(left) if key in text]


@given(KEYS, st.text(max_size=80))
def test_text_without_a_key_is_left_as_it_is(key: str, text: str) -> None:
    """Masking changes nothing else."""
    if not any(len(text) >= 8 and one in text for one in key[:1]):
        assert mask(text, [key]) == mask(text)


def test_short_secret_makes_no_confetti() -> None:
    """Below six characters it is a part of words, and stays."""
    assert mask("the key is x, not none", ["x", "key", "none"]) == "the key is x, not none"
    assert mask("the secret is", ["secret"]) == "the *** is"


def test_large_text_is_masked_too() -> None:
    """Where a key is escaped in a very large one, nothing of it is shown."""
    key = "abc/def/ghi"
    assert mask("x" * 200_000 + key, [key]).endswith("x***")
    assert mask("x" * 200_000 + key.replace("/", "\\/"), [key]) == "***"
    assert len(mask("\\u0041" * 50_000, [key])) == 300_000


def test_longer_secret_goes_first() -> None:
    """One that begins with another leaves no end behind."""
    assert mask("abcdefgh-ijkl", ["abcdefgh", "abcdefgh-ijkl"]) == "***"


def test_secrets_of_a_request_are_its_credentials() -> None:
    """In headers and query; ids of requests, organizations and types are none."""
    headers = {
        "Authorization": "Bearer the-token",
        "api-key": "the-key",
        "X-Auth": "Basic dTpw",
        "Idempotency-Key": "public-one",
        "OpenAI-Organization": "org-1",
        "Content-Type": "application/json",
    }
    url = "http://h/v1/threads?api-version=v1&subscription-key=the%2Fother&code=c"

    assert secrets_of(headers, url) == ("the-token", "the-key", "dTpw", "the/other", "c")


def test_cause_that_quotes_a_key_is_known() -> None:
    """By its text, its arguments and attributes, and those of what caused it."""
    inner = ValueError("abc\\/defgh")
    outer = RuntimeError("no")
    outer.__cause__ = inner

    assert quotes(outer, ["abc/defgh"])
    assert not quotes(outer, ["something else"])


def test_escapes_are_resolved_a_few_levels_deep_and_no_further() -> None:
    """A text that is escaped again and again costs no more, and is left as it is."""
    text = "before %" + "25" * 40 + "41 after"

    assert mask(text, [KEY]) == text
