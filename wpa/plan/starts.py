"""What starts or wakes executions by itself, as it is written: triggers and schedules."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from wpa.plan.durations import parse_duration_ms
from wpa.plan.fields import Duration, Expression, Model, SignalName
from wpa.plan.subjects import check_stream, check_subject

__all__ = ["Schedule", "Trigger", "TriggerSignal", "TriggerStart"]

Text = Annotated[str, Field(min_length=1)]
ABOUT = "may hold ${ } expressions over message, subject and headers"


def _subject(value: str) -> str:
    check_subject(value)
    return value


def _stream(value: str) -> str:
    check_stream(value)
    return value


class TriggerStart(Model):
    """Starts an execution for each message."""

    input: Annotated[Any, Field(description=f"its input; {ABOUT}; by default the message itself")] = (
        "${message}"
    )
    execution_id: Annotated[Text | None, Field(description=f"its id; {ABOUT}")] = None
    idempotency_key: Annotated[
        Text | None, Field(description=f"of several messages with the same key one counts; {ABOUT}")
    ] = None


class TriggerSignal(Model):
    """Sends a signal to the execution that each message is about."""

    name: SignalName
    correlation: Annotated[Text, Field(description=f"the execution's id; {ABOUT}")]
    payload: Annotated[Any, Field(description=f"its payload; {ABOUT}; by default the message itself")] = (
        "${message}"
    )
    id: Annotated[
        Text | None, Field(description=f"of several signals with the same id one counts; {ABOUT}")
    ] = None


class Trigger(Model):
    """Turns messages on a NATS subject into starts or signals."""

    subject: Annotated[
        str, AfterValidator(_subject), Field(description="a NATS subject; * and > are wildcards")
    ]
    stream: Annotated[
        Annotated[str, AfterValidator(_stream)] | None,
        Field(
            description="a JetStream stream of your own that captures the subject: then no message is missed",
            examples=["DATA"],
        ),
    ] = None
    beginning: Annotated[
        Literal["new", "first"] | None,
        Field(
            alias="from",
            description="where in the stream it begins when it is first deployed; new by default",
        ),
    ] = None
    filter: Annotated[
        Expression | None, Field(description="messages for which this is false are left alone")
    ] = None
    start: TriggerStart | None = None
    signal: TriggerSignal | None = None

    @model_validator(mode="after")
    def _one_effect(self) -> Trigger:
        if (self.start is None) == (self.signal is None):
            raise ValueError("a trigger needs exactly one of 'start' and 'signal'")
        if self.beginning is not None and self.stream is None:
            raise ValueError("'from' says where in a stream to begin; it needs 'stream'")
        return self


def _interval(value: str) -> str:
    if parse_duration_ms(value) < 1_000:
        raise ValueError(f"{value!r} is too often; the shortest interval is 1s")
    return value


class Schedule(Model):
    """Starts executions at certain times."""

    cron: Annotated[
        str | None,
        Field(description="second minute hour day month weekday", examples=["0 0 6 * * *"]),
    ] = None
    every: Annotated[Duration | None, AfterValidator(lambda v: v if v is None else _interval(v))] = None
    time_zone: Annotated[
        str, Field(description="of the cron expression; UTC by default", examples=["Europe/Madrid"])
    ] = ""
    input: dict[str, Any] = Field(default_factory=dict, description="the input of every execution")
    overlap: Annotated[
        Literal["skip", "allow", "cancel_old"],
        Field(description="what happens when the execution before has not ended yet"),
    ] = "skip"
    catch_up: Annotated[
        Literal["one", "none", "all"],
        Field(description="which of the starts that were missed in an outage are made up for"),
    ] = "one"
    paused: bool = False

    @model_validator(mode="after")
    def _one_clock(self) -> Schedule:
        if (self.cron is None) == (self.every is None):
            raise ValueError("a schedule needs exactly one of 'cron' and 'every'")
        if self.every is not None and self.time_zone:
            raise ValueError("'time_zone' goes with 'cron'; 'every' needs none")
        return self
