from __future__ import annotations

import logging
from typing import Any

import pytest

from wpa.hooks import core
from wpa.hooks.steps import step_type_of
from wpa.sdk import StepFailed, fake_context


async def test_noop_takes_anything_and_returns_nothing() -> None:
    assert await core.noop(a=1, b=[2]) is None  # type: ignore[func-returns-value]


async def test_echo_returns_its_inputs() -> None:
    found = step_type_of(core.echo)
    assert found is not None
    inputs = {"a": 1, "nested": {"b": [None, 1.5]}}
    assert found.dump(await found.fn(**found.bind(inputs))) == inputs


async def test_fail_fails_as_it_is_told() -> None:
    with pytest.raises(StepFailed, match="so it goes") as caught:
        await core.fail(fake_context(), message="so it goes", type="Odd", retryable=False)
    assert (caught.value.type, caught.value.retryable) == ("Odd", False)


async def test_fail_can_succeed_in_the_end() -> None:
    for attempt in (1, 2):
        with pytest.raises(StepFailed):
            await core.fail(fake_context(attempt=attempt), until_attempt=3)
    assert await core.fail(fake_context(attempt=3), until_attempt=3) == {"attempt": 3}


async def test_emit_publishes_under_the_tenants_prefix() -> None:
    context = fake_context(tenant="acme")
    assert await core.emit(context, "orders.paid", {"id": 1}) == {"subject": "workflow.emit.acme.orders.paid"}
    assert context.emitted == [("orders.paid", {"id": 1})]


@pytest.mark.parametrize("subject", ["", "a.>", "*", "a b", "a..b", "a\r\nPUB b 0", "a." * 8 + "a", "ñ"])
async def test_emit_refuses_every_other_subject(subject: Any) -> None:
    with pytest.raises(StepFailed) as caught:
        await core.emit(fake_context(), subject)
    assert (caught.value.type, caught.value.retryable) == ("InvalidInput", False)


@pytest.mark.parametrize(("level", "number"), [("debug", 10), ("info", 20), ("warning", 30), ("error", 40)])
async def test_log_writes_a_line(level: Any, number: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "wpa.step"):
        await core.log(fake_context(), "100 % done", level)
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [(number, "100 % done")]


def test_every_built_in_is_described() -> None:
    for declared in core.wpa_steps():
        found = step_type_of(declared)
        assert found is not None
        assert found.name.startswith("core.")
        assert found.signature.description
