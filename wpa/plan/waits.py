"""The built-in step types that do no work but wait: ``core.sleep``, ``core.wait``, ``core.approval``,
and ``core.workflow``.

They never reach a plugin. Their inputs are models of their own: what is constant is checked when the
definition is deployed, what an expression gives when the step is wanted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
from pydantic import AfterValidator, Field, StringConstraints, ValidationError, model_validator

from wpa.errors import Problem
from wpa.kernel.program import Approval, Child, Escalation, Wait, WantKind
from wpa.model.ids import EXECUTION
from wpa.model.steptype import StepSignature
from wpa.model.times import parse_ms
from wpa.plan.complaints import translate
from wpa.plan.documents import Step
from wpa.plan.durations import parse_duration_ms
from wpa.plan.fields import Duration, Model, Names, SignalName, Version, WorkflowId
from wpa.plan.templates import has_expression

__all__ = ["KINDS", "SIGNATURES", "InvalidWait", "check_child", "check_wait", "wait_for"]


DEFAULT_BYTES_MAX: Final = 64 * 1024
"""It is recorded as it is, in an event."""


class InvalidWait(ValueError):
    """Inputs that a waiting step can't take: which of them, and why."""


def _short(value: Any) -> Any:
    if (size := len(msgspec.json.encode(value))) > DEFAULT_BYTES_MAX:
        raise ValueError(f"has {size} bytes; the most is {DEFAULT_BYTES_MAX}")
    return value


Default = Annotated[
    Any,
    AfterValidator(_short),
    Field(description="the output when the time is out; without it, the step fails: Timeout"),
]


class _Inputs(Model):
    """The inputs of a waiting step type."""

    stand_ins: ClassVar[Mapping[str, Any]]
    """For each input a value that fits: it stands for an expression, which may give anything."""

    def wait(self, timeout_ms: int | None) -> Wait:
        """What is waited for; ``timeout_ms`` is the time-out of the step itself."""
        raise NotImplementedError


def _moment(value: str) -> str:
    try:
        parse_ms(value)
    except ValueError:
        raise ValueError(
            f"{value[:60]!r} is no moment; write it as 2026-11-20T10:00:00Z, with a time zone"
        ) from None
    return value


class Sleep(_Inputs):
    """Wait for a time, or until a moment. A moment that is past is no wait at all."""

    for_: Annotated[Duration | None, Field(alias="for", description="how long")] = None
    until: Annotated[
        str | None,
        AfterValidator(lambda value: value if value is None else _moment(value)),
        Field(description="a moment, RFC 3339"),
    ] = None

    stand_ins: ClassVar[Mapping[str, Any]] = {"for": "1s", "until": "2026-11-20T10:00:00Z"}

    @model_validator(mode="after")
    def _one_end(self) -> Sleep:
        if (self.for_ is None) == (self.until is None):
            raise ValueError("core.sleep needs exactly one of 'for' and 'until'")
        return self

    def wait(self, timeout_ms: int | None) -> Wait:
        return Wait(delay_ms=_ms(self.for_), until=self.until or "")


class AwaitSignal(_Inputs):
    """Wait for a signal; the output is its payload. One that came before the wait counts, too."""

    signal: Annotated[SignalName, Field(description="the name of the signal")]
    timeout: Annotated[Duration | None, Field(description="how long to wait; for ever by default")] = None
    default: Default = None

    stand_ins: ClassVar[Mapping[str, Any]] = {"signal": "name", "timeout": "1s"}

    def wait(self, timeout_ms: int | None) -> Wait:
        return Wait(
            signal=self.signal,
            delay_ms=_first(_ms(self.timeout), timeout_ms),
            has_default="default" in self.model_fields_set,
            default=self.default,
        )


class Escalate(Model):
    """Who else may answer, some time later."""

    after: Duration
    users: Names = Field(default_factory=list)
    roles: Names = Field(default_factory=list)

    @model_validator(mode="after")
    def _somebody(self) -> Escalate:
        if not self.users and not self.roles:
            raise ValueError("an escalation needs 'users' or 'roles' to go to")
        return self


class AwaitApproval(_Inputs):
    """Wait for people to approve or reject; the output is {"approved", "answers"}."""

    users: Names = Field(default_factory=list, description="who may answer, by name")
    roles: Names = Field(
        default_factory=list, description="who may answer, by role; nobody named: anybody may"
    )
    count: Annotated[int, Field(ge=1, le=100, description="so many different people have to approve")] = 1
    message: Annotated[str, Field(description="what they are asked")] = ""
    timeout: Annotated[Duration | None, Field(description="how long to wait; for ever by default")] = None
    default: Default = None
    escalate: list[Escalate] = Field(
        default_factory=list, description="who else may answer, and from when on"
    )

    stand_ins: ClassVar[Mapping[str, Any]] = {
        "users": [],
        "roles": ["role"],
        "count": 1,
        "message": "",
        "timeout": "1s",
        "escalate": [],
    }

    @model_validator(mode="after")
    def _enough_people(self) -> AwaitApproval:
        people = {*self.users, *(user for step in self.escalate for user in step.users)}
        by_name = self.users and not self.roles and not any(step.roles for step in self.escalate)
        if by_name and len(people) < self.count:
            raise ValueError(f"{self.count} have to approve, but only {len(people)} may answer")
        return self

    def wait(self, timeout_ms: int | None) -> Wait:
        escalations = tuple(
            Escalation(
                after_ms=parse_duration_ms(step.after), users=tuple(step.users), roles=tuple(step.roles)
            )
            for step in self.escalate
        )
        return Wait(
            delay_ms=_first(_ms(self.timeout), timeout_ms),
            has_default="default" in self.model_fields_set,
            default=self.default,
            approval=Approval(
                users=tuple(self.users),
                roles=tuple(self.roles),
                count=self.count,
                escalations=tuple(sorted(escalations, key=lambda step: step.after_ms)),
                message=self.message,
            ),
        )


