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
from wpa.model.codec import LABEL_CHARS_MAX, RFC3339
from wpa.model.event_data import EVENT_DATA
from wpa.model.events import Event
from wpa.model.live_events import LIVE_EVENTS
from wpa.model.tasks import (
    ANSWER,
    ASKS,
    CANCEL,
    CHILD_ENDED,
    MIGRATE,
    PAUSE,
    RESUME,
    RETRY,
    SIGNAL,
    START,
    STEP_RESULT,
    TERMINATE,
    Envelope,
    Task,
)

__all__ = [
    "TASK_MODELS",
    "Schema",
    "component_schemas",
    "event_kinds",
    "event_schema",
    "prose",
    "task_kinds",
    "task_schema",
]

Schema = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
BASE: Final = "https://wpa.dev/schemas/"
IN_DEFS: Final = "#/$defs/{name}"


def _pattern(pattern: re.Pattern[str], *, optional: bool = False) -> str:
    whole = f"^(?:{pattern.pattern})$"
    return f"^$|{whole}" if optional else whole


TASK_MODELS: Final[dict[str, type[Envelope]]] = {START: Task, **ASKS}
"""Every type of task, and its shape."""

_LABEL: Final[Schema] = {"maxLength": LABEL_CHARS_MAX}
_EXECUTION: Final[Schema] = {"pattern": _pattern(ids.EXECUTION)}
_ENVELOPE: Final[dict[str, Schema]] = {
    "task_id": {**_LABEL, "description": "the publisher's own id of this task; recorded"},
    "tenant_id": {
        "pattern": _pattern(ids.TENANT, optional=True),
        "description": "if present, the tenant of the subject the task is published on",
    },
    "workflow_id": {"description": "the execution's definition; what is asked of an execution needs none"},
    "execution_id": {**_EXECUTION, "description": "the execution of which it is asked"},
    "global_task_id": {**_LABEL, "description": "an id over many tasks, the publisher's; recorded"},
    "created_at": {
        "pattern": _pattern(RFC3339, optional=True),
        "description": "when the publisher made it, in RFC 3339",
    },
    "priority": {"minimum": 0, "maximum": 9, "description": "9 is the most urgent"},
}

_NOTES: Final[dict[str, dict[str, Schema]]] = {
    **{model.__name__: _ENVELOPE for model in ASKS.values()},
    "Task": {
        **_ENVELOPE,
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
        "start_at": {
            "pattern": _pattern(RFC3339, optional=True),
            "description": "nothing begins before, in RFC 3339; where it is past, it begins at once",
        },
        "parent": {"description": "set by the engine: the execution that waits for this one"},
        "fork": {"description": "begin with what another execution had settled"},
    },
    "Fork": {
        "execution_id": _EXECUTION,
        "step": {"description": "what was settled before it is taken over; nothing where empty"},
    },
    "Parent": {"execution_id": _EXECUTION},
    "TaskMetadata": {
        "agent_id": _LABEL,
        "session_id": _LABEL,
        "user_id": {**_LABEL, "description": "who it is; approvals look at it"},
        "source": {**_LABEL, "description": "what kind of publisher it was, for example api"},
        "roles": {
            "items": {"type": "string", **_LABEL},
            "description": "what the user may do; approvals look at it",
        },
    },
    "StartPayload": {
        "input_data": {"description": "the workflow's `input`; must fit the definition's input schema"},
        "variables": {"description": "values for the definition's `variables`"},
        "execution_context": {"description": "whatever else the workflow may read, as `execution.context`"},
    },
    "SignalPayload": {
        "signal": {"pattern": _pattern(ids.STEP), "description": "the signal's name"},
        "payload": {"description": "what the step that waits for it gets as its output"},
        "id": {**_LABEL, "description": "the same id twice counts once; the task_id where empty"},
    },
    "AnswerPayload": {
        "step": {"description": "the approval's step, or slot"},
        "approved": {"description": "the verdict; one rejection decides"},
        "comment": {"description": "why; recorded"},
    },
    "ReasonPayload": {"reason": {"description": "recorded"}},
    "CancelPayload": {
        "reason": {"description": "recorded"},
        "compensate": {"description": "whether completed steps are undone"},
    },
    "MigratePayload": {"version": {"description": "a deployed version of the same workflow"}},
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


_ASKED: Final[dict[str, str]] = {
    START: "Start an execution.",
    SIGNAL: "Tell an execution something. Kept until a step waits for it.",
    ANSWER: "Approve or reject. `metadata.user_id` and `metadata.roles` say who answers.",
    PAUSE: "Begin nothing new until it is resumed; steps that run may end.",
    RESUME: "End a pause, or try a blocked execution again now.",
    CANCEL: "Stop what runs, undo what was done, end.",
    TERMINATE: "End it now, as it is: nothing is undone.",
    RETRY: "Try a failed execution again, in place, from what had failed.",
    MIGRATE: "Go on with another version of the definition.",
    CHILD_ENDED: "How a child execution ended: published by the engine, for the parent.",
    STEP_RESULT: "How an attempt at a step of a queue ended: published by the worker that made it.",
}


def task_kinds(template: str) -> dict[str, Schema]:
    """One schema for each type of task, by the type's name."""
    return {
        kind: {
            "title": kind,
            "description": _ASKED[kind],
            "allOf": [{"$ref": template.format(name=model.__name__)}],
            "properties": {"type": {"const": kind}},
            "required": ["type", "workflow_id" if kind == START else "execution_id"],
        }
        for kind, model in TASK_MODELS.items()
    }


def task_schema() -> Schema:
    """The JSON Schema of what may be published on ``workflow.tasks.<tenant>``."""
    definitions = component_schemas([*TASK_MODELS.values()], IN_DEFS)
    return {
        "$schema": DIALECT,
        "$id": f"{BASE}task.schema.json",
        "title": "wpa task",
        "description": "A message that asks, on `workflow.tasks.<tenant>`. Only `type`, and what that type "
        "needs, is required; fields that are not named here are ignored.",
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"enum": list(TASK_MODELS), "description": "what is asked"}},
        "oneOf": [{"$ref": IN_DEFS.format(name=kind)} for kind in TASK_MODELS],
        "examples": [
            {"type": START, "workflow_id": "order", "payload": {"input_data": {}}},
            {"type": SIGNAL, "execution_id": "order-4711", "payload": {"signal": "paid", "payload": 12}},
        ],
        "$defs": {**task_kinds(IN_DEFS), **definitions},
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
