"""The built-in step types. They come through the same door as everybody else's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

from wpa.errors import StepFailed
from wpa.hooks.specs import hookimpl
from wpa.hooks.steps import step
from wpa.ports.steps import StepContext


@step("core.noop")
async def noop(**inputs: Any) -> None:
    """Do nothing; the output is null."""


@step("core.echo")
async def echo(**inputs: Any) -> dict[str, Any]:
    """Return the inputs as they are."""
    return inputs


@step("core.fail")
async def fail(
    ctx: StepContext,
    message: str = "core.fail was asked to fail",
    type: str = "Failed",
    retryable: bool = True,
    until_attempt: int = 0,
) -> dict[str, Any]:
    """Fail; with until_attempt = N, only before the N-th attempt."""
    if until_attempt and ctx.attempt >= until_attempt:
        return {"attempt": ctx.attempt}
    raise StepFailed(message, type=type, retryable=retryable)


@step("core.emit")
async def emit(ctx: StepContext, subject: str, data: Any = None) -> dict[str, str]:
    """Publish data on workflow.emit.<tenant>.<subject>, a subject under the tenant's own prefix."""
    return {"subject": await ctx.emit(subject, data)}


@step("core.log")
async def log(
    ctx: StepContext, message: str, level: Literal["debug", "info", "warning", "error"] = "info"
) -> None:
    """Write a line to the worker's log."""
    ctx.log.log({"debug": 10, "info": 20, "warning": 30, "error": 40}[level], "%s", message)


@hookimpl
def wpa_steps() -> Iterable[Callable[..., Any]]:
    return [noop, echo, fail, emit, log]
