"""What the test kit raises: always the test's fault or the workflow's, never to be handled by either."""

from __future__ import annotations

from operator import methodcaller
from typing import Final

from wpa.errors import WpaError

__all__ = ["HIDDEN", "CrashFailure", "NotEnded", "ReplayFailure", "TestKitError", "Unmocked"]

HIDDEN: Final = methodcaller("errisinstance", (WpaError, AssertionError))
"""A module's ``__tracebackhide__``: of what is raised on purpose, pytest shows the test's line, not ours."""


class TestKitError(WpaError, AssertionError):
    """A test that can't go on. An AssertionError, so that test runners count a failure, not an error."""

    __test__ = False
    """Not a test class, whatever its name looks like to a collector."""


class Unmocked(TestKitError):
    """The workflow came to a step, or a child, that the test gave no stand-in for."""


class NotEnded(TestKitError):
    """The execution waits for something that will not come by itself."""


class CrashFailure(TestKitError):
    """After a crash, the workflow did not do what it does without one."""


class ReplayFailure(TestKitError):
    """Today's code does not ask for what a stored journal says was done."""
