"""What can be wrong with a flow: its declaration, what it does, and where it is used."""

from __future__ import annotations

from wpa.errors import StepFailed, WpaError

__all__ = ["Discarded", "FlowDeclarationError", "NotDeterministic", "NotInFlow", "TimedOut", "UnknownSlot"]


class FlowDeclarationError(WpaError, TypeError):
    """A function that can't be a flow: raised when the module that declares it is imported."""


class NotDeterministic(WpaError):
    """A flow did what would turn out otherwise when it is replayed: a socket, a file, a thread, a foreign
    future. The message names the line and what to write instead."""


class NotInFlow(WpaError, RuntimeError):
    """``call`` and its like were used where no flow is running."""


class UnknownSlot(WpaError):
    """The run was told about a slot that the flow, as it is now, does not wait for."""


class Discarded(BaseException):
    """Ends the coroutines of a run that is thrown away. No GeneratorExit: that can be raised only once."""


class TimedOut(StepFailed, TimeoutError):
    """A signal or an approval did not come in time; ``except TimeoutError`` catches it, too."""