class StartWorkflow(_Inputs):
    """Start another workflow and wait for its output, or, with wait: false, don't."""

    workflow: Annotated[WorkflowId, Field(description="the workflow to start")]
    version: Annotated[Version | None, Field(description="the latest by default")] = None
    input: Any = Field(default_factory=dict, description="its input")
    execution_id: Annotated[
        Annotated[str, StringConstraints(pattern=f"^{EXECUTION.pattern}$")] | None,
        Field(description="the id of its execution; one is made by default"),
    ] = None
    wait_: Annotated[bool, Field(alias="wait", description="wait for its end")] = True
    on_cancel: Annotated[
        Literal["cancel", "abandon"],
        Field(description="what becomes of it when nobody waits for it any more"),
    ] = "cancel"

    stand_ins: ClassVar[Mapping[str, Any]] = {
        "workflow": "name",
        "version": "1",
        "execution_id": "id",
        "wait": True,
        "on_cancel": "cancel",
    }

    def wait(self, timeout_ms: int | None) -> Wait:
        return Wait(
            delay_ms=timeout_ms,
            child=Child(
                workflow=self.workflow,
                version=self.version or "",
                input=self.input,
                execution=self.execution_id or "",
                detached=not self.wait_,
                on_cancel=self.on_cancel,
            ),
        )


def _ms(duration: str | None) -> int | None:
    return None if duration is None else parse_duration_ms(duration)


def _first(first: int | None, second: int | None) -> int | None:
    return second if first is None else first


_MODELS: Final[Mapping[str, type[_Inputs]]] = {
    "core.sleep": Sleep,
    "core.wait": AwaitSignal,
    "core.approval": AwaitApproval,
    "core.workflow": StartWorkflow,
}
KINDS: Final[Mapping[str, WantKind]] = {
    "core.sleep": "timer",
    "core.wait": "signal",
    "core.approval": "approval",
    "core.workflow": "child",
}
"""The waiting step types, and the kind of slot that each of them wants."""

_MEANINGLESS: Final[Mapping[str, str]] = {
    "retry": "use repeat to wait again",
    "deadline": "use timeout",
    "at_most_once": "take it away",
    "queue": "take it away",
}
"""Fields of a step that a waiting step can't have, and what to do instead."""

_VERDICT: Final = {
    "type": "object",
    "properties": {
        "approved": {"type": "boolean"},
        "answers": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {key: {"type": "string"} for key in ("by", "decision", "comment", "at")},
            },
        },
    },
}
_OUTPUTS: Final[Mapping[str, dict[str, Any]]] = {"core.sleep": {"type": "null"}, "core.approval": _VERDICT}

SIGNATURES: Final[Mapping[str, StepSignature]] = {
    name: StepSignature(
        name=name,
        input_schema=model.model_json_schema(by_alias=True),
        output_schema=_OUTPUTS.get(name, {}),
        description=(model.__doc__ or "").strip(),
    )
    for name, model in _MODELS.items()
}
"""The waiting step types as a plugin would announce them."""


def wait_for(uses: str, inputs: Any, timeout_ms: int | None) -> Wait:
    """What a step of the waiting type ``uses`` waits for. Raises InvalidWait for inputs that don't fit."""
    try:
        return _MODELS[uses].model_validate(inputs).wait(timeout_ms)
    except ValidationError as error:
        model = _MODELS[uses]
        problems = [translate(item, model) for item in error.errors(include_url=False, include_context=False)]
        raise InvalidWait("; ".join(f"{uses}: {problem}" for problem in problems)) from None


def check_wait(step: Step, path: str) -> list[Problem]:
    """All that is wrong with the constants of a waiting step, and with its other fields."""
    problems = [
        Problem(f"{path}.{field}", f"{step.uses} is no work: {field!r} means nothing here", hint)
        for field, hint in _MEANINGLESS.items()
        if field in step.model_fields_set
    ]
    if step.timeout is not None:
        if step.uses == "core.sleep":
            problems.append(Problem(f"{path}.timeout", "core.sleep has no time-out", "use 'for' or 'until'"))
        elif "timeout" in step.inputs:
            problems.append(Problem(f"{path}.timeout", "the time-out stands in 'with', too", "give it once"))
        elif step.inputs.get("wait") is False:
            problems.append(Problem(f"{path}.timeout", "with wait: false there is nothing to time out"))
    if "default" in step.inputs and step.timeout is None and "timeout" not in step.inputs:
        hint = "add a timeout, or take the default away"
        problems.append(Problem(f"{path}.with.default", "without a timeout, the default is never used", hint))
    return problems + _check_inputs(_MODELS[step.uses], step.inputs, f"{path}.with")


def check_child(inputs: Mapping[str, Any], path: str) -> list[Problem]:
    """All that is wrong with the inputs of a ``core.workflow`` that undoes something."""
    return _check_inputs(_MODELS["core.workflow"], inputs, path)


def _check_inputs(model: type[_Inputs], inputs: Mapping[str, Any], path: str) -> list[Problem]:
    given = {
        name: model.stand_ins.get(name) if has_expression(value) else value for name, value in inputs.items()
    }
    try:
        model.model_validate(given)
    except ValidationError as error:
        return [
            translate(item, model, path) for item in error.errors(include_url=False, include_context=False)
        ]
    return []
