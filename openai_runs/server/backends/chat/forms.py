"""Forms: how an endpoint wants what there is more than one way to say. Pure.

Theory of operation. `FORMS` has a row for each thing that some endpoints want and others refuse:
the forms it can take, the default first, and how a refusal of it is recognized. When an endpoint
answers 400 or the like, `other_forms` finds the row that the answer names, among those the
request made use of, and returns another form of it that was not tried yet. So a call that is
refused again and again ends: each form is tried once.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from openai_runs.errors import ConfigError

__all__ = ["DEFAULTS", "Forms", "Refusal", "check_forms", "other_forms", "plain"]

Forms: TypeAlias = Mapping[str, str]
"""The form of each thing; `echo.<field>` says whether an echoed field is sent back."""

_UNSUPPORTED: Final = (
    "unsupported", "not_support", "unknown", "unrecogni", "unexpected", "unavailable",
    "undefined", "deprecated", "forbidden", "prohibited", " remove", " disabled ", " instead ",
    " requires ", " must not ", "extra input", "extra field", "extra param", "extra key",
    "extra argument", "extra_input", "no such field", "no such param", "no support",
    "no endpoint", " no longer ", "only the default", "only default", "invalid param",
    "invalid arg", "invalid field", "invalid key", "invalid prop", "invalid option",
    "invalid_param", " only is allowed ", " may only be set ",
)  # fmt: skip
"""Words that refuse a field itself; those with a space at an end are whole words there."""
_REFUSED: Final = (
    "support", "permit", "allow", "recogni", "accept", "implement", "available", "enabled",
    "known", "defined", "used", "set", "specif", "understand", "valid",
)  # fmt: skip
"""Beginnings of words that refuse a field after a negation."""
_NEGATIONS: Final = frozenset({"not", "never", "cannot"})
_REACH: Final = 3
"""Words after a negation that it may be about."""
_OF_VALUE: Final = (
    " at least ", " at most ", "less than", "greater than", "too large", "too small", "too high",
    "too low", "too long", "too short", "too big", "too many", "exceed", "above max", "below min",
    "out of range", " between ", "invalid schema", "invalid json schema", "invalid_json_schema",
    "schema for ",
)  # fmt: skip
"""Words that refuse what the caller gave, which no other form would mend."""
_MISSING: Final = (
    "missing", " is required ", "must be passed", "must be provided", "must be present",
    "must be included", "must be sent",
)  # fmt: skip
_ROLES: Final = (
    "alternat", " only user", "invalid role", "invalid message role", " should be ",
    " one of ", " must be in ", " must be either ", " supported values ", " permitted ",
)  # fmt: skip
_OPENS: Final = (
    "alternat", " first ", " must start ", " must begin ", " start with ", " starts with ",
    " at least one ", " no user", "contents is not", "contents is required",
    "contents are required",
)  # fmt: skip
_CLOSES: Final = (
    "alternat", " last ", " end with ", " ends with ", " at the end ", " prefill",
)  # fmt: skip
_EMPTY: Final = (
    " null ", " nil ", " none ", "nonetype", " empty ", "blank", "missing", "required",
    " must be ", " should be ", "valid string", "expected", "content type", " at least ",
    "length", "whitespace", " must have ", " must contain ",
)  # fmt: skip
_IDS: Final = (
    " must be ", "length", "invalid", " a z ", "match", "pattern", "too long", " at most ",
    "duplicate", "unique", " not valid ",
)  # fmt: skip
_ANYTHING: Final = ("",)
"""Whatever is said about a field that no caller gave a value."""
_FOREIGN: Final = {
    "n't": " not",
    "n\u2019t": " not",
    "\u4e0d\u652f\u6301": " not supported ",
    "\u4e0d\u80fd\u4e3a\u7a7a": " must not be empty ",
    "\u8d85\u957f": " too long ",
    "\u8d85\u8fc7": " exceeds ",
    "\u4e0a\u4e0b\u6587": " context ",
    "\u957f\u5ea6": " length ",
}
"""What stands for words of this table: short forms, and Chinese."""
_TEMPLATE: Final = frozenset({"instructions", "opening", "closing", "content", "ids"})
"""What the chat template of a model refuses; some endpoints answer 500 then."""
_PLAIN_REFUSALS: Final = (
    " unsupported param", " unexpected keyword ", " extra inputs ", " unknown field ",
)  # fmt: skip
"""What tells a refusal of a field from a fault, where the status is 500."""
_VAGUE: Final = ("stream", "ids", "content", "opening", "closing", "instructions")
"""Rows whose names also stand in complaints about others; they come last, in this order."""
_ECHO: Final = "echo."
_MAX_TEXT: Final = 4000
"""Characters of a refusal that are read."""
_MAX_STRINGS: Final = 200
"""Strings of it."""
_WORD: Final = re.compile(r"[a-z0-9_]+")
_STEP: Final = re.compile(r"[^.\[\]/'\"]+")


class _Row(NamedTuple):
    """A thing that can take more than one form."""

    forms: tuple[str, ...]
    """The default first; another one is tried in this order."""
    names: tuple[str, ...]
    """How a refusal names it."""
    refuses: tuple[str, ...] = ()
    """Words of a refusal, besides those that refuse any field."""
    spares: tuple[str, ...] = _OF_VALUE
    """Words that show that another form would not help."""
    any_field: bool = True
    """Whether the words that refuse any field count."""


_SENT: Final = ("send", "omit")
FORMS: Final[Mapping[str, _Row]] = {
    "stream_options": _Row(
        _SENT, (" stream_options ", " stream options ", " include_usage ",
         " streamoptions "), _ANYTHING, ()
    ),
    "stream": _Row(_SENT, (" stream ", " streaming ", " streamed ")),
    "tool_choice": _Row(
        ("send", "words", "omit"),
        (" tool_choice ", " tool choice ", " toolchoice "),
        ("invalid tool_choice", "invalid tool choice", " supported string values ",
         " supported values ", " must be ", " should be "),
    ),
    "parallel_tool_calls": _Row(
        _SENT,
        (" parallel_tool_calls ", " parallel tool call", " parallel function call",
         " paralleltoolcalls "),
        _ANYTHING,
        (),
    ),
    "max_tokens": _Row(
        ("max_completion_tokens", "max_tokens", "omit"),
        (" max_completion_tokens ", " max_tokens ", " max completion tokens ", " max tokens ",
         " maxcompletiontokens ", " maxtokens "),
    ),
    "response_format": _Row(
        ("send", "json_object", "omit"),
        (" response_format ", " response format ", " responseformat ", " json_schema ",
         " json schema ", " json_object ", " json mode ", " structured output",
         " response mime type ", " response_mime_type ", " response schema ", " response_schema "),
        (" must be ", " should be ", "invalid"),
    ),
    "reasoning_effort": _Row(
        _SENT, (" reasoning_effort ", " reasoning effort ", " reasoningeffort ")
    ),
    "temperature": _Row(_SENT, (" temperature ",)),
    "top_p": _Row(_SENT, (" top_p ", " topp ")),
    "strict": _Row(_SENT, (" strict ",)),
    "detail": _Row(
        _SENT, (" image_url detail ", " image detail ", " field detail ", " parameter detail ")
    ),
    "content": _Row(
        ("empty", "omit", "null"),
        (" content ", " contents ", " empty "),
        _EMPTY,
        (" policy ", " filter "),
        any_field=False,
    ),
    "ids": _Row(
        ("given", "made"),
        (" tool_call_id", " tool call id", " tool_calls id ", " toolcallid", " tool_use id ",
         " tooluseid "),
        _IDS,
        ("not found", " no tool", "missing", "follow"),
        any_field=False,
    ),
    "opening": _Row(
        ("any", "user"), (" role", " user ", " message", " contents "), _OPENS, (), any_field=False
    ),
    "closing": _Row(
        ("any", "user"),
        (" role", " user ", " message", " prefill"),
        _CLOSES,
        (),
        any_field=False,
    ),
    "instructions": _Row(
        ("system", "user", "developer"), (" system ", " developer ", " role"), _ROLES, ()
    ),
}  # fmt: skip
"""The rows, by the name that `forms=` has for them."""
DEFAULTS: Final[Forms] = {name: row.forms[0] for name, row in FORMS.items()}
"""The forms of an endpoint of which nothing is known."""


def plain(text: str) -> str:
    """Return the words of a text in lower case, with one space around each; no numbers.

    >>> plain("Invalid 'tools[0].function.strict': isn't supported.")
    ' invalid tools function strict is not supported '
    """
    text = text.lower()
    for foreign, known in _FOREIGN.items():
        text = text.replace(foreign, known)
    words = [word for word in _WORD.findall(text) if not word.isdigit()]
    return f" {' '.join(words)} "


def check_forms(given: Forms | None) -> dict[str, str]:
    """Return the forms that an operator sets beforehand.

    Raises:
        ConfigError: There is no such form.
    """
    for name, form in (given or {}).items():
        row = FORMS.get(name)
        known = _SENT if name.startswith(_ECHO) else row.forms if row is not None else ()
        if not known:
            message = f"forms: there is no {name!r}; there are {', '.join(FORMS)}, echo.<field>"
            raise ConfigError(message)
        if form not in known:
            message = f"forms: {name!r} must be one of {', '.join(known)}, got {form!r}"
            raise ConfigError(message)
    return dict(given or {})


class _Claim(NamedTuple):
    """One complaint: the path of the field that it names, if it names one, and its words."""

    path: tuple[str, ...]
    text: str


class Refusal:
    """What an error body complains about.

    Args:
        status: Its HTTP status.
        content: The body.
    """

    def __init__(self, status: int, content: bytes) -> None:
        """Read the body, which may be JSON of any shape, or a text."""
        self.status = status
        self.is_read = status in {400, 404, 405, 413, 422, 424, 500, 501}
        """Whether such a status may refuse a form."""
        try:
            self.body: Any = msgspec.json.decode(content)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self.body = content[:_MAX_TEXT].decode("utf-8", "replace")
        self.text = _text(self.body)
        """All its words."""

    @property
    def claims(self) -> list[_Claim]:
        """Return the complaints, those that name their field first, the whole text last."""
        found = [
            _Claim(tuple(_path(each)), _text(each)) for each in _objects(self.body) if _path(each)
        ]
        return [*found, _Claim((), self.text)]


def _strings(value: Any) -> Iterator[str]:
    """Yield the strings within a JSON value, in order, and its numbers with their names."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            if isinstance(each, int) and not isinstance(each, bool):
                yield f"{name}: {each}"
            else:
                yield from _strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)
    elif isinstance(value, str):
        yield value


