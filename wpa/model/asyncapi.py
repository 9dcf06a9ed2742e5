"""The public contract as data: an AsyncAPI 3.0 document of all subjects, with every message's shape.

Generated from the same models as the JSON Schemas (see :mod:`wpa.model.schema`), and checked in and
compared likewise.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from wpa.model.api import VERBS, Refusal
from wpa.model.event_data import EVENT_DATA
from wpa.model.events import Event
from wpa.model.live_events import LIVE_EVENTS
from wpa.model.schema import TASK_MODELS, Schema, component_schemas, event_kinds, prose, task_kinds

__all__ = ["asyncapi"]

IN_COMPONENTS: Final = "#/components/schemas/{name}"


def asyncapi(definition_schema: Schema) -> Schema:
    """The AsyncAPI 3.0 document of all public subjects, seen from wpa: it receives tasks, sends events.

    ``definition_schema`` is the JSON Schema of the definition language (``wpa.plan.json_schema()``).
    """
    models: list[type[msgspec.Struct]] = [
        *TASK_MODELS.values(),
        Event,
        Refusal,
        *EVENT_DATA.values(),
        *LIVE_EVENTS.values(),
        *(model for verb in VERBS.values() for model in (verb.request, verb.reply)),
    ]
    schemas = {
        **task_kinds(IN_COMPONENTS),
        **event_kinds(IN_COMPONENTS),
        **component_schemas(models, IN_COMPONENTS),
        **_definition(definition_schema),
    }
    definition = {"$ref": IN_COMPONENTS.format(name="Definition")}
    schemas["DeployRequest"]["properties"]["document"] = definition
    schemas["DefinitionReply"]["properties"]["document"] = {
        "anyOf": [definition, {"type": "object", "description": "of a flow: what is known of it"}]
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "wpa",
            "version": "1.0.0",
            "description": "Durable workflows on NATS JetStream. Publish a task, follow the events; any NATS "
            "client in any language will do. This version is the contract's, not the engine's.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {**_channels(), **_api_channels()},
        "operations": {**_operations(), **_api_operations()},
        "components": {
            "schemas": schemas,
            "messages": {**_messages(), **_api_messages()},
            "parameters": {
                "tenant": {
                    "description": "the owner of definitions and executions: [a-z0-9][a-z0-9_-]{0,62}"
                },
                "execution": {"description": "an execution's id: [A-Za-z0-9_-]{1,128}"},
                "subject": {"description": "what a step chose to publish on; may hold dots"},
            },
        },
    }


def _definition(schema: Schema) -> dict[str, Schema]:
    """The definition language with its parts beside it, under names that nobody else has."""

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: item.replace("#/$defs/", IN_COMPONENTS.format(name="Definition"))
                if key == "$ref" and isinstance(item, str)
                else moved(item)
                for key, item in value.items()
            }
        return [moved(item) for item in value] if isinstance(value, list) else value

    parts = {f"Definition{name}": moved(part) for name, part in schema.get("$defs", {}).items()}
    whole = {key: value for key, value in schema.items() if key not in ("$defs", "$schema", "$id")}
    return {"Definition": moved(whole), **parts}


def _ref(kind: str, name: str) -> Schema:
    return {"$ref": f"#/components/{kind}/{name}"}


def _headers(**headers: str) -> Schema:
    named = {name.replace("_", "-"): {"type": "string", "description": of} for name, of in headers.items()}
    return {"type": "object", "properties": named}


def _messages() -> dict[str, Schema]:
    tasks: dict[str, Schema] = {
        name: {
            "title": name,
            "summary": kind["description"],
            "payload": _ref("schemas", name),
            "headers": _headers(
                traceparent="W3C trace context; a started execution's events continue the trace",
                Wpa_Reply="an inbox (`_INBOX.…`) that gets the engine's answer, or the error",
            ),
        }
        for name, kind in task_kinds(IN_COMPONENTS).items()
    }
    events = {
        name: {
            "title": name,
            "summary": prose(data.__doc__ or ""),
            "payload": _ref("schemas", name),
            "headers": _headers(
                ce_specversion="CloudEvents: 1.0 (NATS binding, binary mode)",
                ce_id="CloudEvents: the event's id",
                ce_source="CloudEvents: /wpa/<tenant>/<workflow>",
                ce_type=f"CloudEvents: wpa.{name}",
                ce_subject="CloudEvents: the execution",
                ce_time="CloudEvents: the event's timestamp",
                traceparent="W3C trace context",
            ),
        }
        for name, data in EVENT_DATA.items()
    }
    live = {
        name: {
            "title": name,
            "summary": prose(model.__doc__ or ""),
            "payload": _ref("schemas", model.__name__),
        }
        for name, model in LIVE_EVENTS.items()
    }
    letter: Schema = {
        "title": "a rejected task",
        "summary": "The original bytes, whatever they are, with the reason in the headers.",
        "contentType": "application/octet-stream",
        "payload": {"description": "the original bytes, untouched"},
        "headers": _headers(
            Wpa_Code="why, machine-readable",
            Wpa_Reason="why, in words",
            Wpa_Problems="every single complaint, as JSON, where there are several",
            Wpa_Subject="where the task was published",
            Wpa_Task_Sequence="its sequence there",
            Wpa_Rejected_At="when it was rejected, RFC 3339",
            Wpa_Worker="who rejected it",
            Task_Name="what it was called; the task that is made of it again is called the same",
        ),
    }
    emitted: Schema = {
        "title": "what a step published",
        "payload": {"description": "any JSON, as the step made it"},
    }
    return {**tasks, **events, **live, "dead_letter": letter, "emitted": emitted}


def _channel(
    address: str | None, messages: list[str], description: str = "", parameters: tuple[str, ...] = ("tenant",)
) -> Schema:
    channel: Schema = {
        "address": address,
        "messages": {name: _ref("messages", name) for name in messages},
    }
    if description:
        channel["description"] = description
    if address is not None:
        channel["parameters"] = {name: _ref("parameters", name) for name in parameters}
    return channel


def _channels() -> dict[str, Schema]:
    of_execution = ("tenant", "execution")
    return {
        "tasks": _channel(
            "workflow.tasks.{tenant}",
            list(TASK_MODELS),
            "In stream WPA_TASKS, a work queue: stored when the publish is acknowledged.",
        ),
        "events": _channel(
            "workflow.events.{tenant}.{execution}",
            list(EVENT_DATA),
            "In stream WPA_EVENTS: an execution's journal, in order, for ever. Replay it with a consumer, or "
            "subscribe to `workflow.events.<tenant>.>` to see every event, stored and live, as it happens.",
            of_execution,
        ),
        "live": _channel(
            "workflow.events.{tenant}.{execution}.live",
            list(LIVE_EVENTS),
            "Core NATS only: seen by whoever listens now, stored nowhere.",
            of_execution,
        ),
        "dead_letters": _channel(
            "workflow.dlq.{tenant}",
            ["dead_letter"],
            "In stream WPA_DLQ: tasks that can't be understood or may not run.",
        ),
        "emitted": _channel(
            "workflow.emit.{tenant}.{subject}",
            ["emitted"],
            "Core NATS only: what steps publish, each tenant under its own prefix.",
            ("tenant", "subject"),
        ),
    }


def _operations() -> dict[str, Schema]:
    def operation(action: str, channel: str, summary: str) -> Schema:
        return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}, "summary": summary}

    return {
        "receive_task": operation("receive", "tasks", "take a task and do what it asks"),
        "send_event": operation("send", "events", "record what happened to an execution"),
        "send_live_event": operation("send", "live", "say what is happening right now"),
        "send_dead_letter": operation("send", "dead_letters", "set a task aside that may not run"),
        "send_emitted": operation("send", "emitted", "publish what a step wants published"),
    }


def _api_messages() -> dict[str, Schema]:
    messages: dict[str, Schema] = {"refusal": {"title": "refused", "payload": _ref("schemas", "Refusal")}}
    for name, verb in VERBS.items():
        messages[f"{name}_request"] = {
            "title": f"{name}: request",
            "payload": _ref("schemas", verb.request.__name__),
        }
        messages[f"{name}_reply"] = {
            "title": f"{name}: reply",
            "payload": _ref("schemas", verb.reply.__name__),
        }
    return messages


def _api_channels() -> dict[str, Schema]:
    channels: dict[str, Schema] = {}
    for name, verb in VERBS.items():
        address = f"workflow.api.{{tenant}}.{name}"
        channels[f"api_{name}"] = _channel(address, [f"{name}_request"], f"Request/reply: {verb.summary}.")
        # The reply goes to the inbox that the request names.
        channels[f"api_{name}_reply"] = _channel(None, [f"{name}_reply", "refusal"])
    return channels


def _api_operations() -> dict[str, Schema]:
    return {
        f"api_{name}": {
            "action": "receive",
            "channel": {"$ref": f"#/channels/api_{name}"},
            "summary": verb.summary,
            "reply": {"channel": {"$ref": f"#/channels/api_{name}_reply"}},
        }
        for name, verb in VERBS.items()
    }
