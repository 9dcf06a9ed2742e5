"""JSON definitions as programs: read, check, compile, run, draw."""

from __future__ import annotations

from typing import Any

from wpa.plan.check import check
from wpa.plan.compile import Plan, content_hash, load
from wpa.plan.documents import Document
from wpa.plan.graph import mermaid, svg
from wpa.plan.text import parse
from wpa.plan.waits import SIGNATURES

__all__ = ["SIGNATURES", "Plan", "check", "content_hash", "json_schema", "load", "mermaid", "parse", "svg"]


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the definition language, generated from its models."""
    schema = Document.model_json_schema(by_alias=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://wpa.dev/schemas/definition.schema.json",
        **schema,
        "title": "wpa workflow definition",
    }
