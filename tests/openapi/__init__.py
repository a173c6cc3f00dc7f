"""The vendor's OpenAPI description as a referee: which operations exist, which answers are valid.

`facts.json` and `examples.json` are written by `extract.py`; nothing here knows our types.
Where real servers contradict the description, `AMENDMENTS` says so and why.
"""

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from jsonschema import Draft202012Validator

__all__ = ["EXAMPLES", "OPERATIONS", "SCHEMAS", "Operation", "is_valid", "problems", "validate"]

HERE: Final = Path(__file__).parent
_FACTS: Final[dict[str, Any]] = json.loads((HERE / "facts.json").read_text())

EXAMPLES: Final[dict[str, Any]] = json.loads((HERE / "examples.json").read_text())
"""`operations`: each with `operation`, `request` and `answer`; `objects`: `schema` and `value`."""


class Operation(NamedTuple):
    """One operation as the description has it; schemas by name."""

    operation: str
    method: str
    path: str
    query: list[str]
    body: str | None
    answer: str


OPERATIONS: Final = {facts["operation"]: Operation(**facts) for facts in _FACTS["operations"]}
"""By operation id."""

AMENDMENTS: Final[dict[tuple[str, ...], Any]] = {
    # Null on an empty page, in practice.
    ("List*Response", "first_id"): {"type": ["string", "null"]},
    ("List*Response", "last_id"): {"type": ["string", "null"]},
    # The description's own examples of runs say null.
    ("RunObject", "instructions"): {"type": ["string", "null"]},
}
"""Schema and property -> what is meant."""


def amended(schemas: dict[str, Any]) -> dict[str, Any]:
    """Return the schemas with `AMENDMENTS` put in."""
    for (pattern, name), meant in AMENDMENTS.items():
        for schema in (s for key, s in schemas.items() if Path(key).match(pattern)):
            schema["properties"][name] = meant
    # An assistant may have 128 tools, and its runs inherit them.
    schemas["RunObject"]["properties"]["tools"]["maxItems"] = 128
    return schemas


PUBLISHED: Final[dict[str, Any]] = _FACTS["schemas"]
"""Component schemas by name, as JSON Schema 2020-12; references name components."""
SCHEMAS: Final[dict[str, Any]] = amended(copy.deepcopy(PUBLISHED))
"""The same with `AMENDMENTS`."""


@cache
def _validator(schema: str, *, published: bool = False) -> Draft202012Validator:
    schemas = PUBLISHED if published else SCHEMAS
    reference = {"$ref": f"#/components/schemas/{schema}", "components": {"schemas": schemas}}
    return Draft202012Validator(reference)


def is_valid(schema: str, value: object) -> bool:
    """Tell whether `value` is valid, faster than `problems` does."""
    return bool(_validator(schema).is_valid(value))


def problems(schema: str, value: object, *, published: bool = False) -> list[str]:
    """Return what is wrong with `value`, each with its path; an empty list if it is valid.

    With `published`, the description counts as it stands, without our amendments.
    """
    found = _validator(schema, published=published).iter_errors(value)
    return sorted(f"{error.json_path}: {error.message[:200]}" for error in found)


def validate(schema: str, value: object) -> None:
    """Fail the test if `value` is not what the component schema of that name describes."""
    found = problems(schema, value)
    assert not found, f"not a valid {schema}:\n" + "\n".join(found)
