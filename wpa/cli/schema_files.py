"""The files in ``schemas/``: what they are called, and what is in them."""

from __future__ import annotations

import json
from typing import Any

from wpa import plan
from wpa.model.asyncapi import asyncapi
from wpa.model.schema import event_schema, task_schema

__all__ = ["render_all"]


def render_all() -> dict[str, str]:
    """Every schema file as it must be checked in: name and text. The same at every call, on every machine."""
    definition = plan.json_schema()
    return {
        "definition.schema.json": _render(definition),
        "task.schema.json": _render(task_schema()),
        "event.schema.json": _render(event_schema()),
        "asyncapi.json": _render(asyncapi(definition)),
    }


def _render(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
