"""The definition language as it is written: pydantic models of the JSON document.

The models give three things: the shape check at deploy time, the JSON Schema in ``schemas/``, and the
typed document that :mod:`wpa.plan.compile` turns into a program. What needs more than the shape (names,
cycles, expressions, schemas of step types) is in :mod:`wpa.plan.check`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
)

from wpa.model.ids import STEP, VERSION, VERSION_CHARS_MAX, WORKFLOW
from wpa.plan.durations import parse_duration_ms

__all__ = ["Backoff", "Branch", "Compensation", "Decision", "Defaults", "Document", "RetryPolicy", "Step"]


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
StepIds = Annotated[list[StepId], BeforeValidator(_one_or_many), Field(min_length=1)]
Expression = Annotated[str, Field(description="a CEL expression, with or without ${ } around it")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=False, strict=True)


class Backoff(_Model):
    """How long to wait between attempts: initial, then factor times as long each time, up to max."""

    initial: Duration = "1s"
    factor: Annotated[float, Field(ge=1, le=100, strict=False)] = 2.0
    max: Duration = "60s"
    jitter: Annotated[
        float, Field(ge=0, le=1, strict=False, description="the share of the wait that is spread")
    ] = 0.2


class RetryPolicy(_Model):
    """When a failed attempt is tried again."""

    max_attempts: Annotated[int, Field(ge=1, le=10_000)] = 3
    backoff: Backoff = Backoff()
    retry_on: Annotated[list[str], Field(description="retry only these error types")] = []
    give_up_on: Annotated[list[str], Field(description="never retry these error types")] = []


class Compensation(_Model):
    """What undoes a completed step when a later one fails."""

    uses: Annotated[str, Field(description="the step type that undoes the step")]
    inputs: Annotated[
        dict[str, Any],
        Field(alias="with", description="its inputs; ${ } expressions see the step's own output"),
    ] = {}
    retry: RetryPolicy | None = None
    timeout: Duration | None = None


class Branch(_Model):
    """One way out of a decision: taken when it is the first whose expression is true."""

    when: Expression
    next: Annotated[StepIds, Field(description="the step, or steps, of this branch")]


class Decision(_Model):
    """Chooses a branch. Steps that no decision chooses are skipped."""

    id: StepId
    description: str = ""
    needs: list[StepId] = []
    condition: Annotated[Expression | None, Field(alias="if")] = None
    switch: Annotated[list[Branch], Field(min_length=1, description="branches, tried in order")]
    default: Annotated[StepIds | None, Field(description="taken when no branch is")] = None


class Step(_Model):
    """One unit of work."""

    id: StepId
    description: str = ""
    uses: Annotated[str, Field(min_length=1, description="the step type, e.g. http.request")]
    inputs: Annotated[
        dict[str, Any], Field(alias="with", description="its inputs; strings may hold ${ } expressions")
    ] = {}
    needs: Annotated[list[StepId], Field(description="steps that must have ended before this one")] = []
    condition: Annotated[
        Expression | None, Field(alias="if", description="the step is skipped where this is false")
    ] = None
    priority: Annotated[int, Field(ge=0, le=9, description="among ready steps, higher first")] = 5
    retry: RetryPolicy | None = None
    timeout: Annotated[Duration | None, Field(description="of each attempt")] = None
    deadline: Annotated[Duration | None, Field(description="of all attempts together")] = None
    on_error: Annotated[
        Literal["fail", "continue", "compensate"] | None,
        Field(description="what follows when the step gives up; compensate where the plan has compensations"),
    ] = None
    compensate: Compensation | None = None
    set: Annotated[
        dict[str, Any], Field(description="variables to set; ${ } expressions see the step's own output")
    ] = {}
    queue: Annotated[str, Field(description="the worker group that runs it; empty = this one")] = ""
    at_most_once: Annotated[bool, Field(description="never run it a second time, not even after a crash")] = (
        False
    )


def _kind(value: Any) -> str:
    switch = "switch" in value if isinstance(value, dict) else isinstance(value, Decision)
    return "decision" if switch else "step"


StepOrDecision = Annotated[
    Annotated[Step, Tag("step")] | Annotated[Decision, Tag("decision")], Discriminator(_kind)
]


class Defaults(_Model):
    """What steps have unless they say otherwise."""

    retry: RetryPolicy | None = None
    timeout: Duration | None = None


class Document(_Model):
    """A workflow definition of wpa."""

    id: Annotated[str, StringConstraints(pattern=f"^{WORKFLOW.pattern}$")]
    version: Annotated[
        str,
        BeforeValidator(_version, json_schema_input_type=str | int),
        StringConstraints(pattern=f"^{VERSION.pattern}$", max_length=VERSION_CHARS_MAX),
        Field(description="immutable: a changed document needs a new version"),
    ]
    description: str = ""
    input: Annotated[
        dict[str, Any] | bool | None, Field(description="JSON Schema that every start's input must fit")
    ] = None
    variables: Annotated[dict[str, Any], Field(description="initial values of vars")] = {}
    steps: Annotated[list[StepOrDecision], Field(min_length=1)]
    output: Annotated[Any, Field(description="the execution's output; may hold ${ } expressions")] = None
    defaults: Defaults = Defaults()
    max_parallel: Annotated[int, Field(ge=1, le=1_000, description="steps that run at a time")] = 32
