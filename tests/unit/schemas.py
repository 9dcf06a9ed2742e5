"""The published schemas as validators, open and closed, for the tests that hold things to them."""

from __future__ import annotations

import copy
import json
from typing import Any

from jsonschema import Draft202012Validator

from wpa.cli.schema_files import render_all

RENDERED = render_all()
FORMATS = Draft202012Validator.FORMAT_CHECKER


def schema(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RENDERED[name])
    return found


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=FORMATS)


def complaints(validator: Draft202012Validator, value: Any) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]


def closed(schema: dict[str, Any], part: str = "$defs") -> dict[str, Any]:
    """The same schema, refusing what the models don't name: a test must see what is not written down."""
    schema = copy.deepcopy(schema)
    definitions = schema["$defs"] if part == "$defs" else schema["components"]["schemas"]
    for name, definition in definitions.items():
        own = "allOf" not in definition and not name.startswith("Definition")
        if own and definition.get("type") == "object":
            definition["additionalProperties"] = False
    return schema


TASKS = validator(schema("task.schema.json"))
CLOSED_EVENTS = closed(schema("event.schema.json"))
EVENTS = validator(CLOSED_EVENTS)
ASYNCAPI = schema("asyncapi.json")
CLOSED = closed(ASYNCAPI, "components")["components"]


def component(name: str) -> Draft202012Validator:
    return validator({"$ref": f"#/components/schemas/{name}", "components": CLOSED})
