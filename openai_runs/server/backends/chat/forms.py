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

__all__ = ["DEFAULTS", "Forms", "Refusal", "check_forms", "other_forms"]

Forms: TypeAlias = Mapping[str, str]
"""The form of each thing; `echo.<field>` says whether an echoed field is sent back."""

_UNSUPPORTED: Final = (
    r"unsupported|not_support|unknown|unrecogni|unexpected|unavailable|undefined|deprecated"
    r"|(?:\bnot|n't|\bnever|cannot|no longer)\s+(?:\w+\s+){0,2}"
    r"(?:support|permit|allow|recogni|accept|implement|available|enabled|known|defined|used?\b"
    r"|set\b|specif|understand|valid (?:param|field|arg))"
    r"|extra[ _](?:input|field|param|key|prop|arg|forbidden)"
    r"|no (?:such )?(?:field|param|support|endpoint)|only .{0,20}default|\binstead\b"
    r"|forbidden|prohibited|remove|requires|disabled|must not\b"
    r"|invalid[ _](?:param|arg|field|key|prop|option)"
)
"""Words that refuse a field itself."""
_OF_VALUE: Final = (
    r"at least|at most|less than|greater than|too (?:large|small|high|low|long|short|big|many)"
    r"|exceed|above max|below min|out of range|between|invalid.{0,3}schema|schema for"
)
"""Words that refuse what the caller gave, which no other form would mend."""
_MISSING: Final = r"missing|is required|must be (?:passed|provided|present|included|sent)"
_ROLES: Final = (
    rf"{_UNSUPPORTED}|alternat|only .{{0,60}}(?:role|user)|unknown variant|invalid.{{0,30}}role"
    r"|should be|must be one of"
)
_OPENS: Final = r"alternat|first|must (?:start|begin)|starts? with|at least one|no user"
_EMPTY: Final = (
    r"null|\bnil\b|none\b|empty|blank|missing|required|must be|should be|valid string|expected"
    r"|content type|at least|length|whitespace"
)
_TEMPLATE: Final = frozenset({"instructions", "opening", "content", "ids"})
"""What the chat template of a model refuses; some endpoints answer 500 then."""
_VAGUE: Final = ("stream", "ids", "content", "opening", "instructions")
"""Rows whose names also stand in complaints about others; they come last, in this order."""
_ECHO: Final = "echo."
_MAX_TEXT: Final = 4000
"""Characters of a refusal that are read."""
_MAX_STRINGS: Final = 200
"""Strings of it."""


class _Row(NamedTuple):
    """A thing that can take more than one form."""

    forms: tuple[str, ...]
    """The default first; another one is tried in this order."""
    names: str
    """How a refusal names it, as a pattern."""
    refuses: str = _UNSUPPORTED
    """Words of a refusal, as a pattern."""
    spares: str = _OF_VALUE
    """Words that show that another form would not help, as a pattern."""


