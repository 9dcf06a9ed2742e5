"""The kinds of values that the documents are made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from wpa.model.ids import STEP, VERSION, VERSION_CHARS_MAX, WORKFLOW
from wpa.plan.durations import parse_duration_ms

__all__ = [
    "Duration",
    "Expression",
    "Model",
    "Names",
    "SignalName",
    "StepId",
    "StepIds",
    "Version",
    "WorkflowId",
]


def _duration(value: Any) -> Any:
    if isinstance(value, str):
        parse_duration_ms(value)
    return value


def _version(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Duration = Annotated[
    str,
    BeforeValidator(_duration),
    Field(
        description="a duration such as 250ms, 30s, 5m, 24h or 1h30m",
        json_schema_extra={"pattern": r"^(\d+(\.\d+)?(ms|s|m|h|d))+$", "examples": ["250ms", "30s", "24h"]},
    ),
]
StepId = Annotated[str, StringConstraints(pattern=f"^{STEP.pattern}$")]
StepIds = Annotated[
    Annotated[list[StepId], Field(min_length=1)],
    BeforeValidator(
        _one_or_many, json_schema_input_type=StepId | Annotated[list[StepId], Field(min_length=1)]
    ),
]
SignalName = StepId
Name = Annotated[str, StringConstraints(min_length=1)]
Names = Annotated[list[Name], BeforeValidator(_one_or_many, json_schema_input_type=Name | list[Name])]
WorkflowId = Annotated[str, StringConstraints(pattern=f"^{WORKFLOW.pattern}$")]
Version = Annotated[
    str,
    BeforeValidator(_version, json_schema_input_type=str | int),
    StringConstraints(pattern=f"^{VERSION.pattern}$", max_length=VERSION_CHARS_MAX),
]
Expression = Annotated[str, Field(description="a CEL expression, with or without ${ } around it")]


class Model(BaseModel):
    """What all documents have in common: no unknown fields, no coercion, no change."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=False, strict=True)
