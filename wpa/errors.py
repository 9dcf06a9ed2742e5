"""The one error tree.

The class of an error answers one question: what becomes of it?

* :class:`DefinitionError`: refused when a definition is deployed. Nothing ran.
* :class:`TaskRejected`: a task that can't be understood or may not run. It goes to the
  dead-letter subject with its reason; the execution, if there is one, is untouched.
* :class:`WorkflowError`: recorded in the journal: the step, or the execution, failed.
* :class:`PlatformError`: nothing was recorded; the same turn is tried again.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = [
    "Broken",
    "CodeDiffers",
    "CodeMissing",
    "Conflict",
    "DefinitionError",
    "FlowMissing",
    "InvalidName",
    "Newer",
    "NotFound",
    "OverLimit",
    "PlatformError",
    "PoisonMessage",
    "Problem",
    "StepFailed",
    "StepsMissing",
    "Superseded",
    "TaskRejected",
    "TooLarge",
    "Unavailable",
    "WorkflowError",
    "WpaError",
]

PLACES_SHOWN: Final = 3
"""Of a task's problems, in a log."""


class WpaError(Exception):
    """The root of every error that wpa raises on purpose."""


class Problem:
    """One thing that is wrong with a document: where, what, and what to do about it."""

    __slots__ = ("hint", "message", "path")

    def __init__(self, path: str, message: str, hint: str = "") -> None:
        self.path = path
        self.message = message
        self.hint = hint

    def as_dict(self) -> dict[str, str]:
        return {"path": self.path, "message": self.message, "hint": self.hint}

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" + (f" ({self.hint})" if self.hint else "")

    def __repr__(self) -> str:
        return f"Problem({self.path!r}, {self.message!r}, {self.hint!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Problem) and self.as_dict() == other.as_dict()

    def __hash__(self) -> int:
        return hash((self.path, self.message, self.hint))


class DefinitionError(WpaError):
    """A definition was refused. ``problems`` holds all that is wrong with it, not only the first."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("; ".join(str(problem) for problem in problems))


class TaskRejected(WpaError):
    """A task that can't be understood or may not run.

    Args:
        code: a stable, machine-readable word (``not_json``, ``unknown_workflow``, ``conflict`` ...).
        message: what was wrong, where, and what to do.
        problems: every single complaint, where there are several.
    """

    def __init__(self, code: str, message: str, problems: list[Problem] | None = None) -> None:
        self.code = code
        self.message = message
        self.problems = problems or []
        super().__init__(f"{code}: {message}")

    @property
    def outline(self) -> str:
        """What is wrong and where, without a word of what the task holds: for a log, which tenants share."""
        places = ", ".join(problem.path for problem in self.problems[:PLACES_SHOWN])
        return f"{self.code} at {places}" if places else self.code

    def as_dict(self) -> dict[str, Any]:
        body: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.problems:
            body["problems"] = [problem.as_dict() for problem in self.problems]
        return body


class InvalidName(TaskRejected, ValueError):
    """A tenant, workflow, version, execution or step name that may not be a subject token."""

    def __init__(self, message: str) -> None:
        super().__init__("invalid_name", message)


class OverLimit(TaskRejected):
    """A task larger, deeper or longer than the limits at the door allow."""

    def __init__(self, message: str) -> None:
        super().__init__("over_limit", message)


class PoisonMessage(TaskRejected):
    """A task, or an execution, that ends whoever takes it: its workers, and a process in which it was tried.

    Args:
        message: how that went.
        readable: whether it may be decoded at least.
    """

    def __init__(self, message: str, *, readable: bool = True) -> None:
        super().__init__("poison_message", message)
        self.readable = readable


class NotFound(TaskRejected):
    """What was asked for (a workflow, a version, an execution) isn't there."""


class Broken(NotFound):
    """A definition that is stored and can't be read: as if it weren't there, until somebody mends it.

    Args:
        key: where it is stored.
        reason: what is wrong with it.
        remedy: what to do.
    """

    def __init__(self, key: str, reason: str, remedy: str) -> None:
        message = f"what is stored under wpa_definitions {key} can't be read ({reason}): {remedy}"
        super().__init__("broken_definition", message)


class WorkflowError(WpaError):
    """Recorded in the journal: this step, or this execution, failed."""


class StepFailed(WorkflowError):
    """Raised by a step to say how it failed.

    Args:
        message: what a reader of the history needs to know.
        type: the error type that ``retry_on`` and ``give_up_on`` match; the class name by default.
        retryable: False gives up at once, whatever the retry policy says.
        details: JSON data recorded with the failure.
    """

    def __init__(
        self,
        message: str = "",
        *,
        type: str | None = None,
        retryable: bool = True,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.type = type or self.__class__.__name__
        self.retryable = retryable
        self.details = details or {}


class PlatformError(WpaError):
    """Nothing was recorded; the turn is tried again."""


class Conflict(PlatformError):
    """A compare-and-set lost: somebody else wrote first. Reload and decide again."""


class TooLarge(PlatformError):
    """More bytes than the server takes in one message."""


class Superseded(PlatformError):
    """A newer epoch drives the execution. Stop at once: no append, no ack, no nak."""


class Newer(PlatformError):
    """The stored data has a newer format than this worker reads: hand the task back."""


class CodeMissing(PlatformError):
    """A task that this worker has not the code for: hand it back, for a worker that has."""


class FlowMissing(CodeMissing):
    """A flow that other workers have, or had, and this one has not."""

    def __init__(self, flow: str) -> None:
        self.flow = flow
        super().__init__(
            f"the flow {flow!r} is not installed in this worker; "
            "another one has to take it, or its plugin has to be installed here"
        )


class CodeDiffers(CodeMissing):
    """A flow whose code can't go on here, while another worker has other code for it."""


class StepsMissing(CodeMissing):
    """A plan whose step types another worker has, and this one has not."""


class Unavailable(PlatformError):
    """The server can't be reached, or can't say: the outcome is unknown until read back."""
