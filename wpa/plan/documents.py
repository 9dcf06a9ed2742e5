"""The definition language as it is written: pydantic models of the JSON document.

The models give three things: the shape check at deploy time, the JSON Schema in ``schemas/``, and the
typed document that :mod:`wpa.plan.compile` turns into a program. What needs more than the shape (names,
cycles, expressions, schemas of step types) is in :mod:`wpa.plan.check`.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from wpa.plan.expressions import LOCALS, RESERVED, ROOTS
from wpa.plan.fields import Duration, Expression, Model, SignalName, StepId, StepIds, Version, WorkflowId
from wpa.plan.starts import Schedule, Trigger

__all__ = [
    "Backoff",
    "Branch",
    "Compensation",
    "Decision",
    "Defaults",
    "Document",
    "Foreach",
    "Join",
    "Repeat",
    "RetryPolicy",
    "Signal",
    "Step",
]

ITEMS_MAX: Final = 10_000
ROUNDS_MAX: Final = 100_000


class Backoff(Model):
    """How long to wait between attempts: initial, then factor times as long each time, up to max."""

    initial: Duration = "1s"
    factor: Annotated[float, Field(ge=1, le=100, strict=False)] = 2.0
    max: Duration = "60s"
    jitter: Annotated[
        float, Field(ge=0, le=1, strict=False, description="the share of the wait that is spread")
    ] = 0.2


class RetryPolicy(Model):
    """When a failed attempt is tried again."""

    max_attempts: Annotated[int, Field(ge=1, le=10_000)] = 3
    backoff: Backoff = Backoff()
    retry_on: list[str] = Field(default_factory=list, description="retry only these error types")
    give_up_on: list[str] = Field(default_factory=list, description="never retry these error types")


class Compensation(Model):
    """What undoes a completed step when a later one fails."""

    uses: Annotated[str, Field(description="the step type that undoes the step")]
    inputs: dict[str, Any] = Field(
        default_factory=dict,
        alias="with",
        description="its inputs; ${ } expressions see the step's own output",
    )
    retry: RetryPolicy | None = None
    timeout: Duration | None = None


def _join(value: Any) -> Any:
    if value in ("all", "any", "race") or (type(value) is int and value >= 1):
        return value
    raise ValueError("must be 'all', 'any', 'race', or how many of its needs the step waits for")


Join = Annotated[
    Literal["all", "any", "race"] | Annotated[int, Field(ge=1)],
    BeforeValidator(_join),
    Field(
        description="how many of its needs are waited for: all, any (one), so many, or race: one, and the "
        "branches that only lead here are cancelled"
    ),
]


def _local_name(value: str) -> str:
    if value in (*ROOTS, *LOCALS) or RESERVED.fullmatch(value):
        raise ValueError(f"{value!r} has a meaning of its own in expressions; choose another name")
    return value


def _list_or_expression(value: Any) -> Any:
    if not isinstance(value, str | list):
        raise ValueError("must be a list, or an expression that gives one")
    return value


class Foreach(Model):
    """Runs the step once for each item of a list; the output is the list of the outputs."""

    items: Annotated[
        Expression | list[Any],
        BeforeValidator(_list_or_expression),
        Field(alias="in", description="the list, or an expression that gives it"),
    ]
    name: Annotated[
        str,
        Field(
            alias="as", pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$", description="what expressions call the item"
        ),
        AfterValidator(_local_name),
    ] = "item"
    concurrency: Annotated[int, Field(ge=1, le=1_000, description="items at a time")] = 10
    on_error: Annotated[
        Literal["fail", "continue"],
        Field(description="what an item that gives up does: fail the step, or leave null in its place"),
    ] = "fail"
    max: Annotated[int, Field(ge=1, le=ITEMS_MAX, description="a longer list fails the step")] = ITEMS_MAX


class Repeat(Model):
    """Runs the step again and again; the output is that of the last round."""

    until: Annotated[Expression | None, Field(description="stop when this is true; sees `output`")] = None
    while_: Annotated[
        Expression | None, Field(alias="while", description="go on while this is true; sees `output`")
    ] = None
    max: Annotated[int, Field(ge=1, le=ROUNDS_MAX, description="after so many rounds the step fails")] = 100
    delay: Annotated[Duration | None, Field(description="between two rounds")] = None

    @model_validator(mode="after")
    def _one_condition(self) -> Repeat:
        if (self.until is None) == (self.while_ is None):
            raise ValueError("repeat needs exactly one of 'until' and 'while'")
        return self


class Branch(Model):
    """One way out of a decision: taken when it is the first whose expression is true."""

    when: Expression
    next: Annotated[StepIds, Field(description="the step, or steps, of this branch")]


class Decision(Model):
    """Chooses a branch. Steps that no decision chooses are skipped."""

    id: StepId
    description: str = ""
    needs: list[StepId] = Field(default_factory=list)
    join: Join = "all"
    condition: Annotated[Expression | None, Field(alias="if")] = None
    switch: Annotated[list[Branch], Field(min_length=1, description="branches, tried in order")]
    default: Annotated[StepIds | None, Field(description="taken when no branch is")] = None


class Step(Model):
    """One unit of work."""

    id: StepId
    description: str = ""
    uses: Annotated[str, Field(min_length=1, description="the step type, e.g. http.request")]
    inputs: dict[str, Any] = Field(
        default_factory=dict, alias="with", description="its inputs; strings may hold ${ } expressions"
    )
    needs: list[StepId] = Field(
        default_factory=list, description="steps that must have ended before this one"
    )
    join: Join = "all"
    condition: Annotated[
        Expression | None, Field(alias="if", description="the step is skipped where this is false")
    ] = None
    foreach: Foreach | None = None
    repeat: Repeat | None = None
    priority: Annotated[int, Field(ge=0, le=9, description="among ready steps, higher first")] = 5
    retry: RetryPolicy | None = None
    timeout: Annotated[Duration | None, Field(description="of each attempt")] = None
    deadline: Annotated[Duration | None, Field(description="of all attempts together")] = None
    on_error: Annotated[
        Literal["fail", "continue", "compensate"] | None,
        Field(description="what follows when the step gives up; compensate where the plan has compensations"),
    ] = None
    compensate: Compensation | None = None
    set: dict[str, Any] = Field(
        default_factory=dict, description="variables to set; ${ } expressions see the step's own output"
    )
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


class Defaults(Model):
    """What steps have unless they say otherwise."""

    retry: RetryPolicy | None = None
    timeout: Duration | None = None


class Signal(Model):
    """A signal that executions may be sent."""

    description: str = ""
    payload: Annotated[
        dict[str, Any] | bool | None,
        Field(alias="schema", description="JSON Schema that the signal's payload must fit"),
    ] = None


class Document(Model):
    """A workflow definition of wpa."""

    id: WorkflowId
    version: Annotated[Version, Field(description="immutable: a changed document needs a new version")]
    description: str = ""
    input: Annotated[
        dict[str, Any] | bool | None, Field(description="JSON Schema that every start's input must fit")
    ] = None
    variables: dict[str, Any] = Field(default_factory=dict, description="initial values of vars")
    signals: dict[SignalName, Signal] = Field(
        default_factory=dict, description="signals that executions may be sent, by name"
    )
    triggers: list[Trigger] = Field(
        default_factory=list, max_length=100, description="NATS messages that start or wake executions"
    )
    schedule: Annotated[Schedule | None, Field(description="when executions start by themselves")] = None
    timeout: Annotated[Duration | None, Field(description="of a whole execution, waiting included")] = None
    steps: Annotated[list[StepOrDecision], Field(min_length=1)]
    output: Annotated[Any, Field(description="the execution's output; may hold ${ } expressions")] = None
    defaults: Defaults = Defaults()
    max_parallel: Annotated[int, Field(ge=1, le=1_000, description="steps that run at a time")] = 32
