"""What an endpoint and the requests of a model call come to, over many refusals."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from openai_runs.config import MAX_FORM_CHANGES, MAX_KNOWN_MODELS
from openai_runs.server.backends.chat.forms import DEFAULTS, check_forms
from openai_runs.server.backends.chat.negotiation import KnownForms, Negotiation
from tests.server.backends.chat.asked import asked, message
from tests.server.backends.chat.test_forms import LEARNT, error, full

if TYPE_CHECKING:
    import pytest


def refuse(call: Negotiation, content: bytes) -> bool:
    """Send a request and answer 400; return whether the call goes on."""
    call.encode()
    return call.refused(400, content)


def test_what_was_learnt_is_known_to_the_next_call_of_that_model(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Once it was accepted; one line of the log, with the setting that says so beforehand."""
    caplog.set_level(logging.INFO)
    known = KnownForms("https://models.example/v1")
    calls = [Negotiation(full(), "m", known) for _ in range(2)]
    for call in calls:  # at the same time
        assert refuse(call, error("top_p is not supported"))
    before = known.of("m")["top_p"]
    for call in calls:
        call.accepted()

    assert before == "send"
    assert "top_p" not in Negotiation(full(), "m", known).build()
    assert "top_p" in Negotiation(full(), "other", known).build()
    assert len(caplog.messages) == 1
    assert "models.example" in caplog.text
    assert "forms = {'top_p': 'omit'}" in caplog.text


def test_call_goes_on_when_another_learnt_meanwhile_what_it_was_refused_for() -> None:
    """Sent before, refused after: it is asked again with what is known now."""
    known = KnownForms("https://models.example/v1")
    first, second = (Negotiation(full(), "m", known) for _ in range(2))
    words = error("top_p is not supported")
    second.encode()
    assert refuse(first, words)
    first.encode()
    first.accepted()

    assert second.refused(400, words)
    assert "top_p" not in second.build()
    assert not refuse(second, words)


def test_call_learns_on_when_what_another_learnt_meanwhile_was_not_enough() -> None:
    """Each of the two learns one field, and both end with both."""
    known = KnownForms("https://models.example/v1")
    first, second = (Negotiation(full(), "m", known) for _ in range(2))
    second.encode()
    assert refuse(first, error("top_p is not supported"))
    first.encode()
    first.accepted()

    assert second.refused(400, error("temperature is not supported"))
    assert refuse(second, error("temperature is not supported"))
    assert {"top_p", "temperature"}.isdisjoint(second.build())


def test_refusal_stands_when_what_another_learnt_changes_nothing_of_the_request() -> None:
    """A form of a field that this one does not send, or of another model."""
    known = KnownForms("https://models.example/v1")
    call = Negotiation(asked(message("user", "Hi")), "m", known)
    call.encode()
    known.learn("m", {"top_p": "omit"})
    known.learn("other", {"stream_options": "omit"})

    assert not call.refused(400, error("top_p is not supported"))


def test_form_that_did_not_help_is_taken_back() -> None:
    """The same words again: another form is tried, and at the end the refusal stands."""
    known = KnownForms("https://models.example/v1")
    call = Negotiation(full(), "m", known)
    words = error("content is missing, and top_p is not supported")
    contents = []
    while refuse(call, words):
        contents.append(
            (call.build()["messages"][3].get("content", "left out"), "top_p" in call.build())
        )
    call.accepted()

    assert contents == [("", False), ("left out", True), (None, True)]
    assert known.of("m") == DEFAULTS


def test_every_optional_field_can_be_refused_once() -> None:
    """One after the other, and the rest goes on; at the end nothing optional is left."""
    call = Negotiation(full(), "m", KnownForms("https://models.example/v1"))
    fields = ("stream_options", "top_p", "temperature", "parallel_tool_calls", "response_format",
              "reasoning_effort", "max_completion_tokens", "stream", "strict", "reasoning",
              "extra_content", "reasoning_content")  # fmt: skip
    for field in fields:
        assert refuse(call, error(f"Unsupported parameter: '{field}'", param=field)), field
    refused_format = refuse(call, error("response_format is not supported"))
    body = call.build()

    assert refused_format
    assert body.keys() == {"model", "messages", "tools", "max_tokens"}
    assert "JSON schema" in body["messages"][0]["content"]


def test_form_that_changes_nothing_of_the_request_is_not_tried() -> None:
    """An object is no schema, a required call is no named one: the field is left out at once."""
    request = asked(
        message("user", "Hi"), response_format={"type": "json_object"}, tool_choice="required"
    )
    call = Negotiation(request, "m", KnownForms("https://models.example/v1"))
    words = ("response_format is not supported", "tool_choice is not supported")

    assert all(refuse(call, error(each)) for each in words)
    assert {"response_format", "tool_choice"}.isdisjoint(call.build())
    assert not refuse(call, error("response_format is not supported at all"))


@given(
    st.lists(
        st.sampled_from([content for _, content, _ in LEARNT.values()])
        | st.text().map(lambda text: error(text, param="content"))
        | st.binary(),
        min_size=100,
        max_size=100,
    )
)
def test_refusals_without_end_end_the_call(refusals: list[bytes]) -> None:
    """Whatever they say, in whatever order."""
    call = Negotiation(full(), "m", KnownForms("https://models.example/v1"))

    tries = sum(refuse(call, each) for each in refusals)

    assert tries <= MAX_FORM_CHANGES


def test_form_that_is_set_beforehand_is_sent_at_once() -> None:
    """And one that the endpoint refuses all the same is still learnt."""
    forms = check_forms({"max_tokens": "max_tokens", "echo.reasoning": "omit", "content": "null"})
    known = KnownForms("https://models.example/v1", forms)
    call = Negotiation(full(), "m", known)
    body = call.build()
    words = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."

    assert body["max_tokens"] == 30
    assert "reasoning" not in body["messages"][3]
    assert body["messages"][3]["content"] is None
    assert refuse(call, error(words, param="max_tokens"))
    assert call.build()["max_completion_tokens"] == 30


def test_models_that_are_remembered_are_bounded() -> None:
    """Their names may come from clients; the oldest is forgotten."""
    known = KnownForms("https://models.example/v1")
    for number in range(MAX_KNOWN_MODELS + 1):
        known.learn(f"m{number}", {"top_p": "omit"})

    assert known.of("m0")["top_p"] == "send"
    assert known.of("m1")["top_p"] == "omit"
