"""Tables in Markdown of what a JSON Schema allows: one row a field, with type, bounds, default and meaning."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

_BOUNDS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} values",
    "maxItems": "at most {} values",
    "pattern": "`{}`",
}


def table(schema: Schema, above: str = "") -> str:
    """The fields of an object schema as a Markdown table.

    Args:
        schema: An object schema with ``properties``.
        above: What each name starts with, as ``head.``.
    """
    lines = ["| name | type | default | meaning |", "|---|---|---|---|"]
    for name, field in schema.get("properties", {}).items():
        default = _default(name, schema, field)
        meaning = _cell(field.get("description", ""))
        lines.append(f"| `{above}{name}` | {_cell(type_of(field))} | {_cell(default)} | {meaning} |")
    return "\n".join(lines)


def type_of(field: Schema) -> str:
    """What a field takes, with its bounds: ``number, > 0, ≤ 1``."""
    bounds = [text.format(field[key]) for key, text in _BOUNDS.items() if key in field]
    return ", ".join([_kind(field), *bounds])


def name_of(reference: str) -> str:
    """The last part of ``#/components/schemas/Name``."""
    return reference.rpartition("/")[2]


def _kind(field: Schema) -> str:
    match field:
        case {"$ref": reference}:
            kind = f"[{name_of(reference)}](#{name_of(reference).lower()})"
        case {"anyOf": choices} | {"oneOf": choices} | {"allOf": choices}:
            kind = " or ".join(type_of(each) for each in choices)
        case {"const": value}:
            kind = f"`{value}`"
        case {"enum": values}:
            kind = " or ".join(f"`{value}`" for value in values)
        case {"type": "array", "items": items}:
            kind = f"list of {type_of(items)}"
        case {"additionalProperties": dict(inner)}:
            kind = f"{type_of(inner)} by name"
        case _:
            kind = str(field.get("type", "any"))
    return kind


def _default(name: str, schema: Schema, field: Schema) -> str:
    if name in schema.get("required", ()):
        return "required"
    if "default" not in field or isinstance(field["default"], dict):
        return ""
    return f"`{json.dumps(field['default'], ensure_ascii=False)}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("``", "`")
