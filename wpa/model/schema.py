"""The public contract as data: JSON Schemas of tasks and events.

Generated from the models, so that they can't drift: ``schemas/`` holds what this module returns, and a
test compares. The models say the shapes; what a decoder checks beside them (names, times, ranges) is
added here from the same patterns that the door uses. Everything stays open: consumers must ignore
fields that they don't know, so that events may gain some.
"""

from __future__ import annotations

import inspect
import re
from typing import Any, Final

import msgspec

from wpa.model import ids
from wpa.model.codec import LABEL_CHARS_MAX, RFC3339, TASK_TYPES
from wpa.model.event_data import EVENT_DATA, LIVE_EVENTS
from wpa.model.events import Event
from wpa.model.tasks import START, Task

__all__ = ["Schema", "component_schemas", "event_kinds", "event_schema", "prose", "task_schema"]

Schema = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
BASE: Final = "https://wpa.dev/schemas/"
IN_DEFS: Final = "#/$defs/{name}"


def _pattern(pattern: re.Pattern[str], *, optional: bool = False) -> str:
    whole = f"^(?:{pattern.pattern})$"
    return f"^$|{whole}" if optional else whole


_LABEL: Final[Schema] = {"maxLength": LABEL_CHARS_MAX}

_NOTES: Final[dict[str, dict[str, Schema]]] = {
    "Task": {
        "type": {"enum": list(TASK_TYPES), "description": "what is asked"},
        "task_id": {**_LABEL, "description": "the publisher's own id of this task; recorded"},
        "tenant_id": {
            "pattern": _pattern(ids.TENANT, optional=True),
            "description": "if present, the tenant of the subject the task is published on",
        },
        "workflow_id": {"pattern": _pattern(ids.WORKFLOW), "description": "the definition to run"},
        "version": {
            "pattern": _pattern(ids.VERSION, optional=True),
            "description": "a deployed version; where empty, the one deployed last",
        },
        "execution_id": {
            "pattern": _pattern(ids.EXECUTION, optional=True),
            "description": "the idempotency key: the same id and content again changes nothing, other "
            "content is a conflict; where empty, one is made from the message",
        },
        "global_task_id": {**_LABEL, "description": "an id over many tasks, the publisher's; recorded"},
        "created_at": {
            "pattern": _pattern(RFC3339, optional=True),
            "description": "when the publisher made it, in RFC 3339",
        },
        "priority": {"minimum": 0, "maximum": 9, "description": "9 is the most urgent"},
    },
    "TaskMetadata": {
        "agent_id": _LABEL,
        "session_id": _LABEL,
        "user_id": _LABEL,
        "source": {**_LABEL, "description": "what kind of publisher it was, for example api"},
    },
    "StartPayload": {
        "input_data": {"description": "the workflow's `input`; must fit the definition's input schema"},
        "variables": {"description": "values for the definition's `variables`"},
        "execution_context": {"description": "whatever else the workflow may read, as `execution.context`"},
    },
    "Event": {
        "id": {"description": "unique; the same in the `ce-id` header"},
        "seq": {"minimum": 1, "description": "counts the execution's own events, without a gap"},
        "event": {"description": "the event's name"},
        "tenant_id": {"pattern": _pattern(ids.TENANT)},
        "workflow_id": {"pattern": _pattern(ids.WORKFLOW)},
        "execution_id": {"pattern": _pattern(ids.EXECUTION)},
        "timestamp": {"format": "date-time", "description": "RFC 3339, UTC, milliseconds"},
        "service": {"description": "who wrote it"},
        "task_id": {"description": "of the task that started the execution"},
        "global_task_id": {"description": "of the task that started the execution"},
        "worker": {"description": "the worker that drove the execution"},
        "epoch": {"minimum": 1, "description": "one more for each worker that took over"},
        "traceparent": {"description": "W3C trace context; one trace for the whole execution"},
        "data": {"description": "what this kind of event carries"},
    },
}


def component_schemas(types: list[type[msgspec.Struct]], template: str) -> dict[str, Schema]:
    """The schemas of models and of all they refer to, by name, with the notes added."""
    _, components = msgspec.json.schema_components(types, ref_template=template)
    for name, schema in components.items():
        if "description" in schema:
            schema["description"] = prose(schema["description"])
        for field, notes in _NOTES.get(name, {}).items():
            schema["properties"][field].update(notes)
        # An empty list says nothing, and old dialects refuse it.
        if schema.get("required") == []:
            del schema["required"]
    if "Task" in components:
        components["Task"]["allOf"] = [
            {
                "if": {"properties": {"type": {"const": START}}},
                "then": {"required": ["workflow_id"]},
            }
        ]
    return components


def prose(docstring: str) -> str:
    """A docstring as plain text with Markdown's backticks."""
    paragraphs = inspect.cleandoc(docstring).replace("``", "`").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def event_kinds(template: str) -> dict[str, Schema]:
    """One schema for each event of the journal, by the event's name."""
    return {
        name: {
            "title": name,
            "description": prose(data.__doc__ or ""),
            "allOf": [{"$ref": template.format(name="Event")}],
            "properties": {
                "event": {"const": name},
                "data": {"$ref": template.format(name=data.__name__)},
            },
            "required": ["event", "data"],
        }
        for name, data in EVENT_DATA.items()
    }


def task_schema() -> Schema:
    """The JSON Schema of what may be published on ``workflow.tasks.<tenant>``."""
    definitions = component_schemas([Task], IN_DEFS)
    task = definitions.pop("Task")
    return {
        "$schema": DIALECT,
        "$id": f"{BASE}task.schema.json",
        **task,
        "title": "wpa task",
        "examples": [{"type": START, "workflow_id": "order", "payload": {"input_data": {}}}],
        "$defs": definitions,
    }


def event_schema() -> Schema:
    """The JSON Schema of everything that is seen on ``workflow.events.>``: stored and live."""
    definitions = component_schemas([Event, *EVENT_DATA.values(), *LIVE_EVENTS.values()], IN_DEFS)
    names = [*EVENT_DATA, *(model.__name__ for model in LIVE_EVENTS.values())]
    return {
        "$schema": DIALECT,
        "$id": f"{BASE}event.schema.json",
        "title": "wpa event",
        "description": "An event of an execution's journal (`workflow.events.<tenant>.<execution>`), or a "
        "live one (`….live`), told apart by `event`.",
        "type": "object",
        "required": ["event"],
        "oneOf": [{"$ref": IN_DEFS.format(name=name)} for name in names],
        "$defs": {**event_kinds(IN_DEFS), **definitions},
    }
