"""One execution in a test's hands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from wpa.kernel.waits import waiting_for
from wpa.model.events import Event
from wpa.model.state import State
from wpa.model.tasks import ANSWER, CANCEL, MIGRATE, PAUSE, RESUME, RETRY, SIGNAL, TERMINATE
from wpa.testing.catalog import Call
from wpa.testing.client import Client, Duration, milliseconds
from wpa.testing.errors import HIDDEN
from wpa.testing.result import Result

__all__ = ["Run"]

__tracebackhide__ = HIDDEN


class Run:
    """Made by :meth:`wpa.testing.WorkflowEnvironment.start`.

    What is asked of it is sent as a message, and whatever follows at once has happened when the call returns.
    With ``at``, a duration since its start, it is sent then; time isn't let pass for it. Whoever asks is
    ``user``, with ``roles``, as an approval looks at them. All of it raises TaskRejected where the engine
    refuses, with the engine's own reasons.
    """

    def __init__(self, client: Client, id: str, started_ms: int) -> None:
        self.id = id
        self._client = client
        self._started_ms = started_ms

    def __repr__(self) -> str:
        return f"<Run {self.id}>"

    # -- looking -----------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """All that is recorded of it: the fold of its journal."""
        return self._client.state(self.id)

    @property
    def status(self) -> str:
        """RUNNING, WAITING, PAUSED, COMPENSATING, COMPLETED, FAILED, ROLLED_BACK or CANCELLED."""
        return self.state.status

    @property
    def events(self) -> list[Event]:
        """Its journal so far."""
        return self._client.events(self.id)

    @property
    def waiting_for(self) -> list[dict[str, Any]]:
        """What it waits for: ``slot``, ``step`` and ``kind``; ``until`` and ``name`` where there is one."""
        return waiting_for(self.state)

    @property
    def calls(self) -> list[Call]:
        """Every attempt at its steps so far, in the order in which they were begun."""
        return [call for call in self._client.world.steps.calls if call.execution == self.id]

    def result(self) -> Result:
        """How it ended. Lets time pass until it has, unless the environment has ``auto_skip`` off.

        A workflow that fails is a result, too. Raises NotEnded where it waits for what will not come by
        itself, and Unmocked where it came to a step that the test says nothing of.
        """
        return self._client.result(self.id)

    # -- asking ------------------------------------------------------------------------------

    def signal(
        self, name: str, payload: Any = None, *, id: str = "", user: str = "", at: Duration | None = None
    ) -> None:
        """Send a signal. The same ``id`` twice counts once."""
        self._ask(SIGNAL, {"signal": name, "payload": payload, "id": id}, user, (), at)

    def approve(
        self,
        step: str,
        *,
        user: str = "",
        roles: Iterable[str] = (),
        comment: str = "",
        at: Duration | None = None,
    ) -> None:
        """Approve what the approval at ``step`` asks."""
        self._ask(ANSWER, {"step": step, "approved": True, "comment": comment}, user, roles, at)

    def reject(
        self,
        step: str,
        *,
        user: str = "",
        roles: Iterable[str] = (),
        comment: str = "",
        at: Duration | None = None,
    ) -> None:
        """Reject it."""
        self._ask(ANSWER, {"step": step, "approved": False, "comment": comment}, user, roles, at)

    def pause(self, reason: str = "", *, at: Duration | None = None) -> None:
        """Begin nothing new until it is resumed."""
        self._ask(PAUSE, {"reason": reason}, "", (), at)

    def resume(self, reason: str = "", *, at: Duration | None = None) -> None:
        """End a pause."""
        self._ask(RESUME, {"reason": reason}, "", (), at)

    def cancel(self, reason: str = "", *, compensate: bool = True, at: Duration | None = None) -> None:
        """Stop it: a flow cleans up, and then what was done is undone, unless ``compensate`` is False."""
        self._ask(CANCEL, {"reason": reason, "compensate": compensate}, "", (), at)

    def terminate(self, reason: str = "", *, at: Duration | None = None) -> None:
        """End it as it is."""
        self._ask(TERMINATE, {"reason": reason}, "", (), at)

    def retry(self, *, at: Duration | None = None) -> None:
        """Try a failed execution again, in place."""
        self._ask(RETRY, {}, "", (), at)

    def migrate(self, version: str, *, at: Duration | None = None) -> None:
        """Go on with another version of its plan."""
        self._ask(MIGRATE, {"version": version}, "", (), at)

    def _ask(
        self, type: str, payload: dict[str, Any], user: str, roles: Iterable[str], at: Duration | None
    ) -> None:
        task = {
            "type": type,
            "execution_id": self.id,
            "metadata": {"user_id": user, "roles": list(roles), "source": "test"},
            "payload": payload,
        }
        self._client.ask(task, None if at is None else self._started_ms + milliseconds(at))

    # -- time --------------------------------------------------------------------------------

    def skip(self, duration: Duration) -> None:
        """Let so much time pass, and everything happen that happens in it."""
        self._client.pass_time(self._client.world.clock.now_ms() + milliseconds(duration))