def _text(value: Any) -> str:
    found = []
    for string in _strings(value):
        found.append(string[:_MAX_TEXT])
        if len(found) > _MAX_STRINGS:
            break
    return " | ".join(found)[:_MAX_TEXT]


def _objects(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for each in value[:_MAX_STRINGS]:
            yield from _objects(each)


def _path(each: Mapping[str, Any]) -> list[str]:
    """Return the path of the field that an error object names: `loc`, `param` and the like."""
    for name in ("loc", "param", "path", "field"):
        path = each.get(name)
        if isinstance(path, list):
            return [step for step in path if isinstance(step, str)]
        if isinstance(path, str) and path:
            return _STEP.findall(path[:_MAX_TEXT])
    return []


def other_forms(
    refusal: Refusal, body: Mapping[str, Any], forms: Forms, tried: Collection[tuple[str, str]]
) -> dict[str, str]:
    """Return other forms of what the refusal names; empty if there are none left.

    Args:
        refusal: The endpoint's answer.
        body: The request that was refused.
        forms: The forms it has.
        tried: Rows and forms that were tried in this call.
    """
    changes: dict[str, str] = {}
    claims = refusal.claims if refusal.is_read else []
    for claim in claims[:-1]:
        changes |= _changed(claim, refusal.status, body, forms, tried)
    if not changes and claims:
        changes = _changed(claims[-1], refusal.status, body, forms, tried)
    return changes


def _changed(
    claim: _Claim, status: int, body: Mapping[str, Any], forms: Forms, tried: Collection[Any]
) -> dict[str, str]:
    """Return the change that one complaint asks for: of the row that it names first."""
    found: list[tuple[int, str]] = []
    words, path = plain(claim.text), plain(" ".join(claim.path))
    is_plain = status < 500 or status == 501 or any(each in words for each in _PLAIN_REFUSALS)
    for name in _used(body):
        if is_plain or name in _TEMPLATE:
            place = _place(_row(name), words, path)
            if place is not None:
                found.append((place, name))
    for _, name in sorted(found, key=_rank):
        form = _next_form(name, forms, tried, words)
        if form is not None:
            return {name: form}
    return {}


def _row(name: str) -> _Row:
    """Return the row of a name; an echoed field is sent back or left out."""
    return FORMS.get(name) or _Row(_SENT, (f" {name.removeprefix(_ECHO)} ".lower(),), (), _MISSING)


def _rank(found: tuple[int, str]) -> tuple[int, int]:
    """Return the order of rows that a complaint may mean: `role` and the like say least."""
    place, name = found
    return (1, _VAGUE.index(name)) if name in _VAGUE else (0, place)


def _place(row: _Row, words: str, path: str) -> int | None:
    """Return where the complaint names the row, if it refuses it."""
    refuses = any(each in words for each in row.refuses)
    if not refuses and not (row.any_field and _refuses_field(words)):
        return None
    if any(each in words for each in row.spares):
        return None
    places = [(path if path.strip() else words).find(each) for each in row.names]
    return min((place for place in places if place >= 0), default=None)


def _refuses_field(words: str) -> bool:
    """Tell whether a complaint says that a field is not taken, whatever its value."""
    if any(each in words for each in _UNSUPPORTED):
        return True
    listed = words.split()
    return any(
        word in _NEGATIONS and any(w.startswith(_REFUSED) for w in listed[n + 1 : n + 1 + _REACH])
        for n, word in enumerate(listed)
    )


def _next_form(name: str, forms: Forms, tried: Collection[Any], words: str) -> str | None:
    order = list(_row(name).forms)
    now = forms.get(name, order[0])
    if name == "instructions" and " developer " in words and " system " in words:
        order.insert(0, "developer" if now == "system" else "system")
    if name in {"response_format", "tool_choice"}:  # never back to what was refused before
        order = order[order.index(now) :]
    return next((each for each in order if each != now and (name, each) not in tried), None)


def _used(body: Mapping[str, Any]) -> list[str]:
    """Return the rows that the request makes use of, and its echoed fields."""
    messages: list[dict[str, Any]] = body["messages"]
    calls = [call for message in messages for call in message.get("tool_calls", ())]
    formats = (body.get("response_format") or {}).get("json_schema") or {}
    functions = [tool["function"] for tool in body.get("tools", ())]
    talk = [each for each in messages if each["role"] not in {"system", "developer"}]
    used = {name: name in body for name in FORMS}
    used |= {
        "max_tokens": not {"max_tokens", "max_completion_tokens"}.isdisjoint(body),
        "strict": any("strict" in each for each in [formats, *functions]),
        "detail": any(
            "detail" in part.get("image_url", ()) for m in messages for part in _parts(m)
        ),
        "content": any("tool_calls" in m and not m.get("content") for m in messages),
        "ids": bool(calls),
        "opening": not talk or talk[0]["role"] != "user",
        "closing": bool(talk) and talk[-1]["role"] == "assistant",
        "instructions": len(talk) < len(messages),
    }
    echoed = {name for m in messages for name in m} - {
        "role", "content", "tool_calls", "tool_call_id",
    }  # fmt: skip
    for call in calls:
        echoed |= call.keys() - {"id", "type", "function"}
        echoed |= call["function"].keys() - {"name", "arguments"}
    return [
        *(f"{_ECHO}{name}" for name in sorted(echoed)),
        *(n for n, is_used in used.items() if is_used),
    ]


def _parts(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the parts of a content that has some."""
    content = message.get("content")
    return content if isinstance(content, list) else []
