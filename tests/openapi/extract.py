"""Write `facts.json` and `examples.json` from the vendor's OpenAPI description.

Run by hand when the description changes:

    python tests/openapi/extract.py path/to/assistants-openapi.yaml

Kept are facts: names, types, bounds, what is required. Prose is left out.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent

PROSE = {"description", "title", "example", "examples", "deprecated", "default"}
"""Keywords that say nothing about which values are valid; also everything that starts with x-."""

NULL = {"type": "null"}


def normalise(schema: Any) -> Any:
    """Return the schema without prose, its `nullable: true` said as JSON Schema says it."""
    if not isinstance(schema, dict):
        return schema
    nullable = schema.get("nullable") is True
    kept: dict[str, Any] = {}
    for keyword, value in schema.items():
        if keyword == "nullable" or keyword in PROSE or keyword.startswith("x-"):
            continue
        if keyword == "properties":  # a mapping of names: `description` may be one of them
            kept[keyword] = {name: normalise(part) for name, part in value.items()}
        elif keyword in {"items", "additionalProperties"}:
            kept[keyword] = normalise(value)
        elif keyword in {"anyOf", "oneOf", "allOf"}:
            parts = [part for part in value if part != {"nullable": True}]
            # A bare `nullable` beside a $ref in an allOf is meant for the whole.
            nullable = nullable or (keyword == "allOf" and len(parts) < len(value))
            kept[keyword] = [normalise(part) for part in parts]
        else:
            kept[keyword] = value
    return {"anyOf": [kept, NULL]} if nullable else kept


def named(content: dict[str, Any] | None) -> str | None:
    """Return the name of the component schema that a body or an answer holds."""
    if not content:
        return None
    reference: str = content["content"]["application/json"]["schema"]["$ref"]
    return reference.rpartition("/")[2]


def operations(paths: dict[str, Any]) -> list[dict[str, Any]]:
    """Return method, path, query, body and answer of each operation."""
    return [
        {
            "operation": operation["operationId"],
            "method": method.upper(),
            "path": path,
            "query": [
                part["name"] for part in operation.get("parameters", []) if part["in"] == "query"
            ],
            "body": named(operation.get("requestBody")),
            "answer": named(operation["responses"]["200"]),
        }
        for path, methods in paths.items()
        for method, operation in methods.items()
    ]


def examples(paths: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the request bodies and the answers that the reference shows."""
    found = []
    for methods in paths.values():
        for operation in methods.values():
            shown = operation["x-oaiMeta"]["examples"]
            for example in shown if isinstance(shown, list) else [shown]:
                request = re.search(r"-d '(.*?)'\s*\Z", example["request"]["curl"], re.DOTALL)
                answer = example["response"]
                found.append(
                    {
                        "operation": operation["operationId"],
                        "title": example.get("title", ""),
                        "request": readable(request[1]) if request else None,
                        "answer": readable(answer),
                    }
                )
    return found


def readable(text: str) -> Any:
    """Return the JSON in `text`; the text itself where it is a stream or broken."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def objects(schemas: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the example of each component schema that has one."""
    return [
        {"schema": name, "value": readable(example) if isinstance(example, str) else example}
        for name, schema in schemas.items()
        if (example := schema.get("example") or schema.get("x-oaiMeta", {}).get("example"))
    ]


def main(source: Path) -> None:
    """Write both files beside this script."""
    described = yaml.safe_load(source.read_text())
    schemas = described["components"]["schemas"]
    facts = {
        "operations": operations(described["paths"]),
        "schemas": {name: normalise(schema) for name, schema in schemas.items()},
    }
    shown = {"operations": examples(described["paths"]), "objects": objects(schemas)}
    for name, content in (("facts.json", facts), ("examples.json", shown)):
        text = json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True)
        (HERE / name).write_text(text + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