_NONE: Final = r"(?!)"
_SENT: Final = ("send", "omit")
FORMS: Final[Mapping[str, _Row]] = {
    "stream_options": _Row(_SENT, r"\bstream_?options\b|include_usage"),
    "stream": _Row(_SENT, r"\bstream(?:ing|ed)?\b"),
    "tool_choice": _Row(
        ("send", "words", "omit"),
        r"\btool[_ ]?choice\b",
        rf"{_UNSUPPORTED}|invalid .?tool[_ ]?choice|supported .{{0,10}}values|must be|should be",
    ),
    "parallel_tool_calls": _Row(_SENT, r"\bparallel[_ ]?(?:tool|function)[_ ]?call"),
    "max_tokens": _Row(
        ("max_completion_tokens", "max_tokens"), r"\bmax_?(?:completion_?)?tokens\b"
    ),
    "response_format": _Row(
        ("send", "json_object", "omit"),
        r"\bresponse[_ ]?format\b|\bjson[_ ](?:schema|object|mode)\b|structured output",
        rf"{_UNSUPPORTED}|must be|should be|unknown variant|invalid",
    ),
    "reasoning_effort": _Row(_SENT, r"\breasoning[_ ]?effort\b|\breasoning\.effort\b"),
    "temperature": _Row(_SENT, r"\btemperature\b"),
    "top_p": _Row(_SENT, r"\btop_?p\b"),
    "strict": _Row(_SENT, r"\bstrict\b"),
    "content": _Row(("empty", "omit", "null"), r"\bcontents?\b", _EMPTY, r"policy|filter"),
    "ids": _Row(
        ("given", "made"),
        r"\btool[_ ]?call[_ ]?ids?\b|\btool_calls\b.{0,20}\bid\b",
        r"must be|length|invalid|a-z|match|pattern|too long|at most|duplicate|unique",
        r"no .{0,30}found|not found|missing|follow",
    ),
    "opening": _Row(("any", "user"), r"\b(?:roles?|user|messages?)\b", _OPENS, _NONE),
    "instructions": _Row(
        ("system", "user", "developer"), r"\b(?:system|developer|roles?)\b", _ROLES, _NONE
    ),
}
"""The rows, by the name that `forms=` has for them."""
DEFAULTS: Final[Forms] = {name: row.forms[0] for name, row in FORMS.items()}
"""The forms of an endpoint of which nothing is known."""
_DEVELOPER: Final = r"(?:use|expected|instead|supported).{0,60}developer|developer.{0,20}instead"


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
    """One complaint: which fields it names, and its words."""

    fields: frozenset[str]
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
        self.is_read = status in {400, 404, 413, 422, 500, 501}
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
            _Claim(frozenset(map(str, _path(each))), _text(each))
            for each in _objects(self.body)
            if _path(each)
        ]
        return [*found, _Claim(frozenset(), self.text)]


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


def _path(each: Mapping[str, Any]) -> list[Any]:
    """Return the path of the field that an error object names: `loc`, `param` and the like."""
    for name in ("loc", "param", "path", "field"):
        path = each.get(name)
        if isinstance(path, list):
            return [step for step in path if isinstance(step, str)]
        if isinstance(path, str) and path:
            return re.split(r"[.\[\]/'\"]+", path[:_MAX_TEXT])
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
    for name in _used(body):
        row = FORMS.get(name)
        if row is None:
            field = re.escape(name.removeprefix(_ECHO))
            row = _Row(_SENT, rf"\b{field}\b", _UNSUPPORTED, _MISSING)
        if status >= 500 and name not in _TEMPLATE:
            continue
        place = _place(row, name.removeprefix(_ECHO), claim)
        if place is not None:
            found.append((place, name))
    for _, name in sorted(found, key=_rank):
        form = _next_form(name, forms, tried, claim.text)
        if form is not None:
            return {name: form}
    return {}


def _rank(found: tuple[int, str]) -> tuple[int, int]:
    """Return the order of rows that a complaint may mean: `role` and the like say least."""
    place, name = found
    return (1, _VAGUE.index(name)) if name in _VAGUE else (0, place)


def _place(row: _Row, field: str, claim: _Claim) -> int | None:
    """Return where the complaint names the row, if it refuses it."""
    if not re.search(row.refuses, claim.text, re.IGNORECASE):
        return None
    if re.search(row.spares, claim.text, re.IGNORECASE):
        return None
    if claim.fields:
        hits = [field in claim.fields, *(re.fullmatch(row.names, each) for each in claim.fields)]
        return 0 if any(hits) else None
    named = re.search(row.names, claim.text, re.IGNORECASE)
    return None if named is None else named.start()


def _next_form(name: str, forms: Forms, tried: Collection[Any], text: str) -> str | None:
    row = FORMS.get(name)
    order = list(row.forms) if row is not None else list(_SENT)
    now = forms.get(name, order[0])
    if name == "instructions" and now == "system" and re.search(_DEVELOPER, text, re.IGNORECASE):
        order = ["developer", *order]
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
        "content": any("tool_calls" in m and not m.get("content") for m in messages),
        "ids": bool(calls),
        "opening": not talk or talk[0]["role"] != "user",
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
