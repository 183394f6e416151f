"""Parts of the reference that are read from the code: every setting, and every route of the HTTP service."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from schema_tables import Schema, name_of, table, type_of

import enzyme_stability
from enzyme_stability.config.delta_tm import DeltaTmConfig, ExpectedProfileSettings
from enzyme_stability.config.preparation import Recipe
from enzyme_stability.config.promotion import PromotionTerms
from enzyme_stability.config.search import SearchSpace
from enzyme_stability.config.serving import ServingConfig
from enzyme_stability.config.training import TrainConfig
from enzyme_stability.serving.app import create_app

_CONF = Path(enzyme_stability.__file__).parent / "conf"
_ATTRIBUTE = re.compile(r"^ +(\w+): (.+)$", re.MULTILINE)


def settings() -> str:
    """Every setting, from the classes that validate them."""
    parts: list[str] = []
    for title, checked in {
        "A training run": TrainConfig,
        "A search": SearchSpace,
        "Preparation of data": Recipe,
        "Training of the delta Tm model": DeltaTmConfig,
        "The network of expected profiles": ExpectedProfileSettings,
        "The service": ServingConfig,
        "Promotion of a version": PromotionTerms,
    }.items():
        parts += [f"## {title}", *_tables(checked)]
    parts += ["## Files of values", *_files()]
    return "\n\n".join(parts) + "\n"


def routes() -> str:
    """Every route of the service with what it takes and answers, from its OpenAPI description."""
    api = create_app().openapi()
    operations = {
        f"{method.upper()} {path}": operation
        for path, methods in api["paths"].items()
        for method, operation in methods.items()
    }
    common = _most_have(operations.values())
    parts: list[str] = []
    for title, operation in operations.items():
        parts += [f"## {title}", *_operation(operation, common)]
    parts += ["## Errors of most routes", _answers(common)]
    parts.append("## Bodies")
    for name, schema in sorted(api["components"]["schemas"].items()):
        parts += [f"### {name}", _sentence(schema), table(schema)]
    return "\n\n".join(parts) + "\n"


def _tables(settings: type[BaseModel]) -> Iterator[str]:
    schema = settings.model_json_schema()
    schema["properties"] = {name: _told(settings, name, field) for name, field in schema["properties"].items()}
    yield _sentence(schema)
    yield table(schema)
    for name, inner in schema.get("$defs", {}).items():
        if "properties" in inner:
            yield f"### {name}"
            yield _sentence(inner)
            yield table(inner)


def _told(settings: type[BaseModel], name: str, field: dict[str, Any]) -> dict[str, Any]:
    """A field with the meaning that the docstring of its class gives, where it has none of its own."""
    said = dict(_ATTRIBUTE.findall(settings.__doc__ or ""))
    return {"description": said.get(name, ""), **field}


def _files() -> Iterator[str]:
    yield (
        "Each file of a group names every setting of its class; `encoder=esm2_8m` takes the file of that name. "
        "These are the defaults of the command line."
    )
    for group in sorted(path for path in _CONF.iterdir() if path.is_dir() and path.name != "__pycache__"):
        yield f"### {group.name}="
        lines = ["| file | values |", "|---|---|"]
        for path in sorted(group.glob("*.yaml")):
            values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            shown = yaml.safe_dump(values, default_flow_style=None, sort_keys=False, width=10_000).splitlines()
            lines.append(f"| `{path.stem}` | {'<br>'.join(f'`{line}`' for line in shown)} |")
        yield "\n".join(lines)


def _operation(operation: Schema, common: Mapping[str, Any]) -> Iterator[str]:
    yield operation.get("description", "").replace("``", "`")
    if parameters := operation.get("parameters"):
        fields = {one["name"]: {"description": one.get("description", ""), **one["schema"]} for one in parameters}
        required = [one["name"] for one in parameters if one.get("required")]
        yield table({"properties": fields, "required": required})
    for kind, body in operation.get("requestBody", {}).get("content", {}).items():
        schema = body["schema"]
        yield f"Takes `{kind}`" + (f": {type_of(schema)}." if "$ref" in schema else ":")
        if "properties" in schema:
            yield table(schema)
    yield _answers({status: answer for status, answer in operation["responses"].items() if status not in common})


def _most_have(operations: Collection[Schema]) -> dict[str, Any]:
    """Answers with an error that more than half of the routes give."""
    errors = [(status, each) for one in operations for status, each in one["responses"].items() if status >= "400"]
    counted = Counter(status for status, _ in errors)
    return {status: answer for status, answer in errors if counted[status] > len(operations) / 2}


def _answers(answers: Mapping[str, Any]) -> str:
    lines = ["| status | answer | body |", "|---|---|---|"]
    for status, answer in sorted(answers.items()):
        kinds = [type_of(content.get("schema", {})) for content in answer.get("content", {}).values()]
        lines.append(f"| {status} | {answer['description']} | {', '.join(kinds)} |")
    return "\n".join(lines)


def _sentence(schema: Schema) -> str:
    """The first paragraph of a description."""
    return schema.get("description", name_of(schema.get("title", ""))).split("\n\n")[0].replace("``", "`")
