"""An execution that has ended is let go of at once: nothing of it waits for the garbage collector."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from wpa.engine.drive import Drive
from wpa.engine.driver import Driver
from wpa.kernel.execution import Execution
from wpa.testing import WorkflowEnvironment

ECHO = {"uses": "core.echo", "with": {"a": 1}}
FAIL = {"uses": "core.fail", "with": {"retryable": False}}
PLANS: dict[str, list[dict[str, Any]]] = {
    "two in a row": [{"id": "a", **ECHO}, {"id": "b", **ECHO, "needs": ["a"]}],
    "two side by side": [{"id": "a", **ECHO}, {"id": "b", **ECHO}],
    "one that fails": [{"id": "a", **FAIL}],
    "one that is undone": [{"id": "a", **ECHO, "compensate": ECHO}, {"id": "b", **FAIL, "needs": ["a"]}],
    "one with a time-out": [{"id": "a", **FAIL, "timeout": "5s"}],
    "one that waits": [{"id": "a", "uses": "core.sleep", "with": {"for": "1h"}}],
}


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("name", PLANS)
def test_nothing_of_it_is_left(name: str, uncollected: None) -> None:
    with WorkflowEnvironment({"id": "w", "version": "1", "steps": PLANS[name]}) as env:
        before = left()
        env.start({}).result()
        assert left() == before


def left() -> list[str]:
    kinds = (Driver, Drive, Execution)
    return [type(found).__name__ for found in gc.get_objects() if isinstance(found, kinds)]
