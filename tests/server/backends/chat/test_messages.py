"""Whatever a thread holds, its messages are sent in a shape that endpoints take."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openai_runs.server.backends.base import Turn
from tests.server.backends.chat.asked import asked, built, message, turn

IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
REFUSAL = {"type": "refusal", "refusal": "No."}


def text(value: str) -> dict[str, str]:
    """Return a part of a content."""
    return {"type": "text", "text": value}


def user(content: Any) -> dict[str, Any]:
    """Return a user message as sent."""
    return {"role": "user", "content": content}


def assistant(content: Any) -> dict[str, Any]:
    """Return an assistant message as sent."""
    return {"role": "assistant", "content": content}


THREADS: dict[str, tuple[list[Any], list[dict[str, Any]]]] = {
    "S04-empty-answer": (
        [message("user", "Hi"), message("assistant", ""), message("user", "Still there?")],
        [user("Hi\n\nStill there?")],
    ),
    "answer-without-parts": ([message("user", "Hi"), message("assistant")], [user("Hi")]),
    "answer-of-blanks": ([message("user", "Hi"), message("assistant", " \n")], [user("Hi")]),
    "question-of-blanks": ([message("user", " "), message("user", "Hi")], [user("Hi")]),
    "S05-two-questions": (
        [message("user", "First half,"), message("user", "second half.")],
        [user("First half,\n\nsecond half.")],
    ),
    "three-questions": ([message("user", each) for each in "abc"], [user("a\n\nb\n\nc")]),
    "two-answers": (
        [message("user", "a"), message("assistant", "b"), message("assistant", "c")],
        [user("a"), assistant("b\n\nc")],
    ),
    "text-then-image": (
        [message("user", "a"), message("user", "b", IMAGE)],
        [user([text("a"), text("b"), IMAGE])],
    ),
    "image-then-text": (
        [message("user", IMAGE), message("user", "a", "b")],
        [user([IMAGE, text("a\nb")])],
    ),
    "image-beside-blanks": ([message("user", "", IMAGE)], [user([IMAGE])]),
    "refusal": (
        [message("user", "a"), message("assistant", REFUSAL)],
        [user("a"), assistant("No.")],
    ),
    "nothing": ([], [user("(The assistant speaks first.)")]),
}


@pytest.mark.parametrize("case", THREADS)
def test_thread_is_sent_without_empty_messages_or_neighbours_of_one_role(case: str) -> None:
    """Nothing that was said is lost."""
    messages, expected = THREADS[case]

    assert built(asked(*messages))["messages"] == expected


THREAD = st.lists(
    st.tuples(
        st.sampled_from(["user", "assistant"]),
        st.lists(st.sampled_from(["", " ", "a", "b\n"]) | st.just(IMAGE), max_size=3),
    )
)
TURNS = st.lists(
    st.tuples(
        st.sampled_from(["", " ", "Let me see."]),
        st.lists(
            st.tuples(
                st.sampled_from(["call_1", "a:0", ""]), st.text() | st.just("{}"), st.just("")
            )
        ),
    ),
    max_size=3,
)


@given(THREAD, TURNS, st.sampled_from(["system", "user"]), st.sampled_from(["any", "user"]))
def test_every_conversation_has_the_shape_that_the_strictest_endpoint_takes(
    thread: list[Any], turns: list[Any], role: str, opening: str
) -> None:
    """Contents, roles in turn, arguments that are objects, and ids that pair and are unique."""
    rounds = [turn(*[(f"{call_id}{n}", a, o) for n, (call_id, a, o) in enumerate(calls)], text=said)
              for said, calls in turns]  # fmt: skip
    request = asked(
        *(message(who, *parts) for who, parts in thread), turns=rounds, instructions="Be brief."
    )

    messages = built(request, instructions=role, opening=opening)["messages"]

    roles = [each["role"] for each in messages]
    calls = [call for each in messages for call in each.get("tool_calls", [])]
    outputs = [each for each in messages if each["role"] == "tool"]
    assert all(each["content"] or "tool_calls" in each for each in messages)
    assert all(a == "tool" or a != b for a, b in zip(roles, roles[1:], strict=False))
    assert all(isinstance(json.loads(call["function"]["arguments"]), dict) for call in calls)
    assert [call["id"] for call in calls] == [each["tool_call_id"] for each in outputs]
    assert len({call["id"] for call in calls}) == len(calls)
    assert all(re.fullmatch("[a-zA-Z0-9]{9}", call["id"]) for call in calls)
    if opening == "user":
        assert [each for each in roles if each != "system"][0] == "user"


def test_thread_of_very_many_questions_is_joined_once() -> None:
    """In time that grows with the text alone."""
    said = message("user", "x" * 1000)

    (sent,) = built(asked(*[said] * 20_000))["messages"]

    assert len(sent["content"]) == 20_000 * 1002 - 2


ARGUMENTS: dict[str, tuple[str, Any]] = {
    "whole": ('{"city": "Oslo"}', {"city": "Oslo"}),
    "S11-cut-off": ('{"city":"Os', {"invalid_json": '{"city":"Os'}),
    "none": ("", {}),
    "blanks": (" \n", {}),
    "null": ("null", {}),
    "list": ('["Oslo"]', {"invalid_json": ["Oslo"]}),
    "text": ('"{}"', {"invalid_json": "{}"}),
    "fence": ("```json\n{}\n```", {"invalid_json": "```json\n{}\n```"}),
    "two-objects": ("{}{}", {"invalid_json": "{}{}"}),
    "not-a-number": ('{"a": NaN}', {"invalid_json": '{"a": NaN}'}),
    "deep": ("[" * 5000, {"invalid_json": "[" * 5000}),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_arguments_are_sent_as_a_json_object(case: str) -> None:
    """What is none stands in one, so that the model reads what it wrote."""
    arguments, expected = ARGUMENTS[case]

    sent = built(asked(turns=[turn(("call_1", arguments, "22"))]))["messages"][0]["tool_calls"][0]

    assert json.loads(sent["function"]["arguments"]) == expected


def test_arguments_are_sent_in_the_words_of_the_model_when_they_are_an_object() -> None:
    """Not encoded again: the same spaces, the same numbers, in the same order."""
    written = '{ "b": 1.50, "a": 1e2, "b": 12345678901234567890 }'

    sent = built(asked(turns=[turn(("call_1", written, "22"))]))["messages"][0]["tool_calls"][0]

    assert sent["function"]["arguments"] == written


def ids_of(body: dict[str, Any]) -> list[Any]:
    """Return the ids of the calls, which are those of their outputs."""
    messages = body["messages"]
    ids = [call["id"] for each in messages for call in each.get("tool_calls", [])]
    assert ids == [each["tool_call_id"] for each in messages if each["role"] == "tool"]
    return ids


@pytest.mark.parametrize(
    "given_id", ["call_1", "functions.weather:0", "x" * 200, "é", 7, "chatcmpl-tool-1"]
)
def test_id_goes_back_as_the_endpoint_gave_it(given_id: Any) -> None:
    """In every form, also where clients are shown another one."""
    asked_again = asked(turns=[turn(("call_ours", "{}", "22"), echoed={0: {"id": given_id}})])

    assert ids_of(built(asked_again)) == [given_id]


def test_id_that_is_made_here_has_nine_letters_and_digits_and_stays() -> None:
    """S26: the same one in each request of the run, and another one for each call."""
    first = turn(("call_1", "{}", "a"), ("call_2", "{}", "b"))
    second = turn(("call_3", "{}", "c"), ("call_1", "{}", "d"))

    before, after = ids_of(built(asked(turns=[first]))), ids_of(built(asked(turns=[first, second])))

    assert after[:2] == before
    assert len(set(after)) == 4
    assert all(re.fullmatch("[a-z0-9]{9}", each) for each in after)


def test_ids_that_an_endpoint_gave_twice_in_a_turn_are_told_apart() -> None:
    """The first keeps its own; in another turn it is given back again."""
    given = {0: {"id": "a"}, 1: {"id": "a"}}
    calls = [("call_1", "{}", "1"), ("call_2", "{}", "2")]
    later = [("call_3", "{}", "3")]

    ids = ids_of(built(asked(turns=[turn(*calls, echoed=given), turn(*later, echoed=given)])))

    assert (ids[0], ids[2]) == ("a", "a")
    assert re.fullmatch("[a-z0-9]{9}", ids[1])


def test_ids_are_made_here_when_the_endpoint_refuses_its_own() -> None:
    """A form of its own: some endpoints give ids that their templates do not take."""
    request = asked(turns=[turn(("call_1", "{}", "1"), echoed={0: {"id": "chatcmpl-tool-1"}})])

    assert re.fullmatch("[a-z0-9]{9}", ids_of(built(request, ids="made"))[0])


CONTENTS: dict[str, dict[str, Any]] = {
    "empty": {"content": ""},
    "null": {"content": None},
    "omit": {},
}


@pytest.mark.parametrize("form", CONTENTS)
def test_calls_without_text_have_the_content_of_the_form(form: str) -> None:
    """S12: null only where the endpoint wants it; a text is sent in every form."""
    turns = [turn(("a", "{}", "1")), turn(("b", "{}", "2"), text="Let me see.")]
    silent, _, speaking, _ = built(asked(turns=turns), content=form)["messages"]

    assert {name: silent[name] for name in silent if name == "content"} == CONTENTS[form]
    assert speaking["content"] == "Let me see."


def test_turn_is_joined_with_the_answer_before_it() -> None:
    """A run on a thread that ends with an answer still has its roles in turn."""
    before = [message("user", "Hi"), message("assistant", "Hello.")]
    turns = [turn(("a", "{}", "1"), text="Let me see."), Turn(text="Well.")]

    sent = built(asked(*before, turns=turns))["messages"]

    assert [each["role"] for each in sent] == ["user", "assistant", "tool", "assistant"]
    assert sent[1]["content"] == "Hello.\n\nLet me see."
    assert len(sent[1]["tool_calls"]) == 1


def test_outputs_stay_one_message_for_each_call() -> None:
    """An empty one says so, since some endpoints take no empty message."""
    sent = built(asked(turns=[turn(("a", "{}", "1"), ("b", "{}", ""))]))["messages"]

    assert [each["content"] for each in sent[1:]] == ["1", "(no output)"]


INSTRUCTED: dict[str, tuple[str, list[Any], list[dict[str, Any]]]] = {
    "system": ("system", [message("user", "Hi")], [
        {"role": "system", "content": "Be brief."}, user("Hi")]),
    "developer": ("developer", [message("user", "Hi")], [
        {"role": "developer", "content": "Be brief."}, user("Hi")]),
    "S23-first-user-message": ("user", [message("user", "Hi")], [user("Be brief.\n\nHi")]),
    "first-user-message-has-parts": ("user", [message("user", IMAGE)], [
        user([text("Be brief."), IMAGE])]),
    "assistant-first": ("user", [message("assistant", "Hello")], [
        user("Be brief."), assistant("Hello")]),
    "no-message": ("user", [], [user("Be brief.")]),
}  # fmt: skip


@pytest.mark.parametrize("case", INSTRUCTED)
def test_instructions_stand_where_the_form_says(case: str) -> None:
    """As a message in front, or in the first user message."""
    form, messages, expected = INSTRUCTED[case]

    sent = built(asked(*messages, instructions="Be brief."), instructions=form)["messages"]

    assert sent == expected


def test_no_instructions_are_no_message() -> None:
    """Neither empty ones nor blanks."""
    for instructions in ("", "  \n"):
        assert built(asked(message("user", "Hi"), instructions=instructions))["messages"] == [
            user("Hi")
        ]


def test_user_begins_where_the_form_says() -> None:
    """A thread that begins with a greeting is taken by templates that want roles in turn."""
    greeting = message("assistant", "Hello, how can I help?")
    sent = built(asked(greeting, message("user", "Hi")), opening="user")["messages"]

    assert [each["role"] for each in sent] == ["user", "assistant", "user"]


def test_user_speaks_last_where_the_form_says() -> None:
    """A run on a thread that ends with an answer, and one that goes on after its tools."""
    talk = [message("user", "Hi"), message("assistant", "Hello")]
    ended = built(asked(*talk), closing="user")["messages"]
    called = built(asked(*talk, turns=[turn(("a", "{}", "1"))]), closing="user")["messages"]

    assert [each["role"] for each in ended] == ["user", "assistant", "user"]
    assert [each["role"] for each in called] == ["user", "assistant", "tool"]


def test_echoed_fields_go_back_as_they_came() -> None:
    """S01, S02: in the message and in its call, in that turn alone; ours stay ours."""
    echoed = {"reasoning_content": "first thought", "role": "tool", "content": "x"}
    signed = {0: {"id": "a", "extra_content": {"s": [1, None]}, "function": {"x": 1, "name": "y"}}}
    turns = [turn(("a", "{}", "1"), message=echoed, echoed=signed), turn(("b", "{}", "2"))]

    first, _, second, _ = built(asked(turns=turns))["messages"]

    assert first == {
        "role": "assistant",
        "content": "",
        "reasoning_content": "first thought",
        "tool_calls": [
            {
                "id": "a",
                "type": "function",
                "function": {"name": "weather", "arguments": "{}", "x": 1},
                "extra_content": {"s": [1, None]},
            }
        ],
    }
    assert second.keys() == {"role", "content", "tool_calls"}
    assert second["tool_calls"][0].keys() == {"id", "type", "function"}


def test_echoed_field_is_left_out_when_the_form_says_so() -> None:
    """Some endpoints refuse the thoughts that they sent."""
    signed = {0: {"id": "a", "extra": 1, "function": {"inner": 1}}}
    request = asked(turns=[turn(("a", "{}", "1"), message={"reasoning": "x"}, echoed=signed)])

    sent = built(request, echo__reasoning="omit", echo__extra="omit", echo__inner="omit")
    call = sent["messages"][0]["tool_calls"][0]

    assert sent["messages"][0].keys() == {"role", "content", "tool_calls"}
    assert call == {
        "id": "a",
        "type": "function",
        "function": {"name": "weather", "arguments": "{}"},
    }


@pytest.mark.parametrize("messages", [[], [message("user", " ")]], ids=["none", "blank"])
def test_thread_without_words_is_no_empty_list(messages: list[Any]) -> None:
    """No endpoint takes one; instructions alone are sent as they are."""
    nothing = built(asked(*messages))["messages"]
    instructed = built(asked(*messages, instructions="Greet."))["messages"]

    assert [each["role"] for each in nothing] == ["user"]
    assert nothing[0]["content"]
    assert instructed == [{"role": "system", "content": "Greet."}]
