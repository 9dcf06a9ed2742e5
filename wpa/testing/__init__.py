"""The test kit for authors of workflows: the real engine, in memory, with the clock in the test's hands.

::

    def test_a_payment_waits_for_its_approval(wpa):
        env = wpa("approval.json", mocks={"payments.pay": {"receipt": 7}})
        run = env.start({"payee": "ana"})
        run.approve("ask", user="eva", roles=["finance"], at="2h")
        assert run.result().status == "COMPLETED"

See ``docs/testing.md``. Names are imported when they are first used: pytest loads this package at each start,
wherever wpa is installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from wpa.testing.catalog import Call
    from wpa.testing.crashes import run
    from wpa.testing.environment import WorkflowEnvironment
    from wpa.testing.errors import CrashFailure, NotEnded, ReplayFailure, TestKitError, Unmocked
    from wpa.testing.handle import Run
    from wpa.testing.mocks import child, fail, returns
    from wpa.testing.replaying import Divergence, assert_replays, journals, replay
    from wpa.testing.result import Result

__all__ = [
    "Call",
    "CrashFailure",
    "Divergence",
    "NotEnded",
    "ReplayFailure",
    "Result",
    "Run",
    "TestKitError",
    "Unmocked",
    "WorkflowEnvironment",
    "assert_replays",
    "child",
    "fail",
    "journals",
    "replay",
    "returns",
    "run",
]

_HOMES: Final = {
    "Call": "catalog",
    "CrashFailure": "errors",
    "Divergence": "replaying",
    "NotEnded": "errors",
    "ReplayFailure": "errors",
    "Result": "result",
    "Run": "handle",
    "TestKitError": "errors",
    "Unmocked": "errors",
    "WorkflowEnvironment": "environment",
    "assert_replays": "replaying",
    "child": "mocks",
    "fail": "mocks",
    "journals": "replaying",
    "replay": "replaying",
    "returns": "mocks",
    "run": "crashes",
}
"""The module of each name."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return found
